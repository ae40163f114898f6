"""Two and more runs of one table at the same time, in processes of their own: every record once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = """\
pipeline: web
team: growth
source: {type: files, path: landing}
tables:
  visits:
    files: "*.csv"
    load: merge
    partition: {daily: '(\\d{4}-\\d{2}-\\d{2})', start: 2026-01-01}
    contract:
      key: [visit]
      columns: {visit: {type: bigint, required: true}, day: {type: date, required: true}}
"""
DEFINITIONS = """\
from pathlib import Path
import dagster as dg
from datops_assets.components.documents import read_documents
from datops_assets.components.pipeline import pipeline_definitions

[loaded] = read_documents(Path("pipeline.yaml"), Path.cwd())
defs = dg.Definitions.merge(pipeline_definitions(loaded.document), dg.Definitions(executor=dg.in_process_executor))
"""
DAYS, ROWS = 28, 400


@pytest.fixture
def folder(project: Path) -> Path:
    """A project with four weeks of files, one history for all processes, and the document as a code location."""
    (project / "pipeline.yaml").write_text(DOCUMENT)
    (project / "web.py").write_text(DEFINITIONS)
    (project / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    (project / "landing").mkdir()
    for day in range(1, DAYS + 1):
        name = f"2026-01-{day:02}"
        rows = "".join(f"{day * 1000 + number},{name}\n" for number in range(ROWS))
        (project / "landing" / f"{name}.csv").write_text("visit,day\n" + rows)
    return project


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow  # four processes that load Dagster at once
def test_a_command_a_job_and_a_backfill_take_every_record_once(folder, warehouse):
    """The job is what sensor and schedule start; the backfill is one run over a range of days."""
    command = [
        "-c",
        "from datops_assets.cli import main; main()",
        "pipeline",
        "run",
        "--config",
        "pipeline.yaml",
    ]
    job = ["-m", "dagster", "job", "execute", "-f", "web.py", "-j", "web_pipeline"]
    backfill = ["-m", "dagster", "asset", "materialize", "-f", "web.py", "--select", "*", "--partition-range"]
    processes = [start(folder, *command), start(folder, *job), start(folder, *command)]
    processes.append(start(folder, *backfill, "2026-01-05...2026-01-24"))
    for process in processes:
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said
    everything = DAYS * ROWS
    assert warehouse.fetch("select count(*), count(distinct visit) from bronze.web_visits") == [
        (everything, everything)
    ]
    assert warehouse.fetch("select count(*) from silver.web_visits") == [(everything,)]
    assert warehouse.fetch("select state, count(*) from datops.loads group by state") == [("loaded", DAYS)]
    assert warehouse.fetch("select count(*) from datops.judged_loads") == [(DAYS,)]
    days = warehouse.fetch(
        "select count(distinct partition) from event_logs"
        ' where dagster_event_type = \'ASSET_MATERIALIZATION\' and asset_key = \'["silver", "web", "visits"]\''
    )
    assert days == [(DAYS,)]
