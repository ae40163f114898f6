"""Files behind a URL, by the fsspec driver of their store: S3, Google Cloud Storage, Azure, SFTP and others.

A file is known by its ETag, else by size and time of its last change. It is read front to back, and
what wants a file of this machine (Parquet, ORC, Excel, zip) gets a copy in the folder for temporary
files, one at a time. After reading, the store is asked again: another ETag, and nothing is kept.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import hashlib
import io
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from datops_assets.errors import DatopsError, FileChangedError, SourceRefusedError
from datops_assets.ingestion.listing import in_load_order, is_marker, why_waiting
from datops_assets.ingestion.packed import CHUNK_BYTES
from datops_assets.ingestion.source import Reachability, Unit
from datops_assets.ingestion.store import Store, changed
from datops_assets.ingestion.store_errors import explain, is_missing
from datops_assets.ingestion.tables import FileTable

_MAGIC = frozenset("*?[")
_BLOCK_BYTES = 8 << 20
_MOST_NAMESAKES = 1000
_EXTRAS = {
    "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure",
    "sftp": "sftp", "ssh": "sftp",
}  # fmt: skip
_ETAGS = ("ETag", "etag", "generation", "md5Hash")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "timeModified")


@dataclass(frozen=True)
class Entry:
    """What a store says of one file or folder."""

    name: str
    """Whole path, as the store's own calls want it."""
    is_folder: bool
    size_bytes: int
    etag: str | None = None
    changed_at: float | None = None
    """Seconds since 1970; None: the store does not say."""
    refused: str | None = None

    @property
    def fingerprint(self) -> str | None:
        """What changes whenever the content may have changed; None: only reading it tells."""
        if self.etag is not None:
            return f"{self.size_bytes}:{self.etag}"
        return None if self.changed_at is None else f"{self.size_bytes}:{self.changed_at}"


class DistantStore(Store):
    """What all stores behind a network have in common."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._copy: tuple[tuple[str, str | None], Path, str] | None = None

    @abstractmethod
    def entries(self, folder: str) -> Sequence[Entry]:
        """List one folder below the URL ("" is the URL itself); none where there is no such folder.

        raises     SourceUnreachableError, SourceRefusedError
        """

    @abstractmethod
    def entry(self, path: str) -> Entry | None:
        """Look at one file by its path below the URL; None: there is none."""

    @abstractmethod
    def stream(self, unit: Unit) -> IO[bytes]:
        """Open a file for reading front to back. Raises as `open`."""

    def check(self, table: FileTable) -> Reachability:
        """Say whether the place can be listed."""
        try:
            self.entries("")
        except DatopsError as error:
            return Reachability(False, str(error))
        return Reachability(True, f"{self.url} can be listed")

    def list_units(self, table: FileTable, now: float) -> Sequence[Unit]:
        """List the files by partition, then by path as a person would sort it."""
        names: set[str] = set()
        found: dict[str, Entry] = {}
        for pattern in table.patterns:
            found.update(self._matching("", PurePosixPath(pattern).parts, names))
        units = [
            self._unit(table, path, entry, names, now)
            for path, entry in found.items()
            if not is_marker(PurePosixPath(path).name, table)
        ]
        return in_load_order(units)

    def open(self, unit: Unit) -> IO[bytes]:
        """Open a file: the copy where there is one."""
        if self._copy is not None and self._copy[0] == (unit.location, unit.fingerprint):
            return self._copy[1].open("rb")
        return self.stream(unit)

    def require_unchanged(self, unit: Unit, file: IO[bytes] | None = None) -> None:
        """Ask the store again."""
        entry = self.entry(unit.path)
        if entry is None:
            raise FileChangedError(f"{unit.path} vanished while it was read; nothing of it was kept")
        if entry.fingerprint != unit.fingerprint:
            raise changed(unit)

    def local_path(self, unit: Unit) -> Path:
        """Fetch the file, unless it is the one fetched last."""
        return self._fetched(unit)[0]

    def hash_content(self, unit: Unit) -> str:
        """Return the hash of what was fetched; that it is one version was seen then."""
        return self._fetched(unit)[1]

    def close(self) -> None:
        """Drop the copy."""
        if self._copy is not None:
            self._copy[1].unlink(missing_ok=True)
            self._copy = None

    def _fetched(self, unit: Unit) -> tuple[Path, str]:
        key = (unit.location, unit.fingerprint)
        if self._copy is not None and self._copy[0] == key:
            return self._copy[1], self._copy[2]
        DistantStore.close(self)
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(prefix="datops-", delete=False) as copy:
            path = Path(copy.name)
            try:
                with self.stream(unit) as source:
                    while chunk := source.read(CHUNK_BYTES):
                        digest.update(chunk)
                        copy.write(chunk)
                self.require_unchanged(unit)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        self._copy = (key, path, digest.hexdigest())
        return path, self._copy[2]

    def _matching(self, folder: str, parts: Sequence[str], names: set[str]) -> Iterator[tuple[str, Entry]]:
        """Yield path and entry of every file that a pattern's parts match, as a glob on a disk does."""
        part, rest = parts[0], parts[1:]
        if part != "**" and not _MAGIC.intersection(part):
            below = f"{folder}{part}"
            if rest:
                yield from self._matching(f"{below}/", rest, names)
            elif (entry := self.entry(below)) is not None:
                yield below, entry
            return
        entries = self.entries(folder)
        listed = [(PurePosixPath(entry.name.rstrip("/")).name, entry) for entry in entries]
        names.update(f"{folder}{name}" for name, entry in listed if not entry.is_folder)
        if part == "**" and rest:
            yield from self._matching(folder, rest, names)
        for name, entry in listed:
            if name.startswith("."):
                continue
            if part == "**" and entry.is_folder:
                yield from self._matching(f"{folder}{name}/", parts, names)
            elif part != "**" and fnmatch.fnmatchcase(name, part):
                if rest and entry.is_folder:
                    yield from self._matching(f"{folder}{name}/", rest, names)
                elif not rest and not entry.is_folder:
                    yield f"{folder}{name}", entry

    def _unit(self, table: FileTable, path: str, entry: Entry, names: set[str], now: float) -> Unit:
        def is_there(name: str) -> bool:
            beside = PurePosixPath(path).with_name(name).as_posix()
            return beside in names or self.entry(beside) is not None

        age_s = None if entry.changed_at is None else now - entry.changed_at
        return Unit(
            path=path,
            format=table.format_of(path),
            size_bytes=entry.size_bytes,
            fingerprint=entry.fingerprint,
            partition_key=table.partition.key_of(path) if table.partition else None,
            location=entry.name,
            waiting=why_waiting(table, PurePosixPath(path).name, age_s, is_there),
            refused=entry.refused,
            declared=table,
        )


class RemoteStore(DistantStore):
    """A store that fsspec has a driver for."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(url)
        self._options = dict(options or {})
        self._opened: tuple[Any, str] | None = None

    def entries(self, folder: str) -> Sequence[Entry]:
        """List one folder."""
        files, base = self._filesystem()
        path = f"{base}/{folder}".rstrip("/")
        try:
            files.invalidate_cache()
            listed = files.ls(path, detail=True)
        except Exception as error:
            if folder and is_missing(error):
                return []
            raise self._explained(error) from None
        return [
            _entry(each) for each in listed if each["name"].strip("/") != path.strip("/")
        ]  # some stores keep a folder as an empty object of its name

    def entry(self, path: str) -> Entry | None:
        """Look at one file."""
        files, base = self._filesystem()
        try:
            files.invalidate_cache()
            found = _entry(files.info(f"{base}/{path}"))
        except Exception as error:
            if is_missing(error):
                return None
            raise self._explained(error) from None
        return None if found.is_folder else found

    def stream(self, unit: Unit) -> IO[bytes]:
        """Open a file; an S3 driver asks for the version it saw with each piece."""
        files, _ = self._filesystem()
        try:
            file = files.open(unit.location, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
        except Exception as error:
            if is_missing(error):
                raise FileChangedError(
                    f"{unit.path} vanished before it was read; nothing of it was kept"
                ) from None
            raise self._explained(error, unit) from None
        return cast(IO[bytes], _Explaining(file, lambda error: self._explained(error, unit)))

    def close(self) -> None:
        """Drop the copy, end the connection."""
        super().close()
        client = getattr(self._opened[0], "client", None) if self._opened else None
        self._opened = None
        if client is not None:
            try:
                client.close()
            except Exception:  # noqa: S110 it is given up anyway
                pass

    def move(self, unit: Unit, target: str) -> None:
        """Move a file to another URL of the store; a namesake of another content gets a number beside it."""
        files, _ = self._filesystem()
        try:
            path = self._free(files, unit, files._strip_protocol(target))
            if path is not None:
                files.makedirs(path.rpartition("/")[0], exist_ok=True)
                if self.url.startswith(("sftp:", "ssh:")):
                    files.mv(unit.location, path)  # a rename there
                    return
                files.cp_file(unit.location, path)
                self.require_unchanged(unit)
            files.rm_file(unit.location)
        except FileChangedError:
            return
        except Exception as error:
            raise self._explained(error, unit) from None

    def _free(self, files: Any, unit: Unit, wanted: str) -> str | None:
        """Return a name that nobody has; None where the file is there already, after a crash."""
        stem, dot, ending = wanted.rpartition(".")
        for n in range(1, _MOST_NAMESAKES):
            path = wanted if n == 1 else f"{stem}.{n}{dot}{ending}" if dot else f"{wanted}.{n}"
            try:
                files.invalidate_cache()
                found = _entry(files.info(path))
            except Exception as error:
                if is_missing(error):
                    return path
                raise
            if found.etag is not None and found.fingerprint == unit.fingerprint:
                return None
        raise FileExistsError(wanted)

    def delete(self, unit: Unit) -> None:
        """Delete a file."""
        files, _ = self._filesystem()
        try:
            files.rm_file(unit.location)
        except Exception as error:
            raise self._explained(error, unit) from None

    def _explained(self, error: BaseException, unit: Unit | None = None) -> DatopsError:
        return explain(error, self.url, unit)

    def _filesystem(self) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec

            protocol = self.url.partition("://")[0]
            options = {"use_listings_cache": False, "skip_instance_cache": True, **self._options}
            try:
                if protocol in ("sftp", "ssh"):
                    from datops_assets.ingestion.sftp import open_sftp

                    self._opened = open_sftp(self.url, options)
                else:
                    files, base = fsspec.core.url_to_fs(self.url, **options)
                    self._opened = files, base.rstrip("/")
            except ImportError:
                extra = _EXTRAS.get(protocol)
                advice = (
                    f"pip install 'datops[{extra}]'" if extra else f"install fsspec's driver of {protocol}://"
                )
                raise SourceRefusedError(
                    f"reading {self.url} needs a driver that is not installed: {advice}"
                ) from None
            except Exception as error:
                raise self._explained(error) from None
        return self._opened


class _Explaining(io.RawIOBase):
    """A file of a driver whose errors are explained."""

    def __init__(self, file: Any, explained: Callable[[BaseException], DatopsError]) -> None:
        self._file = file
        self._explained = explained

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        try:
            return bytes(self._file.read(size))
        except Exception as error:
            raise self._explained(error) from None

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Close the driver's file; what it says of that is nothing to us."""
        try:
            self._file.close()
        except Exception:  # noqa: S110
            pass
        super().close()


def _entry(values: Mapping[str, Any]) -> Entry:
    etag = next((str(values[name]) for name in _ETAGS if values.get(name)), None)
    time = next((values[name] for name in _TIMES if values.get(name)), None)
    return Entry(
        name=values["name"],
        is_folder=values.get("type") == "directory",
        size_bytes=int(values.get("size") or 0),
        etag=etag.strip('"') if etag else None,
        changed_at=_seconds(time),
        refused="is a link; deliver the file itself" if values.get("type") == "link" else None,
    )


def _seconds(time: Any) -> float | None:
    if isinstance(time, str):
        try:
            time = dt.datetime.fromisoformat(time)
        except ValueError:
            return None
    if isinstance(time, dt.datetime):
        return (time if time.tzinfo else time.replace(tzinfo=dt.UTC)).timestamp()
    return float(time) if isinstance(time, int | float) else None
