"""Follow a slot to a place in the log, and end there.

The place is marked by a message of our own in the source's log, so that the end is exact whatever else
happens there; the message also lets the slot of an idle database move on.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from datops_assets.cdc import wire
from datops_assets.cdc.apply import Batch, Place, copy_rows, empty, merge, move_key, new_rows
from datops_assets.cdc.bronze import FollowedTable, add_columns, widen_column
from datops_assets.cdc.replication import Receiver, replication_connection
from datops_assets.cdc.snapshot import connect_source, enter_table, follow
from datops_assets.cdc.source import SourceColumn, SourceTable, read_server, read_tables, warehouse_types
from datops_assets.cdc.streams import ChangeStream, StreamEntry, find_stream, names_of, require_resync
from datops_assets.errors import LoadRefusedError, SourceRefusedError
from datops_assets.postgres import failpoints
from datops_assets.postgres.lsn import format_lsn, parse_lsn
from datops_assets.postgres.ulid import new_ulid
from datops_assets.postgres.widening import wider

MESSAGE_PREFIX = "datops"
_BATCH_BYTES = 32 << 20
"""Rows collected before they are written: bounds memory, whatever the size of a transaction."""
_BATCH_S = 1.0
"""Longest a finished transaction waits for others before it is committed."""
_IDLE_S = 0.1
_LONGEST_SILENCE_S = 120.0
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass
class Drained:
    """What one drain did."""

    transactions: int = 0
    changes: int = 0
    applied: str = ""
    """The place in the log that the warehouse has reached."""
    seconds: float = 0.0
    tables: dict[str, int] = field(default_factory=dict)
    """Changes per table of the stream."""
    columns_added: dict[str, list[str]] = field(default_factory=dict)


def drain(warehouse: psycopg.Connection[Any], parameters: dict[str, Any], stream: ChangeStream) -> Drained:
    """Apply all that the source had committed when the drain began, each change once.

    warehouse   autocommit; holds the stream's lease
    parameters  of the source, by libpq's names
    raises      SourceUnreachableError: what is committed by then stays, the next drain goes on from there.
                SourceRefusedError: the stream needs a person; where its log is lost the state says so
    promise     rows, mirror and place commit together; the source is told after that, never before
    """
    entry = find_stream(warehouse, stream.source)
    if entry is None or entry.state in ("new", "snapshot"):
        raise SourceRefusedError(f"{stream.source} has no snapshot yet: datops cdc snapshot {stream.source}")
    started = time.monotonic()
    with closing(connect_source(parameters)) as source:
        _require_same_log(warehouse, source, entry, stream)
        barrier = new_ulid()
        source.execute("select pg_logical_emit_message(true, %s, %s)", (MESSAGE_PREFIX, barrier))
        done = Drained(applied=entry.applied or "")
        while True:
            entry = find_stream(warehouse, stream.source) or entry
            run = _Run(warehouse, source, stream, entry, done)
            start = entry.applied_lsn
            with (
                replication_connection(parameters) as conn,
                Receiver(conn, stream.slot, stream.publication, start, binary=run.binary) as receiver,
            ):
                try:
                    run.follow(receiver, barrier)
                    break
                except _OtherFormError:  # what is not committed is sent again, as text
                    warehouse.execute("rollback")
                except BaseException:
                    if not warehouse.closed and not warehouse.broken:
                        warehouse.execute("rollback")
                    raise
    done.seconds = time.monotonic() - started
    return done


def _other_tables(
    warehouse: psycopg.Connection[Any],
    source: psycopg.Connection[Any],
    entry: StreamEntry,
    stream: ChangeStream,
) -> str | None:
    """Say which table is not the one that was copied; None where all are."""
    copied = dict(
        warehouse.execute(
            "select format('%%I.%%I', schema_name, table_name), oid::bigint from datops.stream_tables"
            " where stream_id = %s",
            (entry.stream_id,),
        ).fetchall()
    )
    for one in stream.tables:
        row = source.execute(
            "select name, to_regclass(name)::oid::bigint from format('%%I.%%I', %s::text, %s::text) as name",
            (one.schema, one.table),
        ).fetchone()
        assert row is not None
        name, oid = row
        if name not in copied:
            return f"{one.label} is new in the document and was not copied yet"
        if oid != copied[name]:
            return f"{one.label} is not the table that was copied: it was dropped or made again"
    return None


class _OtherFormError(Exception):
    """A column came whose values must travel as text, and the stream was begun in binary."""


def _require_same_log(
    warehouse: psycopg.Connection[Any],
    source: psycopg.Connection[Any],
    entry: StreamEntry,
    stream: ChangeStream,
) -> None:
    """Hold that the slot still has all that the warehouse lacks.

    raises     SourceRefusedError: it has not; entered as resync_required
    """
    reason = entry.reason if entry.state == "resync_required" else None
    server = read_server(source)
    found = source.execute(
        "select confirmed_flush_lsn::text, wal_status from pg_replication_slots where slot_name = %s",
        (stream.slot,),
    ).fetchone()
    if reason is None and server.system_identifier != entry.system_identifier:
        reason = "another server answers there now"
    elif reason is None and (other := _other_tables(warehouse, source, entry, stream)):
        reason = other
    elif reason is None and found is None:
        reason = f"the slot {stream.slot} is gone"
    elif reason is None and found is not None and found[1] == "lost":
        reason = f"the source dropped log that the slot {stream.slot} still needed (max_slot_wal_keep_size)"
    elif reason is None and found is not None and found[0] and parse_lsn(found[0]) > entry.applied_lsn:
        reason = f"somebody else read the slot {stream.slot}: it is at {found[0]}, the warehouse at {entry.applied}"
    if reason is not None:
        require_resync(warehouse, entry.stream_id, reason)
        raise SourceRefusedError(
            f"{stream.source} cannot go on: {reason}; changes may be missing, so copy the tables anew:"
            f" datops cdc resync {stream.source}"
        )


class _Run:
    """One drain: what the log said so far, and what of it is not committed."""

    def __init__(
        self,
        warehouse: psycopg.Connection[Any],
        source: psycopg.Connection[Any],
        stream: ChangeStream,
        entry: StreamEntry,
        done: Drained,
    ) -> None:
        self.done = done
        self._conn = warehouse
        self._source = source
        self._stream = stream
        self._entry = entry
        self._names = {(one.schema, one.table): one for one in stream.tables}
        described = read_tables(source, stream.publication, names_of(stream.tables))
        self.binary = all(c.travels_as_binary for table in described.values() for c in table.columns)
        self._batches: dict[int, Batch] = {}
        self._keys: dict[int, tuple[int, ...]] = {}
        self._ignored: set[int] = set()
        self._begin = wire.Begin(0, 0, 0)
        self._seq = 0
        self._skips = False
        self._open_changes = 0
        self._bytes = 0

    def follow(self, receiver: Receiver, barrier: str) -> None:
        """Apply messages until the barrier's transaction is committed."""
        reached = False
        opened: float | None = None
        silent_since = time.monotonic()
        for data in receiver.messages(_IDLE_S):
            if data is None:
                if time.monotonic() - silent_since > _LONGEST_SILENCE_S:
                    raise SourceRefusedError(
                        f"the source sends nothing of slot {self._stream.slot} any more; see: datops cdc status"
                    )
                if opened is not None and self._is_between:
                    self._commit(receiver)
                    opened = None
                continue
            silent_since = time.monotonic()
            kind = data[0]
            if kind == wire.COMMIT:
                self._end(wire.read_commit(data))
                opened = opened or silent_since
                if reached or self._bytes > _BATCH_BYTES or silent_since - opened > _BATCH_S:
                    self._commit(receiver)
                    opened = None
                    if reached:
                        return
            elif kind == wire.MESSAGE:
                message = wire.read_message(data)
                reached = reached or (message.prefix, message.content) == (MESSAGE_PREFIX, barrier.encode())
            else:
                self._take(kind, data)

    def _take(self, kind: int, data: bytes) -> None:
        if kind == wire.INSERT:
            self._change(data, b"i")
        elif kind == wire.UPDATE:
            self._change(data, b"u")
        elif kind == wire.DELETE:
            self._change(data, b"d")
        elif kind == wire.BEGIN:
            self._open(wire.read_begin(data))
        elif kind == wire.RELATION:
            self._relation(wire.read_relation(data))
        elif kind == wire.TRUNCATE:
            self._truncate(wire.read_truncate(data))

    @property
    def _is_between(self) -> bool:
        return self._begin.commit_lsn == 0

    def _open(self, begin: wire.Begin) -> None:
        self._begin = begin
        self._seq = 0
        # Delivered again after a crash between our commit and the source's hearing of it.
        self._skips = begin.commit_lsn < self._entry.applied_lsn
        if self._conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            self._conn.execute("begin")
        for batch in self._batches.values():
            batch.rows.begin(begin)

    def _end(self, commit: wire.Commit) -> None:
        self._last = (commit.end_lsn, self._begin.committed_at_us)
        self._begin = wire.Begin(0, 0, 0)
        if not self._skips:
            self.done.transactions += 1

    def _commit(self, receiver: Receiver) -> None:
        """Merge, move the place, commit, and only then tell the source."""
        failpoints.hit("before_merge")
        for batch in self._batches.values():
            self._bytes -= batch.rows.size_bytes
            merge(self._conn, batch, self._at())
        failpoints.hit("after_merge")
        end, committed_at_us = self._last
        self._conn.execute(
            "update datops.streams set applied_lsn = greatest(applied_lsn, %s::pg_lsn), applied_commit_at = %s,"
            " changes = changes + %s, updated_at = clock_timestamp() where stream_id = %s",
            (
                format_lsn(end), _EPOCH + timedelta(microseconds=committed_at_us), self._open_changes,
                self._entry.stream_id,
            ),
        )  # fmt: skip
        failpoints.hit("before_commit")
        self._conn.execute("commit")
        failpoints.hit("after_commit")
        self.done.changes += self._open_changes
        self.done.applied = format_lsn(end)
        self._open_changes = 0
        self._bytes = 0
        receiver.acknowledge(end)
        failpoints.hit("after_acknowledge")

    def _at(self) -> Place:
        return (self._last_lsn, self._last_seq)

    _last: tuple[int, int] = (0, 0)
    _last_lsn = 0
    _last_seq = 0

    def _change(self, data: bytes, op: bytes) -> None:
        if self._skips:
            return
        oid = int.from_bytes(data[1:5])
        batch = self._batches.get(oid)
        if batch is None:
            return  # a table that the stream does not follow
        before = batch.rows.size_bytes
        marker, at = data[5], 6
        if marker == ord("N") or op == b"d":
            self._add(batch, op, data, at)
        else:
            self._update(batch, data, at)
        self._bytes += batch.rows.size_bytes - before
        if self._bytes > _BATCH_BYTES:
            self._write_rows()

    def _update(self, batch: Batch, data: bytes, at: int) -> None:
        """An update that says what the row was: its key changed, or the table sends whole old rows."""
        end = _tuple_end(data, at)
        new_at = end + 1
        if not self._key_changed(batch, data, at, new_at):
            self._add(batch, b"u", data, new_at)
            return
        if _has_unchanged(data, new_at):
            merge(self._conn, batch, self._at())
            place = (self._begin.commit_lsn, self._seq + 1)
            self._add(batch, b"k", data, at)
            self._add(batch, b"u", data, new_at)
            move_key(self._conn, batch, place)
            return
        self._add(batch, b"k", data, at)
        self._add(batch, b"u", data, new_at)

    def _key_changed(self, batch: Batch, data: bytes, old: int, new: int) -> bool:
        keys = self._keys[id(batch)]
        return _fields(data, old, keys) != _fields(data, new, keys)

    def _add(self, batch: Batch, op: bytes, data: bytes, at: int) -> None:
        self._seq += 1
        batch.rows.add(op, self._seq, data, at)
        self._note(batch)

    def _note(self, batch: Batch) -> None:
        self._last_lsn, self._last_seq = self._begin.commit_lsn, self._seq
        self._open_changes += 1
        name = batch.table.name
        self.done.tables[name] = self.done.tables.get(name, 0) + 1

    def _truncate(self, oids: list[int]) -> None:
        if self._skips:
            return
        for oid in oids:
            batch = self._batches.get(oid)
            if batch is None:
                continue
            self._seq += 1
            batch.rows.add_empty(b"t", self._seq)
            self._note(batch)
            empty(self._conn, batch, self._at())

    def _write_rows(self) -> None:
        """Hand the rows collected so far to the log: the transaction stays open, memory does not grow."""
        for batch in self._batches.values():
            copy_rows(self._conn, batch)
        self._bytes = 0

    def _relation(self, relation: wire.Relation) -> None:
        """A table as the changes after this have it: said before its first change, and after each DDL."""
        one = self._names.get((relation.schema, relation.name))
        if one is None:
            return
        described = read_tables(self._source, self._stream.publication, [(one.schema, one.table)])
        table = described.get((one.schema, one.table))
        if table is None:
            raise SourceRefusedError(
                f"{one.label} is no longer in the source; take it out of the stream's `tables:`"
            )
        as_sent = self._as_sent(relation, table)
        if self.binary and not all(column.travels_as_binary for column in as_sent.columns):
            raise _OtherFormError
        followed = follow(self._stream.source, one, as_sent)
        known = self._batches.get(relation.oid)
        if known is not None and known.table == followed:
            return
        if known is not None:
            merge(self._conn, known, self._at())
        self._follow_columns(one.name, followed)
        enter_table(self._conn, self._entry.stream_id, self._stream.source, one, as_sent)
        since = known.since if known is not None else (self._entry.applied_lsn, 0)
        batch = Batch(followed, new_rows(followed, binary=self.binary), max(since, self._committed()))
        if not self._is_between:
            batch.rows.begin(self._begin)
        self._batches[relation.oid] = batch
        self._keys[id(batch)] = tuple(n for n, column in enumerate(as_sent.columns) if column.is_key)

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

    def _committed(self) -> Place:
        return (parse_lsn(self.done.applied), 0) if self.done.applied else (0, 0)

    def _follow_columns(self, name: str, followed: FollowedTable) -> None:
        """Widen both tables by what is new; a column that left the source stays, and is null from then on."""
        there = dict(
            self._conn.execute(
                "select a.attname, format_type(a.atttypid, -1) from pg_attribute a"
                " where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped",
                (followed.mirror.as_string(self._conn),),
            ).fetchall()
        )
        new = [column for column in followed.columns if column.name not in there]
        for column in followed.columns:
            if column.name not in there or there[column.name] == column.type:
                continue
            if wider(there[column.name], column.type) == column.type:
                widen_column(self._conn, followed, column)
                continue
            raise LoadRefusedError(
                f"{followed.source}.{followed.name}: column {column.name!r} is {column.type} in the source now, and"
                f" {there[column.name]} in the warehouse; copy the tables anew: datops cdc resync {followed.source}"
            )
        if new:
            add_columns(self._conn, followed, new)
            self.done.columns_added.setdefault(name, []).extend(column.name for column in new)


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
