"""Backups in the warehouse's catalogue: what was begun, what is good, where it is, what a drill said of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row

from datops_assets.backup.manifest import Manifest, whole_of
from datops_assets.errors import LockTakenError


@dataclass(frozen=True)
class BackupEntry:
    """One row of `datops.backups`."""

    backup_id: str
    name: str
    kind: str
    state: str
    """running, complete, failed, pruned; died where it says running and nobody runs it."""
    database: str
    parent: str | None
    started_at: datetime
    snapshot_at: datetime | None
    finished_at: datetime | None
    start_lsn: str | None
    end_lsn: str | None
    timeline: int | None
    server_version: int | None
    stored_bytes: int | None
    plain_bytes: int | None
    whole: str | None
    reason: str | None
    who: str
    why: str
    destinations: list[str]
    """Those that have it whole."""
    verified_at: datetime | None
    """When every destination that has it was last found right."""
    damaged_at: list[str]
    """Destinations where the last look found damage."""
    drilled_at: datetime | None
    drill_passed: bool | None

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None

    @property
    def is_good(self) -> bool:
        """Whether it is finished and no destination's copy is known as damaged everywhere."""
        return self.state == "complete" and bool(set(self.destinations) - set(self.damaged_at))


_LIST: LiteralString = """
select b.backup_id, b.name, b.kind,
       case when b.state = 'running' and not exists (
              select from pg_locks l where l.locktype = 'advisory' and l.database =
                     (select oid from pg_database where datname = current_database())
                 and ((l.classid::bigint << 32) | l.objid::bigint)
                     = hashtextextended('datops.backup.run.' || b.name, 0))
            then 'died' else b.state end as state,
       b.database, b.parent, b.started_at, b.snapshot_at, b.finished_at, b.start_lsn::text as start_lsn,
       b.end_lsn::text as end_lsn, b.timeline, b.server_version, b.stored_bytes, b.plain_bytes, b.whole, b.reason,
       b.who, b.why,
       coalesce(array_agg(c.destination order by c.destination) filter (where c.state = 'there'), '{}') as destinations,
       case when bool_and(c.verified) filter (where c.state = 'there')
            then min(c.verified_at) filter (where c.state = 'there') end as verified_at,
       coalesce(array_agg(c.destination order by c.destination) filter (where not c.verified), '{}') as damaged_at,
       (select max(d.finished_at) from datops.backup_drills d where d.backup_id = b.backup_id) as drilled_at,
       (select d.passed from datops.backup_drills d where d.backup_id = b.backup_id
         order by d.finished_at desc limit 1) as drill_passed
  from datops.backups b left join datops.backup_copies c using (backup_id)
 where (%(name)s::text is null or b.name = %(name)s) and (%(id)s::text is null or b.backup_id = %(id)s)
 group by b.backup_id order by b.started_at
"""
_ENTER: LiteralString = """
insert into datops.backups (backup_id, name, kind, state, database, parent, started_at, who, why)
values (%s, %s, %s, 'running', %s, %s, %s, %s, %s)
"""
_FINISH: LiteralString = """
insert into datops.backups (backup_id, name, kind, state, database, parent, started_at, snapshot_at, finished_at,
                            system_identifier, timeline, start_lsn, end_lsn, server_version, stored_bytes, plain_bytes,
                            whole, manifest, who, why)
values (%(backup_id)s, %(name)s, %(kind)s, 'complete', %(database)s, %(parent)s, %(started_at)s, %(snapshot_at)s,
        %(finished_at)s, %(system_identifier)s, %(timeline)s, %(start_lsn)s, %(end_lsn)s, %(server_version)s,
        %(stored_bytes)s, %(plain_bytes)s, %(whole)s, %(manifest)s, %(who)s, %(why)s)
on conflict (backup_id) do update
   set state = 'complete', snapshot_at = excluded.snapshot_at, finished_at = excluded.finished_at,
       system_identifier = excluded.system_identifier, timeline = excluded.timeline, start_lsn = excluded.start_lsn,
       end_lsn = excluded.end_lsn, server_version = excluded.server_version, stored_bytes = excluded.stored_bytes,
       plain_bytes = excluded.plain_bytes, whole = excluded.whole, manifest = excluded.manifest, reason = null
"""
_COPY: LiteralString = """
insert into datops.backup_copies (backup_id, destination, state, reason) values (%s, %s, %s, %s)
on conflict (backup_id, destination) do update set state = excluded.state, reason = excluded.reason
"""

_CHAIN: LiteralString = """
with recursive chain as (
  select backup_id, parent, 1 as depth from datops.backups where backup_id = %(id)s
  union all
  select b.backup_id, b.parent, c.depth + 1 from chain c join datops.backups b on b.backup_id = c.parent
   where c.depth < 1000
)
select backup_id from chain order by depth
"""
_READ_NOW: LiteralString = """
select b.backup_id from datops.backups b join pg_locks l
    on ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('datops.backup.read.' || b.backup_id, 0)
 where l.locktype = 'advisory' and l.granted
   and l.database = (select oid from pg_database where datname = current_database())
"""


def list_backups(
    conn: psycopg.Connection[Any], name: str | None = None, backup_id: str | None = None
) -> list[BackupEntry]:
    """All entries, the oldest first."""
    with conn.cursor(row_factory=class_row(BackupEntry)) as cursor:
        return cursor.execute(_LIST, {"name": name, "id": backup_id}).fetchall()


def enter_run(
    conn: psycopg.Connection[Any], backup_id: str, name: str, kind: str, database: str, parent: str | None,
    started_at: datetime, who: str, why: str,
) -> None:  # fmt: skip
    """Note that a backup begins."""
    conn.execute(_ENTER, (backup_id, name, kind, database, parent, started_at, who, why))


def finish_run(
    conn: psycopg.Connection[Any],
    manifest: Manifest,
    text: str,
    there: Sequence[str],
    failed: Mapping[str, str],
) -> None:
    """Note that a backup is good, and which destinations have it. Also enters one that the catalogue forgot."""
    values = {
        name: getattr(manifest, name)
        for name in (
            "backup_id", "name", "kind", "database", "parent", "started_at", "snapshot_at", "finished_at",
            "system_identifier", "timeline", "start_lsn", "end_lsn", "server_version", "stored_bytes", "plain_bytes",
            "who", "why",
        )
    }  # fmt: skip
    with conn.transaction():
        conn.execute(_FINISH, values | {"whole": whole_of(text), "manifest": text})
        for destination in there:
            conn.execute(_COPY, (manifest.backup_id, destination, "there", None))
        for destination, reason in failed.items():
            conn.execute(_COPY, (manifest.backup_id, destination, "failed", reason))


def fail_run(conn: psycopg.Connection[Any], backup_id: str, reason: str) -> None:
    """Note that a backup came to nothing, and why."""
    conn.execute(
        "update datops.backups set state = 'failed', reason = %s, finished_at = clock_timestamp()"
        " where backup_id = %s and state = 'running'",
        (reason, backup_id),
    )


def read_text(conn: psycopg.Connection[Any], backup_id: str) -> str | None:
    """The manifest's text as it was written; None where the catalogue has none."""
    row = conn.execute("select manifest from datops.backups where backup_id = %s", (backup_id,)).fetchone()
    return row[0] if row else None


def note_verified(
    conn: psycopg.Connection[Any], backup_id: str, destination: str, passed: bool, findings: Sequence[str]
) -> None:
    """Note what a look at one destination's copy found."""
    conn.execute(
        "update datops.backup_copies set verified = %s, verified_at = clock_timestamp(), reason = %s"
        " where backup_id = %s and destination = %s",
        (passed, "; ".join(findings)[:1000] or None, backup_id, destination),
    )


def note_drill(
    conn: psycopg.Connection[Any], backup_id: str, started_at: datetime, passed: bool, rto_s: float | None,
    rpo_s: float | None, findings: Sequence[str], measured: Mapping[str, Any],
) -> None:  # fmt: skip
    """Add a drill to the history."""
    conn.execute(
        "insert into datops.backup_drills (backup_id, started_at, passed, rto_s, rpo_s, findings, measured)"
        " values (%s, %s, %s, %s, %s, %s, %s)",
        (backup_id, started_at, passed, rto_s, rpo_s, json.dumps(list(findings)), json.dumps(dict(measured))),
    )


def note_pruned(conn: psycopg.Connection[Any], backup_id: str, reason: str) -> None:
    """Note that a backup was removed on purpose. Its entry stays, for the history."""
    with conn.transaction():
        conn.execute("delete from datops.backup_copies where backup_id = %s", (backup_id,))
        conn.execute(
            "update datops.backups set state = 'pruned', reason = %s where backup_id = %s",
            (reason, backup_id),
        )


@contextmanager
def running(conn: psycopg.Connection[Any], name: str) -> Iterator[None]:
    """Be the only one who takes backups of this name, or removes any.

    raises     LockTakenError: another process does
    """
    with _locked(conn, f"datops.backup.run.{name}", f"another process takes or removes backups of {name}"):
        yield


@contextmanager
def read_lock(conn: psycopg.Connection[Any], backup_id: str) -> Iterator[None]:
    """Keep a backup, and those it cannot be restored without, from being removed while it is read.

    promise    ends with the connection: a reader that is killed holds nothing back
    raises     LockTakenError: one of them is being removed, or was
    """
    held: list[str] = []
    try:
        # The backup first, then its parents: prune removes no parent of one that stays.
        for one in [row[0] for row in conn.execute(_CHAIN, {"id": backup_id})] or [backup_id]:
            key = _reading_key(one)
            taken = conn.execute("select pg_try_advisory_lock_shared(hashtextextended(%s, 0))", (key,))
            if taken.fetchone() == (True,):
                held.append(one)
            # Looked at with the lock held: it may have been removed since it was chosen.
            if one not in held or _state(conn, one) == "pruned":
                raise LockTakenError(f"backup {one} is being removed; choose another: datops backup list")
        yield
    finally:
        for one in held:
            # A connection that broke has let go of it already.
            with suppress(psycopg.OperationalError, psycopg.InterfaceError):
                conn.execute(
                    "select pg_advisory_unlock_shared(hashtextextended(%s, 0))", (_reading_key(one),)
                )


def list_read(conn: psycopg.Connection[Any]) -> set[str]:
    """The backups that somebody reads now, or that another process removes."""
    return {backup_id for (backup_id,) in conn.execute(_READ_NOW)}


@contextmanager
def remove_lock(conn: psycopg.Connection[Any], backup_id: str) -> Iterator[bool]:
    """Whether nobody reads a backup; while this is open, nobody begins to."""
    key = _reading_key(backup_id)
    taken = conn.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)).fetchone() == (True,)
    try:
        yield taken
    finally:
        if taken and not conn.closed:
            conn.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (key,))


def _state(conn: psycopg.Connection[Any], backup_id: str) -> str | None:
    row = conn.execute("select state from datops.backups where backup_id = %s", (backup_id,)).fetchone()
    return row[0] if row else None


def _reading_key(backup_id: str) -> str:
    return f"datops.backup.read.{backup_id}"


@contextmanager
def _locked(conn: psycopg.Connection[Any], key: str, taken: str) -> Iterator[None]:
    if conn.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)).fetchone() != (True,):
        raise LockTakenError(f"{taken}; wait for it, then try again")
    try:
        yield
    finally:
        if not conn.closed:
            conn.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (key,))
