"""kill -9 where a function begins, for those that a run calls: also between two steps nobody thought of."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from datops_assets_tests.kill.conftest import Nursery, Store

WRITING = re.compile(r":(LoadJob.finish|reserve_load|DamagedRecords.write|write_judged_loads|Silver.merge)$")
"""Functions right before which something may have been committed too early."""


def functions_called(store: Store, nursery: Nursery) -> list[str]:
    """Names of the functions that a run over changed files calls, in order of their first call."""
    nursery.start()
    assert nursery.end() == 0
    change(store)
    nursery.start(record="called")
    assert nursery.end() == 0
    return [name for name in Path("called").read_text().splitlines() if "<" not in name]


def change(store: Store) -> None:
    for path in ("orders/0.csv", "events/0.jsonl", "payments/0.parquet", "stock/0.csv"):
        store.deliver(path, 5)


def complete(store: Store, nursery: Nursery) -> None:
    nursery.start()
    assert nursery.end() == 0
    store.require_complete()


@pytest.mark.parametrize(
    "everywhere",
    [
        pytest.param(False, marks=pytest.mark.slow),
        pytest.param(True, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_a_run_killed_where_a_function_begins_is_completed_once_by_the_next(
    store: Store, nursery: Nursery, everywhere: bool
) -> None:
    """Once where it begins for the first table, once for a later one, which has another format."""
    called = functions_called(store, nursery)
    chosen = [name for name in called if everywhere or WRITING.search(name)]
    assert len(chosen) >= 5
    died = 0
    for number, function in enumerate(chosen):
        change(store)
        nursery.start(function=function, hits=1 + number % 3 if everywhere else 2)
        died += nursery.end() == -signal.SIGKILL
        store.require_nothing_half()
        if everywhere and number % 5 == 0:
            complete(store, nursery)
    assert died >= len(chosen) / 2
    complete(store, nursery)
