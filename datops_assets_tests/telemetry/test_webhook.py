"""One message to one HTTP address, against a real HTTP server on loopback."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from datops_assets.telemetry import Delivery, post_message

MESSAGE = {"event": "alert", "text": "orders-2026-05-03.csv: the gzip stream ends too early"}


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


def test_a_message_arrives_once_as_it_is(receiver):
    assert post_message(receiver.url, MESSAGE) == Delivery(delivered=True, attempts=1)
    assert receiver.messages == [MESSAGE]


def test_a_server_error_is_tried_again_with_growing_pauses(receiver):
    receiver.answers = [(503, {}), (500, {}), (204, {})]
    pauses = Pauses()
    assert post_message(receiver.url, MESSAGE, sleep=pauses) == Delivery(delivered=True, attempts=3)
    assert pauses == [1.0, 2.0]
    assert receiver.messages == [MESSAGE] * 3


def test_three_failures_are_the_end_and_come_back_as_a_reason(receiver):
    receiver.answers = [(500, {})]
    delivery = post_message(receiver.url, MESSAGE, sleep=Pauses())
    assert delivery == Delivery(delivered=False, attempts=3, reason="the webhook answered 500")
    assert len(receiver.messages) == 3


def test_a_refusal_is_not_repeated(receiver):
    receiver.answers = [(404, {})]
    assert post_message(receiver.url, MESSAGE) == Delivery(False, 1, "the webhook answered 404")


@pytest.mark.parametrize(
    ("retry_after", "pause_s"), [("7", 7.0), ("99999", 30.0), ("-1", 1.0), ("tomorrow", 1.0)]
)
def test_a_receiver_may_ask_for_a_longer_pause_within_reason(receiver, retry_after, pause_s):
    receiver.answers = [(429, {"Retry-After": retry_after}), (200, {})]
    pauses = Pauses()
    assert post_message(receiver.url, MESSAGE, sleep=pauses).delivered
    assert pauses == [pause_s]


def test_a_silent_receiver_is_given_up(receiver):
    receiver.silent.set()
    delivery = post_message(receiver.url, MESSAGE, timeout_s=0.2, sleep=Pauses())
    assert delivery == Delivery(False, 3, "the webhook did not answer within 0.2 s")


def test_a_redirect_is_a_failure_because_the_message_would_be_lost(receiver):
    receiver.answers = [(302, {"Location": "/elsewhere"})]
    assert post_message(receiver.url, MESSAGE).reason == "the webhook answered 302"
    assert receiver.paths == ["POST /hooks/T0P-S3CRET"]


def test_a_closed_port_is_said_without_the_address():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    delivery = post_message(f"http://127.0.0.1:{port}/hooks/T0P-S3CRET", MESSAGE, sleep=Pauses())
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
    delivery = post_message(url, MESSAGE, sleep=Pauses())
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
        delivery = post_message(f"http://127.0.0.1:{listener.getsockname()[1]}/", MESSAGE, sleep=Pauses())
        thread.join()
    assert not delivery.delivered
    assert delivery.attempts == 3


def test_a_message_that_is_no_json_is_said_and_never_raised(receiver):
    delivery = post_message(receiver.url, {"when": datetime.now(UTC)})
    assert delivery == Delivery(False, 0, "the message could not be made (TypeError)")
    assert receiver.messages == []
