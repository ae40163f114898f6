"""Runs from Python: here, elsewhere, waited for, cancelled."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import psutil
import pytest

from datops_assets.pipelines import (
    DataSource,
    ExecutionContext,
    ExecutionError,
    Pipeline,
    RunState,
    Task,
    Transformation,
)

WITHIN_S = 60


@pytest.fixture
def pipeline(project: Path) -> Pipeline:
    """A file with two rows, a table, and one made of it."""
    file = project / "landing" / "orders" / "1.csv"
    file.parent.mkdir(parents=True)
    file.write_text("id,total\n1,5\n2,7\n")
    orders = Task("orders", files="orders/*.csv", load="merge").key("id")
    orders.column("id", "bigint", required=True).column("total", "integer")
    built = Pipeline("store", team="x", source=DataSource("files", path="landing"))
    return built.add(orders, Transformation("large", of="orders").filter("total > 5"))


def test_plan_run_and_status_are_those_of_the_commands(pipeline, warehouse):
    assert [(row["step"], row["what"], row["count"]) for row in pipeline.plan()] == [
        ("bronze", "load", 1), ("silver", "judge", 1), ("transform", "build", 0),
    ]  # fmt: skip
    result = pipeline.run()
    assert result.success
    assert (result.tables[0].rows_added, result.transforms[0].rows) == (2, 1)
    status = {row["table"]: (row["state"], row["silver_rows"]) for row in pipeline.status()}
    assert status == {"store.orders": ("ok", 2), "store.large": ("ok", 1)}


def test_a_started_run_is_looked_at_and_waited_for(pipeline, warehouse):
    execution = pipeline.start()
    assert execution.status() is RunState.RUNNING
    result = execution.wait(WITHIN_S)
    assert execution.status() is RunState.SUCCEEDED
    assert (result.success, result.tables[0].rows_passed, result.transforms[0].rows) == (True, 2, 1)
    assert execution.cancel() is RunState.SUCCEEDED


def test_a_run_whose_step_fails_says_so_in_its_result(pipeline):
    pipeline.add(Transformation("wrong", of="orders").cast(total="date"))
    pipeline.add(
        Task("orders", files="orders/*.csv", load="merge")
        .key("id")
        .column("id", "bigint")
        .column("total", "text")
    )
    execution = pipeline.start(ExecutionContext(tables=("orders",)))
    result = execution.wait(WITHIN_S)
    assert execution.status() is RunState.FAILED
    assert any("a value does not fit" in problem for problem in result.problems)


def test_a_run_that_cannot_begin_says_why(pipeline):
    execution = pipeline.start(ExecutionContext(partition="2026-01-31"))
    with pytest.raises(ExecutionError, match="no days to choose from"):
        execution.wait(WITHIN_S)


@pytest.fixture
def held(warehouse, pipeline):
    """The table's lock, so that a run waits in the middle."""
    with warehouse.connect() as other:
        other.execute("select pg_advisory_lock(hashtextextended('datops.store.orders', 0))")
        yield other


def wait_until_it_waits(warehouse) -> None:
    """Until a run stands before the lock."""
    waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())"  # noqa: E501
    end = time.monotonic() + WITHIN_S
    while warehouse.fetch(waiting) == [(0,)]:
        assert time.monotonic() < end, "the run never came to the lock"
        time.sleep(0.1)


def test_cancel_ends_the_run_and_its_process_and_the_next_run_completes(pipeline, warehouse, held):
    execution = pipeline.start()
    wait_until_it_waits(warehouse)
    assert execution.cancel() is RunState.CANCELLED
    assert not psutil.pid_exists(execution.pid)
    with pytest.raises(ExecutionError, match="was cancelled"):
        execution.wait(1)
    held.execute("select pg_advisory_unlock_all()")
    assert pipeline.run().success


def test_a_cancelled_task_cancels_its_run(pipeline, warehouse, held):
    async def main() -> None:
        task = asyncio.create_task(pipeline.run_async())
        await asyncio.to_thread(wait_until_it_waits, warehouse)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    children = [
        child for child in psutil.Process(os.getpid()).children() if "pipeline" in " ".join(child.cmdline())
    ]
    assert children == []


def test_runs_may_be_awaited_together(pipeline, project, warehouse):
    async def main() -> list:
        return await asyncio.gather(pipeline.run_async(), pipeline.plan_async())

    result, _ = asyncio.run(main())
    assert result.success
    assert warehouse.fetch("select count(*) from silver.store_large") == [(1,)]
