"""Sides of a comparison that are run in turn: what each took of the clock, of the processors of client and server."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import psutil

from benchmarks.harness import Bench


@dataclass
class Side:
    """One way of doing it: its best round, and what that took of the machine."""

    work: Callable[[], Any]
    seconds: float = float("inf")
    cpu_s: float = 0.0
    """Of the client, its programs and the server together."""
    outcome: Any = None
    all_seconds: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """For results.json."""
        return {"seconds": round(self.seconds, 3), "cpu_s": round(self.cpu_s, 2)}


def in_turn(bench: Bench, rounds: int, *sides: Side) -> None:
    """Run all sides in turn, round by round, and keep the best of each."""
    for _ in range(rounds):
        for side in sides:
            bench.settle()
            cpu, begun = cpu_s(bench), perf_counter()
            outcome = side.work()
            seconds = perf_counter() - begun
            side.all_seconds.append(seconds)
            if seconds < side.seconds:
                side.seconds, side.cpu_s, side.outcome = seconds, cpu_s(bench) - cpu, outcome


def run_shell(script: str, environment: Mapping[str, str]) -> None:
    """Run a pipeline by hand; a part of it that fails fails it."""
    subprocess.run(
        ["bash", "-c", f"set -e -o pipefail; {script}"], env={**os.environ, **environment}, check=True
    )


def cpu_s(bench: Bench) -> float:
    """CPU seconds so far of this process, the programs it ran to their end, and the bench's server."""
    ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    with bench.warehouse.connect() as conn:
        row = conn.execute("select pg_backend_pid()").fetchone()
        assert row is not None
        server = psutil.Process(row[0]).parent()
    assert server is not None
    times = server.cpu_times()
    ended = times.user + times.system + times.children_user + times.children_system
    living = 0.0
    for one in server.children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            living += sum(one.cpu_times()[:2])
    return sum(one.ru_utime + one.ru_stime for one in ours) + ended + living
