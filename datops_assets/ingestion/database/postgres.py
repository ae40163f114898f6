"""Tables of a PostgreSQL as a source: one server's binary COPY, handed on as it comes.

Belongs here: sessions, what to read and the stream. Does not: types (postgres_columns), the
warehouse's side of the COPY (copy_load).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.errors import DatopsError, SourceRefusedError, SourceUnreachableError
from datops_assets.ingestion.database.address import Address
from datops_assets.ingestion.database.postgres_columns import SourceColumn, read_columns, select_list
from datops_assets.ingestion.database.postgres_readers import Share, merged, open_shares, rows_alone
from datops_assets.ingestion.database.table_source import Found, TableSource
from datops_assets.ingestion.database.tables import DatabaseTable, Reading
from datops_assets.ingestion.source import CopyDelivery, Reached, Unit

_CONNECT_TIMEOUT_S = 10
_CHUNK_BYTES = 1 << 18
"""Handed on at once. From 64 KiB to 1 MiB it makes no difference; above that the two ends wait for each other."""
# A role's own settings would change what is printed or end a long read; the order of rows is that of
# the table, so that an unchanged table gives the same bytes.
_SESSION: LiteralString = """
set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set extra_float_digits = 1;
set bytea_output = 'hex'; set statement_timeout = 0; set lock_timeout = '30s';
set idle_in_transaction_session_timeout = 0; set synchronize_seqscans = off;
set max_parallel_workers_per_gather = 0
"""
SNAPSHOT: LiteralString = "begin isolation level repeatable read read only"
_RELATION: LiteralString = """
select c.oid, greatest(c.reltuples, 0)::bigint, pg_table_size(c.oid) from pg_class c
 where c.oid = to_regclass(%s) and c.relkind in ('r', 'p', 'v', 'm', 'f')
"""

_KIND: LiteralString = "select relkind::text from pg_class where oid = to_regclass(%s)"


class PostgresSource(TableSource[SourceColumn]):
    """The tables of one PostgreSQL database (14 and later). One connection for looking, one for each delivery."""

    unit_format = "copy"

    def __init__(self, address: Address, looking: psycopg.Connection[Any] | None = None) -> None:
        super().__init__(address)
        self._looking = looking

    def explained(self, what: str) -> AbstractContextManager[None]:
        """Say what went wrong in one sentence."""
        return explained(self._address, what)

    def open(self, unit: Unit) -> PostgresDelivery:
        """Open a read-only snapshot of the database for one reading."""
        reading = Reading.read_from(unit)
        with explained(self._address, unit.path):
            shares = self._open_shares(reading)
            try:
                found = _find(shares[0].conn, reading.table)
                if found is None:
                    raise self.no_table(reading.table)
            except BaseException:
                for share in shares:
                    share.close()
                raise
        return PostgresDelivery(shares, self._open_shares, self._address, reading, found)

    def _open_shares(self, reading: Reading) -> list[Share]:
        """Begin as many transactions of one snapshot as the reading asks for."""
        if reading.connections > 1:
            self._require_blocks(reading.table)

        def begin() -> psycopg.Connection[Any]:
            conn = connect(self._address)
            conn.execute(SNAPSHOT)
            return conn

        return open_shares(begin, relation_name(reading.table), reading.connections)

    def _require_blocks(self, table: DatabaseTable) -> None:
        row = self._look().execute(_KIND, (relation_name(table).as_string(self._look()),)).fetchone()
        if row is not None and row[0] not in ("r", "p", "m"):
            raise SourceRefusedError(
                f"{table.label}: {table.where} has no blocks of its own to share (it is a view or a foreign table);"
                " leave `parallel:` out"
            )

    def find(self, table: DatabaseTable) -> Found[SourceColumn]:
        """Look into the catalogue of the database."""
        found = _find(self._look(), table)
        if found is None:
            raise self.no_table(table)
        return found

    def try_out(self, table: DatabaseTable, found: Found[SourceColumn]) -> None:
        """Select nothing."""
        columns = found.taken(table)
        query = sql.SQL("select {} from {} limit 0")
        self._look().execute(
            query.format(select_list(columns, [c.type for c in columns]), relation_name(table))
        )

    def highest(self, table: DatabaseTable, cursor: SourceColumn) -> str | None:
        """As PostgreSQL prints it."""
        name, type_ = sql.Identifier(cursor.name), sql.SQL(cursor.type)
        finite = (
            sql.SQL("where {} not in ({})").format(name, cursor.endless) if cursor.endless else sql.SQL("")
        )
        # By order and limit, so that an index answers it; max(uuid) is new in PostgreSQL 18. No output may
        # have a column's name: `order by` would take that one.
        query = sql.SQL(
            "select ({name}::{type})::text as highest from {relation} {finite} order by {name} desc nulls last limit 1"
        ).format(name=name, type=type_, relation=relation_name(table), finite=finite)
        row = self._look().execute(query).fetchone()
        return None if row is None else row[0]

    def without_place(self, table: DatabaseTable, cursor: SourceColumn) -> int:
        """Null, and what is above every other value."""
        query = sql.SQL("select count(*) from {} where {}").format(relation_name(table), has_no_place(cursor))
        row = self._look().execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def is_greater(self, cursor: SourceColumn, one: str, other: str) -> bool:
        """Ask the database: texts have its collation."""
        query = sql.SQL("select {} > {}").format(cursor.literal(one), cursor.literal(other))
        return self._look().execute(query).fetchone() == (True,)

    def state(self, reading: Reading, cursor: SourceColumn) -> str:
        """Count the rows, and add up hashes of their cursor values."""
        query = sql.SQL("select count(*), coalesce(sum(hashtext({}::text)::bigint), 0) from {} where {}")
        row = (
            self._look()
            .execute(
                query.format(
                    sql.Identifier(cursor.name), relation_name(reading.table), _condition(reading, cursor)
                )
            )
            .fetchone()
        )
        assert row is not None
        return f"{row[0]} rows, {row[1]}"

    def close(self) -> None:
        """Close the connection for looking."""
        if self._looking is not None:
            self._looking.close()
            self._looking = None

    def _look(self) -> psycopg.Connection[Any]:
        if self._looking is None or self._looking.closed:
            self._looking = connect(self._address)
        return self._looking


class PostgresDelivery(CopyDelivery):
    """One reading of a table, inside one snapshot."""

    def __init__(
        self,
        shares: list[Share],
        open_again: Callable[[Reading], list[Share]],
        address: Address,
        reading: Reading,
        found: Found[SourceColumn],
    ) -> None:
        self._shares = shares
        self._open_again = open_again
        self._address = address
        self._reading = reading
        self._columns = found.taken(reading.table)
        self._cursor = found.cursor(reading.table)
        self._hash: str | None = None
        self._sent: list[int] = []  # by each connection, from its own thread

    def columns(self) -> list[tuple[str, str]]:
        """Name and type of each column that is read."""
        return [(column.name, column.type) for column in self._columns]

    def chunks(self, types: Sequence[str]) -> Iterator[bytes]:
        """Yield what COPY sends, whole rows at a time."""
        digest = hashlib.sha256(repr(list(zip(self.columns(), types, strict=True))).encode())
        self._sent.clear()
        with explained(self._address, self._reading.path):
            if len(self._shares) == 1:
                chunks = self._read(self._shares[0], types)
            else:
                chunks = merged([self._read(share, types, is_part=True) for share in self._shares])
            for chunk in chunks:
                digest.update(chunk)
                yield chunk
        self._hash = digest.hexdigest()

    def _read(self, share: Share, types: Sequence[str], *, is_part: bool = False) -> Iterator[bytes]:
        with share.conn.cursor() as cursor:
            yield from copied_out(cursor, self._query(types, share), is_part=is_part)
            self._sent.append(cursor.rowcount)

    def rows(self) -> int:
        """Return how many rows the server says it sent."""
        return sum(self._sent)

    def content_hash(self) -> str:
        """Return the sha256 of the stream; reads what was not read."""
        if self._hash is None:
            self._begin_again()
            for _ in self.chunks([column.type for column in self._columns]):
                pass
            assert self._hash is not None
        return self._hash

    def reached(self) -> Reached:
        """The cursor's highest value when the table was looked at."""
        return Reached(self._reading.upper)

    def close(self) -> None:
        """Close the connections; a COPY under way ends with them."""
        for share in self._shares:
            share.close()

    def _begin_again(self) -> None:
        """Leave a COPY that was not read to its end."""
        within = psycopg.pq.TransactionStatus.INTRANS
        if any(share.conn.info.transaction_status != within for share in self._shares):
            self.close()
            with explained(self._address, self._reading.path):
                self._shares = self._open_again(self._reading)

    def _query(self, types: Sequence[str], share: Share) -> sql.Composed:
        limit = self._reading.most_rows
        return sql.SQL("copy (select {} from {} where ({}) and {}{}) to stdout (format binary)").format(
            select_list(self._columns, types),
            relation_name(self._reading.table),
            _condition(self._reading, self._cursor),
            share.where,
            sql.SQL(" limit {}").format(sql.Literal(limit)) if limit is not None else sql.SQL(""),
        )


def _find(conn: psycopg.Connection[Any], table: DatabaseTable) -> Found[SourceColumn] | None:
    relation = conn.execute(_RELATION, (relation_name(table).as_string(conn),)).fetchone()
    if relation is None:
        return None
    oid, rows, size_bytes = relation
    return Found(read_columns(conn, oid, table), rows, size_bytes)


def copied_out(cursor: psycopg.Cursor[Any], query: sql.Composed, *, is_part: bool = False) -> Iterator[bytes]:
    """Yield what COPY sends, many rows at a time.

    is_part    rows alone: other connections send more
    """
    # The server sends a message a row: one by one they would cost as much to hand on as to read.
    parts: list[bytes | bytearray | memoryview] = []
    size = 0
    with cursor.copy(query) as copy:
        for part in rows_alone(copy) if is_part else copy:
            parts.append(part)
            size += len(part)
            if size >= _CHUNK_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
    if parts:
        yield b"".join(parts)


def relation_name(table: DatabaseTable) -> sql.Identifier:
    """The table's name, quoted."""
    return sql.Identifier(*([table.schema] if table.schema else []), table.relation)


def _condition(reading: Reading, cursor: SourceColumn | None) -> sql.Composable:
    """Return which rows a reading takes; the first one those without a cursor value too."""
    if cursor is None or reading.upper is None:
        return sql.SQL("true")
    name, upper = sql.Identifier(cursor.name), cursor.literal(reading.upper)
    if reading.lower is None:
        return sql.SQL("({} <= {} or {})").format(name, upper, has_no_place(cursor))
    lower = looking_back(cursor, reading.lower, reading.table)
    return sql.SQL("{0} > {1} and {0} <= {2}").format(name, lower, upper)


def looking_back(cursor: SourceColumn, watermark: str, table: DatabaseTable) -> sql.Composable:
    """The watermark, less the lookback."""
    lower, lookback = cursor.literal(watermark), table.lookback
    if lookback is None:
        return lower
    if lookback.is_time:
        return sql.SQL("{} - make_interval(secs => {})").format(lower, sql.Literal(lookback.amount))
    return sql.SQL("{}::numeric - {}").format(lower, sql.Literal(lookback.amount))


def has_no_place(cursor: SourceColumn) -> sql.Composable:
    """A condition: no reading goes on from the cursor's value."""
    name = sql.Identifier(cursor.name)
    endless = sql.SQL(" or {} in ({})").format(name, cursor.endless) if cursor.endless else sql.SQL("")
    return sql.SQL("{} is null{}").format(name, endless)


def connect(address: Address) -> psycopg.Connection[Any]:
    """Open a session of ours: UTC, days as ISO writes them, no limits of the role, a name that can be found.

    raises    psycopg.Error; see `explained`
    """
    given: dict[str, Any] = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "application_name": "datops",
        "keepalives_idle": 30,
        **address.libpq_parameters(),
    }
    conn: psycopg.Connection[Any] = psycopg.connect(autocommit=True, client_encoding="UTF8", **given)
    conn.prepare_threshold = None  # poolers between us and the server do not carry prepared statements
    conn.execute(_SESSION)
    return conn


@contextmanager
def explained(address: Address, what: str) -> Iterator[None]:
    """Turn the driver's errors into sentences about the source.

    Not chained: the driver's text may hold cell values, and a URL's parts.
    """
    try:
        yield
    except psycopg.Error as error:
        raise _explain(address.shown, what, error) from None


def _explain(where: str, what: str, error: psycopg.Error) -> DatopsError:
    state, said = error.sqlstate or "", str(error)
    for sign, sentence in _REFUSED.items():
        if sign == state or (not state and sign in said):
            return SourceRefusedError(sentence.format(where=where, what=what))
    if state[:2] in ("08", "40", "53", "57", "55") or not state:
        reason = f"SQLSTATE {state}" if state else "no answer, or the connection was lost"
        return SourceUnreachableError(
            f"{what}: the database at {where} cannot be read right now ({reason}); nothing of it was kept, try again"
        )
    return SourceRefusedError(
        f"{what}: the database at {where} refused the reading ({type(error).__name__}, SQLSTATE {state});"
        " see its log, then: datops connector test"
    )


_CREDENTIALS = (
    "the database at {where} refuses the user or the password;"
    " correct `url` or the variable that `password_env` names, then: datops connector test"
)
_REFUSED = {
    "28P01": _CREDENTIALS,
    "28000": "the database at {where} lets this user in from here not at all;"
    " ask for an entry in its pg_hba.conf, or add ?sslmode=require to `url`",
    "3D000": "the server has no database {where}; correct `url`, then: datops connector test",
    "42501": "{what}: this user may not read it at {where}; grant select, then: datops connector test",
    "42P01": "{what}: there is no such table at {where}; correct `table:`, then: datops connector test",
    "authentication failed": _CREDENTIALS,
    "no password supplied": _CREDENTIALS,
    "does not exist": "the server has no database {where}; correct `url`, then: datops connector test",
    "pg_hba.conf": "the database at {where} lets this user in from here not at all;"
    " ask for an entry in its pg_hba.conf, or add ?sslmode=require to `url`",
}
