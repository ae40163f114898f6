"""The two bronze tables of a table that is looked at: its mirror, and the log of the changes that were seen.

They are those of a stream by log (cdc/bronze), but for what only a log knows: a change has no place in a log, no
transaction and no time of commit. It has the look that saw it, its number in that look, and the look's time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.cdc.bronze import columns_of, identifiers, key_of, prefix_for, prefix_of, rename_meta
from datops_assets.cdc.marks import Marks, make_room, marks_of, own_columns
from datops_assets.cdc.query.declared import Column, Look, QueriedTable
from datops_assets.cdc.view import view_follows
from datops_assets.errors import LoadRefusedError, SourceRefusedError
from datops_assets.postgres.identifiers import warehouse_name

META = {"look": "bigint", "seq": "bigint", "op": '"char"', "seen_at": "timestamptz"}


class KeyChangedError(Exception):
    """Another key than the mirror's: which rows are the same ones nobody can say."""


@dataclass(frozen=True)
class ComparedTable:
    """Names of both tables, and the source's columns in order."""

    source: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    types: dict[str, str]
    """Of each column as the warehouse's catalogue names it."""
    prefix: str = "_"
    left: tuple[str, ...] = ()
    """Columns of the mirror that left the source: null in rows that change."""
    marks: Marks | None = None
    """Our columns of the mirror, where deleted rows stay in it; None: they leave."""

    @property
    def mirror(self) -> sql.Identifier:
        """The table as the source had it at the last look."""
        return sql.Identifier("bronze", warehouse_name(self.source, self.name))

    @property
    def changes(self) -> sql.Identifier:
        """Every change that was seen, in the order of looks."""
        return sql.Identifier("bronze", warehouse_name(self.source, f"{self.name}_changes"))

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [column.name for column in self.columns]

    @property
    def meta(self) -> dict[str, sql.Identifier]:
        """Our columns of the log."""
        return {name: sql.Identifier(f"{self.prefix}{name}") for name in META}

    def texts(self, names: Sequence[str]) -> list[sql.Composable] | None:
        """Expressions that print the mirror's values as the source prints its own; None: not of all of them."""
        printed = {column.name: column.printed for column in self.columns}
        found: list[sql.Composable] = []
        for name in names:
            expression = printed[name]
            if expression is None:
                return None
            found.append(sql.SQL(expression).format(sql.Identifier(name)))
        return found

    def definitions(self) -> list[sql.Composable]:
        """The columns as `create table` takes them."""
        return [_defined(name, self.types[name]) for name in self.names]


def compared_table(
    conn: psycopg.Connection[Any], source: str, one: QueriedTable, look: Look
) -> ComparedTable:
    """A table as the warehouse keeps it.

    raises     SourceRefusedError: nothing tells its rows apart
    """
    key = tuple(one.key or look.primary_key)
    names = [column.name for column in look.columns]
    if not key:
        raise SourceRefusedError(
            f"{one.label} has no primary key to tell its rows apart; name the columns that do:"
            f" tables: {{{one.name}: {{key: [...]}}}}"
        )
    if missing := [name for name in key if name not in names]:
        raise SourceRefusedError(
            f"{one.label}: the key's column {', '.join(missing)} is not there or is left out, expected some of:"
            f" {', '.join(names)}"
        )
    types = {
        column.name: found[0]
        for column in look.columns
        for found in conn.execute("select format_type(%s::regtype, -1)", (column.type,))
    }
    return ComparedTable(source, one.name, tuple(look.columns), key, types, prefix_for(names, meta=META))


def create_tables(conn: psycopg.Connection[Any], table: ComparedTable) -> None:
    """Make both tables anew and empty, in the caller's transaction.

    raises     LoadRefusedError: views stand on one
    """
    with view_follows(conn, table.source, table.name):
        _create(conn, table)


def _create(conn: psycopg.Connection[Any], table: ComparedTable) -> None:
    for which in (table.mirror, table.changes):
        try:
            with conn.transaction():
                conn.execute(sql.SQL("drop table if exists {}").format(which))
        except psycopg.errors.DependentObjectsStillExist:
            raise _views_stand_on(conn, table, which) from None
    meta = [sql.SQL("{} {}").format(name, sql.SQL(META[key])) for key, name in table.meta.items()]
    conn.execute(
        sql.SQL("create table {} ({}, primary key ({}, {}))").format(
            table.changes,
            sql.SQL(", ").join([*meta, *table.definitions()]),
            table.meta["look"],
            table.meta["seq"],
        )
    )
    conn.execute(
        sql.SQL("create table {} ({}, primary key ({}))").format(
            table.mirror, sql.SQL(", ").join(table.definitions()), identifiers(table.key)
        )
    )


def follow_columns(
    conn: psycopg.Connection[Any], table: ComparedTable, look: int
) -> tuple[ComparedTable, list[str]]:
    """Let both tables take the source's columns, in the caller's transaction.

    A column of another type is a new one: the log keeps its old values as `<name>_until_<look>`, and the mirror
    gets them again by comparing.
    returns    the table as it is now, and the columns whose values are to be compared in every row
    raises     KeyChangedError. LoadRefusedError: views stand on a column that must go
    """
    make_room(conn, table.mirror, table.names)
    held = own_columns(conn, table.mirror)
    known_key = key_of(conn, table.mirror)
    others = {name for name, type_ in table.types.items() if held.get(name, type_) != type_}
    if known_key != set(table.key) or others & known_key:
        raise KeyChangedError
    prefix = prefix_of(conn, table.changes)
    assert prefix is not None
    longer = prefix_for(table.names, prefix, META)
    new = [name for name in table.names if name not in held or name in others]
    if new or longer != prefix:
        conn.execute("set local lock_timeout = '10s'")
    if longer != prefix:
        rename_meta(conn, table.changes, prefix, longer, META)
    if new:
        with view_follows(conn, table.source, table.name):
            _renew_columns(conn, table, others, look)
    marks = marks_of(conn, table.mirror)
    left = tuple(name for name in own_columns(conn, table.mirror) if name not in table.types)
    return replace(table, prefix=longer, left=left, marks=marks), new


def _renew_columns(
    conn: psycopg.Connection[Any], table: ComparedTable, others: Collection[str], look: int
) -> None:
    logged = columns_of(conn, table.changes)
    for name in others:
        if marks_of(conn, table.mirror) is not None:  # rows that are gone keep what they had
            _set_aside(conn, table.mirror, name, look)
            continue
        try:
            with conn.transaction():
                conn.execute(
                    sql.SQL("alter table {} drop column {}").format(table.mirror, sql.Identifier(name))
                )
        except psycopg.errors.DependentObjectsStillExist:
            raise _views_stand_on(conn, table, table.mirror) from None
    for name in table.names:
        if logged.get(name, table.types[name]) != table.types[name]:
            _set_aside(conn, table.changes, name, look)
    for which in (table.mirror, table.changes):
        there = columns_of(conn, which)
        for name in table.names:
            if name not in there:
                conn.execute(
                    sql.SQL("alter table {} add column {}").format(which, _defined(name, table.types[name]))
                )


def _set_aside(conn: psycopg.Connection[Any], which: sql.Identifier, name: str, look: int) -> None:
    """Keep the values that a column had before it got another type, under another name."""
    aside = f"{name.encode()[:40].decode(errors='ignore')}_until_{look}"
    conn.execute(
        sql.SQL("alter table {} rename column {} to {}").format(
            which, sql.Identifier(name), sql.Identifier(aside)
        )
    )


def _views_stand_on(
    conn: psycopg.Connection[Any], table: ComparedTable, which: sql.Identifier
) -> LoadRefusedError:
    return LoadRefusedError(
        f"{which.as_string(conn)} is to get other columns, and views stand on it; drop those, then try again:"
        f" datops cdc drain {table.source}"
    )


def _defined(name: str, type_: str) -> sql.Composable:
    return sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_))
