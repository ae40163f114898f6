"""The messages of pgoutput, PostgreSQL's own output plugin: bytes to values, nothing else.

Rows stay bytes here: what a row holds is never decoded (see splice.py).

source     PostgreSQL documentation, "Logical Replication Message Formats" and
           "Streaming Replication Protocol"
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_XLOG_DATA = struct.Struct(">QQq")
_KEEPALIVE = struct.Struct(">QqB")
_STATUS = struct.Struct(">cQQQqB")
_BEGIN = struct.Struct(">QqI")
_COMMIT = struct.Struct(">BQQq")
_COLUMN_TYPE = struct.Struct(">Ii")

XLOG_DATA = ord("w")
KEEPALIVE = ord("k")
HEADER_BYTES = 1 + _XLOG_DATA.size

BEGIN, COMMIT, RELATION, INSERT, UPDATE, DELETE, TRUNCATE, MESSAGE, ORIGIN, TYPE = (
    ord(letter) for letter in "BCRIUDTMOY"
)


class WireError(Exception):
    """The server sent what the protocol does not know."""


@dataclass(frozen=True, slots=True)
class Keepalive:
    """How far the server has come: what was committed before was sent before this, or is of no concern."""

    end_lsn: int
    sent_at_us: int
    """Microseconds since 2000-01-01 UTC."""
    wants_reply: bool


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction whose changes follow; it is committed already."""

    commit_lsn: int
    committed_at_us: int
    """Microseconds since 2000-01-01 UTC, as a timestamptz holds them."""
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The end of a transaction."""

    commit_lsn: int
    end_lsn: int
    """Where the next transaction may begin: what is acknowledged."""


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """One column as the changes after this message have it."""

    name: str
    type_oid: int
    type_modifier: int
    is_identity: bool
    """Whether it is sent to say which row changed."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as the changes after this message have it."""

    oid: int
    schema: str
    name: str
    identity: str
    """d default, n nothing, f full, i index."""
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """What pg_logical_emit_message() wrote."""

    lsn: int
    prefix: str
    content: bytes


def read_header(data: memoryview) -> tuple[int, int]:
    """Return start and end (bytes of WAL) of the WAL data that `data` carries after its header."""
    start, end, _ = _XLOG_DATA.unpack_from(data, 1)
    return start, end


def read_keepalive(data: bytes | memoryview) -> Keepalive:
    """Read a sign of life."""
    end, sent_at_us, wants_reply = _KEEPALIVE.unpack_from(data, 1)
    return Keepalive(end, sent_at_us, bool(wants_reply))


def write_status(flushed: int, now_us: int, *, received: int, wants_reply: bool = False) -> bytes:
    """The answer that says how far the WAL is needed no more.

    flushed    applied and committed in the warehouse; the server may forget what is before it
    received   read from the connection so far
    now_us     microseconds since 2000-01-01 UTC
    """
    return _STATUS.pack(b"r", max(received, flushed), flushed, flushed, now_us, wants_reply)


def read_begin(data: bytes) -> Begin:
    """Read the message B."""
    return Begin(*_BEGIN.unpack_from(data, 1))


def read_commit(data: bytes) -> Commit:
    """Read the message C."""
    _, lsn, end, _ = _COMMIT.unpack_from(data, 1)
    return Commit(lsn, end)


def read_relation(data: bytes) -> Relation:
    """Read the message R."""
    oid = int.from_bytes(data[1:5])
    schema, at = _text(data, 5)
    name, at = _text(data, at)
    identity, count = chr(data[at]), int.from_bytes(data[at + 1 : at + 3])
    at += 3
    columns = []
    for _ in range(count):
        is_identity = data[at] & 1 == 1
        column, at = _text(data, at + 1)
        type_oid, modifier = _COLUMN_TYPE.unpack_from(data, at)
        at += _COLUMN_TYPE.size
        columns.append(RelationColumn(column, type_oid, modifier, is_identity))
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns))


def read_truncate(data: bytes) -> list[int]:
    """Read the message T: the oids of the tables, in the order they are emptied."""
    count = int.from_bytes(data[1:5])
    return [int.from_bytes(data[at : at + 4]) for at in range(6, 6 + 4 * count, 4)]


def read_message(data: bytes) -> Message:
    """Read the message M."""
    lsn = int.from_bytes(data[2:10])
    prefix, at = _text(data, 10)
    size = int.from_bytes(data[at : at + 4])
    return Message(lsn, prefix, bytes(data[at + 4 : at + 4 + size]))


def tuple_end(data: bytes, at: int) -> int:
    """Where the tuple that begins at `at` ends."""
    count = int.from_bytes(data[at : at + 2])
    at += 2
    for _ in range(count):
        at += 1 if data[at] in b"nu" else 5 + int.from_bytes(data[at + 1 : at + 5])
    return at


def has_unchanged(data: bytes, at: int) -> bool:
    """Whether the tuple that begins at `at` left out a value because it did not change."""
    count = int.from_bytes(data[at : at + 2])
    at += 2
    for _ in range(count):
        if data[at] == ord("u"):
            return True
        at += 1 if data[at] == ord("n") else 5 + int.from_bytes(data[at + 1 : at + 5])
    return False


def read_fields(data: bytes, at: int, numbers: tuple[int, ...]) -> list[bytes]:
    """Some fields of the tuple that begins at `at` as they are sent, kind included."""
    count = int.from_bytes(data[at : at + 2])
    at += 2
    found = []
    for number in range(count):
        end = at + (1 if data[at] in b"nu" else 5 + int.from_bytes(data[at + 1 : at + 5]))
        if number in numbers:
            found.append(data[at:end])
        at = end
    return found


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1
