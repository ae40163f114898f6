"""The example of a stream by queries works as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from datops_assets.cli import _app
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.ingestion.database.conftest import MariaShop
from datops_assets_tests.ingestion.database.mariadb import MariaDb

EXAMPLE = Path(__file__).parents[3] / "examples/cdc/query.yaml"


def datops(*arguments: str) -> Any:
    answer = CliRunner().invoke(_app(), ["cdc", *arguments, "--config", str(EXAMPLE), "--json"])
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


def test_the_example_looks_at_a_shop(
    mariadb: MariaDb, warehouse: TestWarehouse, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(mariadb.url)
    monkeypatch.setenv("SHOP_USER", str(url.username))
    monkeypatch.setenv("SHOP_HOST", f"{url.host}:{url.port}")
    monkeypatch.setenv("SHOP_PASSWORD", str(url.password))
    shop = MariaShop(mariadb.url)
    shop.execute(
        "create table orders (id int primary key, total decimal(10,2), changed_at datetime(6) not null)",
        "create table customers (id int primary key, name varchar(50))",
        "insert into orders values (1, 9.90, now(6)), (2, 5.00, now(6))",
        "insert into customers values (1, 'Ada')",
    )
    assert {finding["verdict"] for finding in datops("preflight")} == {"ok"}
    assert datops("snapshot")["rows"] == {"orders": 2, "customers": 1}
    shop.execute("update orders set total = 4.50, changed_at = now(6) where id = 2", "delete from customers")
    assert datops("drain")["tables"] == {"orders": 1}
    status = datops("status")
    assert status["tables"]["customers"]["compared_at"] < status["tables"]["customers"]["looked_at"]
    assert warehouse.fetch("select id, total::text from bronze.shop_orders order by id") == [
        (1, "9.90"),
        (2, "4.50"),
    ]
    assert warehouse.fetch("select _op, id, total::text from bronze.shop_orders_changes") == [
        ("u", 2, "4.50")
    ]
    shop.execute("drop table orders", "drop table customers")
