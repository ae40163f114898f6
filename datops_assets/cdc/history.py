"""History (SCD2) of a followed table, told from its change log: each version a row had, and from when to when.

    valid from a transaction's commit, to the commit that changed, deleted, moved or truncated it

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
from psycopg.sql import SQL, Composable

from datops_assets.cdc.bronze import key_of
from datops_assets.cdc.history_table import HistoryState, HistoryTable
from datops_assets.cdc.marks import live_rows, own_columns
from datops_assets.postgres import failpoints
from datops_assets.postgres.lsn import parse_lsn

_MOST_CHANGES = 1_000_000
"""Changes told in one transaction, and the rest of the last source transaction among them."""
_PLACE: LiteralString = """
select s.applied_lsn::text, coalesce(t.copied_lsn, s.snapshot_lsn)::text
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
    """All that was committed before this place is in the history; None where there is no snapshot yet."""


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
            more = _Telling(conn, source, name, rename, told).piece(most)
            failpoints.hit("history_told")
        failpoints.hit("history_committed")
    told.seconds = time.monotonic() - started
    return told


@contextmanager
def copied_anew(
    conn: psycopg.Connection[Any], source: str, name: str, rename: Mapping[str, str], point: str
) -> Iterator[None]:
    """Copy a mirror anew inside this, in the caller's transaction: its history keeps the copy for its place.

    point      the place in the log that the copy shows
    """
    telling = _Telling(conn, source, name, rename, Told())
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
        self, conn: psycopg.Connection[Any], source: str, name: str, rename: Mapping[str, str], told: Told
    ) -> None:
        self.conn, self.told = conn, told
        self.table = HistoryTable(conn, source, name, rename)

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
            (self.table.table_id, point, copied, key, self.table.prefix),
        )
        self.told.told = point
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
        same_key = _joined("h.{} = c.{}", [(named[name], name) for name in key if name in named])
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
                table.table, table.meta("to_lsn"), sql.Literal(point), table.meta("valid_to"), SQL(when),
                sql.Literal(table.table_id), table.meta("to_lsn"), kept,
            )
        ).rowcount  # fmt: skip
        if key != state.key:
            table.index(key)
        self._insert_copy(copy, list(columns), key, point, when)
        self.conn.execute(
            "update datops.stream_histories set told_lsn = %s, copy_lsn = %s, waiting_lsn = null, waiting_at = null,"
            " key = %s where table_id = %s",
            (point, copied, key, table.table_id),
        )
        self.told.told = point

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
        same_key = _joined("h.{} = c.{}", [(named[name], name) for name in key])
        self.told.begun += self.conn.execute(
            SQL(
                "insert into {} ({}, {}, {}, {}) select {}, 's',"
                " (select {} from datops.stream_histories where table_id = {}), {} from {} c"
                " where not exists (select from {} h where {} and h.{} is null)"
            ).format(
                table.table, table.meta("from_lsn"), table.meta("op"), table.meta("valid_from"),
                _listed(named[name] for name in columns), sql.Literal(point), SQL(when), sql.Literal(table.table_id),
                _listed(columns), live_rows(self.conn, copy), table.table, same_key, table.meta("to_lsn"),
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
        changes = _Changes(self.conn, self.table, prefix, list(columns), state.key)
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
            (last, self.table.table_id),
        ).fetchone()
        assert row is not None
        self.told.told = row[0]
        return changes.count >= most


class _Changes:
    """A piece of the log in the temporary table `datops_told`, and the versions that come of it.

    Its columns are numbered (c1, c2 …): whatever the source calls its own, none is called as ours.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        table: HistoryTable,
        prefix: str,
        columns: list[str],
        key: list[str],
    ) -> None:
        self.conn, self.table, self.prefix, self.columns = conn, table, prefix, columns
        self.place_of = {name: f"c{number}" for number, name in enumerate(columns, start=1)}
        self.key = [self.place_of[name] for name in key if name in self.place_of]
        named = table.named(columns)
        self.shown = {self.place_of[name]: named[name] for name in columns}
        self.count = 0

    def read(self, told: str, before: str | None, most: int) -> str | None:
        """Collect whole transactions; returns the commit LSN of the last one, None where there is none."""
        meta = {name: sql.Identifier(f"{self.prefix}{name}") for name in ("commit_lsn", "seq")}
        self.conn.execute("set local enable_seqscan = off")  # a small end of a long log
        within = SQL("{} >= {}::pg_lsn").format(meta["commit_lsn"], sql.Literal(told))
        if before is not None:
            within = SQL("{} and {} < {}::pg_lsn").format(within, meta["commit_lsn"], sql.Literal(before))
        last = self.conn.execute(
            SQL(
                "select {lsn}::text from {log} where {within} order by {lsn}, {seq} offset {most} limit 1"
            ).format(
                lsn=meta["commit_lsn"],
                seq=meta["seq"],
                log=self.table.log,
                within=within,
                most=sql.Literal(most - 1),
            )
        ).fetchone()
        if last is not None:
            within = SQL("{} and {} <= {}::pg_lsn").format(within, meta["commit_lsn"], sql.Literal(last[0]))
        values = SQL(", ").join(
            SQL("l.{} as {}").format(sql.Identifier(name), sql.Identifier(place))
            for name, place in self.place_of.items()
        )
        self.count = self.conn.execute(
            SQL(
                "create temp table datops_told as select l.{p}commit_lsn as lsn, l.{p}seq as seq, l.{p}op as op,"
                " l.{p}committed_at as at, case when l.{p}unchanged is not null then {holes} end as holes, {values}"
                " from {log} l where {within}"
            ).format(
                p=SQL(self.prefix), holes=self._holes(), values=values, log=self.table.log, within=within
            )
        ).rowcount
        self.conn.execute("set local enable_seqscan = on")
        if self.count == 0:
            self.conn.execute("drop table pg_temp.datops_told")
            return None
        self.conn.execute(SQL("create index on pg_temp.datops_told ({}, lsn, seq)").format(_listed(self.key)))
        self.conn.execute("analyze pg_temp.datops_told")
        row = self.conn.execute("select max(lsn)::text from pg_temp.datops_told").fetchone()
        assert row is not None
        return str(row[0])

    def _holes(self) -> Composable:
        """The columns that a change left out, by our names: its numbers are those of the columns at its place."""
        names = [*self.place_of]
        return SQL(
            "(select array_agg('c' || array_position({names}::text[], (coalesce(r.columns, {names}::text[]))[n]))"
            " from unnest(l.{p}unchanged) as n left join lateral (select s.columns from datops.stream_columns s"
            " where s.table_id = {table} and (s.commit_lsn, s.seq) <= (l.{p}commit_lsn, l.{p}seq)"
            " order by s.commit_lsn desc, s.seq desc limit 1) as r on true)"
        ).format(names=sql.Literal(names), p=SQL(self.prefix), table=sql.Literal(self.table.table_id))

    def fill(self) -> None:
        """Give the changes the values that they left out: those of their key's change before, or of its version."""
        rows = self.conn.execute("select distinct unnest(holes) from pg_temp.datops_told").fetchall()
        missing = sorted(name for (name,) in rows)
        if not missing:
            return
        self._fill_moved(missing)
        for name in missing:
            self._fill_column(name)

    def _fill_moved(self, missing: Sequence[str]) -> None:
        """Fill updates that changed the key, in their order: what they left out stands under the old key."""
        moved = self.conn.execute(
            "select n.lsn::text, n.seq from pg_temp.datops_told n join pg_temp.datops_told k"
            " on k.lsn = n.lsn and k.seq = n.seq - 1 and k.op = 'k' where n.op = 'u' and n.holes <> '{}'"
            " order by n.lsn, n.seq"
        ).fetchall()
        assigned = SQL(", ").join(
            SQL("{0} = case when {1} = any (n.holes) then {2} else n.{0} end").format(
                sql.Identifier(name), sql.Literal(name), self._value_before(name, "k")
            )
            for name in missing
        )
        statement = SQL(
            "update pg_temp.datops_told n set {}, holes = '{{}}' from pg_temp.datops_told k"
            " where n.lsn = %s::pg_lsn and n.seq = %s and k.lsn = n.lsn and k.seq = n.seq - 1"
        ).format(assigned)
        for place in moved:
            self.conn.execute(statement, place)

    def _value_before(self, name: str, alias: LiteralString) -> Composable:
        """The value that a key had before the place of the row `alias`."""
        same = _joined(f"b.{{}} = {alias}.{{}}", [(place, place) for place in self.key])
        current = _joined(f"h.{{}} = {alias}.{{}}", [(self.shown[place], place) for place in self.key])
        # A row in the batch may hold a null; so whether there is one decides, not its value.
        return SQL(
            "(select value from ((select b.{c} as value, 0 as later from pg_temp.datops_told b where {same}"
            " and (b.lsn, b.seq) < ({a}.lsn, {a}.seq) and b.op in ('i', 'u') and ({n} = any (b.holes)) is not true"
            " order by b.lsn desc, b.seq desc limit 1)"
            " union all (select h.{shown}, 1 from {history} h where {current} and h.{to} is null)) as v"
            " order by later limit 1)"
        ).format(
            c=sql.Identifier(name), same=same, a=SQL(alias), n=sql.Literal(name), history=self.table.table,
            shown=sql.Identifier(self.shown[name]), current=current, to=self.table.meta("to_lsn"),
        )  # fmt: skip

    def _fill_column(self, name: str) -> None:
        """Fill one column: changes are counted into groups that each begin with a known value."""
        key = _listed(self.key)
        self.conn.execute(
            SQL(
                "update pg_temp.datops_told n set {c} = case when f.known > 0 then f.value"
                " else (select h.{shown} from {history} h where {current} and h.{to} is null) end"
                " from (select g.*, first_value({c}) over (partition by {key}, known order by lsn, seq) as value from"
                "  (select ctid as row, lsn, seq, op, holes, {key}, {c}, count(*) filter (where op in ('i', 'u')"
                "    and ({n} = any (holes)) is not true) over (partition by {key} order by lsn, seq) as known"
                "   from pg_temp.datops_told where op in ('i', 'u')) as g) as f"
                " where n.ctid = f.row and {n} = any (n.holes)"
            ).format(
                c=sql.Identifier(name), shown=sql.Identifier(self.shown[name]), history=self.table.table, key=key,
                current=_joined("h.{} = n.{}", [(self.shown[place], place) for place in self.key]),
                to=self.table.meta("to_lsn"), n=sql.Literal(name),
            )
        )  # fmt: skip

    def write(self) -> tuple[int, int]:
        """End and begin versions; returns how many ended, and how many began."""
        (truncates,) = self.conn.execute(
            "select count(*) from pg_temp.datops_told where op = 't'"
        ).fetchone() or (0,)
        meta = {
            name: self.table.meta(name) for name in ("from_lsn", "to_lsn", "valid_from", "valid_to", "op")
        }
        parts: dict[str, Composable] = {
            **meta,
            "history": self.table.table,
            "key": _listed(self.key),
            "columns": _listed(self.place_of.values()),
            "shown": _listed(self.shown[place] for place in self.place_of.values()),
            "current": _joined("h.{} = e.{}", [(self.shown[place], place) for place in self.key]),
            # Where a table was emptied, all that was there before ends there.
            "emptied": SQL(_EMPTIED if truncates else _NOT_EMPTIED),
        }
        ended = self.conn.execute(SQL(_END).format(**parts)).rowcount
        if truncates:
            ended += self.conn.execute(SQL(_END_ALL).format(**parts)).rowcount
        return ended, self.conn.execute(SQL(_BEGIN).format(**parts)).rowcount


_EMPTIED: LiteralString = (
    " left join lateral (select t.lsn, t.at from pg_temp.datops_told t where t.op = 't'"
    " and (t.lsn, t.seq) > (e.lsn, e.seq) order by t.lsn, t.seq limit 1) as t on true"
)
_NOT_EMPTIED: LiteralString = " left join (select null::pg_lsn as lsn, null::timestamptz as at) as t on true"
# A version that is current ends with its key's first change.
_END: LiteralString = (
    "update {history} h set {to_lsn} = e.lsn, {valid_to} = e.at from"
    " (select distinct on ({key}) {key}, lsn, seq, at from pg_temp.datops_told where op <> 't'"
    "  order by {key}, lsn, seq) as e"
    " where h.{to_lsn} is null and {current} and not exists"
    " (select from pg_temp.datops_told t where t.op = 't' and (t.lsn, t.seq) < (e.lsn, e.seq))"
)
_END_ALL: LiteralString = (
    "update {history} h set {to_lsn} = t.lsn, {valid_to} = t.at from"
    " (select lsn, at from pg_temp.datops_told where op = 't' order by lsn, seq limit 1) as t"
    " where h.{to_lsn} is null"
)
# A change begins a version that ends with its key's next one; of several in one transaction the last counts.
_BEGIN: LiteralString = (
    "insert into {history} ({from_lsn}, {valid_from}, {op}, {to_lsn}, {valid_to}, {shown})"
    " select e.lsn, e.at, e.op, least(e.next_lsn, t.lsn),"
    "  case when t.lsn < e.next_lsn or e.next_lsn is null then t.at else e.next_at end, {columns}"
    " from (select *, lead(lsn) over w as next_lsn, lead(at) over w as next_at from pg_temp.datops_told"
    "  where op <> 't' window w as (partition by {key} order by lsn, seq)) as e{emptied}"
    " where e.op in ('i', 'u') and least(e.next_lsn, t.lsn) is distinct from e.lsn"
)


def _joined(condition: LiteralString, pairs: Sequence[tuple[str, str]]) -> Composable:
    return SQL(" and ").join(
        SQL(condition).format(sql.Identifier(one), sql.Identifier(other)) for one, other in pairs
    )


def _listed(names: Any) -> Composable:
    return SQL(", ").join(map(sql.Identifier, names))
