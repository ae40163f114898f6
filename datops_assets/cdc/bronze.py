"""The two bronze tables of a followed table: the log of its changes, and the mirror.

`bronze.<source>_<table>_changes` keeps every change, `bronze.<source>_<table>` is the table as the
source has it now. Columns are named as in the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.cdc.source import SourceColumn
from datops_assets.cdc.splice import META_COLUMNS
from datops_assets.postgres.identifiers import warehouse_name

_META_TYPES = {
    "commit_lsn": "pg_lsn",
    "seq": "bigint",
    "op": '"char"',
    "xid": "bigint",
    "committed_at": "timestamptz",
    "unchanged": "smallint[]",
}
LOCK_TIMEOUT = "10s"
"""A new column waits this long for readers; they wait behind it."""


@dataclass(frozen=True)
class FollowedTable:
    """A followed table in the warehouse: names of both tables, and the source's columns in order."""

    source: str
    name: str
    columns: tuple[SourceColumn, ...]

    @property
    def mirror(self) -> sql.Identifier:
        """The table as the source has it now."""
        return sql.Identifier("bronze", warehouse_name(self.source, self.name))

    @property
    def changes(self) -> sql.Identifier:
        """Every change, in commit order."""
        return sql.Identifier("bronze", warehouse_name(self.source, f"{self.name}_changes"))

    @property
    def key(self) -> list[str]:
        """The columns that tell a row from all others."""
        return [column.name for column in self.columns if column.is_key]

    @property
    def meta(self) -> dict[str, sql.Identifier]:
        """Our columns of the log; longer by a `_` for each that the source's names already have."""
        taken = {column.name for column in self.columns}
        prefix = "_"
        while any(f"{prefix}{name}" in taken for name in META_COLUMNS):
            prefix += "_"
        return {name: sql.Identifier(f"{prefix}{name}") for name in META_COLUMNS}

    @property
    def log_columns(self) -> list[sql.Identifier]:
        """All columns of the log, in the order their values are sent."""
        return [*self.meta.values(), *(sql.Identifier(column.name) for column in self.columns)]


def create_tables(conn: psycopg.Connection[Any], table: FollowedTable) -> None:
    """Make both tables where they are not there; the mirror's key is the source's."""
    meta = [sql.SQL("{} {}").format(name, sql.SQL(_META_TYPES[key])) for key, name in table.meta.items()]
    own = [_column(column) for column in table.columns]
    conn.execute(
        sql.SQL("create table if not exists {} ({}, primary key ({}, {}))").format(
            table.changes,
            sql.SQL(", ").join([*meta, *own]),
            table.meta["commit_lsn"],
            table.meta["seq"],
        )
    )
    conn.execute(
        sql.SQL("create table if not exists {} ({}, primary key ({}))").format(
            table.mirror, sql.SQL(", ").join(own), identifiers(table.key)
        )
    )


def drop_tables(conn: psycopg.Connection[Any], table: FollowedTable) -> None:
    """Forget both tables: for a resync."""
    conn.execute(sql.SQL("drop table if exists {}, {}").format(table.changes, table.mirror))


def add_columns(conn: psycopg.Connection[Any], table: FollowedTable, new: Sequence[SourceColumn]) -> None:
    """Give both tables the columns that the source's table got, in the caller's transaction."""
    conn.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
    for target in (table.changes, table.mirror):
        additions = [sql.SQL("add column if not exists {}").format(_column(column)) for column in new]
        conn.execute(sql.SQL("alter table {} {}").format(target, sql.SQL(", ").join(additions)))


def widen_column(conn: psycopg.Connection[Any], table: FollowedTable, column: SourceColumn) -> None:
    """Give a column of both tables a type that holds more, in the caller's transaction; readers wait."""
    conn.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
    for target in (table.changes, table.mirror):
        conn.execute(
            sql.SQL("alter table {} alter column {} type {}").format(
                target, sql.Identifier(column.name), sql.SQL(column.type)
            )
        )


def identifiers(names: Sequence[str]) -> sql.Composed:
    """Names in a row, quoted."""
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _column(column: SourceColumn) -> sql.Composed:
    return sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.type))
