"""`dagster dev` as it runs: sensors, automation, backfills, the failure webhook, all in real processes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from datops_assets_tests.e2e.clone import Clone, WebUi, wait_for

pytestmark = pytest.mark.slow  # two minutes: a web UI, a daemon and a dozen run processes

WEB = """\
pipeline: web
team: growth
source: {type: files, path: .datops/landing/web}
retries: {max: 0}
tables:
  visits:
    files: visits/*.csv
    load: merge
    partition: {daily: '(\\d{4}-\\d{2}-\\d{2})', start: 2026-01-01}
    contract:
      key: [visit]
      columns: {visit: {type: bigint, required: true}, page: {type: bigint}}
      rules:
        - {name: known_page, foreign_key: [page], references: pages, columns: [page], severity: warn}
  pages:
    files: pages.csv
    load: merge
    contract: {key: [page], columns: {page: {type: bigint}}}
"""
QUIET = """\
pipeline: archive
team: growth
sensor: stopped
source: {type: files, path: .datops/landing/archive}
tables:
  days:
    files: "*.csv"
    load: merge
    partition: {daily: '(\\d{4}-\\d{2}-\\d{2})', start: 2026-01-01}
    contract: {key: [id], columns: {id: {type: bigint, required: true}}}
"""
ORDERS = "order_id,customer_id,status,ordered_at,updated_at,currency,items_count,total\n"


class Webhook(HTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        posted = self.posted

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone with a day of the shop already in gold, and two sources with days."""
    made = Clone.make(tmp_path_factory.mktemp("e2e") / "clone")
    made.look_more_often()
    made.declare("web", WEB)
    made.declare("archive", QUIET)
    made.datops("generate", "shop", "--days", "1", "--scale", "0.1", "--out", ".datops/landing/shop")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def web(clone: Clone, webhook: Webhook) -> Iterator[WebUi]:
    running = WebUi(clone, DATOPS_ALERT_ADDRESS=webhook.url)
    yield running
    running.stop()


def finished(web: WebUi, job: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until so many runs of a job have ended; returns them, newest first."""

    def ended() -> list[dict[str, Any]]:
        runs = [run for run in web.runs() if run["jobName"] == job]
        done = [run for run in runs if run["status"] in ("SUCCESS", "FAILURE")]
        return done if len(done) >= count and len(done) == len(runs) else []

    return wait_for(ended, 120, web.runs)


def test_a_new_file_reaches_silver_by_the_sensor_and_gold_by_automation(clone, web):
    [first] = finished(web, "shop_pipeline")
    assert first["tags"]["dagster/sensor_name"] == "shop_files"
    wait_for(lambda: web.materializations("gold", "customers"), 120, web.log.read_text)
    before = clone.fetch("select count(*) from silver.shop_orders")
    clone.put("shop/orders/orders-2026-02-01.csv", ORDERS + _an_order(900001))
    finished(web, "shop_pipeline", 2)
    assert clone.fetch("select count(*) - 1 from silver.shop_orders") == before
    wait_for(
        lambda: clone.fetch("select 1 from gold.daily_revenue where order_date = '2031-02-03'"), 60, web.runs
    )


def test_automation_judges_nothing_a_second_time(web):
    wait_for(lambda: len(web.materializations("gold", "customers")) >= 2, 60, web.runs)
    automatic = [run for run in web.runs() if run["tags"].get("dagster/sensor_name") == "automation"]
    assert automatic
    touched = {asset["path"][0] for run in automatic for asset in run["assetSelection"]}
    assert touched == {"gold"}
    assert len(web.materializations("silver", "shop", "orders")) == 2


def test_the_sensor_says_why_it_starts_nothing(web):
    def reasons() -> set[str]:
        return {tick["skipReason"] for tick in web.ticks("shop_files") if tick["status"] == "SKIPPED"}

    said = wait_for(
        lambda: {reason for reason in reasons() if reason.startswith("nothing new: ")}, 60, reasons
    )
    assert {reason.split(" ", 3)[3] for reason in said} == {"unchanged"}


def test_new_days_of_a_source_that_mixes_are_one_run(clone, web):
    clone.put("web/pages.csv", "page\n1\n")
    for number, day in enumerate(("2026-01-05", "2026-01-06", "2026-01-09")):
        clone.put(f"web/visits/{day}.csv", f"visit,page\n{number},1\n")
    finished(web, "web_pipeline")
    wait_for(lambda: clone.fetch("select count(*) from silver.web_visits") == [(3,)], 60, web.runs)
    days = {made["partition"] for made in web.materializations("silver", "web", "visits")} - {None}
    assert days == {"2026-01-05", "2026-01-06", "2026-01-09"}
    clone.put("web/visits/2026-01-07.csv", "visit,page\n7,1\n")
    wait_for(lambda: clone.fetch("select count(*) from silver.web_visits") == [(4,)], 60, web.runs)
    stats = web.ask(
        """{ assetNodeOrError(assetKey: {path: ["silver", "web", "visits"]}) {
             ... on AssetNode { partitionStats { numMaterialized numFailed } } } }"""
    )["partitionStats"]
    assert stats == {"numMaterialized": 4, "numFailed": 0}
    automatic = [run for run in web.runs() if run["tags"].get("dagster/sensor_name") == "automation"]
    assert not [run for run in automatic if {"path": ["silver", "web", "visits"]} in run["assetSelection"]]


def test_a_backfill_of_a_range_is_one_run(clone, web):
    for day in range(1, 8):
        clone.put(f"archive/2026-03-0{day}.csv", f"id\n{day}\n")
    days = [f"2026-03-0{day}" for day in range(2, 6)]
    started = web.ask(
        """mutation ($backfill: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $backfill) {
             __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
        backfill={
            "assetSelection": [{"path": [layer, "archive", "days"]} for layer in ("bronze", "silver")],
            "partitionNames": days,
        },
    )
    assert started["__typename"] == "LaunchBackfillSuccess", started

    def runs() -> list[dict[str, Any]]:
        return [run for run in web.runs() if run["tags"].get("dagster/backfill") == started["backfillId"]]

    wait_for(lambda: [run["status"] for run in runs()] == ["SUCCESS"], 120, web.runs)
    assert clone.fetch("select id from silver.archive_days order by 1") == [(2,), (3,), (4,), (5,)]
    assert sorted(made["partition"] for made in web.materializations("silver", "archive", "days")) == days


def test_a_failed_run_is_told_once(clone, web, webhook):
    clone.put("shop/orders/orders-2026-02-02.csv", "no,such\x00columns\n" + "\x00" * 10)
    clone.put("shop/payments/payments-2026-02-02.parquet", "not parquet")
    wait_for(lambda: failed_runs(webhook), 120, web.runs)
    [failed] = [run for run in web.runs() if run["status"] == "FAILURE"]
    wait_for(lambda: len(web.ticks("alerts")) > 2, 60)
    [alert] = failed_runs(webhook)
    assert alert["facts"]["run_id"] == failed["runId"]
    assert "payments-2026-02-02.parquet" in alert["summary"]


def failed_runs(webhook) -> list[dict[str, Any]]:
    """Of all that was told."""
    return [
        alert for message in webhook.posted for alert in message["alerts"] if alert["kind"] == "run_failed"
    ]


def _an_order(number: int) -> str:
    at = "2031-02-03T10:00:00Z"
    return f"{number},1,paid,{at},{at},EUR,1,9.99\n"
