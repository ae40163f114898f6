"""What the tests of ingestion share: a landing folder, and short ways to load and look."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from datops_assets.ingestion import FileSource, FileTable, LoadEntry, TableLoaded, list_loads, load_table
from datops_assets.ingestion.bronze import bronze_of
from datops_assets.ingestion.catalogue import reserve_load
from datops_assets.ingestion.job import LoadJob
from datops_assets.ingestion.plan import PlannedLoad
from datops_assets.postgres.tables import table_id
from datops_assets_tests.conftest import TestWarehouse


@dataclass
class Lab:
    """A landing folder and a warehouse."""

    warehouse: TestWarehouse
    folder: Path
    table: FileTable
    runs: int = 0

    def write(self, path: str, content: bytes | str) -> Path:
        """Put a file into the landing folder."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def declare(self, **changes: Any) -> FileTable:
        """Change what is declared about the table."""
        self.table = replace(self.table, **changes)
        return self.table

    def load(self, **options: Any) -> TableLoaded:
        """Run once, as a batch of its own."""
        self.runs += 1
        options = {"batch": f"batch-{self.runs}", "adbc_url": self.warehouse.url, **options}
        source = options.pop("source", None) or FileSource()
        return load_table(self.warehouse.conn, source, self.table, **options)

    def job(self) -> LoadJob:
        """Reserve a load of the first file, as a run does, for a look at one step of it."""
        conn = self.warehouse.conn
        bronze = bronze_of(
            table_id(conn, self.table.source, self.table.name), "bronze", "shop", self.table.name
        )
        unit = FileSource().list_units(self.table)[0]
        reserved = reserve_load(conn, bronze.table_id, unit, batch="b", run_id=None, content_hash=None)
        return LoadJob(
            PlannedLoad(unit, "load", "new"),
            self.table,
            bronze,
            *reserved,
            "loaded",
            (),
            None,
            FileSource().open,
        )

    def rows(self, columns: str = "*", order: str = "_load_id, _row") -> list[tuple[Any, ...]]:
        """Return bronze rows without our own columns, unless named."""
        query = f"select {columns} from bronze.{self.table.source}_{self.table.name} order by {order}"
        return [tuple(row) for row in self.warehouse.fetch(query)]

    def values(self, *names: str) -> list[tuple[Any, ...]]:
        """Return the rows of some delivered columns, in load order."""
        columns = sql.SQL(", ").join(sql.Identifier(name) for name in names)
        table = sql.Identifier("bronze", f"{self.table.source}_{self.table.name}")
        query = sql.SQL("select {} from {} order by _load_id, _row").format(columns, table)
        return self.warehouse.conn.execute(query).fetchall()

    def damaged(self) -> list[tuple[Any, ...]]:
        """Return (_row, reason, raw, position) of what was set aside."""
        table = f"quarantine.{self.table.source}_{self.table.name}"
        query = f"select _row, reasons[1], raw, position from {table} order by 1"
        return [tuple(row) for row in self.warehouse.fetch(query)]

    def loads(self) -> list[LoadEntry]:
        """Return the catalogue's entries, oldest first."""
        return list_loads(self.warehouse.conn, self.table.source, self.table.name)[::-1]


@pytest.fixture
def lab(warehouse: TestWarehouse, tmp_path: Path) -> Lab:
    """A landing folder `orders/` declared as shop.orders, nothing in it yet."""
    folder = tmp_path / "landing"
    folder.mkdir()
    return Lab(warehouse, folder, FileTable(source="shop", name="orders", root=folder, pattern="*"))
