"""One row from file to silver by the command line, against the start of a process that imports Dagster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import Bench, Comparison

_DOCUMENT = """
pipeline: one
team: bench
source: {type: files, path: data}
tables:
  row:
    files: "*.csv"
    contract:
      columns: {id: {type: bigint, required: true}}
"""


def measure(bench: Bench) -> None:
    """`datops pipeline run`, process start to exit code."""
    project = bench.folder / "one_row"
    (project / "data").mkdir(parents=True)
    (project / "pipeline.yaml").write_text(_DOCUMENT)
    (project / "workspace.yaml").write_text("load_from: []\n")
    datops = Path(sys.executable).with_name("datops")
    with bench.database() as database:
        environment = {**os.environ, "DATOPS_WAREHOUSE_URL": database.url}
        runs = []
        for number in range(4):
            (project / "data" / f"{number}.csv").write_text(f"id\n{number}\n")
            runs.append(
                _seconds(
                    [str(datops), "pipeline", "run", "--config", "pipeline.yaml", "--json"],
                    project,
                    environment,
                )
            )
        bare = min(
            _seconds([sys.executable, "-W", "ignore", "-c", "import dagster"], project, environment)
            for _ in range(3)
        )
    bench.add(
        Comparison(
            "cli.one_row_run.vs_import_dagster",
            ratio=bare / min(runs),
            aim=None,
            datops={"seconds": min(runs), "first_run_seconds": runs[0]},
            other={"seconds": bare},
        )
    )


def _seconds(command: list[str], folder: Path, environment: Mapping[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started
