"""Tables of any database that an installed SQLAlchemy dialect reaches; SQLite is one of them.

Belongs here: what SQLAlchemy knows of a table, and rows as Python objects made into columns. Does
not: databases that have a faster way (postgres, mysql).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy import exc

from datops_assets.errors import DatopsError, SourceRefusedError, SourceUnreachableError
from datops_assets.ingestion.database.address import Address, missing_driver
from datops_assets.ingestion.database.row_batches import BATCH_BYTES, Digest, RowsDelivery, not_of_its_type
from datops_assets.ingestion.database.table_source import CursorKind, Found, TableSource
from datops_assets.ingestion.database.tables import DatabaseTable, Reading
from datops_assets.ingestion.source import Unit

_FIRST_ROWS, _MOST_ROWS = 64, 1 << 14
"""Rows fetched at once: few until it is known how large they are."""
_MOST_DIGITS = 76
_TYPES: list[tuple[type[sa.types.TypeEngine[Any]], pa.DataType, CursorKind | None]] = [
    (sa.Boolean, pa.bool_(), None),
    (sa.SmallInteger, pa.int16(), "number"),
    (sa.BigInteger, pa.int64(), "number"),
    (sa.Integer, pa.int64(), "number"),
    (sa.Float, pa.float64(), None),
    (sa.Date, pa.date32(), "time"),
    (sa.LargeBinary, pa.binary(), None),
    (sa.Uuid, pa.string(), "text"),
    (sa.JSON, pa.string(), None),
    (sa.String, pa.string(), "text"),
]
"""Kinds of types that SQLAlchemy tells apart, the first that fits; numbers and times see `_arrow`."""


@dataclass(frozen=True)
class EngineColumn:
    """One column of a table."""

    name: str
    declared: str
    arrow: pa.DataType
    cursor_kind: CursorKind | None
    is_loose: bool = False
    """Whether a value may be of any type, whatever is declared (SQLite)."""

    def written(self, value: Any) -> str:
        """A cursor value as text."""
        if self.is_loose:
            return json.dumps(value)
        return value.isoformat(" ") if isinstance(value, datetime) else str(value)

    def parsed(self, text: str) -> Any:
        """And back again."""
        if self.is_loose:
            return json.loads(text)
        if self.cursor_kind == "number":
            return Decimal(text) if pa.types.is_decimal(self.arrow) else int(text)
        if self.cursor_kind == "time":
            return date.fromisoformat(text) if pa.types.is_date(self.arrow) else datetime.fromisoformat(text)
        return text

    def to_arrow(self, values: Sequence[Any]) -> pa.Array:
        """Make the column. Raises pa.ArrowException, TypeError where a value is not of its type."""
        if not pa.types.is_string(self.arrow):
            return pa.array(values, self.arrow)
        try:
            return pa.array(values, pa.string())
        except (pa.ArrowException, TypeError, ValueError):
            # Bytes that are no UTF-8 are set aside by the loader, record by record.
            texts = [None if value is None else as_text(value) for value in values]
            return pa.array(texts, pa.binary()).view(pa.string())


def as_text(value: Any) -> bytes:
    """A value of any type as text that shows all of it; bytes as `\\x…`."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes | bytearray | memoryview):
        return b"\\x" + bytes(value).hex().encode()
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str).encode()
    if isinstance(value, datetime):
        return value.isoformat(" ").encode()
    return (repr(value) if isinstance(value, float) else str(value)).encode()


class EngineSource(TableSource[EngineColumn]):
    """The tables of one database, through SQLAlchemy."""

    unit_format = "rows"

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._engine: sa.Engine | None = None
        self._is_loose = address.kind == "sqlite"

    def explained(self, what: str) -> AbstractContextManager[None]:
        """Say what went wrong in one sentence."""
        return explained(self._address, what)

    def find(self, table: DatabaseTable) -> Found[EngineColumn]:
        """Reflect its columns."""
        if table.parallel > 1:
            raise SourceRefusedError(
                f"{table.label}: connections to {self._address.kind} cannot share a snapshot, so one has to read"
                " alone; leave `parallel:` out"
            )
        with self.connect() as conn:
            return self._find(conn, table)

    def _find(self, conn: sa.Connection, table: DatabaseTable) -> Found[EngineColumn]:
        try:
            columns = sa.inspect(conn).get_columns(table.relation, table.schema)
        except exc.NoSuchTableError:
            raise self.no_table(table) from None
        if not columns:
            raise self.no_table(table)
        return Found([self._column(table, known) for known in columns], 0, 0)

    def _column(self, table: DatabaseTable, known: Any) -> EngineColumn:
        name, kind = str(known["name"]), known["type"]
        declared = (
            str(kind) if not isinstance(kind, sa.types.NullType) else "of a type SQLAlchemy does not know"
        )
        if self._is_loose:
            return EngineColumn(name, declared, pa.string(), "text", is_loose=True)
        arrow, cursor_kind = _arrow(kind)
        return EngineColumn(name, declared, pa.string() if name in table.as_text else arrow, cursor_kind)

    def try_out(self, table: DatabaseTable, found: Found[EngineColumn]) -> None:
        """Select nothing."""
        with self.connect() as conn:
            conn.execute(self._select(table, found.taken(table)).limit(0)).all()

    def highest(self, table: DatabaseTable, cursor: EngineColumn) -> str | None:
        """As Python prints it."""
        with self.connect() as conn:
            return highest(conn, table, cursor)

    def without_place(self, table: DatabaseTable, cursor: EngineColumn) -> int:
        """Null."""
        with self.connect() as conn:
            column: sa.ColumnClause[Any] = sa.column(cursor.name)
            query = sa.select(sa.func.count()).select_from(relation_name(table)).where(column.is_(None))
            return int(conn.execute(query).scalar_one())

    def is_greater(self, cursor: EngineColumn, one: str, other: str) -> bool:
        """Ask the database: texts have its collation."""
        with self.connect() as conn:
            left, right = sa.literal(cursor.parsed(one)), sa.literal(cursor.parsed(other))
            return bool(conn.execute(sa.select(sa.case((left > right, 1), else_=0))).scalar())

    def state(self, reading: Reading, cursor: EngineColumn) -> str:
        """Count the rows and the cursor's values."""
        with self.connect() as conn:
            column: sa.ColumnClause[Any] = sa.column(cursor.name)
            counted = sa.select(sa.func.count(), sa.func.count(column.distinct()), sa.func.min(column))
            query = counted.select_from(relation_name(reading.table)).where(_condition(reading, cursor))
            rows, values, first = conn.execute(query).one()
        return f"{rows} rows, {values} from {first}"

    def open(self, unit: Unit) -> RowsDelivery:
        """Open a transaction for one reading."""
        reading = Reading.read_from(unit)
        with self.explained(unit.path):
            conn = self.connect()
            try:
                if self._is_loose:
                    conn.exec_driver_sql("begin")  # one snapshot: its driver begins with the first write only
                found = self._find(conn, reading.table)
                query = self._select(reading.table, found.taken(reading.table)).where(
                    _condition(reading, found.cursor(reading.table))
                )
            except BaseException:
                conn.close()
                raise
        if reading.most_rows is not None:
            query = query.limit(reading.most_rows)
        columns = found.taken(reading.table)
        schema = pa.schema([pa.field(column.name, column.arrow) for column in columns])

        def read(digest: Digest) -> Iterator[pa.RecordBatch]:
            return read_batches(conn, query, schema, columns, reading.path, digest)

        def close() -> None:
            with suppress(exc.SQLAlchemyError):
                conn.invalidate()
                conn.close()

        return RowsDelivery(reading, schema, read, self.explained, close)

    def close(self) -> None:
        """Let go of the connections."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def connect(self) -> sa.Connection:
        """Open a connection; a SQLite file read-only."""
        if self._engine is None:
            self._engine = _engine(self._address)
        return self._engine.connect()

    def _select(self, table: DatabaseTable, columns: Sequence[EngineColumn]) -> sa.Select[Any]:
        return sa.select(*(sa.column(column.name) for column in columns)).select_from(relation_name(table))


def _engine(address: Address) -> sa.Engine:
    url = address.url
    if address.kind == "sqlite":
        # Read-only, so that a wrong path makes no file and reading never locks a writer out for long.
        if not url.database or not Path(url.database).is_file():
            raise SourceRefusedError(
                f"there is no file {address.shown}; correct `url`, then: datops connector test"
            )
        url = url.set(database=f"file:{url.database}", query={**url.query, "mode": "ro", "uri": "true"})
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True)
    except (exc.NoSuchModuleError, ImportError) as error:
        raise missing_driver(address, error) from None
    if address.kind == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def _keep_bytes(connection: Any, _record: Any) -> None:
            # Text that is no UTF-8 would end the reading.
            connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")

    return engine


def _arrow(kind: sa.types.TypeEngine[Any]) -> tuple[pa.DataType, CursorKind | None]:
    """Which Arrow type holds every value of a type; text where there is none."""
    if isinstance(kind, sa.Float):
        return pa.float64(), None
    if isinstance(kind, sa.Numeric):
        precision, scale = kind.precision, kind.scale or 0
        if precision is None or precision > _MOST_DIGITS:
            return pa.string(), None
        return (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, scale), "number"
    if isinstance(kind, sa.DateTime):
        return pa.timestamp("us", "UTC" if kind.timezone else None), "time"
    if isinstance(kind, sa.Time):
        return (pa.string() if kind.timezone else pa.time64("us")), None
    if isinstance(kind, sa.Interval):
        return pa.duration("us"), None
    for known, arrow, cursor_kind in _TYPES:
        if isinstance(kind, known):
            return arrow, cursor_kind
    return pa.string(), None


def relation_name(table: DatabaseTable) -> sa.TableClause:
    """The table, to select from."""
    return sa.table(table.relation, schema=table.schema)


def highest(conn: sa.Connection, table: DatabaseTable, cursor: EngineColumn) -> str | None:
    """The cursor's highest value, written down. Raises SourceRefusedError: it is of bytes."""
    column: sa.ColumnClause[Any] = sa.column(cursor.name)
    value = conn.execute(sa.select(sa.func.max(column)).select_from(relation_name(table))).scalar()
    if isinstance(value, bytes):
        raise SourceRefusedError(
            f"{table.label}: the cursor {cursor.name!r} holds bytes, expected numbers or text"
        )
    return None if value is None else cursor.written(value)


def _condition(reading: Reading, cursor: EngineColumn | None) -> sa.ColumnElement[bool]:
    """Return which rows a reading takes; the first one those without a cursor value too."""
    if cursor is None or reading.upper is None:
        return sa.true()
    column: sa.ColumnClause[Any] = sa.column(cursor.name)
    upper = cursor.parsed(reading.upper)
    if reading.lower is None:
        return sa.or_(column <= upper, column.is_(None))
    return sa.and_(column > looking_back(cursor, reading.lower, reading.table), column <= upper)


def looking_back(cursor: EngineColumn, watermark: str, table: DatabaseTable) -> Any:
    """The watermark, less the lookback."""
    lower, lookback = cursor.parsed(watermark), table.lookback
    if lookback is not None:
        lower -= timedelta(seconds=lookback.amount) if lookback.is_time else lookback.amount
    return lower


def read_batches(
    conn: sa.Connection,
    query: sa.Select[Any],
    schema: pa.Schema,
    columns: Sequence[EngineColumn],
    path: str,
    digest: Digest,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query, in batches of bounded size."""
    result = conn.execution_options(stream_results=True, max_row_buffer=_MOST_ROWS).execute(query)
    rows, size, count = _FIRST_ROWS, 0, 0
    while found := result.fetchmany(rows):
        batch = _batch(found, schema, columns, path)
        digest.update(batch.serialize())
        yield batch
        size, count = size + batch.nbytes, count + len(found)
        rows = max(1, min(_MOST_ROWS, rows * 4, BATCH_BYTES * count // max(size, 1)))


def _batch(
    rows: Sequence[Any], schema: pa.Schema, columns: Sequence[EngineColumn], path: str
) -> pa.RecordBatch:
    arrays = []
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        try:
            arrays.append(column.to_arrow(values))
        except (pa.ArrowException, TypeError, OverflowError):
            # Not chained: it repeats the value.
            raise not_of_its_type(path, column.name, column.declared) from None
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@contextmanager
def explained(address: Address, what: str) -> Iterator[None]:
    """Turn the driver's errors into sentences; not chained, they may hold cell values."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise _explain(address.shown, what, error) from None


_FOR_A_PERSON = (
    "password", "denied", "login failed", "no such table", "no such column", "does not exist", "not a database",
    "permission", "invalid object name",
)  # fmt: skip


def _explain(where: str, what: str, error: exc.SQLAlchemyError) -> DatopsError:
    """Drivers have no codes in common, so words tell what waits for a person."""
    said = str(getattr(error, "orig", error)).lower()
    kind = type(getattr(error, "orig", None) or error).__name__
    if isinstance(error, exc.OperationalError | exc.InterfaceError) and not any(
        sign in said for sign in _FOR_A_PERSON
    ):
        return SourceUnreachableError(
            f"{what}: the database at {where} cannot be read right now ({kind}); nothing of it was kept, try again"
        )
    return SourceRefusedError(
        f"{what}: the database at {where} refused the reading ({kind}): look at user, password and `table:`,"
        " then: datops connector test"
    )
