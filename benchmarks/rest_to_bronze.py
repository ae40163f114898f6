"""An API to bronze, against dlt's rest_api on the same server: pages of 1,000 orders, one after the other.

Both sides are timed without their imports and load into the same PostgreSQL. Of dlt's ways of writing
to it the quicker one counts. dlt lives in an environment of its own, made here.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.files_to_bronze import orders
from benchmarks.harness import Bench, Comparison, memory_alone
from datops_assets.ingestion import load_table, rest
from datops_assets.resources.warehouse import Warehouse

ROWS = 100_000
PAGE = 1_000
ROUNDS = 3
DLT = "dlt[postgres]==1.31.0"
_DLT_RUN = """
import json, os, sys, time
import dlt
from dlt.sources.rest_api import rest_api_source

url, credentials, name, file_format = sys.argv[1:]
source = rest_api_source({
    "client": {
        "base_url": url,
        "paginator": {"type": "page_number", "base_page": 1, "total_path": None, "stop_after_empty_page": True},
    },
    "resources": [{"name": "orders", "endpoint": {"path": "orders", "data_selector": "data"}}],
})
pipeline = dlt.pipeline(name, destination=dlt.destinations.postgres(credentials), dataset_name=name)
options = {} if file_format == "default" else {"loader_file_format": file_format}
started = time.perf_counter()
pipeline.run(source, write_disposition="replace", **options)
print(json.dumps({"seconds": time.perf_counter() - started}))
"""


def measure(bench: Bench) -> None:
    """100,000 orders of an API whose answers are ready in memory."""
    python = _dlt_environment(bench.folder)
    with _api() as url, bench.database() as database:
        ours, theirs = [], {"default": [float("inf")], "csv": [float("inf")]}
        four = []
        for _ in range(ROUNDS):
            bench.settle()
            ours.append(_seconds(database, url, 1))
            bench.settle()
            four.append(_seconds(database, url, 4))
            for file_format, seconds in theirs.items():
                bench.settle()
                seconds.append(_dlt_seconds(python, bench.folder, database, url, file_format))
        best = {file_format: min(seconds) for file_format, seconds in theirs.items()}
        memory = memory_alone(database, load, url)
        bench.add(
            Comparison(
                "sources.rest.vs_dlt",
                ratio=min(best.values()) / min(ours),
                aim=1.0,
                datops={
                    "seconds": min(ours),
                    "rows_per_s": round(ROWS / min(ours)),
                    "seconds_with_concurrency_4": min(four),
                    **memory,
                },
                other={f"seconds_{file_format}": seconds for file_format, seconds in best.items()},
                note=f"{ROWS:,} rows in pages of {PAGE:,}, best of {ROUNDS}; {DLT}",
            )
        )


def load(database: Warehouse, url: str, concurrency: int = 1) -> None:
    """Load all pages into a bronze table of its own."""
    table = rest.RestTable(
        source="bench",
        name=f"t{time.monotonic_ns()}",
        path="orders",
        records="data",
        pagination=rest.PageNumber(total_path="total"),
        disposition="replace",
    )
    api = rest.Api(url=url, allow_private=True, concurrency=concurrency)
    with database.connect() as conn, rest.RestSource(api) as source:
        loaded = load_table(conn, source, table, batch="bench")
    assert loaded.rows_added == ROWS, loaded.results


def _seconds(database: Warehouse, url: str, concurrency: int) -> float:
    started = time.perf_counter()
    load(database, url, concurrency)
    return time.perf_counter() - started


def _dlt_environment(folder: Path) -> Path:
    """Return the Python of a new environment with dlt in it."""
    environment = folder / "dlt"
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, DLT], check=True)
    return python


def _dlt_seconds(python: Path, folder: Path, database: Warehouse, url: str, file_format: str) -> float:
    name = f"dlt_{time.monotonic_ns()}"
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PG")},
        "DLT_DATA_DIR": str(folder / "dlt_data"),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
    }
    done = subprocess.run(
        [python, "-c", _DLT_RUN, url, database.url, name, file_format],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with database.connect() as conn:
        (count,) = conn.execute(f"select count(*) from {name}.orders").fetchone() or (0,)
        assert count == ROWS, count
        conn.execute(f"drop schema {name} cascade")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


@contextmanager
def _api() -> Iterator[str]:
    """Serve in a process of its own, so that it takes time from neither side's interpreter."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(parent: Connection) -> None:
    pages = _pages()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            (number,) = parse_qs(urlsplit(self.path).query).get("page", ["1"])
            body = pages[int(number) - 1] if int(number) <= len(pages) else b'{"data": [], "total": 0}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    parent.send(server.server_port)
    server.serve_forever()


def _pages() -> list[bytes]:
    records: list[dict[str, Any]] = orders(ROWS).to_pylist()
    for record in records:
        record["total"] = str(record["total"])
        for name in ("ordered_at", "updated_at"):
            record[name] = record[name].strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        json.dumps({"data": records[start : start + PAGE], "total": ROWS}).encode()
        for start in range(0, ROWS, PAGE)
    ]
