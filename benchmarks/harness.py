"""Measuring: two sides in turn, their best times, the peak memory of client and server."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from datops_assets.postgres.migrations import upgrade
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets.resources.warehouse import Warehouse, check_version

RESULTS = Path(__file__).parent / "results.json"
_VERSIONS = ("datops", "dagster", "dbt-core", "psycopg", "pyarrow", "adbc-driver-postgresql", "numpy")


@dataclass
class Comparison:
    """`key` is `<domain>.<what>.vs_<other>`; a `ratio` above 1 means datops is ahead."""

    key: str
    ratio: float
    aim: float | None
    datops: Mapping[str, Any]
    other: Mapping[str, Any]
    note: str = ""


@dataclass
class Bench:
    """What a benchmark is handed: a server of its own, a folder, a place for results."""

    warehouse: Warehouse
    folder: Path
    bin: Path
    comparisons: list[Comparison] = field(default_factory=list)

    @contextmanager
    def database(self) -> Iterator[Warehouse]:
        """A fresh database with the catalogue in it."""
        name = f"bench_{len(self.comparisons)}_{time.monotonic_ns()}"
        with self.warehouse.connect() as conn:
            conn.execute(f"create database {name}")
        try:
            with self.warehouse.at(name).connect() as conn:
                upgrade(conn)
            yield self.warehouse.at(name)
        finally:
            with self.warehouse.connect() as conn:
                conn.execute(f"drop database {name} with (force)")

    def settle(self) -> None:
        """Finish the server's background work of the last measurement before the next begins."""
        with self.warehouse.connect() as conn:
            conn.execute("checkpoint")

    def add(self, comparison: Comparison) -> None:
        """Print a result and keep it."""
        self.comparisons.append(comparison)
        aim = "" if comparison.aim is None else f" (aim {comparison.aim:g})"
        print(f"{comparison.key}: {comparison.ratio:.2f}{aim}")
        print(f"    datops {_shown(comparison.datops)}\n    other  {_shown(comparison.other)}")
        if comparison.note:
            print(f"    {comparison.note}")


def best_of(rounds: int, bench: Bench, *sides: Callable[[], Any]) -> list[float]:
    """Seconds of each side's best round; the sides take turns within a round."""
    best = [float("inf")] * len(sides)
    for _ in range(rounds):
        for index, side in enumerate(sides):
            bench.settle()
            started = time.perf_counter()
            side()
            best[index] = min(best[index], time.perf_counter() - started)
    return best


def memory_alone(warehouse: Warehouse, work: Callable[..., Any], *values: Any) -> dict[str, float]:
    """Peak memory of `work(warehouse, *values)` in a process of its own, which holds nothing of the benchmark's data.

    work    a function of a module, so that a new process can find it
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        return other.submit(_watched, warehouse, work, values).result()


def _watched(warehouse: Warehouse, work: Callable[..., Any], values: tuple[Any, ...]) -> dict[str, float]:
    with _peak_memory(warehouse) as memory:
        work(warehouse, *values)
    return memory


@contextmanager
def _peak_memory(warehouse: Warehouse) -> Iterator[dict[str, float]]:
    """Peak of this process and of its server backends together, in MB, while the block runs.

    A backend's shared buffers belong to the server and are there without us: only private
    pages count (PSS would share them out by accident of who touched them).
    """
    result = {"client_mb": 0.0, "backends_mb": 0.0, "together_mb": 0.0}
    done = threading.Event()
    with warehouse.connect(autocommit=True) as conn:
        watcher = threading.Thread(target=_watch, args=(conn, done, result), daemon=True)
        watcher.start()
        try:
            yield result
        finally:
            done.set()
            watcher.join()


def _watch(conn: Any, done: threading.Event, result: dict[str, float]) -> None:
    own = psutil.Process()
    query = (
        "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
    )
    while not done.wait(0.05):
        client = _private_mb(own.pid)
        backends = sum(_private_mb(pid) for (pid,) in conn.execute(query))
        result["client_mb"] = max(result["client_mb"], client)
        result["backends_mb"] = max(result["backends_mb"], backends)
        result["together_mb"] = max(result["together_mb"], client + backends)


def _private_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


@contextmanager
def bench_server() -> Iterator[Bench]:
    """A durable server of its own, in a temporary folder, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"datops-bench-{os.getpid()}-"))
    server = EmbeddedServer(folder / "postgres")
    try:
        address = server.start()
        warehouse = Warehouse(
            address.host, address.port, address.user, "postgres", address.password, embedded=True
        )
        data = folder / "data"
        data.mkdir()
        yield Bench(check_version(warehouse), data, server.programs().bin)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def write_results(comparisons: list[Comparison]) -> None:
    """Put the comparisons into results.json; those of other runs stay."""
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    about = {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1024**3),
            "load_average": round(os.getloadavg()[0], 1),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in _VERSIONS},
    }
    for one in comparisons:
        known[one.key] = {
            "ratio": round(one.ratio, 3),
            "aim": one.aim,
            "datops": one.datops,
            "other": one.other,
            "note": one.note,
            **about,
        }
    RESULTS.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n")


def _shown(figures: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    )
