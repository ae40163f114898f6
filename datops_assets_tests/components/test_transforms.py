"""Transformations of a document: what is refused before a run, what a run builds, what starts it."""

from __future__ import annotations

import dagster as dg
import pytest
from typer.testing import CliRunner

from datops_assets.cli import _app
from datops_assets.components.bronze import keys_of
from datops_assets.components.declarations import read_declared
from datops_assets.components.pipeline import pipeline_definitions
from datops_assets.components.runner import run_pipeline
from datops_assets.errors import DeclarationError

SHOP = """\
pipeline: shop
team: commerce
source: {type: files, path: landing}
retries: {max: 0}
tables:
  customers:
    files: customers/*.csv
    load: merge
    contract:
      key: [customer_id]
      columns:
        customer_id: {type: bigint, required: true}
        country: {type: text}
  orders:
    files: orders/*.csv
    load: merge
    contract:
      key: [order_id]
      columns:
        order_id: {type: bigint, required: true}
        customer_id: {type: bigint}
        total: {type: "numeric(12,2)"}
transforms:
  revenue:
    from: paid
    description: What each country brings.
    steps:
      - aggregate: {by: [country], columns: {revenue: sum(total), orders: count(*)}}
  paid:
    from: orders
    steps:
      - filter: total > 0
      - lookup: {table: customers, on: [customer_id], columns: [country]}
"""
OTHER = """\
pipeline: crm
team: sales
source: {type: files, path: landing}
tables:
  leads: {files: leads/*.csv}
transforms:
  best:
    from: shop.revenue
    steps:
      - sort: {by: ["-revenue"], limit: 1}
"""


@pytest.fixture
def document(project, landing):
    """Two customers, three orders, one of them without a total to count."""
    landing.put("customers/1.csv", "customer_id,country\n1,DE\n2,FR\n")
    landing.put("orders/1.csv", "order_id,customer_id,total\n10,1,5.00\n11,2,7.00\n12,1,-1.00\n13,1,2.50\n")
    return landing.declare(SHOP)


def revenue(warehouse) -> list[tuple]:
    """Rows of the transformation's table."""
    return [(c, str(r), n) for c, r, n in warehouse.fetch("select * from silver.shop_revenue order by 1")]


def test_a_run_builds_transformations_behind_the_tables_that_they_read(document, project, warehouse):
    result = run_pipeline(document, project)
    assert result.success, result.problems
    assert revenue(warehouse) == [("DE", "7.50", 2), ("FR", "7.00", 1)]
    assert [(made.table, made.rows) for made in result.transforms] == [("paid", 3), ("revenue", 2)]


def test_a_run_of_one_table_also_builds_what_is_made_of_it(document, project, landing, warehouse):
    run_pipeline(document, project)
    landing.put("orders/2.csv", "order_id,customer_id,total\n14,2,1.00\n")
    result = run_pipeline(document, project, tables=["orders"])
    assert result.success, result.problems
    assert revenue(warehouse)[1] == ("FR", "8.00", 2)


def test_an_asset_shows_its_statement_columns_and_where_they_come_from(document, project, instance):
    run = pipeline_definitions(document).resolve_job_def("shop_pipeline")
    result = run.execute_in_process(instance=instance, raise_on_error=False)
    key = dg.AssetKey(["silver", "shop", "revenue"])
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == key]
    metadata = event.materialization.metadata
    assert metadata["dagster/row_count"].value == 2
    assert 'SUM("total") AS "revenue"' in metadata["statement"].value
    schema = metadata["dagster/column_schema"].schema
    assert [(column.name, column.type) for column in schema.columns] == [
        ("country", "text"), ("revenue", "numeric"), ("orders", "bigint"),
    ]  # fmt: skip
    lineage = metadata["dagster/column_lineage"].lineage.deps_by_column
    assert [(dep.asset_key.path, dep.column_name) for dep in lineage["revenue"]] == [
        (["silver", "shop", "paid"], "total")
    ]
    spec = pipeline_definitions(document).resolve_asset_graph().get(key)
    assert spec.parent_keys == {dg.AssetKey(["silver", "shop", "paid"])}
    assert spec.metadata["steps"] == "aggregate"


def test_a_transformation_that_fails_leaves_its_table_and_the_others(document, project, landing, warehouse):
    run_pipeline(document, project)
    broken = landing.declare(SHOP + "      - cast: {country: integer}\n")
    result = run_pipeline(broken, project)
    assert not result.success
    assert any("a value does not fit" in problem for problem in result.problems)
    assert len(revenue(warehouse)) == 2
    assert warehouse.fetch("select count(*) from silver.shop_orders") == [(4,)]


def write(project, **documents: str) -> list:
    """Documents as files of their own, in a folder."""
    paths = []
    for name, text in documents.items():
        (project / f"{name}.yaml").write_text(text)
        paths.append(project / f"{name}.yaml")
    return paths


def test_a_transformation_may_read_a_table_of_another_document(project, landing, document, warehouse):
    declared = read_declared(project, write(project, shop=SHOP, crm=OTHER))
    assert declared.problems == []
    landing.put("leads/1.csv", "id\n1\n")
    crm = declared.pipeline("crm").document
    early = run_pipeline(crm, project)
    assert early.problems == [
        "crm.best reads shop.revenue, and silver.shop_revenue is not there; run it first: datops pipeline run shop"
    ]
    run_pipeline(document, project)
    assert run_pipeline(crm, project).success
    assert warehouse.fetch("select country from silver.crm_best") == [("DE",)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("by: [country]", "by: [contry]", "shop.yaml:28: transforms.revenue.steps.0.aggregate.by.0: there is no"),
        ("from: paid", "from: pade", "shop.yaml:25: transforms.revenue.from: pade: there is no such table"),
        ("from: orders", "from: revenue", "its inputs lead back to itself"),
        ("sum(total)", "sum(country)", "country is text, expected a number"),
        ("table: customers", "table: hr.people", "shop.yaml:33: transforms.paid.steps.1.lookup: hr.people: there is"),
        ("table: customers", "table: crm.leads", "crm.leads: it has no contract, so it has no silver"),
        ("filter: total", "filtre: total", "steps.0.filtre: there is no step of this name, did you mean `filter`?"),
        ("on: [customer_id], col", "on: [customer], col", "no column 'customer' here, did you mean customer_id?"),
        ("  paid:\n    from", "  orders:\n    from", "is a table of this document too"),
    ],
    ids=lambda value: value[:30],
)  # fmt: skip
def test_a_mistake_is_said_with_its_line_before_a_run(project, old, new, said):
    assert old in SHOP
    problems = read_declared(project, write(project, shop=SHOP.replace(old, new), crm=OTHER)).problems
    assert any(said in problem for problem in problems), problems


def test_inputs_that_lead_in_a_circle_through_two_documents_are_refused(project):
    shop = SHOP.replace("from: orders", "from: crm.best")
    problems = read_declared(project, write(project, shop=shop, crm=OTHER)).problems
    assert any("lead back to itself" in problem for problem in problems), problems


def test_a_table_of_two_documents_under_one_name_is_refused(project):
    crm = OTHER.replace("pipeline: crm", "pipeline: shop_x").replace("best:", "y:")
    shop = SHOP.replace("  revenue:", "  x_y:")
    problems = read_declared(
        project, write(project, shop=shop, crm=crm.replace("shop.revenue", "shop.x_y"))
    ).problems
    assert any("would share the table shop_x_y" in problem for problem in problems), problems


def test_documents_are_refused_whole_by_the_reader_of_a_component(project, landing):
    with pytest.raises(DeclarationError, match="there is no column 'contry'"):
        landing.declare(SHOP.replace("by: [country]", "by: [contry]"))


def test_the_statement_is_printed_for_both_engines_without_a_warehouse(tmp_path, monkeypatch):
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    (tmp_path / "store.yaml").write_text(SHOP.replace("pipeline: shop", "pipeline: store"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", "postgresql://nobody:x@127.0.0.1:1/none")
    call = ["pipeline", "sql", "--config", "store.yaml"]
    shown = CliRunner().invoke(_app(), call).output
    assert shown.index("-- store.paid") < shown.index("-- store.revenue")
    assert 'FROM "silver"."store_paid"' in shown
    spark = (
        CliRunner()
        .invoke(_app(), ["pipeline", "sql", "store.revenue", "--engine", "spark", *call[2:]])
        .output
    )
    assert "FROM `silver`.`store_paid`" in spark
    assert "store.paid" not in spark


def test_silver_changed_by_another_run_starts_the_transformation_and_its_own_job_does_not(
    document, project, instance
):
    definitions = dg.Definitions.merge(
        pipeline_definitions(document), dg.Definitions(executor=dg.in_process_executor)
    )
    asked = dg.evaluate_automation_conditions(definitions, instance)
    definitions.resolve_job_def("shop_pipeline").execute_in_process(
        instance=instance, tags={"datops/pipeline": "shop"}, asset_selection=keys_of(document)
    )
    asked = dg.evaluate_automation_conditions(definitions, instance, cursor=asked.cursor)
    assert asked.total_requested == 0
    orders = [dg.AssetKey([layer, "shop", "orders"]) for layer in ("silver",)]
    everything = definitions.resolve_implicit_global_asset_job_def()
    everything.execute_in_process(instance=instance, asset_selection=orders)
    asked = dg.evaluate_automation_conditions(definitions, instance, cursor=asked.cursor)
    assert asked.get_num_requested(dg.AssetKey(["silver", "shop", "paid"])) == 1
    assert asked.get_num_requested(dg.AssetKey(["silver", "shop", "revenue"])) == 1
