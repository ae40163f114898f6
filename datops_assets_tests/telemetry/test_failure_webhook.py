"""The failure webhook, against a real HTTP server on loopback."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from datops_assets.telemetry import Delivery, FailedRun, post_failure, post_message

RUN = FailedRun(
    run_id="0f3a",
    job="shop_bronze",
    failed_at=datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC),
    error="orders-2026-05-03.csv: the gzip stream ends too early",
    assets=("bronze/shop/orders", "bronze/shop/customers"),
)


class Receiver(ThreadingHTTPServer):
    """Answers with `answers` one after the other (the last one for good) and keeps what it got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, dict[str, str]]] = [(200, {})]
        self.messages: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.silent = threading.Event()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/T0P-S3CRET"

    def next_answer(self) -> tuple[int, dict[str, str]]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.paths.append(f"{self.command} {self.path}")
        self.server.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.server.silent.is_set():
            self.server.released.wait(10)
            return
        status, headers = self.server.next_answer()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.paths.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


class Pauses(list[float]):
    """Stands in for time.sleep: remembers how long it was asked to wait."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def test_a_failed_run_is_told_once_with_what_a_person_and_a_program_need(receiver):
    assert post_failure(receiver.url, RUN) == Delivery(delivered=True, attempts=1)
    [message] = receiver.messages
    assert message["text"] == (
        "datops: run 0f3a of shop_bronze (bronze/shop/orders, bronze/shop/customers) failed: "
        "orders-2026-05-03.csv: the gzip stream ends too early"
    )
    assert message["event"] == "run_failed"
    assert message["run_id"] == "0f3a"
    assert message["failed_at"] == "2026-05-04T03:02:01+00:00"
    assert message["assets"] == ["bronze/shop/orders", "bronze/shop/customers"]


def test_a_server_error_is_tried_again_with_growing_pauses(receiver):
    receiver.answers = [(503, {}), (500, {}), (204, {})]
    pauses = Pauses()
    assert post_failure(receiver.url, RUN, sleep=pauses) == Delivery(delivered=True, attempts=3)
    assert pauses == [1.0, 2.0]
    assert len({message["run_id"] for message in receiver.messages}) == 1


def test_three_failures_are_the_end_and_come_back_as_a_reason(receiver):
    receiver.answers = [(500, {})]
    delivery = post_failure(receiver.url, RUN, sleep=Pauses())
    assert delivery == Delivery(delivered=False, attempts=3, reason="the webhook answered 500")
    assert len(receiver.messages) == 3


def test_a_refusal_is_not_repeated(receiver):
    receiver.answers = [(404, {})]
    assert post_failure(receiver.url, RUN) == Delivery(False, 1, "the webhook answered 404")


@pytest.mark.parametrize(
    ("retry_after", "pause_s"), [("7", 7.0), ("99999", 30.0), ("-1", 1.0), ("tomorrow", 1.0)]
)
def test_a_receiver_may_ask_for_a_longer_pause_within_reason(receiver, retry_after, pause_s):
    receiver.answers = [(429, {"Retry-After": retry_after}), (200, {})]
    pauses = Pauses()
    assert post_failure(receiver.url, RUN, sleep=pauses).delivered
    assert pauses == [pause_s]


def test_a_silent_receiver_is_given_up(receiver):
    receiver.silent.set()
    delivery = post_failure(receiver.url, RUN, timeout_s=0.2, sleep=Pauses())
    assert delivery == Delivery(False, 3, "the webhook did not answer within 0.2 s")


def test_a_redirect_is_a_failure_because_the_message_would_be_lost(receiver):
    receiver.answers = [(302, {"Location": "/elsewhere"})]
    assert post_failure(receiver.url, RUN).reason == "the webhook answered 302"
    assert receiver.paths == ["POST /hooks/T0P-S3CRET"]


def test_a_closed_port_is_said_without_the_address():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    delivery = post_failure(f"http://127.0.0.1:{port}/hooks/T0P-S3CRET", RUN, sleep=Pauses())
    assert delivery == Delivery(False, 3, "the webhook could not be reached (ConnectionRefusedError)")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "ftp://host/x",
        "hooks/T0P",
        "http://",
        "http://[::1",
        "http://h:port/",
        "http://a b/",
    ],
)
def test_a_wrong_address_never_raises_and_never_shows_itself(url):
    delivery = post_failure(url, RUN, sleep=Pauses())
    assert not delivery.delivered
    assert not url or url not in str(delivery.reason)


def test_an_answer_that_is_no_http_is_a_failure():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_nonsense() -> None:
            for _ in range(3):
                connection, _address = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=answer_nonsense)
        thread.start()
        delivery = post_failure(f"http://127.0.0.1:{listener.getsockname()[1]}/", RUN, sleep=Pauses())
        thread.join()
    assert not delivery.delivered
    assert delivery.attempts == 3


def test_secrets_in_the_error_do_not_leave_the_house(receiver):
    run = FailedRun(
        "1",
        "shop",
        RUN.failed_at,
        'cannot connect to "postgresql://shop:hunter2@db:5432/shop": password=hunter3 and s3same',
    )
    post_failure(receiver.url, run, secrets=["s3same"])
    [message] = receiver.messages
    for secret in ("hunter2", "hunter3", "s3same"):
        assert secret not in json.dumps(message)
    assert "postgresql://shop:***@db:5432/shop" in message["text"]


def test_a_long_error_is_cut(receiver):
    post_failure(receiver.url, FailedRun("1", "shop", RUN.failed_at, "x" * 100_000))
    [message] = receiver.messages
    assert len(message["text"]) < 2_200


def test_any_other_message_goes_the_same_way(receiver):
    receiver.answers = [(502, {}), (200, {})]
    assert post_message(receiver.url, {"text": "stock is low"}, sleep=Pauses()) == Delivery(True, 2)
    assert receiver.messages == [{"text": "stock is low"}] * 2


def test_a_message_that_is_no_json_is_said_and_never_raised(receiver):
    delivery = post_message(receiver.url, {"when": RUN.failed_at})
    assert delivery == Delivery(False, 0, "the message could not be made (TypeError)")
    assert receiver.messages == []
