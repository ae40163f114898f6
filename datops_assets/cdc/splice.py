"""Rows of the stream into rows of COPY: the same value bytes in another frame, nothing is decoded.

A pgoutput tuple is a kind byte a column, then length and value; a row of binary COPY is length and
value. So a value moves as one slice, whatever its type: NaN, infinity, a year before Christ, trailing
zeros of a numeric all arrive as they were sent. Text mode is for tables that have a type whose binary
form another server could not read; then values are escaped for COPY's text format.

source     PostgreSQL documentation, "Logical Replication Message Formats" (TupleData) and
           "COPY", Binary Format and Text Format
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod

from datops_assets.cdc.wire import Begin

_NULL_KIND, _UNCHANGED_KIND = ord("n"), ord("u")
_NULL_FIELD = b"\xff\xff\xff\xff"
_BINARY_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_BINARY_TRAILER = b"\xff\xff"
_US_PER_S = 1_000_000

META_COLUMNS = ("commit_lsn", "seq", "op", "xid", "committed_at", "unchanged")
"""What stands before a row's own columns in the change log, in this order."""


class Rows(ABC):
    """Rows of one table on their way into its change log."""

    format: str
    """How COPY is told to read them."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._parts: list[bytes] = []
        self.size_bytes = 0
        self.count = 0
        self.has_unchanged = False

    @abstractmethod
    def begin(self, transaction: Begin) -> None:
        """Rows after this one belong to a transaction."""

    @abstractmethod
    def add(self, op: bytes, seq: int, data: bytes, at: int) -> int:
        """Add the tuple that begins at `at`; returns where it ends."""

    @abstractmethod
    def add_empty(self, op: bytes, seq: int) -> None:
        """Add a change without a row: a truncate."""

    @abstractmethod
    def take(self) -> bytes:
        """Return all rows as one COPY stream, and forget them."""

    def _keep(self, row: bytes) -> None:
        self._parts.append(row)
        self.size_bytes += len(row)
        self.count += 1

    def _taken(self) -> list[bytes]:
        parts, self._parts, self.size_bytes, self.count = self._parts, [], 0, 0
        return parts


class BinaryRows(Rows):
    """Rows whose values came in their types' binary form."""

    format = "binary"
    _seq = struct.Struct(">iq")

    def begin(self, transaction: Begin) -> None:
        """Make what all rows of a transaction share."""
        fields = len(META_COLUMNS) + self._columns
        self._head = struct.pack(">hiQ", fields, 8, transaction.commit_lsn)
        self._tail = struct.pack(">iqiq", 8, transaction.xid, 8, transaction.committed_at_us)

    def add(self, op: bytes, seq: int, data: bytes, at: int) -> int:
        """Add the tuple that begins at `at`; returns where it ends."""
        parts = [self._head, self._seq.pack(8, seq), b"\0\0\0\x01", op, self._tail, _NULL_FIELD]
        unchanged = None
        count = int.from_bytes(data[at : at + 2])
        at += 2
        for number in range(1, count + 1):
            kind = data[at]
            if kind == _NULL_KIND:
                parts.append(_NULL_FIELD)
                at += 1
            elif kind == _UNCHANGED_KIND:
                unchanged = [*(unchanged or ()), number]
                parts.append(_NULL_FIELD)
                at += 1
            else:
                end = at + 5 + int.from_bytes(data[at + 1 : at + 5])
                parts.append(data[at + 1 : end])
                at = end
        if unchanged is not None:
            parts[5] = _smallint_array(unchanged)
            self.has_unchanged = True
        self._keep(b"".join(parts))
        return at

    def add_empty(self, op: bytes, seq: int) -> None:
        """Add a change without a row."""
        meta = [self._head, self._seq.pack(8, seq), b"\0\0\0\x01", op, self._tail, _NULL_FIELD]
        self._keep(b"".join(meta) + _NULL_FIELD * self._columns)

    def take(self) -> bytes:
        """Return all rows as one COPY stream, and forget them."""
        return b"".join([_BINARY_SIGNATURE, *self._taken(), _BINARY_TRAILER])


def _smallint_array(numbers: list[int]) -> bytes:
    """A field of type smallint[]: one dimension, no nulls, lower bound 1."""
    body = struct.pack(">iiIii", 1, 0, 21, len(numbers), 1)
    body += b"".join(struct.pack(">ih", 2, number) for number in numbers)
    return struct.pack(">i", len(body)) + body


class TextRows(Rows):
    """Rows whose values came in their types' text form."""

    format = "text"

    def begin(self, transaction: Begin) -> None:
        """Make what all rows of a transaction share."""
        lsn = f"{transaction.commit_lsn >> 32:X}/{transaction.commit_lsn & 0xFFFFFFFF:X}"
        seconds, microseconds = divmod(transaction.committed_at_us, _US_PER_S)
        self._head = f"{lsn}\t".encode()
        self._tail = f"\t{transaction.xid}\t{_moment(seconds, microseconds)}\t".encode()

    def add(self, op: bytes, seq: int, data: bytes, at: int) -> int:
        """Add the tuple that begins at `at`; returns where it ends."""
        fields: list[bytes] = []
        unchanged: list[int] = []
        count = int.from_bytes(data[at : at + 2])
        at += 2
        for number in range(1, count + 1):
            kind = data[at]
            if kind in (_NULL_KIND, _UNCHANGED_KIND):
                if kind == _UNCHANGED_KIND:
                    unchanged.append(number)
                fields.append(b"\\N")
                at += 1
            else:
                end = at + 5 + int.from_bytes(data[at + 1 : at + 5])
                fields.append(_escaped(data[at + 5 : end]))
                at = end
        self._add(op, seq, fields, unchanged)
        return at

    def add_empty(self, op: bytes, seq: int) -> None:
        """Add a change without a row."""
        self._add(op, seq, [b"\\N"] * self._columns, [])

    def take(self) -> bytes:
        """Return all rows as one COPY stream, and forget them."""
        return b"".join(self._taken())

    def _add(self, op: bytes, seq: int, fields: list[bytes], unchanged: list[int]) -> None:
        self.has_unchanged = self.has_unchanged or bool(unchanged)
        mask = f"{{{','.join(map(str, unchanged))}}}".encode() if unchanged else b"\\N"
        meta = b"".join([self._head, b"%d\t" % seq, op, self._tail, mask])
        self._keep(b"\t".join([meta, *fields]) + b"\n")


def _moment(seconds: int, microseconds: int) -> str:
    from datetime import UTC, datetime, timedelta

    moment = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=microseconds)
    return moment.isoformat()


def _escaped(value: bytes) -> bytes:
    """A value as COPY's text format has it."""
    if b"\\" in value:
        value = value.replace(b"\\", b"\\\\")
    for raw, written in ((b"\t", b"\\t"), (b"\n", b"\\n"), (b"\r", b"\\r")):
        if raw in value:
            value = value.replace(raw, written)
    return value
