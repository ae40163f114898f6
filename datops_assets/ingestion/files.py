"""Files as a source: their bytes and their hash, and whether they stayed the same meanwhile."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module

from datops_assets.errors import ContainerDamagedError, DatopsError
from datops_assets.ingestion.after_load import AfterLoad, put_away
from datops_assets.ingestion.packed import (
    CHUNK_BYTES,
    LONGEST_MAGIC_BYTES,
    PackedError,
    Packing,
    at_least,
    packing_found,
    packing_named,
    unpacked,
    zip_member,
)
from datops_assets.ingestion.source import Delivery, Reachability, Source, TextDelivery, Unit
from datops_assets.ingestion.store import LocalStore, Store, broken
from datops_assets.ingestion.tables import ExcelOptions, FileTable

_OPENED_BY = {
    "parquet": "parquet_file:ParquetDelivery",
    "orc": "orc_file:OrcDelivery",
    "avro": "avro_file:AvroDelivery",
}
"""Readers of typed files, imported when one is opened."""


class FileSource(Source[FileTable]):
    """Files below one place, found by a glob pattern."""

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        store: Store | None = None,
        after_load: AfterLoad = AfterLoad(),  # noqa: B008 a value
    ) -> None:
        self._now = now
        self._store = store or LocalStore()
        self._after_load = after_load

    def check(self, table: FileTable) -> Reachability:
        """Say whether the place is there and may be read, and how many files match."""
        reachability = self._store.check(table)
        if not reachability.ok:
            return reachability
        try:
            found = len(self.list_units(table))
        except DatopsError as error:
            return Reachability(False, str(error))
        count = f"{found} file(s) match" if found else "no file matches"
        return Reachability(True, f"{count} {', '.join(table.patterns)} below {table.root}")

    def list_units(self, table: FileTable, watermark: str | None = None) -> Sequence[Unit]:
        """List the files by partition, then by path as a person would sort it (2 before 10)."""
        return self._store.list_units(table, self._now())

    def open(self, unit: Unit) -> Delivery:
        """Open a file for one pass."""
        if unit.format in _OPENED_BY:
            module, _, name = _OPENED_BY[unit.format].partition(":")
            return getattr(import_module(f"datops_assets.ingestion.{module}"), name)(unit, self._store)
        if unit.format == "excel":
            from datops_assets.ingestion.excel_file import ExcelText

            return ExcelText(unit, self._store, unit.declared.excel if unit.declared else ExcelOptions())
        return FileBytes(unit, self._store)

    def sketch(self, table: FileTable) -> list[str]:
        """Name the columns of the newest file that is complete; none where there is no file."""
        from datops_assets.ingestion.sketch import columns_of

        ready = [
            (unit, unit.format)
            for unit in self.list_units(table)
            if unit.waiting is None and not unit.refused and unit.format
        ]
        if not ready:
            return []
        unit, format_ = ready[-1]
        with self.open(unit) as delivery:
            return columns_of(delivery, format_, table)

    def acknowledge(self, unit: Unit) -> None:
        """Archive or delete the file, where that is declared."""
        put_away(self._store, unit, self._after_load)

    def hash_content(self, unit: Unit) -> str:
        """Return the hash of the file as it lies there."""
        return self._store.hash_content(unit)

    def require_unchanged(self, unit: Unit) -> None:
        """Hold a file against what the listing saw.

        raises     FileChangedError
        """
        self._store.require_unchanged(unit)

    def close(self) -> None:
        """Let go of what the store holds."""
        self._store.close()


class FileBytes(TextDelivery):
    """The bytes of a file, unpacked where it is packed, hashed as they lie there."""

    def __init__(self, unit: Unit, store: Store) -> None:
        self._unit = unit
        self._store = store
        self._file = store.open(unit)
        self._digest = hashlib.sha256()
        self.bytes_read = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the unpacked bytes. What packs them is told by their beginning, not by the file's name alone."""
        first, raw = at_least(self._raw(), LONGEST_MAGIC_BYTES)
        named, found = packing_named(self._unit.path), packing_found(first)
        if found is None and (named is None or not first):
            return raw
        return self._unpacked(raw, found or named or "gzip")

    def content_hash(self) -> str:
        """Return the hash of the whole file; reads what a reader left unread."""
        for _ in self._raw():
            pass
        self._store.require_unchanged(self._unit, self._file)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _raw(self) -> Iterator[bytes]:
        while chunk := self._read():
            self._digest.update(chunk)
            self.bytes_read += len(chunk)
            if self.bytes_read > self._unit.size_bytes:
                # It grows: do not read after it for ever.
                self._store.require_unchanged(self._unit, self._file)
            yield chunk

    def _read(self) -> bytes:
        try:
            return self._file.read(CHUNK_BYTES)
        except OSError as error:
            raise ContainerDamagedError(f"{self._unit.path} cannot be read: {error.strerror}") from error

    def _unpacked(self, raw: Iterator[bytes], packing: Packing) -> Iterator[bytes]:
        try:
            if packing == "zip":
                # Its list of members stands at its end; the hash goes over the bytes in order.
                with self._store.local_path(self._unit).open("rb") as file:
                    yield from zip_member(file, self._unit.declared.member if self._unit.declared else None)
            else:
                yield from unpacked(raw, packing)
        except PackedError as error:
            raise broken(
                self._unit,
                f": {error}; deliver the file again" if "data is" in str(error) else f": {error}",
                lambda: self._store.require_unchanged(self._unit, self._file),
            ) from None
