"""The log between backups as it stands at destinations: names, what is there, what a recovery needs of it.

A file's name says all: `<segment>[.partial]-<covered LSN>-<until, ms>-<SHA-256>.tar.zst[.enc]`, so that a listing is a
catalogue. Belongs here: reading and judging. Does not: receiving (wal.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from datops_assets.backup.artefacts import Member, unpack_alone
from datops_assets.backup.destinations import Destination
from datops_assets.backup.encryption import Keys
from datops_assets.backup.recovery import Target
from datops_assets.backup.wal_segments import (
    Parting,
    is_history,
    read_history,
    segment_name,
    start_of,
    timeline_of,
)
from datops_assets.errors import (
    BackupDamagedError,
    BackupError,
    BackupRefusedError,
    DatopsError,
    SourceUnreachableError,
)
from datops_assets.postgres.lsn import format_lsn, parse_lsn

_NAME = re.compile(
    r"(?P<segment>[0-9A-F]{24}|[0-9A-F]{8}\.history)(?P<partial>\.partial)?-(?P<covered>[0-9A-F]{16})-(?P<until>\d+)"
    r"-(?P<bytes>\d+)-(?P<sha256>[0-9a-f]{64})\.tar\.zst(?P<encrypted>\.enc)?"
)


@dataclass(frozen=True)
class LogFile:
    """One file of the log at a destination."""

    segment: str
    partial: bool
    covered: int
    """The log is in it up to here, in bytes; 0 for a history file."""
    until: datetime | None
    """What was committed by then is in it or before it; None where that is not known."""
    bytes: int
    """Unpacked."""
    sha256: str
    """Of what is in it."""
    encrypted: bool

    @property
    def name(self) -> str:
        """At the destinations."""
        ms = int(self.until.timestamp() * 1000) if self.until else 0
        return (
            f"{self.segment}{'.partial' if self.partial else ''}-{self.covered:016X}-{ms}-{self.bytes}-{self.sha256}"
            f".tar.zst{'.enc' if self.encrypted else ''}"
        )

    @property
    def timeline(self) -> int:
        """The timeline that it is of."""
        return timeline_of(self.segment)


def parse_name(name: str) -> LogFile | None:
    """What a name says; None for a file that is none of ours."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    until = datetime.fromtimestamp(int(found["until"]) / 1000, UTC) if int(found["until"]) else None
    return LogFile(
        found["segment"], found["partial"] is not None, int(found["covered"], 16), until, int(found["bytes"]),
        found["sha256"], found["encrypted"] is not None,
    )  # fmt: skip


def folder_of_log(name: str) -> str:
    """Where the log stands below a destination's root. No backup has such a name."""
    return f"{name}-wal"


def list_log(destination: Destination, name: str) -> list[LogFile]:
    """All that a destination has, in the order of the log; of parts of one segment only the longest."""
    found = [one for path in destination.list_files(folder_of_log(name)) if (one := parse_name(path))]
    return longest(found)


def list_answering(
    destinations: Sequence[Destination], name: str
) -> tuple[dict[str, list[LogFile]], dict[str, str]]:
    """All that each destination has, by its name; and why the others do not answer."""
    listed: dict[str, list[LogFile]] = {}
    silent: dict[str, str] = {}
    for destination in destinations:
        try:
            listed[destination.name] = list_log(destination, name)
        except DatopsError as error:
            silent[destination.name] = str(error)
    return listed, silent


def longest(files: Iterable[LogFile]) -> list[LogFile]:
    """Of several parts of one segment the one that has most, in the order of the log."""
    best: dict[str, LogFile] = {}
    for one in files:
        other = best.get(one.segment)
        if other is None or (not one.partial, one.covered) > (not other.partial, other.covered):
            best[one.segment] = one
    return sorted(best.values(), key=lambda one: (one.covered, one.timeline))


@dataclass(frozen=True)
class Reach:
    """How far a recovery gets from a backup, and with which files."""

    files: list[LogFile]
    covered: int
    until: datetime | None
    missing: str | None
    """The first segment that is not there while later ones are."""
    problems: list[str] = field(default_factory=list)


def reach_of(
    files: Sequence[LogFile],
    histories: Mapping[int, Sequence[Parting]],
    timeline: int,
    start: int,
    segment_bytes: int,
    to: int | None = None,
) -> Reach:
    """Follow the log from a place on a timeline, over to newer timelines, for as long as no segment is missing.

    start      where the backup ends: what lies before is in the backup
    to         the timeline to end on; None for the newest
    """
    newest = max([timeline, *histories]) if to is None else to
    way = _way(histories, timeline, newest)
    if way is None:
        known = ", ".join(str(number) for number in sorted({timeline, *histories}))
        said = (
            f"timeline {newest} does not come from timeline {timeline} of the backup; timelines kept: {known}"
        )
        return Reach([], start, None, None, [f"{said}; choose one by --to-timeline"])
    there = {one.segment: one for one in files if not is_history(one.segment)}
    taken: list[LogFile] = []
    covered, until = start, None
    at = start // segment_bytes * segment_bytes
    while True:
        # The segment in which two timelines part begins, on the newer one, with a copy of the older.
        current = next(tli for tli, end in way if end is None or at + segment_bytes <= end)
        one = there.get(segment_name(current, at, segment_bytes))
        # A part of a timeline that was left behind it ends before the place where it was left.
        if one is None or (one.partial and current != newest):
            break
        taken.append(one)
        covered, until = max(covered, one.covered), one.until or until
        if one.partial:
            break
        at += segment_bytes
    later = [
        one
        for one in there.values()
        if start_of(one.segment, segment_bytes) > at and one.timeline in dict(way)
    ]
    missing = segment_name(current, at, segment_bytes) if later else None
    taken += [one for one in files if is_history(one.segment)]
    return Reach(taken, covered, until, missing)


def _way(
    histories: Mapping[int, Sequence[Parting]], timeline: int, newest: int
) -> list[tuple[int, int | None]] | None:
    """The timelines from the backup's to the newest, each with the place where it was left."""
    way = way_to(histories.get(newest, []), newest)
    numbers = [one for one, _ in way]
    return way[numbers.index(timeline) :] if timeline in numbers else None


def way_to(partings: Sequence[Parting], timeline: int) -> list[tuple[int, int | None]]:
    """A timeline and its ancestors, the oldest first, each with the place where it was left; None: it was not."""
    return [*((one.timeline, one.lsn) for one in partings), (timeline, None)]


def problems_of(target: Target, reach: Reach) -> list[str]:
    """Why a target cannot be reached, in sentences; none where it can."""
    if reach.problems:
        return reach.problems
    gap = f"; the segment {reach.missing} is missing, later ones are there" if reach.missing else ""
    if target.time is not None and (reach.until is None or target.time > reach.until):
        known = reach.until.isoformat(timespec="seconds") if reach.until else "no time that is known"
        return [f"the {target} lies behind the end of the log, which reaches to {known}{gap}"]
    if target.lsn is not None and parse_lsn(target.lsn) > reach.covered:
        return [
            f"the {target} lies behind the end of the log, which reaches to {format_lsn(reach.covered)}{gap}"
        ]
    return [f"the log has a gap{gap}"] if target.is_end and reach.missing else []


def needed_for(target: Target, reach: Reach) -> list[LogFile]:
    """The files that a recovery to the target reads."""
    segments = [one for one in reach.files if not is_history(one.segment)]
    wanted: list[LogFile] = []
    for one in segments:
        wanted.append(one)
        if target.lsn is not None and one.covered > parse_lsn(target.lsn):
            break
        # One more than what is known to hold it: PostgreSQL stops at the first commit behind the target.
        if target.time is not None and len(wanted) > 1 and _is_past(wanted[-2], target.time):
            break
    return [*wanted, *(one for one in reach.files if is_history(one.segment))]


def _is_past(one: LogFile, time: datetime) -> bool:
    return one.until is not None and one.until >= time


def fetch_log(
    files: Sequence[LogFile], destinations: Sequence[Destination], name: str, keys: Keys, into: Path
) -> None:
    """Bring files of the log into a folder, each from the first destination that has it right by the hash in its name.

    raises     BackupDamagedError: one was changed, cut off, or is missing. SourceUnreachableError: nobody answers
    """
    for one in files:
        if (into / one.segment).exists():
            # A part that came with the backup, which the archive has more of, or the same.
            (into / one.segment).unlink()
        said: DatopsError | None = None
        for destination in destinations:
            try:
                unpack_alone(
                    destination, f"{folder_of_log(name)}/{one.name}", Member(one.segment, one.sha256, one.bytes),
                    keys, encrypted=one.encrypted, into=into,
                )  # fmt: skip
                break
            except (BackupDamagedError, BackupRefusedError, SourceUnreachableError) as error:
                said = said or error
        else:
            raise said or BackupError(f"no destination has {one.segment}")


def read_histories(
    files: Sequence[LogFile], destinations: Sequence[Destination], name: str, keys: Keys, scratch: Path
) -> dict[int, list[Parting]]:
    """Where timelines parted, by the newer one."""
    found = {}
    for one in files:
        if is_history(one.segment):
            fetch_log([one], destinations, name, keys, scratch)
            found[one.timeline] = read_history((scratch / one.segment).read_text())
    return found


def check_log(files: Sequence[LogFile], destination: Destination, name: str, keys: Keys) -> list[str]:
    """Read files of the log to the last byte; findings."""
    findings = []
    for one in files:
        member = Member(one.segment, one.sha256, one.bytes)
        try:
            unpack_alone(
                destination,
                f"{folder_of_log(name)}/{one.name}",
                member,
                keys,
                encrypted=one.encrypted,
                into=None,
            )
        except BackupDamagedError as error:
            findings.append(str(error))
        except OSError as error:
            raise BackupError(
                f"{one.name} cannot be read: {error.strerror or type(error).__name__}"
            ) from None
    return findings
