"""A stream's tables as its log sends them: what a change is of, and log and mirror made ready to take it.

Belongs here: which columns a table has at a place in the log, and what becomes of the warehouse's tables when
they change there. Does not: the changes themselves (following.py), comparing with the catalogue (schema.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from datops_assets.cdc.apply import Batch, new_rows
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
    stage,
    widen_column,
)
from datops_assets.cdc.marks import make_room, marks_of
from datops_assets.cdc.schema import (
    KnownTable,
    difference,
    freeze_table,
    known_tables,
    rows_came_or_went,
)
from datops_assets.cdc.snapshot import enter_table, follow
from datops_assets.cdc.source import SourceColumn, SourceTable, read_tables, warehouse_types
from datops_assets.errors import SourceRefusedError
from datops_assets.postgres.lsn import format_lsn, parse_lsn
from datops_assets.postgres.widening import wider

if TYPE_CHECKING:
    from datops_assets.cdc import wire
    from datops_assets.cdc.splice import Numbering, Rows
    from datops_assets.cdc.streams import ChangeStream, StreamedTable, StreamEntry

_NEVER = (1 << 64, 0)
"""Of a table whose mirror waits for a person: its changes are in the log, and no place of the log is after this."""


class OtherFormError(Exception):
    """A column came whose values must travel as text, and the stream was begun in binary."""


class TableChangedError(Exception):
    """A table was changed so that the log does not tell what its rows are now."""

    def __init__(self, table: StreamedTable) -> None:
        super().__init__(table.label)
        self.table = table


class Relations:
    """The tables that a connection has told of so far, and a batch for each that has changes."""

    def __init__(
        self,
        warehouse: psycopg.Connection[Any],
        source: psycopg.Connection[Any],
        stream: ChangeStream,
        entry: StreamEntry,
        numbering: Numbering,
        finish: Callable[[Batch], None],
        *,
        binary: bool | None = None,
    ) -> None:
        """Know the stream's tables by name; nothing is asked of the log.

        finish      brings a batch's changes into the mirror, before the columns of both become others
        binary      None: where every column's binary form travels
        """
        self.binary = _all_binary(source, stream) if binary is None else binary
        self.batches: dict[int, Batch] = {}
        """By the table's oid in the source."""
        self.plain: dict[bytes, Rows] = {}
        """The first bytes of messages that need no look into the row, and where their rows are collected."""
        self.columns_added: dict[str, list[str]] = {}
        """Per table of the stream, in the warehouse's open transaction."""
        self._conn = warehouse
        self._source = source
        self._stream = stream
        self._entry = entry
        self._numbering = numbering
        self._finish = finish
        self._names = {(one.schema, one.table): one for one in stream.tables}
        self._known = known_tables(warehouse, entry)
        self._heard: dict[int, wire.Relation] = {}
        self._keys: dict[int, tuple[int, ...]] = {}

    def hear(self, relation: wire.Relation) -> None:
        """Take a table as the changes after this have it: said before its first change, and after each DDL.

        Followed when a change comes that is not in the warehouse: what is sent again may be older than it.
        """
        if (relation.schema, relation.name) in self._names:
            self._heard[relation.oid] = relation
            for head in [head for head in self.plain if _oid(head) == relation.oid]:
                del self.plain[head]

    def batch_of(self, oid: int) -> Batch | None:
        """Where the changes of a table go, its log and mirror ready for them; None: the stream does not follow it.

        raises     OtherFormError, TableChangedError: what is not committed is to be rolled back
                   SourceRefusedError: it is no longer in the source
        """
        relation = self._heard.pop(oid, None)
        if relation is not None:
            self._follow(relation)
        return self.batches.get(oid)

    def key_of(self, batch: Batch) -> tuple[int, ...]:
        """Which fields of a batch's rows are its table's key, from 0."""
        return self._keys[id(batch)]

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
        batch = self.batches.get(relation.oid)
        if batch is not None and batch.table.columns == followed.columns:
            self._expect(relation.oid, batch)
            return
        if batch is not None:
            self._finish(batch)
        known = self._known.get((one.schema, one.table))
        copied = parse_lsn(known.copied) if known is not None and known.copied else 0
        if one.is_logged:
            followed = self._follow_log(one, followed)
            place = format_lsn(self._numbering.current.commit_lsn)
            names = [column.name for column in followed.columns]
            note_columns(self._conn, self._stream.source, one.name, place, self._numbering.seq, names)
        else:
            stage(self._conn, followed)
        since = batch.since if batch is not None else (max(self._entry.applied_lsn, copied), 0)
        if self._is_frozen(one, as_sent, known):
            since = _NEVER
        elif self._numbering.current.commit_lsn >= copied and since != _NEVER:
            make_room(self._conn, followed.mirror, [column.name for column in followed.columns])
            self._follow_mirror(one, followed, table, known)
        followed = replace(followed, marks=marks_of(self._conn, followed.mirror))
        batch = Batch(followed, new_rows(followed, self._numbering, binary=self.binary), since)
        self.batches[relation.oid] = batch
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
            self.plain[head] = batch.rows

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
        self.columns_added.setdefault(one.name, []).extend(column.name for column in new)

    def _needs_text(self) -> None:
        """A value of a narrower type is read by a wider one only as text."""
        if self.binary:
            raise OtherFormError


def _all_binary(source: psycopg.Connection[Any], stream: ChangeStream) -> bool:
    tables = read_tables(source, stream.publication, [(one.schema, one.table) for one in stream.tables])
    return all(column.travels_as_binary for table in tables.values() for column in table.columns)


def _oid(head: bytes) -> int:
    return int.from_bytes(head[1:5])
