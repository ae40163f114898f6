"""Looks at the tables of a stream: the first copy, and then again and again what differs.

Belongs here: which rows are asked for, in which order, and what commits together. Does not: how they are compared
(compare), how a source is read (ingestion, by the interface of declared).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import psycopg
from psycopg import sql

from datops_assets.cdc.deletes import deleted_kept, follow_declared
from datops_assets.cdc.drain import Drained
from datops_assets.cdc.history import copied_anew, tell_history
from datops_assets.cdc.query.catalogue import (
    QueryEntry,
    TableEntry,
    count_changes,
    enter_stream,
    enter_table,
    find_entry,
    known_tables,
    next_look,
    set_state,
)
from datops_assets.cdc.query.compare import (
    Place,
    apply_stage,
    count_rows,
    fill_mirror,
    mirror_summaries,
    set_session,
)
from datops_assets.cdc.query.declared import HashingLook, Look, QueriedTable, QueryStream
from datops_assets.cdc.query.tables import (
    ComparedTable,
    KeyChangedError,
    compared_table,
    create_tables,
    follow_columns,
)
from datops_assets.errors import SourceRefusedError
from datops_assets.postgres import failpoints
from datops_assets.postgres.lsn import format_lsn
from datops_assets.postgres.row_hash import Buckets, differing

Connect = Callable[[], psycopg.Connection[Any]]
"""Opens one more connection to the warehouse."""

_ROWS_IN_BUCKET = 64
_MOST_BUCKETS = 1 << 16
"""Their hashes are kept in memory, of both sides: about 20 MB."""
_MOST_FETCHED = 0.5
"""Where more of the buckets differ than this, all rows are read: finding out which costs more than they do."""


@dataclass
class Looked(Drained):
    """What one look at all tables did; `applied` is its number and `transactions` stays 0."""

    rows_read: dict[str, int] = field(default_factory=dict)
    """Rows that came from the source, per table of the stream."""
    compared: list[str] = field(default_factory=list)
    """Tables whose keys or rows were compared."""


def take_snapshot(
    warehouse: psycopg.Connection[Any], connect: Connect, stream: QueryStream
) -> dict[str, int]:
    """Copy every table as it is now; what was there of the stream before is replaced.

    warehouse   autocommit; holds the stream's lease
    returns     rows per table
    raises      SourceUnreachableError, SourceRefusedError: the stream stays `snapshot`, half way
    promise     each table is of one moment of the source; killed at any moment, the next call begins anew
    """
    entry = enter_stream(warehouse, stream.source)
    known = known_tables(warehouse, entry.stream_id)
    for one in stream.tables:
        if one.history and one.name in known:  # what the log says until here is lost with it
            tell_history(warehouse, stream.source, one.name, dict(one.rename))
    warehouse.execute("delete from datops.stream_tables where stream_id = %s", (entry.stream_id,))
    failpoints.hit("snapshot_begun")
    rows = {one.name: _copy_first(warehouse, connect, entry, one) for one in stream.tables}
    set_state(warehouse, entry.stream_id, "streaming")
    failpoints.hit("snapshot_entered")
    return rows


def drain(warehouse: psycopg.Connection[Any], connect: Connect, stream: QueryStream) -> Looked:
    """Look at every table once, and bring mirror and log to what it is.

    warehouse   autocommit; holds the stream's lease
    raises      SourceUnreachableError, SourceRefusedError: the tables that were looked at by then stay
    promise     a table's changes, its mirror and its place commit together
    """
    started = time.monotonic()
    entry = find_entry(warehouse, stream.source)
    if entry is None or entry.state in ("new", "snapshot"):
        raise SourceRefusedError(f"{stream.source} has no snapshot yet: datops cdc snapshot {stream.source}")
    if entry.state == "resync_required":
        raise _needs_resync(stream.source, entry.reason or "")
    known = known_tables(warehouse, entry.stream_id)
    number, _ = next_look(warehouse, entry.stream_id)
    done = Looked(applied=f"look {number}")
    for one in stream.tables:
        if one.name in known:
            _look_again(warehouse, connect, stream, entry, one, known[one.name], number, done)
        else:
            _copy_first(warehouse, connect, entry, one)
            done.copied.append(one.name)
    done.seconds = time.monotonic() - started
    return done


def end_stream(warehouse: psycopg.Connection[Any], source: str) -> None:
    """Forget a stream; bronze keeps its tables, and the source has nothing of it."""
    if find_entry(warehouse, source) is not None:
        warehouse.execute("delete from datops.streams where source = %s", (source,))


def _needs_resync(source: str, reason: str) -> SourceRefusedError:
    return SourceRefusedError(
        f"{source} cannot go on: {reason}; copy the tables anew: datops cdc resync {source}"
    )


def _copy_first(
    warehouse: psycopg.Connection[Any], connect: Connect, entry: QueryEntry, one: QueriedTable
) -> int:
    number, seen_at = next_look(warehouse, entry.stream_id)
    with one.look() as look:
        table = compared_table(warehouse, entry.source, one, look)
        watermark = look.highest() if one.cursor else None
        with _Stages(connect, table) as stages:
            stage = stages.fill(look.copy_rows)
            with warehouse.transaction():
                with _kept(warehouse, entry.source, one, number):
                    create_tables(warehouse, table)
                    rows = fill_mirror(warehouse, table, stage)
                seen = TableEntry(one.name, number, one.cursor, watermark, seen_at, seen_at, look.rows_read)
                enter_table(warehouse, entry, one, table, seen, rows, number)
                failpoints.hit("before_commit")
            failpoints.hit("table_copied")
    return rows


@contextmanager
def _kept(warehouse: psycopg.Connection[Any], source: str, one: QueriedTable, number: int) -> Iterator[None]:
    """Copy a table anew inside this: its history goes on, and rows that are gone stay where deletes are soft."""
    with ExitStack() as kept:
        if one.history:
            point = format_lsn(number)
            kept.enter_context(
                copied_anew(warehouse, source, one.name, dict(one.rename), point, by_looks=True)
            )
        kept.enter_context(
            deleted_kept(warehouse, source, one.name, soft=one.keeps_deleted, by="look", place=str(number))
        )
        yield


def _look_again(
    warehouse: psycopg.Connection[Any],
    connect: Connect,
    stream: QueryStream,
    entry: QueryEntry,
    one: QueriedTable,
    known: TableEntry,
    number: int,
    done: Looked,
) -> None:
    (seen_at,) = warehouse.execute("select clock_timestamp()").fetchone() or (known.looked_at,)
    due = known.compared_at is None or seen_at - known.compared_at >= timedelta(
        seconds=stream.compare_every_s
    )
    with one.look() as look:
        watermark = look.highest() if one.cursor else None
        table = compared_table(warehouse, stream.source, one, look)
        try:
            # The stages outlive the transaction that reads them: who drops a table waits for its readers.
            with _Stages(connect, table) as stages, warehouse.transaction():
                set_session(warehouse)
                follow_declared(warehouse, stream.source, one.name, soft=one.keeps_deleted, by="look")
                table, new = follow_columns(warehouse, table, number)
                compares = (one.compare != "never" and due) or bool(new)
                comparison = _Comparison(warehouse, stages, look, table, Place(number, seen_at))
                if new:
                    comparison.of_everything()
                else:
                    comparison.of_news(one, known, compares=compares)
                compared_at = seen_at if compares else None
                seen = TableEntry(
                    one.name, number, one.cursor, watermark, seen_at, compared_at, look.rows_read
                )
                enter_table(warehouse, entry, one, table, seen)
                count_changes(warehouse, entry.stream_id, comparison.changes)
                failpoints.hit("before_commit")
        except KeyChangedError:
            reason = f"{one.label} has another key than the one it was copied with"
            set_state(warehouse, entry.stream_id, "resync_required", reason)
            raise _needs_resync(stream.source, reason) from None
    failpoints.hit("table_looked_at")
    done.rows_read[one.name] = look.rows_read
    if comparison.changes:
        done.tables[one.name] = comparison.changes
        done.changes += comparison.changes
    if compares:
        done.compared.append(one.name)
    if new:
        done.columns_added[one.name] = new


class _Comparison:
    """One look's rows against the mirror, inside the transaction that brings the mirror to them."""

    def __init__(
        self,
        warehouse: psycopg.Connection[Any],
        stages: _Stages,
        look: Look,
        table: ComparedTable,
        place: Place,
    ) -> None:
        self.changes = 0
        self._warehouse = warehouse
        self._stages = stages
        self._look = look
        self._table = table
        self._place = place

    def of_news(self, one: QueriedTable, known: TableEntry, *, compares: bool) -> None:
        """Read what the cursor says is new; then, where a comparison is due, what differs all the same."""
        if one.cursor is not None and (known.cursor != one.cursor or known.watermark is None):
            self.of_everything()
            return
        if known.watermark is not None and one.cursor is not None:
            watermark = known.watermark
            self._apply(lambda conn, stage: self._look.copy_since(conn, stage, watermark), "nothing")
        if not compares:
            return
        names = self._table.names if one.compare == "rows" else None
        printed = [*self._table.key, *(names or [])]
        if isinstance(self._look, HashingLook) and self._table.texts(printed) is not None:
            self._of_buckets(self._look, names)
        else:
            self.of_everything()

    def of_everything(self) -> None:
        """Read all rows."""
        self._apply(self._look.copy_rows, "everything")

    def _of_buckets(self, look: HashingLook, names: list[str] | None) -> None:
        """Hash on both sides, and read the rows of the buckets that differ.

        names      the columns that are hashed; None: the key alone
        """
        key = self._table.key
        rows = count_rows(self._warehouse, self._table)
        count = min(_MOST_BUCKETS, 1 << max(rows // _ROWS_IN_BUCKET, 1).bit_length())
        with ThreadPoolExecutor(1) as pool:  # each server hashes while the other one does
            theirs = pool.submit(look.summaries, key, names, count)
            ours = mirror_summaries(self._warehouse, self._table, names, count)
        numbers = differing(theirs.result(), ours)
        failpoints.hit("compared")
        if len(numbers) > count * _MOST_FETCHED:
            self.of_everything()
        elif numbers:
            buckets = Buckets(count, tuple(numbers))
            self._apply(lambda conn, stage: look.copy_buckets(conn, stage, key, buckets), buckets)

    def _apply(self, copy: _Copy, complete: Buckets | Literal["everything", "nothing"]) -> None:
        stage = self._stages.fill(copy)
        self.changes += apply_stage(self._warehouse, self._table, stage, self._place, self.changes, complete)
        failpoints.hit("applied")


_Copy = Callable[[psycopg.Connection[Any], sql.Identifier], int]


class _Stages:
    """Where rows of the source wait to be compared: tables that are committed, for whoever writes them."""

    def __init__(self, connect: Connect, table: ComparedTable) -> None:
        self._connect = connect
        self._table = table
        self._conn: psycopg.Connection[Any] | None = None
        self._made: list[sql.Identifier] = []

    def fill(self, copy: _Copy) -> sql.Identifier:
        """Let rows be copied into a new one."""
        if self._conn is None:
            self._conn = self._connect()
        stage = sql.Identifier("datops", f"look_{self._table.mirror._obj[-1]}_{len(self._made)}")
        self._made.append(stage)
        self._conn.execute(sql.SQL("drop table if exists {}").format(stage))  # of a look that was killed
        columns = [
            sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.sent))
            for column in self._table.columns
        ]
        self._conn.execute(
            sql.SQL("create unlogged table {} ({})").format(stage, sql.SQL(", ").join(columns))
        )
        copy(self._conn, stage)
        failpoints.hit("table_read")
        return stage

    def __enter__(self) -> _Stages:
        return self

    def __exit__(self, *_: object) -> None:
        if self._conn is None:
            return
        with closing(self._conn) as conn:
            for stage in self._made:
                conn.execute(sql.SQL("drop table if exists {}").format(stage))
