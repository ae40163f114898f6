"""Follow a slot: to a place in the log and end there, or on and on until told to stop.

The place is marked by a message of our own in the source's log, so that the end is exact whatever else
happens there; the message also lets the slot of an idle database move on. A standby takes no message: there the
end is how far it has come, and its signs of life say when all before that was sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from datops_assets.cdc.bronze import add_columns, create_tables, drop_log, kept_logs
from datops_assets.cdc.deletes import keep_as_declared
from datops_assets.cdc.following import End, Following, Mark
from datops_assets.cdc.marks import make_room
from datops_assets.cdc.relations import OtherFormError, TableChangedError
from datops_assets.cdc.replication import Receiver, read_fork, read_timeline, replication_connection
from datops_assets.cdc.schema import compare, difference, files_of, freeze_table, known_tables
from datops_assets.cdc.slots import SlotState, copy_of_the_primarys, find_slot
from datops_assets.cdc.snapshot import connect_source, copy_tables, enter_table, follow
from datops_assets.cdc.source import reached, read_server, read_tables
from datops_assets.cdc.streams import (
    ChangeStream,
    StreamedTable,
    StreamEntry,
    find_stream,
    names_of,
    require_resync,
)
from datops_assets.errors import SourceRefusedError, SourceUnreachableError
from datops_assets.postgres.lsn import format_lsn, parse_lsn
from datops_assets.postgres.ulid import new_ulid

MESSAGE_PREFIX = "datops"
_DRAIN_BATCH_S = 1.0
"""Longest a finished transaction waits for others before it is committed, where only throughput counts."""


@dataclass
class Drained:
    """What one drain did."""

    transactions: int = 0
    changes: int = 0
    applied: str = ""
    """The place in the log that the warehouse has reached."""
    seconds: float = 0.0
    tables: dict[str, int] = field(default_factory=dict)
    """Changes per table of the stream."""
    columns_added: dict[str, list[str]] = field(default_factory=dict)
    differences: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How the columns of tables that were looked at differ from what they were: see schema.difference."""
    copied: list[str] = field(default_factory=list)
    """Tables that were copied anew, because the log does not tell what became of them, or are new."""


def drain(warehouse: psycopg.Connection[Any], parameters: dict[str, Any], stream: ChangeStream) -> Drained:
    """Apply all that the source had committed when the drain began, each change once.

    warehouse   autocommit; holds the stream's lease
    parameters  of the source, by libpq's names
    raises      SourceUnreachableError: what is committed by then stays, the next drain goes on from there.
                SourceRefusedError: the stream needs a person; where its log is lost the state says so
    promise     rows, mirror and place commit together; the source is told after that, never before
    """
    started = time.monotonic()
    with opened(warehouse, parameters, stream) as (source, entry):
        done = Drained(applied=entry.applied or "")
        renew_tables(warehouse, source, parameters, stream, entry, done)
        run(warehouse, source, parameters, stream, done, end=_pin(source), batch_s=_DRAIN_BATCH_S)
    done.seconds = time.monotonic() - started
    return done


@contextmanager
def opened(
    warehouse: psycopg.Connection[Any], parameters: dict[str, Any], stream: ChangeStream
) -> Iterator[tuple[psycopg.Connection[Any], StreamEntry]]:
    """A connection to the source whose log goes on from where the warehouse is.

    raises      SourceRefusedError: it does not, or there is no snapshot yet
    promise     no transaction stays open in the warehouse
    """
    entry = find_stream(warehouse, stream.source)
    if entry is None or entry.state in ("new", "snapshot"):
        raise SourceRefusedError(f"{stream.source} has no snapshot yet: datops cdc snapshot {stream.source}")
    with closing(connect_source(parameters)) as source:
        try:
            _require_same_log(warehouse, source, parameters, entry, stream)
            yield source, entry
        except psycopg.OperationalError:
            if source.broken:
                raise SourceUnreachableError(
                    f"the source of {stream.source} closed the connection; try again"
                ) from None
            raise
        finally:
            if not warehouse.closed and not warehouse.broken:
                warehouse.execute("rollback")


def _pin(source: psycopg.Connection[Any]) -> End:
    """Choose the end of a drain that begins now: all that can be seen in the source is before it."""
    in_recovery, place = reached(source)
    if in_recovery:
        return place
    mark = new_ulid()
    emit(source, mark)
    return Mark(MESSAGE_PREFIX, mark.encode())


def emit(source: psycopg.Connection[Any], content: str) -> None:
    """Write a mark of ours into the source's log, as a transaction of its own."""
    source.execute("select pg_logical_emit_message(true, %s, %s)", (MESSAGE_PREFIX, content))


def run(
    warehouse: psycopg.Connection[Any],
    source: psycopg.Connection[Any],
    parameters: dict[str, Any],
    stream: ChangeStream,
    done: Drained,
    *,
    end: End | None,
    batch_s: float,
    on_commit: Callable[[Following], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Apply what the log says from the warehouse's place on.

    end         None: only `stopping` ends it
    on_commit   called after each commit and in each idle moment between transactions
    stopping    asked a few times a second; a transaction that is open then is sent again to whoever follows next
    """
    binary = None
    while True:
        entry = find_stream(warehouse, stream.source)
        assert entry is not None
        # A standby that is promoted meanwhile goes on telling places.
        tells_places = isinstance(end, int) or reached(source)[0]
        following = Following(warehouse, source, stream, entry, done, binary=binary)
        with (
            replication_connection(parameters) as conn,
            Receiver(
                conn,
                stream.slot,
                stream.publication,
                entry.applied_lsn,
                binary=following.binary,
                tells_places=tells_places,
            ) as receiver,
        ):
            try:
                following.follow(receiver, end, batch_s, on_commit, stopping)
                return
            except OtherFormError:  # what is not committed is sent again, as text
                warehouse.execute("rollback")
                binary, changed = False, None
            except TableChangedError as error:
                warehouse.execute("rollback")
                changed = error.table
        if changed is not None:
            where = (changed.schema, changed.table)
            was = known_tables(warehouse, entry).get(where)
            now = read_tables(source, stream.publication, [where]).get(where)
            if was is not None and now is not None:
                done.differences[changed.name] = difference(was, now)
            copy_tables(warehouse, parameters, stream, entry, [changed])
            done.copied.append(changed.name)


def renew_tables(
    warehouse: psycopg.Connection[Any],
    source: psycopg.Connection[Any],
    parameters: dict[str, Any],
    stream: ChangeStream,
    entry: StreamEntry,
    done: Drained,
) -> None:
    """Copy the tables that are new in the document, or were changed so that the log cannot tell how; begin or end logs.

    raises      SourceRefusedError: a table was dropped, or made again under its name
    """
    known = known_tables(warehouse, entry)
    found = read_tables(source, stream.publication, names_of(stream.tables))
    logs = kept_logs(warehouse, stream.source, [one.name for one in stream.tables])
    wanted: list[StreamedTable] = []
    keep_as_declared(warehouse, stream.source, {one.name: one.keeps_deleted for one in stream.tables}, "lsn")
    for one in stream.tables:
        now, before = found.get((one.schema, one.table)), known.get((one.schema, one.table))
        if before is None:
            wanted.append(one)
            continue
        verdict, new = compare(before, now) if now is not None else ("recreated", [])
        if now is not None and verdict != "recreated" and (found_out := difference(before, now)):
            done.differences[one.name] = found_out
        if verdict == "recreated":
            reason = f"{one.label} is not the table that was copied: it was dropped or made again"
            _refuse(warehouse, entry, stream, reason)
        assert now is not None
        if not one.is_logged and one.name in logs:
            with warehouse.transaction():
                drop_log(warehouse, stream.source, one.name)
        if before.frozen is not None and (before.accepted or not one.frozen):
            wanted.append(one)
        elif one.frozen and (before.frozen is not None or one.name in done.differences):
            freeze_table(
                warehouse, stream.source, one.name, done.differences.get(one.name, before.frozen or {})
            )
            create_tables(
                warehouse, follow(stream.source, one, now)
            )  # its log, where none was kept until now
        elif verdict == "changed" or (one.is_logged and one.name not in logs):
            wanted.append(one)  # a log begins with a copy: what was not kept nobody can tell
        elif verdict == "grown":
            target = follow(stream.source, one, now)
            with warehouse.transaction():
                make_room(warehouse, target.mirror, new)
                add_columns(warehouse, target.mirror, [c for c in now.columns if c.name in new])
                enter_table(warehouse, entry.stream_id, stream.source, one, now)
            done.columns_added.setdefault(one.name, []).extend(new)
        elif before.file != now.file or before.partitions != files_of(now) or one.name in done.differences:
            enter_table(warehouse, entry.stream_id, stream.source, one, now)
    if wanted:
        copy_tables(warehouse, parameters, stream, entry, wanted)
        done.copied += [one.name for one in wanted]


def require_known(
    warehouse: psycopg.Connection[Any],
    source: psycopg.Connection[Any],
    stream: ChangeStream,
    entry: StreamEntry,
) -> None:
    """Hold that the log tells all of every table since its mirror was made.

    raises      TableChangedError: of one it does not
    """
    known = known_tables(warehouse, entry)
    found = read_tables(source, stream.publication, names_of(stream.tables))
    for one in stream.tables:
        before, now = known.get((one.schema, one.table)), found.get((one.schema, one.table))
        if before is not None and now is not None and compare(before, now)[0] == "changed":
            raise TableChangedError(one)


def _require_same_log(
    warehouse: psycopg.Connection[Any],
    source: psycopg.Connection[Any],
    parameters: dict[str, Any],
    entry: StreamEntry,
    stream: ChangeStream,
) -> None:
    """Hold that the slot still has all that the warehouse lacks.

    raises     SourceRefusedError: it has not; entered as resync_required
    """
    reason = entry.reason if entry.state == "resync_required" else None
    server = read_server(source)
    slot = find_slot(source, stream.slot)
    in_recovery, place = reached(source)
    if in_recovery:
        _require_standby(stream, entry, slot, place)
    lost = slot.lost(stream.slot) if slot is not None else f"the slot {stream.slot} is gone"
    if reason is not None:
        pass
    elif server.system_identifier != entry.system_identifier:
        reason = "another server answers there now"
    elif place < entry.applied_lsn:
        reason = (
            f"the source is at {format_lsn(place)}, before the warehouse's {entry.applied}: it was restored"
        )
    elif lost is not None:
        reason = lost
    elif slot is not None and parse_lsn(slot.confirmed) > entry.applied_lsn:
        reason = (
            f"somebody else read the slot {stream.slot}: it is at {slot.confirmed},"
            f" the warehouse at {entry.applied}"
        )
    elif entry.timeline is not None and (in_recovery or server.timeline > entry.timeline):
        with replication_connection(parameters) as conn:
            timeline = read_timeline(conn)
            is_other = timeline > entry.timeline
            fork = read_fork(conn, timeline, entry.timeline) if is_other else entry.applied_lsn
        if fork < entry.applied_lsn:
            reason = "a standby took over that lacked what the warehouse has"
        else:
            warehouse.execute(
                "update datops.streams set timeline = %s where stream_id = %s",
                (None if in_recovery else timeline, entry.stream_id),
            )
    if reason is not None:
        _refuse(warehouse, entry, stream, reason)


def _require_standby(stream: ChangeStream, entry: StreamEntry, slot: SlotState | None, place: int) -> None:
    """Hold that a standby is the server that the stream was begun on, and that it has come as far as the warehouse.

    raises     SourceRefusedError: it has another slot, or none. Nothing is entered: the right server may have it.
               SourceUnreachableError: it was started anew and reads its log once more
    """
    if slot is None:
        raise SourceRefusedError(
            f"the standby has no slot {stream.slot}, and a slot stays on the server that it was made on; name that one"
            f" in the `source:`, or copy the tables anew from here: datops cdc resync {stream.source}"
        )
    if slot.is_copy:
        raise copy_of_the_primarys(stream.slot)
    if place < entry.applied_lsn:
        raise SourceUnreachableError(
            f"the standby is at {format_lsn(place)}, before the warehouse's {entry.applied}; it replays its log,"
            " try again"
        )


def _refuse(
    warehouse: psycopg.Connection[Any], entry: StreamEntry, stream: ChangeStream, reason: str
) -> None:
    require_resync(warehouse, entry.stream_id, reason)
    raise SourceRefusedError(
        f"{stream.source} cannot go on: {reason}; changes may be missing, so copy the tables anew:"
        f" datops cdc resync {stream.source}"
    )
