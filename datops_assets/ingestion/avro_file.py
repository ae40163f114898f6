"""An Avro file as a delivery of record batches.

Moments are read as the numbers they are stored as: Python's own end at the year 9999 and carry no
more than microseconds. So the file's header is handed to the reader without their logical types.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import IO, Any, ClassVar

import pyarrow as pa

from datops_assets.ingestion.typed_file import BATCH_BYTES, MOST_ROWS, TypedFile, driver

_MOMENTS: dict[str, pa.DataType] = {
    "date": pa.date32(),
    "time-millis": pa.time32("ms"),
    "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "timestamp-nanos": pa.timestamp("ns", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
    "local-timestamp-nanos": pa.timestamp("ns"),
}
_PLAIN: dict[str, pa.DataType] = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
_WIDER: dict[frozenset[str], str] = {
    frozenset({"int", "long"}): "long",
    frozenset({"float", "double"}): "double",
    frozenset({"int", "double"}): "double",
    frozenset({"int", "float", "double"}): "double",
}
"""Unions of numbers in which every value of each stays what it is in one of them."""
_SYNC_BYTES = 16
_MOST_DIGITS = 76


class _UnkeepableError(Exception):
    """A schema that has no columns here; the text is the rest of a sentence about the file."""


class AvroDelivery(TypedFile):
    """One Avro file (object container), read block by block in batches of about 16 MiB."""

    noun: ClassVar[str] = "Avro"

    def _open(self, path: Path) -> None:
        self._avro = driver("fastavro", "avro", f"{self._unit.path} is Avro, which")
        with path.open("rb") as file:
            reader = self._reader(file)
            schema = reader.writer_schema
            after = file.tell()
            file.seek(after - _SYNC_BYTES)
            sync = file.read(_SYNC_BYTES)
        if not isinstance(schema, Mapping) or schema.get("type") != "record":
            raise self.refused("holds values that are no records; only records have columns")
        try:
            self._types = _Types()
            self._schema = pa.schema(
                [(field["name"], self._types.of(field["type"], field["name"])) for field in schema["fields"]]
            )
        except _UnkeepableError as error:
            raise self.refused(str(error)) from None
        self._after = after
        self._header = self._header_without_moments(reader, schema, sync)

    def schema(self) -> pa.Schema:
        """Return the columns."""
        return self._schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order."""
        with self._path.open("rb") as file:
            file.seek(self._after)
            blocks = self._guarded(self._reader(_Spliced(self._header, file)))
            for block in blocks:
                row_bytes = block.size // max(block.num_records, 1) + 1
                rows = max(1, min(MOST_ROWS, BATCH_BYTES // (8 * row_bytes)))
                records = self._guarded(block)
                while some := list(islice(records, rows)):
                    yield self._batch(some)

    def close(self) -> None:
        """Nothing stays open."""

    def _batch(self, records: list[dict[str, Any]]) -> pa.RecordBatch:
        with self.reading():
            try:
                columns = [
                    pa.array([record[field.name] for record in records], field.type) for field in self._schema
                ]
            except (ValueError, TypeError, OverflowError) as error:
                if isinstance(error, pa.ArrowException):
                    raise
                raise self.damaged(type(error).__name__) from None
            return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _guarded(self, items: Any) -> Iterator[Any]:
        """Yield what fastavro reads; whatever it says of damaged bytes is damage."""
        source = iter(items)
        while True:
            try:
                item = next(source)
            except StopIteration:
                return
            except Exception as error:
                raise self._unreadable(error) from None
            yield item

    def _reader(self, file: Any) -> Any:
        try:
            return self._avro.block_reader(file)
        except Exception as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> Exception:
        """Every damage has an exception of its own there: cut, bad marker, bad index, no UTF-8, no UUID."""
        if isinstance(error, ValueError) and "codec is supported but" in str(error):
            codec = str(error).partition(" ")[0]
            return self.refused(f"is packed with {codec}, which is not installed: pip install 'datops[avro]'")
        return self.damaged(type(error).__name__)

    def _header_without_moments(self, reader: Any, schema: Mapping[str, Any], sync: bytes) -> bytes:
        plain = json.dumps(_without_moments(schema)).encode()
        metadata = {"avro.schema": plain, "avro.codec": (reader.codec or "null").encode()}
        head = BytesIO()
        head.write(b"Obj\x01")
        self._avro.schemaless_writer(head, {"type": "map", "values": "bytes"}, metadata)
        head.write(sync)
        return head.getvalue()


class _Spliced:
    """Other first bytes in front of a file that stands behind its own."""

    def __init__(self, first: bytes, rest: IO[bytes]) -> None:
        self._first = BytesIO(first)
        self._rest = rest
        self._at = 0

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        data = self._first.read(size)
        if len(data) < size:
            data += self._rest.read(size - len(data))
        self._at += len(data)
        return data

    def tell(self) -> int:
        """Return how much was read; blocks note it."""
        return self._at


class _Types:
    """Arrow types of an Avro schema."""

    def __init__(self) -> None:
        self._named: dict[str, pa.DataType | None] = {}

    def of(self, schema: Any, column: str, *, nested: bool = False) -> pa.DataType:
        """Return the type that holds every value.

        raises     _UnkeepableError: there is none
        """
        if isinstance(schema, list):
            return self._union(schema, column, nested=nested)
        if isinstance(schema, str):
            return _PLAIN[schema] if schema in _PLAIN else self._known(schema, column)
        kind = schema["type"]
        if isinstance(kind, list | Mapping):
            return self.of(kind, column, nested=nested)
        logical = schema.get("logicalType")
        if logical in _MOMENTS and kind in ("int", "long"):
            return _MOMENTS[logical]
        if kind == "array":
            return pa.list_(self.of(schema["items"], column, nested=True))
        if kind == "map":
            return pa.map_(pa.string(), self.of(schema["values"], column, nested=True))
        if kind in ("record", "error"):
            return self._record(schema, column)
        found = self._scalar(schema, kind, logical, column, nested=nested)
        if "name" in schema:
            self._named[schema["name"]] = found
        return found

    def _scalar(
        self, schema: Mapping[str, Any], kind: str, logical: str | None, column: str, *, nested: bool
    ) -> pa.DataType:
        if logical == "decimal" and kind in ("bytes", "fixed"):
            precision, scale = schema["precision"], schema.get("scale", 0)
            if precision > _MOST_DIGITS:
                raise _UnkeepableError(
                    f"has a decimal of {precision} digits in {column!r}, {_MOST_DIGITS} can be kept"
                )
            return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
        if logical == "uuid" and not nested and kind == "string":
            return pa.uuid()
        if kind == "fixed":
            return pa.binary(schema["size"])
        return (
            pa.string() if kind == "enum" else _PLAIN[kind] if kind in _PLAIN else self._known(kind, column)
        )

    def _record(self, schema: Mapping[str, Any], column: str) -> pa.DataType:
        self._named[schema["name"]] = None
        fields = [(field["name"], self.of(field["type"], column, nested=True)) for field in schema["fields"]]
        if not fields:
            raise _UnkeepableError(f"has a record without fields in {column!r}, which no column holds")
        self._named[schema["name"]] = pa.struct(fields)
        return self._named[schema["name"]]

    def _known(self, name: str, column: str) -> pa.DataType:
        found = self._named.get(name)
        if found is None:
            raise _UnkeepableError(
                f"has a record that holds itself in {column!r} ({name}), which no column holds"
            )
        return found

    def _union(self, schema: list[Any], column: str, *, nested: bool) -> pa.DataType:
        kinds = [kind for kind in schema if kind != "null"]
        if len(kinds) == 1:
            return self.of(kinds[0], column, nested=nested)
        names = [kind if isinstance(kind, str) else kind.get("type") for kind in kinds]
        if not kinds:
            return pa.null()
        if all(isinstance(kind, str) for kind in kinds) and (wider := _WIDER.get(frozenset(kinds))):
            return _PLAIN[wider]
        shown = ", ".join(str(name) for name in names)
        raise _UnkeepableError(
            f"has a union of {shown} in {column!r}; only null beside one type, and numbers that fit one type, are read"
        )


def _without_moments(schema: Any) -> Any:
    """Return a schema whose moments are plain numbers, and whose nested UUIDs are texts."""
    return _stripped(schema, nested=0)


def _stripped(schema: Any, nested: int) -> Any:
    if isinstance(schema, list):
        return [_stripped(part, nested) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept = {name: value for name, value in schema.items() if not name.startswith("__fastavro")}
    logical = kept.get("logicalType")
    # "nested" counts records: the fields of the first one are columns.
    if logical in _MOMENTS or (logical == "uuid" and (nested > 1 or kept.get("type") != "string")):
        del kept["logicalType"]
    if "fields" in kept:
        kept["fields"] = [
            {
                **{name: value for name, value in field.items() if name not in ("default", "order")},
                "type": _stripped(field["type"], nested + 1),
            }
            for field in kept["fields"]
        ]
    for inner in ("items", "values"):
        if inner in kept:
            kept[inner] = _stripped(kept[inner], nested + 2)
    if isinstance(kept.get("type"), list | Mapping):
        kept["type"] = _stripped(kept["type"], nested)
    return kept
