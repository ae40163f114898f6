"""Identity and lock of one table of one source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg

from datops_assets.errors import LockTakenError

_FIND: LiteralString = "select table_id from datops.tables where source = %s and name = %s"


def find_table_id(conn: psycopg.Connection[Any], source: str, table: str) -> int | None:
    """The catalogue's number of a table, for whoever only looks; None before its first use."""
    found = conn.execute(_FIND, (source, table)).fetchone()
    return int(found[0]) if found else None


def table_id(conn: psycopg.Connection[Any], source: str, table: str) -> int:
    """The catalogue's number of a table; entered on first use."""
    # "do update" where there is nothing to update: so the row of whoever was faster is returned.
    enter = """
        insert into datops.tables (source, name) values (%s, %s)
        on conflict (source, name) do update set name = excluded.name
        returning table_id
    """
    known = find_table_id(conn, source, table)
    if known is not None:
        return known
    entered = conn.execute(enter, (source, table)).fetchone()
    assert entered is not None
    return int(entered[0])


_LIMIT: LiteralString = "select set_config('lock_timeout', %s, false)"


@contextmanager
def lock_table(
    conn: psycopg.Connection[Any], source: str, table: str, *, wait_s: float | None = None
) -> Iterator[None]:
    """Hold the one lock that loads into bronze and judgements into silver share.

    The server drops it with the connection, so a killed process holds nothing. It is
    counted: whoever holds it may take it again on the same connection.

    wait_s   longest wait; None waits as long as the connection waits for any lock
    raises   LockTakenError: another connection still has it by then
    """
    key = f"datops.{source}.{table}"
    _take(conn, key, wait_s, f"{source}.{table}")
    try:
        yield
    finally:
        _give_back(conn, key)


def _take(conn: psycopg.Connection[Any], key: str, wait_s: float | None, name: str) -> None:
    before = conn.execute("select current_setting('lock_timeout')").fetchone()
    assert before is not None
    if wait_s is not None:
        conn.execute(_LIMIT, (f"{max(round(wait_s * 1000), 1)}ms",))
    try:
        conn.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (key,))
    except psycopg.errors.LockNotAvailable:
        waited = before[0] if wait_s is None else f"{wait_s:g} s"
        raise LockTakenError(
            f"another run works on {name} and did not finish in {waited}; try again, or see: datops pipeline status"
        ) from None
    finally:
        if wait_s is not None and not conn.closed:
            conn.execute(_LIMIT, before)


def _give_back(conn: psycopg.Connection[Any], key: str) -> None:
    if conn.closed or conn.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
        return
    # Where the connection was lost the server has given it back, and the body's error is the one to see.
    with suppress(psycopg.OperationalError):
        conn.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (key,))
