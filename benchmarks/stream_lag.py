"""How far a stream is behind at a steady rate of changes, against PostgreSQL's own subscription.

A transaction's lag is the time from its commit's answer at the writer until a reader of the warehouse sees it; writer
and reader share a clock. The two sides follow the same writes one after the other, each alone.
"""

from __future__ import annotations

import multiprocessing
import time
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import psutil

from benchmarks.harness import Bench, Comparison
from benchmarks.streams import NATIVE, ROW, bench_source, stream_of, subscribe, unsubscribe
from datops_assets.cdc import ChangeStream, lease, stream_changes, take_snapshot
from datops_assets.resources.warehouse import Warehouse

RATES = (1_000, 5_000)
SECONDS = 20
_TRANSACTIONS_PER_S = 100
_LOOKS_EVERY_S = 0.002
_GIVEN_UP_S = 120


def measure(bench: Bench) -> None:
    """Inserts at each rate, seen through the subscription and through a stream as `datops cdc stream` runs it."""
    lags: dict[str, dict[str, float]] = {"datops": {}, "native": {}}
    spawn = multiprocessing.get_context("spawn")
    with (
        bench.database() as warehouse,
        bench_source() as source,
        ProcessPoolExecutor(2, spawn) as processes,
    ):
        stream = stream_of(source)
        with warehouse.connect() as conn, source.connect() as at_source:
            with lease(conn, "erp"):
                take_snapshot(conn, warehouse.connect, dict(source.parameters()), stream)
            subscribe(conn, at_source, source)
            conn.execute(f"alter subscription {NATIVE} enable")
            first = 1
            for rate in RATES:
                lags["native"] |= _lags(bench, processes, warehouse, source, "public.orders", rate, first)
                first += rate * SECONDS
            unsubscribe(conn)
        with spawn.Manager() as shared:
            stop = shared.Event()
            following = processes.submit(_follow, warehouse, dict(source.parameters()), stream, stop)
            for rate in RATES:
                lags["datops"] |= _lags(bench, processes, warehouse, source, "bronze.erp_orders", rate, first)
                first += rate * SECONDS
            stop.set()
            lags["datops"] |= following.result(timeout=_GIVEN_UP_S)
    ours, native = lags["datops"], lags["native"]
    key = f"p99_{max(RATES)}_per_s_ms"
    bench.add(Comparison(
        "cdc.lag_p99.vs_native_subscription", native[key] / ours[key], None, ours, native,
        f"{SECONDS} s at each rate, {_TRANSACTIONS_PER_S} transactions a second; change log and mirror written, a"
        " commit every 200 ms at the latest",
    ))  # fmt: skip
    bench.add(Comparison(
        "cdc.lag_p99.vs_limit", 1000 / ours[key], 1, {"p99_ms": ours[key]}, {"p99_ms": 1000.0},
        f"at {max(RATES)} changes a second",
    ))  # fmt: skip


def _lags(
    bench: Bench,
    processes: ProcessPoolExecutor,
    warehouse: Warehouse,
    source: Warehouse,
    table: str,
    rate: int,
    first: int,
) -> dict[str, float]:
    """Percentiles of the lag at one rate, in ms, by name."""
    bench.settle()
    writing = processes.submit(_write, source, rate, first, SECONDS)
    seen = _watch(warehouse, table, first + rate * SECONDS - 1)
    committed = writing.result(timeout=_GIVEN_UP_S)
    numbers = [number for _, number in seen]
    lags = sorted(max(0.0, seen[bisect_left(numbers, number)][0] - at) * 1000 for at, number in committed)
    return {
        f"p{share}_{rate}_per_s_ms": round(lags[min(len(lags) - 1, len(lags) * share // 100)], 2)
        for share in (50, 99)
    }


def _write(source: Warehouse, rate: int, first: int, seconds: int) -> list[tuple[float, int]]:
    """Insert at a steady rate; returns when each transaction was committed, and its last key."""
    rows = rate // _TRANSACTIONS_PER_S
    committed = []
    with source.connect() as conn:
        began = time.time()
        for number in range(seconds * _TRANSACTIONS_PER_S):
            time.sleep(max(0.0, began + number / _TRANSACTIONS_PER_S - time.time()))
            start = first + number * rows
            conn.execute(
                f"insert into public.orders select {ROW} from generate_series({start}, {start + rows - 1}) n"
            )
            committed.append((time.time(), start + rows - 1))
    return committed


def _watch(warehouse: Warehouse, table: str, last: int) -> list[tuple[float, int]]:
    """Look what the highest key is until it is the last; returns when each was seen first."""
    seen: list[tuple[float, int]] = []
    given_up_at = time.monotonic() + _GIVEN_UP_S
    with warehouse.connect() as conn:
        while not seen or seen[-1][1] < last:
            assert time.monotonic() < given_up_at, f"{table} stands at {seen[-1:]}"
            row = conn.execute(f"select coalesce(max(order_id), 0) from {table}").fetchone()
            if row is not None and (not seen or row[0] > seen[-1][1]):
                seen.append((time.time(), row[0]))
            time.sleep(_LOOKS_EVERY_S)
    return seen


def _follow(
    warehouse: Warehouse, parameters: dict[str, Any], stream: ChangeStream, stop: Any
) -> dict[str, float]:
    """Follow as the process does, until told to stop; returns what share of a core this side of it took."""
    began, cpu = time.monotonic(), psutil.Process().cpu_times()
    stopping: Callable[[], bool] = stop.is_set
    with warehouse.connect() as conn, lease(conn, "erp"):
        stream_changes(conn, parameters, stream, stopping=stopping, report=lambda _: None)
    spent = psutil.Process().cpu_times()
    seconds = spent.user + spent.system - cpu.user - cpu.system
    return {"client_cores": round(seconds / (time.monotonic() - began), 3)}
