"""JSON lines and JSON documents into bronze: the text of every value as delivered."""

from __future__ import annotations

import pytest

from datops_assets_tests.ingestion.conftest import Lab

AWKWARD = (
    '{"id": 1, "v": 1.00, "o": {"b":1,  "b":2}}\n'
    '{"id": 2, "v": "\\u0000\\ud800", "o": "\\u00e9\\/ \\t"}\n'
    "\n"
    '{"o": null, "id": 3, "new": [1,\t2]}\r\n'
    '{"id": 4, "id": "second"}\n'
    "[1]\n"
    '{"id": 6\n'
    '{"id": 1e400}'
)


def test_values_keep_the_text_they_were_delivered_with(lab: Lab) -> None:
    """Numbers, escapes, repeated names inside values, \\u0000, names in another order."""
    lab.write("a.jsonl", AWKWARD)
    result = lab.load().results[0]
    assert (result.state, result.rows, result.damaged_rows) == ("loaded", 5, 2)
    assert lab.rows('_row, id::text, v::text, o::text, "new"::text, id_2::text') == [
        (1, "1", "1.00", '{"b":1,  "b":2}', None, None),
        (2, "2", '"\\u0000\\ud800"', '"\\u00e9\\/ \\t"', None, None),
        (3, "3", None, "null", "[1,\t2]", None),
        (4, "4", None, None, None, '"second"'),
        (7, "1e400", None, None, None, None),
    ]


def test_a_line_that_is_no_object_is_set_aside(lab: Lab) -> None:
    """With its bytes and position; the lines around it load."""
    lab.write("a.jsonl", AWKWARD)
    lab.load()
    assert lab.damaged() == [
        (5, "JSON, but not an object", b"[1]", AWKWARD.index("[1]\n")),
        (
            6,
            "not JSON: a comma or the end of the object was expected",
            b'{"id": 6',
            AWKWARD.index('{"id": 6'),
        ),
    ]


def test_equal_mistakes_at_different_places_have_one_reason(lab: Lab) -> None:
    """Reasons are what people count by; the place is the record's position."""
    lab.write(
        "a.jsonl", '{"id": "x\n{"id": 1, "name": "y\n{"id": \n{"id": 2, "b": ,}\n{"id": 5, "n": "\\q"}\n'
    )
    lab.load()
    assert [reason for _, reason, *_ in lab.damaged()] == [
        *["not JSON: a string is not closed"] * 2,
        *["not JSON: a value was expected"] * 2,
        "not JSON: a backslash that escapes nothing",
    ]


def test_bytes_that_no_text_can_hold_damage_only_their_line(lab: Lab) -> None:
    """NUL, wrong encoding, absurd nesting."""
    deep = b"[" * 20000 + b"]" * 20000
    lab.write("a.jsonl", b'{"a":1}\n{"a":"\0"}\n{"a":"\xff"}\n{"a":' + deep + b'}\n{"a":5}\n')
    result = lab.load().results[0]
    assert (result.rows, result.damaged_rows) == (2, 3)
    assert lab.rows("_row, a::text") == [(1, "1"), (5, "5")]
    assert [(row, reason) for row, reason, *_ in lab.damaged()] == [
        (2, "a NUL byte"),
        (3, "bytes that are not utf-8"),
        (4, "values nested more than 5000 deep"),
    ]


def test_a_document_is_an_array_or_holds_one(lab: Lab) -> None:
    """`records:` names the path; line ends inside a value stay."""
    lab.write(
        "a.json", '{"meta": {"n": 2}, "data": {"items": [{"id": 1, "x": [\n1]}, {"id": 2}]}, "end": "]"}'
    )
    lab.declare(records="data.items")
    assert lab.load().rows_added == 2
    assert lab.rows("_row, id::text, x::text") == [(1, "1", "[\n1]"), (2, "2", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"a": 1},\n{"a" 2},\n{"a": 3}\n]', "line 3, column 6: a colon was expected"),
        ('[\n{"a": 1},\n{"a": 2}', "line 3, column 9: a comma or the end of the array was expected"),
        (
            '{"a": [1]}',
            "line 1, column 1: an array was expected; state `records:` with the path to the array",
        ),
        ('[{"a": NaN}]', "NaN is no JSON"),
        ("", "line 1, column 1: an array was expected"),
    ],
)
def test_a_wrong_document_is_refused_whole(lab: Lab, text: str, message: str) -> None:
    """Line and column are named; nothing of it is in bronze."""
    lab.write("a.json", text)
    result = lab.load().results[0]
    assert (result.state, result.rows) == ("failed", 0)
    assert result.error is not None
    assert message in result.error
    assert lab.rows("count(*)", "1") == [(0,)]


def test_past_250_names_the_rest_goes_into_one_column(lab: Lab) -> None:
    """Also for records that the server cannot take apart."""
    record = ", ".join(f'"k{n}": {n}' for n in range(300))
    lab.write("a.jsonl", f'{{{record}}}\n{{{record}, "k299": "\\u0000"}}\n')
    assert lab.load().results[0].rows == 2
    assert [
        (first, more[:30], more.count("k299")) for first, more in lab.rows("k249::text, _more::text")
    ] == [
        ("249", '{ "k250" : 250, "k251" : 251, ', 1),
        ("249", '{"k250": 250, "k251": 251, "k2', 2),
    ]


def test_column_order_and_new_names_follow_the_files(lab: Lab) -> None:
    """A name that appears later becomes a column; the load says so."""
    lab.write("a.jsonl", '{"a":1,"b":2}\n')
    lab.write("b.jsonl", '{"b":2,"c":3}\n')
    results = lab.load().results
    assert results[1].differences == {"appeared": ["c"], "vanished": ["a"]}
    assert lab.rows("a::text, b::text, c::text") == [("1", "2", None), (None, "2", "3")]


def test_an_empty_file_of_lines_is_a_load_of_no_rows(lab: Lab) -> None:
    """Nothing was delivered, and that is no error."""
    lab.write("a.jsonl", "")
    assert lab.load().results[0].state == "loaded"


def test_a_column_that_went_into_the_rest_does_not_shift_the_others(lab: Lab) -> None:
    """The table is full: a new name comes before a known one in every record."""
    lab.write("a.jsonl", "{" + ", ".join(f'"k{n}": {n}' for n in range(250)) + "}\n")
    lab.load()
    lab.write("b.jsonl", '{"new": 1, "k7": 2}\n')
    lab.load()
    assert lab.rows("k7::text, _more::text")[1] == ("2", '{ "new" : 1 }')


def test_many_files_in_one_run(lab: Lab) -> None:
    """The staging table is made anew for each, and statements prepared for the one before still work."""
    for number in range(12):
        lab.write(f"{number}.jsonl", f'{{"a": {number}}}\n{{"a": 1, "a": 2}}\n[{number}]\n')
    results = lab.load().results
    assert {(result.state, result.rows, result.damaged_rows) for result in results} == {("loaded", 2, 1)}
