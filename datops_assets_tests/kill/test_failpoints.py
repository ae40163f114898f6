"""kill -9 at each step of a load and of a judgement, through the whole run: the next run completes it once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from datops_assets_tests.kill.conftest import DOCUMENT, Nursery, Store

LOADING = ("after_reserve", "before_copy", "after_copy", "after_quarantine", "before_commit", "after_commit")
DELIVERING = ("before_swap", "in_swap", "after_swap")
JUDGING = ("judge.inserted", "judge.merged", "judge.recorded")
SWAPPING = ("swap.renamed", "swap.done")
LOOSER = DOCUMENT.replace("total: {type: integer, min: 0}", "total: {type: integer, min: -5}")


def die(store: Store, nursery: Nursery, failpoint: str, hits: int = 1) -> None:
    """Run until a step is passed for the `hits`-th time, and no further."""
    nursery.start(failpoint, hits)
    assert nursery.end() == -signal.SIGKILL, failpoint
    store.require_nothing_half()


def complete(nursery: Nursery) -> None:
    nursery.start()
    assert nursery.end() == 0


def change_files(store: Store) -> None:
    """A file of every table anew, and a new one."""
    for path in ("orders/1.csv", "orders/3.csv", "events/0.jsonl", "payments/1.parquet", "stock/0.csv"):
        store.deliver(path)


def test_a_first_run_killed_at_every_step_comes_to_its_end(store: Store, nursery: Nursery) -> None:
    """Eight files of four tables come by a step one after the other, then their judgements."""
    for failpoint in (*LOADING, *DELIVERING, *JUDGING):
        die(store, nursery, failpoint)
    complete(nursery)
    store.require_complete()


def test_changed_files_killed_at_every_step_are_taken_once(store: Store, nursery: Nursery) -> None:
    """A changed file takes the place of the one before it, a new delivery that of the whole one."""
    complete(nursery)
    change_files(store)
    for failpoint in (*LOADING, *DELIVERING, *JUDGING):
        die(store, nursery, failpoint)
        if failpoint in LOADING:
            store.deliver("payments/1.parquet")
    complete(nursery)
    store.require_complete()


def test_a_changed_contract_killed_at_every_step_is_applied_once(store: Store, nursery: Nursery) -> None:
    """Everything is judged again into a new table, which takes the place of the old one."""
    Path("pipeline.yaml").write_text(LOOSER)
    complete(nursery)
    Path("pipeline.yaml").write_text(DOCUMENT)
    for failpoint in (*JUDGING, *SWAPPING):
        die(store, nursery, failpoint)
    complete(nursery)
    store.require_complete()


@pytest.mark.slow
@pytest.mark.parametrize("hits", [1, 3, 5, 7, 8])
@pytest.mark.parametrize("failpoint", LOADING)
def test_a_load_killed_once_is_completed_by_the_next_run(
    store: Store, nursery: Nursery, failpoint: str, hits: int
) -> None:
    die(store, nursery, failpoint, hits)
    complete(nursery)
    store.require_complete()


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", [*LOADING, *DELIVERING, *JUDGING])
def test_a_change_killed_once_is_completed_by_the_next_run(
    store: Store, nursery: Nursery, failpoint: str
) -> None:
    complete(nursery)
    change_files(store)
    die(store, nursery, failpoint, 2 if failpoint not in DELIVERING else 1)
    complete(nursery)
    store.require_complete()


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", [*JUDGING, *SWAPPING])
def test_a_judgement_killed_once_is_completed_by_the_next_run(
    store: Store, nursery: Nursery, failpoint: str
) -> None:
    Path("pipeline.yaml").write_text(LOOSER)
    complete(nursery)
    Path("pipeline.yaml").write_text(DOCUMENT)
    die(store, nursery, failpoint)
    complete(nursery)
    store.require_complete()
