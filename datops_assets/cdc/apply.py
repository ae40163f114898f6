"""A batch of whole transactions into the warehouse: the log by COPY, the mirror by one merge a table.

Belongs here: what is written, in the caller's one transaction, and in which order. Does not: where the
changes come from (replication.py), when a batch ends (drain.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.cdc.bronze import FollowedTable, identifiers
from datops_assets.cdc.splice import BinaryRows, Numbering, Rows, TextRows
from datops_assets.postgres.lsn import format_lsn

Place = tuple[int, int]
"""Commit LSN and number within the transaction: where a change stands."""


@dataclass
class Batch:
    """Changes of one table that are not in the mirror yet."""

    table: FollowedTable
    rows: Rows
    since: Place
    """Changes after this place are to be merged; those before it are in the mirror."""
    repeats_keys: bool = False
    """Whether an earlier batch had a key more than once; then the last of each is looked for at once."""
    copied: int = 0
    """Rows that are in the log already, in the open transaction."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to merge."""
        return self.rows.is_empty and self.copied == 0


def begin(conn: psycopg.Connection[Any]) -> None:
    """Begin the transaction of a batch: what is new is a small end of the log, and few rows of the mirror.

    The planner takes a third of both, having no statistics of rows that were just written, and would read them whole
    for each batch: catching up would cost the square of what is to be caught up.
    """
    conn.execute("begin")
    conn.execute(
        "select set_config(name, 'off', true) from unnest(array['enable_seqscan', 'enable_hashjoin',"
        " 'enable_mergejoin', 'jit']) as name"
    )


def new_rows(table: FollowedTable, numbering: Numbering, *, binary: bool) -> Rows:
    """Rows in the form that the stream sends."""
    return (BinaryRows if binary else TextRows)(len(table.columns), numbering)


def copy_rows(conn: psycopg.Connection[Any], batch: Batch) -> None:
    """Write the collected rows into the log; they are merged later."""
    if batch.rows.is_empty:
        return
    statement = sql.SQL("copy {} ({}) from stdin (format {})").format(
        batch.table.changes, sql.SQL(", ").join(batch.table.log_columns), sql.SQL(batch.rows.format)
    )
    batch.copied += batch.rows.count
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for piece in batch.rows.take():
            copy.write(piece)


def merge(conn: psycopg.Connection[Any], batch: Batch) -> None:
    """Bring the mirror to where the log is, and remember that."""
    copy_rows(conn, batch)
    if batch.copied == 0:
        return
    if batch.rows.last <= batch.since:  # the mirror was copied anew and is ahead of the log
        pass
    elif batch.rows.has_unchanged:
        _merge_with_holes(conn, batch)
    else:
        _merge_whole(conn, batch)
    _merged(batch)


def empty(conn: psycopg.Connection[Any], batch: Batch) -> None:
    """Empty the mirror for a TRUNCATE; what was to be merged before it need not be."""
    copy_rows(conn, batch)
    if batch.rows.last > batch.since:
        # Not TRUNCATE: readers with an older snapshot would see an empty table.
        conn.execute(sql.SQL("delete from {}").format(batch.table.mirror))
    _merged(batch)


def _merged(batch: Batch) -> None:
    batch.since, batch.copied = max(batch.since, batch.rows.last), 0
    batch.rows.has_unchanged = False
    batch.rows.ops.clear()


def _after(batch: Batch) -> sql.Composed:
    meta = batch.table.meta
    return sql.SQL("({}, {}) > ({}::pg_lsn, {}::bigint)").format(
        meta["commit_lsn"], meta["seq"], sql.Literal(format_lsn(batch.since[0])), sql.Literal(batch.since[1])
    )


_ONCE_EACH: LiteralString = (
    "insert into {mirror} ({names}) select {names} from {log} where {after} on conflict ({key}) do {action}"
)
_LATEST: LiteralString = (
    "with latest as materialized ("
    " select distinct on ({key}) {op} as op, {names} from {log} where {after} order by {key}, {lsn} desc, {seq} desc"
    "), gone as ("
    " delete from {mirror} m using latest l where l.op in ('d', 'k') and {same}"
    ") insert into {mirror} ({names}) select {names} from latest where op in ('i', 'u')"
    " on conflict ({key}) do {action}"
)


def _merge_whole(conn: psycopg.Connection[Any], batch: Batch) -> None:
    """The last change of each key decides; every value it needs is in it."""
    table, meta = batch.table, batch.table.meta
    names = [column.name for column in table.columns]
    others = [name for name in names if name not in table.key]
    updates = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in others
    )
    parts = {
        "key": identifiers(table.key),
        "op": meta["op"],
        "names": identifiers(names),
        "log": table.changes,
        "after": _after(batch),
        "lsn": meta["commit_lsn"],
        "seq": meta["seq"],
        "mirror": table.mirror,
        "same": _same_key(table),
        "action": sql.SQL("update set {}").format(updates) if others else sql.SQL("nothing"),
    }
    if not batch.repeats_keys and batch.rows.ops <= {ord("i"), ord("u")}:
        # Most batches have a key once; that is found out by the server, which then refuses the statement.
        try:
            with conn.transaction():
                conn.execute(sql.SQL(_ONCE_EACH).format(**parts))
            return
        except psycopg.errors.CardinalityViolation:
            batch.repeats_keys = True
    conn.execute(sql.SQL(_LATEST).format(**parts))


def _merge_with_holes(conn: psycopg.Connection[Any], batch: Batch) -> None:
    """As _merge_whole, where updates left out values that they did not change (stored out of line).

    Such a value is that of the key's change before it, or the one that the mirror has.
    """
    table, meta = batch.table, batch.table.meta
    conn.execute(sql.SQL("drop table if exists pg_temp.datops_batch"))
    conn.execute(
        sql.SQL("create temp table datops_batch on commit drop as select * from {} where {}").format(
            table.changes, _after(batch)
        )
    )
    conn.execute(
        sql.SQL("create index on datops_batch ({}, {}, {})").format(
            identifiers(table.key), meta["commit_lsn"], meta["seq"]
        )
    )
    conn.execute("analyze datops_batch")
    # A wide table has holes in few columns; a join for each of 1,500 would never end.
    holes = {
        number
        for (number,) in conn.execute(
            sql.SQL("select distinct unnest({}) from datops_batch").format(meta["unchanged"])
        )
    }
    selected, assigned, inserted = [], [], []
    for number, column in enumerate(table.columns, start=1):
        name = sql.Identifier(column.name)
        inserted.append(sql.SQL("s.{}").format(name))
        if column.is_key or number not in holes:
            selected.append(sql.SQL("l.{}").format(name))
            if not column.is_key:
                assigned.append(sql.SQL("{0} = s.{0}").format(name))
            continue
        hole = sql.Identifier(f"datops_hole_{number}")
        selected.append(
            sql.SQL(
                "case when {n} = any (l.{mask}) then h{n}.value else l.{name} end as {name},"
                " coalesce({n} = any (l.{mask}), false) and h{n}.found is null as {hole}"
            ).format(n=sql.SQL(str(number)), mask=meta["unchanged"], name=name, hole=hole)
        )
        assigned.append(sql.SQL("{0} = case when s.{1} then m.{0} else s.{0} end").format(name, hole))
    laterals = [
        sql.SQL(
            " left join lateral (select b.{name} as value, true as found from datops_batch b"
            " where {same} and (b.{lsn}, b.{seq}) < (l.{lsn}, l.{seq})"
            " and ({n} = any (b.{mask})) is not true and b.{op} in ('i', 'u')"
            " and not exists (select from datops_batch g where {same_gone} and g.{op} in ('d', 'k')"
            " and (g.{lsn}, g.{seq}) > (b.{lsn}, b.{seq}) and (g.{lsn}, g.{seq}) < (l.{lsn}, l.{seq}))"
            " order by b.{lsn} desc, b.{seq} desc limit 1) h{n} on {n} = any (l.{mask})"
        ).format(
            name=sql.Identifier(column.name),
            same=_same_key(table, "b", "l"),
            same_gone=_same_key(table, "g", "l"),
            lsn=meta["commit_lsn"],
            seq=meta["seq"],
            n=sql.SQL(str(number)),
            mask=meta["unchanged"],
            op=meta["op"],
        )
        for number, column in enumerate(table.columns, start=1)
        if number in holes and not column.is_key
    ]
    names = [column.name for column in table.columns]
    update = sql.SQL("when matched then update set {}").format(sql.SQL(", ").join(assigned))
    conn.execute(
        sql.SQL(
            "merge into {mirror} m using ("
            " with latest as (select distinct on ({key}) * from datops_batch order by {key}, {lsn} desc, {seq} desc)"
            " select l.{op} as datops_op, {selected} from latest l {laterals}"
            ") s on {same}"
            " when matched and s.datops_op in ('d', 'k') then delete"
            " {update}"
            " when not matched and s.datops_op in ('i', 'u') then insert ({names}) values ({inserted})"
        ).format(
            mirror=table.mirror,
            key=identifiers(table.key),
            lsn=meta["commit_lsn"],
            seq=meta["seq"],
            op=meta["op"],
            selected=sql.SQL(", ").join(selected),
            laterals=sql.SQL("").join(laterals),
            same=_same_key(table, "m", "s"),
            update=update if assigned else sql.SQL(""),
            names=identifiers(names),
            inserted=sql.SQL(", ").join(inserted),
        )
    )


def move_key(conn: psycopg.Connection[Any], batch: Batch, at: Place) -> None:
    """Apply one update that changed the key and left out values: they are in the mirror under the old key.

    The log holds the old key at `at` (op k) and the row right after it (op u); all before it is merged.
    """
    copy_rows(conn, batch)
    if at <= batch.since:  # the mirror was copied anew and is ahead of the log
        _merged(batch)
        return
    table, meta = batch.table, batch.table.meta
    where = sql.SQL("{}.{} = {} and {}.{} = {}")
    old, new = sql.SQL("o"), sql.SQL("n")
    lsn = sql.SQL("{}::pg_lsn").format(sql.Literal(format_lsn(at[0])))
    assigned = []
    for number, column in enumerate(table.columns, start=1):
        name = sql.Identifier(column.name)
        assigned.append(
            sql.SQL("{0} = case when {1} = any (n.{2}) then m.{0} else n.{0} end").format(
                name, sql.SQL(str(number)), meta["unchanged"]
            )
        )
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
    _merged(batch)


def _same_key(table: FollowedTable, one: str = "m", other: str = "l") -> sql.Composed:
    return sql.SQL(" and ").join(
        sql.SQL("{0}.{2} = {1}.{2}").format(sql.SQL(one), sql.SQL(other), sql.Identifier(name))
        for name in table.key
    )
