"""A database beside the warehouse's, on the same server, that is gone when the work is over.

Its name says which warehouse it belongs to, and its maker holds a lock on that name for as long
as it lives. Whoever finds the name without the lock has found what a killed process left behind.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from datops_assets.errors import WarehouseError

if TYPE_CHECKING:
    import psycopg

    from datops_assets.resources.warehouse import Warehouse

_PREFIX = "datops_try_out_"


@contextmanager
def scratch_database(warehouse: Warehouse) -> Iterator[Warehouse]:
    """Make an empty database, and drop it in every case; first drop those of killed processes.

    raises   WarehouseError: the role may not create databases
    """
    with warehouse.connect() as conn:
        prefix = _prefix(conn)
        _sweep(conn, prefix)
        name = prefix + secrets.token_hex(4)
        conn.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (name,))
        try:
            _create(conn, name, warehouse.address)
            yield warehouse.at(name)
        finally:
            _drop(conn, name)


def _prefix(conn: psycopg.Connection) -> str:
    # By number, so that warehouses on one server leave each other's alone: locks end at a database.
    row = conn.execute("select oid from pg_database where datname = current_database()").fetchone()
    assert row is not None
    return f"{_PREFIX}{row[0]}_"


def _create(conn: psycopg.Connection, name: str, where: str) -> None:
    import psycopg
    from psycopg import sql

    # The warehouse's own locale: what an expression calls lower case must be so here, too.
    row = conn.execute(
        "select pg_encoding_to_char(encoding), datcollate, datctype from pg_database where datname = current_database()"
    ).fetchone()
    assert row is not None
    statement = sql.SQL("create database {} template template0 encoding {} lc_collate {} lc_ctype {}")
    try:
        conn.execute(statement.format(sql.Identifier(name), *map(sql.Literal, row)))
    except psycopg.errors.InsufficientPrivilege:
        raise WarehouseError(
            f"the role that datops uses at {where} may not create a database, which this needs to stay away from"
            " the real tables; let an administrator run: alter role <that role> createdb"
        ) from None


def _sweep(conn: psycopg.Connection, prefix: str) -> None:
    names = conn.execute(
        "select datname from pg_database where starts_with(datname, %s)", (prefix,)
    ).fetchall()
    for (name,) in names:
        alone = conn.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (name,)).fetchone()
        if alone == (True,):
            _drop(conn, name)
            conn.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (name,))


def _drop(conn: psycopg.Connection, name: str) -> None:
    """Drop it if we can; what stays behind is swept by the next one."""
    import psycopg
    from psycopg import sql

    try:
        conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
    except (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege, psycopg.InterfaceError):
        return
