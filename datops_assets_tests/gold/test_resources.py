"""The resources as a team uses them: in an asset of its own, on a real database and a real receiver."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from datops_assets.components.resources import AlertResource, PostgresResource
from datops_assets_tests.conftest import TestWarehouse


class Receiver(ThreadingHTTPServer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.messages: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/T0P-S3CRET"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@dg.asset
def stock(postgres: PostgresResource, alerts: AlertResource) -> dg.MaterializeResult[Any]:
    """A team's own asset, as docs/gold.md shows it."""
    with postgres.connect() as conn:
        conn.execute("create table if not exists gold.stock (sku text, units bigint)")
        conn.execute("insert into gold.stock values ('MUG-1', 0)")
        [(empty,)] = conn.execute("select count(*) from gold.stock where units = 0").fetchall()
    delivery = alerts.send("one product is out of stock", sku="MUG-1")
    return dg.MaterializeResult(metadata={"empty": empty, "told": delivery.delivered})


def test_a_teams_own_asset_writes_to_the_warehouse_and_tells_people(
    project: Path, warehouse: TestWarehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing to configure: the warehouse and the address are the platform's."""
    monkeypatch.setenv("DATOPS_ALERT_ADDRESS", receiver.url)
    outcome = dg.materialize([stock], resources={"postgres": PostgresResource(), "alerts": AlertResource()})
    assert outcome.success
    assert warehouse.fetch("select sku, units from gold.stock") == [("MUG-1", 0)]
    [message] = receiver.messages
    assert message["text"].startswith("warning: one product is out of stock")
    assert message["alerts"][0]["facts"] == {"sku": "MUG-1"}


def test_a_database_of_the_team_is_named_by_a_variable(
    project: Path, warehouse: TestWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is read when the connection opens, and is in no configuration."""
    monkeypatch.setenv("TEAM_DB_URL", warehouse.url)
    resource = PostgresResource(url_env="TEAM_DB_URL", statement_timeout_s=7)
    assert warehouse.warehouse.password and warehouse.warehouse.password not in repr(resource)
    with resource.connect(application_name="stock") as conn:
        row = conn.execute(
            "select current_setting('statement_timeout'), current_setting('timezone'), "
            "current_setting('application_name')"
        ).fetchone()
    assert row == ("7s", "UTC", "stock")


@pytest.mark.usefixtures("project")
def test_a_variable_that_is_not_set_fails_the_step_with_its_name() -> None:
    """No traceback of ours, and no retries: it would fail again."""
    with pytest.raises(dg.Failure, match="variable TEAM_DB_URL is not set") as failed:
        PostgresResource(url_env="TEAM_DB_URL").open()
    assert failed.value.allow_retries is False


@pytest.mark.usefixtures("project")
def test_an_alert_without_an_address_is_said_and_fails_nothing() -> None:
    """Also when nobody listens."""
    assert AlertResource().send("x").reason == "variable DATOPS_ALERT_ADDRESS is not set"


@pytest.mark.usefixtures("project")
def test_a_receiver_that_is_away_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is a secret: the reason does not hold it."""
    monkeypatch.setenv("TEAM_HOOK", "ftp://127.0.0.1/T0P-S3CRET")
    delivery = AlertResource(address_env="TEAM_HOOK").send("x")
    assert not delivery.delivered and "T0P-S3CRET" not in str(delivery.reason)
