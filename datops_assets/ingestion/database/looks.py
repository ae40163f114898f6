"""One look at a table of any database: its columns and key, hashes of its rows, and some of its rows.

Belongs here: what every database's look promises, and how record batches reach a table of the warehouse. Does not:
what is made of it (cdc/query), how one database is asked (postgres_look, mysql_look, engine_look).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, Self

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.conninfo import make_conninfo

from datops_assets.errors import SourceRefusedError, WarehouseUnreachableError
from datops_assets.ingestion.arrow_types import bronze_type, writable, written_type
from datops_assets.ingestion.database.tables import DatabaseTable
from datops_assets.ingestion.read_ahead import reading_ahead
from datops_assets.postgres.row_hash import Buckets, Summaries
from datops_assets.resources.server_errors import explain_sqlstate

AS_TEXT: LiteralString = "{}::text"
_MODIFIERS = re.compile(r"\([^)]*\)")
_CONNECTION_LOST = ("08", "57P")


@dataclass(frozen=True)
class LookedColumn:
    """One column of the table, as the warehouse is to keep it."""

    name: str
    type: str
    """PostgreSQL's, without length and precision: a later change of them needs no rewrite."""
    sent: str
    """PostgreSQL's type that its values are written as: of a decimal with its places, else its last zeros are lost."""
    printed: LiteralString | None
    """How PostgreSQL prints the kept value exactly as the source prints its own, `{}` being the column; None:
    the two have no text in common, so the rows must be read to compare them."""


class Look(ABC):
    """A table at one moment: all that is asked of one look comes of one snapshot of the source. A context manager."""

    def __init__(self, table: DatabaseTable) -> None:
        self.table = table
        self.columns: Sequence[LookedColumn] = ()
        self.primary_key: Sequence[str] = ()
        """Of the source; none where it has none."""
        self.rows_read = 0
        """Rows that came from the source so far."""

    @abstractmethod
    def highest(self) -> str | None:
        """The cursor's highest value as text that `copy_since` takes; None: no row has one."""

    @abstractmethod
    def copy_since(self, conn: psycopg.Connection[Any], target: sql.Identifier, watermark: str) -> int:
        """Copy the rows at the cursor's watermark or past it, less the lookback, and those without a cursor value.

        target     a table of the warehouse with these columns; of `conn`, or committed
        returns    rows
        """

    @abstractmethod
    def copy_rows(self, conn: psycopg.Connection[Any], target: sql.Identifier) -> int:
        """Copy all rows; else as `copy_since`."""

    @abstractmethod
    def close(self) -> None:
        """End the snapshot."""

    def __enter__(self) -> Self:
        """Look inside a with block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close, whatever happened."""
        self.close()


class HashingLook(Look):
    """One whose source computes the hashes of `postgres.row_hash`."""

    @abstractmethod
    def summaries(self, key: Sequence[str], columns: Sequence[str] | None, count: int) -> Summaries:
        """Hash the rows where they are, in `count` buckets of the key.

        columns    what is hashed of a row; None: its key alone
        """

    @abstractmethod
    def copy_buckets(
        self, conn: psycopg.Connection[Any], target: sql.Identifier, key: Sequence[str], buckets: Buckets
    ) -> int:
        """Copy the rows of some buckets of the key; else as `copy_since`."""


def arrow_column(name: str, kind: pa.DataType, printed: LiteralString | None) -> LookedColumn:
    """A column whose values come as Arrow's."""
    sent = bronze_type(kind)
    return LookedColumn(name, _MODIFIERS.sub("", sent), sent, printed)


def write_batches(
    conn: psycopg.Connection[Any],
    target: sql.Identifier,
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
) -> int:
    """Write record batches into a committed table of the warehouse, through a connection of ADBC's own.

    raises     SourceRefusedError: a value that PostgreSQL cannot hold; whatever `batches` raises. What was
               written by then may stay
    """
    from adbc_driver_manager import Error
    from adbc_driver_postgresql import dbapi

    types = [bronze_type(kind) for kind in schema.types]
    written = pa.schema(
        [pa.field(name, written_type(type_)) for name, type_ in zip(schema.names, types, strict=True)]
    )
    given = _Given(batches, written, types)
    url = make_conninfo(**conn.info.get_parameters(), password=conn.info.password)
    schema_name, relation = target._obj
    try:
        with dbapi.connect(url) as adbc, reading_ahead(given, depth=1) as ahead, adbc.cursor() as cursor:
            reader = pa.RecordBatchReader.from_batches(written, given.noting_errors(ahead))
            cursor.adbc_ingest(relation, reader, mode="append", db_schema_name=schema_name)
            adbc.commit()
    except Error as error:
        # Not chained: the server's CONTEXT holds cell values.
        if given.error is not None:
            raise given.error from None
        state = error.sqlstate
        if state is None or state.startswith(_CONNECTION_LOST):
            raise WarehouseUnreachableError(
                "the warehouse closed the connection of a look; try again"
            ) from None
        raise (explain_sqlstate(state, "hand") or _unfit(f"SQLSTATE {state}")) from None
    return given.rows


class _Given:
    """Batches as ADBC must be given them; counts rows, and keeps what making one raised."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema, types: Sequence[str]) -> None:
        self.rows = 0
        self.error: BaseException | None = None
        self._batches = batches
        self._schema = schema
        self._types = types

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            try:
                arrays = [
                    writable(array, type_) for array, type_ in zip(batch.columns, self._types, strict=True)
                ]
            except pa.ArrowInvalid:
                raise _unfit("out of range") from None
            self.rows += batch.num_rows
            yield pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def noting_errors(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches; ADBC turns what making one raised into a text."""
        try:
            yield from batches
        except BaseException as error:
            self.error = error
            raise


def _unfit(why: str) -> SourceRefusedError:
    return SourceRefusedError(
        f"a row holds a value that PostgreSQL cannot keep ({why}), such as a NUL character in a text; take its"
        " column as text by `as_text:`, or leave it out by `exclude:`"
    )
