"""Files as a destination: written whole beside their place, then renamed.

A reader finds the old file or the new one, never half of one. The same rows give the same bytes where
`order_by` says in which order, and a file whose bytes would be the same is left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from datops_assets.destinations.destination import Delivered, Destination
from datops_assets.destinations.rows import Rows
from datops_assets.errors import DestinationRefusedError, DestinationUnreachableError
from datops_assets.postgres.failpoints import hit

Format = Literal["csv", "jsonl", "parquet", "orc"]
_PARTIAL = ".datops-partial-"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileTarget:
    """One file."""

    path: str
    """Below the destination's folder."""
    format: Format


class FileDestination(Destination[FileTarget]):
    """A folder of this machine, or a URL that fsspec has a driver for (s3://, gs://, abfs://, memory://, …)."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = folder

    def deliver(self, rows: Rows, target: FileTarget, marker: str) -> Delivered:
        """Write the file, then rename it into its place; object stores show a whole object only anyway."""
        if isinstance(self._folder, Path):
            return self._to_folder(self._folder, rows, target)
        return self._to_url(self._folder, rows, target)

    def _to_folder(self, folder: Path, rows: Rows, target: FileTarget) -> Delivered:
        place = folder / target.path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._sweep(place)
            handle, name = tempfile.mkstemp(prefix=f".{place.name}{_PARTIAL}", dir=place.parent)
            written = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    count = write_rows(rows, target.format, file)
                    file.flush()
                    os.fsync(file.fileno())
                hit("export.written")
                if place.is_file() and _hash(place) == _hash(written):
                    return Delivered(count, str(place), changed=False)
                written.chmod(0o644 if not place.is_file() else place.stat().st_mode & 0o777)
                written.replace(place)
                hit("export.renamed")
            finally:
                written.unlink(missing_ok=True)
        except OSError as error:
            raise DestinationRefusedError(
                f"{place} cannot be written ({error.strerror}); the file that was there is as it was"
            ) from None
        return Delivered(count, str(place))

    def _sweep(self, place: Path) -> None:
        """Remove what killed deliveries of this file left."""
        for left in place.parent.glob(f".{place.name}{_PARTIAL}*"):
            with contextlib.suppress(OSError):
                left.unlink()

    def _to_url(self, url: str, rows: Rows, target: FileTarget) -> Delivered:
        import fsspec

        place = f"{url.rstrip('/')}/{target.path}"
        with tempfile.TemporaryFile() as spool:
            count = write_rows(rows, target.format, spool)
            spool.seek(0)
            try:
                files, path = fsspec.core.url_to_fs(place)
                files.makedirs(path.rpartition("/")[0], exist_ok=True)
                with files.open(path, "wb") as file:
                    while piece := spool.read(_CHUNK):
                        file.write(piece)
            except ImportError as error:
                raise DestinationRefusedError(f"{place}: {error}") from None
            except (PermissionError, FileNotFoundError) as error:
                raise DestinationRefusedError(f"{place} cannot be written ({type(error).__name__})") from None
            except Exception as error:  # each driver has errors of its own; their texts may hold credentials
                raise DestinationUnreachableError(
                    f"{place} could not be written ({type(error).__name__}); try again"
                ) from None
        return Delivered(count, place)


def write_rows(rows: Rows, format: Format, file: IO[bytes]) -> int:  # noqa: A002 - the document's word
    """Write all rows. Returns how many."""
    if format == "parquet":
        return _write_parquet(rows, file)
    if format == "orc":
        return _write_orc(rows, file)
    for piece in rows.csv() if format == "csv" else rows.json_lines():
        file.write(piece)
    return rows.count()


def _write_parquet(rows: Rows, file: IO[bytes]) -> int:
    import pyarrow.parquet as pq

    schema, batches = rows.arrow()
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def _write_orc(rows: Rows, file: IO[bytes]) -> int:
    import pyarrow as pa
    import pyarrow.orc as orc

    schema, batches = rows.arrow()
    count = 0
    with orc.ORCWriter(file, compression="zstd") as writer:
        writer.write(schema.empty_table())  # its columns, also where there is no row
        for batch in batches:
            writer.write(pa.Table.from_batches([batch]))
            count += batch.num_rows
    return count


def _hash(path: Path) -> Any:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
