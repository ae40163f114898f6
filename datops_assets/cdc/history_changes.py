"""A piece of a table's change log, and the versions that come of it.

Belongs here: the fold of changes into versions, in the caller's transaction. Does not: which piece is told, and what a
copy of the table says (history.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composable

from datops_assets.cdc.history_table import HistoryTable

_EMPTIED: LiteralString = (
    " left join lateral (select t.lsn, t.at from pg_temp.datops_told t where t.op = 't'"
    " and (t.lsn, t.seq) > (e.lsn, e.seq) order by t.lsn, t.seq limit 1) as t on true"
)
_NOT_EMPTIED: LiteralString = " left join (select null::{} as lsn, null::timestamptz as at) as t on true"
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


class ToldChanges:
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
        places = self.table.places
        lsn, seq, at = (sql.Identifier(f"{self.prefix}{name}") for name in (places.column, "seq", places.at))
        self.conn.execute("set local enable_seqscan = off")  # a small end of a long log
        within = SQL("{} >= {}").format(lsn, places.literal(told))
        if before is not None:
            within = SQL("{} and {} < {}").format(within, lsn, places.literal(before))
        last = self.conn.execute(
            SQL(
                "select {lsn}::text from {log} where {within} order by {lsn}, {seq} offset {most} limit 1"
            ).format(
                lsn=lsn,
                seq=seq,
                log=self.table.log,
                within=within,
                most=sql.Literal(most - 1),
            )
        ).fetchone()
        if last is not None:
            within = SQL("{} and {} <= {}::{}").format(within, lsn, sql.Literal(last[0]), SQL(places.type))
        values = SQL(", ").join(
            SQL("l.{} as {}").format(sql.Identifier(name), sql.Identifier(place))
            for name, place in self.place_of.items()
        )
        self.count = self.conn.execute(
            SQL(
                "create temp table datops_told as select l.{lsn} as lsn, l.{seq} as seq, l.{op} as op, l.{at} as at,"
                " {holes} as holes, {values} from {log} l where {within}"
            ).format(
                lsn=lsn,
                seq=seq,
                op=sql.Identifier(f"{self.prefix}op"),
                at=at,
                holes=self._holes(),
                values=values,
                log=self.table.log,
                within=within,
            )
        ).rowcount
        self.conn.execute("set local enable_seqscan = on")
        if self.count == 0:
            self.conn.execute("drop table pg_temp.datops_told")
            return None
        self.conn.execute(SQL("create index on pg_temp.datops_told ({}, lsn, seq)").format(listed(self.key)))
        self.conn.execute("analyze pg_temp.datops_told")
        row = self.conn.execute("select max(lsn)::text from pg_temp.datops_told").fetchone()
        assert row is not None
        return str(row[0])

    def _holes(self) -> Composable:
        """The columns that a change left out, by our names: its numbers are those of the columns at its place."""
        if self.table.places.word == "look":  # a look sees whole rows
            return SQL("null::text[]")
        names = [*self.place_of]
        return SQL(
            "case when l.{p}unchanged is not null then"
            " (select array_agg('c' || array_position({names}::text[], (coalesce(r.columns, {names}::text[]))[n]))"
            " from unnest(l.{p}unchanged) as n left join lateral (select s.columns from datops.stream_columns s"
            " where s.table_id = {table} and (s.commit_lsn, s.seq) <= (l.{p}commit_lsn, l.{p}seq)"
            " order by s.commit_lsn desc, s.seq desc limit 1) as r on true) end"
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
        same = joined(f"b.{{}} = {alias}.{{}}", [(place, place) for place in self.key])
        current = joined(f"h.{{}} = {alias}.{{}}", [(self.shown[place], place) for place in self.key])
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
        key = listed(self.key)
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
                current=joined("h.{} = n.{}", [(self.shown[place], place) for place in self.key]),
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
            "key": listed(self.key),
            "columns": listed(self.place_of.values()),
            "shown": listed(self.shown[place] for place in self.place_of.values()),
            "current": joined("h.{} = e.{}", [(self.shown[place], place) for place in self.key]),
            # Where a table was emptied, all that was there before ends there.
            "emptied": SQL(_EMPTIED) if truncates else SQL(_NOT_EMPTIED).format(SQL(self.table.places.type)),
        }
        ended = self.conn.execute(SQL(_END).format(**parts)).rowcount
        if truncates:
            ended += self.conn.execute(SQL(_END_ALL).format(**parts)).rowcount
        return ended, self.conn.execute(SQL(_BEGIN).format(**parts)).rowcount


def joined(condition: LiteralString, pairs: Sequence[tuple[str, str]]) -> Composable:
    """Pairs of columns, each in a condition; all hold."""
    return SQL(" and ").join(
        SQL(condition).format(sql.Identifier(one), sql.Identifier(other)) for one, other in pairs
    )


def listed(names: Iterable[str]) -> Composable:
    """Names in a row, quoted."""
    return SQL(", ").join(map(sql.Identifier, names))
