"""Several connections that read one table of a MySQL or MariaDB at once, as if they were one.

MySQL has no snapshot that one connection could take over from another. So the table is locked against
writers for the moment in which all connections begin theirs, some milliseconds. Each then reads a range
of the primary key.

Belongs here: who reads which share. Does not: sessions, and how rows travel (mysql, mysql_rows).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa

from datops_assets.errors import SourceRefusedError
from datops_assets.ingestion.database.tables import DatabaseTable
from datops_assets.ingestion.read_ahead import reading_ahead

Run = Callable[..., list[tuple[Any, ...]]]
"""Runs a statement on a connection, with values; returns rows of bytes."""
_WAIT_S = 30
"""For transactions that have written to the table and are not over."""
_KEY = """
select c.column_name, c.data_type, t.engine from information_schema.tables t
  left join information_schema.statistics s on s.table_schema = t.table_schema and s.table_name = t.table_name
       and s.index_name = 'PRIMARY' and s.seq_in_index = 1
  left join information_schema.columns c on c.table_schema = t.table_schema and c.table_name = t.table_name
       and c.column_name = s.column_name
 where t.table_schema = coalesce(%s, database()) and t.table_name = %s
"""
_WHOLE = ("tinyint", "smallint", "mediumint", "int", "bigint")


@dataclass(frozen=True)
class Share:
    """What one connection reads."""

    conn: Any
    where: str
    """A condition: the rows that are its own."""


def key_to_share(run: Run, conn: Any, table: DatabaseTable) -> str:
    """Name the column whose ranges can be shared out.

    raises    SourceRefusedError: the table has none, or its engine keeps no snapshots
    """
    rows = run(conn, _KEY, (table.schema, table.relation))
    name, type_, engine = (part.decode() if part is not None else "" for part in (rows or [(None,) * 3])[0])
    if type_.lower() not in _WHOLE or engine.lower() != "innodb":
        raise SourceRefusedError(
            f"{table.label}: {table.where} has no primary key that begins with a whole number, or is no InnoDB table,"
            " so connections cannot share it; leave `parallel:` out"
        )
    return name


def begin_together(
    run: Run, locking: Any, conns: Sequence[Any], relation: str, snapshot: Sequence[str], table: DatabaseTable
) -> None:
    """Begin a snapshot on each connection while nobody writes to the table.

    locking    a connection of its own; relation: the table, quoted
    raises     SourceRefusedError: this user may not lock it; the driver's errors
    """
    run(locking, f"set session lock_wait_timeout = {_WAIT_S}")
    try:
        run(locking, f"lock tables {relation} read")
    except Exception as error:
        if error.args and error.args[0] in (1044, 1142):
            # Not chained: nothing of the driver's text helps.
            raise SourceRefusedError(
                f"{table.label}: `parallel:` locks {table.where} against writers for the moment in which the"
                " connections begin, and this user may not; grant lock tables, or leave `parallel:` out"
            ) from None
        raise
    for conn in conns:
        for statement in snapshot:
            run(conn, statement)
    run(locking, "unlock tables")


def ranges(column: str, lowest: int, highest: int, count: int) -> list[str]:
    """Conditions that each row meets one of; `column` is quoted. The first and the last have one end."""
    if highest - lowest < count:
        return ["true"]
    bounds = [lowest + (highest - lowest) * n // count for n in range(1, count)]
    between = [f"{column} >= {one} and {column} < {other}" for one, other in pairwise(bounds)]
    return [f"{column} < {bounds[0]}", *between, f"{column} >= {bounds[-1]}"]


def in_turn(streams: Sequence[Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """Yield the batches of all streams, one of each in turn; each is read by a thread, one batch ahead."""
    with ExitStack() as reading:
        left = [reading.enter_context(reading_ahead(stream, depth=1)) for stream in streams]
        while left:
            going_on = []
            for stream in left:
                batch = next(stream, None)
                if batch is not None:
                    yield batch
                    going_on.append(stream)
            left = going_on
