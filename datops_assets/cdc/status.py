"""How far a stream is behind, and what its slot holds back in the source."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg

from datops_assets.cdc.snapshot import connect_source
from datops_assets.cdc.streams import ChangeStream, StreamEntry

_SLOT: LiteralString = """
select s.active, s.wal_status, pg_wal_lsn_diff(w.reached, s.restart_lsn)::bigint,
       greatest(pg_wal_lsn_diff(w.reached, %(applied)s::pg_lsn), 0)::bigint, s.safe_wal_size
  from pg_replication_slots s,
       (select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as reached) w
 where s.slot_name = %(slot)s
"""
_NEWS: LiteralString = """
select lsn::text from pg_logical_slot_peek_binary_changes(%s, null, 1,
  'proto_version', '1', 'publication_names', %s) limit 1
"""


@dataclass(frozen=True)
class SlotStatus:
    """What the source says of a stream's slot."""

    active: bool
    """Whether somebody follows it right now."""
    wal_status: str | None
    """reserved, extended, unreserved or lost."""
    retained_bytes: int | None
    """Log that the source keeps for it."""
    lag_bytes: int | None
    """Log that was written since the place the warehouse has reached; other databases' too."""
    safe_bytes: int | None
    """Log that may still be written before the slot is lost; None: there is no limit."""


def read_slot(
    parameters: dict[str, Any], stream: ChangeStream, entry: StreamEntry | None
) -> SlotStatus | None:
    """Ask the source about a stream's slot; None where it has none.

    raises     SourceUnreachableError, SourceRefusedError
    """
    applied = entry.applied if entry else None
    with closing(connect_source(parameters)) as conn:
        row = conn.execute(_SLOT, {"slot": stream.slot, "applied": applied}).fetchone()
    return None if row is None else SlotStatus(*row)


def has_news(parameters: dict[str, Any], stream: ChangeStream) -> bool:
    """Whether a slot holds a change of the stream's tables that was not acknowledged.

    Costs the source the decoding of what lies between, so a drain now and then keeps it cheap.
    False while somebody follows the slot: who does will see it. True where the slot is gone or lost: whoever drains
    says what became of it.
    """
    with closing(connect_source(parameters)) as conn:
        try:
            return conn.execute(_NEWS, (stream.slot, f'"{stream.publication}"')).fetchone() is not None
        except psycopg.errors.ObjectInUse:
            return False
        except (psycopg.errors.UndefinedObject, psycopg.errors.ObjectNotInPrerequisiteState):
            return True


def lag_seconds(entry: StreamEntry, slot: SlotStatus | None) -> float | None:
    """Seconds since the source committed what was applied last; 0 where nothing came after it."""
    if slot is None or slot.lag_bytes is None or entry.applied_commit_at is None:
        return None
    if slot.lag_bytes == 0:
        return 0.0
    return (datetime.now(UTC) - entry.applied_commit_at).total_seconds()
