"""Where receiving the log begins: what the source has, what is kept, and whether the one goes on from the other.

Belongs here: the slot, the timelines of the source, and the decision. Does not: receiving (wal.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from datops_assets.backup.log_archive import LogFile, way_to
from datops_assets.backup.server import Server
from datops_assets.backup.wal_segments import Parting, is_history, read_history, segment_name
from datops_assets.errors import BackupError, SourceRefusedError
from datops_assets.postgres.lsn import format_lsn, parse_lsn

_SOURCE: LiteralString = """
select current_setting('server_version_num')::int, pg_size_bytes(current_setting('wal_segment_size')),
       pg_is_in_recovery(), pg_has_role('pg_read_all_stats', 'usage'),
       (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end)::text,
       s.restart_lsn::text, s.wal_status
  from (select 1) one left join pg_replication_slots s on s.slot_name = %s
"""


@dataclass(frozen=True)
class LogSource:
    """What has to be known of a server before its log is received."""

    version: int
    segment_bytes: int
    is_standby: bool
    system_identifier: int
    timeline: int
    partings: Sequence[Parting]
    """Where its timeline came from, the oldest first."""
    end: int
    """Where its log ends now, in bytes; of a standby: what it has replayed."""
    restart: int | None
    """From where the slot holds the log; None where there is no slot that holds any."""
    slot_status: str | None


@dataclass(frozen=True)
class Start:
    """Where to begin."""

    timeline: int
    covered: int
    """What is kept reaches to here, in bytes; the segment it lies in is received from its first byte."""
    gap: str | None
    """Why the log does not go on where it ended; None where it does."""


def read_source(server: Server, source: psycopg.Connection[Any], slot: str) -> LogSource:
    """Ask the source.

    raises     SourceRefusedError: the role may not see what it has to
    """
    row = source.execute(_SOURCE, (slot,)).fetchone()
    assert row is not None
    version, segment_bytes, is_standby, may, end, restart, status = row
    if not may:
        raise SourceRefusedError(
            "the role may not see how far the log was received; on the server: grant pg_monitor to the role"
        )
    system, timeline, partings = _read_timelines(server)
    return LogSource(
        version, segment_bytes, is_standby, system, timeline, partings, parse_lsn(end or "0/0"),
        parse_lsn(restart) if restart and status != "lost" else None, status,
    )  # fmt: skip


def _read_timelines(server: Server) -> tuple[int, int, list[Parting]]:
    """By the replication protocol: the control file tells of a promotion only after the next checkpoint."""
    with closing(server.connect(replication="true")) as conn:
        row = conn.execute("IDENTIFY_SYSTEM").fetchone()
        assert row is not None
        timeline = int(row[1])
        if timeline == 1:
            return int(row[0]), 1, []
        told = conn.pgconn.exec_(b"TIMELINE_HISTORY %d" % timeline).get_value(0, 1) or b""
    return int(row[0]), timeline, read_history(told.decode("utf-8", "replace"))


def hold_slot(source: psycopg.Connection[Any], slot: str, found: LogSource) -> int:
    """Make the slot where there is none that holds anything; from where it holds the log.

    raises     SourceRefusedError: none can be made
    """
    if found.restart is not None:
        return found.restart
    if found.slot_status is not None:
        source.execute("select pg_drop_replication_slot(%s)", (slot,))
    try:
        made = source.execute(
            "select lsn::text from pg_create_physical_replication_slot(%s, true)", (slot,)
        ).fetchone()
    except psycopg.Error as error:
        raise SourceRefusedError(
            f"the slot {slot} cannot be made (SQLSTATE {error.sqlstate});"
            " the role needs `replication`, the server a free slot"
        ) from None
    return parse_lsn(made[0]) if made and made[0] else found.end


def plan_start(
    found: LogSource,
    kept: Sequence[LogFile],
    backed_up: int | None,
    restart: int,
    on_disk: Collection[str],
    name: str,
) -> Start:
    """Go on from what is kept, if the source still has what follows it; else begin anew, and say so.

    backed_up  where the newest physical backup ends, in bytes: what a log that begins anew should go on from
    restart    from where the slot holds the log, in bytes
    on_disk    names of the segments that the source has, held by a slot or not
    raises     SourceRefusedError: the source is behind what is kept
    """
    way = way_to(found.partings, found.timeline)
    segments = [one for one in kept if not is_history(one.segment)]
    left = dict(way)
    # What an old timeline has behind the place where the source's own parted from it is of another history.
    reached = [
        one.covered if (end := left[one.timeline]) is None else min(one.covered, end)
        for one in segments
        if one.timeline in left
    ]

    def has(place: int) -> bool:
        held = found.restart is not None and found.restart // size <= place // size
        return held or segment_name(_timeline_at(way, place, size), place, size) in on_disk

    size = found.segment_bytes
    if reached and has(have := max(reached)):
        return Start(_timeline_at(way, have, size), have, None)
    if reached and have > found.end:
        raise SourceRefusedError(
            f"the source has its log to {format_lsn(found.end)}, what is kept goes to {format_lsn(have)}: it is"
            " behind, or an older copy of the server; wait for it, or back it up under another name"
        )
    whole = backed_up is not None and backed_up <= found.end and has(backed_up)
    begin = backed_up if whole and backed_up is not None else restart
    why = {"lost": "the source dropped what the slot held", None: "its slot was gone"}.get(
        found.slot_status, "the slot was moved on by somebody else"
    )
    if segments and not reached:
        why = f"the source's timeline {found.timeline} does not come from what is kept"
    then = (
        "where the newest physical backup ends"
        if whole
        else f"take a full backup: datops backup run {name} --kind full"
    )
    gap = f"{why}: the log begins anew at {format_lsn(begin)}; {then}" if segments else None
    return Start(_timeline_at(way, begin, size), begin, gap)


def read_backed_up(conn: psycopg.Connection[Any], name: str) -> int | None:
    """Where the newest physical backup ends, in bytes."""
    row = conn.execute(
        "select end_lsn::text from datops.backups where name = %s and state = 'complete' and kind <> 'logical'"
        " and end_lsn is not null order by started_at desc limit 1",
        (name,),
    ).fetchone()
    return parse_lsn(row[0]) if row else None


def _timeline_at(way: Sequence[tuple[int, int | None]], lsn: int, segment_bytes: int) -> int:
    """Whose segment to ask for: the one in which two timelines part begins, on the newer one, with a copy."""
    end_of_segment = (lsn // segment_bytes + 1) * segment_bytes
    return next(timeline for timeline, left in way if left is None or end_of_segment <= left)


def require_same_server(conn: psycopg.Connection[Any], name: str, address: str, found: LogSource) -> None:
    """Refuse to mix the logs of two servers under one name.

    raises     BackupError: the physical backups of this name are of another server
    """
    row = conn.execute(
        "select max(system_identifier) from datops.backups"
        " where name = %s and state = 'complete' and kind <> 'logical' and system_identifier <> %s",
        (name, found.system_identifier),
    ).fetchone()
    if row is not None and row[0] is not None:
        raise BackupError(
            f"{address} is another server (system identifier {found.system_identifier}) than the one whose backups"
            f" are called {name} ({row[0]}); give its document another name under `backup:`"
        )
