"""How gold stands in the graph: keys, checks, columns, lineage, what loading costs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import dagster as dg
import pytest

from datops_assets.components.gold import Gold
from datops_assets.config.settings import Settings
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.gold.conftest import DBT_PROJECT, Build, Built


@pytest.fixture
def gold(built: Built) -> dg.AssetsDefinition:
    """The assets as they are loaded, without a warehouse in sight."""
    settings = Settings(project_root=DBT_PROJECT.parent, home=built.home)
    definitions = Gold(team="commerce", owners=["data@example.com"], fresh_within_hours=36).definitions(
        settings
    )
    [assets] = definitions.assets or []
    assert isinstance(assets, dg.AssetsDefinition)
    return assets


def key(model: str) -> dg.AssetKey:
    return dg.AssetKey(["gold", model])


def silver(table: str) -> dg.AssetKey:
    return dg.AssetKey(["silver", "shop", table])


def test_models_are_assets_that_depend_on_silver(gold: dg.AssetsDefinition) -> None:
    """One asset a model, downstream of the very assets that judge the rows."""
    assert gold.keys == {
        key(model)
        for model in (
            "customers",
            "daily_revenue",
            "daily_payments",
            "product_performance",
            "conversion_funnel",
            "product_prices",
        )
    }
    deps = {dep.asset_key for dep in gold.specs_by_key[key("customers")].deps}
    assert deps == {silver("customers"), silver("orders")}


def test_every_asset_says_whose_it_is_and_what_it_holds(gold: dg.AssetsDefinition) -> None:
    """Owner, group, kind, layer, freshness, a description, and one for each column."""
    for spec in gold.specs:
        assert spec.group_name == "gold" and spec.owners == ["data@example.com"]
        assert {"dbt", "postgres"} <= spec.kinds and spec.tags["layer"] == "gold"
        assert spec.freshness_policy is not None and spec.description
        columns = spec.metadata["dagster/column_schema"].columns
        assert columns and all(column.description for column in columns), spec.key


def test_tests_of_severity_error_block_and_those_of_severity_warn_do_not(gold: dg.AssetsDefinition) -> None:
    """Dagster holds downstream back for the first kind only."""
    blocking = {spec.name: spec.blocking for spec in gold.check_specs}
    assert blocking["unique_customers_customer_id"] is True
    assert blocking["revenue_equals_paid_orders"] is True
    assert blocking["captured_equals_total"] is False


def test_columns_are_traced_to_silver(built: Built) -> None:
    """From the SQL itself, through common table expressions and expressions."""
    lineage = built.metadata("customers")["dagster/column_lineage"].deps_by_column
    assert lineage["lifetime_value"] == [dg.TableColumnDep(silver("orders"), "total")]
    assert lineage["email"] == [dg.TableColumnDep(silver("customers"), "email")]
    prices = built.metadata("product_prices")["dagster/column_lineage"].deps_by_column
    assert prices["price"] == [dg.TableColumnDep(silver("products"), "price")]


def test_every_column_that_reads_silver_says_which_column(built: Built) -> None:
    """Only counts and what the snapshot adds come from no column."""
    from_nowhere = {
        "daily_revenue": {"orders", "silver_rows"},
        "daily_payments": {"payments"},
        "conversion_funnel": {"sessions"},
        "customers": {"paid_orders"},
        "product_performance": set(),
        "product_prices": {"version_id", "valid_from", "valid_to", "seen_at"},
    }
    for model, expected in from_nowhere.items():
        lineage = built.metadata(model)["dagster/column_lineage"].deps_by_column
        assert {column for column, deps in lineage.items() if not deps} == expected, model


def test_a_materialization_shows_rows_and_real_column_types(built: Built) -> None:
    """The types are those of the table that was made, the descriptions those of the project."""
    shown = built.metadata("customers")
    assert shown["dagster/row_count"] == 3
    assert shown["dagster/relation_identifier"] == "gold.customers"
    columns = {column.name: column for column in shown["dagster/column_schema"].columns}
    assert columns["signed_up_at"].type == "timestamp with time zone"
    assert (
        columns["lifetime_value"].description
        == "Sum of the totals of all paid orders, in the currency of the orders."
    )


def test_part_of_gold_can_be_built(shop: TestWarehouse, build: Build) -> None:
    """The model that was asked for and its own tests; not the tests of others that read it too."""
    outcome = build(selection=dg.AssetSelection.assets(key("product_prices")))
    assert outcome.success
    made = outcome.asset_materializations_for_node("gold")
    assert {event.asset_key for event in made} == {key("product_prices")}
    assert {check.asset_key for check in outcome.get_asset_check_evaluations()} == {key("product_prices")}
    assert not outcome.asset_observations_for_node("gold")


@pytest.mark.parametrize(("passed", "asked"), [(True, 1), (False, 0)])
def test_a_change_in_silver_asks_for_a_build_unless_a_blocking_check_failed(
    gold: dg.AssetsDefinition, passed: bool, asked: int
) -> None:
    """The condition itself, judged by Dagster over a history of events."""
    check = dg.AssetCheckSpec("contract", asset=silver("orders"), blocking=True)

    @dg.multi_asset(
        specs=[dg.AssetSpec(silver("orders")), dg.AssetSpec(silver("customers"))], check_specs=[check]
    )
    def judge() -> Any:
        yield dg.MaterializeResult(asset_key=silver("customers"))
        yield dg.MaterializeResult(asset_key=silver("orders"))
        severity = dg.AssetCheckSeverity.ERROR
        yield dg.AssetCheckResult(
            passed=passed, asset_key=silver("orders"), check_name="contract", severity=severity
        )

    definitions = dg.Definitions(assets=[judge, gold])
    instance = dg.DagsterInstance.ephemeral()
    before = dg.evaluate_automation_conditions(definitions, instance)
    dg.materialize([judge], instance=instance, raise_on_error=False)
    after = dg.evaluate_automation_conditions(definitions, instance, cursor=before.cursor)
    assert after.get_num_requested(key("customers")) == asked


def test_loading_the_definitions_imports_neither_dbt_nor_a_driver(built: Built) -> None:
    """A process that only loads them pays milliseconds instead of seconds."""
    program = f"""
import sys
from pathlib import Path
from datops_assets.components.gold import Gold
from datops_assets.config.settings import Settings
settings = Settings(project_root=Path({str(DBT_PROJECT.parent)!r}), home=Path({str(built.home)!r}))
Gold(team="commerce").definitions(settings)
heavy = set("dbt dbt_common dagster_dbt sqlglot agate psycopg psycopg2 pandas pyarrow numpy".split())
print(sorted(heavy & {{name.split(".")[0] for name in sys.modules}}))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
