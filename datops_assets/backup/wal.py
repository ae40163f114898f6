"""Receive the log between backups: pg_receivewal, and each segment to the destinations, the one that grows, too.

A replication slot keeps on the source what no destination has yet: it is moved on by us, behind what was kept, and not
by pg_receivewal, whose own files may be lost at any time. So a receiver that was killed goes on without a gap.
Belongs here: the receiver and the state of it. Does not: what is kept (log_archive.py).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from datops_assets.backup.destinations import Destination
from datops_assets.backup.log_archive import LogFile, folder_of_log, parse_name
from datops_assets.backup.log_copies import Copied, Keepers
from datops_assets.backup.log_start import (
    hold_slot,
    plan_start,
    read_backed_up,
    read_source,
    require_same_server,
)
from datops_assets.backup.runs import Declared
from datops_assets.backup.server import fitting_programs
from datops_assets.backup.source import as_source
from datops_assets.backup.wal_segments import is_history, is_segment, segment_name, start_of, timeline_of
from datops_assets.errors import BackupError, LockTakenError
from datops_assets.postgres.failpoints import hit
from datops_assets.postgres.lsn import format_lsn, parse_lsn

_POLL_S = 0.2
_STATE: LiteralString = """
with here as (select case when pg_is_in_recovery() then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                          else pg_current_wal_lsn() end as lsn)
select s.wal_status, pg_wal_lsn_diff(here.lsn, s.restart_lsn)::bigint
  from here left join pg_replication_slots s on s.slot_name = %s
"""
# On a standby the primary's words: when it sent what, by its own clock, which also stamps its commits.
_WRITTEN: LiteralString = """
select case when not pg_is_in_recovery() then clock_timestamp()
            when w.latest_end_lsn is not null then w.last_msg_send_time else pg_last_xact_replay_timestamp() end,
       case when not pg_is_in_recovery() then pg_current_wal_insert_lsn()
            when w.latest_end_lsn is not null then w.latest_end_lsn else pg_last_wal_replay_lsn() end::text,
       (select max(write_lsn)::text from pg_stat_replication where application_name = %s)
  from (select 1) one left join pg_stat_wal_receiver w on true
"""
_ENTER: LiteralString = """
insert into datops.backup_wal (name, file, segment, partial, timeline, covered, until_at, stored_bytes, destinations)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict (name, file) do update
   set destinations = array(select distinct unnest(backup_wal.destinations || excluded.destinations) order by 1)
"""


@dataclass(frozen=True)
class LogStream(Declared):
    """What a person declares about the log of one server."""

    every_s: float = 10
    """How often the segment that grows is kept: with it, what may be lost with the server."""

    @property
    def slot(self) -> str:
        """The replication slot on the source."""
        return f"datops_{self.name}"


@dataclass
class Received:
    """What one receiver kept."""

    segments: int = 0
    covered: str = "0/0"
    until: datetime | None = None
    started_anew: str | None = None
    """Why the log does not go on where it ended; None where it does."""
    failed: dict[str, str] = field(default_factory=dict)
    """Destinations that did not answer, and why; they get what they lack when they do."""


@dataclass(frozen=True)
class LogState:
    """Where the log of a server is, as the source and the catalogue say."""

    covered: str | None
    until: datetime | None
    behind_s: float | None
    """Seconds since what is kept was all there was; None where nothing is kept."""
    segments: int
    stored_bytes: int
    slot: str
    slot_status: str | None
    """None: there is no slot, so nothing holds the log back for us."""
    retained_bytes: int | None
    """Of the log, on the source's disk, because of the slot."""


def read_state(conn: psycopg.Connection[Any], stream: LogStream) -> LogState:
    """Ask the source and the catalogue."""
    with closing(stream.server.connect()) as source, as_source(stream.server):
        row = source.execute(_STATE, (stream.slot,)).fetchone()
    assert row is not None
    kept = conn.execute(
        "select max(covered)::text, max(until_at), extract(epoch from clock_timestamp() - max(until_at))::float8,"
        " count(*), coalesce(sum(stored_bytes), 0)::bigint from datops.backup_wal where name = %s",
        (stream.name,),
    ).fetchone()
    assert kept is not None
    return LogState(kept[0], kept[1], kept[2], kept[3], kept[4], stream.slot, row[0], row[1])


def receive(
    conn: psycopg.Connection[Any],
    stream: LogStream,
    *,
    once: bool = False,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Received:
    """Keep the log as it is written, until `stop` is set; `once`: all that is written by now.

    conn       the catalogue's
    say        hears what a person should know while it goes on: a destination that is gone, or back
    promise    what is entered is at a destination, whole; the source keeps the rest until it is. Killed at any
               moment, the next one goes on where this one ended
    raises     BackupError, SourceUnreachableError, SourceRefusedError; LockTakenError: another one receives
    """
    with _alone(conn, stream.name):
        return _Receiver(conn, stream, say).run(once, stop or threading.Event())


def enter_found(conn: psycopg.Connection[Any], name: str, destinations: Sequence[Destination]) -> int:
    """Enter every file of the log that stands at a destination and the catalogue forgot; how many."""
    places: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for destination in destinations:
        for path, size in destination.list_files(folder_of_log(name)).items():
            if parse_name(path) is not None:
                places.setdefault(path, []).append(destination.name)
                sizes[path] = size
    entered = 0
    for path, there in places.items():
        one = parse_name(path)
        assert one is not None
        entered += _enter(conn, name, one, sizes[path], there)
    return entered


def plan_forget(files: Sequence[LogFile], keep_from: int | None) -> list[LogFile]:
    """The files that no backup needs: all of the log in them lies before `keep_from`; none where nobody says."""
    if keep_from is None:
        return []
    return [one for one in files if not is_history(one.segment) and one.covered <= keep_from]


def forget(
    conn: psycopg.Connection[Any], name: str, destinations: Sequence[Destination], keep_from: int | None
) -> int:
    """Remove what no backup needs, and return how many files that were."""
    gone = 0
    for destination in destinations:
        found = [one for path in destination.list_files(folder_of_log(name)) if (one := parse_name(path))]
        for one in plan_forget(found, keep_from):
            destination.remove_file(f"{folder_of_log(name)}/{one.name}")
            gone += 1
    if keep_from is not None:
        conn.execute(
            "delete from datops.backup_wal where name = %s and covered <= %s::pg_lsn and covered > '0/0'",
            (name, format_lsn(keep_from)),
        )
    return gone


class _Receiver:
    def __init__(self, conn: psycopg.Connection[Any], stream: LogStream, say: Callable[[str], None]) -> None:
        self._conn, self._stream, self._say = conn, stream, say
        self._keepers = Keepers(stream.name, stream.destinations, stream.keys, say)
        # Of its own: a pg_receivewal that outlived a killed receiver must not write among our files, nor speak for us.
        token = secrets.token_hex(4)
        self._folder = stream.staging / f"wal-{stream.name}#{token}"
        self._app = f"{_app_prefix(stream.name)}{token}"
        self._received = Received()
        self._marks: deque[tuple[datetime, int]] = deque()
        self._parts: list[LogFile] = []
        self._histories: list[LogFile] = []
        self._segment_bytes = self._slot_at = 0
        self._next_part = 0.0

    def run(self, once: bool, stop: threading.Event) -> Received:
        stream = self._stream
        for left in stream.staging.glob(f"wal-{stream.name}#*"):
            shutil.rmtree(left, ignore_errors=True)
        self._folder.mkdir(parents=True, mode=0o700)
        with closing(stream.server.connect()) as source, as_source(stream.server):
            end = self._begin(source)
            with self._receiving(source) as process:
                while True:
                    written = self._look(source)
                    done = stop.is_set() or (once and written >= end and self._keepers.are_level)
                    self._keep_finished(source)
                    if not stop.is_set() and (copied := self._keepers.catch_up()) is not None:
                        self._enter(copied)
                    self._keep_part(written, now=done)
                    if done and parse_lsn(self._received.covered) >= min(end, written):
                        break
                    if process.poll() is not None:
                        raise BackupError(f"the log of {stream.server.address} broke off: {self._words()}")
                    stop.wait(_POLL_S)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._received.failed = dict(self._keepers.failed)
        return self._received

    def _begin(self, source: psycopg.Connection[Any]) -> int:
        """Make the slot where there is none, and a place to go on from; returns where the log ends now."""
        stream = self._stream
        found = read_source(stream.server, source, stream.slot)
        require_same_server(self._conn, stream.name, stream.server.address, found)
        # We are the only one, so whoever receives under our name outlived its receiver.
        source.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where starts_with(application_name, %s)",
            (_app_prefix(stream.name),),
        )
        self._program = fitting_programs(found.version, stream.pg_bin).path("pg_receivewal")
        kept = self._keepers.look()
        self._slot_at = hold_slot(source, stream.slot, found)
        on_disk = {name for (name,) in source.execute("select name from pg_ls_waldir()")}
        backed_up = read_backed_up(self._conn, stream.name)
        start = plan_start(found, kept, backed_up, self._slot_at, on_disk, stream.name)
        if start.gap is not None:
            self._say(start.gap)
        self._segment_bytes = found.segment_bytes
        self._parts = [one for one in kept if one.partial]
        self._histories = [one for one in kept if is_history(one.segment)]
        self._received.started_anew, self._received.covered = start.gap, format_lsn(start.covered)
        first = segment_name(start.timeline, start.covered, found.segment_bytes)
        # pg_receivewal goes on with the segment that it finds a part of.
        (self._folder / f"{first}.partial").touch()
        if found.is_standby:
            return found.end
        source.execute("select pg_logical_emit_message(false, 'datops', 'wal')")
        row = source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return parse_lsn(row[0])

    @contextmanager
    def _receiving(self, source: psycopg.Connection[Any]) -> Iterator[subprocess.Popen[bytes]]:
        server = replace(
            self._stream.server, parameters={**self._stream.server.parameters, "application_name": self._app}
        )
        command = [
            self._program, f"--directory={self._folder}", "--no-loop", "--no-sync", "--no-password",
            "--status-interval=1",
        ]  # fmt: skip
        with self._said.open("wb") as said:
            process = subprocess.Popen(
                command, env=server.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
                umask=0o077, cwd="/", start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            process.wait()

    @property
    def _said(self) -> Path:
        return self._folder / "said"

    def _words(self) -> str:
        lines = self._said.read_text(errors="replace").strip().splitlines()
        return lines[-1].partition("error: ")[2] or lines[-1] if lines else "it said nothing"

    def _look(self, source: psycopg.Connection[Any]) -> int:
        """Note what the source has by now, and return what pg_receivewal has written."""
        row = source.execute(_WRITTEN, (self._app,)).fetchone()
        assert row is not None
        at, end, written = row
        if at is not None and end is not None:  # a standby that heard nothing yet knows neither
            self._marks.append((at, parse_lsn(end)))
        return parse_lsn(written) if written else 0

    def _keep_finished(self, source: psycopg.Connection[Any]) -> None:
        for path in sorted(self._folder.iterdir()):
            if is_history(path.name):
                self._keep_history(path)
            elif is_segment(path.name):
                end = start_of(path.name, self._segment_bytes) + self._segment_bytes
                self._keep(path, LogFile(path.name, False, end, self._until(end), 0, "", False))
                hit("wal.kept")
                self._move_slot_on(source, end)
                path.unlink()
                self._drop_parts(path.name, end)
                self._received.segments += 1

    def _keep_history(self, path: Path) -> None:
        """Keep where a timeline came from.

        raises     BackupError: what is kept has another timeline of that number
        """
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        known = {one.sha256 for one in self._histories if one.segment == path.name}
        if known - {sha256}:
            raise BackupError(
                f"timeline {timeline_of(path.name)} of {self._stream.server.address} is another one than the log kept"
                f" under {self._stream.name} has; give its document another name under `backup:`"
            )
        if not known:
            self._keep(path, LogFile(path.name, False, 0, None, 0, "", False))
        path.unlink()

    def _move_slot_on(self, source: psycopg.Connection[Any], end: int) -> None:
        """Let the source forget what is kept.

        raises     BackupError: somebody dropped the slot
        """
        if end <= self._slot_at:
            return
        try:
            source.execute("select pg_replication_slot_advance(%s, %s)", (self._stream.slot, format_lsn(end)))
        except psycopg.errors.UndefinedObject:
            raise BackupError(
                f"somebody dropped the slot {self._stream.slot} on {self._stream.server.address}; start again, and it"
                f" is made anew: datops backup wal {self._stream.name}"
            ) from None
        self._slot_at = end

    def _keep_part(self, written: int, *, now: bool) -> None:
        """Keep what there is of the segment that grows, when it is time or all is asked for."""
        if written <= parse_lsn(self._received.covered) or not (now or time.monotonic() >= self._next_part):
            return
        for path in sorted(self._folder.glob("*.partial"))[-1:]:  # of the newest timeline
            segment = path.name.removesuffix(".partial")
            if (
                start_of(segment, self._segment_bytes)
                <= written
                < start_of(segment, self._segment_bytes) + self._segment_bytes
            ):
                copy = self._folder / "part"
                shutil.copyfile(path, copy)  # it goes on growing while it is packed
                until = self._until(written)
                self._keep(copy, LogFile(segment, True, written, until, 0, "", False))
                copy.unlink()
        self._next_part = time.monotonic() + self._stream.every_s

    def _until(self, covered: int) -> datetime | None:
        """The last time at which all of the log was behind `covered`."""
        while self._marks and self._marks[0][1] <= covered:
            self._received.until = self._marks.popleft()[0]
        return self._received.until

    def _keep(self, path: Path, about: LogFile) -> None:
        """Write one file to the destinations that answer, and enter it.

        raises     BackupError: none does. Nothing was moved on, the source keeps it
        """
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        encrypted = self._stream.keys.current is not None
        one = replace(about, bytes=path.stat().st_size, sha256=sha256, encrypted=encrypted)
        self._enter(self._keepers.write(path, one))
        if one.covered:
            self._received.covered = format_lsn(one.covered)
        if one.partial:
            self._drop_parts(one.segment, one.covered)
            self._parts.append(one)

    def _enter(self, copied: Copied) -> None:
        _enter(self._conn, self._stream.name, copied.file, copied.stored_bytes, copied.destinations)

    def _drop_parts(self, segment: str, covered: int) -> None:
        """Forget parts that a longer one, or the whole segment, has replaced.

        The last part of a timeline that was left stays: it may hold what the newer one does not.
        """
        for one in [part for part in self._parts if part.segment == segment and part.covered <= covered]:
            self._keepers.remove(one)
            self._conn.execute(
                "delete from datops.backup_wal where name = %s and file = %s", (self._stream.name, one.name)
            )
            self._parts.remove(one)


def _app_prefix(name: str) -> str:
    return f"datops wal {name[:40]}#"


def _enter(conn: psycopg.Connection[Any], name: str, one: LogFile, stored: int, there: Sequence[str]) -> int:
    values = (
        name, one.name, one.segment, one.partial, one.timeline, format_lsn(one.covered), one.until, stored, list(there)
    )  # fmt: skip
    return conn.execute(_ENTER, values).rowcount


@contextmanager
def _alone(conn: psycopg.Connection[Any], name: str) -> Iterator[None]:
    key = f"datops.backup.wal.{name}"
    if conn.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)).fetchone() != (True,):
        raise LockTakenError(f"another process receives the log of {name}; one at a time does")
    try:
        yield
    finally:
        if not conn.closed:
            conn.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (key,))
