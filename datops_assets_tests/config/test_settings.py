"""What the environment and `.env` say, and what of it is followed."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from datops_assets.config.settings import (
    child_environment,
    expand,
    forget_libpq_variables,
    inherited_variables,
    read_secret,
    read_settings,
)
from datops_assets.errors import TerminalError


def env_file(root, text):
    (root / "workspace.yaml").touch()
    (root / ".env").write_text(text)


def test_with_no_variable_everything_lies_below_the_project(tmp_path):
    settings = read_settings(tmp_path)
    assert settings.home == tmp_path / ".datops"
    assert (settings.warehouse_url, settings.dagster_url, settings.pg_bin, settings.pg_port) == (None,) * 4


def test_settings_come_from_the_env_file(tmp_path):
    env_file(
        tmp_path,
        "DATOPS_WAREHOUSE_URL=postgresql://me:pa$$word@db/shop\n"
        "export DATOPS_HOME='state'  # a comment\n"
        "DATOPS_PG_PORT=6000\n",
    )
    settings = read_settings(tmp_path)
    assert settings.warehouse_url.get_secret_value() == "postgresql://me:pa$$word@db/shop"
    assert (settings.home, settings.pg_port) == (tmp_path / "state", 6000)


def test_a_variable_of_the_process_wins_over_the_env_file(tmp_path, monkeypatch):
    env_file(tmp_path, "DATOPS_HOME=/from/file\n")
    monkeypatch.setenv("DATOPS_HOME", "/from/process")
    assert read_settings(tmp_path).home == Path("/from/process")


def test_an_empty_variable_counts_as_unset(tmp_path, monkeypatch):
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", "")
    monkeypatch.setenv("DATOPS_PG_PORT", "")
    assert read_settings(tmp_path).warehouse_url is None


def test_the_variables_of_other_programs_are_not_settings(tmp_path, monkeypatch):
    for name in ("POSTGRES_HOST", "PGHOST", "POSTGRES_URL", "DATABASE_URL"):
        monkeypatch.setenv(name, "postgresql://elsewhere.example/x")
    assert "elsewhere" not in str(read_settings(tmp_path).model_dump())


def test_the_project_is_the_nearest_folder_above_that_is_one(tmp_path, monkeypatch):
    (tmp_path / "workspace.yaml").touch()
    below = tmp_path / "some" / "where"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert read_settings().project_root == tmp_path


def test_outside_of_a_project_the_current_folder_is_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_settings().project_root == tmp_path


def test_dagsters_folder_is_the_project_where_the_current_one_is_none(tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "workspace.yaml").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.chdir(elsewhere)
    assert read_settings().project_root == home


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "²", "5432 "])
def test_a_port_that_is_none_is_said(tmp_path, monkeypatch, port):
    monkeypatch.setenv("DATOPS_PG_PORT", port)
    with pytest.raises(
        TerminalError, match=r"DATOPS_PG_PORT is not a port; set it to a number from 1 to 65535"
    ):
        read_settings(tmp_path)


def test_settings_show_no_secret_and_cannot_be_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", "postgresql://me:s3cret@db/shop")
    monkeypatch.setenv("DATOPS_ALERT_ADDRESS", "https://hooks.example/s3cret")
    settings = read_settings(tmp_path)
    assert "s3cret" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    with pytest.raises(ValidationError):
        settings.warehouse_url = None


def test_a_document_reaches_any_variable_by_its_name(tmp_path, monkeypatch):
    env_file(tmp_path, "LANDING_OF_A_TEST=/data/landing\n")
    monkeypatch.setenv("POSTGRES_HOST", "db.example")
    assert expand("LANDING_OF_A_TEST", tmp_path) == "/data/landing"
    assert expand("POSTGRES_HOST", tmp_path) == "db.example"
    assert expand("NOWHERE", tmp_path) is None


def test_a_secret_is_read_by_name_and_a_missing_one_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_DB_PASSWORD", "s3cret")
    assert read_secret("SHOP_DB_PASSWORD", tmp_path) == SecretStr("s3cret")
    with pytest.raises(TerminalError, match=r"variable NOWHERE is not set; export it, or add it to \.env"):
        read_secret("NOWHERE", tmp_path)


def test_libpq_variables_reach_neither_us_nor_our_children(monkeypatch):
    for name in ("PGHOST", "PGSERVICE", "PGOPTIONS", "PGPASSFILE"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("POSTGRES_HOST", "elsewhere")
    assert inherited_variables() == ["PGHOST", "PGOPTIONS", "PGPASSFILE", "PGSERVICE", "POSTGRES_HOST"]
    environment = child_environment(PGHOST="ours")
    assert {name: environment.get(name) for name in ("PGHOST", "PGSERVICE")} == {
        "PGHOST": "ours",
        "PGSERVICE": None,
    }
    forget_libpq_variables()
    assert inherited_variables() == ["POSTGRES_HOST"]
