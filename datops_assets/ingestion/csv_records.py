"""The careful reader of CSV: record by record, in bounded memory, setting damaged records aside. Pure.

A quote is special only as the first byte of a field. `1,5" pipe,3` is three fields; text after a
closing quote and a quote that never closes are damage of that record (of its first line, when the
damage spans lines: the lines after it are read anew).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from datops_assets.ingestion.csv_check import CONFLICT_MARKER
from datops_assets.ingestion.line_buffer import LineBuffer

Fields = list[bytes | None]
"""The fields of a record; None is an unquoted empty one."""


@dataclass(slots=True)
class Record:
    """One record: its fields, or what is wrong with it."""

    raw: bytes
    position: int
    """Byte offset in the uncompressed text."""
    fields: Fields | None
    """None: see `damage`."""
    damage: str | None = None


@dataclass(frozen=True)
class CsvDialect:
    """How the bytes are cut into records and fields, known once the header is read."""

    delimiter: bytes
    newline: bytes = b"\n"
    """The byte that ends a record; b"\\r" for files of the old Mac kind."""
    width: int | None = None
    """Fields a record must have; None while reading the header."""
    header: bytes | None = None
    """The header line's bytes; the same line further down is damage."""
    encoding: str = "utf-8"
    """What the bytes were before they became UTF-8; for messages."""


class CsvRecords:
    """Iterate over the records of a CSV text; blank lines are none.

    chunks     UTF-8 bytes cut anywhere, BOM already gone
    promise    holds at most one record (up to 64 MiB) and one chunk
    """

    def __init__(self, chunks: Iterator[bytes], dialect: CsvDialect, position: int = 0) -> None:
        self._dialect = dialect
        self._buffer = LineBuffer(chunks, dialect.newline, position)
        stops = re.escape(dialect.newline + dialect.delimiter)
        self._unquoted = re.compile(rb"[^" + stops + rb"]*+")
        self._quoted = re.compile(rb'"((?:[^"]++|"")*+)"')

    def __iter__(self) -> Iterator[Record]:
        """Yield every record, damaged ones included."""
        buffer = self._buffer
        while (end := buffer.line_end()) is not None:
            if buffer.is_oversized(end):
                raw, position, damage = buffer.pass_oversized()
                yield Record(raw, position, None, damage)
                continue
            line = buffer.text[buffer.at : end].removesuffix(b"\r")
            if not line:
                buffer.step_to(end + 1)
            elif b'"' in line:
                yield self._quoted_record(line)
            else:
                yield self._plain_record(line, end)

    @property
    def position(self) -> int:
        """Byte offset of the next record."""
        return self._buffer.position

    def rest(self) -> tuple[bytes, Iterator[bytes]]:
        """Return the bytes read ahead, and the chunks not read yet."""
        return self._buffer.rest()

    def _plain_record(self, line: bytes, end: int) -> Record:
        fields: Fields = [field or None for field in line.split(self._dialect.delimiter)]
        damage = self._damage(line, fields) or self._stray_line_end(line)
        return _record(line, self._buffer.step_to(end + 1), fields, damage)

    def _quoted_record(self, first_line: bytes) -> Record:
        fields: Fields = []
        stray: str | None = None
        offset = 0
        while True:
            quoted = self._is_at(b'"', offset)
            end = self._quoted_end(offset) if quoted else self._unquoted_end(offset)
            if end is None:
                return self._first_line_damaged(first_line, "a quote is not closed")
            field = self._slice(offset, end)
            if quoted:
                fields.append(field[1:-1].replace(b'""', b'"'))
            else:
                field = self._without_return(field, end)
                stray = stray or self._stray_line_end(field)
                fields.append(field or None)
            if not self._is_at(self._dialect.delimiter, end):
                return self._ended_record(first_line, fields, end, stray)
            offset = end + 1

    def _ended_record(self, first_line: bytes, fields: Fields, end: int, stray: str | None) -> Record:
        after = self._after_line_end(end)
        if after is None:
            return self._first_line_damaged(first_line, "text after a closing quote")
        if self._buffer.is_oversized(self._buffer.at + end):
            return self._first_line_damaged(first_line, "a record longer than 64 MiB")
        raw = self._slice(0, end).removesuffix(b"\r")
        damage = self._damage(raw, fields) or stray
        return _record(raw, self._buffer.step_to(self._buffer.at + after), fields, damage)

    def _slice(self, start: int, end: int) -> bytes:
        return self._buffer.text[self._buffer.at + start : self._buffer.at + end]

    def _is_at(self, byte: bytes, offset: int) -> bool:
        if self._buffer.at + offset == len(self._buffer.text) and not self._buffer.ended:
            self._buffer.fill()
        return self._buffer.text.startswith(byte, self._buffer.at + offset)

    def _quoted_end(self, offset: int) -> int | None:
        """Return the end of the quoted field at `offset` after the record's start; None: it never closes."""
        buffer = self._buffer
        while True:
            match = self._quoted.match(buffer.text, buffer.at + offset)
            # Two bytes past a closing quote decide: a second quote, or CR LF.
            if match is not None and (buffer.ended or match.end() + 2 <= len(buffer.text)):
                return match.end() - buffer.at
            if buffer.ended or buffer.is_oversized(len(buffer.text)):
                return None
            buffer.fill()

    def _unquoted_end(self, offset: int) -> int:
        buffer = self._buffer
        while True:
            match = self._unquoted.match(buffer.text, buffer.at + offset)
            assert match is not None
            if match.end() < len(buffer.text) or buffer.ended or buffer.is_oversized(match.end()):
                return match.end() - buffer.at
            buffer.fill()

    def _without_return(self, field: bytes, end: int) -> bytes:
        at_line_end = self._slice(end, end + 1) in (b"", self._dialect.newline)
        return field.removesuffix(b"\r") if at_line_end else field

    def _after_line_end(self, offset: int) -> int | None:
        """Return where the next record begins when this one ends at `offset`; None: it does not end there."""
        following = self._slice(offset, offset + 2)
        if following == b"" or following[:1] == self._dialect.newline:
            return offset + len(following[:1])
        if following in (b"\r", b"\r" + self._dialect.newline):
            return offset + len(following)
        return None

    def _stray_line_end(self, field: bytes) -> str | None:
        if b"\r" in field:
            return "a lone carriage return"
        if self._dialect.newline != b"\n" and b"\n" in field:
            return "a lone line feed"
        return None

    def _damage(self, raw: bytes, fields: Fields) -> str | None:
        """Say why a record whose quoting is in order cannot be taken."""
        if b"\0" in raw:
            return "a NUL byte"
        if not raw.isascii() and not is_utf8_text(raw):
            return f"bytes that are not {self._dialect.encoding}"
        if raw[:1] in b"<>|=" and CONFLICT_MARKER.fullmatch(raw):
            return "a merge-conflict marker"
        if raw == self._dialect.header:
            return "the header is repeated"
        width = self._dialect.width
        if width is not None and len(fields) != width:
            return f"{len(fields)} fields where the header has {width}"
        return None

    def _first_line_damaged(self, line: bytes, damage: str) -> Record:
        end = self._buffer.text.find(self._dialect.newline, self._buffer.at)
        after = len(self._buffer.text) if end < 0 else end + 1
        return Record(line, self._buffer.step_to(after), None, damage)


def _record(raw: bytes, position: int, fields: Fields, damage: str | None) -> Record:
    return Record(raw, position, None if damage else fields, damage)


def is_utf8_text(raw: bytes) -> bool:
    """Return whether the bytes are UTF-8."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
