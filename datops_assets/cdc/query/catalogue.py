"""Where a stream by queries is: its entry, and those of its tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from datops_assets.cdc.query.declared import QueriedTable
from datops_assets.cdc.query.tables import ComparedTable
from datops_assets.errors import SourceRefusedError
from datops_assets.postgres.lsn import format_lsn
from datops_assets.postgres.tables import table_id


@dataclass(frozen=True)
class QueryEntry:
    """One row of `datops.streams`."""

    stream_id: int
    source: str
    capture: str
    state: str
    reason: str | None
    looks: int
    changes: int
    updated_at: datetime


@dataclass(frozen=True)
class TableEntry:
    """What is remembered of a table: the place that commits with its rows."""

    name: str
    look: int | None
    """The last one whose changes are in the log."""
    cursor: str | None
    """The column that the watermark is of."""
    watermark: str | None
    looked_at: datetime
    compared_at: datetime | None
    rows_read: int


_FIND: LiteralString = """
select stream_id, source, capture, state, reason, looks, changes, updated_at from datops.streams where source = %s
"""
_TABLES: LiteralString = """
select t.name, s.look, s.cursor, s.watermark, s.looked_at, s.compared_at, s.rows_read
  from datops.stream_tables s join datops.tables t using (table_id) where s.stream_id = %s and s.looked_at is not null
"""
_ENTER_TABLE: LiteralString = """
insert into datops.stream_tables
  (stream_id, table_id, schema_name, table_name, columns, snapshot_rows, look, cursor, watermark, looked_at,
   compared_at, rows_read, copied_lsn)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
on conflict (stream_id, table_id) do update set schema_name = excluded.schema_name, table_name = excluded.table_name,
  columns = excluded.columns, snapshot_rows = coalesce(excluded.snapshot_rows, datops.stream_tables.snapshot_rows),
  look = excluded.look, cursor = excluded.cursor, watermark = excluded.watermark, looked_at = excluded.looked_at,
  compared_at = coalesce(excluded.compared_at, datops.stream_tables.compared_at), rows_read = excluded.rows_read,
  copied_lsn = coalesce(excluded.copied_lsn, datops.stream_tables.copied_lsn)
"""


def find_entry(conn: psycopg.Connection[Any], source: str) -> QueryEntry | None:
    """Return a stream's entry; None before its first snapshot.

    raises     SourceRefusedError: it is followed through its log
    """
    with conn.cursor(row_factory=class_row(QueryEntry)) as cursor:
        entry = cursor.execute(_FIND, (source,)).fetchone()
    if entry is not None and entry.capture != "query":
        raise SourceRefusedError(
            f"{source} is followed through its log; end that first, with the document as it was:"
            f" datops cdc stop {source}"
        )
    return entry


def enter_stream(conn: psycopg.Connection[Any], source: str) -> QueryEntry:
    """Return a stream's entry, made on first use, as one whose snapshot has begun."""
    find_entry(conn, source)
    conn.execute(
        "insert into datops.streams (source, capture, state) values (%s, 'query', 'snapshot')"
        " on conflict (source) do update set state = 'snapshot', reason = null, changes = 0,"
        " updated_at = clock_timestamp()",
        (source,),
    )
    entry = find_entry(conn, source)
    assert entry is not None
    return entry


def next_look(conn: psycopg.Connection[Any], stream_id: int) -> tuple[int, datetime]:
    """Number and time of a look that begins; the time is the warehouse's."""
    row = conn.execute(
        "update datops.streams set looks = looks + 1 where stream_id = %s returning looks, clock_timestamp()",
        (stream_id,),
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def known_tables(conn: psycopg.Connection[Any], stream_id: int) -> dict[str, TableEntry]:
    """What is remembered of a stream's tables, by name."""
    with conn.cursor(row_factory=class_row(TableEntry)) as cursor:
        return {entry.name: entry for entry in cursor.execute(_TABLES, (stream_id,))}


def enter_table(
    conn: psycopg.Connection[Any],
    entry: QueryEntry,
    one: QueriedTable,
    table: ComparedTable,
    seen: TableEntry,
    snapshot_rows: int | None = None,
    copied: int | None = None,
) -> None:
    """Remember how far a table was looked at, in the transaction of its rows.

    copied     the look that copied it whole, kept as an LSN; None: as it was
    """
    columns = [{"name": name, "type": table.types[name], "key": name in table.key} for name in table.names]
    conn.execute(
        _ENTER_TABLE,
        (
            entry.stream_id, table_id(conn, entry.source, one.name), one.schema, one.table, Jsonb(columns),
            snapshot_rows, seen.look, seen.cursor, seen.watermark, seen.looked_at, seen.compared_at, seen.rows_read,
            None if copied is None else format_lsn(copied),
        ),
    )  # fmt: skip


def set_state(conn: psycopg.Connection[Any], stream_id: int, state: str, reason: str | None = None) -> None:
    """Enter where a stream is."""
    conn.execute(
        "update datops.streams set state = %s, reason = %s, updated_at = clock_timestamp() where stream_id = %s",
        (state, reason, stream_id),
    )


def count_changes(conn: psycopg.Connection[Any], stream_id: int, changes: int) -> None:
    """Add to the changes since the snapshot, in the transaction of their rows."""
    conn.execute(
        "update datops.streams set changes = changes + %s, updated_at = clock_timestamp() where stream_id = %s",
        (changes, stream_id),
    )
