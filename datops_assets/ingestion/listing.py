"""Which files are there, whether they are complete, and what stands where a file was expected.

Whatever a glob finds is listed: taken, waiting, or refused with a reason. Nothing is passed over
in silence but folders, hidden files and done-markers. No file is opened here.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from datops_assets.ingestion.source import Unit
from datops_assets.ingestion.tables import FileTable

UNFINISHED_ENDINGS = (".tmp", ".part", ".partial", ".crdownload", "~")


def list_files(table: FileTable, now: float) -> list[Unit]:
    """List the files by partition, then by path as a person would sort it (2 before 10)."""
    folder = _Folder(table, now)
    paths = dict.fromkeys(path for pattern in table.patterns for path in folder.root.glob(pattern))
    found = [unit for path in paths if (unit := folder.look_at(path)) is not None]
    return in_load_order([*_without_used_folders(found), *folder.closed()])


def in_load_order(units: Iterable[Unit]) -> list[Unit]:
    """Sort by partition, then by path as a person would."""
    return sorted(units, key=lambda unit: (unit.partition_key or "", natural_order(unit.path)))


def why_waiting(
    table: FileTable, name: str, age_s: float | None, is_there: Callable[[str], bool]
) -> str | None:
    """Say why a file is not to be taken yet; None when it is complete.

    age_s      seconds since its last change; None: nobody knows
    is_there   whether a file of this name lies beside it
    """
    landing = table.landing
    if name.endswith(UNFINISHED_ENDINGS):
        return "its name says that it is still being written"
    if age_s is not None and age_s < landing.stable_for_s:
        return f"changed {max(age_s, 0):.0f} s ago, taken after {landing.stable_for_s:g} s without a change"
    if landing.done_marker is not None:
        expected = landing.done_marker.replace("{name}", name)
        if not is_there(expected):
            return f"its done-marker {expected} is not there yet"
    return None


def natural_order(path: str) -> list[tuple[int, int, str]]:
    """Sort key under which numbers inside a path count as numbers."""
    return [
        (0, int(part), part) if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", path)
        if part
    ]


def fingerprint(status: os.stat_result) -> str:
    """Return what changes whenever a file is written, replaced or touched."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"


def folder_of(table: FileTable) -> Path:
    """Return the folder of a table whose files lie on this machine."""
    assert isinstance(table.root, Path)
    return table.root


class _Folder:
    """The landing folder of one table, looked at once."""

    def __init__(self, table: FileTable, now: float) -> None:
        self._table = table
        self._now = now
        self.root = folder_of(table)
        self._root = os.path.realpath(self.root)
        self._inside: dict[Path, bool] = {}

    def look_at(self, path: Path) -> Unit | None:
        """Return what stands at a path; None where it is none of ours, or vanished since the listing."""
        below = path.relative_to(self.root).as_posix()
        hidden = any(part.startswith(".") for part in PurePosixPath(below).parts)
        if hidden or is_marker(path.name, self._table):
            return None
        try:
            status = path.lstat()
        except OSError:
            return None
        refused = None
        if stat.S_ISLNK(status.st_mode):
            try:
                status = path.stat()
            except OSError:
                refused = "is a link that leads nowhere; deliver the file itself"
        if refused is None and stat.S_ISDIR(status.st_mode):
            if not self._is_file_expected():
                return None
            refused = f"is a folder, a file was expected; state e.g. `files: {below}/*`"
        return self._unit(path, below, status, refused or self._why_not(path, status))

    def closed(self) -> list[Unit]:
        """Return the folders that nobody may look into: a glob passes over them in silence."""
        above = {PurePosixPath(pattern).parent.as_posix() for pattern in self._table.patterns} - {"."}
        folders = [self.root, *(path for pattern in sorted(above) for path in self.root.glob(pattern))]
        shut = [
            path
            for path in dict.fromkeys(folders)
            if path.is_dir() and not os.access(path, os.R_OK | os.X_OK)
        ]
        return [
            self._unit(path, f"{path.relative_to(self.root).as_posix()}/", path.stat(), _CLOSED)
            for path in shut
        ]

    def _unit(self, path: Path, below: str, status: os.stat_result, refused: str | None) -> Unit:
        # What is no UTF-8 in a name could stand in no catalogue.
        shown = os.fsencode(below).decode("utf-8", "backslashreplace")
        return Unit(
            path=shown,
            format=self._table.format_of(below),
            size_bytes=status.st_size,
            fingerprint=fingerprint(status),
            partition_key=self._table.partition.key_of(below) if self._table.partition else None,
            location=str(path),
            waiting=why_waiting(
                self._table,
                path.name,
                self._now - status.st_mtime,
                lambda name: path.with_name(name).exists(),
            ),
            refused=refused,
            declared=self._table,
        )

    def _why_not(self, path: Path, status: os.stat_result) -> str | None:
        if not stat.S_ISREG(status.st_mode):
            return "is no file but a pipe, a socket or a device; take it away"
        if not self._is_inside(path):
            return "is a link out of the source's folder; copy the file, or let `source.path` name its folder"
        return None

    def _is_inside(self, path: Path) -> bool:
        """Whoever may write into the folder could else make us read any file of this machine."""
        parent = path.parent
        if parent not in self._inside:
            self._inside[parent] = _is_below(os.path.realpath(parent), self._root)
        return self._inside[parent] and (
            not path.is_symlink() or _is_below(os.path.realpath(path), self._root)
        )

    def _is_file_expected(self) -> bool:
        """Whether the pattern names an ending, as folders have none."""
        return all("." in PurePosixPath(pattern).name for pattern in self._table.patterns)


_CLOSED = "is a folder that cannot be looked into; check its permissions"


def _without_used_folders(units: Iterable[Unit]) -> list[Unit]:
    """Leave out folders whose files are listed: then nothing in them is missed."""
    found = list(units)
    used = {
        str(parent) for unit in found if unit.refused is None for parent in PurePosixPath(unit.path).parents
    }
    return [unit for unit in found if unit.path not in used]


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def is_marker(name: str, table: FileTable) -> bool:
    """Return whether a file only says that another one is complete."""
    marker = table.landing.done_marker
    return marker is not None and fnmatch.fnmatchcase(name, marker.replace("{name}", "*"))
