"""A small Parquet writer, for one purpose: the same bytes with every version of everything.

pyarrow writes its own version into each file and changes encodings between versions, so its
bytes can not be promised. This writes what the format asks for and no more: one row group,
one plain uncompressed page per column, no statistics. Reading is left to real readers.

source   Apache Parquet format 2.10, parquet.thrift and Encodings.md; Thrift compact protocol
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datops_assets.synthetic.tables import Column

_MAGIC = b"PAR1"
_CREATED_BY = "datops synthetic version 1"
_INT64, _BYTE_ARRAY = 2, 6
_OPTIONAL = 1
_PLAIN, _RLE = 0, 3
_UTF8, _DECIMAL, _TIMESTAMP_MICROS = 0, 5, 10
MONEY_PRECISION, MONEY_SCALE = 12, 2


def parquet_file(
    names: Sequence[str], columns: Sequence[Column], values: Sequence[Sequence[int | str | None]]
) -> bytes:
    """Write a Parquet file: int as int64, money as decimal(12,2), time as timestamp[us, UTC].

    names    what the columns are called in the file
    values   one sequence per column: whole numbers, cents, seconds since 1970, texts; None is null
    """
    body = bytearray(_MAGIC)
    chunks = []
    for name, column, held in zip(names, columns, values, strict=True):
        page = _page(column, held)
        chunks.append(_chunk(name, column, len(held), offset=len(body), size=len(page)))
        body += page
    rows = len(values[0])
    footer = _struct(
        {
            1: _i32(2),
            2: _list([_root(len(columns)), *map(_schema, names, columns)]),
            3: _i64(rows),
            4: _list([_struct({1: _list(chunks), 2: _i64(len(body) - 4), 3: _i64(rows)})]),
            6: _text(_CREATED_BY),
        }
    ).payload
    return bytes(body) + footer + len(footer).to_bytes(4, "little") + _MAGIC


def _page(column: Column, values: Sequence[int | str | None]) -> bytes:
    present = [value for value in values if value is not None]
    defined = np.array([value is not None for value in values], dtype=np.bool_)
    bits = np.packbits(defined, bitorder="little").tobytes()
    levels = _varint(len(bits) << 1 | 1) + bits
    data = len(levels).to_bytes(4, "little") + levels + _plain(column, present)
    header = _struct(
        {
            1: _i32(0),
            2: _i32(len(data)),
            3: _i32(len(data)),
            5: _struct({1: _i32(len(values)), 2: _i32(_PLAIN), 3: _i32(_RLE), 4: _i32(_RLE)}),
        }
    )
    return header.payload + data


def _plain(column: Column, values: Sequence[int | str]) -> bytes:
    if column.kind == "text":
        texts = [str(value).encode() for value in values]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    numbers = np.array(values, dtype="<i8")
    return (numbers * 1_000_000 if column.kind == "time" else numbers).astype("<i8").tobytes()


def _physical(column: Column) -> int:
    return _BYTE_ARRAY if column.kind == "text" else _INT64


def _root(children: int) -> _Field:
    return _struct({4: _text("schema"), 5: _i32(children)})


def _schema(name: str, column: Column) -> _Field:
    described = {1: _i32(_physical(column)), 3: _i32(_OPTIONAL), 4: _text(name)}
    match column.kind:
        case "text":
            described |= {6: _i32(_UTF8), 10: _struct({1: _struct({})})}
        case "money":
            decimal = _struct({1: _i32(MONEY_SCALE), 2: _i32(MONEY_PRECISION)})
            described |= {6: _i32(_DECIMAL), 7: _i32(MONEY_SCALE), 8: _i32(MONEY_PRECISION)}
            described |= {10: _struct({5: decimal})}
        case "time":
            micros = _struct({1: _TRUE, 2: _struct({2: _struct({})})})
            described |= {6: _i32(_TIMESTAMP_MICROS), 10: _struct({8: micros})}
    return _struct(described)


def _chunk(name: str, column: Column, count: int, offset: int, size: int) -> _Field:
    details = {
        1: _i32(_physical(column)),
        2: _list([_i32(_PLAIN), _i32(_RLE)]),
        3: _list([_text(name)]),
        4: _i32(0),
        5: _i64(count),
        6: _i64(size),
        7: _i64(size),
        9: _i64(offset),
    }
    return _struct({2: _i64(offset), 3: _struct(details)})


class _Field(NamedTuple):
    """A value in Thrift's compact protocol: its type and its bytes."""

    type: int
    payload: bytes


_TRUE = _Field(1, b"")


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _zigzag(number: int) -> bytes:
    return _varint(number << 1 if number >= 0 else (-number << 1) - 1)


def _i32(number: int) -> _Field:
    return _Field(5, _zigzag(number))


def _i64(number: int) -> _Field:
    return _Field(6, _zigzag(number))


def _text(text: str) -> _Field:
    written = text.encode()
    return _Field(8, _varint(len(written)) + written)


def _list(fields: Sequence[_Field]) -> _Field:
    count = len(fields)
    head = bytes([count << 4 | fields[0].type]) if count < 15 else bytes([0xF0 | fields[0].type])
    long = b"" if count < 15 else _varint(count)
    return _Field(9, head + long + b"".join(field.payload for field in fields))


def _struct(fields: dict[int, _Field]) -> _Field:
    written, last = bytearray(), 0
    for number, field in sorted(fields.items()):
        # No field number here is more than 15 after the one before it: the short form suffices.
        written.append(number - last << 4 | field.type)
        written += field.payload
        last = number
    return _Field(12, bytes(written) + b"\x00")
