"""`datops warehouse`, `datops db` and `datops doctor`, as a person types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from datops_assets.resources.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]
MAIN = "import sys; from datops_assets.cli import main; sys.argv[0] = 'datops'; main()"


def datops(*arguments, expect=0, **variables):
    """Run the command in the current folder and answer what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if expect == 0 else done.stdout + done.stderr


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A project whose own server was never started."""
    (tmp_path / "workspace.yaml").touch()
    monkeypatch.chdir(tmp_path)
    yield EmbeddedServer(tmp_path / ".datops" / "postgres")
    EmbeddedServer(tmp_path / ".datops" / "postgres").stop()


def test_the_life_of_our_own_server(fresh):
    assert "running      False" in datops("warehouse", "status", expect=1)
    assert datops("warehouse", "psql", "--", "-Atc", "select 1") == "1\n"
    found = json.loads(datops("warehouse", "status", "--json"))
    assert (found["running"], found["own"], found["port"]) == (True, True, fresh.address().port)
    assert datops("warehouse", "start").startswith(f"PostgreSQL {found['server']} runs at 127.0.0.1:")
    assert json.loads(datops("warehouse", "stop", "--json")) == {"stopped": True}
    datops("warehouse", "start")
    assert datops("warehouse", "stop") == f"our own server under {fresh.folder.parent} is stopped\n"
    assert datops("warehouse", "stop") == f"our own server under {fresh.folder.parent} was not running\n"
    assert datops("warehouse", "upgrade") == "nothing to upgrade\n"


def test_psql_gets_every_argument_and_no_inherited_variable(project):
    arguments = ["-v", "n=2", "-At", "-c", "select 'a b'", "-c", "show timezone"]
    elsewhere = {"PGHOST": "elsewhere.example", "PGPORT": "1", "PGOPTIONS": "-c timezone=Asia/Tokyo"}
    assert datops("warehouse", "psql", "--", *arguments, **elsewhere) == "a b\nUTC\n"


def test_psql_hands_on_its_exit_code(project):
    said = datops("warehouse", "psql", "--", "-v", "ON_ERROR_STOP=1", "-c", "select 1 / 0", expect=1)
    assert "division by zero" in said


def test_url_is_what_other_tools_take(project, database):
    assert datops("warehouse", "url") == f"{database.url}\n"
    assert json.loads(datops("warehouse", "url", "--json"))["dbname"] == database.dbname


def test_a_server_by_url_is_described_and_left_alone(project, database):
    found = json.loads(datops("warehouse", "status", "--json"))
    assert (found["own"], found["address"]) == (False, database.address)
    assert "(DATOPS_WAREHOUSE_URL)" in datops("warehouse", "start")
    assert datops("warehouse", "stop") == (
        f"our own server under {project / '.datops'} was not running; "
        "DATOPS_WAREHOUSE_URL names another one, which was left alone\n"
    )
    database.connect().close()


def test_db_upgrade_says_what_it_did(project):
    assert datops("db", "upgrade") == "the catalogue is up to date\n"
    assert json.loads(datops("db", "upgrade", "--json")) == {"applied": []}


def test_a_wrong_password_is_one_sentence(project, database):
    wrong = database.url.replace(database.password, "s3cret")
    said = datops("warehouse", "psql", "--", "-c", "select 1", expect=1, DATOPS_WAREHOUSE_URL=wrong)
    assert said.startswith("datops: the warehouse at ") and said.count("\n") == 1
    assert "s3cret" not in said


def test_doctor_finds_a_sound_installation_sound(project):
    findings = {line["check"]: line for line in json.loads(datops("doctor", "--json"))}
    assert {name for name, line in findings.items() if line["state"] == "fail"} == set()
    assert findings["warehouse"]["message"].startswith("PostgreSQL ")
    assert findings["catalogue"]["state"] == "ok"


def test_doctor_names_each_fault_and_goes_on(project):
    gone = "postgresql://me:s3cret@127.0.0.1:1/shop"
    said = datops("doctor", expect=1, DATOPS_WAREHOUSE_URL=gone, DATOPS_PG_BIN="/nowhere", PGHOST="elsewhere")
    assert "fail  warehouse    the warehouse at 127.0.0.1:1/shop does not answer" in said
    assert "warn  programs     /nowhere holds no PostgreSQL server" in said
    assert "PGHOST ignored" in said
    assert "ok    history" in said
    assert "s3cret" not in said


def test_doctor_looks_at_the_documents(project):
    findings = {line["check"]: line for line in json.loads(datops("doctor", "--json"))}
    assert findings["documents"]["state"] == "ok"
    assert findings["documents"]["message"].endswith("pipeline(s), valid")


def test_doctor_knows_a_slip_in_the_name_of_a_variable(project):
    (project / ".env").write_text("DATOPS_PGPORT=1\n")
    said = datops("doctor", DATOPS_WAREHOUSE="postgresql://me:s3cret@127.0.0.1:1/shop")
    assert "DATOPS_WAREHOUSE is no setting of datops; did you mean DATOPS_WAREHOUSE_URL?" in said
    assert "DATOPS_PGPORT is no setting of datops; did you mean DATOPS_PG_PORT?" in said
    assert "s3cret" not in said
