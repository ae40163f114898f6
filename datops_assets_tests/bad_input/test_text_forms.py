"""Byte order marks, encodings and line ends: the same records, whatever clothes they come in."""

from __future__ import annotations

import codecs

from datops_assets_tests.bad_input.conftest import Landing, Platform

TEXT = 'id,note\n1,ä\n2,"x\ny"\n'


def test_marks_and_encodings_leave_no_trace(platform: Platform) -> None:
    """One table for each, all in one run."""
    cases = [
        ("utf-8", codecs.BOM_UTF8 + TEXT.encode()),
        ("utf-16", TEXT.encode("utf-16")),
        ("utf-16", codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le")),
        ("utf-16", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be")),
        ("utf-16-le", TEXT.encode("utf-16-le")),
        ("utf-16-be", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be")),
        ("utf-32", TEXT.encode("utf-32")),
        ("latin-1", TEXT.encode("latin-1")),
        ("cp1252", TEXT.encode("cp1252")),
        ("utf-8-sig", TEXT.encode("utf-8-sig")),
    ]
    columns = "contract: {columns: {id: {type: bigint}, note: {type: text}}}"
    for number, (encoding, content) in enumerate(cases):
        platform.declare(f"t{number}", f"files: {number}.csv\ncsv: {{encoding: {encoding}}}\n{columns}")
        platform.put(f"{number}.csv", content)
    platform.run()
    for number in range(len(cases)):
        assert platform.silver(f"t{number}", "id", "note") == [(1, "ä"), (2, "x\ny")], cases[number]


def test_records_end_where_their_lines_do(orders: Landing) -> None:
    contents = {
        "cr": b"id,note\r1,x\r2,y\r",
        "crlf": b"id,note\r\n1,x\r\n2,y\r\n",
        "lf_within_crlf": b"id,note\r\n1,x\n2,y\r\n",
        "crlf_within_lf": b"id,note\n1,x\r\n2,y",
        "blank_lines": b"\r\nid,note\r\n\r\n1,x\r\n\r\n2,y\r\n\r\n",
        "quoted": b'"id","note"\r\n"1","x"\r\n"2","y"',
    }
    paths = [orders.deliver(f"{name}.csv", content) for name, content in contents.items()]
    orders.run()
    orders.require_all_taken(dict.fromkeys(paths, 2))
    rows = [row for row in orders.bronze("orders", "id", "note") if row[0] in ("1", "2")]
    assert rows == [("1", "x"), ("2", "y")] * len(contents)


def test_a_lone_carriage_return_in_a_field_is_damage(orders: Landing) -> None:
    path = orders.deliver("return.csv", b"id,note\n1,x\ry\n2,z\n")
    orders.run()
    orders.require_taken(path, rows=1, damaged={1: ("a lone carriage return", b"1,x\ry")})


def test_half_a_character_at_the_end_is_set_aside(orders: Landing) -> None:
    path = orders.deliver("cut.csv", "id,note\n1,x\n2,ä".encode()[:-1])
    orders.run()
    orders.require_taken(path, rows=1, damaged={2: ("bytes that are not utf-8", b"2,\xc3")})


def test_a_second_mark_loses_no_row(orders: Landing) -> None:
    """Bronze keeps the name as delivered, the contract still knows what is meant."""
    path = orders.deliver("twice.csv", codecs.BOM_UTF8 * 2 + b"id,note\n1,x\n")
    orders.run()
    orders.require_taken(path, rows=1)
    assert (1, "x") in orders.silver("orders", "id", "note")
    assert ("1",) in orders.bronze("orders", "\ufeffid")
