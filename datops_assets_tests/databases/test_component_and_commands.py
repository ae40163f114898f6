"""A team's database as people meet it: the document, the asset with its checks, the commands."""

from __future__ import annotations

import json
import re

import dagster as dg
import psycopg
import pytest
from typer.testing import CliRunner

from datops_assets.cli import _app
from datops_assets.components.databases.component import asset_key, database_definitions
from datops_assets.components.databases.document import (
    ThresholdsDocument,
    check_names,
    read_team_database,
    usual_threshold,
)
from datops_assets.databases import Thresholds
from datops_assets.errors import DeclarationError


@pytest.fixture
def document(teams, project):
    """A document of the project, whose roles are swept afterwards."""
    text = f"""\
database: {teams.prefix}
environment: test
team: sales
limits: {{statement_s: 60}}
schedule: "*/15 * * * *"
logins:
  etl: {{access: writer, limits: {{statement_s: 0}}, rotate_after_days: 90}}
  bi: {{access: reader, connections: 2}}
"""
    file = project / "database.yaml"
    file.write_text(text)
    return file


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(_app(), ["database", *words])
    assert done.exit_code == code, done.output
    return done.output


def test_the_commands_plan_apply_find_drift_and_rotate(document, teams, project):
    at = ("--config", str(document))
    assert "create database" in run("plan", *at)
    run("drift", *at, code=1)
    applied = json.loads(run("apply", *at, "--json"))
    assert applied["left"]["steps"] == []
    secret = json.loads(
        (project / ".datops/secrets/databases" / f"{teams.prefix}_test" / "etl.json").read_text()
    )
    assert applied["secrets"]["etl"].endswith("etl.json")
    assert secret["password"] not in json.dumps(applied)
    assert run("drift", *at) == "no drift\n"
    rotated = run("rotate", *at, "--login", "etl")
    assert f"{teams.prefix}_test_etl_b" in rotated
    after = json.loads(
        (project / ".datops/secrets/databases" / f"{teams.prefix}_test" / "etl.json").read_text()
    )
    assert after["password"] not in rotated
    with psycopg.connect(
        host=teams.server.host, port=teams.server.port, user=after["user"], password=after["password"],
        dbname=f"{teams.prefix}_test",
    ) as conn:  # fmt: skip
        assert conn.execute("show statement_timeout").fetchone() == ("0",)
    assert "no login 'nobody', expected one of: etl, bi" in run("rotate", *at, "--login", "nobody", code=2)


def test_the_asset_applies_and_its_check_fails_once_somebody_changes_the_server(document, teams, project):
    loaded = read_team_database(document, project).document
    definitions = database_definitions(loaded)
    with dg.DagsterInstance.ephemeral() as instance:
        repository = definitions.get_repository_def()
        job = repository.get_implicit_global_asset_job_def()
        done = job.get_subset(asset_selection={asset_key(loaded)}).execute_in_process(instance=instance)
        assert done.success
        checks = definitions.resolve_job_def(f"{loaded.name}_database_checks")
        assert {
            one.check_name
            for one in checks.execute_in_process(instance=instance).get_asset_check_evaluations()
            if one.passed
        } >= {"drift", "passwords"}
        teams.run(f'alter role "{loaded.name}_reader" createdb')
        found = {
            one.check_name: one.passed
            for one in checks.execute_in_process(instance=instance).get_asset_check_evaluations()
        }
    # The test server's own databases are open to PUBLIC, which the lints say.
    assert found == {"drift": False, "passwords": True, "lints": False}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("team: ''", "team"),
        ("logins: {owner: {access: reader}}", "a role of the database has this name"),
        ("logins: {a: {access: admin}}", "logins.a.access"),
        ("schemas: [pg_mine]", "does not begin with pg_"),
        ("server: {url: 'postgresql://a:b@c/d'}", "a password stands in the URL"),
        ("server: {url: 'mysql://a@c/d'}", "not a PostgreSQL server"),
        ("limits: {statement_s: -1}", "limits.statement_s"),
        ("logins: {a: {access: reader, expires: soon}}", "logins.a.expires"),
        ("colour: red", "colour"),
        ("thresholds: {copied_rows: 0}", "thresholds.copied_rows"),
        (
            "thresholds: {copied_rows: 5000000}",
            "copied_rows (5000000) is above copied_rows_critical (1000000)",
        ),
        ("thresholds: {temp_mb: 4, temp_critical_mb: 2}", "temp_mb (4) is above temp_critical_mb (2)"),
        ("thresholds: {mass_share: 3}", "thresholds.mass_share"),
        ("thresholds: {learning_days: 0.1}", "thresholds.learning_days"),
        ("thresholds: {freeze_share: 3}", "freeze_share"),
    ],
)
def test_a_mistake_in_the_document_is_said_with_its_line(tmp_path, line, sentence):
    file = tmp_path / "database.yaml"
    text = "database: sales\n" + ("" if line.startswith("team") else "team: sales\n") + line + "\n"
    file.write_text(text)
    with pytest.raises(DeclarationError) as failed:
        read_team_database(file, tmp_path)
    assert f"database.yaml:{len(text.splitlines())}: " in str(failed.value)
    assert sentence in str(failed.value)


def test_thresholds_of_a_document_reach_the_watch_and_are_shown_by_plan(document, teams, project):
    document.write_text(
        document.read_text() + "thresholds: {statement_warning_s: 60, temp_mb: 100, learning_days: 14}\n"
    )
    desired = read_team_database(document, project).document.desired()
    assert desired.thresholds == {
        "statement_warning_s": 60,
        "temp_bytes": 100 * 1024**2,
        "learning_s": 14 * 86400,
    }
    said = run("plan", "--config", str(document))
    assert "-- the watch takes statement_warning_s 60 here, in the place of 1800" in said
    assert json.loads(run("plan", "--config", str(document), "--json"))["thresholds"]["temp_mb"] == [
        100,
        1024,
    ]


def test_each_threshold_of_a_document_is_one_of_the_watch_and_says_its_default():
    for key, field in ThresholdsDocument.model_fields.items():
        said = re.search(r"Default ([\d.]+)\.$", field.description)
        assert float(said[1]) == usual_threshold(key), key
        [name] = ThresholdsDocument.model_construct(**{key: 1}).named()
        assert hasattr(Thresholds(), name), key


def test_two_documents_of_one_database_are_refused(tmp_path):
    found = []
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("database: sales\nteam: sales\n")
        found.append(read_team_database(tmp_path / name, tmp_path))
    assert check_names(found) == [
        "b.yaml:1: database: a.yaml declares sales too, expected one document for each"
    ]
    assert check_names(found[:1]) == []


def test_a_password_in_a_variable_is_set_and_never_made(document, teams, project, monkeypatch):
    document.write_text(
        f"database: {teams.prefix}\nteam: sales\nlogins:\n  etl: {{access: writer, password_env: ETL_PASSWORD}}\n"
    )
    assert "variable ETL_PASSWORD is not set" in run("apply", "--config", str(document), code=1)
    monkeypatch.setenv("ETL_PASSWORD", "a-password-of-somebodys-vault")
    run("apply", "--config", str(document))
    monkeypatch.setenv("ETL_PASSWORD", "another-password-of-the-vault")
    assert "has another password" in run("drift", "--config", str(document), code=1)
    run("apply", "--config", str(document))
    with psycopg.connect(
        host=teams.server.host, port=teams.server.port, user=f"{teams.prefix}_etl_a",
        password="another-password-of-the-vault", dbname=teams.prefix,
    ) as conn:  # fmt: skip
        assert conn.execute("select 1").fetchone() == (1,)
    assert "change it there" in run("rotate", "--config", str(document), "--login", "etl", code=1)
