"""Where files lie. A store lists them, opens them, and says whether one stayed as it was listed.

Belongs here: what every store promises, and the one on this machine. Does not: what is in a file
(files.py and the formats), stores behind a URL (remote.py).
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from datops_assets.errors import ContainerDamagedError, DatopsError, FileChangedError, SourceRefusedError
from datops_assets.ingestion.listing import fingerprint, folder_of, list_files
from datops_assets.ingestion.source import Reachability, Unit
from datops_assets.ingestion.tables import FileTable


class Store(ABC):
    """Files by their place. Nothing is kept of one that changes while it is read."""

    @abstractmethod
    def check(self, table: FileTable) -> Reachability:
        """Say whether the place is there and may be read; never raises."""

    @abstractmethod
    def list_units(self, table: FileTable, now: float) -> Sequence[Unit]:
        """List what the table's pattern matches, in load order.

        now        seconds since 1970
        raises     SourceUnreachableError, SourceRefusedError
        """

    @abstractmethod
    def open(self, unit: Unit) -> IO[bytes]:
        """Open a file for reading; it can be read from any place.

        raises     FileChangedError: it vanished. ContainerDamagedError: it may not be read.
                   SourceUnreachableError, SourceRefusedError
        """

    @abstractmethod
    def require_unchanged(self, unit: Unit, file: IO[bytes] | None = None) -> None:
        """Hold what was read, `file` or all there is, against what is there now.

        raises     FileChangedError
        """

    @abstractmethod
    def local_path(self, unit: Unit) -> Path:
        """Return a file of this machine with the whole content, for readers that want one.

        raises     as `open`
        """

    @abstractmethod
    def hash_content(self, unit: Unit) -> str:
        """Return the sha256 of a file's bytes.

        raises     FileChangedError: it changed meanwhile, or is gone
        """

    def delete(self, unit: Unit) -> None:
        """Delete a file.

        raises     SourceRefusedError, SourceUnreachableError
        """
        raise SourceRefusedError(f"{unit.path} is loaded, but nothing can be deleted there")

    def move(self, unit: Unit, target: str) -> None:
        """Move a file to another URL of the store, where none of another content has that name.

        raises     SourceRefusedError, SourceUnreachableError
        """
        raise SourceRefusedError(f"{unit.path} is loaded, but cannot be moved to {target}")

    def close(self) -> None:  # noqa: B027 most have nothing to let go of
        """Let go of what is open between files. May be called again."""


class LocalStore(Store):
    """Folders of this machine."""

    def check(self, table: FileTable) -> Reachability:
        """Say whether the folder is there and may be read."""
        root = folder_of(table)
        if not root.is_dir():
            return Reachability(False, f"the folder {root} does not exist")
        if not os.access(root, os.R_OK | os.X_OK):
            return Reachability(False, f"no permission to read the folder {root}")
        return Reachability(True, f"the folder {root} can be read")

    def list_units(self, table: FileTable, now: float) -> Sequence[Unit]:
        """List the files by partition, then by path as a person would sort it (2 before 10)."""
        return list_files(table, now)

    def open(self, unit: Unit) -> IO[bytes]:
        """Open the file."""
        try:
            return Path(unit.location).open("rb")
        except FileNotFoundError:
            raise FileChangedError(
                f"{unit.path} vanished before it was read; nothing of it was kept"
            ) from None
        except OSError as error:
            raise ContainerDamagedError(
                f"{unit.path} cannot be opened: {error.strerror}; check its permissions"
            ) from error

    def require_unchanged(self, unit: Unit, file: IO[bytes] | None = None) -> None:
        """Compare what the listing saw with what is open, and with what stands there now."""
        try:
            now = {fingerprint(Path(unit.location).stat())}
        except FileNotFoundError:
            raise FileChangedError(
                f"{unit.path} vanished while it was read; nothing of it was kept"
            ) from None
        if file is not None:
            now.add(fingerprint(os.fstat(file.fileno())))
        if now != {unit.fingerprint}:
            raise changed(unit)

    def local_path(self, unit: Unit) -> Path:
        """Return where it lies."""
        return Path(unit.location)

    def delete(self, unit: Unit) -> None:
        """Delete the file, or the link to it."""
        try:
            Path(unit.location).unlink(missing_ok=True)
        except OSError as error:
            raise SourceRefusedError(
                f"{unit.path} is loaded, but cannot be deleted: {error.strerror}; give us the right to,"
                " then run again"
            ) from None

    def hash_content(self, unit: Unit) -> str:
        """Return the hash of the file as it lies on disk."""
        with self.open(unit) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            self.require_unchanged(unit, file)
        return digest


def changed(unit: Unit) -> FileChangedError:
    """Say that a file is not what it was when it was listed."""
    return FileChangedError(
        f"{unit.path} changed while it was read; nothing of it was kept, the next run takes it"
    )


def broken(unit: Unit, how: str, require_unchanged: Callable[[], None]) -> DatopsError:
    """Say what is wrong with a file as a whole; one that is still being written is not called broken."""
    try:
        require_unchanged()
    except FileChangedError as error:
        return error
    return ContainerDamagedError(f"{unit.path}{how}")
