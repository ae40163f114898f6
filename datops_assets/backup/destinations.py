"""Where backups are kept: a folder of this machine, or any object store that fsspec opens.

Belongs here: writing, reading, listing and removing files below one root. Does not: what they hold.
"""

from __future__ import annotations

import io
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from datops_assets.errors import BackupRefusedError, DatopsError, SourceUnreachableError

_BUFFER_BYTES = 1 << 20


class Destination(ABC):
    """One place that keeps backups. Paths are relative, with slashes."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def shown(self) -> str:
        """Where it is, for people; no secret."""

    @abstractmethod
    def create(self, path: str) -> Incoming:
        """Begin a file; it is there once it is committed, whole or not at all."""

    @abstractmethod
    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading. Raises FileNotFoundError."""

    @abstractmethod
    def list_files(self, folder: str) -> dict[str, int]:
        """Every file below a folder, by its path from there, with its size in bytes; none where it is not."""

    @abstractmethod
    def list_folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted."""

    @abstractmethod
    def remove(self, folder: str) -> None:
        """Remove a folder and all in it; the manifest first, so that what is left counts as no backup."""

    @abstractmethod
    def remove_file(self, path: str) -> None:
        """Remove one file; one that is not there is no error."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """How much still fits; None where nobody knows."""

    def write(self, path: str, data: bytes) -> None:
        """Write a small file."""
        incoming = self.create(path)
        try:
            incoming.write(data)
            incoming.commit()
        except BaseException:
            incoming.abandon()
            raise

    def read(self, path: str) -> bytes:
        """Read a small file. Raises FileNotFoundError."""
        with self.open(path) as file:
            return file.read()


class Incoming(ABC):
    """A file that is being written."""

    @abstractmethod
    def write(self, data: bytes, /) -> object:
        """Add bytes."""

    @abstractmethod
    def commit(self) -> None:
        """Make it appear, and make it last."""

    @abstractmethod
    def abandon(self) -> None:
        """Forget it. Never raises."""


class FolderDestination(Destination):
    """A folder of this machine."""

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(name)
        self.root = root

    @property
    def shown(self) -> str:
        """The folder."""
        return str(self.root)

    def create(self, path: str) -> Incoming:
        """Begin a file beside its place."""
        with explained(self):
            target = self._path(path)
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return _IncomingFile(target)

    def open(self, path: str) -> IO[bytes]:
        """Open a file."""
        return self._path(path).open("rb")

    def list_files(self, folder: str) -> dict[str, int]:
        """Every regular file below; links are none of ours."""
        top = self._path(folder)
        return {
            path.relative_to(top).as_posix(): path.stat().st_size
            for path in sorted(top.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }

    def list_folders(self, folder: str) -> list[str]:
        """Names of the folders."""
        top = self._path(folder)
        return sorted(path.name for path in top.iterdir() if path.is_dir()) if top.is_dir() else []

    def remove(self, folder: str) -> None:
        """Remove it; the manifest first."""
        top = self._path(folder)
        with explained(self):
            (top / MANIFEST).unlink(missing_ok=True)
            if top.exists():
                shutil.rmtree(top)

    def remove_file(self, path: str) -> None:
        """Remove it."""
        with explained(self):
            self._path(path).unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """What the disk has left."""
        here = self.root
        while not here.exists():
            here = here.parent
        return shutil.disk_usage(here).free

    def _path(self, path: str) -> Path:
        parts = PurePosixPath(path).parts
        if not parts or ".." in parts or path.startswith("/"):
            raise BackupRefusedError(f"{path!r} leads out of the destination {self.name}")
        return self.root.joinpath(*parts)


class _IncomingFile(Incoming):
    def __init__(self, target: Path) -> None:
        self._target, self._part = target, target.with_name(target.name + ".part")
        descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=_BUFFER_BYTES)

    def write(self, data: bytes, /) -> object:
        return self._file.write(data)

    def commit(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.rename(self._target)
        folder = os.open(self._target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def abandon(self) -> None:
        try:
            self._file.close()
        except OSError:  # a full disk says so again when the buffer is flushed
            pass
        with suppress(OSError):
            self._part.unlink(missing_ok=True)
            self._target.parent.rmdir()  # of a run that came to nothing, where nothing else is in it


class StoreDestination(Destination):
    """Any object store that fsspec opens: s3://, gs://, abfs://, memory://.

    An object store shows an object only when it is whole, so files go straight to their place.
    """

    def __init__(self, name: str, url: str, options: Mapping[str, Any]) -> None:
        import fsspec

        super().__init__(name)
        self._url = url
        try:
            self._store, self._root = fsspec.core.url_to_fs(url, **_patience(url), **options)
        except (ImportError, ValueError):
            scheme = url.partition("://")[0]
            raise BackupRefusedError(
                f"the destination {name} begins with {scheme}://, for which no driver is installed;"
                " see the extras s3, gcs and azure"
            ) from None

    @property
    def shown(self) -> str:
        """The URL as it is written."""
        return self._url

    def create(self, path: str) -> Incoming:
        """Begin an object."""
        with explained(self):
            return _IncomingObject(self._store, self._path(path), self)

    def open(self, path: str) -> IO[bytes]:
        """Open an object."""
        with explained(self):
            return cast("IO[bytes]", _Object(self._store.open(self._path(path), "rb"), self))

    def list_files(self, folder: str) -> dict[str, int]:
        """Every object below."""
        top = self._path(folder)
        with explained(self):
            self._store.invalidate_cache()
            try:
                found = self._store.find(top, detail=True)
            except FileNotFoundError:
                return {}
        prefix = top.rstrip("/") + "/"
        return {
            path.removeprefix(prefix): int(about["size"])
            for path, about in sorted(found.items())
            if about["type"] == "file" and path.startswith(prefix)
        }

    def list_folders(self, folder: str) -> list[str]:
        """The first part of every object's name below."""
        return sorted({path.partition("/")[0] for path in self.list_files(folder) if "/" in path})

    def remove(self, folder: str) -> None:
        """Remove all objects below; the manifest first."""
        files = self.list_files(folder)
        with explained(self):
            for path in sorted(files, key=lambda path: path != MANIFEST):
                self._store.rm_file(self._path(f"{folder}/{path}"))
            self._store.invalidate_cache()

    def remove_file(self, path: str) -> None:
        """Remove the object."""
        with explained(self), suppress(FileNotFoundError):
            self._store.rm_file(self._path(path))

    def free_bytes(self) -> int | None:
        """Nobody knows."""
        return None

    def _path(self, path: str) -> str:
        if ".." in PurePosixPath(path).parts or path.startswith("/"):
            raise BackupRefusedError(f"{path!r} leads out of the destination {self.name}")
        return f"{self._root.rstrip('/')}/{path}"


def _patience(url: str) -> dict[str, Any]:
    """How long a driver tries. s3fs and botocore below it each try five times: a store that is gone took minutes."""
    if not url.startswith(("s3://", "s3a://")):
        return {}
    return {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1}}}


class _Object(io.BufferedIOBase):
    """An object that is read. A store that does not answer is no damage, and is not to be taken for it."""

    def __init__(self, file: Any, of: Destination) -> None:
        super().__init__()
        self._file, self._of = file, of

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        with explained(self._of):
            return bytes(self._file.read(size))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _IncomingObject(Incoming):
    def __init__(self, store: Any, path: str, of: Destination) -> None:
        self._file, self._of = store.open(path, "wb"), of

    def write(self, data: bytes, /) -> object:
        with explained(self._of):
            return self._file.write(data)

    def commit(self) -> None:
        with explained(self._of):
            self._file.close()

    def abandon(self) -> None:
        try:
            if not self._file.closed:
                # Marked closed first: a later close, by the garbage collector too, would complete the upload.
                self._file.closed = True
                self._file.discard()
        except Exception:  # noqa: S110 - a store that is gone has nothing to forget; never raises
            pass


MANIFEST = "manifest.json"
"""Written last: a folder without it holds no backup."""


@contextmanager
def explained(destination: Destination) -> Iterator[None]:
    """Say of what breaks that it is the destination's.

    raises     BackupRefusedError: it refuses us. SourceUnreachableError: anything else. FileNotFoundError goes through
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except PermissionError:
        raise BackupRefusedError(
            f"the destination {destination.name} ({destination.shown}) refuses us; check its credentials and rights"
        ) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise SourceUnreachableError(
            f"the destination {destination.name} ({destination.shown}) cannot be used: {reason}"
        ) from None
    except DatopsError:
        raise
    except Exception as error:  # a driver's own; its text may hold addresses and keys
        raise SourceUnreachableError(
            f"the destination {destination.name} ({destination.shown}) cannot be used: {type(error).__name__}"
        ) from None
