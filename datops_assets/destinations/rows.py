"""The rows of one table of the warehouse, in bounded memory, all of one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composed

from datops_assets.errors import TerminalError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 10_000
"""Rows in memory at a time."""
_MOST_DIGITS = 38


class TableMissingError(TerminalError):
    """The table that is to go out is not in the warehouse, or lacks a column.

    Next: run what makes the table, or correct `from:` and `columns:` of the export.
    """


@dataclass(frozen=True)
class Column:
    """One column, its type as PostgreSQL prints it."""

    name: str
    type: str


@dataclass(frozen=True)
class Rows:
    """A table as it was when it was opened. Each way of reading it may be used again, with the same rows."""

    conn: psycopg.Connection[Any]
    relation: tuple[str, str]
    columns: Sequence[Column]
    order_by: Sequence[str] = ()

    def count(self) -> int:
        """How many there are."""
        query = SQL("select count(*) from {}").format(sql.Identifier(*self.relation))
        found = self.conn.execute(query).fetchone()
        assert found is not None
        return int(found[0])

    def csv(self) -> Iterator[bytes]:
        """CSV with a header, UTF-8; null is an empty field, an empty text is `""`."""
        with self.conn.cursor().copy(
            SQL("copy ({}) to stdout (format csv, header)").format(self._select())
        ) as copy:
            for piece in copy:
                yield bytes(piece)

    def json_lines(self) -> Iterator[bytes]:
        """One JSON object a line, UTF-8."""
        for batch in self._fetched(SQL("select row_to_json(r)::text from ({}) as r").format(self._select())):
            yield "".join(f"{line}\n" for (line,) in batch).encode()

    def batches(self, most: int = BATCH_ROWS) -> Iterator[list[tuple[Any, ...]]]:
        """Rows as Python values, in the order of `columns`."""
        yield from self._fetched(self._select(), most)

    def json_batches(self, most: int) -> Iterator[bytes]:
        """JSON arrays of so many rows."""
        query = SQL("select row_to_json(r)::text from ({}) as r").format(self._select())
        for batch in self._fetched(query, most):
            yield f"[{','.join(line for (line,) in batch)}]".encode()

    def arrow(self) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Typed record batches; what Arrow has no type for (json, uuid, numeric without digits) is text."""
        import pyarrow as pa

        fields = [pa.field(column.name, _arrow_type(column.type)) for column in self.columns]
        schema = pa.schema(fields)

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in self._fetched(self._select(texts=True)):
                arrays = [
                    pa.array(values, field.type)
                    for values, field in zip(zip(*batch, strict=True), fields, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

        return schema, batches()

    def _select(self, *, texts: bool = False) -> Composed:
        import pyarrow as pa

        chosen: list[Composed | sql.Identifier] = []
        for column in self.columns:
            name = sql.Identifier(column.name)
            as_text = texts and column.type != "text" and _arrow_type(column.type) == pa.string()
            chosen.append(SQL("{0}::text as {0}").format(name) if as_text else name)
        query = SQL("select {} from {}").format(SQL(", ").join(chosen), sql.Identifier(*self.relation))
        if self.order_by:
            order = [
                SQL('{} collate "C"').format(sql.Identifier(word))
                if self._is_text(word)
                else sql.Identifier(word)
                for word in self.order_by
            ]
            query = SQL("{} order by {}").format(query, SQL(", ").join(order))
        return query

    def _is_text(self, word: str) -> bool:
        return any(column.name == word and column.type == "text" for column in self.columns)

    def _fetched(self, query: Composed, most: int = BATCH_ROWS) -> Iterator[list[tuple[Any, ...]]]:
        with self.conn.cursor(name="datops_export") as cursor:
            cursor.execute(query)
            while batch := cursor.fetchmany(most):
                yield batch


@contextmanager
def open_rows(
    conn: psycopg.Connection[Any],
    relation: tuple[str, str],
    *,
    columns: Sequence[str] = (),
    order_by: Sequence[str] = (),
) -> Iterator[Rows]:
    """Open a table; its rows are those of this moment until the block ends.

    columns   only these, in this order; by default all but those of datops
    raises    TableMissingError: there is no such table, or no such column
    """
    shown = ".".join(relation)
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read, read only")
        found = {name: Column(name, kind) for name, kind in conn.execute(_COLUMNS, (shown_name(relation),))}
        if not found:
            raise TableMissingError(f"{shown} is not in the warehouse; run what makes it first")
        missing = [name for name in (*columns, *order_by) if name not in found]
        if missing:
            raise TableMissingError(
                f"{shown} has no column {missing[0]}, expected one of: {', '.join(found)}"
            )
        chosen = [found[name] for name in columns] or list(found.values())
        yield Rows(conn, relation, chosen, order_by)


def shown_name(relation: tuple[str, str]) -> str:
    """The name as to_regclass() reads it."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in relation)


_COLUMNS = """
select attname, format_type(atttypid, atttypmod) from pg_attribute
where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped and attname not in ('_load_id', '_row')
order by attnum
"""


def _arrow_type(kind: str) -> pa.DataType:
    import re

    import pyarrow as pa

    digits = re.fullmatch(r"numeric\((\d+),(\d+)\)", kind)
    if digits and int(digits[1]) <= _MOST_DIGITS:
        return pa.decimal128(int(digits[1]), int(digits[2]))
    return {
        "smallint": pa.int16(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "real": pa.float32(),
        "double precision": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "bytea": pa.binary(),
        "timestamp without time zone": pa.timestamp("us"),
        "timestamp with time zone": pa.timestamp("us", tz="UTC"),
    }.get(kind, pa.string())
