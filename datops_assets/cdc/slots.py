"""A stream's slot in the source: making it, letting go of it, and what became of it.

Does not belong here: following it (replication.py), how far behind it is (status.py).
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import pq, sql

from datops_assets.cdc.replication import require_open
from datops_assets.errors import SourceRefusedError, SourceUnreachableError
from datops_assets.postgres.lsn import parse_lsn

_COPIES_SLOTS = 170000
"""Servers from this version on copy slots to standbys (sync_replication_slots there)."""
_STANDBY_WITHIN_S = 120.0
"""How long a standby may take to make a slot: its primary says which transactions run every 15 s, unless it is idle."""
_LOOK_S = 0.5
# As a document: which of these columns there are differs between versions.
_STATE: LiteralString = """
select s.confirmed_flush_lsn::text, s.wal_status, coalesce(d ->> 'invalidation_reason', ''),
       coalesce((d ->> 'conflicting')::bool, false), coalesce((d ->> 'synced')::bool, false)
  from pg_replication_slots s, to_jsonb(s) d where s.slot_name = %s
"""
_LOST: dict[str, str] = {
    "wal_removed": "the source dropped log that the slot {} still needed (max_slot_wal_keep_size)",
    "rows_removed": "the source's catalogue lost rows that the slot {} of a standby still needed; set"
    " hot_standby_feedback = on and a primary_slot_name there",
    "wal_level_insufficient": "wal_level of the primary was lowered, which ended the slot {} of its standby",
    "idle_timeout": "nobody read the slot {} for longer than idle_replication_slot_timeout",
    "conflicting": "the slot {} of a standby was in the way of what its primary did: rows of the catalogue that it"
    " needed were removed (hot_standby_feedback), or wal_level was lowered",
}


@dataclass(frozen=True)
class NewSlot:
    """A slot that was just made, and the snapshot of the database at the very place where it begins."""

    consistent_point: int
    snapshot: str


@dataclass(frozen=True)
class SlotState:
    """A slot as the source has it now."""

    confirmed: str
    """What is before this place was acknowledged."""
    wal_status: str | None
    """reserved, extended, unreserved or lost."""
    cause: str = ""
    """Why it is lost, in the source's own word (PostgreSQL 17)."""
    conflicts: bool = False
    """Whether replaying the primary's log ended it."""
    is_copy: bool = False
    """Whether it is the primary's, kept in step here for a failover: nobody may read it before that."""

    def lost(self, slot: str) -> str | None:
        """Why what was not read yet is gone, as a reason to copy anew; None: it is all there."""
        if self.cause in _LOST:
            return _LOST[self.cause].format(slot)
        if self.conflicts:
            return _LOST["conflicting"].format(slot)
        return _LOST["wal_removed"].format(slot) if self.wal_status == "lost" else None


def find_slot(source: psycopg.Connection[Any], slot: str) -> SlotState | None:
    """Ask for a slot; None where there is none of that name."""
    row = source.execute(_STATE, (slot,)).fetchone()
    return None if row is None else SlotState(*row)


def create_slot(conn: psycopg.Connection[Any], slot: str, *, temporary: bool = False) -> NewSlot:
    """Make a slot, and keep its snapshot open as long as nothing else is run on `conn`.

    conn       speaks the replication protocol
    temporary  it ends with the connection
    raises     SourceRefusedError: there are no free slots, or one of that name
               SourceUnreachableError: the connection was lost, or a standby waited for its primary in vain
    """
    found = conn.pgconn.exec_(b"select pg_is_in_recovery()")
    in_recovery = found.status == pq.ExecStatus.TUPLES_OK and found.get_value(0, 0) == b"t"
    # From PostgreSQL 17 on a standby may keep a copy of a primary's slot, so that a stream outlives a failover.
    survives = conn.info.server_version >= _COPIES_SLOTS and not temporary and not in_recovery
    command = sql.SQL("CREATE_REPLICATION_SLOT {}{} LOGICAL pgoutput (SNAPSHOT 'export'{})").format(
        sql.Identifier(slot),
        sql.SQL(" TEMPORARY" if temporary else ""),
        sql.SQL(", FAILOVER true" if survives else ""),
    )
    statement = command.as_bytes(conn)
    result = _make_on_standby(conn.pgconn, statement) if in_recovery else conn.pgconn.exec_(statement)
    if result.status != pq.ExecStatus.TUPLES_OK:
        require_open(conn.pgconn, f"the slot {slot} was to be made")
        said = result.error_message.decode(errors="replace").strip().partition("\n")[0]
        raise SourceRefusedError(f"the slot {slot} cannot be made: {said}; see: datops cdc preflight")
    point, snapshot = result.get_value(0, 1), result.get_value(0, 2)
    assert point is not None and snapshot is not None
    return NewSlot(parse_lsn(point.decode()), snapshot.decode())


def _make_on_standby(conn: pq.abc.PGconn, command: bytes) -> pq.abc.PGresult:
    """Send the command and wait for its answer: an idle primary never writes what the slot begins with.

    raises     SourceUnreachableError: the time is up. There is no slot
    """
    conn.send_query(command)
    ends, is_cancelled = time.monotonic() + _STANDBY_WITHIN_S, False
    while conn.is_busy():
        if time.monotonic() > ends:
            conn.get_cancel().cancel()
            is_cancelled = True
        if select.select([conn.socket], [], [], _LOOK_S)[0]:
            conn.consume_input()
    result = conn.get_result()
    while conn.get_result() is not None:
        pass
    assert result is not None
    if is_cancelled and result.status != pq.ExecStatus.TUPLES_OK:
        raise SourceUnreachableError(
            f"the standby waited {_STANDBY_WITHIN_S:.0f} s in vain for its primary to say which transactions run, where"
            " a slot begins; try again, and meanwhile run on the primary: select pg_log_standby_snapshot()"
        )
    return result


def drop_slot(source: psycopg.Connection[Any], slot: str) -> None:
    """Let go of a slot of an earlier try.

    raises     SourceRefusedError: somebody reads it, or it is a copy of the primary's
    """
    found = find_slot(source, slot)
    if found is not None and found.is_copy:
        raise copy_of_the_primarys(slot)
    try:
        source.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s",
            (slot,),
        )
    except psycopg.errors.ObjectInUse:
        raise SourceRefusedError(
            f"somebody reads the slot {slot}; end that first, or give the stream another `slot:`"
        ) from None


def copy_of_the_primarys(slot: str) -> SourceRefusedError:
    """What to say where a standby keeps the stream's own slot in step with its primary's."""
    return SourceRefusedError(
        f"the slot {slot} of this standby is its primary's, kept in step for a failover; name the primary in `source:`,"
        " or promote the standby; a stream of its own needs another name or `slot:`"
    )
