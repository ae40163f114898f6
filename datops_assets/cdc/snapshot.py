"""The first copy of all tables, from the very place where the slot begins: no gap, no double, no lock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from datops_assets.cdc.bronze import (
    FollowedTable,
    create_tables,
    identifiers,
    kept_logs,
    prefix_for,
    renew_mirror,
    renew_tables,
)
from datops_assets.cdc.deletes import deleted_kept
from datops_assets.cdc.history import copied_anew, tell_history
from datops_assets.cdc.replication import explained, replication_connection, session
from datops_assets.cdc.schema import files_of, rows_came_or_went
from datops_assets.cdc.slots import create_slot, drop_slot
from datops_assets.cdc.source import SourceTable, partitions_of, reached, read_server, read_tables, unfit
from datops_assets.cdc.splice import META_COLUMNS
from datops_assets.cdc.streams import ChangeStream, StreamedTable, StreamEntry, enter_stream, names_of
from datops_assets.errors import SourceRefusedError, SourceUnreachableError
from datops_assets.postgres import failpoints
from datops_assets.postgres.lsn import format_lsn
from datops_assets.postgres.tables import table_id

_CHUNK_BYTES = 1 << 18
_OURS = "made by datops"
_MOST_COLUMNS = 1600 - len(META_COLUMNS)
_AT_ONCE = 2
"""Tables copied side by side: one core reads, one writes."""

Connect = Callable[[], psycopg.Connection[Any]]
"""Opens one more connection to the warehouse."""


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot copied."""

    lsn: str
    rows: dict[str, int]
    """Per table of the stream."""


def take_snapshot(
    warehouse: psycopg.Connection[Any], connect: Connect, parameters: dict[str, Any], stream: ChangeStream
) -> Snapshot:
    """Copy every table as it is where a new slot begins; what was there of the stream before is replaced.

    warehouse   autocommit; holds the stream's lease
    parameters  of the source, by libpq's names
    raises      SourceUnreachableError, SourceRefusedError: the stream is as before, or `snapshot` half way
    promise     killed at any moment, the next call begins anew; the slot of the failed try is dropped
    """
    entry = enter_stream(warehouse, stream)
    for one in stream.tables:
        if one.history and kept_logs(warehouse, stream.source, [one.name]):  # what it says is lost with it
            tell_history(warehouse, stream.source, one.name, dict(one.rename))
    with closing(connect_source(parameters)) as source:
        drop_slot(source, stream.slot)
        server = read_server(source)
        ensure_publication(source, stream)
        tables = _described(source, stream)
    # A standby's slot never leaves it, so no other server can go on with it that has less; and what it replays may
    # pass to another timeline while it is followed.
    timeline = None if server.in_recovery else server.timeline
    warehouse.execute(
        "update datops.streams set state = 'snapshot', reason = null, slot = %s, publication = %s, applied_lsn = null,"
        " system_identifier = %s, timeline = %s, changes = 0, updated_at = clock_timestamp() where stream_id = %s",
        (stream.slot, stream.publication, server.system_identifier, timeline, entry.stream_id),
    )
    failpoints.hit("snapshot_begun")
    with replication_connection(parameters) as keeper:
        slot = create_slot(keeper, stream.slot)
        failpoints.hit("slot_made")
        followed = [(one, follow(stream.source, one, tables[one])) for one in stream.tables]
        point = format_lsn(slot.consistent_point)
        rows = _copy_all(connect, parameters, slot.snapshot, point, followed, tables)
    _enter(warehouse, entry, point, stream, tables, rows)
    failpoints.hit("snapshot_entered")
    return Snapshot(point, {one.name: rows[one] for one in stream.tables})


def end_stream(warehouse: psycopg.Connection[Any], parameters: dict[str, Any], stream: ChangeStream) -> None:
    """Drop slot and publication in the source and forget the stream; bronze keeps its tables.

    A publication that somebody else made stays; so does one whose primary a standby only copies.

    raises      SourceUnreachableError, SourceRefusedError: nothing is forgotten
    """
    with closing(connect_source(parameters)) as source:
        drop_slot(source, stream.slot)
        ours = source.execute(
            "select 1 from pg_publication where pubname = %s and obj_description(oid, 'pg_publication') = %s",
            (stream.publication, _OURS),
        ).fetchone()
        if ours and not reached(source)[0]:
            source.execute(sql.SQL("drop publication {}").format(sql.Identifier(stream.publication)))
    warehouse.execute("delete from datops.streams where source = %s", (stream.source,))


def connect_source(parameters: dict[str, Any]) -> psycopg.Connection[Any]:
    """Open a plain connection to the source.

    raises     SourceUnreachableError, SourceRefusedError
    """
    try:
        return psycopg.connect(**{**session(parameters), "autocommit": True})
    except psycopg.OperationalError as error:
        raise explained(error, parameters) from None


def ensure_publication(source: psycopg.Connection[Any], stream: ChangeStream) -> None:
    """Make the publication, or let it publish every table of the stream.

    raises     SourceRefusedError: the role may not, with the statement for whoever may
    promise    one that somebody else made keeps its tables, columns, filters and settings
    """
    found = _all_found(source, stream).values()
    for table in found:
        if not table.key:
            raise _keyless(table)  # before it is published: the source would refuse its updates from then on
        if table.is_partitioned and not table.via_root:
            raise SourceRefusedError(
                f"the publication {stream.publication} sends the rows of {table.label} as its partitions'; on the"
                f" source: alter publication {stream.publication} set (publish_via_partition_root = true)"
            )
    if all(table.published for table in found):
        return
    there = source.execute(
        "select 1 from pg_publication where pubname = %s", (stream.publication,)
    ).fetchone()
    missing = {(table.schema, table.name) for table in found if not table.published}
    statement = publication_statement(stream, missing if there else None)
    if reached(source)[0]:
        raise SourceRefusedError(
            f"the publication {stream.publication} does not publish all tables, and a standby cannot change that;"
            f" let the tables' owner run on the primary: {statement.as_string(source)}"
        )
    try:
        source.execute(statement)
        if not there:
            source.execute(
                sql.SQL("comment on publication {} is {}").format(
                    sql.Identifier(stream.publication), sql.Literal(_OURS)
                )
            )
    except psycopg.Error as error:
        raise SourceRefusedError(
            f"the publication {stream.publication} does not publish all tables, and the role may not change it"
            f" (SQLSTATE {error.sqlstate}); let the tables' owner run: {statement.as_string(source)}"
        ) from None


def publication_statement(stream: ChangeStream, missing: Collection[tuple[str, str]] | None) -> sql.Composed:
    """The statement after which the publication has all of the stream's tables.

    missing    (schema, name) of the tables that it lacks; None: there is no such publication
    """
    wanted = [where for where in names_of(stream.tables) if missing is None or where in missing]
    # ONLY: children by inheritance may have no key, and once published the source would refuse their updates.
    tables = sql.SQL(", ").join(sql.SQL("only {}").format(sql.Identifier(*where)) for where in wanted)
    name = sql.Identifier(stream.publication)
    if missing is not None:
        return sql.SQL("alter publication {} add table {}").format(name, tables)
    # The rows of all partitions arrive as their root's, as the snapshot reads them.
    return sql.SQL("create publication {} for table {} with (publish_via_partition_root = true)").format(
        name, tables
    )


def follow(source: str, one: StreamedTable, table: SourceTable) -> FollowedTable:
    """A source table as the warehouse follows it.

    raises     SourceRefusedError: nothing tells its rows apart
    """
    if not table.key:
        raise _keyless(table)
    if len(table.columns) > _MOST_COLUMNS:
        raise SourceRefusedError(
            f"{table.label} has {len(table.columns)} columns, and its log has room for {_MOST_COLUMNS} beside its own;"
            " publish fewer: create publication … for table … (column, column)"
        )
    prefix = prefix_for([column.name for column in table.columns])
    return FollowedTable(source, one.name, table.columns, prefix, one.is_logged)


def _keyless(table: SourceTable) -> SourceRefusedError:
    if table.identity == "n":
        return SourceRefusedError(
            f"{table.label} has replica identity nothing: once published, the source would refuse its updates;"
            f" on the source: alter table {table.label} replica identity default"
        )
    return SourceRefusedError(
        f"{table.label} has no key to tell its rows apart; give it a primary key, or on the source:"
        f" alter table {table.label} replica identity using index <a unique one of columns that are not null>"
    )


def _described(source: psycopg.Connection[Any], stream: ChangeStream) -> dict[StreamedTable, SourceTable]:
    found = _all_found(source, stream)
    return {one: found[one.schema, one.table] for one in stream.tables}


def _all_found(source: psycopg.Connection[Any], stream: ChangeStream) -> dict[tuple[str, str], SourceTable]:
    """What the source says of every table of a stream.

    raises     SourceRefusedError: one is not there, or has no changes in the log
    """
    names = names_of(stream.tables)
    found = read_tables(source, stream.publication, names)
    missing = [one for one in stream.tables if (one.schema, one.table) not in found]
    for one in missing:
        why = unfit(source, names).get((one.schema, one.table))
        if why is not None:
            raise SourceRefusedError(f"{one.label} {why}")
    if missing:
        raise _missing([one.label for one in missing])
    return found


def _missing(labels: Sequence[str]) -> SourceRefusedError:
    return SourceRefusedError(
        f"the source has no table {', '.join(labels)}, or the role may not see it; correct the stream's `tables:`"
    )


def _copy_all(
    connect: Connect,
    parameters: dict[str, Any],
    snapshot: str,
    point: str,
    followed: list[tuple[StreamedTable, FollowedTable]],
    tables: dict[StreamedTable, SourceTable],
) -> dict[StreamedTable, int]:
    def copy(one: StreamedTable, target: FollowedTable) -> int:
        with closing(connect()) as conn, conn.transaction(), _kept(conn, target, one, point):
            renew_tables(conn, target)
            return _copy_from(parameters, conn, snapshot, tables[one], target)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = {one: pool.submit(copy, one, target) for one, target in followed}
        return {one: future.result() for one, future in running.items()}


def copy_tables(
    warehouse: psycopg.Connection[Any],
    parameters: dict[str, Any],
    stream: ChangeStream,
    entry: StreamEntry,
    wanted: Sequence[StreamedTable],
) -> str:
    """Copy some tables of a stream that runs, each as it is at one later place in the log; returns that place.

    Until the stream gets there, their changes go into their logs, and not into their mirrors. The other tables
    are not touched: a slot of its own, which ends here, says which place the copy shows.

    raises     SourceUnreachableError, SourceRefusedError: each table is as before, or copied whole
    """
    with closing(connect_source(parameters)) as source:
        ensure_publication(source, stream)
    with replication_connection(parameters) as keeper:
        slot = create_slot(keeper, f"{stream.slot[:50]}_copy", temporary=True)
        with closing(connect_source(parameters)) as source:
            found = read_tables(source, stream.publication, names_of(wanted))
        point = format_lsn(slot.consistent_point)
        for one in wanted:
            table = found.get((one.schema, one.table))
            if table is None:
                raise _missing([one.label])
            target = follow(stream.source, one, table)
            with warehouse.transaction(), _kept(warehouse, target, one, point):
                renew_mirror(warehouse, target)
                rows = _copy_from(parameters, warehouse, slot.snapshot, table, target)
                enter_table(warehouse, entry.stream_id, stream.source, one, table, rows, point)
                warehouse.execute(
                    "update datops.stream_tables set frozen = null, accepted = false where table_id = %s",
                    (table_id(warehouse, stream.source, one.name),),
                )
            failpoints.hit("table_renewed")
    return point


@contextmanager
def _kept(
    conn: psycopg.Connection[Any], target: FollowedTable, one: StreamedTable, point: str
) -> Iterator[None]:
    """Make a mirror anew inside this: its history goes on, and rows that are gone stay where deletes are soft."""
    with ExitStack() as kept:
        if one.history:
            create_tables(
                conn, target
            )  # a log that was not kept until now has nothing to tell, and is asked all the same
            kept.enter_context(copied_anew(conn, target.source, one.name, dict(one.rename), point))
        kept.enter_context(
            deleted_kept(conn, target.source, one.name, soft=one.keeps_deleted, by="lsn", place=point)
        )
        yield


def _copy_from(
    parameters: dict[str, Any],
    conn: psycopg.Connection[Any],
    snapshot: str,
    table: SourceTable,
    target: FollowedTable,
) -> int:
    with closing(connect_source(parameters)) as source:
        try:
            return _copy_table(source, conn, snapshot, table, target)
        except psycopg.OperationalError as error:
            if source.broken:
                raise explained(error, parameters) from None
            if _was_cancelled_by_replay(source, error):
                raise SourceUnreachableError(
                    f"the standby cancelled the copy of {table.label}, which was in the way of its log; try again, with"
                    " hot_standby_feedback = on or a longer max_standby_streaming_delay there"
                ) from None
            raise
        except psycopg.errors.InsufficientPrivilege as error:
            if source.info.transaction_status != psycopg.pq.TransactionStatus.INERROR:
                raise  # of the warehouse
            raise _unreadable(table, "row-level security" in str(error), parameters) from None


def _was_cancelled_by_replay(source: psycopg.Connection[Any], error: psycopg.Error) -> bool:
    return (
        isinstance(error, psycopg.errors.SerializationFailure)
        and source.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
    )


def _unreadable(table: SourceTable, by_policy: bool, parameters: dict[str, Any]) -> SourceRefusedError:
    role = parameters.get("user")
    if by_policy:
        return SourceRefusedError(
            f"row level security hides rows of {table.label} from {role}, so a copy would lack them;"
            f" on the source: alter role {role} bypassrls"
        )
    return SourceRefusedError(
        f"{role} may not read {table.label}; on the source: grant select on {table.label} to {role}"
    )


def _copy_table(
    source: psycopg.Connection[Any],
    conn: psycopg.Connection[Any],
    snapshot: str,
    table: SourceTable,
    target: FollowedTable,
) -> int:
    """Copy one table as the snapshot shows it into its empty mirror."""
    # A type of the source's own goes as text; everything else as the bytes it is.
    selected = sql.SQL(", ").join(
        sql.SQL("{}::text").format(sql.Identifier(column.name))
        if column.type == "text"
        else sql.Identifier(column.name)
        for column in table.columns
    )
    # The filter is the source's own text of its own publication, as its catalogue prints it.
    where = (
        sql.Composed([sql.SQL(" where "), _as_written(table.row_filter)]) if table.row_filter else sql.SQL("")
    )
    reads = sql.SQL("copy (select {} from {}{}{}) to stdout (format binary)").format(
        selected,
        sql.SQL("" if table.is_partitioned else "only "),
        sql.Identifier(table.schema, table.name),
        where,
    )
    writes = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        target.mirror, identifiers([column.name for column in table.columns])
    )
    source.execute("begin isolation level repeatable read read only")
    source.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
    with source.cursor() as reader, conn.cursor() as writer:
        with reader.copy(reads) as out, writer.copy(writes) as into:
            for chunk in _gathered(out):
                into.write(chunk)
        sent, taken = reader.rowcount, writer.rowcount
    failpoints.hit("table_copied")
    # The copy's lock holds it as it is. Written anew since the slot was made, it looks empty to the slot's snapshot.
    file = source.execute("select coalesce(pg_relation_filenode(%s), 0)::bigint", (table.oid,)).fetchone()
    if file != (table.file,) or rows_came_or_went(files_of(table), partitions_of(source, table.oid)):
        raise SourceUnreachableError(
            f"{table.label} was written anew while it was copied (truncate, alter table, vacuum full, a partition);"
            " try again"
        )
    if sent != taken:
        raise SourceRefusedError(f"{table.label}: the source sent {sent} rows, the warehouse took {taken}")
    source.execute("commit")
    return taken


def _as_written(expression: str) -> sql.SQL:
    return sql.SQL(expression)


def _gathered(chunks: Any) -> Any:
    """Put the rows that COPY hands out one by one together to writes worth a call."""
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        parts.append(bytes(chunk))
        size += len(chunk)
        if size >= _CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join(parts)


def _enter(
    warehouse: psycopg.Connection[Any],
    entry: StreamEntry,
    point: str,
    stream: ChangeStream,
    tables: dict[StreamedTable, SourceTable],
    rows: dict[StreamedTable, int],
) -> None:
    with warehouse.transaction():
        warehouse.execute("delete from datops.stream_tables where stream_id = %s", (entry.stream_id,))
        for one in stream.tables:
            enter_table(warehouse, entry.stream_id, stream.source, one, tables[one], rows[one])
        warehouse.execute(
            "update datops.streams set state = 'streaming', snapshot_lsn = %s, applied_lsn = %s,"
            " applied_commit_at = null, updated_at = clock_timestamp() where stream_id = %s",
            (point, point, entry.stream_id),
        )


def enter_table(
    warehouse: psycopg.Connection[Any],
    stream_id: int,
    source: str,
    one: StreamedTable,
    table: SourceTable,
    rows: int | None = None,
    copied: str | None = None,
) -> None:
    """Remember what a table looks like, and up to which place it was copied, in the caller's transaction.

    rows, copied   None: as they were
    """
    columns = [
        {
            "name": c.name, "type": c.type, "key": c.is_key, "binary": c.travels_as_binary,
            "number": table.numbers[c.name], "modifier": table.modifiers[c.name],
        }
        for c in table.columns
    ]  # fmt: skip
    warehouse.execute(
        "insert into datops.stream_tables"
        " (stream_id, table_id, schema_name, table_name, oid, columns, snapshot_rows, copied_lsn, file, partitions)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " on conflict (stream_id, table_id) do update set schema_name = excluded.schema_name,"
        " table_name = excluded.table_name, oid = excluded.oid, columns = excluded.columns, file = excluded.file,"
        " partitions = excluded.partitions,"
        " copied_lsn = coalesce(excluded.copied_lsn, datops.stream_tables.copied_lsn),"
        " snapshot_rows = coalesce(excluded.snapshot_rows, datops.stream_tables.snapshot_rows)",
        (
            stream_id, table_id(warehouse, source, one.name), one.schema, one.table, table.oid, Jsonb(columns), rows,
            copied, table.file, Jsonb(files_of(table)),
        ),
    )  # fmt: skip
