"""Where a stream is: its entry in the catalogue, and who may move it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row

from datops_assets.errors import LockTakenError
from datops_assets.postgres.lsn import parse_lsn


@dataclass(frozen=True)
class StreamedTable:
    """A table that a stream follows, as the document names it."""

    name: str
    """Its name in the warehouse, after the source's."""
    schema: str
    table: str
    """Where it is in the source."""
    history: bool = False
    """Whether each version of its rows is kept in silver."""
    rename: tuple[tuple[str, str], ...] = ()
    """Names of columns there, and in silver; the others become snake_case."""

    frozen: bool = False
    """Whether other columns than those it was copied with stop its mirror, until a person takes them."""
    is_logged: bool = True
    """Whether its changes are kept; else there is the mirror alone."""
    keeps_deleted: bool = False
    """Whether a deleted row stays in the mirror, marked."""

    @property
    def label(self) -> str:
        """The name people use for it in the source."""
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True)
class ChangeStream:
    """What a person declares about one stream."""

    source: str
    slot: str
    publication: str
    tables: tuple[StreamedTable, ...]


@dataclass(frozen=True)
class StreamEntry:
    """One row of `datops.streams`."""

    stream_id: int
    source: str
    slot: str
    publication: str
    state: str
    reason: str | None
    system_identifier: int | None
    timeline: int | None
    snapshot: str | None
    applied: str | None
    applied_commit_at: datetime | None
    changes: int
    updated_at: datetime

    @property
    def applied_lsn(self) -> int:
        """The end of the last transaction that is in the warehouse; 0 before the snapshot."""
        return parse_lsn(self.applied) if self.applied else 0


_FIND: LiteralString = """
select stream_id, source, slot, publication, state, reason, system_identifier, timeline,
       snapshot_lsn::text as snapshot, applied_lsn::text as applied, applied_commit_at, changes, updated_at
  from datops.streams where source = %s
"""


def find_stream(conn: psycopg.Connection[Any], source: str) -> StreamEntry | None:
    """Return a stream's entry; None before its first snapshot."""
    with conn.cursor(row_factory=class_row(StreamEntry)) as cursor:
        return cursor.execute(_FIND, (source,)).fetchone()


def enter_stream(conn: psycopg.Connection[Any], stream: ChangeStream) -> StreamEntry:
    """Return a stream's entry, made on first use."""
    conn.execute(
        "insert into datops.streams (source, slot, publication, state) values (%s, %s, %s, 'new')"
        " on conflict (source) do nothing",
        (stream.source, stream.slot, stream.publication),
    )
    entry = find_stream(conn, stream.source)
    assert entry is not None
    return entry


def require_resync(conn: psycopg.Connection[Any], stream_id: int, reason: str) -> None:
    """Enter that a stream cannot go on by itself; only a person's `datops cdc snapshot` ends it."""
    conn.execute(
        "update datops.streams set state = 'resync_required', reason = %s, updated_at = clock_timestamp()"
        " where stream_id = %s",
        (reason, stream_id),
    )


@contextmanager
def lease(conn: psycopg.Connection[Any], source: str) -> Iterator[None]:
    """Be the only one who moves a stream; the server drops it with the connection.

    raises     LockTakenError: another process has it
    """
    key = f"datops.stream.{source}"
    taken = conn.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)).fetchone()
    if taken != (True,):
        raise LockTakenError(
            f"another process follows {source}; wait for it, or stop it: datops cdc status {source}"
        )
    try:
        yield
    finally:
        if not conn.closed:
            conn.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (key,))


def names_of(tables: Sequence[StreamedTable]) -> list[tuple[str, str]]:
    """Where the tables are in the source: (schema, name)."""
    return [(table.schema, table.table) for table in tables]
