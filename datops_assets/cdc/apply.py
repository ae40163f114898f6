"""A batch of whole transactions into the warehouse: the log by COPY, then the mirror from the log.

Of a table that keeps no log its changes go into a temporary table in the log's place, from which they are gone once
they are in the mirror.

Belongs here: what is written, in the caller's one transaction, and in which order. Does not: the statements that
bring a mirror to where its log is (mirror.py), where the changes come from (replication.py), when a batch ends
(following.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.cdc import marked, mirror
from datops_assets.cdc.bronze import FollowedTable, identifiers
from datops_assets.cdc.mirror import Place
from datops_assets.cdc.splice import BinaryRows, Numbering, Rows, TextRows

_SIMPLE = {"i", "u", "d"}
"""Kinds of change that say by themselves what becomes of one key."""
_LIVING = {"i", "u"}
"""Kinds of change that mark no row."""
_TAKEN_TO_REPEAT = 8
"""Merges for which a table whose keys came more than once is not taken to have each key once: a vain try costs as
much as it could have saved."""


@dataclass
class Batch:
    """Changes of one table that are not in the mirror yet."""

    table: FollowedTable
    rows: Rows
    since: Place
    """Changes after this place are to be merged; those before it are in the mirror."""
    repeats_keys: int = 0
    """For how many merges more it is taken that a key comes more than once, because it just did."""
    copied: int = 0
    """Rows that are in the log already, in the open transaction."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to merge."""
        return self.rows.is_empty and self.copied == 0


def begin(conn: psycopg.Connection[Any]) -> None:
    """Begin the transaction of a batch: what is new is a small end of the log, and few rows of the mirror.

    The planner takes a third of both, having no statistics of rows that were just written, and would read them whole
    for each batch: catching up would cost the square of what is to be caught up.
    """
    conn.execute("begin")
    conn.execute(
        "select set_config(name, 'off', true) from unnest(array['enable_seqscan', 'enable_hashjoin',"
        " 'enable_mergejoin', 'jit']) as name"
    )


def new_rows(table: FollowedTable, numbering: Numbering, *, binary: bool) -> Rows:
    """Rows in the form that the stream sends."""
    return (BinaryRows if binary else TextRows)(len(table.columns), numbering)


def copy_rows(conn: psycopg.Connection[Any], batch: Batch) -> None:
    """Write the collected rows into the log; they are merged later."""
    if batch.rows.is_empty or _inserted(conn, batch):
        return
    statement = sql.SQL("copy {} ({}) from stdin (format {})").format(
        batch.table.changes, sql.SQL(", ").join(batch.table.log_columns), sql.SQL(batch.rows.format)
    )
    batch.copied += batch.rows.count
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for piece in batch.rows.take():
            copy.write(piece)


def _inserted(conn: psycopg.Connection[Any], batch: Batch) -> bool:
    """Copy rows straight into the mirror where no log is kept, all are new, and nothing waits to be merged before them.

    returns    False: nothing was written, and they go the other way. So also where a key is there already.
    """
    table, rows = batch.table, batch.rows
    if table.is_logged or batch.copied or not isinstance(rows, BinaryRows) or rows.first <= batch.since:
        return False
    pieces = rows.inserts()
    if pieces is None:
        return False
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        table.mirror, identifiers([column.name for column in table.columns])
    )
    try:
        with conn.transaction(), conn.cursor() as cursor, cursor.copy(statement) as copy:
            for piece in pieces:
                copy.write(piece)
    except psycopg.errors.UniqueViolation:
        return False
    rows.let_go()
    _merged(batch)
    return True


def merge(conn: psycopg.Connection[Any], batch: Batch) -> None:
    """Bring the mirror to where the log is, and remember that."""
    copy_rows(conn, batch)
    if batch.copied == 0:
        return
    table, rows = batch.table, batch.rows
    if rows.last <= batch.since:  # the mirror was copied anew and is ahead of the log
        pass
    elif table.marks is not None and (
        rows.has_unchanged or batch.repeats_keys or not rows.ops.keys() <= _LIVING
    ):
        batch.repeats_keys = max(0, batch.repeats_keys - 1)
        marked.merge(conn, table, batch.since, with_holes=rows.has_unchanged)
    elif rows.has_unchanged:
        mirror.merge_with_holes(conn, table, batch.since)
    elif batch.repeats_keys or not rows.ops.keys() <= _SIMPLE:
        batch.repeats_keys = max(0, batch.repeats_keys - 1)
        mirror.merge_latest(conn, table, batch.since)
    elif not mirror.merge_once_each(conn, table, batch.since, rows.ops):
        batch.repeats_keys = _TAKEN_TO_REPEAT
        if table.marks is not None:
            marked.merge(conn, table, batch.since, with_holes=False)
        else:
            mirror.merge_latest(conn, table, batch.since)
    _merged(batch)


def empty(conn: psycopg.Connection[Any], batch: Batch) -> None:
    """Empty the mirror for a TRUNCATE; what was to be merged before it need not be, unless its rows stay, marked."""
    copy_rows(conn, batch)
    if batch.rows.last > batch.since:
        if batch.table.marks is not None:
            at, with_holes = batch.rows.last, batch.rows.has_unchanged
            marked.empty(conn, batch.table, batch.since, at, with_holes=with_holes)
        else:
            mirror.empty(conn, batch.table)
    _merged(batch)
    _unstage(conn, batch.table)


def move_key(conn: psycopg.Connection[Any], batch: Batch, at: Place) -> None:
    """Apply one update that changed the key and left out values; all before it is merged.

    at         where the log has the old key (op k); the row (op u) is right after it
    """
    copy_rows(conn, batch)
    if at > batch.since:  # else the mirror was copied anew and is ahead of the log
        (mirror if batch.table.marks is None else marked).move_key(conn, batch.table, at)
    _merged(batch)
    _unstage(conn, batch.table)


def _unstage(conn: psycopg.Connection[Any], table: FollowedTable) -> None:
    """Let go of what is merged in the middle of a batch: each later merge would read it once more."""
    if not table.is_logged:
        conn.execute(sql.SQL("truncate {}").format(table.changes))


def _merged(batch: Batch) -> None:
    batch.since, batch.copied = max(batch.since, batch.rows.last), 0
    batch.rows.has_unchanged = False
    batch.rows.ops.clear()
