"""History (SCD2) of a followed table, told from its change log: each version a row had, and from when to when.

    valid from a transaction's commit, to the commit that changed, deleted, moved or truncated it

By queries a look stands for a transaction, and its number for a place.

Several changes of a key in one transaction are one version: nobody could see those between. A version is
valid at a place of the log where `from_lsn <= place` and `to_lsn` is null or after it; the times are the
source's, of the same commits. How far the log was told is kept in the same transaction as the versions.

A copy of the table (snapshot, resync, copied anew) says what the log does not: versions that differ from
it end at its place, and others begin. It is kept aside until the stream gets there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.sql import SQL

from datops_assets.cdc.bronze import key_of
from datops_assets.cdc.history_changes import ToldChanges, joined, listed
from datops_assets.cdc.history_table import HistoryState, HistoryTable
from datops_assets.cdc.marks import live_rows, own_columns
from datops_assets.postgres import failpoints
from datops_assets.postgres.lsn import parse_lsn

_MOST_CHANGES = 1_000_000
"""Changes told in one transaction, and the rest of the last source transaction among them."""
_PLACE: LiteralString = """
select case s.capture when 'log' then s.applied_lsn else '0/0'::pg_lsn + t.look::numeric end::text,
       coalesce(t.copied_lsn, s.snapshot_lsn, case s.capture when 'query' then '0/0'::pg_lsn end)::text
  from datops.streams s join datops.stream_tables t using (stream_id) where t.table_id = %s
"""


@dataclass
class Told:
    """What one call added to a history."""

    changes: int = 0
    begun: int = 0
    """Versions that began."""
    ended: int = 0
    seconds: float = 0.0
    told: str | None = None
    """All that was committed before this place is in the history, by queries all that this look saw; None where there
    is no snapshot yet."""


def tell_history(
    conn: psycopg.Connection[Any],
    source: str,
    name: str,
    rename: Mapping[str, str],
    *,
    most: int = _MOST_CHANGES,
) -> Told:
    """Bring a table's history to where its log is; made on first use, from the mirror as it is then.

    conn       autocommit
    rename     the source's name of a column: silver's; the others become snake_case
    most       changes told in one transaction
    raises     LoadRefusedError: the columns do not fit the history's
    promise    versions and place commit together; killed at any moment, the next call goes on
    """
    started, told = time.monotonic(), Told()
    more = True
    while more:
        with conn.transaction():
            telling = _Telling(conn, source, name, rename, told)
            more = telling.piece(most)
            failpoints.hit("history_told")
        failpoints.hit("history_committed")
    told.told = telling.table.places.shown(told.told) if told.told else None
    told.seconds = time.monotonic() - started
    return told


@contextmanager
def copied_anew(
    conn: psycopg.Connection[Any],
    source: str,
    name: str,
    rename: Mapping[str, str],
    point: str,
    *,
    by_looks: bool = False,
) -> Iterator[None]:
    """Copy a mirror anew inside this, in the caller's transaction: its history keeps the copy for its place.

    point      the place in the log that the copy shows
    by_looks   the table is followed by queries; `point` is the look's number, written as an LSN
    """
    telling = _Telling(conn, source, name, rename, Told(), by_looks=by_looks)
    state = telling.table.state()
    while state is not None and telling.piece(_MOST_CHANGES):
        pass
    yield
    if state is None:
        telling.begin(point, point)
        return
    copy = telling.table.copy
    conn.execute(SQL("drop table if exists {}").format(copy))
    rows = live_rows(conn, telling.table.mirror)
    conn.execute(SQL("create table {} as select * from {} as c").format(copy, rows))
    conn.execute(
        "update datops.stream_histories set waiting_lsn = %s, waiting_at = clock_timestamp() where table_id = %s",
        (point, telling.table.table_id),
    )


class _Telling:
    """One history inside the caller's transaction."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        source: str,
        name: str,
        rename: Mapping[str, str],
        told: Told,
        *,
        by_looks: bool = False,
    ) -> None:
        self.conn, self.told = conn, told
        self.table = HistoryTable(conn, source, name, rename, by_looks=by_looks)

    def piece(self, most: int) -> bool:
        """Tell the next piece of the log; returns whether there may be more."""
        state = self.table.state()
        applied, copied = self._place()
        if applied is None or copied is None:
            return False
        if state is None:
            self._hold_mirror()
            applied, copied = self._place()
            assert applied is not None and copied is not None
            self.begin(max(applied, copied, key=parse_lsn), copied)
            return False
        self.told.told = state.told
        if state.waiting is not None:
            if self._tell_changes(state, most, before=state.waiting):
                return True
            if parse_lsn(applied) < parse_lsn(state.waiting):
                return False
            self._take_copy(state, self.table.copy, state.waiting, state.waiting)
            self.conn.execute(SQL("drop table {}").format(self.table.copy))
            return True
        if state.copy != copied:  # copied while nobody kept its history
            self._hold_mirror()
            applied, copied = self._place()
            assert applied is not None and copied is not None
            self._take_copy(state, self.table.mirror, max(applied, copied, key=parse_lsn), copied)
            return True
        return self._tell_changes(state, most)

    def begin(self, point: str, copied: str) -> None:
        """Make the history of a table that has none, each row of the mirror its first version.

        point      the place in the log that the mirror shows
        """
        columns = own_columns(self.conn, self.table.mirror)
        key = sorted(key_of(self.conn, self.table.mirror))
        self.table.create(columns, key)
        self.conn.execute(
            "insert into datops.stream_histories (table_id, told_lsn, copy_lsn, key, prefix)"
            " values (%s, %s, %s, %s, %s)",
            (self.table.table_id, self.table.places.after_copy(point), copied, key, self.table.prefix),
        )
        self.told.told = self.table.places.after_copy(point)
        self._insert_copy(self.table.mirror, list(columns), key, point, "clock_timestamp()")

    def _place(self) -> tuple[str | None, str | None]:
        """Where the stream is, and the place of the copy that the mirror goes on from."""
        row = self.conn.execute(_PLACE, (self.table.table_id,)).fetchone()
        return row if row is not None else (None, None)

    def _hold_mirror(self) -> None:
        """Keep the mirror at one place of the log until the transaction ends."""
        self.conn.execute(SQL("lock table {} in share mode").format(self.table.mirror))

    def _take_copy(self, state: HistoryState, copy: sql.Identifier, point: str, copied: str) -> None:
        """End the versions that are not as in the copy, and begin those that only it has."""
        table, at = self.table, parse_lsn(point)
        columns, rows = own_columns(self.conn, copy), live_rows(self.conn, copy)
        table.follow(columns, at)
        key = sorted(key_of(self.conn, table.mirror))
        named = table.named(list(columns))
        when = "clock_timestamp()" if state.waiting_at is None else "waiting_at"
        same_key = joined("h.{} = c.{}", [(named[name], name) for name in key if name in named])
        mine = SQL(", ").join(SQL("h.{}").format(sql.Identifier(named[name])) for name in columns)
        theirs = SQL(", ").join(SQL("c.{}").format(sql.Identifier(name)) for name in columns)
        # As texts: 1.0 and 1.00 are one number and not one value.
        as_it_is = SQL("exists (select from {} c where {} and row({})::text = row({})::text)").format(
            rows, same_key, mine, theirs
        )
        kept = as_it_is if key == state.key else SQL("false")
        self.told.ended += self.conn.execute(
            SQL(
                "update {} h set {} = {}, {} = (select {} from datops.stream_histories where table_id = {})"
                " where h.{} is null and not {}"
            ).format(
                table.table, table.meta("to_lsn"), table.places.literal(point), table.meta("valid_to"), SQL(when),
                sql.Literal(table.table_id), table.meta("to_lsn"), kept,
            )
        ).rowcount  # fmt: skip
        if key != state.key:
            table.index(key)
        self._insert_copy(copy, list(columns), key, point, when)
        self.conn.execute(
            "update datops.stream_histories set told_lsn = %s, copy_lsn = %s, waiting_lsn = null, waiting_at = null,"
            " key = %s where table_id = %s",
            (table.places.after_copy(point), copied, key, table.table_id),
        )
        self.told.told = self.table.places.after_copy(point)

    def _insert_copy(
        self,
        copy: sql.Identifier,
        columns: Sequence[str],
        key: Sequence[str],
        point: str,
        when: LiteralString,
    ) -> None:
        """Begin a version of each row of a copy whose key has none that is current."""
        table = self.table
        named = table.named(columns)
        same_key = joined("h.{} = c.{}", [(named[name], name) for name in key])
        self.told.begun += self.conn.execute(
            SQL(
                "insert into {} ({}, {}, {}, {}) select {}, 's',"
                " (select {} from datops.stream_histories where table_id = {}), {} from {} c"
                " where not exists (select from {} h where {} and h.{} is null)"
            ).format(
                table.table, table.meta("from_lsn"), table.meta("op"), table.meta("valid_from"),
                listed(named[name] for name in columns), table.places.literal(point), SQL(when),
                sql.Literal(table.table_id),
                listed(columns), live_rows(self.conn, copy), table.table, same_key, table.meta("to_lsn"),
            )
        ).rowcount  # fmt: skip

    def _tell_changes(self, state: HistoryState, most: int, before: str | None = None) -> bool:
        """Tell what the log has from the place told on; returns whether there is more of it.

        before     a place to end at
        """
        prefix, columns = self.table.log_columns()
        if not columns:  # no log, for it was never followed from here
            return False
        self.table.follow(columns, parse_lsn(state.told))
        changes = ToldChanges(self.conn, self.table, prefix, list(columns), state.key)
        last = changes.read(state.told, before, most)
        if last is None:
            return False
        changes.fill()
        self.told.changes += changes.count
        ended, begun = changes.write()
        failpoints.hit("history_written")
        self.told.ended, self.told.begun = self.told.ended + ended, self.told.begun + begun
        self.conn.execute("drop table pg_temp.datops_told")
        row = self.conn.execute(
            "update datops.stream_histories set told_lsn = %s::pg_lsn + 1 where table_id = %s returning told_lsn::text",
            (self.table.places.kept(last), self.table.table_id),
        ).fetchone()
        assert row is not None
        self.told.told = row[0]
        return changes.count >= most
