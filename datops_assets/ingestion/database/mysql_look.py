"""One look at a table of a MySQL or MariaDB: hashes computed there, rows as the bytes that were sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, LiteralString

import psycopg
import pyarrow as pa
from psycopg import sql

from datops_assets.ingestion.database.address import Address
from datops_assets.ingestion.database.looks import AS_TEXT, HashingLook, arrow_column, write_batches
from datops_assets.ingestion.database.mysql import (
    SNAPSHOT,
    MySqlColumn,
    MySqlSource,
    close_now,
    connect,
    looking_back,
    quoted,
    read_batches,
    run,
    select_from,
    select_list,
)
from datops_assets.ingestion.database.mysql_errors import explained
from datops_assets.ingestion.database.tables import DatabaseTable
from datops_assets.postgres.row_hash import Buckets, Summaries, summary

_PRIMARY_KEY = """
select column_name from information_schema.key_column_usage
 where constraint_name = 'PRIMARY' and table_schema = coalesce(%s, database()) and table_name = %s
 order by ordinal_position
"""
_WHOLE = ("tinyint", "smallint", "mediumint", "int", "bigint", "year", "bit")
_TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set")
_PLAIN = ("date", "time", "uuid", "inet4", "inet6", "decimal")
_BYTES = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob")
_MICROS: LiteralString = "to_char({}, 'YYYY-MM-DD HH24:MI:SS.US')"
_MOMENT = "date_format({}, '%Y-%m-%d %H:%i:%s.%f')"


class MySqlLook(HashingLook):
    """Inside one consistent snapshot."""

    def __init__(self, address: Address, table: DatabaseTable) -> None:
        super().__init__(table)
        self._address = address
        with explained(address, table.where):
            self._conn = connect(address)
            try:
                for statement in SNAPSHOT:
                    run(self._conn, statement)
                self._source = MySqlSource(address, self._conn)
                found = self._source.looked_at(table)
                self._taken, self._cursor = found.taken(table), found.cursor(table)
                keys = run(self._conn, _PRIMARY_KEY, (table.schema, table.relation))
            except BaseException:
                close_now(self._conn)
                raise
        self.primary_key = [name.decode() for (name,) in keys]
        forms = {column.name: _forms(column, column.name in table.as_text) for column in self._taken}
        self._printed = {name: form[0] for name, form in forms.items() if form is not None}
        self.columns = [
            arrow_column(column.name, column.arrow, form[1] if form is not None else None)
            for column in self._taken
            for form in [forms[column.name]]
        ]

    def highest(self) -> str | None:
        """As MySQL prints it."""
        assert self._cursor is not None
        with explained(self._address, self.table.where):
            return self._source.highest(self.table, self._cursor)

    def summaries(self, key: Sequence[str], columns: Sequence[str] | None, count: int) -> Summaries:
        """Let the server hash; a row larger than its max_allowed_packet has no hash there."""
        hashed = f"md5({self._row(columns)})" if columns is not None else "null"
        rows = select_from(f"md5({self._row(key)}) as k, {hashed} as r", self.table)
        taken = "r" if columns is not None else "k"
        query = (
            f"select cast(conv(left(k, 8), 16, 10) as unsigned) % {count} as bucket, count(*), count({taken}),"  # noqa: S608
            f" bit_xor(cast(conv(left({taken}, 16), 16, 10) as unsigned)) from ({rows}) h group by bucket"
        )
        with explained(self._address, self.table.where):
            found = [tuple(map(int, row)) for row in run(self._conn, query)]
        return {
            bucket: summary(rows_, hash_ if hashed_ == rows_ else None)
            for bucket, rows_, hashed_, hash_ in found
        }

    def copy_since(self, conn: psycopg.Connection[Any], target: sql.Identifier, watermark: str) -> int:
        """By an index on the cursor, where there is one."""
        assert self._cursor is not None
        name, lower = quoted(self._cursor.name), looking_back(self._cursor, watermark, self.table)
        return self._copy(conn, target, f"{name} >= {lower} or {name} is null")

    def copy_rows(self, conn: psycopg.Connection[Any], target: sql.Identifier) -> int:
        """One scan of the table."""
        return self._copy(conn, target, "true")

    def copy_buckets(
        self, conn: psycopg.Connection[Any], target: sql.Identifier, key: Sequence[str], buckets: Buckets
    ) -> int:
        """One scan of the table, too."""
        bucket = f"cast(conv(left(md5({self._row(key)}), 8), 16, 10) as unsigned) % {buckets.count}"
        return self._copy(conn, target, f"{bucket} in ({', '.join(map(str, buckets.numbers))})")

    def close(self) -> None:
        """Close the connection."""
        self._source.close()

    def _row(self, names: Sequence[str]) -> str:
        """The text of a row, as `postgres.row_hash` says."""
        parts = [
            f"coalesce(concat(length({text}), ':', {text}), 'N')"
            for text in (self._printed[name] for name in names)
        ]
        return f"concat({', '.join(parts)})"

    def _copy(self, conn: psycopg.Connection[Any], target: sql.Identifier, where: str) -> int:
        query = select_from(select_list(self._taken), self.table, where)
        schema = pa.schema([pa.field(column.name, column.arrow) for column in self._taken])

        def batches() -> Iterator[pa.RecordBatch]:
            with explained(self._address, self.table.where):
                yield from read_batches(
                    self._conn, query, schema, self._taken, self.table.where, hashlib.sha256()
                )

        rows = write_batches(conn, target, schema, batches())
        self.rows_read += rows
        return rows


def _forms(column: MySqlColumn, as_text: bool) -> tuple[str, LiteralString] | None:
    """How both sides print a value alike: there, and in the warehouse; None: they do not.

    Numbers with a binary fraction have no such text: each side writes them in its own way.
    """
    name = quoted(column.name)
    if column.base in _TEXTS:
        return f"convert({name} using utf8mb4)", AS_TEXT
    if column.base in _PLAIN and "zerofill" not in column.declared:
        return f"cast({name} as char)", AS_TEXT
    if as_text:
        return (f"cast({name} as char)", AS_TEXT) if column.base in ("datetime", "timestamp") else None
    if column.base in _WHOLE:
        return f"cast({name} + 0 as char)", AS_TEXT  # without the zeros that fill it up
    if column.base in ("datetime", "timestamp"):
        return _MOMENT.format(name), _MICROS
    if column.base in _BYTES:
        return f"lower(hex({name}))", "encode({}, 'hex')"
    return None
