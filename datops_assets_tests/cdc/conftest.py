"""A source database and a warehouse side by side, and the oracle: both hold the same, to the text."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from datops_assets.cdc import ChangeStream, Drained, Snapshot, StreamedTable, drain, lease, take_snapshot
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.conftest import TestWarehouse

_numbers = iter(range(1, 10**9))


@dataclass
class Followed:
    """A source with tables, and the stream that follows them into the warehouse."""

    warehouse: TestWarehouse
    database: Warehouse
    source: psycopg.Connection[Any]
    stream: ChangeStream

    @property
    def parameters(self) -> dict[str, Any]:
        """How the stream reaches the source."""
        return dict(self.database.parameters())

    def run(self, statement: str) -> None:
        """Change the source; several statements are one transaction."""
        self.source.execute(statement)  # type: ignore[call-overload]

    def follow(self, *tables: str) -> None:
        """Name the tables to follow: `schema.name`, or `name` of public."""
        named = [table.rpartition(".") for table in tables]
        followed = tuple(StreamedTable(name.lower(), schema or "public", name) for schema, _, name in named)
        self.stream = ChangeStream("erp", self.stream.slot, self.stream.publication, followed)

    def snapshot(self) -> Snapshot:
        """Copy the tables."""
        with lease(self.warehouse.conn, "erp"):
            return take_snapshot(
                self.warehouse.conn, self.warehouse.warehouse.connect, self.parameters, self.stream
            )

    def drain(self) -> Drained:
        """Apply all there is."""
        with lease(self.warehouse.conn, "erp"):
            return drain(self.warehouse.conn, self.parameters, self.stream)

    def rows(
        self, conn: psycopg.Connection[Any], table: sql.Identifier, columns: list[str]
    ) -> list[tuple[str, ...]]:
        """All rows as texts, in one order."""
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns)
        return sorted(
            conn.execute(sql.SQL("select {} from {}").format(texts, table)).fetchall(),
            key=lambda row: tuple((value is None, value or "") for value in row),
        )

    def require_equal(self) -> None:
        """Hold the oracle: the mirror is the source, both ways, and the slot is never past the warehouse."""
        for table in self.stream.tables:
            columns = [
                name
                for (name,) in self.source.execute(
                    "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0"
                    " and not attisdropped and attgenerated = '' order by attnum",
                    (f'"{table.schema}"."{table.table}"',),
                )
            ]
            there = self.rows(self.source, sql.Identifier(table.schema, table.table), columns)
            here = self.rows(self.warehouse.conn, sql.Identifier("bronze", f"erp_{table.name}"), columns)
            assert here == there, table.label
        self.require_acknowledged()

    def require_acknowledged(self) -> None:
        """The source may forget only what the warehouse has."""
        (applied,) = self.warehouse.conn.execute("select applied_lsn::text from datops.streams").fetchone()
        (ahead,) = self.source.execute(
            "select confirmed_flush_lsn > %s::pg_lsn from pg_replication_slots where slot_name = %s",
            (applied, self.stream.slot),
        ).fetchone()
        assert not ahead

    def log(self, table: str, columns: str = "_op, _seq") -> list[tuple[Any, ...]]:
        """What the change log holds, in its order."""
        query = f"select {columns} from bronze.erp_{table}_changes order by _commit_lsn, _seq"
        return self.warehouse.conn.execute(query).fetchall()


def mirror_alone(followed: Followed, *names: str, logged: Collection[str] = ()) -> None:
    """Keep no log of some tables any more, and one of others."""
    tables = [
        replace(one, is_logged=one.name in logged or (one.is_logged and one.name not in names))
        for one in followed.stream.tables
    ]
    followed.stream = replace(followed.stream, tables=tuple(tables))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `-k case_05` find the tests of case 5."""
    for item in items:
        for mark in item.iter_markers("cdc_case"):
            item.extra_keyword_matches.update(f"case_{number:02}" for number in mark.args)


@contextmanager
def followed_on(server: Warehouse, warehouse: TestWarehouse) -> Iterator[Followed]:
    """A source database without tables on a server."""
    name = f"cdc_source_{warehouse.warehouse.dbname}_{next(_numbers)}"
    with server.connect() as admin:
        admin.execute(f"create database {name}")
    database = server.at(name)
    with closing(database.connect()) as source:
        yield Followed(warehouse, database, source, ChangeStream("erp", name[:50], "datops_erp", ()))
    with server.connect() as admin:  # anew: a test may have restarted it
        admin.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots"
            " where database = %s and active_pid is not null", (name,),
        )  # fmt: skip
        admin.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s",
            (name,),
        )
        admin.execute(f"drop database {name} with (force)")


@pytest.fixture
def followed(server: Warehouse, warehouse: TestWarehouse) -> Iterator[Followed]:
    """A source database on the same server as the warehouse."""
    with followed_on(server, warehouse) as followed:
        yield followed
