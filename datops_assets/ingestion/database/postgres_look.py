"""One look at a table of a PostgreSQL: hashes computed there, rows by binary COPY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.errors import LoadRefusedError
from datops_assets.ingestion.copy_text import send_copy
from datops_assets.ingestion.database.address import Address
from datops_assets.ingestion.database.looks import AS_TEXT, HashingLook, LookedColumn
from datops_assets.ingestion.database.postgres import (
    SNAPSHOT,
    PostgresSource,
    connect,
    copied_out,
    explained,
    has_no_place,
    looking_back,
    relation_name,
)
from datops_assets.ingestion.database.postgres_columns import select_list
from datops_assets.ingestion.database.tables import DatabaseTable
from datops_assets.ingestion.read_ahead import reading_ahead
from datops_assets.postgres.row_hash import Buckets, Summaries, is_in, summaries_query, summary

_PRIMARY_KEY: LiteralString = """
select a.attname::text
  from pg_index i, unnest(i.indkey::int2[]) with ordinality as k(attnum, place)
  join pg_attribute a on a.attnum = k.attnum
 where i.indrelid = to_regclass(%s) and i.indisprimary and a.attrelid = i.indrelid order by k.place
"""


class PostgresLook(HashingLook):
    """Inside one repeatable read transaction."""

    def __init__(self, address: Address, table: DatabaseTable) -> None:
        super().__init__(table)
        self._address = address
        self._relation = relation_name(table)
        with explained(address, table.where):
            self._conn = connect(address)
            try:
                self._conn.execute(SNAPSHOT)
                self._source = PostgresSource(address, self._conn)
                found = self._source.looked_at(table)
                self._taken, self._cursor = found.taken(table), found.cursor(table)
                name = self._relation.as_string(self._conn)
                self.primary_key = [key for (key,) in self._conn.execute(_PRIMARY_KEY, (name,))]
            except BaseException:
                self._conn.close()
                raise
        self.columns = [
            LookedColumn(column.name, column.type, column.type, AS_TEXT) for column in self._taken
        ]

    def highest(self) -> str | None:
        """As PostgreSQL prints it."""
        assert self._cursor is not None
        with explained(self._address, self.table.where):
            return self._source.highest(self.table, self._cursor)

    def summaries(self, key: Sequence[str], columns: Sequence[str] | None, count: int) -> Summaries:
        """Let the server hash."""
        query = summaries_query(
            self._relation, self._texts(key), None if columns is None else self._texts(columns), count
        )
        with explained(self._address, self.table.where):
            return {number: summary(rows, hashed) for number, rows, hashed in self._conn.execute(query)}

    def copy_since(self, conn: psycopg.Connection[Any], target: sql.Identifier, watermark: str) -> int:
        """By an index on the cursor, where there is one."""
        assert self._cursor is not None
        past = sql.SQL("{} >= {} or {}").format(
            sql.Identifier(self._cursor.name),
            looking_back(self._cursor, watermark, self.table),
            has_no_place(self._cursor),
        )
        return self._copy(conn, target, past)

    def copy_rows(self, conn: psycopg.Connection[Any], target: sql.Identifier) -> int:
        """One scan of the table."""
        return self._copy(conn, target, sql.SQL("true"))

    def copy_buckets(
        self, conn: psycopg.Connection[Any], target: sql.Identifier, key: Sequence[str], buckets: Buckets
    ) -> int:
        """One scan of the table, too."""
        return self._copy(conn, target, is_in(self._texts(key), buckets))

    def close(self) -> None:
        """Close the connection."""
        self._source.close()

    def _texts(self, names: Sequence[str]) -> list[sql.Composable]:
        columns = {column.name: column for column in self._taken}
        return [sql.SQL("({})::text").format(columns[name].sent_as(columns[name].type)) for name in names]

    def _copy(self, conn: psycopg.Connection[Any], target: sql.Identifier, where: sql.Composable) -> int:
        types = [column.type for column in self._taken]
        query = sql.SQL("copy (select {} from {} where {}) to stdout (format binary)").format(
            select_list(self._taken, types), self._relation, where
        )
        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in self._taken)
        statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(target, names)
        with self._conn.cursor() as reader, conn.cursor() as writer:

            def chunks() -> Any:
                with explained(self._address, self.table.where):
                    yield from copied_out(reader, query)

            with reading_ahead(chunks()) as ahead:
                send_copy(writer, statement, ahead)
            sent, taken = reader.rowcount, writer.rowcount
        if sent != taken:
            raise LoadRefusedError(
                f"{self.table.where}: the source sent {sent} rows, the warehouse took {taken}; try again"
            )
        self.rows_read += taken
        return taken
