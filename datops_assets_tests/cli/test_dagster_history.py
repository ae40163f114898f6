"""Dagster's history outlives its processes without a variable set."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from datops_assets.resources.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]
ASSET = """
import dagster as dg

@dg.asset
def greeting(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    earlier = context.instance.get_event_records(
        dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION, asset_key=context.asset_key)
    )
    print(f"earlier materializations: {len(earlier)}")
    return dg.MaterializeResult()

defs = dg.Definitions([greeting], executor=dg.in_process_executor)
"""


@pytest.fixture
def clone(tmp_path):
    """A project as a clone has it: dagster.yaml, no variable, no server yet."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    (tmp_path / "workspace.yaml").touch()
    (tmp_path / "greeting.py").write_text(ASSET)
    yield tmp_path
    EmbeddedServer(tmp_path / ".datops" / "postgres").stop()


def materialize(clone, **variables):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dagster",
            "asset",
            "materialize",
            "-f",
            "greeting.py",
            "--select",
            "greeting",
        ],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_second_process_sees_what_the_first_materialized(clone):
    assert "earlier materializations: 0" in materialize(clone)
    assert "earlier materializations: 1" in materialize(clone, PGHOST="elsewhere.example", PGOPTIONS="-c x=y")
    assert [path.name for path in clone.glob(".tmp*")] == []
    logs = list((clone / ".datops" / "dagster" / "compute_logs").rglob("*.out"))
    assert len(logs) == 2


def test_history_goes_where_the_url_says(clone, database):
    for count in (0, 1):
        assert f"earlier materializations: {count}" in materialize(clone, DATOPS_DAGSTER_URL=database.url)
    assert not (clone / ".datops" / "postgres").exists()
    with database.connect() as conn:
        assert conn.execute("select count(*) from runs").fetchone() == (2,)
