"""APIs: every row at least once, under a key that stays on every try."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from datops_assets.destinations import RestDestination, RestTarget, open_rows
from datops_assets.errors import DestinationRefusedError, DestinationUnreachableError


class Api:
    """A server of ours: what it was sent, and what it answers next."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], list]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                api.requests.append((self.command, self.path, headers, json.loads(body)))
                code, more = api.answers.pop(0) if api.answers else (200, {})
                self.send_response(code)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_PUT(self) -> None:
                self.do_POST()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/sales"

    @property
    def keys(self) -> list[str]:
        """Idempotency keys in the order of arrival."""
        return [headers["idempotency-key"] for _, _, headers, _ in self.requests]

    def ids(self) -> list[int]:
        """Of all rows that arrived."""
        return [row["id"] for _, _, _, rows in self.requests for row in rows]


@pytest.fixture
def api() -> Iterator[Api]:
    """Started, and ended."""
    made = Api()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(5)


def send(conn, api: Api, marker: str = "1", **options):
    """Deliver gold.sales in batches of three."""
    target = RestTarget(api.url, batch_rows=3, **options)
    with (
        RestDestination({"authorization": "Bearer t0ken"}, tries=3, wait_s=0.01) as destination,
        open_rows(conn, ("gold", "sales"), order_by=["id"]) as rows,
    ):
        return destination.deliver(rows, target, marker)


def test_rows_arrive_in_batches_with_keys_of_their_own(sales, api):
    assert send(sales, api).rows == 4
    assert api.ids() == [1, 2, 3, 4]
    assert [len(rows) for *_, rows in api.requests] == [3, 1]
    assert len(set(api.keys)) == 2
    method, path, headers, rows = api.requests[0]
    assert (method, path, headers["authorization"]) == ("POST", "/v1/sales", "Bearer t0ken")
    assert rows[0]["doc"] == {"a": [1, None]}


@pytest.mark.parametrize("answer", [(503, {}), (429, {"retry-after": "0"}), (500, {})])
def test_a_batch_that_was_not_taken_is_sent_again_under_its_key(sales, api, answer):
    api.answers = [answer, answer]
    send(sales, api)
    assert api.keys[0] == api.keys[1] == api.keys[2] != api.keys[3]


def test_the_same_delivery_again_has_the_same_keys_and_the_next_one_others(sales, api):
    send(sales, api)
    send(sales, api)
    assert api.keys[:2] == api.keys[2:]
    send(sales, api, marker="2", method="PUT")
    assert not set(api.keys[4:]) & set(api.keys[:4])
    assert api.requests[-1][0] == "PUT"


def test_an_api_that_refuses_stops_at_once(sales, api):
    api.answers = [(422, {})]
    with pytest.raises(DestinationRefusedError, match=r"/v1/sales refuses a batch \(HTTP 422\)"):
        send(sales, api)
    assert len(api.requests) == 1


def test_a_redirect_is_not_followed(sales, api):
    api.answers = [(307, {"location": "http://127.0.0.1:1/elsewhere"})]
    with pytest.raises(DestinationRefusedError, match="HTTP 307"):
        send(sales, api)


def test_an_api_that_stays_away_is_one_to_try_again(sales, api):
    api.answers = [(503, {})] * 3
    with pytest.raises(DestinationUnreachableError, match="in 3 tries"):
        send(sales, api)


def test_no_rows_send_nothing(sales, api):
    sales.execute("truncate gold.sales")
    assert not send(sales, api).changed
    assert api.requests == []


EXPORT = """\
export: crm
team: x
destination: {{type: rest, url: "{url}", token_env: CRM_TOKEN}}
tables:
  sales: {{from: gold/sales, batch_rows: 1}}
"""


def test_kill_9_in_the_middle_loses_no_row_and_repeats_under_the_same_keys(
    sales, api, deliver_by_process, monkeypatch
):
    monkeypatch.setenv("CRM_TOKEN", "s3cret")
    deliver_by_process(EXPORT.format(url=api.url), failpoint="export.sent", hits=2)
    assert len(api.requests) == 2
    deliver_by_process(EXPORT.format(url=api.url))
    assert sorted(set(api.ids())) == [1, 2, 3, 4]
    assert len(set(api.keys)) == 4
    assert api.requests[0][2]["authorization"] == "Bearer s3cret"
