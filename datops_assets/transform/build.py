"""Building a transformation's table: the statement runs in the warehouse, and the table takes its place at once.

Belongs here: the transaction, the lock, the entry in the catalogue, and the rows that a Python
function makes. Does not: what the statement says (statement.py), how tables are swapped (an argument).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL

from datops_assets.errors import TerminalError
from datops_assets.postgres.failpoints import hit
from datops_assets.postgres.names import warehouse_name
from datops_assets.postgres.tables import lock_table, table_id
from datops_assets.transform.function import results
from datops_assets.transform.kinds import Columns
from datops_assets.transform.statement import Statement

Connection = psycopg.Connection[Any]
Swap = Callable[[Connection, str, str], None]
"""Lets silver.<first name> become silver.<second name>, inside the transaction that built it."""


class TransformError(TerminalError):
    """A transformation cannot be built as it is declared; its table is as it was.

    Next: correct the step that is named; `datops pipeline sql` prints the statement without running it.
    """


@dataclass(frozen=True)
class Built:
    """What one run did to one transformation's table."""

    rows: int
    seconds: float
    columns: Columns
    """As the server has them."""


def build_table(
    conn: Connection,
    source: str,
    table: str,
    statement: Statement,
    *,
    version: str,
    swap: Swap,
    run_id: str | None = None,
) -> Built:
    """Build silver.<source>_<table> anew and let it take the old one's place in one transaction.

    version   of the declaration, entered in the catalogue
    raises    TransformError: a value does not fit, an input is not there, a Python function failed
              LockTakenError: another run builds it, or readers kept the old one
    """
    name = warehouse_name(source, table)
    started = time.monotonic()
    with lock_table(conn, source, table), _said_without_values(f"{source}.{table}"), conn.transaction():
        new = f"{name}__new"
        place = sql.Identifier("silver", new)
        if statement.python is None:
            conn.execute(SQL("create table {} as {}").format(place, SQL(statement.text())))
        else:
            _write_results(conn, place, statement)
        hit("transform.built")
        conn.execute(SQL("analyze {}").format(place))
        counted = conn.execute(SQL("select count(*) from {}").format(place)).fetchone()
        columns = read_columns(conn, new)
        assert counted is not None
        conn.execute(
            "insert into datops.builds (table_id, version, statement, rows, run_id, seconds)"
            " values (%s, %s, %s, %s, %s, %s)",
            (
                table_id(conn, source, table),
                version,
                statement.text(pretty=True),
                counted[0],
                run_id,
                time.monotonic() - started,
            ),
        )
        swap(conn, new, name)
        hit("transform.swapped")
    return Built(int(counted[0]), time.monotonic() - started, columns)


def read_columns(conn: Connection, name: str) -> dict[str, str]:
    """Columns of silver.<name> with their types, without those of datops; none where there is no such table."""
    rows = conn.execute(_COLUMNS, (name,)).fetchall()
    return {column: _short(kind) for column, kind in rows}


_COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod)
from pg_attribute a
where a.attrelid = to_regclass(format('silver.%%I', %s::text)) and a.attnum > 0 and not a.attisdropped
  and a.attname not like '\\_%%'
order by a.attnum
"""


def _short(kind: str) -> str:
    return {
        "timestamp with time zone": "timestamptz",
        "timestamp without time zone": "timestamp",
        "time without time zone": "time",
    }.get(kind, kind)


def _write_results(conn: Connection, place: sql.Identifier, statement: Statement) -> None:
    assert statement.python is not None
    kinds = statement.python.kinds()
    columns = [SQL("{} {}").format(sql.Identifier(word), SQL(kind)) for word, kind in kinds.items()]
    conn.execute(SQL("create table {} ({})").format(place, SQL(", ").join(columns)))
    into = SQL("copy {} ({}) from stdin (format csv)").format(
        place, SQL(", ").join(map(sql.Identifier, kinds))
    )
    with conn.cursor(name="datops_transform") as rows, conn.cursor() as writer:
        rows.execute(SQL(statement.text()))
        for text in results(rows, statement.python):
            with writer.copy(into) as copy:
                copy.write(text)


@contextmanager
def _said_without_values(where: str) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.UndefinedTable as error:
        raise TransformError(
            f"{where}: a table that it reads is not there ({_first(error)}); run the pipeline that makes it first"
        ) from None
    except psycopg.errors.UndefinedColumn as error:
        raise TransformError(
            f"{where}: the warehouse lacks a column that the document has ({_first(error)});"
            " `datops pipeline drift` says which, `datops pipeline rebuild` mends it"
        ) from None
    except psycopg.DataError as error:
        raise TransformError(
            f"{where}: a value does not fit what a step makes of it ({type(error).__name__},"
            f" SQLSTATE {error.sqlstate}); filter such rows before the step. The table is as it was"
        ) from None
    except (psycopg.errors.UndefinedFunction, psycopg.errors.DatatypeMismatch) as error:
        raise TransformError(
            f"{where}: a step uses types that do not go together ({_first(error)}); cast one of them"
        ) from None


def _first(error: psycopg.Error) -> str:
    """The server's sentence; of names and types only, never of a value."""
    return (error.diag.message_primary or type(error).__name__).strip()
