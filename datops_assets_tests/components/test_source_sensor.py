"""The sensor of a source: what starts a run, what does not, and what it says then."""

from __future__ import annotations

import dagster as dg
import pytest

from datops_assets.components import source_sensor
from datops_assets.components.document import PipelineDocument
from datops_assets.components.pipeline import pipeline_definitions
from datops_assets.components.runner import run_pipeline
from datops_assets_tests.components.test_pipeline_runs import document, put  # noqa: F401 a fixture

pytestmark = pytest.mark.usefixtures("document")


def tick(
    document: PipelineDocument, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    """One evaluation of the source's sensor."""
    (sensor,) = pipeline_definitions(document).sensors or []
    assert isinstance(sensor, dg.SensorDefinition)
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    result = sensor(context)
    assert isinstance(result, (dg.SensorResult, dg.SkipReason))
    return result


@pytest.fixture
def instance():
    """An instance without history."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_one_run_takes_all_files_that_are_new(document, instance):
    found = tick(document, instance)
    assert len(found.run_requests) == 1
    assert found.run_requests[0].tags["datops/new_files"] == "2"


def test_nothing_new_is_said_with_a_count(document, project, instance):
    run_pipeline(document, project)
    assert tick(document, instance).skip_message == "nothing new: 2 unchanged"


def test_a_folder_without_files_is_said_with_the_patterns(document, project, instance):
    for file in (project / "landing").rglob("*.csv"):
        file.unlink()
    assert tick(document, instance).skip_message == (
        "nothing found in landing; expected customers/*, orders/*"
    )


def test_the_same_files_start_a_second_run_only_after_a_wait(document, instance, monkeypatch):
    now = 1_000_000.0
    monkeypatch.setattr(source_sensor.time, "time", lambda: now)
    cursor = tick(document, instance).cursor
    waiting = tick(document, instance, cursor)
    assert "did not take them; next try in 60 s" in waiting.skip_message
    now += 61
    again = tick(document, instance, cursor)
    assert len(again.run_requests) == 1
    now += 61
    assert "next try in 59 s" in tick(document, instance, again.cursor).skip_message


def test_another_new_file_does_not_wait_for_the_others(document, project, instance):
    cursor = tick(document, instance).cursor
    put(project, "orders/9.csv", "order_id,customer_id,total\n99,1,1.00\n")
    assert tick(document, instance, cursor).run_requests[0].tags["datops/new_files"] == "3"


def test_no_second_run_while_one_is_under_way(document, instance):
    job = pipeline_definitions(document).resolve_job_def("shop_pipeline")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert "is under way" in tick(document, instance).skip_message


def test_an_unreachable_warehouse_is_a_reason_and_not_a_crash(document, instance, monkeypatch):
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", "postgresql://datops:hunter2@127.0.0.1:1/datops")
    said = tick(document, instance).skip_message
    assert said.startswith("cannot look for files: ")
    assert "hunter2" not in said


def test_what_bronze_has_and_silver_has_not_starts_a_run(document, project, instance):
    """Bronze alone was made, by hand or by a run that died before silver."""
    job = pipeline_definitions(document).resolve_job_def("shop_pipeline")
    bronze = [dg.AssetKey(["bronze", "shop", table]) for table in ("customers", "orders")]
    job.execute_in_process(instance=instance, asset_selection=bronze)
    assert len(tick(document, instance).run_requests) == 1
    run_pipeline(document, project)
    assert tick(document, instance).skip_message == "nothing new: 2 unchanged"


def test_a_load_that_was_undone_leaves_silver_by_the_next_run(document, project, warehouse, instance):
    run_pipeline(document, project)
    warehouse.conn.execute("update datops.loads set state = 'undone' where path = 'orders/1.csv'")
    assert len(tick(document, instance).run_requests) == 1


def test_what_a_blocking_check_keeps_out_starts_nothing(document, project, instance):
    run_pipeline(document, project)
    put(project, "customers/2.csv", "customer_id,country\n1,XX\n3,YY\n")
    assert not run_pipeline(document, project).success
    assert tick(document, instance).skip_message == "nothing new: 3 unchanged"
