"""What the assets of a document carry: whose they are, what they hold, when they count as stale."""

from __future__ import annotations

import gzip
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from datops_assets.components.pipeline import pipeline_definitions

DOCUMENT = """\
pipeline: shop
team: commerce
owners: [data@example.com]
description: What the shop sells.
tags: {domain: sales}
schedule: "0 5 * * *"
source: {type: files, path: landing}
after: [synthetic/shop]
freshness: {warn_after_h: 26, fail_after_h: 50}
pool: shop_files
retries: {max: 4, delay_s: 7}
tables:
  orders:
    files: "orders/*.csv.gz"
    description: One row an order.
    owners: ["team:checkout"]
    tags: {pii: "no"}
    freshness: {fail_after_h: 3}
    contract:
      key: [order_id]
      columns:
        order_id: {type: bigint, required: true, description: Number on the invoice.}
        total: {type: "numeric(12,2)"}
        note: {type: text, severity: block, length: {max: 5}}
      rules:
        - {name: total_is_positive, expression: "total >= 0", severity: warn}
        - {row_count: {min: 1}, severity: block}
  events:
    files: "events/*.jsonl"
"""
BRONZE, SILVER, EVENTS = (
    dg.AssetKey(path)
    for path in (["bronze", "shop", "orders"], ["silver", "shop", "orders"], ["bronze", "shop", "events"])
)


@pytest.fixture
def document(landing):
    return landing.declare(DOCUMENT)


@pytest.fixture
def shown(document) -> dg.Definitions:
    """The definitions as a code location resolves them."""
    return dg.Definitions.merge(
        pipeline_definitions(document), dg.Definitions(executor=dg.in_process_executor)
    )


def spec(shown: dg.Definitions, key: dg.AssetKey) -> Any:
    return shown.resolve_asset_graph().get(key)


def test_owners_are_the_tables_own_else_the_documents(shown):
    assert list(spec(shown, SILVER).owners) == ["team:checkout"]
    assert list(spec(shown, EVENTS).owners) == ["data@example.com"]


def test_without_owners_the_team_answers(landing):
    alone = pipeline_definitions(landing.declare(DOCUMENT.replace("owners: [data@example.com]\n", "")))
    assert list(alone.resolve_asset_graph().get(EVENTS).owners) == ["team:commerce"]


def test_groups_are_the_layers_and_kinds_say_format_and_place(shown):
    groups = {key: spec(shown, key).group_name for key in (BRONZE, SILVER)}
    assert groups == {BRONZE: "bronze", SILVER: "silver"}
    assert spec(shown, BRONZE).kinds == {"csv", "postgres"}
    assert spec(shown, EVENTS).kinds == {"jsonl", "postgres"}
    assert spec(shown, SILVER).kinds == {"contract", "postgres"}


def test_tags_of_document_table_and_layer_are_all_there(shown):
    assert {"domain": "sales", "pii": "no", "layer": "silver"}.items() <= spec(shown, SILVER).tags.items()


def test_descriptions_are_those_of_the_document_or_say_what_it_is(shown):
    assert spec(shown, SILVER).description == "One row an order."
    assert spec(shown, EVENTS).description == "events of shop as delivered: every record of every file."
    assert spec(shown, BRONZE).description == "orders of shop as delivered: every record of every file."


def test_the_contract_is_the_column_schema(shown):
    [order_id, total, _] = spec(shown, SILVER).metadata["dagster/column_schema"].columns
    assert (order_id.name, order_id.type, order_id.description) == (
        "order_id",
        "bigint",
        "Number on the invoice.",
    )
    assert order_id.constraints.nullable is False
    assert (total.type, total.constraints.nullable) == ("numeric(12,2)", True)


def test_relations_are_named_as_psql_names_them(shown):
    assert spec(shown, SILVER).metadata["dagster/relation_identifier"] == "silver.shop_orders"


def test_freshness_is_the_tables_own_else_the_documents_and_bronze_has_it_where_silver_is_missing(shown):
    own = spec(shown, SILVER).freshness_policy
    assert (own.fail_window.to_timedelta(), own.warn_window) == (timedelta(hours=3), None)
    others = spec(shown, EVENTS).freshness_policy
    assert (others.fail_window.to_timedelta(), others.warn_window.to_timedelta()) == (
        timedelta(hours=50),
        timedelta(hours=26),
    )
    assert spec(shown, BRONZE).freshness_policy is None


def test_loads_share_the_sources_pool(shown, landing):
    assert spec(shown, BRONZE).pools == {"shop_files"}
    plain = pipeline_definitions(landing.declare(DOCUMENT.replace("pool: shop_files\n", "")))
    assert plain.resolve_asset_graph().get(BRONZE).pools == {"source_shop"}


def test_retries_wait_longer_each_time(shown):
    assets = {asset.key: asset for asset in shown.assets or [] if isinstance(asset, dg.AssetsDefinition)}
    for key in (BRONZE, SILVER):
        policy = assets[key].op.retry_policy
        assert (policy.max_retries, policy.delay, policy.backoff) == (4, 7, dg.Backoff.EXPONENTIAL)


def test_loads_come_after_what_the_document_names(shown):
    assert spec(shown, BRONZE).parent_keys == {dg.AssetKey(["synthetic", "shop"])}


def test_the_schedule_runs_the_sources_job_in_utc_without_being_switched_on(shown):
    [schedule] = shown.get_repository_def().schedule_defs
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert (schedule.job_name, schedule.cron_schedule, schedule.execution_timezone) == (
        "shop_pipeline",
        "0 5 * * *",
        "UTC",
    )


def test_the_sensor_runs_without_being_switched_on_unless_the_document_says_so(shown, landing):
    assert (
        shown.get_repository_def().get_sensor_def("shop_files").default_status
        is dg.DefaultSensorStatus.RUNNING
    )
    quiet = pipeline_definitions(landing.declare(DOCUMENT + "sensor: stopped\n"))
    assert (
        quiet.get_repository_def().get_sensor_def("shop_files").default_status
        is dg.DefaultSensorStatus.STOPPED
    )


def test_checks_stand_on_the_assets_and_block_where_a_rule_does(shown):
    graph = shown.resolve_asset_graph()
    blocking = {
        (node.key.asset_key, node.key.name): node.blocking
        for node in (graph.get(key) for key in graph.asset_check_keys)
    }
    assert blocking == {
        (BRONZE, "files"): False,
        (EVENTS, "files"): False,
        (SILVER, "contract"): True,
        (SILVER, "total_is_positive"): False,
        (SILVER, "row_count_of_the_table"): True,
    }


def test_a_run_shows_rows_types_and_where_each_column_came_from(document, landing, project, instance):
    landing.put("events/1.jsonl", '{"id": 1}\n')
    landing.put("orders/1.csv.gz", gzip.compress(b"order_id,total,note\n1,2.50,\n2,-1,x\n"))
    job = pipeline_definitions(document).resolve_job_def("shop_pipeline")
    result = job.execute_in_process(instance=instance)
    events = {
        event.asset_key: event.materialization.metadata for event in result.get_asset_materialization_events()
    }
    assert events[BRONZE]["dagster/row_count"].value == 2
    assert [column.name for column in events[BRONZE]["dagster/column_schema"].value.columns][:3] == [
        "order_id",
        "total",
        "note",
    ]
    assert events[SILVER]["dagster/row_count"].value == 2
    assert events[SILVER]["dagster/column_lineage"].value.deps_by_column["total"] == [
        dg.TableColumnDep(BRONZE, "total")
    ]
    [warned] = [
        check for check in result.get_asset_check_evaluations() if check.check_name == "total_is_positive"
    ]
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert warned.description == "total_is_positive: 1 of 2 rows"
