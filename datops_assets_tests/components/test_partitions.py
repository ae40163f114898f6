"""Daily partitions: what a run of one day, of some days and of everything new does and marks."""

from __future__ import annotations

from contextlib import nullcontext

import dagster as dg
import pytest

from datops_assets.components import runner
from datops_assets.components.document import PipelineDocument
from datops_assets.components.pipeline import job_definitions, pipeline_definitions
from datops_assets.components.runner import run_pipeline
from datops_assets.errors import DeclarationError

pytestmark = pytest.mark.usefixtures("project")

DOCUMENT = """\
pipeline: web
team: growth
source: {type: files, path: landing}
retries: {max: 0}
tables:
  visits:
    files: visits/*.csv
    load: merge
    partition: {daily: '(\\d{4}-\\d{2}-\\d{2})', start: 2026-01-03}
    contract:
      key: [visit]
      columns:
        visit: {type: bigint, required: true}
        page: {type: bigint}
      rules:
        - {name: known_page, foreign_key: [page], references: pages, columns: [page], severity: warn}
  pages:
    files: pages.csv
    load: merge
    contract: {key: [page], columns: {page: {type: bigint}}}
  clicks:
    files: clicks/*.csv
    partition: {daily: '(\\d{4}-\\d{2}-\\d{2})', start: 2026-01-05}
"""
VISITS, CLICKS, PAGES = (dg.AssetKey(["bronze", "web", name]) for name in ("visits", "clicks", "pages"))
SILVER_PAGES = dg.AssetKey(["silver", "web", "pages"])
SILVER = dg.AssetKey(["silver", "web", "visits"])


@pytest.fixture
def document(landing) -> PipelineDocument:
    """Visits of three days with a gap, clicks of one of them, and a table without days."""
    for number, day in enumerate(("2026-01-05", "2026-01-06", "2026-01-09"), 1):
        visits(landing, day, number)
    landing.put("clicks/2026-01-06.csv", "x\n1\n")
    landing.put("pages.csv", "page\n1\n")
    return landing.declare(DOCUMENT)


def visits(landing, day: str, *numbers: int) -> None:
    landing.put(f"visits/{day}.csv", "visit,page\n" + "".join(f"{number},1\n" for number in numbers))


def run_everything_new(document: PipelineDocument, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """What sensor and schedule start: the job of the code location."""
    definitions = dg.Definitions.merge(
        pipeline_definitions(document), dg.Definitions(executor=dg.in_process_executor)
    )
    repository = definitions.get_repository_def()
    repository.get_all_jobs()  # where Dagster looks for names that clash
    job = repository.get_job("web_pipeline")
    return job.execute_in_process(instance=instance, raise_on_error=False)


def run_days(document: PipelineDocument, instance, first: str, last: str, *keys: dg.AssetKey):
    """What a backfill starts: one run for a range of days."""
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = job_definitions(document, by_day=True).resolve_job_def("web_pipeline")
    return job.execute_in_process(
        instance=instance, tags=tags, asset_selection=list(keys) or None, raise_on_error=False
    )


def marked(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> list[str]:
    """Days that the run recorded as materialized."""
    events = result.get_asset_materialization_events()
    return [event.partition for event in events if event.asset_key == key and event.partition]


def in_silver(warehouse) -> list[int]:
    return [number for (number,) in warehouse.fetch("select visit from silver.web_visits order by 1")]


def test_one_run_takes_every_new_day_and_marks_just_those(document, instance, warehouse):
    result = run_everything_new(document, instance)
    assert result.success
    assert in_silver(warehouse) == [1, 2, 3]
    assert marked(result, VISITS) == marked(result, SILVER) == ["2026-01-05", "2026-01-06", "2026-01-09"]
    assert marked(result, CLICKS) == ["2026-01-06"]
    assert instance.get_materialized_partitions(SILVER) == {"2026-01-05", "2026-01-06", "2026-01-09"}


def test_the_next_run_marks_only_the_day_that_is_new(document, landing, instance, warehouse):
    run_everything_new(document, instance)
    visits(landing, "2026-01-07", 4)
    result = run_everything_new(document, instance)
    assert marked(result, VISITS) == marked(result, SILVER) == ["2026-01-07"]
    assert marked(result, CLICKS) == []
    assert in_silver(warehouse) == [1, 2, 3, 4]


def test_a_day_shows_its_own_rows(document, landing, instance):
    visits(landing, "2026-01-09", 7, 8, 9)
    result = run_everything_new(document, instance)
    events = result.get_asset_materialization_events()
    shown = {event.partition: event.materialization.metadata for event in events if event.asset_key == VISITS}
    assert shown["2026-01-05"]["dagster/partition_row_count"].value == 1
    assert shown["2026-01-09"]["dagster/partition_row_count"].value == 3
    assert shown[None]["dagster/row_count"].value == 5


def test_a_day_that_a_killed_run_loaded_is_marked_by_the_next_one(document, instance, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("datops_assets.components.bronze.record_days", _die)
        assert not run_everything_new(document, instance).success
    result = run_everything_new(document, instance)
    assert result.success
    assert marked(result, VISITS) == marked(result, SILVER) == ["2026-01-05", "2026-01-06", "2026-01-09"]


def _die(*_: object) -> None:
    raise RuntimeError("killed")


def test_a_file_that_names_no_day_is_loaded_and_said(document, landing, instance, warehouse):
    landing.put("visits/backlog.csv", "visit,page\n50,1\n")
    landing.put("visits/2025-12-31.csv", "visit,page\n51,1\n")
    result = run_everything_new(document, instance)
    assert result.success
    assert in_silver(warehouse) == [1, 2, 3, 50, 51]
    assert marked(result, VISITS) == ["2026-01-05", "2026-01-06", "2026-01-09"]
    [said] = [check for check in result.get_asset_check_evaluations() if check.asset_key == VISITS]
    assert not said.passed
    assert said.severity is dg.AssetCheckSeverity.WARN
    assert said.description == "2 file(s) belong to no day of the partitions, e.g. visits/2025-12-31.csv"


def test_a_run_of_one_day_loads_and_judges_just_that_day(document, project, warehouse):
    result = run_pipeline(document, project, partition="2026-01-06")
    assert result.success
    assert in_silver(warehouse) == [2]
    assert {table.table: table.rows_added for table in result.tables} == {
        "visits": 1,
        "clicks": 1,
        "pages": 1,
    }


def test_judging_one_day_leaves_what_else_bronze_holds_for_its_own_run(document, instance, warehouse):
    run_days(document, instance, "2026-01-03", "2026-01-09", VISITS)
    result = run_days(document, instance, "2026-01-06", "2026-01-06", PAGES, SILVER_PAGES, SILVER)
    assert result.success
    assert in_silver(warehouse) == [2]
    assert instance.get_materialized_partitions(SILVER) == {"2026-01-06"}


def test_judging_one_day_leaves_another_days_changed_file_as_silver_has_it(
    document, landing, instance, warehouse
):
    run_everything_new(document, instance)
    visits(landing, "2026-01-05", 21)
    visits(landing, "2026-01-06", 22)
    run_days(document, instance, "2026-01-03", "2026-01-09", VISITS)
    run_days(document, instance, "2026-01-06", "2026-01-06", SILVER)
    assert in_silver(warehouse) == [1, 3, 22]
    run_everything_new(document, instance)
    assert in_silver(warehouse) == [3, 21, 22]


def test_a_backfill_is_one_run_over_its_range(document, instance, warehouse):
    result = run_days(document, instance, "2026-01-04", "2026-01-06")
    assert result.success
    assert marked(result, SILVER) == ["2026-01-04", "2026-01-05", "2026-01-06"]
    assert in_silver(warehouse) == [1, 2]


def test_a_changed_contract_judges_every_day_again_and_marks_them(document, landing, instance):
    run_everything_new(document, instance)
    stricter = landing.declare(
        DOCUMENT.replace("page: {type: bigint}", "page: {type: bigint, required: true}", 1)
    )
    result = run_days(stricter, instance, "2026-01-06", "2026-01-06", SILVER)
    assert sorted(marked(result, SILVER)) == ["2026-01-05", "2026-01-06", "2026-01-09"]


def test_where_each_day_replaces_the_table_the_newest_day_is_silver(document, landing, instance, warehouse):
    snapshots = landing.declare(DOCUMENT.replace("load: merge", "load: replace", 1))
    assert run_days(snapshots, instance, "2026-01-05", "2026-01-05").success
    run_days(snapshots, instance, "2026-01-09", "2026-01-09")
    assert in_silver(warehouse) == [3]
    run_days(snapshots, instance, "2026-01-06", "2026-01-06")
    assert in_silver(warehouse) == [3]


def test_the_source_starts_at_the_earliest_day_of_its_tables(document):
    assets = {asset.key: asset for asset in pipeline_definitions(document).assets or []}
    assert assets[CLICKS].partitions_def == assets[VISITS].partitions_def
    assert assets[CLICKS].partitions_def.get_first_partition_key() == "2026-01-03"
    assert assets[PAGES].partitions_def is None


@pytest.mark.parametrize("day", ["2026-01-02", "2999-01-01", "yesterday"])
def test_a_day_that_is_none_is_refused_with_the_days_there_are(document, project, day):
    with pytest.raises(DeclarationError, match=f"{day} is no day of web, expected 2026-01-03 to today"):
        run_pipeline(document, project, partition=day)


def test_a_day_of_a_table_without_days_is_refused(document, project):
    with pytest.raises(DeclarationError, match=r"web\.pages: no days to choose from"):
        run_pipeline(document, project, tables=["pages"], partition="2026-01-05")


def test_the_command_line_is_one_run_too(document, project, monkeypatch):
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr(runner, "dagster_instance", lambda _: nullcontext(instance))
        run_pipeline(document, project)
        assert len(instance.get_runs()) == 1
        assert instance.get_materialized_partitions(VISITS) == {"2026-01-05", "2026-01-06", "2026-01-09"}
