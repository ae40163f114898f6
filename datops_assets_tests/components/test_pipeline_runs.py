"""A document as Dagster runs it: from a file to silver, what fails, and what is left alone."""

from __future__ import annotations

import gzip
from pathlib import Path

import dagster as dg
import pytest

from datops_assets.components.document import PipelineDocument
from datops_assets.components.documents import read_documents
from datops_assets.components.pipeline import pipeline_definitions
from datops_assets.components.runner import run_pipeline
from datops_assets.components.sources.files import missing_folder

DOCUMENT = """\
pipeline: shop
team: commerce
source: {type: files, path: landing}
retries: {max: 0}
tables:
  customers:
    files: customers/*
    format: csv
    load: merge
    contract:
      key: [customer_id]
      columns:
        customer_id: {type: bigint, required: true}
        country: {type: text, in: [DE, FR], max_ratio: 0.5, severity: block}
  orders:
    files: orders/*
    format: csv
    load: merge
    contract:
      key: [order_id]
      columns:
        order_id: {type: bigint, required: true}
        customer_id: {type: bigint, required: true}
        total: {type: "numeric(12,2)", min: 0}
      rules:
        - {name: known_customer, foreign_key: [customer_id], references: customers, columns: [customer_id]}
"""


@pytest.fixture
def document(project: Path) -> PipelineDocument:
    """The document above, with two customers and three orders waiting; one order is bad."""
    (project / "pipeline.yaml").write_text(DOCUMENT)
    put(project, "customers/1.csv", "customer_id,country\n1,DE\n2,FR\n")
    put(project, "orders/1.csv", "order_id,customer_id,total\n10,1,5.00\n11,2,-1.00\n12,9,7.00\n")
    (loaded,) = read_documents(project / "pipeline.yaml", project)
    return loaded.document


def put(project: Path, path: str, content: str | bytes) -> None:
    """Write a file below the landing folder."""
    file = project / "landing" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def silver(warehouse, table: str) -> list[tuple]:
    """Rows of a silver table without our own columns, in order."""
    columns = ", ".join({"customers": ("customer_id", "country"), "orders": ("order_id", "total")}[table])
    return warehouse.fetch(f"select {columns} from silver.shop_{table} order by 1")


def test_good_rows_reach_silver_and_bad_ones_the_quarantine(document, project, warehouse):
    result = run_pipeline(document, project)
    assert result.success
    assert [(row[0], str(row[1])) for row in silver(warehouse, "orders")] == [(10, "5.00")]
    reasons = dict(warehouse.fetch("select _row, reasons from quarantine.shop_orders"))
    assert set(reasons) == {2, 3}
    by_table = {table.table: table for table in result.tables}
    assert (
        by_table["orders"].rows_added,
        by_table["orders"].rows_passed,
        by_table["orders"].rows_quarantined,
    ) == (3, 1, 2)


def test_a_second_run_adds_nothing(document, project, warehouse):
    run_pipeline(document, project)
    again = run_pipeline(document, project)
    assert again.success
    assert [table.rows_added for table in again.tables] == [0, 0]
    assert warehouse.fetch("select count(*) from bronze.shop_orders") == [(3,)]


def test_a_failed_check_stays_failed_through_runs_with_nothing_new(document, project, warehouse):
    put(project, "orders/2.csv", "order_id,customer_id,total\n13,1\n")
    with dg.DagsterInstance.ephemeral() as instance:
        first = failed_checks(materialize(document, instance))
        again = failed_checks(materialize(document, instance))
    assert (
        first
        == again
        == {
            ("bronze/shop/orders", "files"),
            ("silver/shop/orders", "contract"),
            ("silver/shop/orders", "known_customer"),
        }
    )


def test_one_bad_file_fails_the_run_but_keeps_no_other_from_silver(document, project, warehouse):
    run_pipeline(document, project)
    put(project, "orders/2.csv.gz", gzip.compress(b"order_id,customer_id,total\n13,1,1.00\n")[:-9])
    put(project, "orders/3.csv", "order_id,customer_id,total\n14,1,2.00\n")
    result = run_pipeline(document, project)
    assert not result.success
    assert "2.csv.gz" in result.problems[0]
    assert [row[0] for row in silver(warehouse, "orders")] == [10, 14]


def test_a_refused_file_fails_one_run_and_its_check_until_it_is_mended(document, project):
    put(project, "orders/2.csv.gz", gzip.compress(b"order_id,customer_id,total\n13,1,1.00\n")[:-9])
    assert not run_pipeline(document, project).success
    with dg.DagsterInstance.ephemeral() as instance:
        after = materialize(document, instance)
        assert after.success
        assert failed_checks(after) >= {("bronze/shop/orders", "files")}
        put(project, "orders/2.csv.gz", gzip.compress(b"order_id,customer_id,total\n13,1,1.00\n"))
        mended = materialize(document, instance)
    assert ("bronze/shop/orders", "files") not in failed_checks(mended)


def test_a_blocking_check_leaves_silver_as_it_was_and_records_why(document, project, warehouse):
    run_pipeline(document, project)
    put(project, "customers/2.csv", "customer_id,country\n1,XX\n3,YY\n")
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(document, instance)
        materialized = {
            event.asset_key.to_user_string() for event in result.get_asset_materialization_events()
        }
    assert not result.success
    assert "silver/shop/customers" not in materialized
    assert ("silver/shop/customers", "contract") in failed_checks(result)
    assert silver(warehouse, "customers") == [(1, "DE"), (2, "FR")]


def test_an_asset_shows_rows_columns_and_where_they_came_from(document, project):
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(document, instance)
        metadata = {
            event.asset_key.to_user_string(): event.materialization.metadata
            for event in result.get_asset_materialization_events()
        }
    bronze, orders = metadata["bronze/shop/orders"], metadata["silver/shop/orders"]
    assert (bronze["dagster/row_count"].value, bronze["files_loaded"].value) == (3, 1)
    assert "orders/1.csv" in bronze["loads"].value
    assert (orders["dagster/row_count"].value, orders["rows_quarantined"].value) == (1, 2)
    (origin,) = orders["dagster/column_lineage"].value.deps_by_column["total"]
    assert (origin.asset_key, origin.column_name) == (dg.AssetKey(["bronze", "shop", "orders"]), "total")


def test_columns_that_change_between_files_show_on_the_asset(document, project):
    run_pipeline(document, project)
    put(project, "orders/2.csv", "order_id,customer_id,total,coupon\n15,1,1.00,X\n")
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(document, instance)
        events = {
            e.asset_key.to_user_string(): e.materialization.metadata
            for e in result.get_asset_materialization_events()
        }
    assert events["bronze/shop/orders"]["columns_changed"].value == {"orders/2.csv": {"appeared": ["coupon"]}}


def test_an_unreachable_warehouse_is_one_sentence(document, project, monkeypatch):
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", "postgresql://datops:hunter2@127.0.0.1:1/datops")
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(document, instance)
    (failure, *_) = [event for event in result.all_events if event.is_step_failure]
    said = failure.step_failure_data.user_failure_data.description
    assert "127.0.0.1:1" in said
    assert "hunter2" not in repr(result.all_events)


def materialize(document: PipelineDocument, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """Run the source's job in this process."""
    job = pipeline_definitions(document).resolve_job_def("shop_pipeline")
    return job.execute_in_process(instance=instance, raise_on_error=False)


def failed_checks(result: dg.ExecuteInProcessResult) -> set[tuple[str, str]]:
    """(asset, check) of every evaluation that did not pass."""
    evaluations = result.get_asset_check_evaluations()
    return {(one.asset_key.to_user_string(), one.check_name) for one in evaluations if not one.passed}


def test_a_folder_that_is_gone_fails_a_scheduled_run_with_the_sentence_of_the_command(
    document: PipelineDocument, project: Path
) -> None:
    """As a schedule starts it: no command looked first."""
    (project / "landing").rename(project / "elsewhere")
    run = run_pipeline(document, project)
    assert not run.success
    said = f"shop: the folder {project / 'landing'} does not exist; make it, or correct the path"
    assert any(said in problem for problem in run.problems)


def test_a_place_behind_a_url_is_no_folder_to_look_for(project: Path) -> None:
    (project / "pipeline.yaml").write_text(DOCUMENT.replace("path: landing", "path: memory://landing"))
    (loaded,) = read_documents(project / "pipeline.yaml", project)
    assert missing_folder(loaded.document, project) is None
