"""One look at a table of any database that SQLAlchemy reaches, and one at SQLite's, which can hash in our process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import psycopg
import pyarrow as pa
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import exc

from datops_assets.ingestion.database.address import Address
from datops_assets.ingestion.database.engine import (
    EngineSource,
    as_text,
    explained,
    highest,
    looking_back,
    read_batches,
    relation_name,
)
from datops_assets.ingestion.database.looks import AS_TEXT, HashingLook, Look, arrow_column, write_batches
from datops_assets.ingestion.database.tables import DatabaseTable
from datops_assets.postgres.row_hash import Buckets, Summaries, hash_of, summary

_BUCKET, _HASH = "datops_bucket", "datops_hash"
_MOST_ARGUMENTS = 100
"""A function of SQLite takes 127 at least; a row of more columns has no text that is hashed."""


class EngineLook(Look):
    """Inside one transaction, of repeatable reads where the database has them."""

    def __init__(self, address: Address, table: DatabaseTable) -> None:
        super().__init__(table)
        self._address = address
        self._source = EngineSource(address)
        with explained(address, table.where):
            found = self._source.looked_at(table)
            self._taken, self._cursor = found.taken(table), found.cursor(table)
            self._conn = self._source.connect()
            try:
                self._begin()
                constraint = sa.inspect(self._conn).get_pk_constraint(table.relation, table.schema)
            except BaseException:
                self.close()
                raise
        self.primary_key = list(constraint["constrained_columns"] or ())
        printed = AS_TEXT if len(self._taken) <= _MOST_ARGUMENTS else None
        self.columns = [
            arrow_column(column.name, column.arrow, printed if column.is_loose else None)
            for column in self._taken
        ]

    def highest(self) -> str | None:
        """As Python prints it."""
        assert self._cursor is not None
        with explained(self._address, self.table.where):
            return highest(self._conn, self.table, self._cursor)

    def copy_since(self, conn: psycopg.Connection[Any], target: sql.Identifier, watermark: str) -> int:
        """By an index on the cursor, where there is one."""
        assert self._cursor is not None
        column: sa.ColumnClause[Any] = sa.column(self._cursor.name)
        lower = looking_back(self._cursor, watermark, self.table)
        return self._copy(conn, target, sa.or_(column >= lower, column.is_(None)))

    def copy_rows(self, conn: psycopg.Connection[Any], target: sql.Identifier) -> int:
        """One scan of the table."""
        return self._copy(conn, target, sa.true())

    def close(self) -> None:
        """Close the connection; a reading under way ends with it."""
        with suppress(exc.SQLAlchemyError):
            self._conn.invalidate()
            self._conn.close()
        self._source.close()

    def _begin(self) -> None:
        connection: Any = self._conn.connection.dbapi_connection
        if "REPEATABLE READ" in self._conn.dialect.get_isolation_level_values(connection):
            self._conn.execution_options(isolation_level="REPEATABLE READ")

    def _copy(
        self, conn: psycopg.Connection[Any], target: sql.Identifier, where: sa.ColumnElement[bool]
    ) -> int:
        query = (
            sa.select(*(sa.column(column.name) for column in self._taken))
            .select_from(relation_name(self.table))
            .where(where)
        )
        schema = pa.schema([pa.field(column.name, column.arrow) for column in self._taken])

        def batches() -> Iterator[pa.RecordBatch]:
            with explained(self._address, self.table.where):
                yield from read_batches(
                    self._conn, query, schema, self._taken, self.table.where, hashlib.sha256()
                )

        rows = write_batches(conn, target, schema, batches())
        self.rows_read += rows
        return rows


class SqliteLook(EngineLook, HashingLook):
    """SQLite has no hash of its own; it runs in our process, so functions of ours compute it."""

    def summaries(self, key: Sequence[str], columns: Sequence[str] | None, count: int) -> Summaries:
        """Hash row by row while SQLite reads them."""
        found: dict[int, tuple[int, int]] = {}
        query = sa.select(self._bucket(key, count), _call(_HASH, columns or key)).select_from(
            relation_name(self.table)
        )
        with explained(self._address, self.table.where):
            for bucket, hashed in self._conn.execution_options(stream_results=True).execute(query):
                rows, total = found.get(bucket, (0, 0))
                found[bucket] = (rows + 1, total ^ hashed)
        return {bucket: summary(*sums) for bucket, sums in found.items()}

    def _begin(self) -> None:
        connection: Any = self._conn.connection.dbapi_connection
        connection.create_function(_BUCKET, -1, _bucket, deterministic=True)
        connection.create_function(_HASH, -1, _hash, deterministic=True)
        self._conn.exec_driver_sql("begin")  # its driver begins with the first write only

    def copy_buckets(
        self, conn: psycopg.Connection[Any], target: sql.Identifier, key: Sequence[str], buckets: Buckets
    ) -> int:
        """One scan of the table, too."""
        # Written in: SQLite takes 32,766 parameters, and there may be more buckets.
        numbers: list[sa.ColumnElement[int]] = [sa.literal_column(str(number)) for number in buckets.numbers]
        return self._copy(conn, target, self._bucket(key, buckets.count).in_(numbers))

    def _bucket(self, key: Sequence[str], count: int) -> sa.ColumnElement[int]:
        return _call(_BUCKET, key) % sa.literal_column(str(count))


def _call(function: str, names: Sequence[str]) -> sa.ColumnElement[int]:
    return getattr(sa.func, function)(*(sa.column(name) for name in names), type_=sa.BigInteger())


def _digest(values: Sequence[Any]) -> bytes:
    return hash_of([None if value is None else as_text(value) for value in values])


def _bucket(*values: Any) -> int:
    return int.from_bytes(_digest(values)[:4], "big")


def _hash(*values: Any) -> int:
    return int.from_bytes(_digest(values)[:8], "big", signed=True)
