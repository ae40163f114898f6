"""pytest fixtures: a scratch warehouse, the synthetic shop, a pipeline run on given files.

Nothing heavy is imported before a test asks for a fixture. Asked for by name and not by an entry point,
which would cost every pytest run of an environment its import. In a conftest.py:

    pytest_plugins = ["datops_assets.testing.plugin"]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import psycopg

    from datops_assets.resources.warehouse import Warehouse


# A failing assertion of the shared suites shows its values, as one of a test module does.
pytest.register_assert_rewrite("datops_assets.testing.sources")


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers of the shared suites, for runs with --strict-markers."""
    config.addinivalue_line("markers", "source_suite: what every source has to hold")
    config.addinivalue_line("markers", "slow: minutes instead of seconds")


@pytest.fixture(scope="session")
def datops_server() -> Iterator[Warehouse]:
    """A PostgreSQL of its own in a temporary folder, for the whole test run."""
    from datops_assets.resources.embedded import EmbeddedServer
    from datops_assets.resources.warehouse import Warehouse, check_version

    with tempfile.TemporaryDirectory(prefix="datops-", dir="/tmp") as folder:  # a socket's path must be short
        server = EmbeddedServer(Path(folder) / "postgres", durable=False)
        address = server.start()
        try:
            yield check_version(
                Warehouse(
                    address.host, address.port, address.user, "postgres", address.password, embedded=True
                )
            )
        finally:
            server.stop()


@pytest.fixture
def datops_database(datops_server: Warehouse) -> Iterator[Warehouse]:
    """A fresh warehouse, with all schemas and the catalogue; gone after the test."""
    from datops_assets.postgres.migrations import upgrade
    from datops_assets.resources.scratch_database import scratch_database

    with scratch_database(datops_server) as database:
        with database.connect() as conn:
            upgrade(conn)
        yield database


@pytest.fixture
def datops_warehouse(datops_database: Warehouse) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the fresh warehouse."""
    with datops_database.connect() as conn:
        yield conn


@pytest.fixture(scope="session")
def datops_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small synthetic shop, the same bytes each time: a few days of CSV, JSON lines and Parquet."""
    from datops_assets.synthetic import ShopPlan, generate_shop

    folder = tmp_path_factory.mktemp("datops_shop")
    generate_shop(ShopPlan(seed=1, days=3, scale=0.02), folder)
    return folder


@dataclass(frozen=True)
class PipelineTried:
    """What came of a pipeline: rows by table, as mappings."""

    conn: psycopg.Connection[Any]
    pipeline: str
    refused: Mapping[str, str]
    """By path, why a file was not taken."""

    def silver(self, table: str) -> list[dict[str, Any]]:
        """The rows of a silver table in load order, without datops' own columns."""
        return self._rows("silver", table)

    def bronze(self, table: str) -> list[dict[str, Any]]:
        """The rows of a bronze table, as delivered."""
        return self._rows("bronze", table)

    def quarantined(self, table: str) -> list[list[str]]:
        """The reasons of each record that waits, oldest first."""
        from datops_assets.quality import show_quarantine

        waiting = show_quarantine(self.conn, self.pipeline, table, limit=10_000)
        return [record.reasons for record in waiting]

    def _rows(self, layer: str, table: str) -> list[dict[str, Any]]:
        from psycopg import sql
        from psycopg.rows import dict_row

        with self.conn.cursor(row_factory=dict_row) as cursor:
            relation = sql.Identifier(layer, f"{self.pipeline}_{table}")
            rows = cursor.execute(
                sql.SQL("select * from {} order by _load_id, _row").format(relation)
            ).fetchall()
        return [
            {name: value for name, value in row.items() if name not in ("_load_id", "_row")} for row in rows
        ]


@pytest.fixture
def datops_pipeline(
    datops_warehouse: psycopg.Connection[Any], tmp_path: Path
) -> Callable[..., PipelineTried]:
    """`datops_pipeline(document, files={"orders/1.csv": "…"})`: load and judge in a fresh warehouse.

    document   path of a pipeline document
    files      contents by path below the source's folder, for a files source with a relative path
    """

    def run(document: str | Path, files: Mapping[str, str | bytes] | None = None) -> PipelineTried:
        return _try_pipeline(datops_warehouse, Path(document), files or {}, tmp_path)

    return run


def _try_pipeline(
    conn: psycopg.Connection[Any], file: Path, files: Mapping[str, str | bytes], root: Path
) -> PipelineTried:
    from datops_assets.components.documents import read_documents
    from datops_assets.components.sources import declared_table, open_source
    from datops_assets.ingestion import FileTable, load_table
    from datops_assets.quality import judge_table

    (loaded,) = read_documents(file, root)
    document = loaded.document
    tables = {name: declared_table(document, name, root) for name in document.load_order()}
    folders = {Path(table.root) for table in tables.values() if isinstance(table, FileTable)}
    for path, content in files.items():
        target = next(iter(folders)) / path
        if not target.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{document.source.shown}: files are only put below the test's own folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    refused: dict[str, str] = {}
    for name, declared in tables.items():
        with open_source(document, root) as source:
            taken = load_table(conn, source, declared, batch="test")
        refused |= {result.path: result.error or result.state for result in taken.failed}
        table = document.tables[name]
        if table.contract is not None:
            judge_table(
                conn, source=document.pipeline, table=name, contract=table.contract, rename=table.rename,
                disposition=table.disposition,
            )  # fmt: skip
    return PipelineTried(conn, document.pipeline, refused)
