"""Ctrl-C: the first one ends a command, at once and in one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # the tests may run in the background
    " import sys; from datops_assets.cli import main; sys.argv[0] = 'datops'; print(flush=True); main()"
)
SENTENCE = "interrupted; nothing half-loaded was kept; run again to go on\n"
WAITING = (
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
)


@pytest.fixture
def start(shop):
    """Start a command in a process of its own."""
    processes = []

    def started(*arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(condition, seconds: float = 60) -> None:
    """Until it holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_ctrl_c_ends_a_run_that_would_be_tried_again(shop, warehouse, start):
    """The load waits for a lock, as a long one would; Dagster's retries are on."""
    shop.declare("retries: {max: 0}", "retries: {max: 3, delay_s: 1}")
    with warehouse.connect() as blocker, blocker.transaction():
        blocker.execute("lock table datops.loads in share mode")
        process = start("pipeline", "run", "--config", "pipeline.yaml")
        wait_for(lambda: warehouse.fetch(WAITING) != [(0,)])
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (130, "\n")
    assert stderr.endswith(SENTENCE)
    assert "Traceback" not in stderr
    assert shop.run()["success"]
    assert warehouse.fetch("select count(*) from datops.loads where state = 'loaded'") == [(3,)]


@pytest.mark.parametrize("after_s", [0.1, 0.3, 1.0])
def test_an_early_ctrl_c_shows_no_import_traceback(start, after_s):
    """From the moment that our code begins: what Python itself imports before shows Python's own."""
    process = start("pipeline", "run", "--config", "pipeline.yaml")
    process.stdout.readline()
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    # Before main listens the signal itself ends it, which a shell shows as 130 too.
    assert process.returncode in (130, 0, -signal.SIGINT)
    assert "Traceback" not in stderr
