"""Record batches into bronze through ADBC; typed columns keep their types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.conninfo import make_conninfo

from datops_assets.errors import LoadRefusedError, WarehouseUnreachableError
from datops_assets.ingestion.arrow_json import json_objects
from datops_assets.ingestion.arrow_types import bronze_type, unwritable_rows, writable, written_type
from datops_assets.ingestion.bronze import (
    BronzeColumn,
    WantedColumn,
    by_constant,
    by_setting,
    list_columns,
    numbering,
)
from datops_assets.ingestion.catalogue import Outcome
from datops_assets.ingestion.damaged import DamagedRecords
from datops_assets.ingestion.job import LoadJob
from datops_assets.ingestion.names import occurrences
from datops_assets.ingestion.read_ahead import reading_ahead
from datops_assets.ingestion.schema_policy import follow_by_policy
from datops_assets.ingestion.source import ArrowDelivery
from datops_assets.ingestion.widening import fitting_column
from datops_assets.postgres import failpoints
from datops_assets.postgres.identifiers import warehouse_name
from datops_assets.postgres.quarantine_table import ensure_quarantine_table
from datops_assets.resources.server_errors import explain_sqlstate

_QUARANTINED = pa.schema(
    [
        ("_load_id", pa.int64()),
        ("_row", pa.int64()),
        ("stage", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("raw", pa.binary()),
        ("position", pa.int64()),
    ]
)
_QUARANTINED_AT_ONCE = 100
_CONNECTION_LOST = ("08", "57P")


class _BadValueError(Exception):
    """The server refused a value; find out which."""


def load_arrow(conn: psycopg.Connection[Any], job: LoadJob, adbc_url: str | None) -> Outcome:
    """Load one delivery of record batches: all of it, or nothing.

    adbc_url   where ADBC connects; None: as `conn` did
    raises     ContainerDamagedError, FileChangedError, LockTakenError; nothing was kept.
               LoadRefusedError: a column's type changed to one that bronze cannot widen to
    promise    rows, damaged records and the catalogue's entry commit together
    """
    with job.open_arrow() as delivery:
        columns = _follow(conn, job, delivery.schema())
    url = adbc_url or make_conninfo(**conn.info.get_parameters(), password=conn.info.password)
    failpoints.hit("before_copy")
    try:
        return _load(conn, job, columns, url, careful=False)
    except _BadValueError:
        pass  # find out which, and set its record aside
    try:
        return _load(conn, job, columns, url, careful=True)
    except _BadValueError as error:
        raise LoadRefusedError(f"{job.unit.path}: the warehouse refused a value ({error})") from None


def _follow(conn: psycopg.Connection[Any], job: LoadJob, schema: pa.Schema) -> list[BronzeColumn | None]:
    """Give every column its place in bronze, widening a type where no value changes by it.

    returns    one a column of the schema; None for one without any value and type so far: it becomes
               a column when a delivery says of which type
    """
    delivered = list(zip(occurrences(schema.names), schema.types, strict=True))
    wanted = [WantedColumn(name, bronze_type(kind)) for name, kind in delivered if not pa.types.is_null(kind)]
    known = {column.delivered: column for column in list_columns(conn, job.bronze.table_id)}
    followed = follow_by_policy(conn, job, wanted, schema.names)
    for column, want in zip(followed, wanted, strict=True):
        known[column.delivered] = fitting_column(conn, job, column, want.type)
    return [known.get(name) for name, _ in delivered]


def _load(
    conn: psycopg.Connection[Any],
    job: LoadJob,
    columns: Sequence[BronzeColumn | None],
    url: str,
    *,
    careful: bool,
) -> Outcome:
    with job.open_arrow() as delivery, DamagedRecords(job.load_id) as damaged:
        batches = _Batches(job, delivery, columns, damaged if careful else None)
        with _transaction(url, job) as adbc:
            for statement, values in numbering(conn, job.bronze, job.load_id):
                _run(adbc, conn, statement, values)
            if batches.schema.names:
                _run(adbc, conn, by_constant(job.bronze, job.load_id), {})
                _ingest(adbc, job, batches)
                _run(adbc, conn, by_setting(job.bronze), {})
            failpoints.hit("after_copy")
            outcome = job.outcome(
                delivery.content_hash(),
                delivery.reached(),
                batches.rows - damaged.count,
                damaged.count,
                list(delivery.schema().names),
            )
            _quarantine(adbc, conn, job, damaged)
            failpoints.hit("after_quarantine")
            for statement, values in job.finishing(outcome):
                entered = _run(adbc, conn, statement, values)
            job.require_entered(entered)
            failpoints.hit("before_commit")
    return outcome


@contextmanager
def _transaction(url: str, job: LoadJob) -> Iterator[Any]:
    """Open an ADBC connection whose transaction commits at the end, and only then.

    raises     LoadRefusedError: a statement failed, which is the unit's fault where the server still works
    """
    from adbc_driver_manager import Error
    from adbc_driver_postgresql import dbapi

    try:
        with dbapi.connect(url) as adbc:
            try:
                yield adbc
            except BaseException:
                with suppress(Error):  # a broken connection is rolled back by the server
                    adbc.rollback()
                raise
            adbc.commit()
    except Error as error:
        # Not chained: the server's CONTEXT holds cell values.
        state = error.sqlstate
        if state is None or state.startswith(_CONNECTION_LOST):
            raise WarehouseUnreachableError(
                "the warehouse closed the connection of a load; try again"
            ) from None
        known = explain_sqlstate(state, "hand")
        if known is not None:
            raise known from None
        raise LoadRefusedError(
            f"{job.unit.path}: the warehouse refused it (SQLSTATE {state}); if {job.bronze.schema}"
            f".{job.bronze.relation} was changed by hand, undo that, then: datops load reload {job.ulid}"
        ) from None


def _run(adbc: Any, conn: psycopg.Connection[Any], statement: Any, values: dict[str, Any]) -> bool:
    """Run a statement with its values written in by psycopg: ADBC has other placeholders.

    returns    whether it returned any row
    """
    text = psycopg.ClientCursor(conn).mogrify(statement, values)
    with adbc.cursor() as cursor:
        cursor.execute(text)
        return bool(cursor.fetchall()) if cursor.description else False


def _quarantine(adbc: Any, conn: psycopg.Connection[Any], job: LoadJob, damaged: DamagedRecords) -> None:
    """Write what was set aside, in the transaction of the rows; the table itself is made on `conn`."""
    if damaged.count == 0:
        return
    ensure_quarantine_table(conn, job.source, job.table)
    with adbc.cursor() as cursor:
        reader = pa.RecordBatchReader.from_batches(_QUARANTINED, _quarantined(damaged))
        relation = warehouse_name(job.source, job.table)
        cursor.adbc_ingest(relation, reader, mode="append", db_schema_name="quarantine")


def _quarantined(damaged: DamagedRecords) -> Iterator[pa.RecordBatch]:
    records = damaged.records()
    while some := list(islice(records, _QUARANTINED_AT_ONCE)):
        rows = [
            (damaged.load_id, record.row, "bronze", [record.reason], record.raw, record.position)
            for record in some
        ]
        yield pa.RecordBatch.from_pylist(
            [dict(zip(_QUARANTINED.names, row, strict=True)) for row in rows], _QUARANTINED
        )


def _ingest(adbc: Any, job: LoadJob, batches: _Batches) -> None:
    from adbc_driver_manager import DataError, Error

    with reading_ahead(batches, depth=1) as ahead, adbc.cursor() as cursor:
        reader = pa.RecordBatchReader.from_batches(batches.schema, batches.noting_errors(ahead))
        try:
            cursor.adbc_ingest(job.bronze.relation, reader, mode="append", db_schema_name=job.bronze.schema)
        except Error as error:
            # Not chained: the server's CONTEXT holds cell values.
            if batches.error is not None:
                raise batches.error from None
            if isinstance(error, DataError):
                raise _BadValueError(f"SQLSTATE {error.sqlstate}") from None
            raise


class _Batches:
    """The batches of a delivery as ADBC must be given them."""

    def __init__(
        self,
        job: LoadJob,
        delivery: ArrowDelivery,
        columns: Sequence[BronzeColumn | None],
        damaged: DamagedRecords | None,
    ) -> None:
        self.rows = 0
        self.error: BaseException | None = None
        self._job = job
        self._delivery = delivery
        self._columns = columns
        self._damaged = damaged
        placed = [column for column in columns if column is not None]
        fields = [pa.field(column.name, written_type(column.type)) for column in placed if not column.in_more]
        if any(column.in_more for column in placed):
            fields.append(pa.field("_more", pa.string()))
        if damaged is not None:
            fields.append(pa.field("_row", pa.int64()))
        self.schema = pa.schema(fields)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        done = 0
        for batch in self._delivery.batches():
            yield self._plain(batch) if self._damaged is None else self._careful(batch, self._damaged)
            self.rows += batch.num_rows
            done += batch.nbytes
            self._job.tell(done)

    def noting_errors(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches; keep what making one raised, for ADBC turns it into a text."""
        try:
            yield from batches
        except BaseException as error:
            self.error = error
            raise

    def _plain(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        try:
            arrays = [writable(array, column.type) for column, array in self._own(batch)]
        except pa.ArrowInvalid:
            raise _BadValueError("a value out of range") from None
        return pa.RecordBatch.from_arrays([*arrays, *self._rest(batch)], schema=self.schema)

    def _careful(self, batch: pa.RecordBatch, damaged: DamagedRecords) -> pa.RecordBatch:
        """Set aside the rows with a value PostgreSQL cannot hold; number all as they stand in the file."""
        bad, reasons, arrays = pa.array([False] * batch.num_rows), [], []
        for column, array in self._own(batch):
            try:
                written = writable(array, column.type)
            except pa.ArrowInvalid:
                raise _BadValueError(f"column {column.delivered.name!r}: a value out of range") from None
            refused, why = unwritable_rows(written, column.type)
            if pc.any(refused).as_py():
                reasons.append(f"column {column.delivered.name!r} holds {why}")
                bad = pc.or_(bad, refused)
            arrays.append(written)
        numbers = pa.array(range(self.rows + 1, self.rows + 1 + batch.num_rows), pa.int64())
        if reasons:
            texts = json_objects(
                list(batch.schema.names), [_printable(column) for column in batch.filter(bad).columns]
            )
            for row, text in zip(numbers.filter(bad).to_pylist(), texts.to_pylist(), strict=True):
                damaged.add(row, text.encode(), None, "; ".join(reasons))
        written = pa.RecordBatch.from_arrays([*arrays, *self._rest(batch), numbers], schema=self.schema)
        return written.filter(pc.invert(bad))

    def _own(self, batch: pa.RecordBatch) -> list[tuple[BronzeColumn, pa.Array]]:
        pairs = zip(self._columns, batch.columns, strict=True)
        return [(column, array) for column, array in pairs if column is not None and not column.in_more]

    def _rest(self, batch: pa.RecordBatch) -> list[pa.Array]:
        pairs = list(zip(self._columns, batch.columns, strict=True))
        more = [
            (column.delivered.name, array) for column, array in pairs if column is not None and column.in_more
        ]
        return [json_objects([name for name, _ in more], [array for _, array in more])] if more else []


def _printable(array: pa.Array) -> pa.Array:
    """Return a column as JSON can show it: texts that are no UTF-8 as bytes."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return array.cast(pa.binary())
    return array
