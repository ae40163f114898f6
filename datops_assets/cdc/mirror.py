"""The mirror, brought to where its log is: statements over the part of the log that it lacks.

Belongs here: SQL that reads a table's log and writes its mirror, in the caller's transaction. Does not: how rows come
into the log, and when (apply.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.cdc.bronze import FollowedTable, identifiers
from datops_assets.cdc.source import SourceColumn
from datops_assets.postgres.lsn import format_lsn

Place = tuple[int, int]
"""Commit LSN and number within the transaction: where a change stands."""

_INSERT: LiteralString = (
    "insert into {mirror} ({names}) select {names} from {log} where {after} and {op} = 'i'"
)
_UPDATE: LiteralString = (
    "update {mirror} m set {assigned} from {log} l where {after} and {op} = 'u' and {same}"
)
_DELETE: LiteralString = "delete from {mirror} m using {log} l where {after} and {op} = 'd' and {same}"
_LATEST: LiteralString = (
    "with latest as materialized ("
    " select distinct on ({key}) {op} as op, {names} from {log} where {after} order by {key}, {lsn} desc, {seq} desc"
    "), gone as ("
    " delete from {mirror} m using latest l where l.op in ('d', 'k') and {same}"
    ") insert into {mirror} ({names}) select {names} from latest where op in ('i', 'u')"
    " on conflict ({key}) do {action}"
)


_OF_SEVERAL_FORMS = frozenset(
    [
        "numeric",
        "real",
        "double precision",
        "interval",
        "bpchar",
        "character",
        "jsonb",
        "numrange",
        "nummultirange",
    ]
)
"""Types with values that are equal and not the same to the byte: 1.0 and 1.00, one day and 24 hours."""


class _KeyRepeatedError(Exception):
    """A key came more than once, or is not in the mirror as the log takes it to be."""


def merge_once_each(
    conn: psycopg.Connection[Any], table: FollowedTable, since: Place, ops: Mapping[str, int]
) -> bool:
    """Insert, update, delete, each by a statement of its own, taking it that a key comes once.

    An upsert costs twice an insert, and a sort to find the last change of each key as much again. So this is tried
    first, and the server says whether it was right: a second insert breaks the key, a second update or delete changes
    fewer rows than there are changes. An insert that is then updated, then deleted, is right in this order too.

    since      the changes after this place are merged
    ops        how many changes of each kind there are: i, u, d
    returns    whether it was so; False: the mirror is as before, and merge_latest() is to do it
    """
    parts = _parts(table, since)
    try:
        with conn.transaction():
            for op, statement in (("i", _INSERT), ("u", _UPDATE), ("d", _DELETE)):
                if ops.get(op) and conn.execute(sql.SQL(statement).format(**parts)).rowcount != ops[op]:
                    raise _KeyRepeatedError
    except (_KeyRepeatedError, psycopg.errors.UniqueViolation):
        return False
    return True


def merge_latest(conn: psycopg.Connection[Any], table: FollowedTable, since: Place) -> None:
    """Let the last change of each key after `since` decide; every value that it needs is in it."""
    conn.execute(sql.SQL(_LATEST).format(**_parts(table, since)))


def _parts(table: FollowedTable, since: Place) -> dict[str, sql.Composable]:
    meta = table.meta
    names = [column.name for column in table.columns]
    others = [column.name for column in table.columns if _may_change(column)]
    excluded = _assigned(others, "excluded")
    return {
        "key": identifiers(table.key),
        "op": meta["op"],
        "names": identifiers(names),
        "log": table.changes,
        "after": _after(table, since),
        "lsn": meta["commit_lsn"],
        "seq": meta["seq"],
        "mirror": table.mirror,
        "same": _same_key(table),
        # Of a table that is all key, an update changes nothing; the rows are counted all the same.
        "assigned": _assigned(others or names, "l"),
        "action": sql.SQL("update set {}").format(excluded) if others else sql.SQL("nothing"),
    }


def _may_change(column: SourceColumn) -> bool:
    """Whether a column may come with another value for the same key."""
    return not column.is_key or column.type.removesuffix("[]") in _OF_SEVERAL_FORMS


def _assigned(names: Sequence[str], row: str) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("{0} = {1}.{0}").format(sql.Identifier(name), sql.SQL(row)) for name in names
    )


def _after(table: FollowedTable, since: Place) -> sql.Composed:
    meta = table.meta
    return sql.SQL("({}, {}) > ({}::pg_lsn, {}::bigint)").format(
        meta["commit_lsn"], meta["seq"], sql.Literal(format_lsn(since[0])), sql.Literal(since[1])
    )


def merge_with_holes(conn: psycopg.Connection[Any], table: FollowedTable, since: Place) -> None:
    """As merge_latest(), where updates left out values that they did not change (stored out of line).

    Such a value is that of the key's change before it, or the one that the mirror has.
    """
    holes = _gather(conn, table, since)
    filled = [
        (number, column.name)
        for number, column in enumerate(table.columns, start=1)
        if number in holes and not column.is_key
    ]
    numbers = {name: number for number, name in filled}
    own = "datops_"  # begins no column of the source's
    while any(column.name.startswith(own) for column in table.columns):
        own += "_"
    selected, assigned = [], []
    for column in table.columns:
        name, number = sql.Identifier(column.name), numbers.get(column.name)
        if number is None:
            selected.append(sql.SQL("l.{}").format(name))
            if _may_change(column):
                assigned.append(sql.SQL("{0} = s.{0}").format(name))
            continue
        hole = sql.Identifier(f"{own}hole_{number}")
        selected.append(
            sql.SQL(
                "case when {n} = any (l.{mask}) then h{n}.value else l.{name} end as {name},"
                " coalesce({n} = any (l.{mask}), false) and h{n}.found is null as {hole}"
            ).format(n=sql.SQL(str(number)), mask=table.meta["unchanged"], name=name, hole=hole)
        )
        assigned.append(sql.SQL("{0} = case when s.{1} then m.{0} else s.{0} end").format(name, hole))
    names = [column.name for column in table.columns]
    update = sql.SQL("when matched then update set {}").format(sql.SQL(", ").join(assigned))
    conn.execute(
        sql.SQL(
            "merge into {mirror} m using ("
            " with latest as (select distinct on ({key}) * from datops_batch order by {key}, {lsn} desc, {seq} desc)"
            " select l.{op} as {own_op}, {selected} from latest l {earlier}"
            ") s on {same}"
            " when matched and s.{own_op} in ('d', 'k') then delete"
            " {update}"
            " when not matched and s.{own_op} in ('i', 'u') then insert ({names}) values ({inserted})"
        ).format(
            mirror=table.mirror,
            key=identifiers(table.key),
            lsn=table.meta["commit_lsn"],
            seq=table.meta["seq"],
            op=table.meta["op"],
            own_op=sql.Identifier(f"{own}op"),
            selected=sql.SQL(", ").join(selected),
            earlier=sql.SQL("").join(_earlier_value(table, number, name) for number, name in filled),
            same=_same_key(table, "m", "s"),
            update=update if assigned else sql.SQL(""),
            names=identifiers(names),
            inserted=sql.SQL(", ").join(sql.SQL("s.{}").format(sql.Identifier(name)) for name in names),
        )
    )


def _gather(conn: psycopg.Connection[Any], table: FollowedTable, since: Place) -> set[int]:
    """Put the changes after a place into a table of their own, indexed by key; returns which columns have holes.

    A wide table has holes in few columns; a join for each of 1,500 would never end.
    """
    meta = table.meta
    conn.execute(sql.SQL("drop table if exists pg_temp.datops_batch"))
    conn.execute(
        sql.SQL("create temp table datops_batch on commit drop as select * from {} where {}").format(
            table.changes, _after(table, since)
        )
    )
    conn.execute(
        sql.SQL("create index on datops_batch ({}, {}, {})").format(
            identifiers(table.key), meta["commit_lsn"], meta["seq"]
        )
    )
    conn.execute("analyze datops_batch")
    query = sql.SQL("select distinct unnest({}) from datops_batch").format(meta["unchanged"])
    return {number for (number,) in conn.execute(query)}


def _earlier_value(table: FollowedTable, number: int, name: str) -> sql.Composed:
    """A join that finds a column's value in the key's change before, as `h<number>.value`."""
    meta = table.meta
    return sql.SQL(
        " left join lateral (select b.{name} as value, true as found from datops_batch b"
        " where {same} and (b.{lsn}, b.{seq}) < (l.{lsn}, l.{seq})"
        " and ({n} = any (b.{mask})) is not true and b.{op} in ('i', 'u')"
        " and not exists (select from datops_batch g where {same_gone} and g.{op} in ('d', 'k')"
        " and (g.{lsn}, g.{seq}) > (b.{lsn}, b.{seq}) and (g.{lsn}, g.{seq}) < (l.{lsn}, l.{seq}))"
        " order by b.{lsn} desc, b.{seq} desc limit 1) h{n} on {n} = any (l.{mask})"
    ).format(
        name=sql.Identifier(name),
        same=_same_key(table, "b", "l"),
        same_gone=_same_key(table, "g", "l"),
        lsn=meta["commit_lsn"],
        seq=meta["seq"],
        n=sql.SQL(str(number)),
        mask=meta["unchanged"],
        op=meta["op"],
    )


def move_key(conn: psycopg.Connection[Any], table: FollowedTable, at: Place) -> None:
    """Apply one update that changed the key and left out values: they are in the mirror under the old key.

    The log holds the old key at `at` (op k) and the row right after it (op u); all before it is merged.
    """
    meta = table.meta
    where = sql.SQL("{}.{} = {} and {}.{} = {}")
    old, new = sql.SQL("o"), sql.SQL("n")
    lsn = sql.SQL("{}::pg_lsn").format(sql.Literal(format_lsn(at[0])))
    assigned = [
        sql.SQL("{0} = case when {1} = any (n.{2}) then m.{0} else n.{0} end").format(
            sql.Identifier(column.name), sql.SQL(str(number)), meta["unchanged"]
        )
        for number, column in enumerate(table.columns, start=1)
    ]
    conn.execute(
        sql.SQL(
            "update {mirror} m set {assigned} from {log} o, {log} n where {is_old} and {is_new} and {same}"
        ).format(
            mirror=table.mirror,
            assigned=sql.SQL(", ").join(assigned),
            log=table.changes,
            is_old=where.format(old, meta["commit_lsn"], lsn, old, meta["seq"], sql.Literal(at[1])),
            is_new=where.format(new, meta["commit_lsn"], lsn, new, meta["seq"], sql.Literal(at[1] + 1)),
            same=_same_key(table, "m", "o"),
        )
    )


def empty(conn: psycopg.Connection[Any], table: FollowedTable) -> None:
    """Empty the mirror for a TRUNCATE of the source."""
    # Not TRUNCATE: readers with an older snapshot would see an empty table.
    conn.execute(sql.SQL("delete from {}").format(table.mirror))


def _same_key(table: FollowedTable, one: str = "m", other: str = "l") -> sql.Composed:
    return sql.SQL(" and ").join(
        sql.SQL("{0}.{2} = {1}.{2}").format(sql.SQL(one), sql.SQL(other), sql.Identifier(name))
        for name in table.key
    )
