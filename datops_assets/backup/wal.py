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
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from datops_assets.backup.artefacts import pack
from datops_assets.backup.destinations import Destination
from datops_assets.backup.encryption import Keys
from datops_assets.backup.log_archive import LogFile, folder_of_log, list_log, parse_name
from datops_assets.backup.logical import as_source
from datops_assets.backup.server import Server, fitting_programs
from datops_assets.backup.wal_segments import is_history, is_segment, segment_name, start_of
from datops_assets.errors import BackupError, DatopsError, LockTakenError, SourceRefusedError
from datops_assets.postgres.failpoints import hit
from datops_assets.postgres.lsn import format_lsn, parse_lsn

_POLL_S = 0.2
_STATE: LiteralString = """
select current_setting('server_version_num')::int, pg_size_bytes(current_setting('wal_segment_size')),
       (select timeline_id from pg_control_checkpoint()), pg_current_wal_lsn()::text,
       s.restart_lsn::text, s.wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint
  from (select 1) one left join pg_replication_slots s on s.slot_name = %s
"""
_WRITTEN: LiteralString = """
select clock_timestamp(), pg_current_wal_insert_lsn()::text,
       (select max(write_lsn)::text from pg_stat_replication where application_name = %s)
"""
_ENTER: LiteralString = """
insert into datops.backup_wal (name, file, segment, partial, timeline, covered, until_at, stored_bytes, destinations)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict (name, file) do nothing
"""


@dataclass(frozen=True)
class LogStream:
    """What a person declares about the log of one server."""

    name: str
    server: Server = field(repr=False)
    destinations: Sequence[Destination]
    keys: Keys
    staging: Path
    pg_bin: Path | None = None
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
    return LogState(kept[0], kept[1], kept[2], kept[3], kept[4], stream.slot, row[5], row[6])


def receive(
    conn: psycopg.Connection[Any],
    stream: LogStream,
    *,
    once: bool = False,
    stop: threading.Event | None = None,
) -> Received:
    """Keep the log as it is written, until `stop` is set; `once`: all that is written by now.

    conn       the catalogue's
    promise    what is entered is at a destination, whole; the source keeps the rest until it is. Killed at any
               moment, the next one goes on where this one ended
    raises     BackupError, SourceUnreachableError, SourceRefusedError; LockTakenError: another one receives
    """
    with _alone(conn, stream.name):
        return _Receiver(conn, stream).run(once, stop or threading.Event())


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
    def __init__(self, conn: psycopg.Connection[Any], stream: LogStream) -> None:
        self._conn, self._stream = conn, stream
        # Of its own: a pg_receivewal that outlived a killed receiver must not write among our files, nor speak for us.
        token = secrets.token_hex(4)
        self._folder = stream.staging / f"wal-{stream.name}#{token}"
        self._app = f"{_app_prefix(stream.name)}{token}"
        self._received = Received()
        self._marks: deque[tuple[datetime, int]] = deque()
        self._parts: list[LogFile] = []
        self._segment_bytes = 0
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
                    done = stop.is_set() or (once and written >= end)
                    self._keep_finished(source)
                    self._keep_part(written, now=done)
                    if done and parse_lsn(self._received.covered) >= min(end, written):
                        break
                    if process.poll() is not None:
                        raise BackupError(f"the log of {stream.server.address} broke off: {self._words()}")
                    stop.wait(_POLL_S)
        shutil.rmtree(self._folder, ignore_errors=True)
        return self._received

    def _begin(self, source: psycopg.Connection[Any]) -> int:
        """Make the slot where there is none, and a place to go on from; returns where the log ends now."""
        row = source.execute(_STATE, (self._stream.slot,)).fetchone()
        assert row is not None
        version, self._segment_bytes, timeline, now, restart, status, _ = row
        if source.execute("select pg_has_role('pg_read_all_stats', 'usage')").fetchone() != (True,):
            raise SourceRefusedError(
                "the role may not see how far the log was received; on the server: grant pg_monitor to the role"
            )
        # We are the only one, so whoever receives under our name outlived its receiver.
        source.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where starts_with(application_name, %s)",
            (_app_prefix(self._stream.name),),
        )
        programs = fitting_programs(version, self._stream.pg_bin)
        self._program = programs.path("pg_receivewal")
        kept = [
            one for to in self._stream.destinations for one in self._list(to) if not is_history(one.segment)
        ]
        if status == "lost":
            source.execute("select pg_drop_replication_slot(%s)", (self._stream.slot,))
            restart = None
        if restart is None:
            try:
                made = source.execute(
                    "select lsn::text from pg_create_physical_replication_slot(%s, true)",
                    (self._stream.slot,),
                ).fetchone()
            except psycopg.Error as error:
                raise SourceRefusedError(
                    f"the slot {self._stream.slot} cannot be made (SQLSTATE {error.sqlstate});"
                    " the role needs `replication`, the server a free slot"
                ) from None
            restart = made[0] if made and made[0] else now
            if kept:
                why = "the source dropped what the slot held" if status == "lost" else "its slot was gone"
                self._received.started_anew = f"{why}: the log begins anew at {restart}; take a full backup"
        elif kept:
            timeline = max(kept, key=lambda one: one.covered).timeline
        self._parts = [one for one in kept if one.partial]
        self._received.covered = restart
        first = segment_name(timeline, parse_lsn(restart), self._segment_bytes)
        (
            self._folder / f"{first}.partial"
        ).touch()  # pg_receivewal goes on with the segment that it finds a part of
        source.execute("select pg_logical_emit_message(false, 'datops', 'wal')")
        row = source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return parse_lsn(row[0])

    def _list(self, destination: Destination) -> list[LogFile]:
        try:
            return list_log(destination, self._stream.name)
        except (DatopsError, OSError):
            return []

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
        self._marks.append((at, parse_lsn(end)))
        return parse_lsn(written) if written else 0

    def _keep_finished(self, source: psycopg.Connection[Any]) -> None:
        for path in sorted(self._folder.iterdir()):
            if is_history(path.name):
                self._keep(path, LogFile(path.name, False, 0, None, 0, "", False))
                path.unlink()
            elif is_segment(path.name):
                end = start_of(path.name, self._segment_bytes) + self._segment_bytes
                self._keep(path, LogFile(path.name, False, end, self._until(end), 0, "", False))
                hit("wal.kept")
                source.execute(
                    "select pg_replication_slot_advance(%s, %s)", (self._stream.slot, format_lsn(end))
                )
                path.unlink()
                self._drop_parts(end)
                self._received.segments += 1

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
        """Write one file to the destinations, and enter it."""
        stream = self._stream
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        one = replace(
            about, bytes=path.stat().st_size, sha256=sha256, encrypted=stream.keys.current is not None
        )
        failed: dict[str, str] = {}
        packed = pack(
            {one.segment: path}, one.name, f"{folder_of_log(stream.name)}/{one.name}", stream.destinations,
            stream.keys.current, failed,
        )  # fmt: skip
        there = [destination.name for destination in stream.destinations if destination.name not in failed]
        _enter(self._conn, stream.name, one, packed.bytes, there)
        if failed:
            # Not moved on: the source keeps it until every destination has it.
            raise BackupError(
                "; ".join(f"the destination {name}: {why}" for name, why in sorted(failed.items()))
            )
        if one.covered:
            self._received.covered = format_lsn(one.covered)
        if one.partial:
            self._drop_parts(one.covered)
            self._parts.append(one)

    def _drop_parts(self, covered: int) -> None:
        """Forget parts that a longer one, or the whole segment, has replaced."""
        for one in [part for part in self._parts if part.covered <= covered]:
            for destination in self._stream.destinations:
                with suppress(DatopsError, OSError):
                    destination.remove_file(f"{folder_of_log(self._stream.name)}/{one.name}")
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
