"""JSON that is wrong somewhere: a line is set aside alone, a document is refused with line and column."""

from __future__ import annotations

import gzip

from datops_assets_tests.bad_input.conftest import CANARY, Landing


def test_a_wrong_line_3_is_set_aside_and_the_others_load(events: Landing) -> None:
    wrong = f'{{"id": 3 "note": "{CANARY}"}}'
    path = events.deliver("lines.jsonl", f'{{"id": 1}}\n{{"id": 2}}\n{wrong}\n{{"id": 4}}\n')
    events.run()
    reason = "not JSON: a comma or the end of the object was expected"
    events.require_taken(path, rows=3, damaged={3: (reason, wrong.encode())})


def test_lines_that_are_no_objects_are_set_aside(events: Landing) -> None:
    lines = ["[1]", "7", "null", '"x"', '{"id": 5}{"id": 6}', '{"id": NaN}', "<<<<<<< HEAD", '{"id": 8}']
    path = events.deliver("kinds.jsonl", "\n".join(lines))
    events.run()
    assert events.loads("events")[path][:3] == ("loaded", 1, 7)
    assert [raw.decode() for _, raw in events.set_aside("events", path).values()] == lines[:7]


def test_nul_bytes_and_wrong_encodings_damage_only_their_line(events: Landing) -> None:
    path = events.deliver("bytes.jsonl", b'{"id": 1}\n{"id": "\0"}\n{"id": "\xff"}\n{"id": 4}')
    events.run()
    events.require_taken(
        path,
        rows=2,
        damaged={2: ("a NUL byte", b'{"id": "\0"}'), 3: ("bytes that are not utf-8", b'{"id": "\xff"}')},
    )


def test_a_line_of_utf_16_loses_no_byte(events: Landing) -> None:
    content = '{"id": 1}\n{"id": 2}\n'.encode("utf-16")
    path = events.deliver("wide.jsonl", content)
    events.run()
    assert events.loads("events")[path][1] == 0
    assert b"\n".join(raw for _, raw in events.set_aside("events", path).values()) == content


def test_a_wrong_document_is_refused_with_line_and_column(events: Landing) -> None:
    cases = {
        "line_3": (f'[\n{{"id": 1}},\n{{"id": 2 "note": "{CANARY}"}},\n{{"id": 3}}]', "line 3, column 10: "),
        "cut": (f'[\n{{"id": 1}},\n{{"id": 2, "note": "{CANARY}"}}', "line 3, column 34: "),
        "no_array": (f'{{"id": "{CANARY}"}}', "an array was expected; state `records:`"),
        "comma": ('[{"id": 1},]', "line 1, column 12: a value was expected"),
        "two_arrays": ('[{"id": 1}] [{"id": 2}]', "line 1, column 13: text after the end of the array"),
        "nan": ('[{"id": NaN}]', "line 1, column 2: NaN is no JSON"),
        "empty": ("", "an array was expected"),
        "nul": ('[{"id": 1}, {"id": "\0"}]', "NUL bytes"),
    }
    sentences = {events.deliver(f"{name}.json", text): said for name, (text, said) in cases.items()}
    events.require_all_refused(events.run(expect=1), sentences)


def test_a_document_in_a_cut_gzip_is_refused(events: Landing) -> None:
    path = events.deliver("cut.json.gz", gzip.compress(b'[{"id": 1}]')[:-4])
    events.require_refused(events.run(expect=1), path, "the gzip data is cut off; deliver the file again")


def test_elements_that_are_no_objects_are_set_aside(events: Landing) -> None:
    path = events.deliver("mixed.json", '[{"id": 1}, 7, null, [1]]')
    events.run()
    said = "JSON, but not an object"
    events.require_taken(path, rows=1, damaged={2: (said, b"7"), 3: (said, b"null"), 4: (said, b"[1]")})


def test_absurd_nesting_damages_only_its_record(events: Landing) -> None:
    paths = [events.deliver(name, "[" * 100_000 + "]" * 100_000) for name in ("deep.json", "deep.jsonl")]
    events.run()
    assert [events.loads("events")[path][:3] for path in paths] == [("loaded", 0, 1)] * 2


def test_names_that_occur_twice_or_hold_a_nul_keep_their_values(events: Landing) -> None:
    path = events.deliver(
        "names.jsonl", '{"id": 1, "note": "x", "id": 2, "a\\u0000b": 3, "": 4, "_row": 5}\n'
    )
    events.run()
    events.require_taken(path, rows=1)
    names = ("id", "id_2", "a\\u0000b", "column", "_row_")
    assert events.bronze("events", *names)[-1] == (1, 2, 3, 4, 5)


def test_ten_megabytes_in_one_value_arrive_whole(events: Landing) -> None:
    path = events.deliver("large.jsonl", f'{{"id": 1, "note": "{"z" * 10_000_000}"}}\n')
    events.run()
    events.require_taken(path, rows=1)
    assert events.warehouse.fetch("select length(note) from silver.store_events where id = 1") == [
        (10_000_000,)
    ]
