"""The passing rows of one judgement, typed once, before they meet what silver holds.

A temporary table, which PostgreSQL keeps out of its log; or, where silver is made anew, the new
table itself, which then needs no second copy. Set rules take rows out of it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composable

from datops_assets.quality.row_checks import raw, unreadable
from datops_assets.quality.row_query import RowQuery

Connection = psycopg.Connection[Any]


class Stage:
    """Rows of some loads that pass their row rules."""

    def __init__(
        self, conn: Connection, query: RowQuery, loads: Sequence[int], scope: Composable | None
    ) -> None:
        self.conn, self.query, self.loads, self.scope = conn, query, loads, scope
        self.columns = [sql.Identifier(name) for name in (*query.columns, "_load_id", "_row")]
        self.table = sql.Identifier("pg_temp", "_passing")

    def fill(self, table: sql.Identifier | None = None) -> int:
        """Judge the rows and keep those that pass; returns how many.

        table   to be created for good, without constraints; default: a temporary one
        """
        target: Composable = SQL("temp table _passing on commit drop")
        if table is None:
            self.conn.execute("drop table if exists pg_temp._passing")
        else:
            self.table = table
            target = SQL("table {}").format(table)
        passing = SQL("not {}").format(self.query.refused())
        rows = self.query.select(self.query.typed_columns(), self.loads, where=passing, scope=self.scope)
        # `create table as` is the one writing statement whose query PostgreSQL runs in parallel.
        return self.conn.execute(SQL("create {} as {}").format(target, rows)).rowcount

    def delivered_rows(self) -> int:
        """Rows that were there to judge."""
        row = self.conn.execute(self.query.count(self.loads, self.scope)).fetchone()
        assert row is not None
        return int(row[0])

    def count(self, conditions: Mapping[str, Composable]) -> dict[str, int]:
        """Count passing rows for each condition on typed values (and delivered texts being null) in one pass."""
        if not conditions:
            return {}
        counts = SQL(", ").join(
            SQL("count(*) filter (where {})").format(each) for each in conditions.values()
        )
        row = self.conn.execute(SQL("select {} from ({}) as t").format(counts, self._as_judged())).fetchone()
        assert row is not None
        return dict(zip(conditions, row, strict=True))

    def _as_judged(self) -> Composable:
        """Rows in the shape row checks read. A passing row's text is null exactly where its value is."""
        columns = list(enumerate(self.query.columns))
        texts = [SQL("s.{} as {}").format(sql.Identifier(name), raw(position)) for position, name in columns]
        texts += [SQL("false as {}").format(unreadable(position)) for position, _ in columns]
        return SQL("select s.*, {} from {} as s").format(SQL(", ").join(texts), self.table)

    def rows(self) -> Composable:
        """A query of all columns."""
        return SQL("select {} from {}").format(SQL(", ").join(self.columns), self.table)

    def remove_refused(self) -> int:
        """Take out the rows that a set rule put into `_refused`; returns how many."""
        return self.conn.execute(
            SQL(
                "delete from {} as s using (select distinct _load_id, _row from _refused) as f where {}"
            ).format(self.table, SQL("s._load_id = f._load_id and s._row = f._row"))
        ).rowcount

    def note_missing(self) -> Composable:
        """Note the rows that some rule refused in `_missing`; returns the condition on bronze (b) that finds them."""
        # First by place alone: a join that carried whole rows would spill them to disk.
        self.conn.execute("drop table if exists pg_temp._missing")
        absent = SQL(
            "not exists (select from {} as s where s._load_id = b._load_id and s._row = b._row)"
        ).format(self.table)
        scope = absent if self.scope is None else SQL("{} and {}").format(self.scope, absent)
        self.conn.execute(
            SQL("create temp table _missing on commit drop as {}").format(
                self.query.places(self.loads, scope)
            )
        )
        self.conn.execute("analyze _missing")
        return SQL("exists (select from _missing as m where m._load_id = b._load_id and m._row = b._row)")
