"""Loading definitions: N tables of ten columns from YAML against 2N bare assets with a check each."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from benchmarks.harness import Bench, Comparison

_COLUMNS = "\n".join(f"        column_{i}: {{type: bigint, required: true}}" for i in range(10))

# Each in a process of its own, as a code server or a run loads them; the imports of both are the same.
_PROLOGUE = """
import time, resource, sys
import dagster as dg
import datops_assets.components.pipeline as pipeline
from pathlib import Path
from datops_assets.components.document import read_documents
started = time.process_time()
"""
_EPILOGUE = """
repository = defs.get_repository_def()
repository.load_all_definitions()
print(time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
_OURS = """
root = Path(sys.argv[1])
documents = [one for path in sorted(root.glob("*.yaml")) for one in read_documents(path, root)]
defs = dg.Definitions.merge(*(pipeline.pipeline_definitions(one.document) for one in documents))
"""
_BARE = """
def bare(name):
    @dg.asset(key=["bronze", name], group_name="bronze")
    def load(): ...
    @dg.asset(key=["silver", name], group_name="silver", deps=[dg.AssetKey(["bronze", name])],
              check_specs=[dg.AssetCheckSpec("contract", asset=["silver", name])])
    def judge(): ...
    @dg.asset_check(asset=dg.AssetKey(["bronze", name]), name="files")
    def files(): ...
    return [load, judge], [files]
made = [bare(f"t{i}") for i in range(int(sys.argv[2]))]
defs = dg.Definitions(assets=[a for pair, _ in made for a in pair], asset_checks=[c for _, cs in made for c in cs])
"""


def measure(bench: Bench) -> None:
    """10, 100 and 1,000 tables; ten tables a document."""
    for tables in (10, 100, 1000):
        folder = bench.folder / f"documents_{tables}"
        _write_documents(folder, tables)
        ours, ours_mb = _best(_OURS, folder, tables)
        bare, bare_mb = _best(_BARE, folder, tables)
        bench.add(
            Comparison(
                f"definitions.load_{tables}_tables.vs_bare_assets",
                ratio=bare / ours,
                aim=round(1 / 1.5, 2),
                datops={"cpu_s": ours, "peak_mb": ours_mb},
                other={"cpu_s": bare, "peak_mb": bare_mb},
                note=f"datops takes {ours / bare:.2f}x of bare",
            )
        )


def _best(body: str, folder: Path, tables: int) -> tuple[float, float]:
    script = textwrap.dedent(_PROLOGUE + body + _EPILOGUE)
    command = [sys.executable, "-W", "ignore", "-c", script, str(folder), str(tables)]
    runs = []
    for _ in range(3):
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds, peak_mb = map(float, printed.split())
        runs.append((seconds, peak_mb))
    return min(runs)


def _write_documents(folder: Path, tables: int, per_document: int = 10) -> None:
    folder.mkdir()
    for number in range(tables // per_document):
        lines = [f"pipeline: source_{number}", "team: bench", "source: {type: files, path: data}", "tables:"]
        for table in range(per_document):
            lines += [f"  table_{table}:", "    files: '*.csv'", "    contract:", "      columns:", _COLUMNS]
        (folder / f"source_{number}.yaml").write_text("\n".join(lines) + "\n")
