"""kill -9 at moments that nobody chose, from a seed: the next run completes everything once."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import pytest

from datops_assets_tests.kill.conftest import Nursery, Store


@pytest.mark.parametrize(
    ("seed", "rounds"), [(11, 4), pytest.param(23, 150, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_run_killed_at_any_moment_is_completed_once_by_the_next(
    store: Store, nursery: Nursery, seed: int, rounds: int
) -> None:
    draw = random.Random(seed)
    longest_s = finish(nursery)
    store.require_complete()
    killed = 0
    # A run may be over before its moment comes, on a machine that was busy when the last one was timed.
    for _ in range(4 * rounds):
        for _ in range(draw.randrange(1, 4)):
            store.something()
        process = nursery.start()
        # Most of a run's time goes before the first load: squared, so that kills fall where the work is, too.
        moment_s = longest_s * (1 - draw.random() ** 2)
        time.sleep(moment_s)
        with suppress(ProcessLookupError):  # it came to its end before
            os.kill(process, signal.SIGKILL)
        was_killed = nursery.end() == -signal.SIGKILL
        store.require_nothing_half()
        took_s = finish(nursery)
        longest_s = max(took_s, longest_s * 0.9) if was_killed else min(took_s, moment_s)
        store.require_complete()
        killed += was_killed
        if killed == rounds:
            return
    pytest.fail(f"{killed} of {4 * rounds} runs were killed before their end, {rounds} were wanted")


def finish(nursery: Nursery) -> float:
    """Let a run come to its end; answers how long it took."""
    started = time.monotonic()
    nursery.start()
    assert nursery.end() == 0
    return time.monotonic() - started
