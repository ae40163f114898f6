"""The watch as people meet it: the command, and the asset with its check."""

from __future__ import annotations

import json

import dagster as dg
from typer.testing import CliRunner

from datops_assets.cli import _app
from datops_assets.components.databases.watching import DatabaseWatch, watch_asset
from datops_assets.databases.findings import Finding, enter


def run(*words: str) -> str:
    done = CliRunner().invoke(_app(), ["database", *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_one_look_says_what_it_did_and_findings_lists_what_is_open(project, warehouse):
    seen = json.loads(run("watch", "--once", "--json"))
    assert seen["server"] == "warehouse"
    assert seen["interventions"] == []
    assert "pg_stat_statements" in str(seen["skipped"])
    assert "skipped: rows that leave by select" in run("watch", "--once")
    enter(warehouse.conn, "here", [Finding("slot", "erp", "critical", "slot erp is lost")])
    assert "slot erp is lost" in run("findings")
    enter(warehouse.conn, "here", [])
    assert "slot erp is lost" not in run("findings")
    assert "slot erp is lost" in run("findings", "--all")


def checks_of(instance: dg.DagsterInstance) -> dict[str, dg.AssetCheckEvaluation]:
    """What the checks say after one look."""
    done = dg.materialize([watch_asset()], instance=instance)
    return {one.check_name: one for one in done.get_asset_check_evaluations()}


def test_the_asset_looks_and_its_check_fails_while_something_critical_is_open(project, warehouse):
    with dg.DagsterInstance.ephemeral() as instance:
        enter(warehouse.conn, "elsewhere", [Finding("slot", "erp", "critical", "slot erp is lost")])
        checks = checks_of(instance)
        assert not checks["findings"].passed
        assert "slot erp is lost" in str(checks["findings"].metadata)
        assert "pg_drop_replication_slot" in str(checks["findings"].metadata)
        assert checks["coverage"].passed, "our own server shows everything that it has"
        assert checks["coverage"].description == "all was looked at, 1 skipped for want of an extension"
        assert "create extension pg_stat_statements" in str(checks["coverage"].metadata)
        enter(warehouse.conn, "elsewhere", [])
        assert "slot" not in str(checks_of(instance)["findings"].metadata)


def test_the_component_is_an_asset_a_job_and_a_schedule_that_runs():
    definitions = DatabaseWatch().build_defs(None)
    assert [one.name for one in definitions.schedules] == ["database_watch_schedule"]
    assert definitions.resolve_job_def("database_watch")
