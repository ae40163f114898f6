"""An API, a table of it, and short ways to load and look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from psycopg import sql

from datops_assets.ingestion import LoadEntry, LoadResult, TableLoaded, list_loads, load_table, rest
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.ingestion.rest.server import Api, running


@pytest.fixture
def api() -> Iterator[Api]:
    """An API on loopback that answers with an empty list until a test says otherwise."""
    with running() as server:
        yield server


@dataclass
class RestLab:
    """An API, how it is declared, and a warehouse."""

    warehouse: TestWarehouse
    api: Api
    declared: rest.Api
    table: rest.RestTable
    runs: int = 0

    def declare(self, **changes: Any) -> rest.RestTable:
        """Change what is declared about the table."""
        self.table = replace(self.table, **changes)
        return self.table

    def connect(self, **changes: Any) -> None:
        """Change what is declared about the API."""
        self.declared = replace(self.declared, **changes)

    def source(self) -> rest.RestSource:
        """Make the source; the caller closes it."""
        return rest.RestSource(self.declared)

    def load(self, **options: Any) -> TableLoaded:
        """Run once with a source of its own, as a run does."""
        self.runs += 1
        with self.source() as source:
            return load_table(self.warehouse.conn, source, self.table, batch=f"batch-{self.runs}", **options)

    def refused(self) -> LoadResult:
        """Run once; the last unit was not loaded."""
        result = self.load().results[-1]
        assert result.error is not None
        return result

    def values(self, *names: str) -> list[tuple[Any, ...]]:
        """Return the rows of some delivered columns that silver may see, in load order, as Python values."""
        columns = sql.SQL(", ").join(sql.SQL("b.{}").format(sql.Identifier(name)) for name in names)
        query = sql.SQL(
            "select {} from {} b join datops.loads l on l.load_id = b._load_id"
            " where l.state = 'loaded' order by b._load_id, b._row"
        ).format(columns, sql.Identifier("bronze", f"shop_{self.table.name}"))
        return self.warehouse.conn.execute(query).fetchall()

    def ids(self) -> list[Any]:
        """Return the column `id` of those rows."""
        return [value for (value,) in self.values("id")]

    def loads(self) -> list[LoadEntry]:
        """Return the catalogue's entries, oldest first."""
        return list_loads(self.warehouse.conn, "shop", self.table.name)[::-1]


@pytest.fixture
def lab(warehouse: TestWarehouse, api: Api) -> RestLab:
    """The API declared as source `shop`, its address /orders as table `orders`, one page; waits are short."""
    declared = rest.Api(url=api.url, allow_private=True, timeout_s=20, tries=3, wait_s=10, backoff_s=0.01)
    return RestLab(warehouse, api, declared, rest.RestTable(source="shop", name="orders", path="orders"))
