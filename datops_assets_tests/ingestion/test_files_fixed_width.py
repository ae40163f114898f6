"""Fixed-width text into bronze: values as delivered, lines that are no records set aside."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datops_assets.ingestion import FixedColumn, FixedOptions
from datops_assets.ingestion.copy_text import escaped
from datops_assets.ingestion.fixed_width import fixed_records, quick_lines
from datops_assets_tests.ingestion.conftest import Lab

COLUMNS = (FixedColumn("id", 0, 4), FixedColumn("name", 4, 8), FixedColumn("paid", 13, 3))
OPTIONS = FixedOptions(COLUMNS)
LINES = "   1Ada     |  9\n  22        | 10\n 333Grace  H|   \n"


def declare(lab: Lab, **changes: object) -> None:
    lab.declare(format="fixed", fixed=FixedOptions(COLUMNS, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_values_stay_as_delivered_and_blank_ones_are_null(lab: Lab, newline: str, last: str) -> None:
    """What stands between the columns is passed over."""
    declare(lab)
    lab.write("a.txt", LINES.removesuffix("\n").replace("\n", newline) + last.replace("\n", newline))
    assert lab.load().results[0].error is None
    assert lab.rows("_row, id, name, paid") == [
        (1, "   1", "Ada     ", "  9"),
        (2, "  22", None, " 10"),
        (3, " 333", "Grace  H", None),
    ]


def test_blanks_around_values_are_left_out_where_that_is_stated(lab: Lab) -> None:
    declare(lab, trim=True)
    lab.write("a.txt", LINES)
    lab.load()
    assert lab.rows("id, name, paid") == [("1", "Ada", "9"), ("22", None, "10"), ("333", "Grace  H", None)]


def test_a_line_that_is_no_record_is_set_aside(lab: Lab) -> None:
    """With its bytes and its place; the others load and keep their numbers."""
    declare(lab)
    lab.write(
        "a.txt",
        b"   1Ada     |  9\n   2short\n\n   3Ada     |  9 more\n   4\xff       |  9\n   5\0       |  9\n"
        + b"   6Ada     |  9  \n",
    )
    (result,) = lab.load().results
    assert (result.error, result.rows, result.damaged_rows) == (None, 2, 4)
    assert lab.rows("_row, id") == [(1, "   1"), (6, "   6")]
    assert lab.damaged() == [
        (2, "9 characters where the record has 16", b"   2short", 17),
        (3, "text behind the record's 16 characters", b"   3Ada     |  9 more", 28),
        (4, "bytes that are not utf-8", b"   4\xff       |  9", 50),
        (5, "a NUL byte", b"   5\0       |  9", 67),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "cp500"])
def test_columns_are_counted_in_characters(lab: Lab, encoding: str) -> None:
    """Not in bytes; EBCDIC is an encoding like any other."""
    declare(lab, encoding=encoding)
    lab.write("a.txt", "   1Zoé\\    |  9\n   2A\tb     | 10\n".encode(encoding))
    assert lab.load().results[0].error is None
    assert lab.rows("id, name, paid") == [("   1", "Zoé\\    ", "  9"), ("   2", "A\tb     ", " 10")]


def test_a_byte_order_mark_is_no_character(lab: Lab) -> None:
    declare(lab)
    lab.write("a.txt", b"\xef\xbb\xbf" + LINES.encode())
    assert lab.load().rows_added == 3


def test_a_table_wider_than_postgres_likes_has_the_rest_in_one_column(lab: Lab) -> None:
    columns = tuple(FixedColumn(f"c{n}", n, 1) for n in range(300))
    lab.declare(format="fixed", fixed=FixedOptions(columns))
    lab.write("a.txt", "x" * 300 + "\n" + "y" * 299 + "\n")
    (result,) = lab.load().results
    assert (result.error, result.rows, result.damaged_rows) == (None, 1, 1)
    (more,) = lab.rows("_more")[0]
    assert more["c299"] == "x"


def test_a_line_too_long_for_memory_is_set_aside(lab: Lab) -> None:
    declare(lab)
    lab.write("a.txt", LINES.encode() + b"x" * (65 << 20) + b"\n" + LINES.encode())
    (result,) = lab.load().results
    assert (result.error, result.rows, result.damaged_rows) == (None, 6, 1)
    assert lab.damaged()[0][:2] == (4, "a line longer than 64 MiB")


ALPHABET = st.text(st.sampled_from("ab \\\t\"'x1"), min_size=16, max_size=16)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(ALPHABET, min_size=1, max_size=8),
    trim=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_lines_that_are_alike_give_what_one_by_one_gives(lines: list[str], trim: bool, newline: str) -> None:
    """The quick way and the careful one, byte by byte."""
    options = FixedOptions(COLUMNS, trim=trim)
    window = "".join(line + newline for line in lines).encode()
    quick = quick_lines(window, options, 1)
    assert quick is not None
    expected = b"".join(
        b"\t".join([b"%d" % row, *map(escaped, record.fields or [])]) + b"\n"
        for row, record in enumerate(fixed_records(iter([window]), options), start=1)
    )
    assert quick == (len(lines), expected)


@pytest.mark.parametrize(
    "window",
    [
        b"   1Ada     |  9\n   2Ada     |  9\r\n",
        b"   1Ada     |  9\n   2Ad\r     |  9\n",
        b"\n\n",
        b"   1Ada  |  9\n",
        b"   1Ada     |  9x\n",
        b"   1Ada     |  9\n   2A\n     |  9\n",
        "   1Zoé    |  9\n".encode(),
    ],
)
def test_lines_that_are_not_alike_are_left_to_the_careful_way(window: bytes) -> None:
    assert quick_lines(window, OPTIONS, 1) is None
