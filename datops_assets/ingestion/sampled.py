"""The first records of every file, read as if the file ended there: for trying a pipeline out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import Any, TypeVar

import pyarrow as pa

from datops_assets.errors import FileChangedError
from datops_assets.ingestion.csv_records import CsvRecords
from datops_assets.ingestion.csv_text import delivered_bytes, is_utf8, open_csv, transcoded
from datops_assets.ingestion.files import FileSource
from datops_assets.ingestion.fixed_width import open_fixed
from datops_assets.ingestion.json_lines import Line, split_lines
from datops_assets.ingestion.json_text import ArrayElements, Element
from datops_assets.ingestion.packed import CHUNK_BYTES
from datops_assets.ingestion.source import ArrowDelivery, Delivery, Reachability, Source, TextDelivery, Unit
from datops_assets.ingestion.tables import FileTable, SourceTable

TableT = TypeVar("TableT", bound=SourceTable)
_IN_MEMORY_BYTES = 8 << 20


class Sampled(Source[TableT]):
    """The units of one table, each cut after its first records.

    promise    what is damaged within those records still is; what comes after them is not looked at
    """

    def __init__(self, source: Source[TableT], table: TableT, rows: int) -> None:
        self._source = source
        self._table = table
        self._rows = rows

    def check(self, table: TableT) -> Reachability:
        """Say whether the source can be read."""
        return self._source.check(table)

    def list_units(self, table: TableT, watermark: str | None = None) -> Sequence[Unit]:
        """List what there is; what waits is not sampled either. One look: a sample is no place to go on from."""
        return [] if watermark else [self._cut(unit) for unit in self._source.list_units(table)]

    def _cut(self, unit: Unit) -> Unit:
        return replace(unit, most_rows=self._rows)

    def open(self, unit: Unit) -> Delivery:
        """Open a unit for one pass over its first records."""
        delivery = self._source.open(unit)
        if isinstance(delivery, ArrowDelivery) and unit.fingerprint is not None:
            return _SampledBatches(self._source, delivery, unit, self._rows)
        if isinstance(delivery, TextDelivery) and isinstance(self._table, FileTable):
            return _SampledText(self._source, delivery, self._table, unit, self._rows)
        return delivery  # a source whose units have no bytes of their own stops after `most_rows` itself

    def sketch(self, table: TableT) -> list[str]:
        """Name the columns."""
        return self._source.sketch(table)

    def acknowledge(self, unit: Unit) -> None:
        """Do nothing: files stay where they are."""


class _SampledBatches(ArrowDelivery):
    def __init__(self, source: Source[Any], delivery: ArrowDelivery, unit: Unit, rows: int) -> None:
        self._source = source
        self._delivery = delivery
        self._unit = unit
        self._rows = rows

    def schema(self) -> pa.Schema:
        return self._delivery.schema()

    def batches(self) -> Iterator[pa.RecordBatch]:
        left = self._rows
        for batch in self._delivery.batches():
            yield batch.slice(0, left)
            left -= batch.num_rows
            if left <= 0:
                return

    def content_hash(self) -> str:
        """A whole file need not be read to tell its sample from others."""
        _require_unchanged(self._source, self._unit)
        return hashlib.sha256(f"{self._unit.path}:{self._unit.fingerprint}:{self._rows}".encode()).hexdigest()

    def close(self) -> None:
        self._delivery.close()


class _SampledText(TextDelivery):
    def __init__(
        self, source: Source[Any], delivery: TextDelivery, table: FileTable, unit: Unit, rows: int
    ) -> None:
        self._source = source
        self._delivery = delivery
        self._table = table
        self._unit = unit
        self._rows = rows
        self._spool = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 closed by close()
        self._digest = hashlib.sha256()
        self._sample = self._hashed()

    def chunks(self) -> Iterator[bytes]:
        return self._sample

    def content_hash(self) -> str:
        for _ in self._sample:
            pass
        _require_unchanged(self._source, self._unit)
        return self._digest.hexdigest()

    def close(self) -> None:
        self._spool.close()
        self._delivery.close()

    def _hashed(self) -> Iterator[bytes]:
        cut = _find_cut(self._noted(), self._table, self._unit, self._rows)
        for chunk in self._kept(cut):
            self._digest.update(chunk)
            yield chunk

    def _noted(self) -> Iterator[bytes]:
        """Yield the file's bytes to whoever counts its records, keeping them."""
        for chunk in self._delivery.chunks():
            self._spool.write(chunk)
            yield chunk

    def _kept(self, cut: _Cut | None) -> Iterator[bytes]:
        if cut is None:
            yield from self._read()
        elif not is_utf8(cut.encoding):
            head = b"".join(_first(transcoded(self._read(), cut.encoding), cut.at))
            yield delivered_bytes(head, cut.encoding)
        else:
            yield from _first(self._read(), cut.at)
            yield cut.ending

    def _read(self) -> Iterator[bytes]:
        self._spool.seek(0)
        while chunk := self._spool.read(CHUNK_BYTES):
            yield chunk


@dataclass(frozen=True)
class _Cut:
    """Where a text ends after its first records (byte offset in the unpacked text), and what closes it."""

    at: int
    ending: bytes = b""
    encoding: str = "utf-8"
    """Of the bytes as delivered, where `at` counts in their text as UTF-8."""


def _find_cut(chunks: Iterator[bytes], table: FileTable, unit: Unit, rows: int) -> _Cut | None:
    """Read as far as the last record wanted; None: the text has no more than those, and was read whole."""
    if unit.format in ("csv", "excel"):
        text = open_csv(chunks, table.csv_of(unit.format), unit.path)
        records = CsvRecords(text.chunks, text.dialect, text.position)
        return (
            _Cut(records.position, encoding=text.dialect.encoding)
            if sum(1 for _ in islice(records, rows)) == rows
            else None
        )
    if unit.format == "json":
        elements = list(islice(_ends(ArrayElements(chunks, table.records, unit.path)), rows))
        closing = b"]" + b"}" * (len(table.records.split(".")) if table.records else 0)
        return _Cut(elements[-1], closing) if len(elements) == rows else None
    if unit.format == "fixed" and table.fixed:
        chunks = open_fixed(chunks, table.fixed)
    lines = list(islice(_ends(split_lines(chunks)), rows))
    encoding = table.fixed.encoding if unit.format == "fixed" and table.fixed else "utf-8"
    return _Cut(lines[-1], b"\n" if is_utf8(encoding) else b"", encoding) if len(lines) == rows else None


def _ends(records: Iterable[Element | Line]) -> Iterator[int]:
    """Yield where each record ends."""
    return (record.position + len(record.raw) for record in records)


def _first(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:size]
        size -= len(chunk)
        if size <= 0:
            return


def _require_unchanged(source: Source[Any], unit: Unit) -> None:
    if not isinstance(source, FileSource):
        return
    try:
        source.require_unchanged(unit)
    except FileChangedError:
        raise FileChangedError(f"{unit.path} changed while it was read; try it out again") from None
