"""Messages cut out of a socket's bytes: whole ones only, in order, however the bytes arrive."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datops_assets.cdc.copy_both import _Plain


@dataclass
class Opened:
    """The part of libpq's connection that is asked for: its socket."""

    socket: int


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        yield here, there


def frame(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body


def change(place: int, payload: bytes) -> bytes:
    return frame(b"d", b"w" + struct.pack(">QQq", place, place, 0) + payload)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(max_size=300), max_size=20), st.lists(st.integers(1, 400), max_size=20), st.booleans()
)
def test_messages_come_whole_however_their_bytes_do(
    pair: tuple[socket.socket, socket.socket], payloads: list[bytes], cuts: list[int], asks: bool
) -> None:
    here, there = pair
    sent = frame(b"W", b"\0\0\0") + b"".join(change(n, one) for n, one in enumerate(payloads, start=1))
    sent += frame(b"d", b"k" + struct.pack(">QqB", 99, 0, asks)) + frame(b"N", b"a notice")
    copy, messages, received, asked, size = _Plain(Opened(here.fileno())), [], 0, False, 0
    while sent:
        cut = cuts.pop() if cuts else len(sent)
        there.sendall(sent[:cut])
        sent = sent[cut:]
        copy.fill()
        taken = copy.take(messages)
        received, asked, size = max(received, taken.received), asked or taken.wants_reply, size + taken.size
    assert messages == payloads
    assert (received, asked) == (len(payloads), asks)
    assert copy.take(messages).size == 0


def test_nothing_there_is_no_end_and_an_end_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    copy = _Plain(Opened(here.fileno()))
    copy.fill()
    assert copy.take([]).size == 0
    there.sendall(change(7, b"before") + frame(b"E", b"the slot is gone"))
    copy.fill()
    messages: list[bytes] = []
    with pytest.raises(psycopg.OperationalError, match="the stream ended"):
        copy.take(messages)
    assert messages == [b"before"]


def test_an_answer_is_a_frame(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    _Plain(Opened(here.fileno())).put(b"r and more")
    assert there.recv(100) == frame(b"d", b"r and more")
