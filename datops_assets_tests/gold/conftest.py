"""A small shop in silver, and the real dbt project built on it once.

A build takes 3 s, so most tests look at one build, or start from a copy of its database.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from datops_assets.components.gold import Gold
from datops_assets.config.settings import Settings
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.conftest import TestWarehouse

DBT_PROJECT = Path(__file__).parents[2] / "dbt_project"
SILVER_SHOP = Path(__file__).with_name("silver_shop.sql")
NETWORK_GUARD = Path(__file__).with_name("network_guard")

Build = Callable[..., dg.ExecuteInProcessResult]


@dataclass(frozen=True)
class Built:
    """One build of the small shop: what Dagster recorded, and the database it left."""

    outcome: dg.ExecuteInProcessResult
    warehouse: Warehouse
    home: Path

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self.warehouse.connect() as conn:
            return conn.execute(query).fetchall()

    def metadata(self, model: str) -> dict[str, Any]:
        """What the materialization of a model shows."""
        made = self.outcome.asset_materializations_for_node("gold")
        [event] = [event for event in made if event.asset_key == dg.AssetKey(["gold", model])]
        return {name: value.value for name, value in event.metadata.items()}


@pytest.fixture(scope="session")
def built(server: Warehouse, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The shop, built from nothing by processes that may not ask the network."""
    home = tmp_path_factory.mktemp("gold-home")
    with _copy(server, template, name="built") as database:
        with database.connect() as conn:
            conn.execute(SILVER_SHOP.read_bytes())
        # Taken back before the first test: tests of other folders run in this process too.
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(NETWORK_GUARD))
            patch.setenv("DATOPS_WAREHOUSE_URL", database.url)
            outcome = _build(_settings(home, database), DBT_PROJECT)
        yield Built(outcome, database, home)


@pytest.fixture
def shop(server: Warehouse, built: Built) -> Iterator[TestWarehouse]:
    """A copy of the database after that build, to change and build again.

    Its name is always the same: dbt parses the project anew for another connection.
    """
    with _copy(server, built.warehouse.dbname, name="shop") as database, database.connect() as conn:
        yield TestWarehouse(database, conn)


@pytest.fixture
def build(shop: TestWarehouse, built: Built, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Build gold of `shop` in one run of Dagster, as the definitions ask for it."""
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", shop.url)

    def build(**arguments: Any) -> dg.ExecuteInProcessResult:
        return _build(_settings(built.home, shop.warehouse), DBT_PROJECT, **arguments)

    return build


def _settings(home: Path, database: Warehouse) -> Settings:
    return Settings(project_root=DBT_PROJECT.parent, home=home, warehouse_url=SecretStr(database.url))


def _build(settings: Settings, project: Path, **arguments: Any) -> dg.ExecuteInProcessResult:
    definitions = Gold(project=str(project), team="commerce").definitions(settings)
    assets: Any = list(definitions.assets or [])
    return dg.materialize(assets, raise_on_error=False, **arguments)


@contextmanager
def _copy(server: Warehouse, template: str, *, name: str) -> Iterator[Warehouse]:
    """A copy of a database of the test server, for the length of a with block."""
    name = f"datops_gold_{os.getpid()}_{name}"
    with server.connect() as conn:
        conn.execute(f"create database {name} template {template} strategy file_copy")
        yield server.at(name)
        conn.execute(f"drop database {name} with (force)")
