"""Sources of each kind that are looked at, and the oracle: mirror and source are equal, the log leads to the mirror."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from psycopg import sql
from sqlalchemy import make_url

from datops_assets.cdc import lease
from datops_assets.cdc.query import Looked, QueriedTable, QueryStream, drain, take_snapshot
from datops_assets.ingestion.database import Address, DatabaseTable, Lookback, open_look
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.ingestion.database.conftest import MariaShop, mariadb
from datops_assets_tests.ingestion.database.mariadb import MariaDb

__all__ = ["mariadb"]

_numbers = iter(range(1, 10**9))


@dataclass
class Queried:
    """A source with tables, and the stream that looks at them."""

    warehouse: TestWarehouse
    address: Address
    run: Callable[[str], Any]
    """Changes the source, each call as a transaction."""
    read: Callable[[str], list[tuple[Any, ...]]]
    stream: QueryStream = field(default_factory=lambda: QueryStream("erp", ()))

    def follow(
        self, name: str = "orders", cursor: str | None = None, lookback: str | None = None, **more: Any
    ) -> None:
        """Look at this table too."""
        declared = DatabaseTable(
            source="erp", name=name, relation=name, disposition="merge", cursor=cursor,
            lookback=Lookback.parse(lookback) if lookback else None, as_text=more.pop("as_text", ()),
        )  # fmt: skip
        one = QueriedTable(
            name, "", name, lambda: open_look(self.address, declared), cursor,
            more.pop("compare", "keys" if cursor else "rows"), more.pop("key", ()),
        )  # fmt: skip
        kept = tuple(table for table in self.stream.tables if table.name != name)
        self.stream = replace(self.stream, tables=(*kept, one), **more)

    def snapshot(self) -> dict[str, int]:
        """Copy the tables."""
        with lease(self.warehouse.conn, "erp"):
            return take_snapshot(self.warehouse.conn, self.warehouse.warehouse.connect, self.stream)

    def drain(self) -> Looked:
        """Look once."""
        with lease(self.warehouse.conn, "erp"):
            return drain(self.warehouse.conn, self.warehouse.warehouse.connect, self.stream)

    def log(self, columns: str = "_op, id", name: str = "orders") -> list[tuple[Any, ...]]:
        """What the change log holds, in its order."""
        return self.warehouse.fetch(f"select {columns} from bronze.erp_{name}_changes order by _look, _seq")

    def mirror(self, columns: str = "*", name: str = "orders") -> list[tuple[Any, ...]]:
        """The mirror, by its first column."""
        return self.warehouse.fetch(f"select {columns} from bronze.erp_{name} order by 1")


@pytest.fixture
def postgres(server: Warehouse, warehouse: TestWarehouse) -> Iterator[Queried]:
    """A PostgreSQL without tables."""
    name = f"query_source_{os.getpid()}_{next(_numbers)}"
    with server.connect() as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    with server.at(name).connect() as conn:
        yield Queried(
            warehouse,
            Address.parse(server.at(name).url),
            conn.execute,
            lambda query: conn.execute(query).fetchall(),
        )
    with server.connect() as admin:
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def other(postgres: Queried) -> Queried:
    """A database of which nothing is known but SQLAlchemy's dialect: it computes no hashes."""
    return replace(postgres, address=Address(postgres.address.url.set(drivername="postgresql+psycopg2")))


@pytest.fixture
def maria(mariadb: MariaDb, warehouse: TestWarehouse) -> Iterator[Queried]:
    """A MariaDB without tables."""
    name = f"query_{next(_numbers)}"
    MariaShop(mariadb.url).execute(f"create database {name} character set utf8mb4")
    url = make_url(mariadb.url).set(database=name)
    with closing(
        pymysql.connect(
            host="127.0.0.1", port=url.port or 0, user=url.username, password=str(url.password), database=name,
            autocommit=True, charset="utf8mb4", init_command="set time_zone = '+00:00'",
        )
    ) as conn:  # fmt: skip

        def read(query: str) -> list[tuple[Any, ...]]:
            with conn.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())

        yield Queried(warehouse, Address(url), read, read)
    MariaShop(mariadb.url).execute(f"drop database {name}")


@pytest.fixture
def sqlite(tmp_path: Path, warehouse: TestWarehouse) -> Iterator[Queried]:
    """A SQLite file without tables."""
    file = tmp_path / "source.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as conn:
        yield Queried(
            warehouse,
            Address.parse(f"sqlite:///{file}"),
            conn.executescript,
            lambda query: conn.execute(query).fetchall(),
        )


@pytest.fixture(params=["postgres", "maria", "sqlite", "other"])
def source(request: pytest.FixtureRequest) -> Queried:
    """Each kind of source in turn."""
    found: Queried = request.getfixturevalue(request.param)
    return found


def texts(conn: psycopg.Connection[Any], relation: str) -> set[tuple[str | None, ...]]:
    """All rows of a PostgreSQL's table, as it prints them."""
    names = [
        column
        for (column,) in conn.execute(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped"
            " order by attname",
            (relation,),
        )
    ]
    columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in names)
    query = sql.SQL("select {} from {}").format(columns, sql.SQL(relation))
    return set(conn.execute(query).fetchall())
