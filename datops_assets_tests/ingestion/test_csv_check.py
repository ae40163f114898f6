"""What may go to COPY as it is: a look at bytes, without a server."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datops_assets.ingestion.csv_check import NotPlainError, PlainCsvCheck
from datops_assets.ingestion.csv_records import CsvDialect, CsvRecords

PIECES = st.lists(
    st.sampled_from(["a", ",", '"', '"', '""', "\n", "\r\n", "\\.", "é", '","', '"\n']), max_size=30
)


def cut(text: bytes, size: int) -> Iterator[bytes]:
    """Cut a text into chunks."""
    return (text[at : at + size] for at in range(0, len(text), size))


def checked(
    text: bytes, size: int = 1 << 20, *, crlf: bool = False, header: bytes | None = b"h,i"
) -> tuple[bytes, int]:
    """Return what may go to COPY, and the number of records."""
    check = PlainCsvCheck(b",", header, crlf=crlf)
    sent = b"".join(map(check.feed, cut(text, size))) + check.finish()
    return sent, check.records


@pytest.mark.parametrize(
    "text",
    [
        b'1,5" pipe,3\n',
        b'1,a"b"\n',
        b'1,a"x,y"\n',
        b'1,"a"b\n',
        b'1,"a"b"c"\n',
        b'1,"a" \n',
        b'1, "a"\n',
        b'1,"a\n',
        b'1,a""\n',
        b"1,\0\n",
        b"1,a\n\\.\n2,b\n",
        b'1,"a\n\\.\nb"\n',
        b"1,a\r\n2,b\n",
        b"1,a\rb\n",
        b'1,"a"\r\n2,b\n',
        b"h,i\n1,a\n",
        b"1,a\nh,i\n",
        b"1,a\n<<<<<<< HEAD\n",
        b"=======\n1,a\n",
        b"1,a\n>>>>>>> x",
        b"1,a\n||||||| base\n",
    ],
)
def test_what_copy_would_read_otherwise_is_not_plain(text: bytes) -> None:
    """However the chunks are cut."""
    for size in (1, 2, 3, 7, 100):
        with pytest.raises(NotPlainError):
            checked(text, size)


@pytest.mark.parametrize(
    ("text", "records"),
    [
        (b"", 0),
        (b"1,a\n2,b", 2),
        (b'1,"a\n""b"""\n', 1),
        (b'"",""\n"a,b","\n"\n', 2),
        (b'1,"\r"\n', 1),
        (b"1,\\N\n2,a\\.b\n", 2),
        (b"1,<<<<<<<\nx<<<<<<< y,2\n======= 3,4\n", 3),
        (b"h,i2\nxh,i\n", 2),
    ],
)
def test_plain_text_goes_through_unchanged_and_is_counted(text: bytes, records: int) -> None:
    """A last line without an end gets one."""
    for size in (1, 2, 5, 100):
        assert checked(text, size) == (text if text.endswith(b"\n") or not text else text + b"\n", records)


@pytest.mark.parametrize(("newline", "crlf"), [(b"\n", False), (b"\r\n", True)])
def test_blank_lines_are_dropped_on_the_way(newline: bytes, crlf: bool) -> None:
    """COPY takes them for records; inside quotes they are part of a value."""
    lines = [b"", b"1,a", b"", b"", b'2,"x', b"", b'y"', b"", b"3,c", b"", b""]
    kept = [b"1,a", b'2,"x', b"", b'y"', b"3,c", b""]
    for size in (1, 2, 3, 9, 100):
        assert checked(newline.join(lines), size, crlf=crlf) == (newline.join(kept), 3)


@settings(max_examples=400, deadline=None)
@given(PIECES, st.booleans(), st.integers(1, 9))
def test_what_is_plain_reads_the_same_record_by_record_and_in_python(
    pieces: list[str], crlf: bool, size: int
) -> None:
    """Plain means: our count, the careful reader and Python's reader agree on every record."""
    text = "".join(pieces)
    try:
        _, records = checked(text.encode(), size, crlf=crlf, header=None)
    except NotPlainError:
        return
    careful = list(CsvRecords(cut(text.encode(), size), CsvDialect(b",")))
    python = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    assert [record.damage for record in careful] == [None] * records
    assert [[(field or b"").decode() for field in record.fields or []] for record in careful] == python
