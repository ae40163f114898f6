"""A source database beside the warehouse, and short ways to read from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pymysql
import pytest
from sqlalchemy import make_url

from datops_assets.ingestion import LoadEntry, Source, TableLoaded, list_loads, load_table
from datops_assets.ingestion.database import Address, DatabaseTable, open_database
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.ingestion.database import mysql_server
from datops_assets_tests.ingestion.database.mariadb import PASSWORD, MariaDb, NoMariaDbError, start

_numbers = iter(range(1, 10**9))


@pytest.fixture
def shop_db(server: Warehouse) -> Iterator[Warehouse]:
    """An empty source database on the tests' server."""
    name = f"datops_shop_{os.getpid()}_{next(_numbers)}"
    with server.connect() as conn:
        conn.execute(f"create database {name}")  # type: ignore[call-overload]
    yield server.at(name)
    with server.connect() as conn:
        conn.execute(f"drop database {name} with (force)")  # type: ignore[call-overload]


@dataclass
class Shop:
    """A source database, a declared table of it, and the warehouse it goes to."""

    warehouse: TestWarehouse
    address: Address
    conn: psycopg.Connection[Any]
    table: DatabaseTable = field(
        default_factory=lambda: DatabaseTable(
            source="shop", name="orders", relation="orders", disposition="replace"
        )
    )

    def execute(self, *statements: str) -> None:
        """Change the source."""
        for statement in statements:
            self.conn.execute(statement)  # type: ignore[call-overload]

    def declare(self, **changes: Any) -> DatabaseTable:
        """Change what is declared about the table."""
        self.table = replace(self.table, **changes)
        return self.table

    def source(self) -> Source[DatabaseTable]:
        """Return a source that nothing was asked of yet."""
        return open_database(self.address)

    def load(self) -> TableLoaded:
        """Run once."""
        with self.source() as source:
            return load_table(self.warehouse.conn, source, self.table, batch="b", adbc_url=self.warehouse.url)

    def rows(self, columns: str, order: str = "_load_id, _row") -> list[tuple[Any, ...]]:
        """Return bronze rows of loads that are live."""
        query = (
            f"select {columns} from bronze.shop_{self.table.name} join datops.loads on load_id = _load_id"
            f" where state = 'loaded' order by {order}"
        )
        return self.warehouse.fetch(query)

    def types(self) -> dict[str, str]:
        """Return the types of bronze's columns."""
        return dict(
            self.warehouse.fetch(
                "select attname::text, format_type(atttypid, atttypmod) from pg_attribute"
                " where attrelid = %s::regclass and attnum > 0 and attname not in ('_load_id', '_row')",
                f"bronze.shop_{self.table.name}",
            )
        )

    def loads(self) -> list[LoadEntry]:
        """Return the catalogue's entries, oldest first."""
        return list_loads(self.warehouse.conn, "shop", self.table.name)[::-1]


@pytest.fixture
def shop(warehouse: TestWarehouse, shop_db: Warehouse) -> Iterator[Shop]:
    """An empty source database declared as `shop`, with a table `orders` still to be made."""
    with shop_db.connect() as conn:
        yield Shop(warehouse, Address.parse(shop_db.url), conn)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """A MariaDB that this test run started; skipped, saying why, where there can be none."""
    try:
        server = start()
    except NoMariaDbError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@dataclass
class MariaShop:
    """A fresh database of the MariaDB."""

    url: str

    def execute(self, *statements: str) -> None:
        """Change it."""
        url = make_url(self.url)
        with (
            pymysql.connect(
                host="127.0.0.1", port=url.port or 0, user="datops", password=PASSWORD,
                database=url.database, autocommit=True,
            ) as conn,
            conn.cursor() as cursor,
        ):  # fmt: skip
            for statement in statements:
                cursor.execute(statement)


@pytest.fixture
def maria(mariadb: MariaDb) -> Iterator[MariaShop]:
    """An empty database on it."""
    name = f"shop_{next(_numbers)}"
    MariaShop(mariadb.url).execute(f"create database {name} character set utf8mb4")
    yield MariaShop(make_url(mariadb.url).set(database=name).render_as_string(hide_password=False))
    MariaShop(mariadb.url).execute(f"drop database {name}")


@pytest.fixture(scope="session")
def mysql() -> Iterator[MariaDb]:
    """A MySQL that this test run started; skipped, saying why, where there can be none."""
    try:
        server = mysql_server.start()
    except mysql_server.NoMySqlError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture
def mysql_shop(mysql: MariaDb) -> Iterator[MariaShop]:
    """An empty database on it."""
    name = f"shop_{next(_numbers)}"
    MariaShop(mysql.url).execute(f"create database {name} character set utf8mb4")
    yield MariaShop(make_url(mysql.url).set(database=name).render_as_string(hide_password=False))
    MariaShop(mysql.url).execute(f"drop database {name}")
