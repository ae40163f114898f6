"""Tables of MySQL and MariaDB as a source, through PyMySQL; the bytes of the rows go to Arrow as they come.

Belongs here: sessions, types and what to read. Does not: the form of rows on the wire (mysql_rows).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datops_assets.errors import SourceRefusedError
from datops_assets.ingestion.database.address import Address, missing_driver
from datops_assets.ingestion.database.mysql_errors import explained
from datops_assets.ingestion.database.mysql_readers import (
    Share,
    begin_together,
    in_turn,
    key_to_share,
    ranges,
)
from datops_assets.ingestion.database.mysql_rows import Rows, columns_of, read_rows
from datops_assets.ingestion.database.row_batches import BATCH_BYTES, Digest, RowsDelivery, not_of_its_type
from datops_assets.ingestion.database.table_source import CursorKind, Found, TableSource
from datops_assets.ingestion.database.tables import DatabaseTable, Reading
from datops_assets.ingestion.source import Unit

_CONNECT_TIMEOUT_S = 10
_TEXTS = (
    "char",
    "varchar",
    "tinytext",
    "text",
    "mediumtext",
    "longtext",
    "enum",
    "set",
    "uuid",
    "inet4",
    "inet6",
)
_BYTES = (
    "binary varbinary tinyblob blob mediumblob longblob geometry point linestring polygon multipoint"
    " multilinestring multipolygon geomcollection geometrycollection vector"
).split()
_ARROW: dict[str, pa.DataType] = {
    "tinyint": pa.int16(),
    "tinyint unsigned": pa.int16(),
    "smallint": pa.int16(),
    "smallint unsigned": pa.int32(),
    "mediumint": pa.int32(),
    "mediumint unsigned": pa.int32(),
    "int": pa.int32(),
    "int unsigned": pa.int64(),
    "bigint": pa.int64(),
    "bigint unsigned": pa.uint64(),
    "year": pa.int16(),
    "bit": pa.uint64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "datetime": pa.timestamp("us"),
    "timestamp": pa.timestamp("us", "UTC"),
    "time": pa.string(),
    "json": pa.json_(pa.string()),
    **{name: pa.string() for name in _TEXTS},
    **{name: pa.binary() for name in _BYTES},
}
_PRINTED: dict[str, str] = {
    "tinyint": "`smallint`, `tinyint(1)` too: it holds more than 0 and 1",
    "tinyint unsigned": "`smallint`",
    "smallint": "`smallint`",
    "smallint unsigned": "`integer`",
    "mediumint": "`integer`, unsigned too",
    "int": "`integer`",
    "int unsigned": "`bigint`",
    "bigint": "`bigint`",
    "bigint unsigned": "`numeric(20,0)`",
    "decimal(p,s)": "`numeric(p,s)`",
    "float": "`real`, every bit of it: MySQL itself prints six digits",
    "double": "`double precision`",
    "bit(n)": "`numeric(20,0)`, the number that the bits are",
    "year": "`smallint`",
    "date": "`date`; a zero date is none, see `as_text`",
    "datetime": "`timestamp`",
    "timestamp": "`timestamptz`, the moment that it is",
    "time": "`text`: it may be negative, or 838 hours",
    "json": "`json`, as it was printed (MariaDB's JSON is a `longtext` and stays text)",
    "char, varchar, text and its sizes, enum, set, uuid, inet6": "`text`",
    "binary, varbinary, blob and its sizes, geometries": "`bytea`",
}
_CURSORS: dict[str, CursorKind] = dict.fromkeys(
    ("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year"), "number"
)
_CURSORS |= dict.fromkeys(("date", "datetime", "timestamp"), "time")
_CURSORS |= dict.fromkeys(("char", "varchar", "uuid"), "text")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_SESSION = (
    "set time_zone = '+00:00', sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES', net_write_timeout = 3600,"
    " wait_timeout = 3600"
)
SNAPSHOT = (
    "set session transaction isolation level repeatable read",
    "start transaction with consistent snapshot /*!50605 , read only */",  # MySQL 5.5 knows no such word
)
_COLUMNS = """
select column_name, column_type, data_type, numeric_precision, numeric_scale, is_nullable
  from information_schema.columns where table_schema = coalesce(%s, database()) and table_name = %s
 order by ordinal_position
"""
_TABLE = """
select coalesce(table_rows, 0), coalesce(data_length, 0)
  from information_schema.tables where table_schema = coalesce(%s, database()) and table_name = %s
"""


@dataclass(frozen=True)
class MySqlColumn:
    """One column of a table."""

    name: str
    declared: str
    """As the database prints it: `int(10) unsigned`."""
    base: str
    """Without length: `int`."""
    arrow: pa.DataType
    cursor_kind: CursorKind | None

    @property
    def selected(self) -> str:
        """The expression whose text loses nothing of the value."""
        name = quoted(self.name)
        if pa.types.is_float32(self.arrow):
            return f"{name} * 1e0"  # as it stands MySQL prints six digits of it
        return f"{name} + 0" if self.base == "bit" and not pa.types.is_string(self.arrow) else name

    def literal(self, text: str) -> str:
        """A value of the cursor that was written down."""
        if self.cursor_kind != "number":
            return _text(text)
        if _NUMBER.fullmatch(text) is None:
            raise SourceRefusedError(
                f"the cursor {self.name!r} is {self.declared}, and its watermark is no number; another column was"
                " the cursor before: undo its loads, or give the cursor back"
            )
        return text  # bare: MySQL would compare a decimal with a text as doubles

    def to_arrow(self, values: pa.Array) -> pa.Array:
        """Turn the text of values into the column's type. Raises pa.ArrowInvalid where one is none."""
        if pa.types.is_binary(self.arrow):
            return values.cast(pa.binary())
        text = values.cast(pa.string_view())
        if isinstance(self.arrow, pa.BaseExtensionType):
            return pa.ExtensionArray.from_storage(self.arrow, text.cast(pa.string()))
        if pa.types.is_float32(self.arrow):
            return text.cast(pa.float64()).cast(pa.float32())
        if pa.types.is_timestamp(self.arrow):
            moments = text.cast(pa.string()).cast(pa.timestamp("us"))
            return pc.assume_timezone(moments, "UTC") if self.arrow.tz else moments
        if pa.types.is_date(self.arrow) or pa.types.is_decimal(self.arrow):
            return text.cast(pa.string()).cast(self.arrow)
        return text.cast(self.arrow)


class MySqlSource(TableSource[MySqlColumn]):
    """The tables of one MySQL or MariaDB database."""

    unit_format = "rows"

    def __init__(self, address: Address, looking: Any = None) -> None:
        super().__init__(address)
        self._looking = looking

    def explained(self, what: str) -> AbstractContextManager[None]:
        """Say what went wrong in one sentence."""
        return explained(self._address, what)

    def find(self, table: DatabaseTable) -> Found[MySqlColumn]:
        """Look into the information schema."""
        return _find(self._look(), table) or self._none(table)

    def _none(self, table: DatabaseTable) -> Found[MySqlColumn]:
        raise self.no_table(table)

    def try_out(self, table: DatabaseTable, found: Found[MySqlColumn]) -> None:
        """Select nothing."""
        self._ask(select_from(select_list(found.taken(table)), table) + " limit 0")

    def highest(self, table: DatabaseTable, cursor: MySqlColumn) -> str | None:
        """As MySQL prints it."""
        ((found,),) = self._ask(select_from(f"max({quoted(cursor.name)})", table))
        return None if found is None else found.decode()

    def without_place(self, table: DatabaseTable, cursor: MySqlColumn) -> int:
        """Null: MySQL has nothing endless."""
        ((found,),) = self._ask(select_from("count(*)", table, f"{quoted(cursor.name)} is null"))
        return int(found)

    def is_greater(self, cursor: MySqlColumn, one: str, other: str) -> bool:
        """Ask the database: texts have its collation."""
        values = f"{cursor.literal(one)}, {cursor.literal(other)}"
        ((found,),) = self._ask(f"select greatest({values}) <> {cursor.literal(other)}")
        return found == b"1"

    def state(self, reading: Reading, cursor: MySqlColumn) -> str:
        """Count the rows, and add up hashes of their cursor values."""
        outputs = f"count(*), coalesce(sum(crc32({quoted(cursor.name)})), 0)"
        ((rows, total),) = self._ask(select_from(outputs, reading.table, _condition(reading, cursor)))
        return f"{rows.decode()} rows, {total.decode()}"

    def open(self, unit: Unit) -> RowsDelivery:
        """Open a read-only snapshot of the database for one reading."""
        reading = Reading.read_from(unit)
        with self.explained(unit.path), ExitStack() as opened:
            shares = self._open_shares(reading, opened)
            found = _find(shares[0].conn, reading.table) or self._none(reading.table)
            close = opened.pop_all().close
        columns = found.taken(reading.table)
        condition = _condition(reading, found.cursor(reading.table))
        schema = pa.schema([pa.field(column.name, column.arrow) for column in columns])

        def query(share: Share) -> str:
            limit = f" limit {reading.most_rows}" if reading.most_rows is not None else ""
            selected = select_from(select_list(columns), reading.table, f"({condition}) and {share.where}")
            return selected + limit

        def read(digest: Digest) -> Iterator[pa.RecordBatch]:
            if len(shares) == 1:
                yield from read_batches(
                    shares[0].conn, query(shares[0]), schema, columns, reading.path, digest
                )
                return
            hashes = [hashlib.sha256() for _ in shares]  # batches come in any order
            yield from in_turn(
                [
                    read_batches(share.conn, query(share), schema, columns, reading.path, hashed)
                    for share, hashed in zip(shares, hashes, strict=True)
                ]
            )
            digest.update(b"".join(hashed.digest() for hashed in hashes))

        return RowsDelivery(reading, schema, read, self.explained, close)

    def _open_shares(self, reading: Reading, opened: ExitStack) -> list[Share]:
        """Begin as many snapshots of one moment as the reading asks for."""
        table, count = reading.table, reading.connections

        def begun() -> Any:
            conn = connect(self._address)
            opened.callback(close_now, conn)
            return conn

        if count == 1:
            conn = begun()
            for statement in SNAPSHOT:
                run(conn, statement)
            return [Share(conn, "true")]
        key = quoted(key_to_share(run, self._look(), table))
        conns = [begun() for _ in range(count)]
        begin_together(run, begun(), conns, _name(table), SNAPSHOT, table)
        ((lowest, highest),) = run(conns[0], select_from(f"min({key}), max({key})", table))
        divided = ["true"] if lowest is None else ranges(key, int(lowest), int(highest), count)
        return [Share(*each) for each in zip(conns, divided, strict=False)]

    def close(self) -> None:
        """Close the connection for looking."""
        if self._looking is not None:
            close_now(self._looking)
            self._looking = None

    def _look(self) -> Any:
        if self._looking is None or not self._looking.open:
            self._looking = connect(self._address)
        return self._looking

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        return run(self._look(), query)


def print_types() -> str:
    """The table in Markdown, as the docs show it."""
    rows = [f"| `{name}` | {target} |" for name, target in _PRINTED.items()]
    return "\n".join(["| MySQL, MariaDB | in bronze |", "| --- | --- |", *rows])


def _find(conn: Any, table: DatabaseTable) -> Found[MySqlColumn] | None:
    place = (table.schema, table.relation)
    columns = [
        _column(*(part.decode() if part is not None else None for part in row), table=table)
        for row in run(conn, _COLUMNS, place)
    ]
    if not columns:
        return None
    sizes = run(conn, _TABLE, place)
    rows, size_bytes = (int(sizes[0][0]), int(sizes[0][1])) if sizes else (0, 0)
    return Found(columns, rows, size_bytes)


def _column(
    name: str | None,
    declared: str | None,
    base: str | None,
    precision: str | None,
    scale: str | None,
    _nullable: str | None,
    *,
    table: DatabaseTable,
) -> MySqlColumn:
    assert name is not None
    assert declared is not None
    base = (base or "").lower()
    unsigned = " unsigned" if "unsigned" in declared and f"{base} unsigned" in _ARROW else ""
    arrow = _ARROW.get(base + unsigned)
    if base == "decimal":
        digits, places = int(precision or 10), int(scale or 0)
        arrow = pa.decimal128(digits, places) if digits <= 38 else pa.decimal256(digits, places)
    if arrow is None or name in table.as_text:
        arrow = pa.string()
    return MySqlColumn(name, declared, base, arrow, _CURSORS.get(base))


def _condition(reading: Reading, cursor: MySqlColumn | None) -> str:
    """Return which rows a reading takes; the first one those without a cursor value too."""
    if cursor is None or reading.upper is None:
        return "true"
    name, upper = quoted(cursor.name), cursor.literal(reading.upper)
    if reading.lower is None:
        return f"({name} <= {upper} or {name} is null)"
    return f"{name} > {looking_back(cursor, reading.lower, reading.table)} and {name} <= {upper}"


def looking_back(cursor: MySqlColumn, watermark: str, table: DatabaseTable) -> str:
    """The watermark, less the lookback."""
    lower, lookback = cursor.literal(watermark), table.lookback
    if lookback is None:
        return lower
    if lookback.is_time:
        return f"cast({lower} as datetime(6)) - interval {lookback.amount} second"
    return f"{lower} - {lookback.amount}"


def quoted(name: str) -> str:
    """A name, in backquotes."""
    return "`" + name.replace("`", "``") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"  # NO_BACKSLASH_ESCAPES is set


def _name(table: DatabaseTable) -> str:
    return ".".join(quoted(part) for part in (table.schema, table.relation) if part)


def select_from(outputs: str, table: DatabaseTable, condition: str = "true") -> str:
    """A select of one table, out of expressions that were made here."""
    # Names are quoted, values are literals of ours: what is put in here was made by the functions above.
    return f"select {outputs} from {_name(table)} where {condition}"  # noqa: S608


def select_list(columns: list[MySqlColumn]) -> str:
    """What is selected so that the text of each value loses nothing."""
    return ", ".join(column.selected for column in columns)


def connect(address: Address) -> Any:
    """Open a session of ours: UTC, a snapshot, values as the bytes that were sent."""
    try:
        import pymysql
        from pymysql.converters import encoders
    except ImportError as error:
        raise missing_driver(address, error) from None
    url = address.url
    known = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    given: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    options = {name: value for name, value in url.query.items() if name != "charset"}
    open_connection: Any = pymysql.connect  # options of the URL are as many as the driver has
    return open_connection(
        database=url.database,
        charset="utf8mb4",
        use_unicode=False,
        conv=encoders,  # none to read with: values stay the bytes that were sent
        connect_timeout=_CONNECT_TIMEOUT_S,
        init_command=_SESSION,
        program_name="datops",
        **given,
        **options,
    )


def run(conn: Any, statement: str, values: tuple[str | None, ...] = ()) -> list[tuple[Any, ...]]:
    """Run a statement and take all it returns."""
    with conn.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


def read_batches(
    conn: Any, query: str, schema: pa.Schema, columns: list[MySqlColumn], path: str, digest: Digest
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query; the connection serves again once all were taken."""
    from pymysql.cursors import SSCursor

    cursor = conn.cursor(SSCursor)
    cursor.execute(query)
    cursor._result.unbuffered_active = False  # else the driver looks for rows when the cursor ends
    # Past the driver's own reading: it makes an object of each value, a tenth of the speed.
    for rows in read_rows(conn._rfile.read1, BATCH_BYTES):
        digest.update(rows.raw)
        yield _batch(rows, schema, columns, path)


def _batch(rows: Rows, schema: pa.Schema, columns: list[MySqlColumn], path: str) -> pa.RecordBatch:
    arrays = []
    for column, values in zip(columns, columns_of(rows, len(columns)), strict=True):
        try:
            arrays.append(column.to_arrow(values))
        except pa.ArrowInvalid:
            # Not chained: it repeats the value.
            raise not_of_its_type(path, column.name, column.declared) from None
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def close_now(conn: Any) -> None:
    """Close without waiting for rows that nobody reads."""
    with suppress(Exception):
        conn._force_close()  # close() would wait
