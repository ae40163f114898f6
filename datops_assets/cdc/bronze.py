"""The two bronze tables of a followed table: the log of its changes, and the mirror.

`bronze.<source>_<table>_changes` keeps every change, `bronze.<source>_<table>` is the table as the
source has it now. Columns are named as in the source. A table that keeps no log has the mirror alone: its changes
wait for their merge in a temporary table of the log's columns, which is empty after each commit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.cdc.marks import Marks, own_columns
from datops_assets.cdc.source import SourceColumn
from datops_assets.cdc.splice import META_COLUMNS
from datops_assets.cdc.view import view_follows
from datops_assets.errors import LoadRefusedError
from datops_assets.postgres.identifiers import bronze_table, warehouse_name
from datops_assets.postgres.tables import table_id

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
    prefix: str = "_"
    """What our columns of the log begin with; see `prefix_for`."""
    is_logged: bool = True
    """Whether its changes are kept."""
    marks: Marks | None = None
    """Our columns of the mirror, where deleted rows stay in it; None: they leave."""

    @property
    def mirror(self) -> sql.Identifier:
        """The table as the source has it now."""
        return sql.Identifier("bronze", warehouse_name(self.source, self.name))

    @property
    def changes(self) -> sql.Identifier:
        """Every change, in commit order; without a log those of the open transaction."""
        schema = "bronze" if self.is_logged else "pg_temp"
        return sql.Identifier(schema, warehouse_name(self.source, f"{self.name}_changes"))

    @property
    def key(self) -> list[str]:
        """The columns that tell a row from all others."""
        return [column.name for column in self.columns if column.is_key]

    @property
    def meta(self) -> dict[str, sql.Identifier]:
        """Our columns of the log."""
        return {name: sql.Identifier(f"{self.prefix}{name}") for name in META_COLUMNS}

    @property
    def log_columns(self) -> list[sql.Identifier]:
        """All columns of the log, in the order their values are sent."""
        return [*self.meta.values(), *(sql.Identifier(column.name) for column in self.columns)]


def prefix_for(names: Collection[str], at_least: str = "_", meta: Collection[str] = META_COLUMNS) -> str:
    """What our columns begin with where the source's have these names: `_`, longer where one is taken."""
    prefix = at_least
    while any(f"{prefix}{name}" in names for name in meta):
        prefix += "_"
    return prefix


def kept_logs(conn: psycopg.Connection[Any], source: str, names: Collection[str]) -> set[str]:
    """Those of some tables whose changes were kept until now."""
    query = (
        "select name from unnest(%(names)s::text[]) name"
        " where to_regclass(format('bronze.%%I', %(source)s || '_' || name || '_changes')) is not null"
    )
    return {name for (name,) in conn.execute(query, {"names": list(names), "source": source})}


def prefix_of(conn: psycopg.Connection[Any], changes: sql.Identifier) -> str | None:
    """What our columns of a log begin with, told by its key; None where there is no such log."""
    return next((name[: -len("seq")] for name in key_of(conn, changes) if name.endswith("_seq")), None)


def rename_meta(
    conn: psycopg.Connection[Any],
    changes: sql.Identifier,
    old: str,
    new: str,
    meta: Collection[str] = META_COLUMNS,
) -> None:
    """Make room in a log for a column of the source that is called as one of ours."""
    for name in meta:
        conn.execute(
            sql.SQL("alter table {} rename column {} to {}").format(
                changes, sql.Identifier(f"{old}{name}"), sql.Identifier(f"{new}{name}")
            )
        )


def create_tables(conn: psycopg.Connection[Any], table: FollowedTable) -> None:
    """Make mirror, and log where one is kept, where they are not there; the mirror's key is the source's."""
    if table.is_logged:
        conn.execute(
            sql.SQL("create table if not exists {} ({}, primary key ({}, {}))").format(
                table.changes, _log_columns(table), table.meta["commit_lsn"], table.meta["seq"]
            )
        )
    conn.execute(
        sql.SQL("create table if not exists {} ({}, primary key ({}))").format(
            table.mirror, sql.SQL(", ").join(map(_column, table.columns)), identifiers(table.key)
        )
    )


def stage(conn: psycopg.Connection[Any], table: FollowedTable) -> None:
    """Make the place, empty, where changes of a table without a log wait; of this session, and until it ends."""
    conn.execute(sql.SQL("drop table if exists {}").format(table.changes))
    conn.execute(
        sql.SQL("create temp table {} ({}) on commit delete rows").format(table.changes, _log_columns(table))
    )


def drop_log(conn: psycopg.Connection[Any], source: str, name: str) -> None:
    """Let go of a table's log and of what is known of it, in the caller's transaction.

    raises     LoadRefusedError: views stand on it
    """
    _drop(conn, source, bronze_table(source, f"{name}_changes"))
    conn.execute(
        "delete from datops.stream_columns using datops.tables t where t.table_id = stream_columns.table_id"
        " and t.source = %s and t.name = %s",
        (source, name),
    )


def renew_tables(conn: psycopg.Connection[Any], table: FollowedTable) -> None:
    """Make both tables empty and of the source's columns, in the caller's transaction: for a snapshot."""
    drop_log(conn, table.source, table.name)
    renew_mirror(conn, table)


def renew_mirror(conn: psycopg.Connection[Any], table: FollowedTable) -> None:
    """Make the mirror empty and of the source's columns, in the caller's transaction; the log stays.

    Where its columns are the right ones it is emptied and not made again, so that views on it live on.
    Silver's own view on it is made again with it.

    raises     LoadRefusedError: it is to have other columns, and other views stand on it
    """
    held = [(name, kind) for name, kind in own_columns(conn, table.mirror).items()]
    same_key = key_of(conn, table.mirror) == set(table.key)
    if same_key and held == [(column.name, column.type) for column in table.columns]:
        conn.execute(sql.SQL("truncate {}").format(table.mirror))
        create_tables(conn, table)
        return
    with view_follows(conn, table.source, table.name):
        _drop(conn, table.source, table.mirror)
        create_tables(conn, table)


def _drop(conn: psycopg.Connection[Any], source: str, which: sql.Identifier) -> None:
    try:
        with conn.transaction():
            conn.execute(sql.SQL("drop table if exists {}").format(which))
    except psycopg.errors.DependentObjectsStillExist:
        raise LoadRefusedError(
            f"{which.as_string(conn)} is to go or to be made anew, and views stand on it; drop those, then try again:"
            f" datops cdc drain {source}"
        ) from None


def columns_of(conn: psycopg.Connection[Any], table: sql.Identifier) -> dict[str, str]:
    """The columns of a table in the warehouse and their types, in order; none where there is no such table."""
    return dict(
        conn.execute(
            "select a.attname, format_type(a.atttypid, -1) from pg_attribute a"
            " where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped order by a.attnum",
            (table.as_string(conn),),
        ).fetchall()
    )


def key_of(conn: psycopg.Connection[Any], table: sql.Identifier) -> set[str]:
    """The columns of a table's primary key."""
    return {
        name
        for (name,) in conn.execute(
            "select a.attname from pg_index i"
            " join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)"
            " where i.indrelid = to_regclass(%s) and i.indisprimary",
            (table.as_string(conn),),
        )
    }


def add_columns(conn: psycopg.Connection[Any], target: sql.Identifier, new: Sequence[SourceColumn]) -> None:
    """Give a table the columns that the source's got, in the caller's transaction."""
    conn.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
    additions = [sql.SQL("add column if not exists {}").format(_column(column)) for column in new]
    conn.execute(sql.SQL("alter table {} {}").format(target, sql.SQL(", ").join(additions)))


def widen_column(conn: psycopg.Connection[Any], target: sql.Identifier, column: SourceColumn) -> None:
    """Give a column a type that holds more, in the caller's transaction; readers wait."""
    conn.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
    conn.execute(
        sql.SQL("alter table {} alter column {} type {}").format(
            target, sql.Identifier(column.name), sql.SQL(column.type)
        )
    )


def set_column_aside(conn: psycopg.Connection[Any], table: FollowedTable, name: str, at: int) -> None:
    """Keep the values that a column of the log had before it got another type, under another name.

    at         the place in the log, which the name says
    """
    aside = f"{name.encode()[:40].decode(errors='ignore')}_until_{at:x}"
    conn.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
    conn.execute(
        sql.SQL("alter table {} rename column {} to {}").format(
            table.changes, sql.Identifier(name), sql.Identifier(aside)
        )
    )
    conn.execute(
        "update datops.stream_columns set columns = array_replace(columns, %s, %s) where table_id = %s",
        (name, aside, table_id(conn, table.source, table.name)),
    )


def note_columns(
    conn: psycopg.Connection[Any], source: str, name: str, place: str, seq: int, columns: Sequence[str]
) -> None:
    """Remember which columns the changes have from a place of the log on, in the caller's transaction."""
    conn.execute(
        "insert into datops.stream_columns (table_id, commit_lsn, seq, columns)"
        " select %(table)s, %(place)s, %(seq)s, %(columns)s where %(columns)s is distinct from"
        " (select columns from datops.stream_columns where table_id = %(table)s"
        "   order by commit_lsn desc, seq desc limit 1) on conflict do nothing",
        {"table": table_id(conn, source, name), "place": place, "seq": seq, "columns": list(columns)},
    )


def identifiers(names: Sequence[str]) -> sql.Composed:
    """Names in a row, quoted."""
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _log_columns(table: FollowedTable) -> sql.Composed:
    meta = [sql.SQL("{} {}").format(name, sql.SQL(_META_TYPES[key])) for key, name in table.meta.items()]
    return sql.SQL(", ").join([*meta, *map(_column, table.columns)])


def _column(column: SourceColumn) -> sql.Composed:
    return sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.type))
