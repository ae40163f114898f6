"""Records that cannot be taken: set aside with their bytes and a reason, and every other record loads."""

from __future__ import annotations

from datops_assets_tests.bad_input.conftest import CANARY, Landing


def test_nul_bytes_damage_only_their_record(orders: Landing) -> None:
    path = orders.deliver("nul.csv", f"id,note\n1,x\n2,y\0{CANARY}\n3,z\n")
    orders.run()
    orders.require_taken(path, rows=2, damaged={2: ("a NUL byte", f"2,y\0{CANARY}".encode())})


def test_ragged_rows_are_set_aside(orders: Landing) -> None:
    path = orders.deliver("ragged.csv", "id,note\n1,x\n2\n3,y,z\n4,\n")
    orders.run()
    orders.require_taken(
        path,
        rows=2,
        damaged={
            2: ("1 fields where the header has 2", b"2"),
            3: ("3 fields where the header has 2", b"3,y,z"),
        },
    )


def test_a_header_that_is_repeated_is_no_record(orders: Landing) -> None:
    path = orders.deliver("joined.csv", "id,note\n1,x\nid,note\n2,y\n")
    orders.run()
    orders.require_taken(path, rows=2, damaged={2: ("the header is repeated", b"id,note")})


def test_merge_conflict_markers_are_no_records(orders: Landing) -> None:
    text = "id,note\n1,x\n<<<<<<< HEAD\n2,ours\n||||||| base\n2,old\n=======\n2,theirs\n>>>>>>> theirs\n3,z\n"
    path = orders.deliver("conflict.csv", text)
    orders.run()
    said = "a merge-conflict marker"
    orders.require_taken(
        path,
        rows=5,
        damaged={
            2: (said, b"<<<<<<< HEAD"),
            4: (said, b"||||||| base"),
            6: (said, b"======="),
            8: (said, b">>>>>>> theirs"),
        },
    )


def test_a_merge_conflict_in_the_header_refuses_the_file(orders: Landing) -> None:
    path = orders.deliver("conflict.csv", "<<<<<<< HEAD\nid,note\n=======\nid,text\n>>>>>>> theirs\n1,x\n")
    orders.require_refused(orders.run(expect=1), path, "a merge-conflict marker")


def test_lines_of_another_encoding_are_set_aside(orders: Landing) -> None:
    path = orders.deliver("mixed.csv", "id,note\n1,ä\n".encode() + "2,ä\n".encode("latin-1") + b"3,x\n")
    orders.run()
    orders.require_taken(path, rows=2, damaged={2: ("bytes that are not utf-8", b"2,\xe4")})
    assert ("ä",) in orders.bronze("orders", "note")


def test_quotes_in_the_middle_of_unquoted_fields_are_text(orders: Landing) -> None:
    """COPY would join these lines, or drop the quotes."""
    path = orders.deliver("inches.csv", 'id,note\n1,5" pipe\n2,3" by 4"\n3,a"b"c\n4,x\n')
    orders.run()
    orders.require_taken(path, rows=4)
    assert set(orders.bronze("orders", "note")) >= {('5" pipe',), ('3" by 4"',), ('a"b"c',), ("x",)}


def test_quotes_that_make_no_field_are_set_aside_line_by_line(orders: Landing) -> None:
    path = orders.deliver("quotes.csv", 'id,note\n1,"x"y\n2,"ok"\n3,"open\n4,z\n')
    orders.run()
    orders.require_taken(
        path,
        rows=2,
        damaged={1: ("text after a closing quote", b'1,"x"y'), 3: ("a quote is not closed", b'3,"open')},
    )


def test_a_line_that_would_end_a_copy_ends_nothing(orders: Landing) -> None:
    path = orders.deliver("dot.csv", "id,note\n1,x\n\\.\n2,\\.\n3,z\n")
    orders.run()
    orders.require_taken(path, rows=3, damaged={2: ("1 fields where the header has 2", b"\\.")})
    assert ("\\.",) in orders.bronze("orders", "note")


def test_ten_megabytes_in_one_field_arrive_whole(orders: Landing) -> None:
    plain, quoted = "x" * 10_000_000, "y\n" * 5_000_000
    path = orders.deliver("large.csv", f'id,note\n1,{plain}\n2,"{quoted}"\n3,small\n')
    orders.run()
    orders.require_taken(path, rows=3)
    sizes = "select md5(note), length(note) from silver.store_orders where id in (1, 2) order by id"
    expected = orders.warehouse.fetch(
        "select md5(%s), 10000000 union all select md5(%s), 10000000", plain, quoted
    )
    assert orders.warehouse.fetch(sizes) == expected


def test_a_record_of_more_than_64_megabytes_is_set_aside_by_its_beginning(orders: Landing) -> None:
    path = orders.deliver("endless.csv", b'id,note\n1,"' + b"x" * (65 << 20) + b"\n2,y\n")
    orders.run()
    assert orders.loads("orders")[path][:3] == ("loaded", 1, 1)
    ((reason, raw),) = orders.set_aside("orders", path).values()
    assert "the limit is 64 MiB" in reason
    assert raw.startswith(b'1,"xxx')
    assert (2, "y") in orders.silver("orders", "id", "note")


def test_a_file_that_is_one_endless_line_is_refused(orders: Landing) -> None:
    path = orders.deliver("one_line.csv", b"x" * (65 << 20))
    orders.require_refused(orders.run(expect=1), path, "the header cannot be read")


def test_every_kind_of_damage_in_one_file_is_accounted_for(orders: Landing) -> None:
    lines = [b"1,x", b"2", b"3,y\0", b"id,note", b"=======", b"4,\xff", b'5,"z"w', b"6,v", b"\\."]
    lines += [b"", b'7,"a\nb"', b'8,"never']
    path = orders.deliver("all.csv", b"id,note\n" + b"\n".join(lines))
    orders.run()
    assert orders.loads("orders")[path][:3] == ("loaded", 3, 8)
    orders.require_accounted("orders", {"orders/good.csv": 2, path: 11})
    assert [row for row in orders.silver("orders", "id") if row[0] < 1000] == [(1,), (6,), (7,)]
