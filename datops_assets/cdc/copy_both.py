"""The COPY in both directions that carries a source's log: messages out of it, answers into it.

Belongs here: where messages begin and end on the connection. Does not: what they say (wire.py), when to read and to
answer (replication.py).

libpq hands out one message a call, and the calls cost more than all else that is done with a row. So where nothing is
encrypted the socket is read by us, a quarter of a megabyte at a time: libpq opens the connection and sends the command,
and has read nothing of the answer when we take over.

source     PostgreSQL documentation, "Message Formats" (CopyData) and "Streaming Replication Protocol"
"""

from __future__ import annotations

import os
import select
import socket
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass

import psycopg
from psycopg import pq

from datops_assets.cdc import wire

_FRAME = struct.Struct(">BI")
_HEADER_BYTES = _FRAME.size + wire.HEADER_BYTES
_COPY_DATA, _COPY_BOTH = ord("d"), b"W"
_ENDS = frozenset(b"cfE")
"""CopyDone, CopyFail, ErrorResponse."""
_READ_BYTES = 1 << 18
_TAKEN_BYTES = 1 << 20
"""Messages are handed over after so many bytes."""
_ANSWER_S = 60.0
"""Longest that the server may leave an answer of ours unread."""


@dataclass
class Taken:
    """What was taken from the connection at once."""

    size: int = 0
    """Bytes; 0 where nothing has arrived."""
    received: int = 0
    """The place in the log of the last message; 0 where there was none."""
    wants_reply: bool = False


class CopyBoth(ABC):
    """A COPY that has begun. Raises psycopg.OperationalError where it ended."""

    @abstractmethod
    def fill(self) -> None:
        """Read what the socket has, without waiting."""

    @abstractmethod
    def take(self, messages: list[bytes], *, with_keepalives: bool = False) -> Taken:
        """Add to `messages` what has arrived of the log, without headers.

        with_keepalives   the server's signs of life too, whole
        """

    @abstractmethod
    def put(self, data: bytes) -> None:
        """Send an answer."""


class _ThroughLibpq(CopyBoth):
    """Message by message: libpq decrypts them."""

    def __init__(self, conn: pq.abc.PGconn) -> None:
        self._conn = conn

    def fill(self) -> None:
        self._conn.consume_input()

    def take(self, messages: list[bytes], *, with_keepalives: bool = False) -> Taken:
        read, taken = self._conn.get_copy_data, Taken()
        last: memoryview | None = None
        while taken.size < _TAKEN_BYTES:
            length, data = read(1)
            if length <= 0:
                if length < 0:
                    raise psycopg.OperationalError("the stream ended")
                break
            taken.size += length
            if data[0] == wire.XLOG_DATA:
                messages.append(bytes(data[wire.HEADER_BYTES :]))
                last = data
            elif data[0] == wire.KEEPALIVE:
                taken.wants_reply |= wire.read_keepalive(data).wants_reply
                if with_keepalives:
                    messages.append(bytes(data))
        if last is not None:
            taken.received = wire.read_header(last)[0]
        return taken

    def put(self, data: bytes) -> None:
        self._conn.put_copy_data(data)
        self._conn.flush()


class _Plain(CopyBoth):
    """Many messages at a time, out of the bytes of the socket."""

    def __init__(self, conn: pq.abc.PGconn) -> None:
        self._socket = conn.socket
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._parts: list[bytes] = []
        self._held = 0
        self._needed = _FRAME.size
        """Bytes with which there is a whole message: of a large one no part is looked at before."""

    def fill(self) -> None:
        try:
            count = os.readv(self._socket, [self._buffer])  # libpq's sockets do not wait
        except BlockingIOError:
            return
        except OSError as error:
            raise psycopg.OperationalError("the connection was lost") from error
        if count == 0:
            raise psycopg.OperationalError("the stream ended")
        self._parts.append(bytes(self._buffer[:count]))
        self._held += count

    def take(self, messages: list[bytes], *, with_keepalives: bool = False) -> Taken:
        taken = Taken()
        if self._held < self._needed:
            return taken
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        at, end, last = 0, len(data), -1
        read, add, after = _FRAME.unpack_from, messages.append, 0
        self._needed = _FRAME.size
        while end - at >= _FRAME.size:
            kind, length = read(data, at)
            after = at + 1 + length
            if after > end:
                self._needed = after - at
                break
            if kind == _COPY_DATA:
                if data[at + _FRAME.size] == wire.XLOG_DATA:
                    add(data[at + _HEADER_BYTES : after])
                    last = at
                elif data[at + _FRAME.size] == wire.KEEPALIVE:
                    keepalive = data[at + _FRAME.size : after]
                    taken.wants_reply |= wire.read_keepalive(memoryview(keepalive)).wants_reply
                    if with_keepalives:
                        add(keepalive)
            elif kind in _ENDS:
                raise psycopg.OperationalError("the stream ended")
            at = after
        taken.size = at
        if last >= 0:
            first = last + _FRAME.size
            taken.received = wire.read_header(memoryview(data)[first : first + wire.HEADER_BYTES])[0]
        self._parts, self._held = ([data[at:]], end - at) if at < end else ([], 0)
        return taken

    def put(self, data: bytes) -> None:
        left = memoryview(_FRAME.pack(_COPY_DATA, len(data) + 4) + data)
        while left:
            try:
                left = left[os.write(self._socket, left) :]
            except BlockingIOError:
                if not select.select([], [self._socket], [], _ANSWER_S)[1]:
                    raise psycopg.OperationalError("the server takes no answer") from None
            except OSError as error:
                raise psycopg.OperationalError("the connection was lost") from error


def begin_copy(conn: pq.abc.PGconn, command: bytes) -> CopyBoth | pq.abc.PGresult:
    """Send a command that begins a COPY in both directions; returns the COPY, or what the server says instead.

    raises     psycopg.OperationalError: the connection was lost
    """
    if conn.ssl_in_use or conn.used_gssapi:
        result = conn.exec_(command)
        return _ThroughLibpq(conn) if result.status == pq.ExecStatus.COPY_BOTH else result
    conn.send_query(command)
    while conn.flush():
        select.select([], [conn.socket], [])
    if _first_byte(conn.socket) == _COPY_BOTH:
        return _Plain(conn)
    said = conn.get_result()
    assert said is not None
    if said.status == pq.ExecStatus.COPY_BOTH:  # the server had something else to say first
        return _ThroughLibpq(conn)
    while conn.get_result() is not None:
        pass
    return said


def _first_byte(fd: int) -> bytes:
    """What the server's answer begins with; it stays there to be read."""
    with socket.socket(fileno=os.dup(fd)) as peeked:
        select.select([peeked], [], [])
        try:
            return peeked.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return b""  # libpq says what happened
