"""A mirror with marks, brought to where its log is: as mirror.py, and a deleted row stays with its last values.

Each change counts, also within one transaction: a row that was inserted and deleted by the same one is marked, so
what the mirror holds does not depend on where a batch ends.
"""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.cdc.bronze import FollowedTable, identifiers
from datops_assets.cdc.marks import Marks
from datops_assets.cdc.mirror import Place
from datops_assets.postgres.lsn import format_lsn

# Of each key: the last row that it had among the changes, or its delete where there is no such row; and beside it
# what the last change of all was. Not by a join: a batch's transaction has none but nested loops.
_MERGE: LiteralString = (
    "with held as materialized ("
    " select distinct on ({key}) {op}, {names}, {lasts} from {changes} where {op} <> 't'"
    " window w as (partition by {key} order by {lsn} desc, {seq} desc)"
    " order by {key}, {op} in ('d', 'k'), {lsn} desc, {seq} desc"
    "), gone as ("
    " update {mirror} m set {marked} from held h where h.{op} in ('d', 'k') and {same}"
    ") insert into {mirror} ({names}, {marks}) select {names}, {ends} from held where {op} in ('i', 'u')"
    " on conflict ({key}) do update set {assigned}"
)
_FILL: LiteralString = (
    "update pg_temp.datops_batch n set {column} = case when f.{known} > 0 then f.{value}"
    " else (select m.{column} from {mirror} m where {same}) end"
    " from (select g.{row}, g.{known},"
    "   first_value(g.{column}) over (partition by {key}, g.{known} order by g.{lsn}, g.{seq}) as {value}"
    "  from (select b.ctid as {row}, b.*, count(*) filter (where ({number} = any (b.{mask})) is not true)"
    "    over (partition by {key} order by b.{lsn}, b.{seq}) as {known}"
    "   from pg_temp.datops_batch b where b.{op} in ('i', 'u')) as g) as f"
    " where n.ctid = f.{row} and {number} = any (n.{mask})"
)
_EMPTY: LiteralString = "update {mirror} m set {marked} from {log} o where {is_old} and {live}"
_ARRIVE: LiteralString = (
    "insert into {mirror} ({names}) select {values} from {log} o, {log} n, {mirror} m"
    " where {is_old} and {is_new} and {same} on conflict ({key}) do update set {assigned}"
)
_LEAVE: LiteralString = (
    "update {mirror} m set {marked} from {log} o, {log} n"
    " where {is_old} and {is_new} and {same} and not {stays}"
)


def merge(conn: psycopg.Connection[Any], table: FollowedTable, since: Place, *, with_holes: bool) -> None:
    """Let the last change of each key after `since` decide whether it lives, and its last row what it holds.

    with_holes   whether updates left out values that they did not change: those of the key's change before, or of
                 the mirror
    """
    changes: sql.Composable = _after(table, since)
    if with_holes:
        _fill(conn, table, since)
        changes = sql.SQL("pg_temp.datops_batch")
    meta, marks, own = table.meta, _marks(table), _own(table)
    lasts = {name: sql.Identifier(f"{own}{name}") for name in ("op", "committed_at", "commit_lsn", "seq")}
    is_gone = sql.SQL("{} in ('d', 'k')").format(lasts["op"])
    ends = [lasts[name] for name in ("committed_at", "commit_lsn", "seq")]
    names = [column.name for column in table.columns]
    conn.execute(
        sql.SQL(_MERGE).format(
            **_parts(table),
            changes=changes,
            lasts=sql.SQL(", ").join(
                sql.SQL("first_value({}) over w as {}").format(meta[name], last)
                for name, last in lasts.items()
            ),
            marked=marks.set_to(*(sql.SQL("h.{}").format(end) for end in ends)),
            marks=sql.SQL(", ").join(marks.columns),
            ends=sql.SQL(", ").join(sql.SQL("case when {} then {} end").format(is_gone, end) for end in ends),
            same=_same("m", "h", table),
            assigned=_excluded([*names, *marks.names]),
        )
    )


def empty(
    conn: psycopg.Connection[Any], table: FollowedTable, since: Place, at: Place, *, with_holes: bool
) -> None:
    """Mark all rows for a TRUNCATE of the source, after what was changed before it.

    at         where the truncate stands in the log
    """
    merge(conn, table, since, with_holes=with_holes)
    conn.execute(
        sql.SQL(_EMPTY).format(
            **_parts(table),
            marked=_marked_by(table),
            is_old=_is_at("o", table, at),
            live=_marks(table).live("m"),
        )
    )


def move_key(conn: psycopg.Connection[Any], table: FollowedTable, at: Place) -> None:
    """Apply one update that changed the key and left out values: they are in the mirror under the old key.

    The log holds the old key at `at` (op k) and the row right after it (op u); all before it is merged.
    """
    meta, marks = table.meta, _marks(table)
    names = [column.name for column in table.columns]
    values = [
        sql.SQL("case when {1} = any (n.{2}) then m.{0} else n.{0} end").format(
            sql.Identifier(name), sql.Literal(number), meta["unchanged"]
        )
        for number, name in enumerate(names, start=1)
    ]
    parts: dict[str, sql.Composable] = {
        **_parts(table),
        "values": sql.SQL(", ").join(values),
        "is_old": _is_at("o", table, at),
        "is_new": _is_at("n", table, (at[0], at[1] + 1)),
        "same": _same("m", "o", table),
        "stays": sql.SQL("({})").format(_same("n", "o", table)),  # another form of an equal key
        "marked": _marked_by(table),
        "assigned": _excluded([*names, *marks.names]),
    }
    conn.execute(sql.SQL(_ARRIVE).format(**parts))
    conn.execute(sql.SQL(_LEAVE).format(**parts))


def _fill(conn: psycopg.Connection[Any], table: FollowedTable, since: Place) -> None:
    """Put the changes into a table of their own, and into them the values that they left out."""
    meta, own = table.meta, _own(table)
    conn.execute("drop table if exists pg_temp.datops_batch")
    conn.execute(
        sql.SQL("create temp table datops_batch on commit drop as select * from {}").format(
            _after(table, since)
        )
    )
    conn.execute("analyze datops_batch")
    query = sql.SQL("select distinct unnest({}) from pg_temp.datops_batch").format(meta["unchanged"])
    holes = {number for (number,) in conn.execute(query)}
    for number, column in enumerate(table.columns, start=1):
        if number not in holes or column.is_key:
            continue
        conn.execute(
            sql.SQL(_FILL).format(
                **_parts(table),
                **{name: sql.Identifier(f"{own}{name}") for name in ("row", "known", "value")},
                column=sql.Identifier(column.name),
                number=sql.Literal(number),
                mask=meta["unchanged"],
                same=_same("m", "n", table),
            )
        )


def _parts(table: FollowedTable) -> dict[str, sql.Composable]:
    meta = table.meta
    return {
        "mirror": table.mirror,
        "log": table.changes,
        "key": identifiers(table.key),
        "names": identifiers([column.name for column in table.columns]),
        "op": meta["op"],
        "lsn": meta["commit_lsn"],
        "seq": meta["seq"],
    }


def _marks(table: FollowedTable) -> Marks:
    assert table.marks is not None
    return table.marks


def _marked_by(table: FollowedTable) -> sql.Composed:
    """The marks that the change `o` sets."""
    meta = table.meta
    return _marks(table).set_to(
        *(sql.SQL("o.{}").format(meta[name]) for name in ("committed_at", "commit_lsn", "seq"))
    )


def _own(table: FollowedTable) -> str:
    """What begins none of the source's columns."""
    own = "datops_"
    while any(column.name.startswith(own) for column in table.columns):
        own += "_"
    return own


def _after(table: FollowedTable, since: Place) -> sql.Composed:
    """The changes after a place."""
    meta = table.meta
    return sql.SQL("(select * from {} where ({}, {}) > ({}::pg_lsn, {}::bigint)) as c").format(
        table.changes,
        meta["commit_lsn"],
        meta["seq"],
        sql.Literal(format_lsn(since[0])),
        sql.Literal(since[1]),
    )


def _is_at(row: str, table: FollowedTable, at: Place) -> sql.Composed:
    return sql.SQL("({0}.{1}, {0}.{2}) = ({3}::pg_lsn, {4}::bigint)").format(
        sql.SQL(row),
        table.meta["commit_lsn"],
        table.meta["seq"],
        sql.Literal(format_lsn(at[0])),
        sql.Literal(at[1]),
    )


def _same(one: str, other: str, table: FollowedTable) -> sql.Composed:
    return sql.SQL(" and ").join(
        sql.SQL("{0}.{2} = {1}.{2}").format(sql.SQL(one), sql.SQL(other), sql.Identifier(name))
        for name in table.key
    )


def _excluded(names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in names)
