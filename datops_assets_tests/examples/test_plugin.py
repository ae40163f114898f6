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
        "[datops.checks]\nlost_check = nowhere_at_all:Check\nwrong_check = json:dumps\n"
        "[datops.destinations]\nrest = nowhere_at_all:Kind\nwrong = json:dumps\n"
        "[datops.alerts]\nlost = nowhere_at_all:Lost\nslack = nowhere_at_all:Slack\nwrong = json:dumps\n"
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
    for group, name, summary in [
        ("destinations", "markdown", "Markdown: each table is a page"),
        ("checks", "working_day", "A day is no Saturday"),
        ("alerts", "logbook", "A file on this machine"),
    ]:
        assert rows[f"datops.{group}", name]["state"].startswith(f"ok: {summary}")
    for group, name, problem in [
        ("destinations", "rest", "datops has a destination of the name 'rest' itself"),
        ("destinations", "wrong", "is no DestinationKind called 'wrong'"),
        ("checks", "lost_check", "cannot be imported (ModuleNotFoundError"),
        ("checks", "wrong_check", "is no OwnCheck called 'wrong_check'"),
        ("alerts", "slack", "slack:// is an address that is known already"),
        ("alerts", "wrong", "is no Channel called 'wrong'"),
    ]:
        assert problem in rows[f"datops.{group}", name]["state"]


def test_its_source_and_destination_are_among_the_kinds(datops):
    kinds = {
        (row["what"], row["type"]): row["from"] for row in json.loads(datops("connector", "list", "--json"))
    }
    assert kinds["source", "calendar"] == kinds["destination", "markdown"] == "plug-in"
    assert kinds["source", "files"] == kinds["destination", "files"] == "datops"


def test_the_sample_pipeline_runs_to_silver_and_out_of_it(datops, warehouse, project):
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
    checked = warehouse.fetch(
        "select rows_failed from datops.check_results where check_name = 'somebody_works' order by 1 desc limit 1"
    )
    assert checked == [
        (
            warehouse.fetch(
                "select count(*) from silver.time_days where is_weekend or to_char(day, 'MM-DD') in ('12-25', '12-26')"
            )[0][0],
        )
    ]
    exported = str(EXAMPLE / "export.yaml")
    assert "valid" in datops("validate", exported)
    datops("export", "run", "--config", exported)
    page = (project / "wiki" / "seasons.md").read_text().splitlines()
    assert page[0] == "# Working days by season"
    assert f"| summer | {seasons['summer']} |" in page


def test_the_schema_for_editors_knows_the_plug_ins_and_is_written_without_the_broken_ones(datops, project):
    datops("validate", "--schema", "schema.json", str(EXAMPLE / "pipeline.yaml"))
    parts = json.loads((project / "schema.json").read_text())["$defs"]
    assert parts["CalendarSource"]["properties"]["type"]["const"] == "calendar"
    steps = parts["StepDocument"]["properties"]
    assert steps["classify"]["properties"]["up_to"]["description"].startswith("Label: greatest number")
    assert "lost_step" not in steps
    rule = parts["OwnCheckRule"]
    assert rule["properties"]["check"]["enum"] == ["working_day"]
    assert rule["allOf"][0]["then"]["properties"]["with"]["properties"]["closed"]["description"].startswith(
        "More"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("from_year: 2026", "from_year: 1066", "pipeline.yaml:7: tables.days.from_year:"),
        ("spring: 22", "spring: 2", "pipeline.yaml:27: transforms.seasons.steps.1.classify: the bounds of up_to"),
        ("column: iso_week", "column: weekday", "steps.1.classify.column: weekday is text, expected a number"),
        ("  - classify", "  - lost_step", "steps.1: the plug-in 'lost_step' of datops-broken 2.1 cannot"),
        ("check: working_day", "check: lost_check", "rules.0.check: the plug-in 'lost_check' of datops-broken 2.1"),
        ("check: working_day", "check: nosuch", "there is no plug-in 'nosuch' in datops.checks, installed:"),
        ("column: day, closed", "closed", "pipeline.yaml:19: tables.days.contract.rules.0.with.column: Field required"),
        ("{column: day,", "{column: nowhere,", "nowhere"),
        ("type: calendar", "type: lost", "source.type: the plug-in 'lost' of datops-broken 2.1 cannot be imported"),
    ],
)  # fmt: skip
def test_mistakes_in_the_keys_of_a_plug_in_are_said_with_their_line(datops, project, old, new, said):
    text = (EXAMPLE / "pipeline.yaml").read_text()
    assert old in text
    (project / "pipeline.yaml").write_text(text.replace(old, new))
    assert said in datops("validate", "pipeline.yaml", code=2)


def test_alerts_reach_the_place_that_a_plug_in_brings(python, project):
    book = project / "book.txt"
    told = python("-c", TELL, f"logbook://{book}")
    assert json.loads(told) == [True, 1, None]
    assert book.read_text().splitlines() == ["critical: it broke", "orders: token=***"]
    delivered, attempts, reason = json.loads(python("-c", TELL, f"logbook://{project}/nowhere/book.txt"))
    assert (delivered, attempts, reason) == (False, 3, "the receiver did not take it (logbook)")
    assert "cannot be imported" in python("-c", TELL, "lost://there")


TELL = """
import json, sys
from datops_assets.components.alert_channels import find_channel
from datetime import UTC, datetime
from datops_assets.telemetry.alerts import Alert, Event, Message
from datops_assets.telemetry.delivery import deliver

event = Event("broken", "orders", "critical", "token=hunter2", datetime.now(UTC))
message = Message("ops", "critical", "critical: it broke", (Alert(event),))
done = deliver(sys.argv[1], message, find_channel=find_channel, sleep=lambda _: None)
print(json.dumps([done.delivered, done.attempts, done.reason]))
"""
