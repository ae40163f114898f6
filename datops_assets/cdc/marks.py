"""Marks of deleted rows in a mirror whose table declares `deletes: soft`: which columns they are, and which rows live.

    _deleted_at                    when: the commit in the source, or the look that missed the row; null: it is there
    _deleted_lsn or _deleted_look  by which transaction, or look
    _deleted_seq                   by which change of it in the log; null: a copy of the table lacked the row

A mirror says itself that it has marks, by a constraint of our name on two of them: so a source that has columns of
these names is not mistaken for one, and the columns are known whatever they had to be called.

Belongs here: what a mirror is asked for. Does not: when marks come and go (deletes.py), who sets them (marked.py and
query/compare.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, LiteralString

import psycopg
from psycopg import sql

By = Literal["lsn", "look"]
"""What a change is found by in the log: its place, or the look that saw it."""

_RULE = "datops_deleted"
_TYPES = {"at": "timestamptz", "lsn": "pg_lsn", "look": "bigint", "seq": "bigint"}
_FIND: LiteralString = """
select a.attname from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and a.attnum = any (c.conkey)
 where c.conrelid = to_regclass(%s) and c.conname = 'datops_deleted'
"""
_MARKED: LiteralString = """
select t.relname from pg_constraint c join pg_class t on t.oid = c.conrelid
 where c.connamespace = 'bronze'::regnamespace and c.conname = 'datops_deleted'
"""
_COLUMNS: LiteralString = """
select a.attname, format_type(a.atttypid, -1) from pg_attribute a
 where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped order by a.attnum
"""


@dataclass(frozen=True)
class Marks:
    """The columns of the marks in one mirror."""

    prefix: str
    """What they begin with, before `deleted_`."""
    by: By

    @property
    def names(self) -> tuple[str, str, str]:
        """When, by which transaction or look, by which change of it."""
        at, place, seq = (f"{self.prefix}deleted_{name}" for name in ("at", self.by, "seq"))
        return at, place, seq

    @property
    def columns(self) -> list[sql.Identifier]:
        """The same, as the server takes them."""
        return [sql.Identifier(name) for name in self.names]

    def live(self, alias: str) -> sql.Composed:
        """The condition for a row that the source has."""
        return sql.SQL("{} is null").format(sql.Identifier(alias, self.names[0]))

    def set_to(self, *values: sql.Composable) -> sql.Composed:
        """Assignments of when, place and number."""
        pairs = zip(self.columns, values, strict=True)
        return sql.SQL(", ").join(sql.SQL("{} = {}").format(column, value) for column, value in pairs)


def marks_of(conn: psycopg.Connection[Any], mirror: sql.Identifier) -> Marks | None:
    """The marks of a mirror; None: deleted rows leave it, or there is no such table."""
    for (name,) in conn.execute(_FIND, (mirror.as_string(conn),)):
        prefix, _, what = name.rpartition("deleted_")
        if what in ("lsn", "look"):
            return Marks(prefix, what)
    return None


def marked_mirrors(conn: psycopg.Connection[Any]) -> set[str]:
    """The names of all mirrors that have marks."""
    return {name for (name,) in conn.execute(_MARKED)}


def own_columns(conn: psycopg.Connection[Any], mirror: sql.Identifier) -> dict[str, str]:
    """The source's columns of a mirror and their types, in order; none where there is no such table."""
    held = dict(conn.execute(_COLUMNS, (mirror.as_string(conn),)).fetchall())
    marks = marks_of(conn, mirror)
    return {name: kind for name, kind in held.items() if marks is None or name not in marks.names}


def live_rows(conn: psycopg.Connection[Any], mirror: sql.Identifier) -> sql.Composable:
    """What to select from, for the rows that the source has, without marks."""
    marks = marks_of(conn, mirror)
    if marks is None:
        return mirror
    names = sql.SQL(", ").join(sql.Identifier("l", name) for name in own_columns(conn, mirror))
    return sql.SQL("(select {} from {} as l where {})").format(names, mirror, marks.live("l"))


def add_marks(conn: psycopg.Connection[Any], mirror: sql.Identifier, by: By) -> Marks:
    """Let a mirror keep deleted rows from now on, in the caller's transaction."""
    marks = _free(own_columns(conn, mirror), "_", by)
    added = [
        sql.SQL("add column {} {}").format(column, sql.SQL(_TYPES[what]))
        for column, what in zip(marks.columns, ("at", by, "seq"), strict=True)
    ]
    rule = sql.SQL("add constraint {} check (({} is null) = ({} is null))").format(
        sql.Identifier(_RULE), *marks.columns[:2]
    )
    conn.execute(sql.SQL("alter table {} {}").format(mirror, sql.SQL(", ").join([*added, rule])))
    return marks


def drop_marks(conn: psycopg.Connection[Any], mirror: sql.Identifier, marks: Marks) -> int:
    """Let the marked rows leave a mirror, and the marks, in the caller's transaction; returns how many rows left."""
    left = conn.execute(sql.SQL("delete from {} as m where not {}").format(mirror, marks.live("m"))).rowcount
    dropped = [sql.SQL("drop column {}").format(column) for column in marks.columns]
    conn.execute(sql.SQL("alter table {} {}").format(mirror, sql.SQL(", ").join(dropped)))
    return left


def make_room(conn: psycopg.Connection[Any], mirror: sql.Identifier, names: Collection[str]) -> None:
    """Give the marks other names where columns of the source's come that are called so, in the caller's transaction."""
    marks = marks_of(conn, mirror)
    if marks is None or not {*names} & {*marks.names}:
        return
    longer = _free({*names, *own_columns(conn, mirror)}, marks.prefix, marks.by)
    for old, new in zip(marks.columns, longer.columns, strict=True):
        conn.execute(sql.SQL("alter table {} rename column {} to {}").format(mirror, old, new))


def _free(taken: Collection[str], prefix: str, by: By) -> Marks:
    marks = Marks(prefix, by)
    while {*marks.names} & {*taken}:
        marks = Marks(f"{marks.prefix}_", by)
    return marks
