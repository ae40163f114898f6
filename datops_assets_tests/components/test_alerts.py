"""The failure webhook as Dagster drives it: a real run that failed, a real HTTP server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest

from datops_assets.components.alerts import failure_sensor
from datops_assets.components.pipeline import pipeline_definitions

DOCUMENT = """\
pipeline: shop
team: commerce
source: {type: files, path: landing}
retries: {max: 0}
tables:
  payments: {files: "*.parquet"}
"""


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch, project: object) -> Iterator[list[dict[str, Any]]]:
    """What arrives at the address in DATOPS_FAILURE_WEBHOOK_URL."""
    messages: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DATOPS_FAILURE_WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/T0P-S3CRET")
        yield messages
        server.shutdown()


def tell(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> object:
    """What the daemon does with a run that failed."""
    [failure] = [event for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE"]
    context = dg.build_run_status_sensor_context(
        "failure_webhook", failure, instance, instance.get_run_by_id(result.run_id)
    ).for_run_failure()
    return failure_sensor("failure_webhook", "http://127.0.0.1:3000/")(context)


@pytest.fixture
def failed(landing, instance, project) -> dg.ExecuteInProcessResult:
    """A run that met a file which is no Parquet."""
    landing.put("payments-1.parquet", "not parquet")
    job = pipeline_definitions(landing.declare(DOCUMENT)).resolve_job_def("shop_pipeline")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    return result


def test_a_failed_run_is_one_message_with_its_cause_and_a_link(posted, failed, instance):
    tell(failed, instance)
    [message] = posted
    assert message["run_id"] == failed.run_id
    assert message["job"] == "shop_pipeline"
    assert "payments-1.parquet" in message["error"]
    assert message["url"] == f"http://127.0.0.1:3000/runs/{failed.run_id}"


def test_without_an_address_nothing_is_sent_and_the_tick_says_so(posted, failed, instance, monkeypatch):
    monkeypatch.delenv("DATOPS_FAILURE_WEBHOOK_URL")
    skipped = tell(failed, instance)
    assert "DATOPS_FAILURE_WEBHOOK_URL is not set" in skipped.skip_message
    assert posted == []


def test_an_address_that_does_not_answer_fails_no_tick_and_is_not_shown(
    failed, instance, monkeypatch, caplog
):
    monkeypatch.setenv("DATOPS_FAILURE_WEBHOOK_URL", "http://127.0.0.1:1/T0P-S3CRET")
    assert tell(failed, instance) is None
    assert "T0P-S3CRET" not in caplog.text
