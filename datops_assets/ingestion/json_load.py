"""JSON lines and JSON documents into bronze: raw value texts, taken apart by the server.

Records go as they are into a staging table of this session. The server says which are objects it
can take apart (`is json object with unique keys`, which is also false where a string holds \\u0000)
and moves those with one statement. What is left comes back to be read here: names that occur twice
and \\u0000 are kept, the rest is damage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.errors import ContainerDamagedError, FileChangedError
from datops_assets.ingestion.bronze import (
    MAX_KNOWN_COLUMNS,
    BronzeColumn,
    WantedColumn,
    list_columns,
    number_rows,
    require_types,
)
from datops_assets.ingestion.catalogue import Outcome
from datops_assets.ingestion.copy_text import escaped, gathered, send_copy
from datops_assets.ingestion.csv_check import NotPlainError
from datops_assets.ingestion.damaged import DamagedRecords
from datops_assets.ingestion.job import LoadJob
from datops_assets.ingestion.json_lines import Line, check_lines, plain_lines, split_lines
from datops_assets.ingestion.json_text import (
    ArrayElements,
    Element,
    NotAnObjectError,
    not_json,
    object_members,
)
from datops_assets.ingestion.names import Delivered
from datops_assets.ingestion.schema_policy import follow_by_policy
from datops_assets.ingestion.source import Reached, TextDelivery
from datops_assets.postgres import failpoints

_FETCHED_BYTES = 32 << 20
_PAGES_AT_ONCE = 1000
_STAGING: LiteralString = """
create temp sequence datops_staged_row cache 1000;
create temp table datops_staged (
    _row  bigint not null default nextval('datops_staged_row'),
    line  text not null,
    plain boolean generated always as (line is json object with unique keys) stored
)
"""
_SHAPES: LiteralString = """
select array_agg from (
    select _row, (select array_agg(key) from json_object_keys(line::json) key) from datops_staged where plain
) keys group by 1 order by min(_row)
"""


@dataclass
class _Names:
    """The names found in a delivery, in the order they came; past the limit only those that bronze knows."""

    known: frozenset[Delivered]
    found: dict[Delivered, None] = field(default_factory=dict)
    shapes: int = 0
    left_out: bool = False

    def add(self, names: Iterable[Delivered]) -> None:
        self.shapes += 1
        for name in names:
            if name in self.found:
                continue
            if len(self.found) < MAX_KNOWN_COLUMNS or name in self.known:
                self.found[name] = None
            else:
                self.left_out = True

    @property
    def one_shape(self) -> bool:
        """Whether a value's place among the names is its place in every record."""
        return self.shapes == 1 and not self.left_out

    def wanted(self) -> list[WantedColumn]:
        return [WantedColumn(name, "json") for name in self.found]


def load_json(conn: psycopg.Connection[Any], job: LoadJob) -> Outcome:
    """Load one JSON file, lines or a document: all of it, or nothing.

    raises     ContainerDamagedError, FileChangedError, LockTakenError; nothing was kept
    promise    rows, damaged records and the catalogue's entry commit together; values keep the
               text they were delivered with
    """
    stage = _stage_document if job.unit.format == "json" else _stage_lines
    with _staging(conn), DamagedRecords(job.load_id) as damaged:
        content_hash, reached = stage(conn, job, damaged)
        names = _names(conn, job)
        columns = follow_by_policy(conn, job, names.wanted(), [name.name for name in names.found])
        require_types(columns, names.wanted(), job.unit.path)
        failpoints.hit("before_copy")
        with conn.transaction():
            number_rows(conn, job.bronze, job.load_id)
            rows = _move_plain(conn, job, columns, one_shape=names.one_shape)
            rows += _move_others(conn, job, columns, damaged, content_hash)
            failpoints.hit("after_copy")
            damaged.write(conn, job.source, job.table)
            failpoints.hit("after_quarantine")
            header = [column.delivered.name for column in columns if column.delivered.occurrence == 1]
            outcome = job.outcome(content_hash, reached, rows, damaged.count, header)
            job.finish(conn, outcome)
            failpoints.hit("before_commit")
    return outcome


@contextmanager
def _staging(conn: psycopg.Connection[Any]) -> Iterator[None]:
    conn.execute(_STAGING)
    try:
        yield
    finally:
        if not conn.closed and not conn.broken:
            conn.execute("drop table datops_staged; drop sequence datops_staged_row")


def _stage_lines(conn: psycopg.Connection[Any], job: LoadJob, damaged: DamagedRecords) -> tuple[str, Reached]:
    """Copy the lines into the staging table; return the delivery's hash, and how far it reached."""
    try:
        with job.open_text() as delivery:
            _copy_staged(conn, plain_lines(job.watched(delivery.chunks())), "(line)")
            return delivery.content_hash(), delivery.reached()
    except (NotPlainError, psycopg.DataError, psycopg.errors.StatementTooComplex):
        pass  # NUL, bytes that are not UTF-8, a line of 64 MiB: find out which line
    with job.open_text() as delivery:
        lines = check_lines(split_lines(job.watched(delivery.chunks())))
        _copy_staged(conn, _good_lines(lines, damaged), "(_row, line)")
        return delivery.content_hash(), delivery.reached()


def _good_lines(lines: Iterator[Line], damaged: DamagedRecords) -> Iterator[bytes]:
    def good() -> Iterator[bytes]:
        for line in lines:
            if line.damage is not None:
                damaged.add(line.row, line.raw, line.position, line.damage)
            else:
                yield b"%d\t%s\n" % (line.row, escaped(line.raw))

    return gathered(good())


def _stage_document(conn: psycopg.Connection[Any], job: LoadJob, _: DamagedRecords) -> tuple[str, Reached]:
    with job.open_text() as delivery:
        elements = _elements(job, job.watched(delivery.chunks()))
        try:
            _copy_staged(conn, gathered(escaped(element.raw) + b"\n" for element in elements), "(line)")
        except (psycopg.DataError, psycopg.errors.StatementTooComplex):
            raise ContainerDamagedError(
                f"{job.unit.path}: it holds bytes that are not utf-8, NUL bytes, or values nested too deeply"
            ) from None
        return delivery.content_hash(), delivery.reached()


def _elements(job: LoadJob, chunks: Iterator[bytes]) -> Iterator[Element]:
    return iter(ArrayElements(chunks, job.records, job.unit.path))


def _copy_staged(conn: psycopg.Connection[Any], parts: Iterator[bytes], columns: LiteralString) -> None:
    statement = sql.SQL("copy datops_staged {} from stdin (format text, encoding 'utf8')").format(
        sql.SQL(columns)
    )
    first = next(parts, b"")  # for which an API may be read for hours: no transaction waits for it
    with conn.transaction(), conn.cursor() as cursor:
        send_copy(cursor, statement, chain((first,), parts))


def _names(conn: psycopg.Connection[Any], job: LoadJob) -> _Names:
    names = _Names(frozenset(column.delivered for column in list_columns(conn, job.bronze.table_id)))
    with conn.cursor() as cursor:
        for (keys,) in cursor.stream(_SHAPES):
            names.add(Delivered(key) for key in keys or ())
    for _, line in _others(conn):
        try:
            names.add(name for name, _ in _numbered(object_members(line)))
        except (ValueError, RecursionError):
            continue
    return names


def _others(conn: psycopg.Connection[Any]) -> Iterator[tuple[int, str]]:
    """Yield the records that the server did not take apart."""
    with conn.cursor() as cursor:
        yield from cursor.stream("select _row, line from datops_staged where not plain order by _row")


def _numbered(members: Iterable[tuple[str, str]]) -> list[tuple[Delivered, str]]:
    seen: dict[str, int] = {}
    numbered = []
    for name, raw in members:
        # A name may hold what no text in PostgreSQL can.
        kept = name.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()
        seen[kept] = seen.get(kept, 0) + 1
        numbered.append((Delivered(kept, seen[kept]), raw))
    return numbered


def _move_plain(
    conn: psycopg.Connection[Any], job: LoadJob, columns: Sequence[BronzeColumn], *, one_shape: bool
) -> int:
    """Take the objects apart with one pass of json_each each; `json -> name` would parse them per column."""
    # A repeated name never comes here, so a name's place in a lone shape is its place among `columns`.
    places = [(n, column) for n, column in enumerate(columns, start=1) if not column.in_more]
    named = [column for _, column in places if column.delivered.occurrence == 1]
    values = [_value_of(n, column, one_shape) for n, column in places if column.delivered.occurrence == 1]
    names = [sql.Identifier(column.name) for column in named]
    if len(places) < len(columns):
        names.append(sql.Identifier("_more"))
        values.append(_rest_of(named))
    statement = sql.SQL(
        "insert into {} ({}) select {} from datops_staged s, lateral ("
        " select array_agg(e.key) as k, array_agg(e.value) as v from json_each(s.line::json) e) o"
        " where s.plain and s.ctid >= {} and s.ctid < {}"
    )
    target = sql.SQL(", ").join([sql.Identifier("_row"), *names])
    selected = sql.SQL(", ").join([sql.SQL("s._row"), *values])
    rows = 0
    for first, end in _page_ranges(conn):
        rows += conn.execute(statement.format(job.bronze.name, target, selected, first, end)).rowcount
    return rows


def _page_ranges(conn: psycopg.Connection[Any]) -> Iterator[tuple[sql.Literal, sql.Literal]]:
    """Yield pieces of the staging table: json_each leaks 300 bytes a call until its statement ends."""
    found = conn.execute(
        "select pg_relation_size('datops_staged') / current_setting('block_size')::bigint"
    ).fetchone()
    assert found is not None
    for page in range(0, int(found[0]), _PAGES_AT_ONCE):
        yield sql.Literal(f"({page},0)"), sql.Literal(f"({page + _PAGES_AT_ONCE},0)")


def _value_of(number: int, column: BronzeColumn, one_shape: bool) -> sql.Composable:
    if one_shape:
        return sql.SQL("o.v[{}]").format(sql.Literal(number))
    return sql.SQL("o.v[array_position(o.k, {})]").format(sql.Literal(column.delivered.name))


def _rest_of(named: Sequence[BronzeColumn]) -> sql.Composable:
    names = sql.SQL(", ").join(sql.Literal(column.delivered.name) for column in named)
    return sql.SQL(
        "(select json_object_agg(r.key, r.value) from unnest(o.k, o.v) r(key, value) where r.key not in ({}))"
    ).format(names)


def _move_others(
    conn: psycopg.Connection[Any],
    job: LoadJob,
    columns: Sequence[BronzeColumn],
    damaged: DamagedRecords,
    content_hash: str,
) -> int:
    """Read here what the server could not take apart; move what is an object, set the rest aside."""
    found = conn.execute("select max(octet_length(line)) from datops_staged where not plain").fetchone()
    if found is None or found[0] is None:
        return 0
    own = [column for column in columns if not column.in_more]
    names = ["_row", *(column.name for column in own), *(["_more"] if len(own) < len(columns) else [])]
    statement = sql.SQL("copy {} ({}) from stdin (format text, encoding 'utf8')").format(
        job.bronze.name, sql.SQL(", ").join(map(sql.Identifier, names))
    )
    others = _Others(columns, damaged, with_more=len(own) < len(columns))
    with conn.cursor(name="datops_others") as reader, _originals(job, content_hash) as originals:
        reader.itersize = max(1, min(1000, _FETCHED_BYTES // int(found[0])))
        reader.execute("select _row, line from datops_staged where not plain order by _row")
        for part in gathered(others.lines(reader, originals)):
            with conn.cursor() as writer, writer.copy(statement) as copy:
                copy.write(part)
    return others.rows


class _Others:
    """Turn records the server cannot take apart into lines for COPY, or set them aside."""

    def __init__(self, columns: Sequence[BronzeColumn], damaged: DamagedRecords, *, with_more: bool) -> None:
        self.rows = 0
        self._own = [column.delivered for column in columns if not column.in_more]
        self._damaged = damaged
        self._with_more = with_more

    def lines(self, records: Iterable[tuple[int, str]], originals: _Originals) -> Iterator[bytes]:
        for row, text in records:
            if not text.strip():
                continue
            try:
                members = _numbered(object_members(text))
            except (ValueError, RecursionError) as error:
                original = originals.find(row)
                self._damaged.add(row, original.raw, original.position, originals.damage(original, error))
                continue
            self.rows += 1
            yield b"\t".join([b"%d" % row, *map(escaped, self._values(members))]) + b"\n"

    def _values(self, members: list[tuple[Delivered, str]]) -> Iterator[bytes | None]:
        own = dict(members)
        for column in self._own:
            raw = own.pop(column, None)
            yield None if raw is None else raw.encode()
        if self._with_more:
            rest = ", ".join(f"{json.dumps(name.name)}: {raw}" for name, raw in own.items())
            yield f"{{{rest}}}".encode() if rest else None


class _Originals:
    """The records as they stand in the file, looked up by number; opens it only when asked."""

    def __init__(self, job: LoadJob) -> None:
        self._job = job
        self._is_document = job.unit.format == "json"
        self._delivery: TextDelivery | None = None
        self._records: Iterator[Line | Element] = iter(())
        self._row = 0

    def find(self, row: int) -> Line | Element:
        """Return a record; its number must be higher than that of the one before."""
        if self._delivery is None:
            self._delivery = self._job.open_text()
            chunks = self._delivery.chunks()
            self._records = _elements(self._job, chunks) if self._is_document else split_lines(chunks)
        for record in self._records:
            self._row += 1
            if self._row == row:
                return record
        raise FileChangedError(f"{self._job.unit.path} changed while it was read; nothing of it was kept")

    def damage(self, original: Line | Element, error: ValueError | RecursionError) -> str:
        """Say what is wrong with a record.

        raises     ContainerDamagedError: it is part of a document, which then is damaged as a whole
        """
        if isinstance(error, NotAnObjectError):
            return str(error)
        if isinstance(error, RecursionError):
            return "values nested too deeply"
        if isinstance(original, Line):
            return not_json(error)
        at = error if isinstance(error, json.JSONDecodeError) else json.JSONDecodeError(str(error), "", 0)
        line = original.line + at.lineno - 1
        column = at.colno + (original.column - 1 if at.lineno == 1 else 0)
        raise ContainerDamagedError(f"{self._job.unit.path}: line {line}, column {column}: {at.msg}")

    def close(self, content_hash: str) -> None:
        """Close the file.

        raises     FileChangedError: it is no longer the one that was staged
        """
        if self._delivery is None:
            return
        with self._delivery as delivery:
            if delivery.content_hash() != content_hash:
                raise FileChangedError(
                    f"{self._job.unit.path} changed while it was read; nothing of it was kept"
                )


@contextmanager
def _originals(job: LoadJob, content_hash: str) -> Iterator[_Originals]:
    originals = _Originals(job)
    yield originals
    originals.close(content_hash)
