"""Text whose columns stand at fixed places in each line. Pure.

Columns are counted in characters. Values stay as delivered, blanks included, unless `trim` is
stated; a value of blanks only is NULL. A line that is shorter than the record, or goes on behind
its last column with more than blanks, is damage of that line.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datops_assets.ingestion.csv_check import NotPlainError
from datops_assets.ingestion.csv_records import Record, is_utf8_text
from datops_assets.ingestion.csv_text import is_utf8, transcoded
from datops_assets.ingestion.json_lines import split_lines
from datops_assets.ingestion.line_buffer import MAX_RECORD_BYTES
from datops_assets.ingestion.tables import FixedOptions

_LF, _CR, _BLANK = 10, 13, 32


def open_fixed(chunks: Iterator[bytes], options: FixedOptions) -> Iterator[bytes]:
    """Return the text as UTF-8."""
    return chunks if is_utf8(options.encoding) else transcoded(chunks, options.encoding)


def fixed_records(text: Iterator[bytes], options: FixedOptions) -> Iterator[Record]:
    """Yield every line that is not empty, damaged ones included; holds one of them (up to 64 MiB) and a chunk."""
    for line in split_lines(text):
        damage = line.damage and "a line longer than 64 MiB"
        yield (
            Record(line.raw, line.position, None, damage)
            if damage
            else _record(line.raw, line.position, options)
        )


def _record(raw: bytes, position: int, options: FixedOptions) -> Record:
    if b"\0" in raw:
        return Record(raw, position, None, "a NUL byte")
    if not raw.isascii() and not is_utf8_text(raw):
        return Record(raw, position, None, f"bytes that are not {options.encoding}")
    line = raw.decode()
    if len(line) < options.length:
        return Record(raw, position, None, f"{len(line)} characters where the record has {options.length}")
    if line[options.length :].strip(" "):
        return Record(raw, position, None, f"text behind the record's {options.length} characters")
    fields: list[bytes | None] = []
    for column in options.columns:
        value = line[column.begin : column.begin + column.width]
        bare = value.strip(" ")
        fields.append((bare if options.trim else value).encode() if bare else None)
    return Record(raw, position, fields)


def line_records(window: bytes, position: int, options: FixedOptions) -> Iterator[Record]:
    """Yield every line of a window that is not empty, damaged ones included."""
    for line in window.split(b"\n"):
        if raw := line.removesuffix(b"\r"):
            yield _record(raw, position, options)
        position += len(line) + 1


def windows(text: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield whole lines and the byte offset where they begin.

    raises     NotPlainError: a line is longer than 64 MiB
    """
    tail, position = b"", 0
    for chunk in text:
        data = tail + chunk
        if position == 0 and data.startswith(codecs.BOM_UTF8):
            data, position = data.removeprefix(codecs.BOM_UTF8), len(codecs.BOM_UTF8)
        cut = data.rfind(b"\n") + 1
        tail = data[cut:]
        if len(tail) > MAX_RECORD_BYTES:
            raise NotPlainError("a line is longer than 64 MiB")
        if cut:
            yield data[:cut], position
            position += cut
    if tail:
        yield tail + b"\n", position


def quick_lines(window: bytes, options: FixedOptions, first_row: int) -> tuple[int, bytes] | None:
    """Return how many lines a window has, and them in COPY's text format; None: they are not all alike."""
    if not window.isascii() or b"\0" in window:
        return None
    width = window.index(b"\n") + 1
    if len(window) % width:
        return None
    lines = np.frombuffer(window, np.uint8).reshape(-1, width)
    length = width - 2 if width > 1 and window[width - 2] == _CR else width - 1
    if (
        length < options.length
        or not _are_lines(window, lines, length)
        or (lines[:, options.length : length] != _BLANK).any()
    ):
        return None
    columns = [_column(lines, column.begin, column.width, options.trim, window) for column in options.columns]
    rows = pa.array(np.arange(first_row, first_row + len(lines))).cast(pa.string())
    columns[-1] = pc.binary_join_element_wise(columns[-1], "", "\n")
    joined = pc.binary_join_element_wise(rows, *columns, "\t")
    _, offsets, text = joined.buffers()
    end = int(np.frombuffer(offsets, np.int32)[len(joined)])
    return len(lines), text[:end].to_pybytes()


def _are_lines(window: bytes, lines: npt.NDArray[np.uint8], length: int) -> bool:
    """Whether line ends stand where the first line has its own, and nowhere else."""
    returns = len(lines) * (lines.shape[1] - length - 1)
    ends = (lines[:, -1] == _LF).all() and window.count(b"\n") == len(lines)
    return bool(ends and window.count(b"\r") == returns and (lines[:, length:-1] == _CR).all())


def _column(lines: npt.NDArray[np.uint8], begin: int, width: int, trim: bool, window: bytes) -> pa.Array:
    cut = np.ascontiguousarray(lines[:, begin : begin + width])
    values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(cut), [None, pa.py_buffer(cut)])
    values = values.cast(pa.binary()).cast(pa.string())
    bare = pc.ascii_trim(values, " ")
    is_blank = pc.equal(bare, "")
    values = bare if trim else values
    for special, escape in ((b"\\", "\\\\"), (b"\t", "\\t")):
        if special in window:
            values = pc.replace_substring(values, special.decode(), escape)
    return pc.if_else(is_blank, "\\N", values)
