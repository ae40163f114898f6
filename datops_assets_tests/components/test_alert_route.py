"""A route as Dagster drives it: real runs and checks, findings in a real warehouse, a real receiver."""

from __future__ import annotations

import inspect
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.storage.runs.schema import RunsTable

from datops_assets.cli.database import watch
from datops_assets.components.alert_route import CHECK_KIND, INTERVAL_S, AlertRoute, alert_sensor
from datops_assets.components.pipeline import pipeline_definitions
from datops_assets.databases import look
from datops_assets.databases.findings import Finding, enter

DOCUMENT = """\
pipeline: shop
team: commerce
source: {type: files, path: landing}
retries: {max: 0}
tables:
  payments: {files: "*.parquet"}
"""


@pytest.fixture
def told(monkeypatch, project):
    """What arrives at the address in OPS_ADDRESS."""
    messages: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPS_ADDRESS", f"http://127.0.0.1:{server.server_port}/K3Y")
        yield messages
        server.shutdown()


class Ticks:
    """A sensor that is ticked by hand; its cursor goes from tick to tick."""

    def __init__(self, instance: dg.DagsterInstance, **attributes: object) -> None:
        component = AlertRoute(**{"name": "ops", "address_env": "OPS_ADDRESS", **attributes})
        self.sensor = alert_sensor(component.route(), component.address_env, "http://ui")
        self.instance, self.cursor = instance, None

    def tick(self) -> str:
        repository = dg.Definitions(assets=[orders]).get_repository_def()
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, sensor_name="ops", repository_def=repository
        )
        answer = self.sensor(context)
        self.cursor = context.cursor
        return answer.skip_message


@dg.op
def broken() -> None:
    raise dg.Failure("the file is damaged, password=hunter2")


@dg.job(tags={"datops/team": "sales"})
def shop() -> None:
    broken()


@dg.asset(owners=["ann@example.com", "team:sales"])
def orders() -> int:
    return 1


def check(passed: bool) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=orders, name="rows")
    def rows() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=passed, severity=dg.AssetCheckSeverity.WARN, description="too few rows"
        )

    return rows


def stale(instance: dg.DagsterInstance, before: FreshnessState, now: FreshnessState) -> None:
    change = FreshnessStateChange(
        key=dg.AssetKey("orders"), new_state=now, previous_state=before, state_change_timestamp=0.0
    )
    instance._report_runless_asset_event(change)


def evaluate(instance: dg.DagsterInstance, passed: bool) -> None:
    dg.materialize([orders, check(passed)], instance=instance)


def test_more_failed_runs_than_dagster_takes_in_a_tick_are_one_message(told, instance):
    ticks = Ticks(instance)
    ticks.tick()
    for _ in range(8):
        shop.execute_in_process(instance=instance, raise_on_error=False)
    ticks.tick()
    [message] = told
    assert message["title"] == "critical: 8 × run failed (sales)"
    assert "the file is damaged" in message["text"]
    assert "hunter2" not in message["text"]
    assert "http://ui/runs/" in message["text"]
    assert ticks.tick().startswith("1 event(s), 0 message(s)")
    assert len(told) == 1


def test_a_run_that_ended_by_a_clock_that_is_behind_is_told_and_none_twice(told, instance):
    """Of two machines one may be a minute behind: its run ends, by its clock, before what was told last."""
    shop.execute_in_process(instance=instance, raise_on_error=False)  # before the route
    ticks = Ticks(instance)
    ticks.tick()
    first = shop.execute_in_process(instance=instance, raise_on_error=False)
    ticks.tick()
    late = shop.execute_in_process(instance=instance, raise_on_error=False)
    behind = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=60)
    with instance.run_storage.connect() as conn:
        runs = RunsTable.update().where(RunsTable.c.run_id == late.run_id)
        conn.execute(runs.values(update_timestamp=behind))
    ticks.tick()
    ticks.tick()
    assert [one["alerts"][0]["facts"]["run_id"] for one in told] == [first.run_id, late.run_id]


def test_more_failures_than_a_tick_takes_come_with_the_next_ones(told, instance, monkeypatch):
    monkeypatch.setattr("datops_assets.components.alert_route.MOST_EVENTS", 2)
    ticks = Ticks(instance)
    ticks.tick()
    ended = {shop.execute_in_process(instance=instance, raise_on_error=False).run_id for _ in range(5)}
    for _ in range(4):
        ticks.tick()
    assert [len(one["alerts"]) for one in told] == [2, 2, 1]
    assert {alert["facts"]["run_id"] for one in told for alert in one["alerts"]} == ended


def test_a_check_that_fails_is_told_once_and_once_more_when_it_passes(told, instance):
    ticks = Ticks(instance)
    ticks.tick()
    for passed in (False, False, True, True):
        evaluate(instance, passed)
        ticks.tick()
    assert [(one["event"], one["severity"]) for one in told] == [
        ("alert", "warning"),
        ("resolved", "warning"),
    ]
    assert "too few rows" in told[0]["text"]


def test_a_finding_is_told_and_its_end_too(told, instance, warehouse):
    ticks = Ticks(instance, kinds=["finding_*"])
    ticks.tick()
    enter(warehouse.conn, "here", [Finding("slot", "erp", "critical", "slot erp is lost")])
    ticks.tick()
    enter(warehouse.conn, "here", [Finding("slot", "erp", "critical", "slot erp is lost")])
    ticks.tick()
    enter(warehouse.conn, "here", [])
    ticks.tick()
    assert [one["title"] for one in told] == [
        "critical: finding slot here erp", "resolved: finding slot here erp",
    ]  # fmt: skip


def test_more_findings_than_a_tick_takes_and_one_whose_transaction_took_long_are_told(
    told, instance, warehouse, monkeypatch
):
    """All of one look have the same moment; another look's may begin before it and end after it."""
    monkeypatch.setattr("datops_assets.components.alert_route.MOST_EVENTS", 2)
    slots = [Finding("slot", name, "critical", f"slot {name} is lost") for name in "abcde"]
    enter(warehouse.conn, "before", slots[:1])
    ticks = Ticks(instance, kinds=["finding_*"], group_by=["subject"])
    ticks.tick()
    enter(warehouse.conn, "here", slots)
    for _ in range(4):
        ticks.tick()
    enter(warehouse.conn, "there", slots[:1])
    warehouse.conn.execute(
        "update datops.findings set changed_at = changed_at - interval '1 minute' where server = 'there'"
    )
    for _ in range(3):
        ticks.tick()
    assert sorted(one["title"].rpartition("slot ")[2] for one in told) == [
        "here a", "here b", "here c", "here d", "here e", "there a",
    ]  # fmt: skip


def test_a_run_of_a_pipeline_is_told_with_its_cause_and_what_a_program_needs(told, landing, instance):
    ticks = Ticks(instance, kinds=["run_failed"], teams=["commerce"])
    ticks.tick()
    landing.put("payments-1.parquet", "not parquet")
    job = pipeline_definitions(landing.declare(DOCUMENT)).resolve_job_def("shop_pipeline")
    failed = job.execute_in_process(instance=instance, raise_on_error=False)
    ticks.tick()
    [message] = told
    [alert] = message["alerts"]
    assert "payments-1.parquet" in alert["summary"]
    assert alert["url"] == f"http://ui/runs/{failed.run_id}"
    assert (alert["team"], alert["kind"], alert["severity"]) == ("commerce", "run_failed", "critical")
    assert (alert["facts"]["run_id"], alert["facts"]["job"]) == (failed.run_id, "shop_pipeline")


def test_checks_stale_assets_and_findings_reach_the_route_of_their_team(told, instance, warehouse):
    ticks, web = Ticks(instance, teams=["sales"]), Ticks(instance, teams=["web"], name="web")
    for one in (ticks, web):
        one.tick()
    evaluate(instance, False)
    stale(instance, FreshnessState.PASS, FreshnessState.FAIL)
    enter(warehouse.conn, "here", [Finding("privilege", "sales_bi", "critical", "more", team="sales")])
    for one in (ticks, web):
        one.tick()
    assert {(one["route"], alert["kind"], alert["team"]) for one in told for alert in one["alerts"]} == {
        ("ops", "check_failed", "sales"), ("ops", "stale", "sales"), ("ops", "finding_privilege", "sales"),
    }  # fmt: skip


def test_a_drill_that_fails_is_told_as_a_drill(told, instance):
    """A drill's result is a check of its backup, which says of itself by which kind it is told."""
    ticks = Ticks(instance, kinds=["drill"])
    ticks.tick()
    key = dg.AssetKey(["backups", "erp", "drill"])
    for metadata in ({}, {CHECK_KIND: "drill"}):
        found = dg.AssetCheckEvaluation(
            asset_key=key, check_name="restored", passed=False, metadata=metadata,
            severity=dg.AssetCheckSeverity.ERROR, description="rows of orders differ",
        )  # fmt: skip
        instance.report_runless_asset_event(found)
    ticks.tick()
    [message] = told
    assert message["title"] == "critical: drill backups/erp/drill:restored"
    assert message["alerts"][0]["summary"] == "rows of orders differ"


def test_an_attack_is_at_the_receiver_within_a_minute(told, instance, warehouse, server):
    """One look and one tick, each as late as it may be."""
    ticks = Ticks(instance, kinds=["finding_privilege"])
    ticks.tick()
    watch_s = inspect.signature(watch).parameters["interval_s"].default
    look(lambda name: server.connect(), warehouse.conn, "here", [])
    with server.connect() as conn:
        conn.execute("create role mallory superuser")
        begun = time.monotonic()
        try:
            look(lambda name: server.connect(), warehouse.conn, "here", [])
            ticks.tick()
        finally:
            conn.execute("drop role mallory")
    to_alert_s = time.monotonic() - begun + watch_s + INTERVAL_S
    print(f"at most {to_alert_s:.0f} s")
    assert "mallory can do more than before: superuser" in told[0]["text"]
    assert to_alert_s <= 60


def test_a_finding_that_grows_worse_is_told_again(told, instance, warehouse):
    ticks = Ticks(instance, kinds=["finding_*"])
    ticks.tick()
    for severity in ("warning", "warning", "critical"):
        enter(warehouse.conn, "here", [Finding("slot", "erp", severity, "slot erp keeps 2 GiB")])
        ticks.tick()
    assert [one["severity"] for one in told] == ["warning", "critical"]


def test_what_a_route_is_not_for_is_not_told(told, instance):
    ticks = Ticks(instance, severity="critical", teams=["web"])
    ticks.tick()
    evaluate(instance, False)
    shop.execute_in_process(instance=instance, raise_on_error=False)
    ticks.tick()
    assert told == []


def test_a_receiver_that_is_away_gets_it_later_and_its_address_is_in_no_log(
    told, instance, monkeypatch, caplog
):
    import os

    address = os.environ["OPS_ADDRESS"]
    monkeypatch.setattr("datops_assets.telemetry.webhook.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("datops_assets.telemetry.webhook.LONGEST_PAUSE_S", 0.01)
    ticks = Ticks(instance)
    ticks.tick()
    monkeypatch.setenv("OPS_ADDRESS", "http://127.0.0.1:1/K3Y")
    shop.execute_in_process(instance=instance, raise_on_error=False)
    assert "1 to be sent again" in ticks.tick()
    assert "K3Y" not in caplog.text
    monkeypatch.setenv("OPS_ADDRESS", address)
    ticks.tick()
    assert len(told) == 1


def test_a_warehouse_that_is_away_is_told_and_stops_nothing_else(told, instance, monkeypatch):
    import os

    url = os.environ["DATOPS_WAREHOUSE_URL"]
    ticks = Ticks(instance)
    ticks.tick()
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", "postgresql://a:b@127.0.0.1:1/x")
    shop.execute_in_process(instance=instance, raise_on_error=False)
    ticks.tick()
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", url)
    ticks.tick()
    assert [one["title"].split(" warehouse")[0] for one in told] == [
        "critical: run failed " + told[0]["alerts"][0]["subject"] + " (sales)",
        "critical: unreachable", "resolved: unreachable",
    ]  # fmt: skip


def test_without_an_address_the_tick_says_so(told, instance, monkeypatch):
    monkeypatch.delenv("OPS_ADDRESS")
    assert "OPS_ADDRESS is not set" in Ticks(instance).tick()


def test_an_asset_that_grows_stale_is_told_and_its_end_too(told, instance):
    ticks = Ticks(instance)
    ticks.tick()
    for before, now in (
        (FreshnessState.PASS, FreshnessState.FAIL),
        (FreshnessState.FAIL, FreshnessState.PASS),
    ):
        stale(instance, before, now)
        ticks.tick()
    assert [one["title"] for one in told] == [
        "critical: stale orders (sales)",
        "resolved: stale orders (sales)",
    ]


def test_datops_up_raises_dagsters_own_limit_of_runs_a_tick(monkeypatch):
    from dagster._core.definitions import run_status_sensor_definition as dagsters

    from datops_assets.cli.up import RUNS_A_TICK

    assert dagsters._get_run_status_sensor_process_limit() == 5
    for name, value in RUNS_A_TICK.items():
        monkeypatch.setenv(name, value)
    assert dagsters._get_run_status_sensor_process_limit() == 100
    assert dagsters._get_run_status_sensor_fetch_limit(False) == 100
