"""Which keys of a mirror changed since a place, for whoever works on what the mirror holds.

A place is the copy that the mirror goes on from, and how far its log has come since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.sql import SQL

from datops_assets.cdc.bronze import identifiers, key_of, prefix_of
from datops_assets.cdc.marks import live_rows, own_columns
from datops_assets.postgres.identifiers import bronze_table

_PLACE: LiteralString = """
select s.capture, coalesce(t.copied_lsn, s.snapshot_lsn)::text, s.applied_lsn::text, t.look,
       to_regclass(format('bronze.%%I', %(source)s || '_' || %(name)s || '_changes'))::oid::bigint
  from datops.streams s join datops.stream_tables t using (stream_id) join datops.tables using (table_id)
 where s.source = %(source)s and tables.name = %(name)s
"""


@dataclass(frozen=True)
class FollowedMirror:
    """The mirror of one table of a stream, by log or by queries."""

    source: str
    name: str

    def key(self, conn: psycopg.Connection[Any]) -> list[str]:
        """The mirror's primary key; none where there is no mirror."""
        return sorted(key_of(conn, bronze_table(self.source, self.name)))

    def columns(self, conn: psycopg.Connection[Any]) -> list[str]:
        """The source's columns."""
        return [*own_columns(conn, bronze_table(self.source, self.name))]

    def rows(self, conn: psycopg.Connection[Any]) -> sql.Composable:
        """Without those that the source has no more, where deletes are soft."""
        return live_rows(conn, bronze_table(self.source, self.name))

    def place(self, conn: psycopg.Connection[Any]) -> str:
        """The copy and the place in the log, or the look, that the mirror has come to."""
        row = conn.execute(_PLACE, {"source": self.source, "name": self.name}).fetchone()
        if row is None:
            return ""
        capture, copied, applied, look, log = row
        # A copy by queries makes the log anew.
        return f"{copied} {applied}" if capture == "log" else f"log {log} {look}"

    def changed(self, conn: psycopg.Connection[Any], since: str) -> sql.Composable | None:
        """A query of the keys that changed since a place; None where the log does not tell which."""
        copy = self.place(conn).rpartition(" ")[0]
        copy_then, _, reached_then = since.rpartition(" ")
        if not copy or copy != copy_then or reached_then == "None":
            return None
        log = bronze_table(self.source, f"{self.name}_changes")
        prefix = prefix_of(conn, log) or "_"
        op = sql.Identifier(f"{prefix}op")
        if copy.startswith("log "):
            later = SQL("{} > {}").format(sql.Identifier(f"{prefix}look"), sql.Literal(int(reached_then)))
        else:
            # What was read is a small end of a long log; its key finds it.
            later = SQL("{} >= {}::pg_lsn").format(
                sql.Identifier(f"{prefix}commit_lsn"), sql.Literal(reached_then)
            )
        emptied = conn.execute(
            SQL("select exists (select from {} where {} and {} = 't')").format(log, later, op)
        ).fetchone()
        if emptied == (True,):
            return None
        key = identifiers(self.key(conn))
        return SQL("select distinct {} from {} where {}").format(key, log, later)
