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
    ("seed", "rounds"), [(11, 6), pytest.param(23, 150, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_run_killed_at_any_moment_is_completed_once_by_the_next(
    store: Store, nursery: Nursery, seed: int, rounds: int
) -> None:
    draw = random.Random(seed)
    longest_s = finish(nursery)
    store.require_complete()
    killed = 0
    for _ in range(rounds):
        for _ in range(draw.randrange(1, 4)):
            store.something()
        process = nursery.start()
        # Most of a run's time goes before the first load: squared, so that kills fall where the work is, too.
        time.sleep(longest_s * (1 - draw.random() ** 2))
        with suppress(ProcessLookupError):  # it came to its end before
            os.kill(process, signal.SIGKILL)
        killed += nursery.end() == -signal.SIGKILL
        store.require_nothing_half()
        longest_s = max(finish(nursery), longest_s * 0.9)
        store.require_complete()
    assert killed > rounds / 3


def finish(nursery: Nursery) -> float:
    """Let a run come to its end; answers how long it took."""
    started = time.monotonic()
    nursery.start()
    assert nursery.end() == 0
    return time.monotonic() - started
