"""Sources of each kind that are looked at, and the oracle: mirror and source are equal, the log leads to the mirror."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from datops_assets.cdc import lease
from datops_assets.cdc.query import Looked, QueriedTable, QueryStream, drain, take_snapshot
from datops_assets.ingestion.database import Address, DatabaseTable, Lookback, open_look
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.conftest import TestWarehouse

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
