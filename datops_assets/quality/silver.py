"""The silver table: its shape, and the statements that merge rows into it or take them out.

Belongs here: what is done to one silver table inside a transaction of the caller. Does not:
which rows (row_query, judging), putting a new table in the place of an old one (swap).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composable

from datops_assets.quality.judged import Subject

Connection = psycopg.Connection[Any]


LEFT_KEYS = sql.Identifier("pg_temp", "_left_keys")
"""Keys of the rows that the last `remove_loads` took out."""


@dataclass(frozen=True)
class ColumnDifference:
    """One column that silver and the contract see differently.

    what   add, widen, retype or remove; the first two break no reader
    """

    name: str
    what: str
    declared: str | None
    actual: str | None


@dataclass(frozen=True)
class Merged:
    """Rows that one statement changed."""

    inserted: int = 0
    updated: int = 0


_WIDER = {
    ("smallint", "integer"), ("smallint", "bigint"), ("integer", "bigint"), ("smallint", "numeric"),
    ("integer", "numeric"), ("bigint", "numeric"), ("date", "timestamp without time zone"),
}  # fmt: skip


def key_index(table: str) -> str:
    """The name of a table's index on its key; no table can have it, for `__` is refused in names."""
    return f"{table}__key"


class Silver:
    """One silver table, or the new one that will take its place."""

    def __init__(self, conn: Connection, subject: Subject, name: str | None = None) -> None:
        self.conn, self.subject = conn, subject
        self.name = name or subject.silver_name
        self.table = sql.Identifier("silver", self.name)
        self.key = [sql.Identifier(column) for column in subject.contract.key]
        self.columns = [sql.Identifier(column) for column in (*subject.contract.columns, "_load_id", "_row")]

    def actual_columns(self) -> dict[str, str]:
        """Column names and types as PostgreSQL prints them; empty when there is no table."""
        rows = self.conn.execute(
            "select a.attname, format_type(a.atttypid, a.atttypmod) from pg_attribute a"
            " where a.attrelid = to_regclass(format('silver.%%I', %s::text)) and a.attnum > 0 and"
            " not a.attisdropped order by a.attnum",
            (self.name,),
        )
        return dict(rows.fetchall())

    def differences(self) -> list[ColumnDifference]:
        """What the contract declares otherwise than the table is; none when there is no table."""
        actual = self.actual_columns()
        return column_differences(_declared(self.subject), actual) if actual else []

    def fits(self) -> bool:
        """Whether the table is there with the contract's columns. More columns do no harm."""
        return bool(self.actual_columns()) and all(each.what == "remove" for each in self.differences())

    def finish(self) -> None:
        """Give a table that was made by a query what a query cannot give: its constraints and comments."""
        required = [column.name for column in self.subject.contract.column_schema() if not column.nullable]
        actions = [
            SQL("alter column {} set not null").format(sql.Identifier(name))
            for name in (*required, "_load_id", "_row")
        ]
        self.conn.execute(SQL("alter table {} {}").format(self.table, SQL(", ").join(actions)))
        self.describe()

    def create(self) -> None:
        """Make the table without rows and without its index."""
        columns = [
            SQL("{} {}").format(sql.Identifier(name), rule.kind.postgres)
            for name, rule in self.subject.contract.columns.items()
        ]
        self.conn.execute(
            SQL("create table {} ({}, _load_id bigint, _row bigint)").format(
                self.table, SQL(", ").join(columns)
            )
        )
        self.finish()

    def describe(self) -> None:
        """Write the contract's descriptions as comments, for whoever opens the table elsewhere."""
        for name, rule in self.subject.contract.columns.items():
            if rule.description:
                self.conn.execute(
                    SQL("comment on column {}.{} is {}").format(
                        self.table, sql.Identifier(name), sql.Literal(rule.description)
                    )
                )

    def create_index(self) -> None:
        """Make the key's index; a null equals a null."""
        if self.key:
            self.conn.execute(
                SQL("create unique index {} on {} ({}) nulls not distinct").format(
                    sql.Identifier(key_index(self.name)), self.table, SQL(", ").join(self.key)
                )
            )

    def keep_winners(self) -> None:
        """Of rows that were put in without an index keep each key's winner, and make the index."""
        try:
            # Most deliveries name a key once: then building the index is all the proof there is to find.
            with self.conn.transaction():
                self.create_index()
            return
        except psycopg.errors.UniqueViolation:
            pass
        everything = sql.Identifier("silver", f"{self.name}__all")
        self.conn.execute(
            SQL("alter table {} rename to {}").format(self.table, sql.Identifier(f"{self.name}__all"))
        )
        self.conn.execute(
            SQL("create table {} as {}").format(self.table, self._winners(SQL("table {}").format(everything)))
        )
        self.conn.execute(SQL("drop table {}").format(everything))
        self.create_index()

    def merge(self, rows: Composable) -> Merged:
        """Put rows in; of several with one key the winner stays, by `latest_by`, then load order.

        rows    a query of `self.columns`
        """
        names = SQL(", ").join(self.columns)
        if not self.key:
            statement = SQL("insert into {} ({}) select {} from ({}) as w")
            return Merged(self.conn.execute(statement.format(self.table, names, names, rows)).rowcount)
        # xmax is 0 in a row that this statement inserted, and its own number in one that it updated.
        counted = SQL(
            "with merged as (insert into {} as s ({}) {} on conflict ({}) do update set {} where {}"
            " returning s.xmax = 0 as inserted)"
            " select count(*) filter (where inserted), count(*) filter (where not inserted) from merged"
        ).format(
            self.table, names, self._winners(rows), SQL(", ").join(self.key), self._replace(), self._newer()
        )
        row = self.conn.execute(counted).fetchone()
        assert row is not None
        return Merged(row[0], row[1])

    def _winners(self, rows: Composable) -> Composable:
        return SQL("select distinct on ({key}) {names} from ({rows}) as w order by {key}, {order}").format(
            key=SQL(", ").join(self.key), names=SQL(", ").join(self.columns), rows=rows, order=self._order()
        )

    def remove_loads(self, loads: Sequence[int]) -> int:
        """Take out the rows of some loads and note their keys in the temporary table `_left_keys`."""
        self.conn.execute("drop table if exists pg_temp._left_keys")
        self.conn.execute(
            SQL("create temp table _left_keys on commit drop as select {} from {} limit 0").format(
                SQL(", ").join(self.key or [sql.Identifier("_row")]), self.table
            )
        )
        row = self.conn.execute(
            SQL(
                "with gone as (delete from {} where _load_id = any ({}::bigint[]) returning *),"
                " noted as (insert into _left_keys select {} from gone) select count(*) from gone"
            ).format(
                self.table, sql.Literal(list(loads)), SQL(", ").join(self.key or [sql.Identifier("_row")])
            )
        ).fetchone()
        self.conn.execute("analyze _left_keys")
        assert row is not None
        return int(row[0])

    def count_missing(self, keys: Composable) -> int:
        """Count the keys of a table that this one does not hold."""
        columns = SQL(", ").join(self.key)
        statement = SQL("select count(*) from (select {0} from {1} except select {0} from {2}) as m")
        row = self.conn.execute(statement.format(columns, keys, self.table)).fetchone()
        assert row is not None
        return int(row[0])

    def record_key(self, alias: str) -> Composable:
        """The key as one record: unlike column by column, that is hashed, and a null equals a null."""
        parts = SQL(", ").join(SQL("{}.{}").format(sql.Identifier(alias), part) for part in self.key)
        return SQL("row({})::record").format(parts)

    def count(self) -> int:
        """Rows in the table."""
        row = self.conn.execute(SQL("select count(*) from {}").format(self.table)).fetchone()
        assert row is not None
        return int(row[0])

    def _order(self) -> Composable:
        latest = self._latest()
        by_column = SQL("{} desc nulls last, ").format(latest("w")) if latest else SQL("")
        return SQL("{}_load_id desc, _row desc").format(by_column)

    def _latest(self) -> Any:
        name = self.subject.contract.latest_by
        if name is None:
            return None
        collation = SQL(' collate "C"' if self.subject.contract.columns[name].kind.family == "text" else "")
        return lambda alias: SQL("{}.{}{}").format(sql.Identifier(alias), sql.Identifier(name), collation)

    def _replace(self) -> Composable:
        return SQL(", ").join(SQL("{0} = excluded.{0}").format(column) for column in self.columns)

    def _newer(self) -> Composable:
        by_load = SQL("(excluded._load_id, excluded._row) > (s._load_id, s._row)")
        latest = self._latest()
        if latest is None:
            return by_load
        return SQL(
            "case when {old} is not distinct from {new} then {by_load} when {new} is null then false"
            " when {old} is null then true else {new} > {old} end"
        ).format(old=latest("s"), new=latest("excluded"), by_load=by_load)


def column_differences(declared: Mapping[str, str], actual: Mapping[str, str]) -> list[ColumnDifference]:
    """Compare names and types as PostgreSQL prints them; ours (`_load_id`, `_row`) are left out."""
    found = []
    for name, type_ in declared.items():
        if name not in actual:
            found.append(ColumnDifference(name, "add", type_, None))
        elif actual[name] != type_:
            what = "widen" if _is_wider(actual[name], type_) else "retype"
            found.append(ColumnDifference(name, what, type_, actual[name]))
    gone = [name for name in actual if name not in declared and name not in ("_load_id", "_row")]
    return found + [ColumnDifference(name, "remove", None, actual[name]) for name in gone]


def _declared(subject: Subject) -> dict[str, str]:
    return {name: rule.kind.catalogue_name for name, rule in subject.contract.columns.items()}


def _is_wider(old: str, new: str) -> bool:
    if (old, new) in _WIDER or new == "text":
        return True
    if old.startswith("numeric(") and new == "numeric":
        return True
    if old.startswith("numeric(") and new.startswith("numeric("):
        (old_p, old_s), (new_p, new_s) = (map(int, each[8:-1].split(",")) for each in (old, new))
        return new_s >= old_s and new_p - new_s >= old_p - old_s
    return False
