"""An API that misbehaves: one clear sentence each, nothing half loaded, and never a secret or a cell in it."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from datops_assets.ingestion import rest
from datops_assets_tests.ingestion.rest.conftest import RestLab
from datops_assets_tests.ingestion.rest.server import Asked, Reply

PAGES = {1: [{"id": 1}, {"id": 2}], 2: [{"id": 3}, {"id": 4}], 3: []}


def at_page(lab: RestLab, number: int, *replies: Reply) -> None:
    """Answer with two pages; the first times that one of them is asked for, with these replies instead."""
    left = list(replies)

    def answer(asked: Asked) -> object:
        page = asked.number("page", 1)
        return left.pop(0) if page == number and left else PAGES[page]

    lab.api.answer = answer
    lab.declare(pagination=rest.PageNumber(), disposition="replace")


def assert_said(lab: RestLab, state: str, *parts: str) -> None:
    """Loading fails with a sentence that holds these parts; bronze is empty."""
    result = lab.refused()
    assert result.state == state
    for part in ("GET 127.0.0.1:", "/orders", *parts):
        assert part in str(result.error)
    assert "\n" not in str(result.error)
    assert lab.warehouse.fetch("select count(*) from bronze.shop_orders") == [(0,)]


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_trouble_that_passes_is_waited_for(lab: RestLab, status: int) -> None:
    at_page(lab, 2, Reply(status=status), Reply(status=status))
    assert lab.load().failed == []
    assert (lab.ids(), len(lab.api.asked)) == ([1, 2, 3, 4], 5)


def test_trouble_that_does_not_pass_is_worth_another_run(lab: RestLab) -> None:
    at_page(lab, 2, *[Reply(status=500)] * 3)
    assert_said(lab, "interrupted", "it answers with status 500 (3 tries)", "the next run asks again")
    assert lab.load().failed == []
    assert lab.ids() == [1, 2, 3, 4]


def test_retry_after_in_seconds_is_obeyed(lab: RestLab) -> None:
    at_page(lab, 2, Reply(status=429, headers={"Retry-After": "1"}))
    began = time.monotonic()
    assert lab.load().failed == []
    assert time.monotonic() - began >= 1


def test_retry_after_as_a_date_is_obeyed(lab: RestLab) -> None:
    when = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    at_page(lab, 2, Reply(status=503, headers={"Retry-After": format_datetime(when, usegmt=True)}))
    assert lab.load().failed == []
    assert datetime.now(UTC) >= when


@pytest.mark.parametrize("said", ["soon", "-5", "Fri, 99 Nev 2026", "", "1.5", "\u0661"])
def test_retry_after_that_nobody_understands_is_passed_over(lab: RestLab, said: str) -> None:
    at_page(lab, 2, Reply(status=429, headers={"Retry-After": said.encode().decode("latin-1")}))
    assert lab.load().failed == []


@pytest.mark.parametrize("said", ["31536000", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_retry_after_of_a_year_ends_the_run_at_once(lab: RestLab, said: str) -> None:
    at_page(lab, 2, Reply(status=429, headers={"Retry-After": said}))
    assert_said(lab, "interrupted", "status 429 and asks for a wait of ", " days")
    assert len(lab.api.asked) == 2


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json"])
def test_a_page_for_people_with_status_200(lab: RestLab, kind: str) -> None:
    at_page(lab, 2, Reply(raw=b"<!doctype html><h1>s3cret</h1>", headers={"Content-Type": kind}))
    assert_said(lab, "failed", "a page for people (HTML or XML) in place of JSON")
    assert "s3cret" not in str(lab.loads()[-1].error)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "it does not understand the request"),
        (401, "it does not know us; check `auth:`"),
        (403, "we may not read this"),
        (404, "there is no such address"),
        (410, "the address is gone"),
        (418, "it refuses the request"),
    ],
)
def test_a_refusal_waits_for_a_person(lab: RestLab, status: int, said: str) -> None:
    at_page(lab, 2, Reply(status=status))
    assert_said(lab, "failed", f"status {status}: {said}")
    assert len(lab.api.asked) == 2  # nothing is tried until an account is locked


def test_the_same_page_for_ever(lab: RestLab) -> None:
    lab.api.answer = lambda _: PAGES[1]
    lab.declare(pagination=rest.PageNumber())
    assert_said(lab, "failed", "one page after the other holds the same records")
    assert len(lab.api.asked) <= 3


def test_a_cursor_that_loops(lab: RestLab) -> None:
    following = {"a": "b", "b": "c", "c": "a"}
    lab.api.answer = lambda asked: {
        "next": following[asked.params.get("cursor", "c")],
        "items": [{"id": asked.params.get("cursor", "0")}],
    }
    lab.declare(records="items", pagination=rest.Cursor(next="next"))
    assert_said(lab, "failed", "its pages lead back to one that was read already")


def test_a_next_address_that_loops_from_chunk_to_chunk(lab: RestLab) -> None:
    """The chunks before it stay; the run ends."""
    lab.api.answer = lambda asked: {
        "next": f"/orders?p={asked.number('p', 0) % 4 + 1}",
        "items": [{"id": len(lab.api.asked)}],
    }
    lab.declare(
        records="items",
        pagination=rest.NextUrl(),
        incremental=rest.Incremental("since", "id"),
        limits=rest.ChunkLimits(pages=2),
    )
    assert "lead back" in str(lab.refused().error)
    assert lab.ids() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(raw=b'[{"id": 3}, {"id": 4'),
        Reply(raw=b'[{"id": 3} {"id": 4}]'),
        Reply(raw=b""),
        Reply(raw=b'[{"id": 3}, {"id": 4}]', length=5000),
        Reply(raw=gzip.compress(b'[{"id": 3}]')[:-9], headers={"Content-Encoding": "gzip"}),
        Reply(raw=b"no gzip at all", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["cut", "invalid", "nothing", "shorter than it says", "gzip cut off", "no gzip"],
)
def test_a_page_that_is_cut_in_the_middle_is_asked_for_again(lab: RestLab, reply: Reply) -> None:
    at_page(lab, 2, reply)
    assert lab.load().failed == []
    assert lab.ids() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("reply", "state", "said"),
    [
        (Reply(raw=b'[{"id": 3}, {"id": 4'), "failed", "the answer is not JSON"),
        (Reply(raw=b'[{"id": 3}]', length=5000), "interrupted", "the connection was cut"),
        (Reply(raw=b'[{"id": 3}, {"id": 4}]', length=12), "failed", "the answer is not JSON"),
        (Reply(raw=b"   "), "failed", "it answers with nothing"),
        (Reply(raw=b"[" * 100_000), "failed", "the answer "),
        (Reply({"data": []}), "failed", "a list of records was expected, found an object with 'data'"),
        (Reply("oops s3cret"), "failed", "a list of records was expected, found a text"),
        (Reply([], headers={"Content-Encoding": "br"}), "failed", "packed as 'br', which was not asked for"),
    ],
    ids=["cut", "too short", "too long", "nothing", "deep", "an object", "a text", "unknown packing"],
)  # fmt: skip
def test_a_page_that_stays_broken(lab: RestLab, reply: Reply, state: str, said: str) -> None:
    at_page(lab, 2, *[reply] * 3)
    assert_said(lab, state, said)
    assert "s3cret" not in str(lab.loads()[-1].error)


def test_records_are_not_where_they_should_be(lab: RestLab) -> None:
    lab.api.answer = lambda _: {"error": "s3cret", "status": 5}
    lab.declare(records="data.items")
    assert_said(
        lab, "failed", "nothing at 'data.items' in the answer, which is an object with 'error', 'status'"
    )


def test_an_answer_that_is_too_long(lab: RestLab) -> None:
    lab.api.answer = lambda _: [{"id": "x" * 3_000_000}]
    lab.connect(max_response_bytes=2 << 20)
    assert_said(lab, "failed", "the answer is longer than 2 MiB unpacked")


def test_a_small_answer_that_unpacks_to_a_huge_one(lab: RestLab) -> None:
    bomb = gzip.compress(b"[" + b" " * (300 << 20) + b"]")
    lab.api.answer = lambda _: Reply(raw=bomb, headers={"Content-Encoding": "gzip"})
    lab.connect(max_response_bytes=2 << 20)
    assert_said(lab, "failed", "the answer is longer than 2 MiB unpacked")


def test_a_packed_answer_is_unpacked(lab: RestLab) -> None:
    packed = gzip.compress(b'[{"id": "' + b"x" * 5_000_000 + b'"}]')
    lab.api.answer = lambda _: Reply(raw=packed, headers={"Content-Encoding": "gzip"})
    assert lab.load().rows_added == 1


def test_a_list_that_shrinks_while_it_is_paged_is_read_anew(lab: RestLab) -> None:
    records = [{"id": number} for number in range(6)]

    def answer(asked: Asked) -> object:
        if len(lab.api.asked) == 2:
            del records[0]  # what moved to the first page is passed over
        start = asked.number("offset", 0)
        return {"data": records[start : start + 2], "total": len(records)}

    lab.api.answer = answer
    lab.declare(records="data", pagination=rest.Offset(total_path="total"), disposition="replace")
    assert_said(lab, "interrupted", "what there is became less while it was read")
    lab.load()
    assert lab.ids() == [1, 2, 3, 4, 5]


def test_a_total_that_is_never_reached(lab: RestLab) -> None:
    lab.api.serve([{"id": 1}])
    lab.api.answer = lambda asked: {"data": [{"id": 1}] if asked.number("page", 1) == 1 else [], "total": 9}
    lab.declare(records="data", pagination=rest.PageNumber(total_path="total"))
    assert_said(lab, "interrupted", "what there is became less while it was read")


@pytest.mark.parametrize("total", ["many", None, [1], 1e400])
def test_a_total_that_is_no_number(lab: RestLab, total: object) -> None:
    lab.api.answer = lambda _: {"data": [{"id": 1}], "total": total}
    lab.declare(records="data", pagination=rest.PageNumber(total_path="total"))
    assert_said(lab, "failed", "the answer has no number of records at 'total'")


def test_a_server_that_says_nothing(lab: RestLab) -> None:
    gate = threading.Event()
    lab.api.answer = lambda _: gate.wait(5)
    lab.connect(timeout_s=0.2, tries=2)
    try:
        assert_said(lab, "interrupted", "it is silent for 0.2 s (2 tries)")
    finally:
        gate.set()


@contextmanager
def raw_server(parts: list[bytes], pause_s: float) -> Iterator[str]:
    """Whatever is asked, send these parts with pauses between them, and close."""
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                near, _ = listening.accept()
            except OSError:
                continue
            with near:
                near.settimeout(0.5)
                try:
                    if not near.recv(65536):
                        continue
                    for part in parts:
                        near.sendall(part)
                        if ended.wait(pause_s):
                            break
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            thread.join(5)


def test_a_server_that_drips_is_given_up_on(lab: RestLab) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n["
    with raw_server([head, *[b" "] * 1000], 0.01) as url:
        lab.connect(url=url, timeout_s=0.3, tries=1)
        assert_said(lab, "interrupted", "the answer takes longer than 3 s")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1", b"\x16\x03\x01 garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nA" * 9000]
)
def test_a_server_that_does_not_speak_http(lab: RestLab, answer: bytes) -> None:
    with raw_server([answer], 0) as url:
        lab.connect(url=url, tries=1)
        assert_said(lab, "interrupted", "the connection was cut")


def test_a_server_that_does_not_speak_tls(lab: RestLab) -> None:
    lab.connect(url=lab.api.url.replace("http://", "https://"), tries=1)
    assert_said(lab, "interrupted", "it speaks no TLS")


def test_a_redirect_is_followed(lab: RestLab) -> None:
    lab.api.answer = lambda asked: (
        Reply(status=307, headers={"Location": "/new?x=1"}) if asked.path == "/orders" else PAGES[1]
    )
    assert lab.load().rows_added == 2
    assert lab.api.targets == ["/orders", "/new?x=1"]


def test_a_redirect_to_itself_ends(lab: RestLab) -> None:
    lab.api.answer = lambda _: Reply(status=302, headers={"Location": "/orders"})
    assert_said(lab, "failed", "it leads from one address to the next, more than 5 times")


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "[::1]", "169.254.169.254", "localhost", "[::ffff:10.0.0.1]", "2130706433"]
)
def test_a_redirect_into_a_private_network_is_refused(lab: RestLab, host: str) -> None:
    """Although the API's own host is allowed to be in one."""
    port = lab.api.url.rpartition(":")[2]
    lab.api.answer = lambda _: Reply(status=302, headers={"Location": f"http://{host}:{port}/meta"})
    lab.connect(tries=1)
    assert_said(lab, "failed", "is in a private network, which no source may reach unasked")
    assert len(lab.api.asked) == 1


@pytest.mark.parametrize("to", ["ftp://example.com/x", "file:///etc/passwd"])
def test_a_redirect_to_what_is_no_web_address(lab: RestLab, to: str) -> None:
    lab.api.answer = lambda _: Reply(status=302, headers={"Location": to})
    assert_said(lab, "failed", "it leads ")


@pytest.mark.parametrize(
    "following", ["http://evil.example/orders?page=2", "//evil.example/x", "http://127.0.0.1:1/x"]
)
def test_a_next_address_at_another_host_is_refused(lab: RestLab, following: str) -> None:
    lab.api.answer = lambda _: {"items": [{"id": 1}], "next": following}
    lab.declare(records="items", pagination=rest.NextUrl())
    assert_said(lab, "failed", "the address of the next page ")


@pytest.mark.parametrize("following", [5, ["/x"], {"a": 1}])
def test_a_next_address_that_is_none(lab: RestLab, following: object) -> None:
    lab.api.answer = lambda _: {"items": [{"id": 1}], "next": following}
    lab.declare(records="items", pagination=rest.NextUrl())
    assert_said(lab, "failed", "what is at 'next' is no address")
