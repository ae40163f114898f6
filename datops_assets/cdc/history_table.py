"""The history table of a followed table: its shape, and how it follows the columns of the log.

`silver.<stream>_<table>_history` has a row for each version that a row of the source had. Belongs here:
names, columns, the catalogue's entry. Does not: which versions there are (history.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from datops_assets.cdc.bronze import LOCK_TIMEOUT, columns_of, prefix_of
from datops_assets.cdc.view import silver_names
from datops_assets.errors import LoadRefusedError
from datops_assets.postgres.identifiers import bronze_table, silver_table, warehouse_name
from datops_assets.postgres.lsn import format_lsn, parse_lsn
from datops_assets.postgres.tables import table_id
from datops_assets.postgres.widening import wider


@dataclass(frozen=True)
class Places:
    """What stands for a place in the log of changes. The catalogue keeps either as an LSN: of a look its number."""

    word: Literal["lsn", "look"]
    column: LiteralString
    """Of the log: where a change stands."""
    at: LiteralString
    """Of the log: when it was made, or seen."""
    type: LiteralString

    def literal(self, lsn: str) -> sql.Composed:
        """A place of the catalogue, as log and history write it."""
        value = lsn if self.word == "lsn" else str(parse_lsn(lsn))
        return sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(self.type))

    def kept(self, place: str) -> str:
        """A place of the log, as the catalogue writes it."""
        return place if self.word == "lsn" else format_lsn(int(place))

    def shown(self, lsn: str) -> str:
        """A place that was told to, as people read it: what was committed before it, or the last look."""
        return lsn if self.word == "lsn" else str(parse_lsn(lsn) - 1)

    def after_copy(self, lsn: str) -> str:
        """The first place whose changes a copy lacks: a transaction is at its end, a look has all of its number."""
        return lsn if self.word == "lsn" else format_lsn(parse_lsn(lsn) + 1)

    @property
    def columns(self) -> dict[str, LiteralString]:
        """Our columns of a history, in front of the source's."""
        return {
            "valid_from": "timestamptz not null",
            "valid_to": "timestamptz",
            "is_current": "boolean",
            "op": '"char" not null',
            f"from_{self.word}": "pg_lsn not null" if self.word == "lsn" else "bigint not null",
            f"to_{self.word}": self.type,
        }


_BY_LOG = Places("lsn", "commit_lsn", "committed_at", "pg_lsn")
_BY_LOOKS = Places("look", "look", "seen_at", "bigint")
_CAPTURE: LiteralString = """
select s.capture from datops.streams s join datops.stream_tables t using (stream_id) where t.table_id = %s
"""
_OF_LOG = ("commit_lsn", "seq", "op", "xid", "committed_at", "unchanged")
_OF_LOOKS = ("look", "seq", "op", "seen_at")
_UNTIL = "_until_"
_STATE: LiteralString = """
select told_lsn::text as told, copy_lsn::text as copy, waiting_lsn::text as waiting, waiting_at, key, prefix
  from datops.stream_histories where table_id = %s for update
"""


@dataclass(frozen=True)
class HistoryState:
    """One row of `datops.stream_histories`."""

    told: str
    copy: str
    waiting: str | None
    waiting_at: datetime | None
    key: list[str]
    prefix: str


class HistoryTable:
    """One history in the warehouse. Names of columns are the source's unless said otherwise."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        source: str,
        name: str,
        rename: Mapping[str, str],
        *,
        by_looks: bool = False,
    ) -> None:
        """`by_looks`: also where the catalogue does not say yet that the table is followed by queries."""
        self.conn, self.source, self.name, self.rename = conn, source, name, rename
        self.label = f"{source}.{name}"
        self.table_id = table_id(conn, source, name)
        self.table = silver_table(source, f"{name}_history")
        self.copy = sql.Identifier("silver", warehouse_name(source, f"{name}_history") + "__copy")
        self.mirror = bronze_table(source, name)
        self.log = bronze_table(source, f"{name}_changes")
        self.prefix = "_"
        found = conn.execute(_CAPTURE, (self.table_id,)).fetchone()
        self.places = _BY_LOOKS if by_looks or found == ("query",) else _BY_LOG

    def state(self) -> HistoryState | None:
        """The catalogue's entry, held until the transaction ends; None before the first version.

        raises     LoadRefusedError: it was told of another kind of log
        """
        with self.conn.cursor(row_factory=class_row(HistoryState)) as cursor:
            state = cursor.execute(_STATE, (self.table_id,)).fetchone()
        if state is not None:
            self.prefix = state.prefix
            held = columns_of(self.conn, self.table)
            if held and f"{self.prefix}from_{self.places.word}" not in held:
                raise LoadRefusedError(
                    f"{self.table.as_string(self.conn)} was told of another kind of capture, whose places cannot be"
                    " compared; rename it and it begins anew"
                )
            if not held:
                self.conn.execute("delete from datops.stream_histories where table_id = %s", (self.table_id,))
                return None
        return state

    def meta(self, name: str) -> sql.Identifier:
        """One of our columns; of a place by its name in a history of PostgreSQL's log."""
        if name in ("from_lsn", "to_lsn"):
            name = name.replace("lsn", self.places.word)
        return sql.Identifier(f"{self.prefix}{name}")

    def named(self, columns: Sequence[str]) -> dict[str, str]:
        """The history's names of some columns, as silver's everywhere. Raises LoadRefusedError."""
        return silver_names(self.label, columns, self.rename)

    def log_columns(self) -> tuple[str, dict[str, str]]:
        """What our columns of the log begin with, and the source's columns in it with their types."""
        held = columns_of(self.conn, self.log)
        prefix = prefix_of(self.conn, self.log) or "_"
        ours = {f"{prefix}{name}" for name in (_OF_LOG if self.places.word == "lsn" else _OF_LOOKS)}
        return prefix, {name: kind for name, kind in held.items() if name not in ours}

    def create(self, columns: Mapping[str, str], key: Sequence[str]) -> None:
        """Make the table, empty, where it is not there."""
        named = self.named(list(columns))
        while any(f"{self.prefix}{name}" in named.values() for name in self.places.columns):
            self.prefix += "_"
        to_lsn = self.meta("to_lsn").as_string(self.conn)
        ours = [
            sql.SQL("{} {}{}").format(
                self.meta(name),
                sql.SQL(kind),
                sql.SQL(f" generated always as ({to_lsn} is null) stored" if name == "is_current" else ""),
            )
            for name, kind in self.places.columns.items()
        ]
        own = [
            sql.SQL("{} {}").format(sql.Identifier(named[name]), sql.SQL(kind))
            for name, kind in columns.items()
        ]
        self.conn.execute(
            sql.SQL("create table if not exists {} ({})").format(
                self.table, sql.SQL(", ").join([*ours, *own])
            )
        )
        self.index(key)

    def index(self, key: Sequence[str]) -> None:
        """Let a key have one version at most that is current."""
        index = f"{warehouse_name(self.source, f'{self.name}_history')}__open"
        self.conn.execute(sql.SQL("drop index if exists silver.{}").format(sql.Identifier(index)))
        named = self.named(key)
        self.conn.execute(
            sql.SQL("create unique index {} on {} ({}) where {} is null").format(
                sql.Identifier(index),
                self.table,
                sql.SQL(", ").join(sql.Identifier(named[name]) for name in key),
                self.meta("to_lsn"),
            )
        )

    def follow(self, columns: Mapping[str, str], at: int) -> None:
        """Take the columns of the log or of a copy: new ones are added, those of another type kept under another name.

        at         the place in the log, which such a name says where the log does not say it
        """
        self.conn.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
        held = columns_of(self.conn, self.table)
        named = self.named(list(columns))
        for name, shown in named.items():
            before = name.rpartition(_UNTIL)[0]
            if shown in held or not before:
                continue
            # The log gave the column this name when its type changed; so do we.
            was = self.named([before])[before]
            if was in held and held[was] == columns[name] and columns.get(before) != held[was]:
                self._rename(was, shown)
                held[shown] = held.pop(was)
        for name, kind in columns.items():
            shown, there = named[name], held.get(named[name])
            if shown in {f"{self.prefix}{ours}" for ours in self.places.columns}:
                raise LoadRefusedError(
                    f"{self.label}: the new column {name!r} is called as one of its history's; give it another name in"
                    " silver by `rename:`"
                )
            fits = wider(there, kind) if there is not None else kind
            if there is not None and fits == there:
                continue
            if there is not None and fits == kind:
                self._alter("alter column {} type {}", shown, kind)
                continue
            if there is not None:
                self._rename(shown, f"{shown.encode()[:40].decode(errors='ignore')}{_UNTIL}{at:x}")
            self._alter("add column {} {}", shown, kind)

    def _alter(self, action: LiteralString, column: str, kind: str) -> None:
        self.conn.execute(
            sql.SQL("alter table {} ").format(self.table)
            + sql.SQL(action).format(sql.Identifier(column), sql.SQL(kind))
        )

    def _rename(self, column: str, to: str) -> None:
        self.conn.execute(
            sql.SQL("alter table {} rename column {} to {}").format(
                self.table, sql.Identifier(column), sql.Identifier(to)
            )
        )
