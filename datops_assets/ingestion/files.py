"""Files as a source: their bytes and their hash, and whether they stayed the same meanwhile."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from pathlib import Path

from datops_assets.errors import ContainerDamagedError, DatopsError, FileChangedError
from datops_assets.ingestion.listing import fingerprint, list_files
from datops_assets.ingestion.source import Delivery, Reachability, Source, TextDelivery, Unit
from datops_assets.ingestion.tables import FileTable

CHUNK_BYTES = 1 << 20
"""Large enough that numpy's calls cost nothing, small enough to stay in the processor's cache."""
_GZIP_MAGIC = b"\x1f\x8b"


class FileSource(Source[FileTable]):
    """Files below a folder, found by a glob pattern."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now

    def check(self, table: FileTable) -> Reachability:
        """Say whether the folder is there and may be read, and how many files match."""
        if not table.root.is_dir():
            return Reachability(False, f"the folder {table.root} does not exist")
        if not os.access(table.root, os.R_OK | os.X_OK):
            return Reachability(False, f"no permission to read the folder {table.root}")
        found = len(self.list_units(table))
        count = f"{found} file(s) match" if found else "no file matches"
        return Reachability(True, f"{count} {table.pattern} below {table.root}")

    def list_units(self, table: FileTable, watermark: str | None = None) -> Sequence[Unit]:
        """List the files by partition, then by path as a person would sort it (2 before 10)."""
        return list_files(table, self._now())

    def open(self, unit: Unit) -> Delivery:
        """Open a file for one pass."""
        if unit.format == "parquet":
            from datops_assets.ingestion.parquet_file import ParquetDelivery

            return ParquetDelivery(unit)
        return FileBytes(unit)

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
        """Do nothing: files stay where they are."""

    def hash_content(self, unit: Unit) -> str:
        """Return the hash of the file as it lies on disk."""
        return hash_file(unit)


def hash_file(unit: Unit) -> str:
    """Return the sha256 of a file's bytes.

    raises     FileChangedError: it changed meanwhile, or is gone
    """
    with _opened(unit) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        require_unchanged(unit, file)
    return digest


def require_unchanged(unit: Unit, file: BufferedReader) -> None:
    """Hold what was read against what is there now.

    raises     FileChangedError
    """
    try:
        now = {fingerprint(os.fstat(file.fileno())), fingerprint(Path(unit.location).stat())}
    except FileNotFoundError:
        raise FileChangedError(f"{unit.path} vanished while it was read; nothing of it was kept") from None
    if now != {unit.fingerprint}:
        raise FileChangedError(
            f"{unit.path} changed while it was read; nothing of it was kept, the next run takes it"
        )


def _opened(unit: Unit) -> BufferedReader:
    try:
        return Path(unit.location).open("rb")
    except FileNotFoundError:
        raise FileChangedError(f"{unit.path} vanished before it was read; nothing of it was kept") from None
    except OSError as error:
        raise ContainerDamagedError(
            f"{unit.path} cannot be opened: {error.strerror}; check its permissions"
        ) from error


class FileBytes(TextDelivery):
    """The bytes of a file, unpacked where it ends in .gz, hashed as they lie on disk."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._file = _opened(unit)
        self._digest = hashlib.sha256()
        self.bytes_read = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the unpacked bytes."""
        raw = self._raw()
        return self._unpacked(raw) if self._unit.path.lower().endswith(".gz") else raw

    def content_hash(self) -> str:
        """Return the hash of the whole file; reads what a reader left unread."""
        for _ in self._raw():
            pass
        require_unchanged(self._unit, self._file)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _raw(self) -> Iterator[bytes]:
        while chunk := self._read():
            self._digest.update(chunk)
            self.bytes_read += len(chunk)
            if self.bytes_read > self._unit.size_bytes:
                require_unchanged(self._unit, self._file)  # it grows: do not read after it for ever
            yield chunk

    def _read(self) -> bytes:
        try:
            return self._file.read(CHUNK_BYTES)
        except OSError as error:
            raise ContainerDamagedError(f"{self._unit.path} cannot be read: {error.strerror}") from error

    def _unpacked(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        """Unpack gzip members one after the other, never more than a chunk at a time."""
        unpacker, packed = zlib.decompressobj(wbits=31), b""
        begun = False
        while packed := packed or next(raw, b""):
            if unpacker.eof:
                packed = packed.lstrip(b"\0")  # tapes and some copiers pad with zeros
                if not packed:
                    continue
                unpacker, begun = zlib.decompressobj(wbits=31), False
            begun = True
            try:
                unpacked = unpacker.decompress(packed, CHUNK_BYTES)
            except zlib.error:
                raise self._broken("the gzip data is damaged") from None
            packed = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            if unpacked:
                yield unpacked
        if begun and not unpacker.eof:
            raise self._broken("the gzip data is cut off")

    def _broken(self, how: str) -> DatopsError:
        """A file that is still being written looks like a cut one: say which it is."""
        try:
            require_unchanged(self._unit, self._file)
        except FileChangedError as changed:
            return changed
        return ContainerDamagedError(f"{self._unit.path}: {how}; deliver the file again")


def looks_packed(first: bytes) -> bool:
    """Return whether bytes that should be text are gzip data."""
    return first.startswith(_GZIP_MAGIC)
