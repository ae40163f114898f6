"""examples/plugin, installed as anybody would: listed, described, validated and run; a broken one stops nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample package, and one whose modules are not there."""
    folder = tmp_path_factory.mktemp("plugin")
    copy, target = folder / "copy", folder / "packages"
    shutil.copytree(EXAMPLE, copy)  # the build leaves files beside what it builds
    install = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run(
        [*install, "--python", sys.executable, "--target", str(target), str(copy)], check=True, timeout=120
    )
    broken = target / "datops_broken-2.1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: datops-broken\nVersion: 2.1\n")
    (broken / "entry_points.txt").write_text(
        "[datops.sources]\nlost = nowhere_at_all:Kind\nfiles = nowhere_at_all:Kind\n"
        "[datops.transforms]\nlost_step = nowhere_at_all:Step\nwrong_step = json:dumps\n"
    )
    return target


@pytest.fixture
def python(packages: Path, project: Path):
    """Python, where the packages are installed."""

    def run(*arguments: str, code: int = 0) -> str:
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), str(EXAMPLE.parents[1])])}
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=project, env=variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def datops(python):
    """The command, where the packages are installed."""
    return partial(python, "-c", "from datops_assets.cli import main; main()")


def test_its_own_tests_pass(python, project):
    tests = shutil.copy(EXAMPLE / "test_calendar.py", project)
    assert "6 passed" in python("-m", "pytest", "-q", str(tests))


def test_plug_ins_are_listed_and_a_broken_one_says_why(datops):
    rows = {(row["group"], row["name"]): row for row in json.loads(datops("plugins", "list", "--json"))}
    calendar = rows["datops.sources", "calendar"]
    assert calendar["package"] == "datops-calendar 1.0.0"
    assert calendar["state"] == "ok: Days of the calendar: weekday, week, weekend or not."
    assert rows["datops.transforms", "classify"]["state"].startswith("ok: A class for each number")
    lost = rows["datops.sources", "lost"]["state"]
    assert lost.startswith("the plug-in 'lost' of datops-broken 2.1 cannot be imported (ModuleNotFoundError")
    assert "datops has a source of the name 'files' itself" in rows["datops.sources", "files"]["state"]
    assert "cannot be imported" in rows["datops.transforms", "lost_step"]["state"]
    assert "is no Step called 'wrong_step'" in rows["datops.transforms", "wrong_step"]["state"]


def test_the_sample_pipeline_runs_to_silver(datops, warehouse):
    document = str(EXAMPLE / "pipeline.yaml")
    assert "valid" in datops("validate", document)
    assert 'CASE WHEN "iso_week" IS NULL' in " ".join(datops("pipeline", "sql", "--config", document).split())
    datops("pipeline", "run", "--config", document)
    assert warehouse.fetch("select count(*), max(day)::text from silver.time_days") == [(730, "2027-12-31")]
    seasons = dict(warehouse.fetch("select season, workdays from silver.time_seasons"))
    assert seasons.keys() == {"winter", "spring", "summer", "autumn"}
    assert (
        sum(seasons.values())
        == warehouse.fetch("select count(*) from silver.time_days where not is_weekend")[0][0]
    )


def test_the_schema_for_editors_knows_the_plug_ins_and_is_written_without_the_broken_ones(datops, project):
    datops("validate", "--schema", "schema.json", str(EXAMPLE / "pipeline.yaml"))
    parts = json.loads((project / "schema.json").read_text())["$defs"]
    assert parts["CalendarSource"]["properties"]["type"]["const"] == "calendar"
    steps = parts["StepDocument"]["properties"]
    assert steps["classify"]["properties"]["up_to"]["description"].startswith("Label: greatest number")
    assert "lost_step" not in steps


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("from_year: 2026", "from_year: 1066", "pipeline.yaml:7: tables.days.from_year:"),
        ("spring: 22", "spring: 2", "pipeline.yaml:22: transforms.seasons.steps.1.classify: the bounds of up_to"),
        ("column: iso_week", "column: weekday", "steps.1.classify.column: weekday is text, expected a number"),
        ("  - classify", "  - lost_step", "steps.1: the plug-in 'lost_step' of datops-broken 2.1 cannot"),
        ("type: calendar", "type: lost", "source.type: the plug-in 'lost' of datops-broken 2.1 cannot be imported"),
    ],
)  # fmt: skip
def test_mistakes_in_the_keys_of_a_plug_in_are_said_with_their_line(datops, project, old, new, said):
    text = (EXAMPLE / "pipeline.yaml").read_text()
    assert old in text
    (project / "pipeline.yaml").write_text(text.replace(old, new))
    assert said in datops("validate", "pipeline.yaml", code=2)
