"""What a step does when something goes wrong: what is tried again, what ends at once, what is said."""

from __future__ import annotations

import dagster as dg
import psycopg
import pytest

from datops_assets.components.catalogue import open_catalogue
from datops_assets.components.failures import failing_as_dagster
from datops_assets.components.pipeline import pipeline_definitions
from datops_assets.components.plans import pipeline_status
from datops_assets.components.runner import run_pipeline
from datops_assets.errors import ContainerDamagedError, DeclarationError, FileChangedError, LockTakenError

DOCUMENT = """\
pipeline: shop
team: commerce
source: {type: files, path: landing}
retries: {max: 2, delay_s: 0.01}
tables:
  orders:
    files: "*.csv"
    contract: {key: [id], columns: {id: {type: bigint}}}
"""


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (LockTakenError("another run works on it"), 3),
        (FileChangedError("it grew"), 3),
        (psycopg.OperationalError("server closed the connection"), 3),
        (ContainerDamagedError("cut off"), 1),
        (DeclarationError(["pipeline.yaml:1: wrong"]), 1),
        (ZeroDivisionError("a bug"), 1),
        (psycopg.errors.DeadlockDetected("hunter2"), 3),
        (psycopg.errors.LockNotAvailable("hunter2"), 3),
        (psycopg.errors.TooManyConnections("hunter2"), 3),
        (psycopg.errors.AdminShutdown("hunter2"), 3),
        (psycopg.errors.ConnectionFailure("hunter2"), 3),
        (psycopg.errors.DiskFull("hunter2"), 1),
        (psycopg.errors.QueryCanceled("hunter2"), 1),
        (psycopg.errors.OutOfMemory("hunter2"), 1),
        (psycopg.errors.ProgramLimitExceeded("hunter2"), 1),
        (psycopg.errors.UniqueViolation("hunter2"), 1),
    ],
)
def test_only_what_may_pass_is_tried_again(error, tries):
    tried = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2, delay=0.01))
    def step() -> None:
        tried.append(1)
        with failing_as_dagster():
            raise error

    result = dg.materialize([step], raise_on_error=False)
    assert not result.success
    assert len(tried) == tries
    assert "hunter2" not in str(result.all_events)


def test_a_load_is_tried_again_by_the_documents_retries_and_its_days_are_counted_once(
    landing, project, instance, warehouse, monkeypatch
):
    landing.put("1.csv", "id\n1\n")
    document = landing.declare(DOCUMENT)
    from datops_assets.components import bronze

    real, fails = bronze._load, [FileChangedError("it grew"), FileChangedError("it grew again")]

    def flaky(*arguments: object) -> object:
        if fails:
            raise fails.pop()
        return real(*arguments)

    monkeypatch.setattr(bronze, "_load", flaky)
    job = pipeline_definitions(document).resolve_job_def("shop_pipeline")
    result = job.execute_in_process(instance=instance)
    retried = [event.step_key for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert retried == ["bronze__shop__orders"] * 2
    assert warehouse.fetch("select id from silver.shop_orders") == [(1,)]


def test_no_retries_are_no_policy(landing):
    document = landing.declare(DOCUMENT.replace("max: 2", "max: 0"))
    assert all(asset.op.retry_policy is None for asset in pipeline_definitions(document).assets or [])


def test_a_failure_is_our_sentence_and_its_kind():
    with pytest.raises(dg.Failure) as failure, failing_as_dagster():
        raise LockTakenError("another run works on shop.orders; try again")
    assert failure.value.description == "another run works on shop.orders; try again"
    assert failure.value.metadata["kind"].value == "LockTakenError"
    assert failure.value.__suppress_context__


def test_a_refused_statement_shows_no_cell(warehouse):
    with pytest.raises(dg.Failure) as failure, failing_as_dagster():
        warehouse.conn.execute("select 'hunter2'::integer")
    said = failure.value.description
    assert said == "the warehouse refused a statement (InvalidTextRepresentation, SQLSTATE 22P02)"
    assert failure.value.__cause__ is None


def test_a_cancelled_copy_shows_no_cell_of_its_context():
    """CONTEXT names the line that COPY was at, with its text; Dagster keeps whatever is chained."""
    with (
        pytest.raises(dg.Failure, match=r"a statement was cancelled .* run it again") as failure,
        failing_as_dagster(),
    ):
        raise psycopg.errors.QueryCanceled("CONTEXT: COPY orders, line 7: hunter2")
    assert (failure.value.__cause__, failure.value.__suppress_context__, failure.value.allow_retries) == (
        None,
        True,
        False,
    )


def test_an_error_on_top_of_the_drivers_chains_nothing_either():
    with pytest.raises(dg.Failure) as failure, failing_as_dagster():
        try:
            raise psycopg.errors.QueryCanceled("hunter2")
        finally:
            raise KeyError("in the clean-up")
    assert (failure.value.__cause__, failure.value.__suppress_context__) == (None, True)


def test_a_full_disk_says_what_to_do_next():
    with (
        pytest.raises(dg.Failure, match=r"the disk of the warehouse at hand is full .* free some space"),
        failing_as_dagster(),
    ):
        raise psycopg.errors.DiskFull("could not extend file")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(dg.Failure) as failure, failing_as_dagster():
        raise KeyError("missing")
    assert isinstance(failure.value.__cause__, KeyError)


def keep_out(monkeypatch, times):
    """Let readers hold bronze for longer than a load waits, for so many tries."""
    from datops_assets.ingestion import bronze

    real, left = bronze._add_columns, [True] * times

    def locked_out(conn, table, *rest, **named):
        if left and left.pop():
            raise LockTakenError(
                f"bronze.{table.relation} has to change, but readers held it for 10s; try again"
            )
        return real(conn, table, *rest, **named)

    monkeypatch.setattr(bronze, "_add_columns", locked_out)


def test_a_file_that_readers_kept_out_is_tried_again_within_the_run(landing, project, warehouse, monkeypatch):
    document = landing.declare(DOCUMENT)
    landing.put("1.csv", "id\n1\n")
    assert run_pipeline(document, project).success
    landing.put("2.csv", "id,new\n2,x\n")
    keep_out(monkeypatch, 2)
    run = run_pipeline(document, project)
    assert (run.success, run.problems, run.tables[0].files_refused) == (True, [], [])
    assert warehouse.fetch("select id from silver.shop_orders order by 1") == [(1,), (2,)]


def test_a_file_kept_out_to_the_last_fails_the_run_and_no_other_file(
    landing, project, warehouse, monkeypatch
):
    """Exit code 0 and a passing files check would hide that the file is not there."""
    document = landing.declare(DOCUMENT)
    landing.put("1.csv", "id\n1\n")
    assert run_pipeline(document, project).success
    landing.put("2.csv", "id,new\n2,x\n")
    landing.put("3.csv", "id\n3\n")
    keep_out(monkeypatch, 3)
    run = run_pipeline(document, project)
    assert not run.success
    assert "1 file(s) were not taken" in run.problems[0] and "readers held it" in run.problems[0]
    assert [line.partition(":")[0] for line in run.tables[0].files_refused] == ["2.csv"]
    assert warehouse.fetch("select id from silver.shop_orders order by 1") == [(1,), (3,)]
    with open_catalogue(project) as catalogue:
        (row,) = pipeline_status(catalogue, document)
    assert (row["state"], row["refused_files"]) == ("files refused", 1)
    assert run_pipeline(document, project).success
