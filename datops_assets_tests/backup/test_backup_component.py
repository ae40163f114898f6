"""Backups in the asset graph: metadata, checks against the clock, schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from datops_assets.components.backups.component import asset_key, backup_definitions, drill_key
from datops_assets.components.backups.document import BackupDocument, read_backup
from datops_assets_tests.backup.conftest import datops


def read(path: Path) -> BackupDocument:
    return read_backup(path, path.parent).document


def evaluations(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dict[str, bool]:
    """The checks against the clock, run on their own."""
    result = definitions.resolve_job_def("erp_promises").execute_in_process(instance=instance)
    return {check.check_name: check.passed for check in result.get_asset_check_evaluations()}


def test_a_run_backs_up_verifies_and_a_drill_proves(document: Path) -> None:
    definitions = backup_definitions(read(document))
    with dg.DagsterInstance.ephemeral() as instance:
        assert evaluations(definitions, instance) == {"age": False, "verified": False, "drilled": False}
        result = definitions.resolve_job_def("erp_backup").execute_in_process(instance=instance)
        (event,) = [one.materialization for one in result.get_asset_materialization_events()]
        metadata: Any = event.metadata
        assert metadata["rows"].value == 5605
        assert metadata["destinations"].value == ["local", "second"]
        assert [
            check.passed for check in result.get_asset_check_evaluations() if check.check_name == "whole"
        ] == [True]
        result = definitions.resolve_job_def("erp_drill").execute_in_process(instance=instance)
        (event,) = [one.materialization for one in result.get_asset_materialization_events()]
        assert event.metadata["rto_s"].value > 0  # type: ignore[operator]
        assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
        assert evaluations(definitions, instance) == {"age": True, "verified": True, "drilled": True}
    assert datops("list")[0]["drill_passed"]


def test_schedules_come_from_the_document(document: Path) -> None:
    assert not list(backup_definitions(read(document)).schedules or [])
    document.write_text(
        document.read_text() + 'logical: {schedule: "0 2 * * *"}\ndrill: {schedule: "0 5 * * 0"}\n'
    )
    definitions = backup_definitions(read(document))
    assert {(one.name, one.cron_schedule) for one in definitions.schedules or []} == {  # type: ignore[union-attr]
        ("erp_backup_schedule", "0 2 * * *"),
        ("erp_drill_schedule", "0 5 * * 0"),
        ("erp_promises_schedule", "7 * * * *"),
    }
    keys = {key for asset in definitions.assets or [] for key in asset.keys}  # type: ignore[union-attr]
    assert keys == {asset_key(read(document)), drill_key(read(document))}


def test_a_drill_that_fails_says_why_and_is_told_as_a_drill(document: Path) -> None:
    """The run itself succeeds: a backup that is not proven is a result, not a failure of the drill."""
    definitions = backup_definitions(read(document))
    taken = datops("run")["backup_id"]
    for artefact in (document.parent / "kept").rglob("*.enc"):
        artefact.write_bytes(artefact.read_bytes()[:-9])
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("erp_drill").execute_in_process(instance=instance)
        (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert str(check.description).startswith(f"{taken}: ")
    assert check.metadata["alert_kind"].value == "drill"


@pytest.mark.parametrize("own", ["warehouse", "dagster"])
def test_the_platforms_own_databases_are_backed_up_by_a_word(document: Path, own: str) -> None:
    lines = [line for line in document.read_text().splitlines() if not line.startswith("source:")]
    document.write_text("\n".join([*lines, f"source: {own}"]))
    taken = datops("run")
    assert datops("drill", "--backup", taken["backup_id"])["findings"] == []


@pytest.mark.slow
def test_physical_backups_are_an_asset_of_their_own_and_come_by_two_schedules(server_document: Path) -> None:
    text = server_document.read_text()
    assert [len(one.keys) for one in backup_definitions(read(server_document)).assets or []] == [1, 1, 1]  # type: ignore[union-attr]
    server_document.write_text(
        text.replace("physical: {}", 'physical: {schedule: "0 1 * * 0", incremental: "0 1 * * 1-6"}')
    )
    definitions = backup_definitions(read(server_document))
    assert {one.name: one.cron_schedule for one in definitions.schedules or []} == {  # type: ignore[union-attr]
        "whole_full_schedule": "0 1 * * 0", "whole_incremental_schedule": "0 1 * * 1-6",
        "whole_promises_schedule": "7 * * * *",
    }  # fmt: skip
    with dg.DagsterInstance.ephemeral() as instance:
        kinds = []
        for job in ("whole_full", "whole_incremental"):
            result = definitions.resolve_job_def(job).execute_in_process(instance=instance)
            (event,) = [one.materialization for one in result.get_asset_materialization_events()]
            kinds.append((event.metadata["kind"].value, event.metadata["parent"].value))
            assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
    full = datops("list")[0]["backup_id"]
    assert kinds == [("full", "-"), ("incremental", full)]


@pytest.mark.parametrize("example", ["platform_warehouse", "platform_history"])
def test_the_platforms_own_state_comes_back_by_the_examples_of_the_guide(
    example: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the document and the key alone: the warehouse that has the catalogue is lost."""
    from typer.testing import CliRunner

    from datops_assets.backup.encryption import new_key
    from datops_assets.cli import _app
    from datops_assets.components.catalogue import open_catalogue

    root = Path(__file__).parents[2]
    text = (root / f"examples/backup/{example}.yaml").read_text()
    assert text in (root / "docs/backup.md").read_text()
    (project / "backup.yaml").write_text(text)
    monkeypatch.setenv("BACKUP_KEY_2026", new_key())
    monkeypatch.setenv("BACKUP_DIR", str(project / "offsite"))
    with open_catalogue() as catalogue:
        url = catalogue.warehouse.url
        database = catalogue.warehouse.dbname
        datops("run")
        assert datops("drill")["passed"]
        with monkeypatch.context() as lost:
            if example == "platform_warehouse":
                lost.setenv("DATOPS_WAREHOUSE_URL", "postgresql://nobody@127.0.0.1:1/gone")
            lost.setenv("SERVER_PASSWORD", str(catalogue.warehouse.password))
            to = f"postgresql://{catalogue.warehouse.user}@{catalogue.warehouse.host}:{catalogue.warehouse.port}/postgres"
            back = datops(
                "restore", "--database", f"{database}_back", "--to", to, "--password-env", "SERVER_PASSWORD",
                "--at", "offsite", "--without-catalogue", "--apply",
            )  # fmt: skip
        assert back["findings"] == []
        with monkeypatch.context() as restored:
            restored.setenv("DATOPS_WAREHOUSE_URL", url.replace(database, f"{database}_back"))
            assert (
                CliRunner()
                .invoke(_app(), ["backup", "list", "--rebuild", "--config", "backup.yaml"])
                .exit_code
                == 0
            )
            assert [row["good"] for row in datops("list")] == [True]
        catalogue.warehouse.at("postgres").connect(autocommit=True).execute(f"drop database {database}_back")
