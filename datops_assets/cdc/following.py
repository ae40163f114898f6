"""From messages of the log to batches in the warehouse: what stands where, and when it is committed.

Belongs here: which table a change is of, what its columns are at that place, when a batch ends. Does not:
how rows are written (apply.py), where to begin and to end (drain.py).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from datops_assets.cdc import wire
from datops_assets.cdc.apply import Batch, begin, copy_rows, empty, merge, move_key, new_rows
from datops_assets.cdc.bronze import (
    FollowedTable,
    add_columns,
    columns_of,
    key_of,
    note_columns,
    prefix_for,
    prefix_of,
    rename_meta,
    set_column_aside,
    widen_column,
)
from datops_assets.cdc.schema import (
    KnownTable,
    difference,
    freeze_table,
    known_tables,
    rows_came_or_went,
)
from datops_assets.cdc.snapshot import enter_table, follow
from datops_assets.cdc.source import SourceColumn, SourceTable, read_tables, warehouse_types
from datops_assets.cdc.splice import Numbering, Rows
from datops_assets.errors import SourceRefusedError, SourceUnreachableError
from datops_assets.postgres import failpoints
from datops_assets.postgres.lsn import format_lsn, parse_lsn
from datops_assets.postgres.widening import wider

if TYPE_CHECKING:
    from datops_assets.cdc.drain import Drained
    from datops_assets.cdc.replication import Receiver
    from datops_assets.cdc.streams import ChangeStream, StreamedTable, StreamEntry

_WRITE_BYTES = 8 << 20
"""Rows collected before they are written into the log: bounds memory, whatever the size of a transaction."""
_BATCH_BYTES = 32 << 20
"""Changes after which the next end of a transaction ends the batch."""
_LARGE_ROW_BYTES = 1 << 16
"""Rows from here on are spliced one by one: at once they would need several times their size."""
_NEVER = (1 << 64, 0)
"""Of a table whose mirror waits for a person: its changes are in the log, and no place of the log is after this."""
_IDLE_S = 0.02
_REST = 9
"""A process that follows rests this many times as long as the last commit took, at most as long as it was told: so what
arrives now and then is there at once, and commits take a tenth of its time."""
_LONGEST_SILENCE_S = 120.0
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_ROW_KINDS = frozenset((wire.INSERT, wire.UPDATE, wire.DELETE))


class OtherFormError(Exception):
    """A column came whose values must travel as text, and the stream was begun in binary."""


class TableChangedError(Exception):
    """A table was changed so that the log does not tell what its rows are now."""

    def __init__(self, table: StreamedTable) -> None:
        super().__init__(table.label)
        self.table = table


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
        self.binary = self._all_binary(source, stream) if binary is None else binary
        self.committed_at: datetime | None = None
        """When the source committed what was applied last."""
        self._conn = warehouse
        self._source = source
        self._stream = stream
        self._entry = entry
        self._names = {(one.schema, one.table): one for one in stream.tables}
        self._known = known_tables(warehouse, entry)
        self._numbering = Numbering()
        self._relations: dict[int, wire.Relation] = {}
        self._batches: dict[int, Batch] = {}
        self._keys: dict[int, tuple[int, ...]] = {}
        self._plain: dict[bytes, Rows] = {}
        self._is_open = False
        self._skips = False
        self._reached = False
        self._open_changes: dict[str, int] = {}
        self._open_columns: dict[str, list[str]] = {}
        self._open_transactions = 0
        self._collected = self._written = 0
        self._last: tuple[int, int] = (0, 0)
        self._rested_at = 0.0
        self._committed: deque[tuple[int, int]] = deque()
        """Commits that may not be on the warehouse's disk yet: its log at the commit, the source's place."""

    @staticmethod
    def _all_binary(source: psycopg.Connection[Any], stream: ChangeStream) -> bool:
        tables = read_tables(source, stream.publication, [(one.schema, one.table) for one in stream.tables])
        return all(column.travels_as_binary for table in tables.values() for column in table.columns)

    def follow(
        self,
        receiver: Receiver,
        mark: tuple[str, bytes] | None,
        batch_s: float,
        on_commit: Callable[[Following], None],
        stopping: Callable[[], bool],
    ) -> None:
        """Apply messages until the mark's transaction is committed, or until `stopping`; then what is whole is kept.

        mark        prefix and content of a message in the log
        batch_s     longest that a finished transaction waits for others before it is committed; with a mark to reach it
                    waits that long, without one only as long as commits would take more than a tenth of the time
        """
        opened: float | None = None
        numbering = self._numbering
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
                    plain = self._plain.get(data[:6])
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
                    self._not_a_row(kind, data, mark)
            ends = stopping()
            has_rested = mark is None and now >= self._rested_at
            if not self._is_open and (ends or not messages or has_rested or now - (opened or now) >= batch_s):
                if opened is not None:
                    self._commit(receiver, waits=ends)
                    opened = None
                else:
                    self._acknowledge(receiver)
                on_commit(self)
            if ends:
                self._settle(receiver)
                return

    def _not_a_row(self, kind: int, data: bytes, mark: tuple[str, bytes] | None) -> None:
        if kind == wire.BEGIN:
            self._open(wire.read_begin(data))
        elif kind == wire.RELATION:
            self._relation(wire.read_relation(data))
        elif kind == wire.TRUNCATE:
            self._truncate(wire.read_truncate(data))
        elif kind == wire.MESSAGE and mark is not None:
            message = wire.read_message(data)
            self._reached = self._reached or (message.prefix, message.content) == mark

    def _open(self, transaction: wire.Begin) -> None:
        self._is_open = True
        self._numbering.begin(transaction)
        # Delivered again after a crash between our commit and the source's hearing of it.
        self._skips = transaction.commit_lsn < self._entry.applied_lsn
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
        failpoints.hit("before_merge")
        for batch in self._batches.values():
            self._count(batch)
            merge(self._conn, batch)
        failpoints.hit("after_merge")
        end, committed_at_us = self._last
        self.committed_at = _EPOCH + timedelta(microseconds=committed_at_us)
        self._conn.execute(
            "update datops.streams set applied_lsn = greatest(applied_lsn, %s::pg_lsn), applied_commit_at = %s,"
            " changes = changes + %s, updated_at = clock_timestamp() where stream_id = %s",
            (format_lsn(end), self.committed_at, sum(self._open_changes.values()), self._entry.stream_id),
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
        for name, columns in self._open_columns.items():
            self.done.columns_added.setdefault(name, []).extend(columns)
        self._open_changes, self._open_columns, self._open_transactions = {}, {}, 0

    def _change(self, data: bytes) -> None:
        batch = self._batch_of(int.from_bytes(data[1:5]))
        if batch is not None:  # else a table that the stream does not follow
            self._change_one(batch, data)
            self._collected += len(data)

    def _change_one(self, batch: Batch, data: bytes) -> None:
        kind, marker = data[0], data[5]
        if kind != wire.UPDATE or marker == ord("N"):
            batch.rows.add(data[:1].lower(), data, 6)
            return
        # An update that says what the row was: its key changed, or the table sends whole old rows.
        end = _tuple_end(data, 6)
        if not self._key_changed(batch, data, 6, end + 1):
            batch.rows.add(b"u", data, end + 1)
            return
        moves = _has_unchanged(data, end + 1)
        if moves:
            self._count(batch)
            merge(self._conn, batch)
        place = (self._numbering.current.commit_lsn, self._numbering.seq)
        batch.rows.add(b"k", data, 6)
        batch.rows.add(b"u", data, end + 1)
        if moves:
            self._count(batch, rows=2)
            move_key(self._conn, batch, place)

    def _key_changed(self, batch: Batch, data: bytes, old: int, new: int) -> bool:
        keys = self._keys[id(batch)]
        return _fields(data, old, keys) != _fields(data, new, keys)

    def _truncate(self, oids: list[int]) -> None:
        if self._skips:
            return
        for oid in oids:
            batch = self._batch_of(oid)
            if batch is not None:
                batch.rows.add_empty(b"t")
                self._count(batch)
                empty(self._conn, batch)

    def _write_rows(self) -> None:
        """Hand the rows collected so far to the log: the transaction stays open, memory does not grow."""
        for batch in self._batches.values():
            self._count(batch)
            copy_rows(self._conn, batch)
        self._written += self._collected
        self._collected = 0

    def _count(self, batch: Batch, rows: int | None = None) -> None:
        count = batch.rows.count if rows is None else rows
        if count:
            name = batch.table.name
            self._open_changes[name] = self._open_changes.get(name, 0) + count

    def _relation(self, relation: wire.Relation) -> None:
        """A table as the changes after this have it: said before its first change, and after each DDL.

        Followed when a change comes that is not in the warehouse: what is sent again may be older than it.
        """
        if (relation.schema, relation.name) in self._names:
            self._relations[relation.oid] = relation
            self._plain = {head: rows for head, rows in self._plain.items() if _oid(head) != relation.oid}

    def _batch_of(self, oid: int) -> Batch | None:
        relation = self._relations.pop(oid, None)
        if relation is not None:
            self._follow(relation)
        return self._batches.get(oid)

    def _follow(self, relation: wire.Relation) -> None:
        one = self._names[relation.schema, relation.name]
        described = read_tables(self._source, self._stream.publication, [(one.schema, one.table)])
        table = described.get((one.schema, one.table))
        if table is None:
            raise SourceRefusedError(
                f"{one.label} is no longer in the source; take it out of the stream's `tables:`"
            )
        self._require_partitions(one, table)
        as_sent = self._as_sent(relation, table)
        if self.binary and not all(column.travels_as_binary for column in as_sent.columns):
            raise OtherFormError
        followed = follow(self._stream.source, one, as_sent)
        batch = self._batches.get(relation.oid)
        if batch is not None and batch.table.columns == followed.columns:
            self._expect(relation.oid, batch)
            return
        if batch is not None:
            self._count(batch)
            merge(self._conn, batch)
        known = self._known.get((one.schema, one.table))
        copied = parse_lsn(known.copied) if known is not None and known.copied else 0
        followed = self._follow_log(one, followed)
        place, names = (
            format_lsn(self._numbering.current.commit_lsn),
            [column.name for column in followed.columns],
        )
        note_columns(self._conn, self._stream.source, one.name, place, self._numbering.seq, names)
        since = batch.since if batch is not None else (max(self._entry.applied_lsn, copied), 0)
        if self._is_frozen(one, as_sent, known):
            since = _NEVER
        elif self._numbering.current.commit_lsn >= copied and since != _NEVER:
            self._follow_mirror(one, followed, table, known)
        batch = Batch(followed, new_rows(followed, self._numbering, binary=self.binary), since)
        self._batches[relation.oid] = batch
        self._keys[id(batch)] = tuple(n for n, column in enumerate(as_sent.columns) if column.is_key)
        self._expect(relation.oid, batch)

    def _require_partitions(self, one: StreamedTable, table: SourceTable) -> None:
        known = self._known.get((one.schema, one.table))
        waits = known is not None and one.frozen and known.frozen is not None
        if known is not None and not waits and rows_came_or_went(known.partitions, table.partitions):
            raise TableChangedError(one)

    def _is_frozen(self, one: StreamedTable, as_sent: SourceTable, known: KnownTable | None) -> bool:
        """Whether the mirror stays as it is, because a person has not taken these columns; noted when it begins."""
        if not one.frozen or known is None:
            return False
        if known.frozen is not None:
            return True
        found = difference(known, as_sent)
        if found:
            freeze_table(self._conn, self._stream.source, one.name, found)
        return bool(found)

    def _expect(self, oid: int, batch: Batch) -> None:
        """Know the first bytes of the table's messages that need no look into the row."""
        named = oid.to_bytes(4)
        for head in (b"I" + named + b"N", b"U" + named + b"N", b"D" + named + b"K", b"D" + named + b"O"):
            self._plain[head] = batch.rows

    def _as_sent(self, relation: wire.Relation, table: SourceTable) -> SourceTable:
        """The table as the message has it: in the catalogue DDL may have gone on since."""
        types = warehouse_types(self._source, sorted({column.type_oid for column in relation.columns}))
        # Where whole rows are sent, every column is marked; the key is the primary key then.
        key = table.key if relation.identity == "f" else [c.name for c in relation.columns if c.is_identity]
        columns = tuple(
            SourceColumn(column.name, kept, column.name in key, travels)
            for column in relation.columns
            for kept, travels in [types.get(column.type_oid, ("text", False))]
        )
        return replace(table, columns=columns, identity=relation.identity)

    def _follow_log(self, one: StreamedTable, followed: FollowedTable) -> FollowedTable:
        """Let the log take what is sent; columns that left the source stay, and are null from then on.

        returns    the table, with the names that our columns have in this log
        """
        log = followed.changes
        prefix = prefix_of(self._conn, log) or "_"
        longer = prefix_for([column.name for column in followed.columns], prefix)
        if longer != prefix:
            rename_meta(self._conn, log, prefix, longer)
        held = columns_of(self._conn, log)
        new = [column for column in followed.columns if column.name not in held]
        for column in followed.columns:
            kind = held.get(column.name, column.type)
            fits = wider(kind, column.type)
            if kind == column.type:
                continue
            if fits == column.type:
                widen_column(self._conn, log, column)
            elif fits == kind:
                self._needs_text()
            else:
                set_column_aside(self._conn, followed, column.name, self._numbering.current.commit_lsn)
                new.append(column)
        if new:
            add_columns(self._conn, log, new)
        return replace(followed, prefix=longer)

    def _follow_mirror(
        self, one: StreamedTable, followed: FollowedTable, table: SourceTable, known: KnownTable | None
    ) -> None:
        """Give the mirror the columns that are null in all rows there are.

        raises     TableChangedError: what became of its rows is not in the log
        """
        held = columns_of(self._conn, followed.mirror)
        if key_of(self._conn, followed.mirror) != set(followed.key):
            raise TableChangedError(one)
        new = [column for column in followed.columns if column.name not in held]
        for column in followed.columns:
            kind = held.get(column.name, column.type)
            if kind != column.type:
                if wider(kind, column.type) != kind:
                    raise TableChangedError(one)
                self._needs_text()
        if not new:
            return
        was_rewritten = known is not None and known.file is not None and known.file != table.file
        if was_rewritten or any(column.name in table.filled for column in new):
            raise TableChangedError(one)
        if known is not None and {c.get("number") for c in known.columns} & {
            table.numbers.get(column.name) for column in new
        }:
            raise TableChangedError(one)  # not new: another name
        add_columns(self._conn, followed.mirror, new)
        enter_table(self._conn, self._entry.stream_id, self._stream.source, one, table)
        self._open_columns.setdefault(one.name, []).extend(column.name for column in new)

    def _needs_text(self) -> None:
        """A value of a narrower type is read by a wider one only as text."""
        if self.binary:
            raise OtherFormError


def _oid(head: bytes) -> int:
    return int.from_bytes(head[1:5])


def _tuple_end(data: bytes, at: int) -> int:
    count = int.from_bytes(data[at : at + 2])
    at += 2
    for _ in range(count):
        at += 1 if data[at] in b"nu" else 5 + int.from_bytes(data[at + 1 : at + 5])
    return at


def _has_unchanged(data: bytes, at: int) -> bool:
    count = int.from_bytes(data[at : at + 2])
    at += 2
    for _ in range(count):
        if data[at] == ord("u"):
            return True
        at += 1 if data[at] == ord("n") else 5 + int.from_bytes(data[at + 1 : at + 5])
    return False


def _fields(data: bytes, at: int, numbers: tuple[int, ...]) -> list[bytes]:
    """Some fields of a tuple as they are sent, kind included."""
    count = int.from_bytes(data[at : at + 2])
    at += 2
    found = []
    for number in range(count):
        end = at + (1 if data[at] in b"nu" else 5 + int.from_bytes(data[at + 1 : at + 5]))
        if number in numbers:
            found.append(data[at:end])
        at = end
    return found
