"""The lines of a JSON lines text: quickly as a whole, or one by one with what is wrong with each. Pure."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from datops_assets.ingestion.csv_check import NotPlainError
from datops_assets.ingestion.csv_records import is_utf8_text
from datops_assets.ingestion.json_text import MAX_DEPTH, depth_of
from datops_assets.ingestion.line_buffer import MAX_RECORD_BYTES, LineBuffer

_BLANK_LINES = re.compile(rb"\n{2,}")


@dataclass(frozen=True)
class Line:
    """A line that is not empty."""

    row: int
    raw: bytes
    position: int
    damage: str | None = None


def plain_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines in COPY's text format, many at a time, empty ones dropped; nothing else is checked.

    raises     NotPlainError: a line is longer than 64 MiB
    """
    tail, first = b"", True
    for chunk in chunks:
        data = tail + chunk
        if first and len(data) >= len(codecs.BOM_UTF8):
            data, first = data.removeprefix(codecs.BOM_UTF8), False
        cut = data.rfind(b"\n") + 1
        tail = data[cut:]
        if max(len(tail), cut) > MAX_RECORD_BYTES:
            raise NotPlainError("a line is longer than 64 MiB")
        if cut:
            yield _for_copy(data[:cut])
    if tail:
        yield _for_copy(tail + b"\n")


def _for_copy(window: bytes) -> bytes:
    if b"\r" in window:
        window = window.replace(b"\r\n", b"\n")
    window = _BLANK_LINES.sub(b"\n", window).removeprefix(b"\n")
    for special, escape in ((b"\\", rb"\\"), (b"\t", rb"\t"), (b"\r", rb"\r")):
        if special in window:
            window = window.replace(special, escape)
    return window


def split_lines(chunks: Iterator[bytes]) -> Iterator[Line]:
    """Yield the lines one by one; numbers are the same as `plain_lines` gives by counting."""
    buffer, row = LineBuffer(chunks), 0
    while (end := buffer.line_end()) is not None:
        if buffer.position == 0 and buffer.text.startswith(codecs.BOM_UTF8):
            buffer.step_to(len(codecs.BOM_UTF8))
            continue
        if buffer.is_oversized(end):
            row += 1
            yield Line(row, *buffer.pass_oversized())
            continue
        raw = buffer.text[buffer.at : end].removesuffix(b"\r")
        position = buffer.step_to(end + 1)
        if raw:
            row += 1
            yield Line(row, raw, position)


def check_lines(lines: Iterator[Line]) -> Iterator[Line]:
    """Say of each line what keeps it from the server, if anything does."""
    for line in lines:
        yield line if line.damage else replace(line, damage=_damage(line.raw))


def _damage(raw: bytes) -> str | None:
    if b"\0" in raw:
        return "a NUL byte"
    if not is_utf8_text(raw):
        return "bytes that are not utf-8"
    if depth_of(raw) > MAX_DEPTH:
        return f"values nested more than {MAX_DEPTH} deep"
    return None
