"""Databases keep what every source promises, and survive what every source must."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from datops_assets.ingestion import Source
from datops_assets.ingestion.database import Address, DatabaseTable, open_database
from datops_assets.resources.warehouse import Warehouse
from datops_assets.testing.sources import FarSide, SourceContract, SourceSuite
from datops_assets_tests.ingestion.database.conftest import MariaShop, Shop


def opened(url: str, cursor: str | None = None) -> tuple[Source[Any], DatabaseTable]:
    """A source and its table `people`."""
    disposition: Any = "append" if cursor else "replace"
    table = DatabaseTable(
        source="far", name="people", relation="people", cursor=cursor, disposition=disposition
    )
    return open_database(Address.parse(url)), table


class SqlFarSide(FarSide):
    """What tables of any database can be told to do."""

    opener = opened

    def __init__(self, url: str, cursor: str | None = None) -> None:
        self._url = make_url(url)
        self._cursor = cursor
        self._engine = create_engine(url, poolclass=NullPool)
        self._execute("create table people (id bigint, name varchar(40))")

    def fill(self, rows: int) -> None:
        """Make the rows there."""
        self._execute("delete from people")
        numbers = "with recursive n (i) as (select 1 union all select i + 1 from n where i < :rows) "
        if self._url.get_backend_name() == "sqlite":
            self._execute(
                f"{numbers} insert into people select i, 'name ' || i from n limit :rows", rows=rows
            )
        elif rows:
            self._execute(f"insert into people select seq, concat('name ', seq) from seq_1_to_{rows}")

    def arguments(self, address: tuple[str, int] | None = None, secret: str | None = None) -> dict[str, Any]:
        """By URL."""
        url = self._url
        if address is not None:
            url = url.set(host=address[0], port=address[1])
        if secret is not None:
            url = url.set(password=secret)
        return {"url": url.render_as_string(hide_password=False), "cursor": self._cursor}

    def add_column(self) -> bool:
        """With a default, so that every row has it."""
        self._execute("alter table people add note varchar(9) default 'new'")
        return True

    def _execute(self, statement: str, **values: object) -> None:
        with self._engine.begin() as conn:
            conn.execute(text(statement), values)


class MariaDbFarSide(SqlFarSide):
    """A MariaDB."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.address = ("127.0.0.1", int(self._url.port or 0))
        self.secret = self._url.password


class MySqlFarSide(MariaDbFarSide):
    """A MySQL: it makes no rows out of nothing, but copies of those there are."""

    def fill(self, rows: int) -> None:
        """Double them until there are enough."""
        self._execute("delete from people")
        there = min(rows, 1)
        if there:
            self._execute("insert into people values (1, 'name 1')")
        while there < rows:
            self._execute(
                "insert into people select id + :there, concat('name ', id + :there) from people"
                " order by id limit :more",
                there=there,
                more=min(there, rows - there),
            )
            there = min(2 * there, rows)


class SqliteFarSide(SqlFarSide):
    """A file: it has no connection and no password, but it lies."""

    def lie(self) -> str | None:
        """SQLite keeps a text in a column of numbers."""
        self._execute("insert into people values ('twenty-three', 'liar')")
        return "twenty-three"


class PostgresFarSide(FarSide):
    """A database on the tests' server."""

    opener = opened

    def __init__(self, database: Warehouse, cursor: str | None = None) -> None:
        self._database = database
        self._cursor = cursor
        self.address = (database.host, database.port)
        self.secret = database.password
        self._execute("create table people (id bigint, name text)")

    def fill(self, rows: int) -> None:
        """Make the rows there."""
        self._execute("delete from people where id > %s", rows)
        self._execute(
            "insert into people select n, 'name ' || n from generate_series("
            " (select coalesce(max(id), 0) + 1 from people), %s) n",
            rows,
        )

    def arguments(self, address: tuple[str, int] | None = None, secret: str | None = None) -> dict[str, Any]:
        """By URL."""
        database = self._database
        if address is not None:
            database = replace(database, host=address[0], port=address[1])
        return {"url": replace(database, password=secret or database.password).url, "cursor": self._cursor}

    def add_column(self) -> bool:
        """With a default, so that every row has it."""
        self._execute("alter table people add note text default 'new'")
        return True

    def _execute(self, statement: str, *values: object) -> None:
        with psycopg.connect(self._database.url, autocommit=True) as conn:
            conn.execute(statement, values)  # type: ignore[call-overload]


class TestPostgresSuite(SourceSuite):
    """Whole tables."""

    @pytest.fixture
    def far(self, shop_db: Warehouse) -> FarSide:
        """Return a PostgreSQL."""
        return PostgresFarSide(shop_db)


class TestPostgresByCursorSuite(SourceSuite):
    """Only what is past the watermark."""

    @pytest.fixture
    def far(self, shop_db: Warehouse) -> FarSide:
        """Return a PostgreSQL."""
        return PostgresFarSide(shop_db, cursor="id")

    test_many_rows_take_no_more_memory_than_few = None  # as whole tables
    test_killed_at_a_random_moment_the_next_run_completes_it_once = None
    test_a_column_more_between_two_readings = None  # rows that were read are not read again


@pytest.mark.slow  # SQLite goes the same way in CI
class TestMariaDbSuite(SourceSuite):
    """Whole tables."""

    @pytest.fixture
    def far(self, maria: MariaShop) -> FarSide:
        """Return a MariaDB."""
        return MariaDbFarSide(maria.url)


@pytest.mark.slow  # a server that a registry has only as a Maven package, as old as 2011
class TestMySqlSuite(SourceSuite):
    """Whole tables."""

    @pytest.fixture
    def far(self, mysql_shop: MariaShop) -> FarSide:
        """Return a MySQL."""
        return MySqlFarSide(mysql_shop.url)


class TestSqliteSuite(SourceSuite):
    """Whole tables."""

    @pytest.fixture
    def far(self, tmp_path: Path) -> FarSide:
        """Return a file."""
        return SqliteFarSide(f"sqlite:///{tmp_path}/far.db")


class TestPostgresSource(SourceContract):
    """The promises of the interface."""

    least_units = 1

    @pytest.fixture
    def source(self, shop: Shop) -> Iterator[Source[DatabaseTable]]:
        """Return a source with a table that has something new."""
        shop.execute("create table orders (id int)", "insert into orders select generate_series(1, 9)")
        with shop.source() as source:
            yield source

    @pytest.fixture
    def table(self, shop: Shop) -> DatabaseTable:
        """A whole table."""
        return shop.table

    @pytest.fixture
    def missing(self, shop: Shop) -> DatabaseTable:
        """A table that is not there."""
        return replace(shop.table, relation="nowhere")
