"""Several connections that read one table of a PostgreSQL at once, as if they were one.

The first exports its snapshot and the others take it over, so all of them see the same moment. Each reads
a range of the table's blocks: a row lies in one block, so it is read once, whatever writers do meanwhile.
Their streams of binary COPY become one, in an order that the table alone decides.

Belongs here: who reads which share, and putting the streams together. Does not: sessions, and what is
selected (postgres).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.ingestion.read_ahead import reading_ahead

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
"""Of binary COPY (PostgreSQL, "COPY", file formats): no flags, no extension; after the last row a count of -1."""
_BLOCKS: LiteralString = """
select greatest(pg_relation_size(c.oid), (select max(pg_relation_size(p.relid)) from pg_partition_tree(c.oid) p))
       / current_setting('block_size')::int
  from pg_class c where c.oid = to_regclass(%s)
"""


@dataclass(frozen=True)
class Share:
    """What one connection reads."""

    conn: psycopg.Connection[Any]
    """In a read-only transaction with the snapshot of all."""
    where: sql.Composable
    """A condition: the rows that are its own."""

    def close(self) -> None:
        """Close the connection; a COPY under way ends with it."""
        with suppress(psycopg.Error):
            self.conn.close()


def open_shares(
    begin: Callable[[], psycopg.Connection[Any]], relation: sql.Identifier, count: int
) -> list[Share]:
    """Divide a table among connections.

    begin      opens a connection and begins a read-only transaction (repeatable read) that has asked nothing yet
    relation   a table or materialized view, or a table with partitions
    count      how many connections there may be; fewer where the table has fewer blocks
    raises     psycopg.Error
    """
    if count == 1:
        return [Share(begin(), sql.SQL("true"))]
    with ExitStack() as opened:
        first = opened.enter_context(begin())
        # Before the snapshot: from here on nobody rewrites or empties the table, which moves its rows.
        first.execute(sql.SQL("lock table {} in access share mode").format(relation))
        row = first.execute("select pg_export_snapshot()").fetchone()
        assert row is not None
        snapshot = sql.SQL("set transaction snapshot {}").format(sql.Literal(row[0]))
        row = first.execute(_BLOCKS, (relation.as_string(first),)).fetchone()
        assert row is not None
        shares = []
        for number, where in enumerate(_ranges(int(row[0]), count)):
            conn = opened.enter_context(begin()) if number else first
            if number:
                conn.execute(snapshot)
            shares.append(Share(conn, where))
        opened.pop_all()
        return shares


def _ranges(blocks: int, count: int) -> list[sql.Composable]:
    """Conditions that each row meets one of: the first range has no beginning, the last has no end."""
    parts = max(1, min(count, blocks))
    bounds = [sql.SQL("'({},0)'::tid").format(blocks * n // parts) for n in range(1, parts)]
    begins: list[sql.Composable] = [sql.SQL("ctid >= {}").format(bound) for bound in bounds]
    ends: list[sql.Composable] = [sql.SQL("ctid < {}").format(bound) for bound in bounds]
    if not bounds:
        return [sql.SQL("true")]
    between = [sql.SQL("{} and {}").format(*both) for both in zip(begins, ends[1:], strict=False)]
    return [ends[0], *between, begins[-1]]


def merged(streams: Sequence[Iterable[bytes]]) -> Iterator[bytes]:
    """Yield one stream of rows, made of streams without header and trailer, a chunk of each in turn.

    Each is read by a thread of its own, at most two chunks ahead. The same streams give the same bytes.
    """
    yield _HEADER
    with ExitStack() as reading:
        left = [reading.enter_context(reading_ahead(stream)) for stream in streams]
        while left:
            going_on = []
            for stream in left:
                chunk = next(stream, None)
                if chunk is not None:
                    yield chunk
                    going_on.append(stream)
            left = going_on
    yield _TRAILER


def rows_alone(
    messages: Iterable[bytes | bytearray | memoryview],
) -> Iterator[bytes | bytearray | memoryview]:
    """Yield the messages of one binary COPY without its header and trailer.

    The header comes with the first message, the trailer is the last one, or follows the header where
    there is no row.
    """
    held: bytes | bytearray | memoryview | None = None
    for message in messages:
        if held is not None:
            yield held
            held = message
        else:
            held = memoryview(message)[len(_HEADER) :]
    assert held is not None
    assert bytes(held) == _TRAILER
