"""The bronze table: made on first use, and widened when a delivery brings new columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.errors import LoadRefusedError, LockTakenError
from datops_assets.ingestion.names import MAX_COLUMNS, Delivered, bronze_name
from datops_assets.postgres.identifiers import warehouse_name

LOCK_TIMEOUT = "10s"
"""A new column waits this long for readers; they wait behind it."""
_GROWTH_WORTH_ANALYZE = 0.1
MAX_KNOWN_COLUMNS = 1600
"""Names remembered per table; JSON with generated keys could bring millions, all in `_more`."""

WORTH_A_CONSTANT_BYTES = 8 << 20
"""Below this two changes of a function cost more than they save."""

# The table's lock belongs to another connection than a Parquet load's rows. Should that one die first,
# whoever takes over waits here for the rows to be committed or gone.
_ALONE: LiteralString = "select pg_advisory_xact_lock(hashtextextended(%(lock)s, 0))"
_NUMBER_ROWS: LiteralString = (
    "select set_config('datops.load_id', %(load_id)s, true), setval(%(sequence)s::regclass, 1, false)"
)


@dataclass(frozen=True)
class BronzeTable:
    """Names of one bronze table."""

    table_id: int
    schema: str
    relation: str

    @property
    def name(self) -> sql.Identifier:
        """The table."""
        return sql.Identifier(self.schema, self.relation)

    @property
    def sequence(self) -> sql.Identifier:
        """The sequence behind `_row`."""
        return sql.Identifier(self.schema, f"{self.relation}__row")

    @property
    def load_number(self) -> sql.Identifier:
        """The function behind `_load_id`."""
        return sql.Identifier(self.schema, f"{self.relation}__load_id")

    @property
    def load_index(self) -> sql.Identifier:
        """The index that finds the rows of a load."""
        return sql.Identifier(self.schema, f"{self.relation}__load")

    @property
    def load_lock(self) -> str:
        """What a transaction that writes a load's rows holds alone."""
        return f"datops.load.{self.table_id}"


@dataclass(frozen=True)
class BronzeColumn:
    """Where a delivered column went."""

    delivered: Delivered
    name: str
    type: str
    in_more: bool
    is_new: bool = False


@dataclass(frozen=True)
class WantedColumn:
    """A column a delivery brings, and the type bronze should give it."""

    delivered: Delivered
    type: str


def bronze_of(table_id: int, schema: str, source: str, table: str) -> BronzeTable:
    """Name the bronze table of a source's table."""
    return BronzeTable(table_id, schema, warehouse_name(source, table))


def ensure_bronze_table(conn: psycopg.Connection[Any], bronze: BronzeTable) -> None:
    """Make the table with our own columns only; delivered ones follow."""
    if conn.execute("select to_regclass(%s)", (bronze.name.as_string(conn),)).fetchone() != (None,):
        return
    with conn.transaction():
        # Cached numbers cost a quarter of uncached ones; setval makes a session forget those it has left.
        conn.execute(sql.SQL("create sequence if not exists {} cache 1000").format(bronze.sequence))
        conn.execute(by_setting(bronze))
        conn.execute(
            sql.SQL(
                "create table if not exists {} ("
                " _load_id bigint not null default {}(), _row bigint not null default nextval({}))"
            ).format(bronze.name, bronze.load_number, sql.Literal(bronze.sequence.as_string(conn)))
        )
        conn.execute(sql.SQL("alter sequence {} owned by {}._row").format(bronze.sequence, bronze.name))
        # Loads lie one after the other, so a few bytes a range find one among millions of rows. Summaries
        # are ours to ask for: autovacuum queues 256 ranges, and the server's log gets a line for each more.
        conn.execute(
            sql.SQL(
                "create index {} on {} using brin (_load_id) with (autosummarize = off, pages_per_range = 16)"
            ).format(sql.Identifier(f"{bronze.relation}__load"), bronze.name)
        )
        # A sample of 6,000 rows says enough of two numbers: ANALYZE after a load takes 15 ms, not 100.
        conn.execute(
            sql.SQL(
                "alter table {} alter column _load_id set statistics 20, alter column _row set statistics 20"
            ).format(bronze.name)
        )


def list_columns(conn: psycopg.Connection[Any], table_id: int) -> list[BronzeColumn]:
    """List the columns of a bronze table in the order they came."""
    rows = conn.execute(
        "select delivered, occurrence, name, type, in_more from datops.columns where table_id = %s order by position",
        (table_id,),
    ).fetchall()
    return [BronzeColumn(Delivered(d, n), name, type_, in_more) for d, n, name, type_, in_more in rows]


def plan_columns(known: Sequence[BronzeColumn], wanted: Sequence[WantedColumn]) -> list[BronzeColumn]:
    """Say where each wanted column goes: to its own column, a new one, or `_more` past the limit. Pure."""
    by_delivered = {column.delivered: column for column in known}
    taken = {column.name for column in known}
    room = MAX_COLUMNS - sum(not column.in_more for column in known)
    planned = []
    for column in wanted:
        found = by_delivered.get(column.delivered)
        if found is None:
            found = BronzeColumn(
                column.delivered, bronze_name(column.delivered, taken), column.type, room <= 0, is_new=True
            )
            taken.add(found.name)
            room -= 1
        planned.append(found)
    return planned


def follow_columns(
    conn: psycopg.Connection[Any], bronze: BronzeTable, wanted: Sequence[WantedColumn], load_id: int
) -> list[BronzeColumn]:
    """Give every wanted column its place in bronze; returns them in the wanted order.

    raises     LockTakenError: readers held the table for too long; nothing was changed
    promise    one short transaction, and none when nothing is new: ALTER locks readers out
    """
    ensure_bronze_table(conn, bronze)
    known = list_columns(conn, bronze.table_id)
    planned = plan_columns(known, wanted)
    new = [column for column in planned if column.is_new]
    if new:
        _add_columns(conn, bronze, new, len(known), load_id, has_more=any(column.in_more for column in known))
    return planned


def require_types(columns: Sequence[BronzeColumn], wanted: Sequence[WantedColumn], path: str) -> None:
    """Hold the types of bronze against those of a text format, which never change.

    raises     LoadRefusedError: another format delivered the same column with a type of its own
    """
    for column, want in zip(columns, wanted, strict=True):
        if column.type != want.type and not column.in_more:
            raise LoadRefusedError(
                f"{path}: column {column.delivered.name!r} is {want.type}, in bronze it is {column.type}; files of one"
                " table share one format, load this one into another table"
            )


def _add_columns(
    conn: psycopg.Connection[Any],
    bronze: BronzeTable,
    new: Sequence[BronzeColumn],
    known: int,
    load_id: int,
    *,
    has_more: bool,
) -> None:
    additions: list[sql.Composable] = [
        sql.SQL("add column {} {}").format(sql.Identifier(column.name), sql.SQL(column.type))
        for column in new
        if not column.in_more
    ]
    if not has_more and any(column.in_more for column in new):
        additions.append(sql.SQL("add column if not exists _more json"))
    entries = [
        (
            bronze.table_id,
            c.delivered.name,
            c.delivered.occurrence,
            c.name,
            c.type,
            known + n,
            c.in_more,
            load_id,
        )
        for n, c in enumerate(new, start=1)
        if known + n <= MAX_KNOWN_COLUMNS
    ]
    with _waiting_briefly(conn, bronze), conn.cursor() as cursor:
        if additions:
            cursor.execute(sql.SQL("alter table {} {}").format(bronze.name, sql.SQL(", ").join(additions)))
        cursor.executemany("insert into datops.columns values (%s, %s, %s, %s, %s, %s, %s, %s)", entries)


def number_rows(conn: psycopg.Connection[Any], bronze: BronzeTable, load_id: int) -> None:
    """Prepare the transaction: rows get this load's id, and numbers from 1. Call under the table's lock."""
    for statement, values in numbering(conn, bronze, load_id):
        conn.execute(statement, values)


def numbering(
    conn: psycopg.Connection[Any], bronze: BronzeTable, load_id: int
) -> list[tuple[LiteralString, dict[str, Any]]]:
    """Return what `number_rows` runs, for a transaction of another driver."""
    values = {"load_id": str(load_id), "sequence": bronze.sequence.as_string(conn)}
    return [(_ALONE, {"lock": bronze.load_lock}), (_NUMBER_ROWS, values)]


def by_setting(bronze: BronzeTable) -> sql.Composed:
    """Return the statement after which rows take their load's id from the setting `datops.load_id`."""
    return sql.SQL(
        "create or replace function {}() returns bigint language sql stable"
        " return current_setting('datops.load_id')::bigint"
    ).format(bronze.load_number)


def by_constant(bronze: BronzeTable, load_id: int) -> sql.Composed:
    """Return the statement after which rows of this transaction take `load_id` as a constant.

    COPY reads a setting anew for every row, 50 ns or a tenth of its work; of this function it makes a
    constant once. It locks no reader, other sessions do not see it, and `by_setting` must follow before
    the transaction ends.
    """
    return sql.SQL(
        "create or replace function {}() returns bigint language sql immutable return {}::bigint"
    ).format(bronze.load_number, sql.Literal(load_id))


@contextmanager
def constant_load_id(
    conn: psycopg.Connection[Any], bronze: BronzeTable, load_id: int, size_bytes: int
) -> Iterator[None]:
    """Let a large COPY inside the block take the load's id as a constant; part of a transaction."""
    if size_bytes < WORTH_A_CONSTANT_BYTES:
        yield
        return
    conn.execute(by_constant(bronze, load_id))
    yield
    conn.execute(by_setting(bronze))


def wait_for_load(conn: psycopg.Connection[Any], bronze: BronzeTable) -> None:
    """Wait, in the caller's transaction, until no transaction that writes a load's rows is open."""
    conn.execute(_ALONE, {"lock": bronze.load_lock})


def widen_column(conn: psycopg.Connection[Any], bronze: BronzeTable, name: str, type_: str) -> None:
    """Give a column a type that holds more; rewrites the table, so readers wait.

    raises     LockTakenError: readers held the table for too long; nothing was changed
    """
    statement = sql.SQL("alter table {} alter column {} type {}").format(
        bronze.name,
        sql.Identifier(name),
        sql.SQL(type_),
    )
    with _waiting_briefly(conn, bronze):
        conn.execute(statement)
        conn.execute(
            "update datops.columns set type = %s where table_id = %s and name = %s",
            (type_, bronze.table_id, name),
        )


@contextmanager
def _waiting_briefly(conn: psycopg.Connection[Any], bronze: BronzeTable) -> Iterator[None]:
    """Change the table in a transaction that gives up when readers hold it: others queue behind it."""
    try:
        with conn.transaction():
            conn.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
            yield
    except psycopg.errors.LockNotAvailable:
        raise LockTakenError(
            f"{bronze.schema}.{bronze.relation} has to change, but readers held it for {LOCK_TIMEOUT}; try again"
        ) from None


def summarize_earlier_loads(conn: psycopg.Connection[Any], bronze: BronzeTable) -> None:
    """Let the index know the loads so far: what it does not know yet is read whole by whoever asks for a load.

    Called before a load, not after it: who judges a load reads all of its pages anyway, and summarizing
    them costs a sixth of a COPY.
    """
    conn.execute("select brin_summarize_new_values(to_regclass(%s))", (bronze.load_index.as_string(conn),))


def analyze_grown(conn: psycopg.Connection[Any], bronze: BronzeTable, rows: int) -> None:
    """Refresh the planner's statistics where `rows` new rows made them wrong: silver reads right after.

    Of our own columns only: by them silver selects, and analysing texts costs a tenth of the load.
    """
    found = conn.execute(
        "select reltuples from pg_class where oid = %s::regclass", (bronze.name.as_string(conn),)
    ).fetchone()
    assert found is not None
    if rows > _GROWTH_WORTH_ANALYZE * max(found[0], 0):
        conn.execute(sql.SQL("analyze {} (_load_id, _row)").format(bronze.name))
