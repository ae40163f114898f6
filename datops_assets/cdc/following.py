"""From messages of the log to batches in the warehouse: what stands where, and when it is committed.

Belongs here: where a change goes, when a batch ends. Does not: which table a change is of and what its columns are
at that place (relations.py), how rows are written (apply.py), where to begin and to end (drain.py).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from datops_assets.cdc import wire
from datops_assets.cdc.apply import Batch, begin, copy_rows, empty, merge, move_key
from datops_assets.cdc.relations import Relations
from datops_assets.cdc.splice import Numbering
from datops_assets.errors import SourceUnreachableError
from datops_assets.postgres import failpoints
from datops_assets.postgres.lsn import format_lsn, parse_lsn

if TYPE_CHECKING:
    from datops_assets.cdc.drain import Drained
    from datops_assets.cdc.replication import Receiver
    from datops_assets.cdc.streams import ChangeStream, StreamEntry

_WRITE_BYTES = 8 << 20
"""Rows collected before they are written into the log: bounds memory, whatever the size of a transaction."""
_BATCH_BYTES = 32 << 20
"""Changes after which the next end of a transaction ends the batch."""
_LARGE_ROW_BYTES = 1 << 16
"""Rows from here on are spliced one by one: at once they would need several times their size."""
_IDLE_S = 0.02
_REST = 9
"""A process that follows rests this many times as long as the last commit took, at most as long as it was told: so what
arrives now and then is there at once, and commits take a tenth of its time."""
_LONGEST_SILENCE_S = 120.0
_MOVES_EVERY_S = 10.0
"""Where the source tells how far it has come without a change for us, this often the warehouse's place follows."""
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_ROW_KINDS = frozenset((wire.INSERT, wire.UPDATE, wire.DELETE))


@dataclass(frozen=True)
class Mark:
    """A message of ours in the source's log."""

    prefix: str
    content: bytes


End = Mark | int
"""Where to stop: after the transaction of a mark, or at a place in the log, where the source tells those."""


class Following:
    """What the log said so far, and what of it is not committed."""

    def __init__(
        self,
        warehouse: psycopg.Connection[Any],
        source: psycopg.Connection[Any],
        stream: ChangeStream,
        entry: StreamEntry,
        done: Drained,
        *,
        binary: bool | None = None,
    ) -> None:
        """`binary` None: where every column's binary form travels."""
        self.done = done
        self.committed_at: datetime | None = None
        """When the source committed what was applied last."""
        self._conn = warehouse
        self._stream = stream
        self._entry = entry
        self._numbering = Numbering()
        self._relations = Relations(
            warehouse, source, stream, entry, self._numbering, self._merge, binary=binary
        )
        self._is_open = False
        self._skips = False
        self._reached = False
        self._open_changes: dict[str, int] = {}
        self._open_transactions = 0
        self._collected = self._written = 0
        self._last: tuple[int, int] = (0, 0)
        self._passed = self._moved_to = entry.applied_lsn
        self._passed_at_us = 0
        self._moved_at = time.monotonic()
        self._rested_at = 0.0
        self._committed: deque[tuple[int, int]] = deque()
        """Commits that may not be on the warehouse's disk yet: its log at the commit, the source's place."""

    @property
    def binary(self) -> bool:
        """Whether values travel as their bytes."""
        return self._relations.binary

    def follow(
        self,
        receiver: Receiver,
        end: End | None,
        batch_s: float,
        on_commit: Callable[[Following], None],
        stopping: Callable[[], bool],
    ) -> None:
        """Apply messages until the end is reached and committed, or until `stopping`; then what is whole is kept.

        batch_s     longest that a finished transaction waits for others before it is committed; with an end to reach it
                    waits that long, without one only as long as commits would take more than a tenth of the time
        """
        opened: float | None = None
        numbering, expected = self._numbering, self._relations.plain
        for messages in receiver.batches(_IDLE_S):
            now = time.monotonic()
            if not messages and now - receiver.heard_at > _LONGEST_SILENCE_S:
                raise SourceUnreachableError(
                    f"the source sends nothing of slot {self._stream.slot} any more, not even a sign of life; try again"
                )
            for data in messages:
                kind = data[0]
                if kind in _ROW_KINDS:
                    if self._skips:
                        continue
                    plain = expected.get(data[:6])
                    if plain is not None and len(data) < _LARGE_ROW_BYTES:
                        # The hot path: what is written of it is spliced later, many rows at once.
                        plain.messages.append(data)
                        plain.numbers.append(numbering.next)
                        numbering.next += 1
                        self._collected += len(data)
                    else:
                        self._change(data)
                    if self._collected > _WRITE_BYTES:
                        self._write_rows()
                elif kind == wire.COMMIT:
                    self._end(wire.read_commit(data))
                    opened = opened or now
                    is_full = self._written + self._collected > _BATCH_BYTES
                    if self._reached or is_full or now - opened > batch_s:
                        self._commit(receiver, waits=self._reached)
                        opened = None
                        on_commit(self)
                        if self._reached:
                            return
                else:
                    self._not_a_row(kind, data, end)
            if self._reached and not self._is_open:  # at a place between two transactions
                self._commit(receiver, waits=True)
                on_commit(self)
                return
            ends = stopping()
            has_rested = end is None and now >= self._rested_at
            if not self._is_open and (ends or not messages or has_rested or now - (opened or now) >= batch_s):
                if opened is not None or self._has_moved(now):
                    self._commit(receiver, waits=ends)
                    opened = None
                else:
                    self._acknowledge(receiver)
                on_commit(self)
            if ends:
                self._settle(receiver)
                return

    def _not_a_row(self, kind: int, data: bytes, end: End | None) -> None:
        if kind == wire.BEGIN:
            self._open(wire.read_begin(data))
        elif kind == wire.RELATION:
            self._relations.hear(wire.read_relation(data))
        elif kind == wire.TRUNCATE:
            self._truncate(wire.read_truncate(data))
        elif kind == wire.MESSAGE and isinstance(end, Mark):
            message = wire.read_message(data)
            self._reached = self._reached or (message.prefix, message.content) == (end.prefix, end.content)
        elif kind == wire.KEEPALIVE and not self._is_open:
            told = wire.read_keepalive(data)
            if told.end_lsn > self._passed:
                self._passed, self._passed_at_us = told.end_lsn, told.sent_at_us
            self._reached = self._reached or (isinstance(end, int) and self._passed >= end)

    def _has_moved(self, now: float) -> bool:
        """Whether it is time to remember that a part of the log had nothing for us."""
        return self._passed > self._moved_to and now - self._moved_at > _MOVES_EVERY_S

    def _open(self, transaction: wire.Begin) -> None:
        self._is_open = True
        self._numbering.begin(transaction)
        # Delivered again after a crash between our commit and the source's hearing of it.
        self._skips = transaction.commit_lsn < self._entry.applied_lsn
        self._begin()

    def _begin(self) -> None:
        if self._conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            begin(self._conn)

    def _end(self, commit: wire.Commit) -> None:
        self._last = (commit.end_lsn, self._numbering.current.committed_at_us)
        self._is_open = False
        if not self._skips:
            self._open_transactions += 1

    def _commit(self, receiver: Receiver, *, waits: bool) -> None:
        """Merge, move the place, commit, and only then tell the source.

        waits      until the commit is on the warehouse's disk; else the next batch is worked on meanwhile, and the
                   source is told when it is. Rows and place are lost together or not at all.
        """
        began = time.monotonic()
        self._begin()
        failpoints.hit("before_merge")
        for batch in self._relations.batches.values():
            self._merge(batch)
        failpoints.hit("after_merge")
        end, at_us = self._last
        if at_us:
            self.committed_at = _EPOCH + timedelta(microseconds=at_us)
        if self._passed > end:
            end, at_us = self._passed, self._passed_at_us
        at = _EPOCH + timedelta(microseconds=at_us) if at_us else None
        self._conn.execute(
            "update datops.streams set applied_lsn = greatest(applied_lsn, %s::pg_lsn),"
            " applied_commit_at = coalesce(%s, applied_commit_at),"
            " changes = changes + %s, updated_at = clock_timestamp() where stream_id = %s",
            (format_lsn(end), at, sum(self._open_changes.values()), self._entry.stream_id),
        )
        failpoints.hit("before_commit")
        self._conn.execute("set local synchronous_commit = " + ("on" if waits else "off"))
        self._conn.execute("commit")
        failpoints.hit("after_commit")
        self._report(end)
        self._numbering.forget()
        self._written = self._collected = 0
        self._acknowledge(receiver, committed=end)
        failpoints.hit("after_acknowledge")
        ended = time.monotonic()
        self._rested_at = ended + _REST * (ended - began)

    def _acknowledge(self, receiver: Receiver, committed: int | None = None) -> None:
        """Tell the source up to where the warehouse would have everything after a crash of its own.

        committed   the source's place that a commit has just reached
        """
        if not self._committed and committed is None:
            return
        query = "select pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn()::text"
        written, flushed = map(parse_lsn, self._conn.execute(query).fetchone() or ("0/0", "0/0"))
        if committed is not None:
            self._committed.append((written, committed))
        while self._committed and self._committed[0][0] <= flushed:
            receiver.acknowledge(self._committed.popleft()[1])

    def _settle(self, receiver: Receiver) -> None:
        """Wait until all that is committed is on the warehouse's disk, and tell the source."""
        self._conn.execute("rollback")  # a transaction that is open in the source is sent again
        if self._committed:
            self._conn.execute("begin")
            self._conn.execute("set local synchronous_commit = on")
            self._conn.execute(
                "select pg_current_xact_id()"
            )  # a commit that is written makes those before it durable
            self._conn.execute("commit")
            self._acknowledge(receiver)

    def _report(self, end: int) -> None:
        """Say what is committed; what was rolled back was never done."""
        self.done.applied = format_lsn(end)
        self.done.transactions += self._open_transactions
        for name, count in self._open_changes.items():
            self.done.changes += count
            self.done.tables[name] = self.done.tables.get(name, 0) + count
        for name, columns in self._relations.columns_added.items():
            self.done.columns_added.setdefault(name, []).extend(columns)
        self._relations.columns_added = {}
        self._open_changes, self._open_transactions = {}, 0

    def _change(self, data: bytes) -> None:
        batch = self._relations.batch_of(int.from_bytes(data[1:5]))
        if batch is None:
            return  # a table that the stream does not follow
        if data[:6] in self._relations.plain and len(data) < _LARGE_ROW_BYTES:
            batch.rows.messages.append(data)  # the first change since the table was told of
            batch.rows.numbers.append(self._numbering.next)
            self._numbering.next += 1
        else:
            self._change_one(batch, data)
        self._collected += len(data)

    def _change_one(self, batch: Batch, data: bytes) -> None:
        kind, marker = data[0], data[5]
        if kind != wire.UPDATE or marker == ord("N"):
            batch.rows.add(data[:1].lower(), data, 6)
            return
        # An update that says what the row was: its key changed, or the table sends whole old rows.
        end = wire.tuple_end(data, 6)
        if not self._key_changed(batch, data, 6, end + 1):
            batch.rows.add(b"u", data, end + 1)
            return
        moves = wire.has_unchanged(data, end + 1)
        if moves:
            self._merge(batch)
        place = (self._numbering.current.commit_lsn, self._numbering.seq)
        batch.rows.add(b"k", data, 6)
        batch.rows.add(b"u", data, end + 1)
        if moves:
            self._count(batch, rows=2)
            move_key(self._conn, batch, place)

    def _key_changed(self, batch: Batch, data: bytes, old: int, new: int) -> bool:
        keys = self._relations.key_of(batch)
        return wire.read_fields(data, old, keys) != wire.read_fields(data, new, keys)

    def _truncate(self, oids: list[int]) -> None:
        if self._skips:
            return
        for oid in oids:
            batch = self._relations.batch_of(oid)
            if batch is not None:
                batch.rows.add_empty(b"t")
                self._count(batch)
                empty(self._conn, batch)

    def _write_rows(self) -> None:
        """Hand the rows collected so far to the log: the transaction stays open, memory does not grow."""
        for batch in self._relations.batches.values():
            self._count(batch)
            copy_rows(self._conn, batch)
        self._written += self._collected
        self._collected = 0

    def _merge(self, batch: Batch) -> None:
        self._count(batch)
        merge(self._conn, batch)

    def _count(self, batch: Batch, rows: int | None = None) -> None:
        count = batch.rows.count if rows is None else rows
        if count:
            name = batch.table.name
            self._open_changes[name] = self._open_changes.get(name, 0) + count
