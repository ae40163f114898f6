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
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from datops_assets.cdc.wire import INSERT, Begin
from datops_assets.postgres.lsn import format_lsn

_NULL_KIND, _UNCHANGED_KIND = ord("n"), ord("u")
_NULL_FIELD = b"\xff\xff\xff\xff"
_BINARY_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_BINARY_TRAILER = b"\xff\xff"
_US_PER_S = 1_000_000

_BINARY_KIND = ord("b")
_LOWER = 0x20
_HEADER_BYTES = 8
"""Of a message before its first column: kind, table, marker, number of columns."""
_META_LAYOUT = [
    ("fields", ">i2"), ("lsn_size", ">i4"), ("lsn", ">u8"), ("seq_size", ">i4"), ("seq", ">i8"),
    ("op_size", ">i4"), ("op", "u1"), ("xid_size", ">i4"), ("xid", ">i8"), ("at_size", ">i4"), ("at", ">i8"),
    ("mask_size", ">i4"),
]  # fmt: skip
_META_BYTES = 59
_COUNT_BYTES = 2
_AT_ONCE = 8192
"""Rows that are spliced at once: their bytes stay in the processor's cache."""
_FEWEST_AT_ONCE = 16
"""Below this, row by row costs less."""

META_COLUMNS = ("commit_lsn", "seq", "op", "xid", "committed_at", "unchanged")
"""What stands before a row's own columns in the change log, in this order."""


@dataclass
class Numbering:
    """Numbers the changes of a stream, so that a row kept for later still knows its transaction.

    A change's number says both: the transaction is the last that began at or before it, its place in that
    transaction is the distance.
    """

    next: int = 0
    starts: list[int] = field(default_factory=list)
    begins: list[Begin] = field(default_factory=list)

    def begin(self, transaction: Begin) -> None:
        """Changes from here on belong to a transaction."""
        self.starts.append(self.next)
        self.begins.append(transaction)

    @property
    def current(self) -> Begin:
        """The transaction that is open."""
        return self.begins[-1]

    @property
    def seq(self) -> int:
        """The place of the next change in its transaction; the first is 1."""
        return self.next - self.starts[-1] + 1

    def place(self, number: int) -> tuple[int, int]:
        """Commit LSN of a change's transaction, and the change's place in it."""
        which = bisect_right(self.starts, number) - 1
        return self.begins[which].commit_lsn, number - self.starts[which] + 1

    def forget(self) -> None:
        """Nothing is kept any more that belongs to an earlier transaction."""
        del self.starts[:-1], self.begins[:-1]


class Rows(ABC):
    """Rows of one table on their way into its change log."""

    format: str
    """How COPY is told to read them."""

    def __init__(self, columns: int, numbering: Numbering) -> None:
        self._columns = columns
        self._numbering = numbering
        self._shared: Begin | None = None
        self._parts: list[bytes] = []
        self.messages: list[bytes] = []
        """Whole messages whose new row begins at the 7th byte; `numbers` has the number of each."""
        self.numbers: list[int] = []
        self.has_unchanged = False
        self.last = (0, 0)
        """Commit LSN and place in its transaction of the last row that was added one by one, or taken."""
        self.ops: Counter[str] = Counter()
        """How many changes of each kind were taken since the last merge; the merge clears it."""

    @property
    def count(self) -> int:
        """Rows that were not taken yet."""
        return len(self.messages) + len(self._parts)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self.messages and not self._parts

    @property
    def first(self) -> tuple[int, int]:
        """Commit LSN and place in its transaction of the first whole message that was not taken yet."""
        return self._numbering.place(self.numbers[0]) if self.numbers else self.last

    def add(self, op: bytes, data: bytes, at: int) -> None:
        """Add the row that begins at `at` as the next change."""
        self._share(self._numbering.current)
        self._add(op, self._numbering.seq, data, at)
        self.last = max(self.last, self._numbering.place(self._numbering.next))
        self._numbering.next += 1

    def add_empty(self, op: bytes) -> None:
        """Add a change without a row: a truncate."""
        self._share(self._numbering.current)
        self.ops[op.decode()] += 1
        self._keep_empty(op, self._numbering.seq)
        self.last = max(self.last, self._numbering.place(self._numbering.next))
        self._numbering.next += 1

    def take(self) -> Iterator[bytes]:
        """Yield all rows as one COPY stream in pieces, and forget them."""
        messages, self.messages = self.messages, []
        numbers, self.numbers = self.numbers, []
        parts, self._parts = self._parts, []
        if numbers:
            self.last = max(self.last, self._numbering.place(numbers[-1]))
        yield self._opening
        yield b"".join(parts)
        for at in range(0, len(messages), _AT_ONCE):
            yield self._splice(messages[at : at + _AT_ONCE], numbers[at : at + _AT_ONCE])
            messages[at : at + _AT_ONCE] = [b""] * min(
                _AT_ONCE, len(messages) - at
            )  # what is written is let go
        yield self._closing

    _opening = b""
    _closing = b""

    def _splice(self, messages: list[bytes], numbers: list[int]) -> bytes:
        """Rows of whole messages, one by one."""
        starts, begins = self._numbering.starts, self._numbering.begins
        for data, number in zip(messages, numbers, strict=True):
            which = bisect_right(starts, number) - 1
            self._share(begins[which])
            self._add(data[:1].lower(), number - starts[which] + 1, data, 6)
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def _share(self, transaction: Begin) -> None:
        if transaction is not self._shared:
            self._shared = transaction
            self._begin(transaction)

    def _add(self, op: bytes, seq: int, data: bytes, at: int) -> None:
        self.ops[op.decode()] += 1
        self._parts.append(self._row(op, seq, data, at))

    @abstractmethod
    def _begin(self, transaction: Begin) -> None:
        """Make what all rows of a transaction share."""

    @abstractmethod
    def _row(self, op: bytes, seq: int, data: bytes, at: int) -> bytes:
        """A row of COPY out of the tuple that begins at `at`."""

    @abstractmethod
    def _keep_empty(self, op: bytes, seq: int) -> None:
        """Keep a row of nulls."""


class BinaryRows(Rows):
    """Rows whose values came in their types' binary form."""

    format = "binary"
    _opening = _BINARY_SIGNATURE
    _closing = _BINARY_TRAILER
    _seq = struct.Struct(">iq")

    def _begin(self, transaction: Begin) -> None:
        fields = len(META_COLUMNS) + self._columns
        self._head = struct.pack(">hiQ", fields, 8, transaction.commit_lsn)
        self._tail = struct.pack(">iqiq", 8, transaction.xid, 8, transaction.committed_at_us)

    def _row(self, op: bytes, seq: int, data: bytes, at: int) -> bytes:
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
        return b"".join(parts)

    def _keep_empty(self, op: bytes, seq: int) -> None:
        meta = [self._head, self._seq.pack(8, seq), b"\0\0\0\x01", op, self._tail, _NULL_FIELD]
        self._parts.append(b"".join(meta) + _NULL_FIELD * self._columns)

    def inserts(self) -> list[bytes] | None:
        """The rows as one COPY stream without our columns, where they are all inserts; they are not taken by that."""
        messages = self.messages
        if self._parts or len(messages) < _FEWEST_AT_ONCE or set(map(itemgetter(0), messages)) != {INSERT}:
            return None
        pieces = [_BINARY_SIGNATURE]
        for at in range(0, len(messages), _AT_ONCE):
            spliced, left = splice_many(messages[at : at + _AT_ONCE], None, None, self._columns)
            if left:
                return None
            pieces.append(spliced)
        return [*pieces, _BINARY_TRAILER]

    def let_go(self) -> None:
        """Forget all rows: they are in the mirror."""
        self.last = max(self.last, self._numbering.place(self.numbers[-1]))
        self.messages, self.numbers = [], []

    def _splice(self, messages: list[bytes], numbers: list[int]) -> bytes:
        if len(messages) < _FEWEST_AT_ONCE:
            return super()._splice(messages, numbers)
        spliced, left = splice_many(messages, numbers, self._numbering, self._columns)
        left_out = [messages[n] for n in left]
        self.ops.update(_kinds(messages))
        self.ops.subtract(_kinds(left_out))  # they are counted where they are added
        if not left:
            return spliced
        return spliced + super()._splice(left_out, [numbers[n] for n in left])


def _kinds(messages: list[bytes]) -> dict[str, int]:
    """How many messages there are of each kind of change."""
    return {chr(kind | _LOWER): count for kind, count in Counter(map(itemgetter(0), messages)).items()}


def _smallint_array(numbers: list[int]) -> bytes:
    """A field of type smallint[]: one dimension, no nulls, lower bound 1."""
    body = struct.pack(">iiIii", 1, 0, 21, len(numbers), 1)
    body += b"".join(struct.pack(">ih", 2, number) for number in numbers)
    return struct.pack(">i", len(body)) + body


class TextRows(Rows):
    """Rows whose values came in their types' text form."""

    format = "text"

    def _begin(self, transaction: Begin) -> None:
        seconds, microseconds = divmod(transaction.committed_at_us, _US_PER_S)
        self._head = f"{format_lsn(transaction.commit_lsn)}\t".encode()
        self._tail = f"\t{transaction.xid}\t{_moment(seconds, microseconds)}\t".encode()

    def _row(self, op: bytes, seq: int, data: bytes, at: int) -> bytes:
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
        return self._line(op, seq, fields, unchanged)

    def _keep_empty(self, op: bytes, seq: int) -> None:
        self._parts.append(self._line(op, seq, [b"\\N"] * self._columns, []))

    def _line(self, op: bytes, seq: int, fields: list[bytes], unchanged: list[int]) -> bytes:
        self.has_unchanged = self.has_unchanged or bool(unchanged)
        mask = f"{{{','.join(map(str, unchanged))}}}".encode() if unchanged else b"\\N"
        meta = b"".join([self._head, b"%d\t" % seq, op, self._tail, mask])
        return b"\t".join([meta, *fields]) + b"\n"


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


def splice_many(
    messages: list[bytes], numbers: list[int] | None, numbering: Numbering | None, columns: int
) -> tuple[bytes, list[int]]:
    """Rows of binary COPY out of many messages at once: column by column over all rows, never row by row.

    messages   inserts, updates without an old row, deletes: their row begins at the 7th byte
    numbers    of the changes, growing; None, as `numbering`: the rows without our columns
    returns    the rows, and the positions of messages that were left out: a value in them is left out or
               is text, so they need a mask, or are not for this form
    """
    import numpy as np

    # In front of each message room is made, so that with its header it is as long as our columns in the row.
    has_meta = numbers is not None and numbering is not None
    room = bytes(_META_BYTES - _HEADER_BYTES if has_meta else 0)
    raw = room + room.join(messages)
    whole = np.frombuffer(raw + bytes(8), dtype=np.uint8)
    lengths = np.fromiter(map(len, messages), dtype=np.int64, count=len(messages)) + len(room)
    begins = np.cumsum(lengths) - lengths
    at = begins + len(room) + _HEADER_BYTES
    kept = np.ones(len(raw), dtype=bool)
    out_at = np.full(len(messages), _META_BYTES if has_meta else _COUNT_BYTES, dtype=np.int64)
    is_left = (whole[at - 2].astype(np.int64) << 8 | whole[at - 1]) != columns
    nulls: list[tuple[Any, Any]] = []
    for _ in range(columns):
        kind = whole[at]
        is_binary = kind == _BINARY_KIND
        if is_binary.all():
            size = _sizes(whole, at)
        else:
            is_null = kind == _NULL_KIND
            is_left |= ~(is_binary | is_null)
            size = np.where(is_binary, _sizes(whole, at), -4)
            rows = np.flatnonzero(is_null)
            nulls.append((rows, out_at[rows]))
        kept[at] = False
        at = np.minimum(at + size + 5, len(raw))
        out_at += np.where(is_binary, size, 0) + 4
    is_left |= at != begins + lengths
    if is_left.any():
        left = np.flatnonzero(is_left).tolist()
        rest = np.flatnonzero(~is_left).tolist()
        if not rest:
            return b"", left
        chosen = None if numbers is None else [numbers[n] for n in rest]
        spliced, _ = splice_many([messages[n] for n in rest], chosen, numbering, columns)
        return spliced, left
    body = whole[: len(raw)]
    if numbers is not None and numbering is not None:
        meta = _meta(np.asarray(numbers, dtype=np.int64), numbering, columns)
        meta["op"] = whole[begins + len(room)] | _LOWER
        body = body.copy()
        # Rows begin where room was made: as many bytes as our columns take, all of them kept.
        body[(begins[:, None] + np.arange(_META_BYTES)).ravel()] = meta.view(np.uint8)
    else:  # a message has the number of its columns where a row has it
        kept[(begins[:, None] + np.arange(_HEADER_BYTES - _COUNT_BYTES)).ravel()] = False
    values = body[kept]
    return (_with_nulls(values, out_at, nulls) if nulls else values).tobytes(), []


def _with_nulls(values: Any, sizes: Any, nulls: list[tuple[Any, Any]]) -> Any:
    """Rows with the fields that are null put between those that are not.

    sizes      of the whole rows
    nulls      of each column: which rows, and how far into each
    """
    import numpy as np

    begins = np.cumsum(sizes) - sizes
    out = np.full(int(sizes.sum()), 0xFF, dtype=np.uint8)
    is_value = np.ones(len(out), dtype=bool)
    for rows, offsets in nulls:
        places = begins[rows] + offsets
        for byte in range(4):
            is_value[places + byte] = False
    out[is_value] = values
    return out


def _sizes(whole: Any, at: Any) -> Any:
    import numpy as np

    size = whole[at + 1].astype(np.int64)
    for byte in range(2, 5):
        size = size << 8 | whole[at + byte]
    return size


def _meta(numbers: Any, numbering: Numbering, columns: int) -> Any:
    """Our columns of each row as the bytes they are in COPY; `op` is left to the caller."""
    import numpy as np

    starts = np.asarray(numbering.starts, dtype=np.int64)
    which = np.searchsorted(starts, numbers, side="right") - 1
    begins = numbering.begins
    meta = np.empty(len(numbers), dtype=_META_LAYOUT)
    meta["fields"] = len(META_COLUMNS) + columns
    for name in ("lsn_size", "seq_size", "xid_size", "at_size"):
        meta[name] = 8
    meta["op_size"] = 1
    meta["lsn"] = np.array([begin.commit_lsn for begin in begins], dtype=np.uint64)[which]
    meta["xid"] = np.array([begin.xid for begin in begins], dtype=np.int64)[which]
    meta["at"] = np.array([begin.committed_at_us for begin in begins], dtype=np.int64)[which]
    meta["seq"] = numbers - starts[which] + 1
    meta["mask_size"] = -1
    return meta
