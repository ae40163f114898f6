"""Which PostgreSQL type an Arrow type becomes, how values get there unchanged. Pure.

ADBC writes only the types in `_WRITES`, each held by a round-trip test. Everything else is turned
into one of them first: nanoseconds become text (PostgreSQL would round them), unsigned 64-bit
numbers numeric(20,0), nested values json.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datops_assets.errors import LoadRefusedError
from datops_assets.ingestion.arrow_json import json_text

_WRITES: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "text": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "interval": pa.duration("us"),
    "json": pa.string(),
    "uuid": pa.binary(16),
}
_PLAIN: dict[pa.DataType, str] = {
    pa.bool_(): "boolean",
    pa.int8(): "smallint",
    pa.uint8(): "smallint",
    pa.int16(): "smallint",
    pa.uint16(): "integer",
    pa.int32(): "integer",
    pa.uint32(): "bigint",
    pa.int64(): "bigint",
    pa.uint64(): "numeric(20,0)",
    pa.float16(): "real",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.large_string(): "text",
    pa.string_view(): "text",
    pa.binary(): "bytea",
    pa.large_binary(): "bytea",
    pa.binary_view(): "bytea",
    pa.date32(): "date",
    pa.date64(): "date",
    pa.time64("ns"): "text",
    pa.duration("ns"): "text",
}
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")


def bronze_type(kind: pa.DataType) -> str:
    """Return the PostgreSQL type that holds every value of an Arrow type.

    raises     LoadRefusedError: there is none
    """
    if isinstance(kind, pa.BaseExtensionType):
        known = {"arrow.json": "json", "arrow.uuid": "uuid"}
        return known.get(kind.extension_name) or bronze_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return bronze_type(kind.value_type)
    if pa.types.is_nested(kind):
        return "json"
    if pa.types.is_decimal(kind):
        precision, scale = kind.precision, kind.scale
        return f"numeric({precision - scale if scale < 0 else max(precision, scale)},{max(scale, 0)})"
    if pa.types.is_timestamp(kind):
        return "text" if kind.unit == "ns" else "timestamptz" if kind.tz else "timestamp"
    if pa.types.is_fixed_size_binary(kind):
        return "bytea"
    for is_kind, name in ((pa.types.is_time, "time"), (pa.types.is_duration, "interval")):
        if is_kind(kind) and kind.unit != "ns":
            return name
    if kind in _PLAIN:
        return _PLAIN[kind]
    raise LoadRefusedError(f"values of type {kind} cannot be kept; write them as another type")


def written_type(name: str) -> pa.DataType:
    """Return the Arrow type that ADBC writes into a column of a PostgreSQL type."""
    shape = _NUMERIC.fullmatch(name)
    if shape is None:
        return _WRITES[name]
    precision, scale = int(shape[1]), int(shape[2])
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def writable(array: pa.Array, name: str) -> pa.Array:
    """Return the values as ADBC must be given them for a column of type `name`.

    raises     pa.ArrowInvalid: a value does not fit, e.g. a time past the year 294246
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return writable(array.storage, name)
    if pa.types.is_dictionary(kind):
        return writable(array.cast(kind.value_type), name)
    if pa.types.is_run_end_encoded(kind):
        return writable(pc.run_end_decode(array), name)
    if name == "json" and pa.types.is_nested(kind):
        return json_text(array)
    for applies, convert in _CONVERSIONS:
        if applies(kind):
            array = convert(array)
    target = written_type(name)
    return array if array.type == target else array.cast(target)


def _has_nanoseconds(kind: pa.DataType) -> bool:
    return (pa.types.is_timestamp(kind) or pa.types.is_time(kind)) and kind.unit == "ns"


def _nanoseconds_as_text(array: pa.Array) -> pa.Array:
    """As PostgreSQL would read it, with all nine digits; zoned times in UTC."""
    if pa.types.is_timestamp(array.type) and array.type.tz:
        array = array.cast(pa.timestamp("ns", "UTC"))
    return array.cast(pa.string())


def _durations_as_text(array: pa.Array) -> pa.Array:
    """As an interval's text: `-1.500000000 seconds`."""
    total = array.cast(pa.int64())
    size = pc.abs_checked(total)
    seconds = pc.divide(size, 1_000_000_000)
    rest = pc.subtract(size, pc.multiply(seconds, 1_000_000_000))
    digits = pc.utf8_lpad(rest.cast(pa.string()), 9, "0")
    sign = pc.if_else(pc.less(total, 0), "-", "")
    return pc.binary_join_element_wise(
        pc.binary_join_element_wise(sign, seconds.cast(pa.string()), ""), ".", digits, " seconds", ""
    )


_CONVERSIONS: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]]] = [
    (_has_nanoseconds, _nanoseconds_as_text),
    (lambda kind: kind == pa.duration("ns"), _durations_as_text),
    (pa.types.is_float16, lambda array: array.cast(pa.float32())),
    (lambda kind: pa.types.is_decimal(kind) and kind.scale < 0, lambda array: array.cast(_whole(array.type))),
]


def _whole(kind: pa.DataType) -> pa.DataType:
    return written_type(bronze_type(kind))


@dataclass(frozen=True)
class _Range:
    """Moments PostgreSQL can hold, in an Arrow column's own unit since 1970."""

    first: int
    last: int


_RANGES: dict[str, _Range] = {
    "date": _Range(-2_440_588, 2_145_031_948),
    "time": _Range(0, 86_400_000_000),
    # Julian day 0; an Arrow timestamp ends before PostgreSQL's does.
    "timestamp": _Range(-210_866_803_200_000_000, 2**63 - 1),
    "timestamptz": _Range(-210_866_803_200_000_000, 2**63 - 1),
}


def unwritable_rows(array: pa.Array, name: str) -> tuple[pa.Array, str]:
    """Say row by row which written values PostgreSQL would refuse, and why; for the slow path only."""
    if pa.types.is_string(array.type) and name == "text":
        has_nul = pc.fill_null(pc.match_substring(array, "\0"), False)
        return pc.or_(has_nul, _not_utf8(array)), "a NUL character or bytes that are not utf-8"
    limits = _RANGES.get(name)
    if limits is None:
        return pa.array([False] * len(array)), ""
    numbers = array.cast(pa.int32() if name == "date" else pa.int64())
    outside = pc.or_(pc.less(numbers, limits.first), pc.greater(numbers, limits.last))
    return pc.fill_null(outside, False), f"a {name} that PostgreSQL cannot hold"


def _not_utf8(array: pa.Array) -> pa.Array:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        raw = array.cast(pa.binary())
        return pa.array([value is not None and not _is_utf8(value) for value in raw.to_pylist()])
    return pa.array([False] * len(array))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
