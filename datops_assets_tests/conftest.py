"""A real PostgreSQL for every test: our own server in a temporary folder, a fresh database each.

Tests ignore inherited variables and touch no warehouse that they did not start, unless
DATOPS_TEST_WAREHOUSE_URL names one on which databases may be created and dropped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import typer.testing
from hypothesis import HealthCheck
from hypothesis import settings as property_settings
from pydantic import SecretStr

from datops_assets import cli
from datops_assets.config.settings import Settings
from datops_assets.postgres.migrations import upgrade
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets.resources.warehouse import Warehouse, check_version, parse_url
from datops_assets_tests import scratch

pytest.register_assert_rewrite("datops_assets.testing.sources")
# A machine that is busy with something else fails no property: pytest's own limit ends what hangs.
property_settings.register_profile(
    "busy", property_settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
property_settings.load_profile("busy")
# All options of all commands take 0.15 s to make: once in a process, not for each command that a test runs.
cli._app = cache(cli._app)
typer.testing._get_command = cache(typer.testing._get_command)
_TEST_URL = os.environ.get("DATOPS_TEST_WAREHOUSE_URL")
_TEMPLATE = "datops_test_template"

for _name in list(os.environ):
    if _name.startswith(("DATOPS_", "DAGSTER_", "DBT_", "PG", "POSTGRES_")):
        del os.environ[_name]
if "TMPDIR" not in os.environ:  # pytest's own name for the folder of `tmp_path`, of all workers
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(scratch.ROOT))


LONGEST = (
    "kill/", "e2e/", "cdc/test_soak", "databases/test_scenarios", "docs/test_examples",
    "quality/test_silver_is_a_function", "quality/test_suggest", "ingestion/database/test_suite",
    "backup/test_wal", "backup/test_restore_and_drill", "cdc/test_killed", "databases/test_plan_and_apply",
)  # fmt: skip
"""Files of few tests that take long. Begun last, one of them would hold the end of a run alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; workers take files in this order (--no-loadscope-reorder)."""
    items.sort(key=lambda item: not item.nodeid.partition("datops_assets_tests/")[2].startswith(LONGEST))


@dataclass(frozen=True)
class TestWarehouse:
    """A fresh database with the catalogue in it, and one open connection."""

    __test__ = False
    warehouse: Warehouse
    conn: psycopg.Connection[Any]

    @property
    def url(self) -> str:
        """URL with the password, for programs that open their own connection."""
        return self.warehouse.url

    def connect(self, **parameters: Any) -> psycopg.Connection[Any]:
        """One more connection (autocommit, UTC)."""
        return self.warehouse.connect(**parameters)

    def fetch(self, query: Any, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self.conn.execute(query, values).fetchall()


@pytest.fixture(scope="session")
def server() -> Iterator[Warehouse]:
    """The server that this test run started, at its database `postgres`."""
    if _TEST_URL:
        yield check_version(parse_url(_TEST_URL, "DATOPS_TEST_WAREHOUSE_URL"))
        return
    _sweep_killed_runs()
    folder = scratch.scratch_folder(f"datops-test-{os.getpid()}-")
    embedded = EmbeddedServer(folder / "postgres", durable=False)
    embedded.folder.mkdir()
    # It may lie in memory; a slot may wait for the longest test nevertheless.
    (embedded.folder / "own.conf").write_text("max_wal_size = '512MB'\nmax_slot_wal_keep_size = '16GB'\n")
    address = embedded.start()
    yield check_version(
        Warehouse(address.host, address.port, address.user, "postgres", address.password, embedded=True)
    )
    embedded.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(server: Warehouse) -> Iterator[str]:
    """A database with all migrations applied, which the tests' databases are copies of."""
    name = f"{_TEMPLATE}_{os.getpid()}"
    _execute(server, f"create database {name}")
    with server.at(name).connect() as conn:
        upgrade(conn)
    yield name
    _execute(server, f"drop database {name} with (force)")


@pytest.fixture
def database(server: Warehouse, template: str) -> Iterator[Warehouse]:
    """A fresh database with the catalogue in it."""
    name = f"datops_test_{os.getpid()}_{next(_numbers)}"
    # file_copy: a test database costs 25 ms instead of 60 by writing its pages to the WAL.
    _execute(server, f"create database {name} template {template} strategy file_copy")
    yield server.at(name)
    _execute(server, f"drop database {name} with (force)")


@pytest.fixture
def datops_database(database: Warehouse) -> Warehouse:
    """The fresh database, by the name that the suites for authors know it by."""
    return database


@pytest.fixture
def warehouse(database: Warehouse) -> Iterator[TestWarehouse]:
    """A fresh database with the catalogue in it, and a connection."""
    with database.connect() as conn:
        yield TestWarehouse(database, conn)


@pytest.fixture
def project(tmp_path: Path, database: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project as the current folder, whose warehouse is a fresh database: for commands."""
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", database.url)
    monkeypatch.setenv("DATOPS_DAGSTER_URL", database.url)
    return tmp_path


@pytest.fixture
def settings(project: Path, database: Warehouse) -> Settings:
    """The settings that `read_settings()` finds in `project`."""
    secret = SecretStr(database.url)
    return Settings(project_root=project, home=project / ".datops", warehouse_url=secret, dagster_url=secret)


_numbers = iter(range(1, 10**9))


def _execute(server: Warehouse, statement: str) -> None:
    with server.connect() as conn:
        conn.execute(statement)  # type: ignore[call-overload]


def _sweep_killed_runs() -> None:
    """Stop the servers of test runs that were killed before they could."""
    for folder in (*Path("/tmp").glob("datops-test-*-*"), *scratch.ROOT.glob("datops-test-*-*")):
        pid = folder.name.split("-")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)) and folder.stat().st_uid == os.geteuid():
            EmbeddedServer(folder / "postgres").stop()
            shutil.rmtree(folder, ignore_errors=True)
