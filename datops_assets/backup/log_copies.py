"""The log at several destinations: who answers, who lacks what another one has, and bringing it there.

One destination that is gone stops nobody: the others go on, and when it answers again it gets from them what it
lacks. Belongs here: what stands where, and copies. Does not: receiving (wal.py).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from datops_assets.backup.artefacts import Member, pack, unpack_alone
from datops_assets.backup.destinations import Destination
from datops_assets.backup.encryption import Keys
from datops_assets.backup.log_archive import LogFile, folder_of_log, longest, parse_name
from datops_assets.errors import BackupDamagedError, DatopsError

RETRY_S = 30.0
"""How long a destination that did not answer is left alone."""
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Copied:
    """A file of the log and where it stands now."""

    file: LogFile
    stored_bytes: int
    destinations: list[str]


def plan_copies(listed: Mapping[str, Sequence[LogFile]]) -> dict[str, list[tuple[LogFile, str]]]:
    """What each destination lacks that another has, and who has it; nothing is lacked where a longer part stands.

    listed     by destination; a destination that does not answer is not among them
    """
    best = longest(one for files in listed.values() for one in files)
    where = {one.name: name for name, files in listed.items() for one in files}
    lacking: dict[str, list[tuple[LogFile, str]]] = {}
    for name, files in listed.items():
        there = {one.segment: (not one.partial, one.covered) for one in files}
        lacking[name] = [
            (one, where[one.name])
            for one in best
            if there.get(one.segment, (False, -1)) < (not one.partial, one.covered)
        ]
    return lacking


class Keepers:
    """The destinations of one log."""

    def __init__(
        self, name: str, destinations: Sequence[Destination], keys: Keys, say: Callable[[str], None]
    ) -> None:
        """say    hears when a destination goes and when it is back"""
        self._name, self._keys, self._say = name, keys, say
        self._by_name = {one.name: one for one in destinations}
        self._listed: dict[str, list[LogFile]] = {}
        self._lacking: dict[str, deque[tuple[LogFile, str]]] = {}
        self._again_at: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        """Destinations that do not answer, and why."""

    def look(self) -> list[LogFile]:
        """List what stands at each, and return all of it together, in the order of the log."""
        for name in self._by_name:
            self._list(name)
        self._plan()
        return longest(one for files in self._listed.values() for one in files)

    @property
    def are_level(self) -> bool:
        """Whether every destination that answers has what any of them has."""
        return not any(self._lacking.values())

    def write(self, path: Path, one: LogFile) -> Copied:
        """Write a file to all that answer.

        raises     BackupError: none does
        """
        before = set(self.failed)
        packed = pack(
            {one.segment: path}, one.name, f"{folder_of_log(self._name)}/{one.name}", list(self._by_name.values()),
            self._keys.current, self.failed,
        )  # fmt: skip
        for name in set(self.failed) - before:
            self._gone(name, self.failed[name])
        return Copied(one, packed.bytes, [name for name in self._by_name if name not in self.failed])

    def remove(self, one: LogFile) -> None:
        """Remove a file from all that answer; what is left elsewhere goes when its destination is back."""
        for name, destination in self._by_name.items():
            if name not in self.failed:
                with suppress(DatopsError, OSError):
                    destination.remove_file(f"{folder_of_log(self._name)}/{one.name}")

    def catch_up(self) -> Copied | None:
        """Ask again those that did not answer, and bring one file to one that lacks it; None: nothing was brought."""
        now = time.monotonic()
        for name, at in list(self._again_at.items()):
            if now >= at and self._list(name):
                del self._again_at[name]
                for other in self._by_name:
                    if other != name and other not in self.failed:
                        self._list(other)
                self._plan()
                self._say(
                    f"the destination {name} answers again; it lacks {len(self._lacking[name])} file(s)"
                )
        for name, queue in self._lacking.items():
            if queue and name not in self.failed:
                return self._copy(*queue.popleft(), name)
        return None

    def _copy(self, one: LogFile, source: str, to: str) -> Copied | None:
        place = f"{folder_of_log(self._name)}/{one.name}"
        reading = self._by_name[source]
        try:  # held against its hash first: damage is not to be spread
            member = Member(one.segment, one.sha256, one.bytes)
            unpack_alone(reading, place, member, self._keys, encrypted=one.encrypted, into=None)
            file = reading.open(place)
        except (BackupDamagedError, FileNotFoundError) as error:
            if not one.partial:  # a part may have been replaced meanwhile
                self._say(f"{to} lacks {one.segment}, and {source} does not have it right: {error}")
            return None
        except (DatopsError, OSError) as error:
            self._gone(source, _reason(error))
            return None
        with file:
            return self._write_copy(file, one, place, source, to)

    def _write_copy(self, file: IO[bytes], one: LogFile, place: str, source: str, to: str) -> Copied | None:
        incoming, stored = None, 0
        try:
            incoming = self._by_name[to].create(place)
            while data := file.read(_PIECE_BYTES):
                incoming.write(data)
                stored += len(data)
            incoming.commit()
        except (DatopsError, OSError) as error:
            if incoming is not None:
                incoming.abandon()
            self._gone(to, _reason(error))
            return None
        return Copied(one, stored, [source, to])

    def _list(self, name: str) -> bool:
        """Note what stands at a destination; whether it answers. Parts that something longer replaced go."""
        destination = self._by_name[name]
        try:
            paths = destination.list_files(folder_of_log(self._name))
            found = [one for path in paths if (one := parse_name(path)) is not None]
            self._listed[name] = longest(found)
            for one in found:
                if one.partial and one not in self._listed[name]:
                    destination.remove_file(f"{folder_of_log(self._name)}/{one.name}")
        except (DatopsError, OSError) as error:
            self._gone(name, _reason(error))
            return False
        self.failed.pop(name, None)
        return True

    def _gone(self, name: str, reason: str) -> None:
        if name not in self._again_at:
            self._say(
                f"the destination {name} does not keep the log: {reason}; it gets what it lacks when it answers"
            )
        self.failed[name] = reason
        self._listed.pop(name, None)
        self._lacking.pop(name, None)
        self._again_at[name] = time.monotonic() + RETRY_S

    def _plan(self) -> None:
        self._lacking = {name: deque(files) for name, files in plan_copies(self._listed).items()}


def _reason(error: Exception) -> str:
    if isinstance(error, DatopsError):
        return str(error)
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else type(error).__name__
