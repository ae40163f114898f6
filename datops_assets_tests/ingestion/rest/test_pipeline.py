"""A document with two endpoints as Dagster runs it: from an API to silver, again, and after the API changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datops_assets.components.document import PipelineDocument
from datops_assets.components.documents import read_documents
from datops_assets.components.runner import run_pipeline
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.ingestion.rest.server import Api, Asked, Reply

DOCUMENT = """\
pipeline: shop
team: commerce
source:
  type: rest
  url: ${SHOP_API}
  allow_private: true
  auth: {type: bearer, token_env: SHOP_TOKEN}
  pagination: {type: cursor, next: next}
  tries: 1
retries: {max: 0}
tables:
  customers:
    path: customers
    records: items
    contract:
      key: [id]
      columns:
        id: {type: bigint, required: true}
        country: {type: text, in: [DE, FR]}
  orders:
    path: orders
    records: items
    incremental: {param: since, field: updated_at}
    contract:
      key: [id]
      latest_by: updated_at
      columns:
        id: {type: bigint, required: true}
        customer_id: {type: bigint}
        total: {type: "numeric(12,2)", min: 0}
        updated_at: {type: timestamptz}
      rules:
        - {name: known_customer, foreign_key: [customer_id], references: customers, columns: [id]}
"""


def at(day: int) -> str:
    return f"2026-01-{day:02}T00:00:00Z"


class Shop:
    """Customers and orders behind a token, two on a page."""

    def __init__(self, api: Api) -> None:
        self.customers: list[dict[str, Any]] = [{"id": 1, "country": "DE"}, {"id": 2, "country": "XX"}]
        self.orders: list[dict[str, Any]] = [
            {"id": number, "customer_id": 1, "total": f"{number}.50", "updated_at": at(number)}
            for number in range(1, 6)
        ]
        api.answer = self.answer

    def answer(self, asked: Asked) -> object:
        if asked.headers.get("authorization") != "Bearer s3cret":
            return Reply(status=401)
        records = {"/customers": self.customers, "/orders": self.orders}[asked.path]
        found = [
            record for record in records if record.get("updated_at", "") >= asked.params.get("since", "")
        ]
        start = asked.number("cursor", 0)
        return {"items": found[start : start + 2], "next": start + 2 if start + 2 < len(found) else None}


@pytest.fixture
def shop(api: Api) -> Shop:
    return Shop(api)


@pytest.fixture
def document(project: Path, api: Api, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> PipelineDocument:
    monkeypatch.setenv("SHOP_API", api.url)
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    (project / "pipeline.yaml").write_text(DOCUMENT)
    (loaded,) = read_documents(project / "pipeline.yaml", project)
    return loaded.document


def silver(warehouse: TestWarehouse) -> list[tuple[int, str]]:
    rows = warehouse.fetch("select id, total::text from silver.shop_orders order by 1")
    return [(row[0], row[1]) for row in rows]


def added(result: Any) -> dict[str, int]:
    return {table.table: table.rows_added for table in result.tables}


def test_two_endpoints_to_silver_again_and_after_a_change(
    document: PipelineDocument, project: Path, shop: Shop, warehouse: TestWarehouse
) -> None:
    first = run_pipeline(document, project)
    assert first.problems == []
    assert (first.success, added(first)) == (True, {"customers": 2, "orders": 5})
    assert silver(warehouse) == [(number, f"{number}.50") for number in range(1, 6)]
    assert warehouse.fetch("select id, country from silver.shop_customers") == [(1, "DE")]
    assert warehouse.fetch("select count(*) from quarantine.shop_customers") == [(1,)]

    again = run_pipeline(document, project)
    assert (again.success, added(again)) == (True, {"customers": 0, "orders": 0})

    shop.customers[1] = {"id": 2, "country": "FR"}
    shop.orders[0] |= {"total": "9.00", "updated_at": at(9)}
    shop.orders.append({"id": 6, "customer_id": 2, "total": "6.50", "updated_at": at(8)})
    changed = run_pipeline(document, project)
    assert (changed.success, added(changed)) == (True, {"customers": 2, "orders": 2})
    assert silver(warehouse)[0] == (1, "9.00")
    assert silver(warehouse)[-1] == (6, "6.50")
    assert warehouse.fetch("select id, country from silver.shop_customers order by 1") == [
        (1, "DE"),
        (2, "FR"),
    ]


def test_wrong_credentials_fail_the_run_and_change_nothing(
    document: PipelineDocument,
    project: Path,
    warehouse: TestWarehouse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_pipeline(document, project)
    monkeypatch.setenv("SHOP_TOKEN", "wrong-s3cret")
    result = run_pipeline(document, project)
    assert not result.success
    assert "it does not know us; check `auth:`" in " ".join(result.problems)
    assert "s3cret" not in " ".join(result.problems)
    assert len(silver(warehouse)) == 5


def test_a_variable_that_is_not_set_fails_the_run_by_its_name(
    document: PipelineDocument, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOP_TOKEN")
    result = run_pipeline(document, project)
    assert not result.success
    assert "variable SHOP_TOKEN is not set" in " ".join(result.problems)
