"""The records of a delivery one by one, as bronze would hold them: for samples, never for a load.

The readers are those of the loads: CSV record by record, JSON line by line or element by
element, Arrow in batches. What a load sets aside as damaged is damaged here, for the same reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from datops_assets.errors import ContainerDamagedError
from datops_assets.ingestion.csv_records import CsvRecords, Record, is_utf8_text
from datops_assets.ingestion.csv_text import open_csv
from datops_assets.ingestion.json_lines import check_lines, split_lines
from datops_assets.ingestion.json_text import (
    MAX_DEPTH,
    ArrayElements,
    NotAnObjectError,
    depth_of,
    not_json,
    object_members,
)
from datops_assets.ingestion.source import ArrowDelivery, Delivery, TextDelivery, Unit
from datops_assets.ingestion.tables import FileTable

if TYPE_CHECKING:
    import pyarrow as pa

_FRACTION_ZEROS = re.compile(r"(\.\d*?)0+$")


class JsonText(str):
    """A value that was delivered as JSON, in the text it was delivered in."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class DeliveredRecord:
    """One record. `values` go by delivered name, the first of a name that occurs twice.

    values   the text that bronze would show; JsonText where bronze would hold json
    damage   what is wrong with it, if a load would set it aside; then there are no values
    """

    row: int
    values: Mapping[str, str | None]
    damage: str | None = None


def read_records(delivery: Delivery, table: FileTable, unit: Unit) -> Iterator[DeliveredRecord]:
    """Yield the records in order, damaged ones included; holds one of them at a time.

    raises     ContainerDamagedError, FileChangedError, LoadRefusedError: a load would refuse the unit whole
    """
    if isinstance(delivery, ArrowDelivery):
        return _arrow_records(delivery)
    assert isinstance(delivery, TextDelivery)
    if unit.format == "fixed":
        return _fixed_records(delivery, table)
    if unit.format in ("csv", "excel"):
        return _csv_records(delivery, table, unit)
    if unit.format == "json":
        return _elements(delivery, table, unit)
    return _lines(delivery)


def _csv_records(delivery: TextDelivery, table: FileTable, unit: Unit) -> Iterator[DeliveredRecord]:
    text = open_csv(delivery.chunks(), table.csv_of(unit.format), unit.path)
    return _named(text.columns, CsvRecords(text.chunks, text.dialect, text.position))


def _fixed_records(delivery: TextDelivery, table: FileTable) -> Iterator[DeliveredRecord]:
    from datops_assets.ingestion.fixed_width import fixed_records, open_fixed

    assert table.fixed is not None
    text = open_fixed(delivery.chunks(), table.fixed)
    return _named([column.name for column in table.fixed.columns], fixed_records(text, table.fixed))


def _named(columns: Sequence[str], records: Iterable[Record]) -> Iterator[DeliveredRecord]:
    places: dict[str, int] = {}
    for place, name in enumerate(columns):
        places.setdefault(name, place)
    for row, record in enumerate(records, start=1):
        if record.fields is None:
            yield DeliveredRecord(row, {}, record.damage or "damaged")
            continue
        fields = [None if field is None else field.decode() for field in record.fields]
        yield DeliveredRecord(row, {name: fields[place] for name, place in places.items()})


def _lines(delivery: TextDelivery) -> Iterator[DeliveredRecord]:
    for line in check_lines(split_lines(delivery.chunks())):
        if line.damage is not None:
            yield DeliveredRecord(line.row, {}, line.damage)
        elif line.raw.strip():
            yield _line(line.row, line.raw.decode())


def _line(row: int, text: str) -> DeliveredRecord:
    try:
        return DeliveredRecord(row, _members(text))
    except NotAnObjectError as error:
        return DeliveredRecord(row, {}, str(error))
    except ValueError as error:
        return DeliveredRecord(row, {}, not_json(error))
    except RecursionError:
        return DeliveredRecord(row, {}, "values nested too deeply")


def _elements(delivery: TextDelivery, table: FileTable, unit: Unit) -> Iterator[DeliveredRecord]:
    for row, element in enumerate(ArrayElements(delivery.chunks(), table.records, unit.path), start=1):
        if b"\0" in element.raw or not is_utf8_text(element.raw) or depth_of(element.raw) > MAX_DEPTH:
            raise ContainerDamagedError(
                f"{unit.path}: it holds bytes that are not utf-8, NUL bytes, or values nested too deeply"
            )
        try:
            yield DeliveredRecord(row, _members(element.raw.decode()))
        except NotAnObjectError as error:
            yield DeliveredRecord(row, {}, str(error))
        except RecursionError:
            yield DeliveredRecord(row, {}, "values nested too deeply")
        except ValueError as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise ContainerDamagedError(
                f"{unit.path}: line {element.line}, column {element.column}: {what}"
            ) from None


def _members(text: str) -> dict[str, str | None]:
    values: dict[str, str | None] = {}
    for name, raw in object_members(text):
        values.setdefault(name, JsonText(raw))
    return values


def _arrow_records(delivery: ArrowDelivery) -> Iterator[DeliveredRecord]:
    from datops_assets.ingestion.arrow_types import bronze_type

    row = 0
    schema = delivery.schema()
    types = [bronze_type(field.type) for field in schema]
    for batch in delivery.batches():
        reasons: dict[int, list[str]] = {}
        columns: dict[str, list[str | None]] = {}
        for name, type_, array in zip(schema.names, types, batch.columns, strict=True):
            texts = _column_texts(name, type_, array, reasons)
            columns.setdefault(name, texts)
        for place in range(batch.num_rows):
            row += 1
            if place in reasons:
                yield DeliveredRecord(row, {}, "; ".join(reasons[place]))
            else:
                yield DeliveredRecord(row, {name: texts[place] for name, texts in columns.items()})


def _column_texts(name: str, type_: str, array: pa.Array, reasons: dict[int, list[str]]) -> list[str | None]:
    """Return the texts of a column, and note which rows PostgreSQL could not hold."""
    from datops_assets.ingestion.arrow_types import unwritable_rows, writable

    written = writable(array, type_)
    refused, why = unwritable_rows(written, type_)
    bad = [place for place, is_bad in enumerate(refused.to_pylist()) if is_bad]
    for place in bad:
        reasons.setdefault(place, []).append(f"column {name!r} holds {why}")
    if bad:
        import pyarrow.compute as pc

        written = pc.if_else(pc.invert(refused), written, None)
    return postgres_texts(written, type_)


def postgres_texts(array: pa.Array, type_: str) -> list[str | None]:
    """Return written values as PostgreSQL prints them (TimeZone UTC, ISO dates)."""
    family = type_.partition("(")[0]
    if family in _PRINTED:
        return [None if value is None else _PRINTED[family](value) for value in array.to_pylist()]
    import pyarrow as pa

    texts = array.cast(pa.string()).to_pylist()
    render = _RENDERED.get(family)
    return texts if render is None else [None if text is None else render(text) for text in texts]


def _float_text(most_exponent: int) -> Callable[[str], str]:
    def render(text: str) -> str:
        named = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text)
        if named is not None:
            return named
        sign, digits, exponent = Decimal(text).as_tuple()
        shown = "".join(map(str, digits)).rstrip("0") or "0"
        assert isinstance(exponent, int)
        scientific = exponent + len(digits) - 1 if shown != "0" else 0
        minus = "-" if sign else ""
        if -4 <= scientific < most_exponent:
            plain = format(Decimal((0, tuple(map(int, shown)), scientific - len(shown) + 1)), "f")
            return minus + plain
        mantissa = shown[0] + ("." + shown[1:] if len(shown) > 1 else "")
        return f"{minus}{mantissa}e{'-' if scientific < 0 else '+'}{abs(scientific):02d}"

    return render


def _clock_text(text: str) -> str:
    return _FRACTION_ZEROS.sub(r"\1", text).removesuffix(".")


def _zoned_text(text: str) -> str:
    return _clock_text(text.removesuffix("Z")) + "+00"


def _interval_text(value: Any) -> str:
    microseconds = round(value.total_seconds() * 1_000_000) if hasattr(value, "total_seconds") else int(value)
    seconds, rest = divmod(abs(microseconds), 1_000_000)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:06d}"
    return ("-" if microseconds < 0 else "") + _clock_text(clock)


_PRINTED: dict[str, Callable[[Any], str]] = {
    "boolean": lambda value: "true" if value else "false",
    "numeric": lambda value: format(value, "f"),
    "bytea": lambda value: f"\\x{value.hex()}",
    "uuid": lambda value: str(value if isinstance(value, UUID) else UUID(bytes=value)),
    "json": JsonText,
    "interval": _interval_text,
}
# PostgreSQL prints a float's shortest digits, plainly from 1e-4 up to 15 (6) digits before the point.
_RENDERED: dict[str, Callable[[str], str]] = {
    "double precision": _float_text(15),
    "real": _float_text(6),
    "time": _clock_text,
    "timestamp": _clock_text,
    "timestamptz": _zoned_text,
}
