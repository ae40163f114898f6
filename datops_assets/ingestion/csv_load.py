"""CSV into bronze: plain bytes straight through COPY, all others record by record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.ingestion.bronze import (
    BronzeColumn,
    BronzeTable,
    WantedColumn,
    constant_load_id,
    number_rows,
    require_types,
)
from datops_assets.ingestion.catalogue import Outcome
from datops_assets.ingestion.copy_text import escaped, gathered, send_copy
from datops_assets.ingestion.csv_check import NotPlainError, PlainCsvCheck
from datops_assets.ingestion.csv_records import CsvRecords, Record
from datops_assets.ingestion.csv_text import CsvText, delivered_bytes, is_utf8, open_csv
from datops_assets.ingestion.damaged import DamagedRecords
from datops_assets.ingestion.job import LoadJob
from datops_assets.ingestion.names import occurrences
from datops_assets.ingestion.read_ahead import reading_ahead
from datops_assets.ingestion.schema_policy import follow_by_policy
from datops_assets.postgres import failpoints


def load_csv(conn: psycopg.Connection[Any], job: LoadJob) -> Outcome:
    """Load one CSV file: all of it, or nothing.

    raises     ContainerDamagedError, FileChangedError, LockTakenError; nothing was kept
    promise    rows, damaged records and the catalogue's entry commit together
    """
    try:
        return _load(conn, job, careful=False)
    except NotPlainError:
        return _load(conn, job, careful=True)


def _load(conn: psycopg.Connection[Any], job: LoadJob, *, careful: bool) -> Outcome:
    with job.open_text() as delivery, DamagedRecords(job.load_id) as damaged:
        text = open_csv(job.watched(delivery.chunks()), job.csv, job.unit.path)
        wanted = [WantedColumn(column, "text") for column in occurrences(text.columns)]
        columns = follow_by_policy(conn, job, wanted, text.columns)
        require_types(columns, wanted, job.unit.path)
        careful = careful or text.dialect.newline != b"\n" or any(column.in_more for column in columns)
        failpoints.hit("before_copy")
        with conn.transaction():
            number_rows(conn, job.bronze, job.load_id)
            if not columns:
                records = 0
            elif careful:
                records = copy_carefully(conn, job.bronze, columns, text, damaged)
            else:
                with constant_load_id(conn, job.bronze, job.load_id, job.unit.size_bytes):
                    records = copy_plain(conn, job.bronze, columns, text)
            failpoints.hit("after_copy")
            damaged.write(conn, job.source, job.table)
            failpoints.hit("after_quarantine")
            outcome = job.outcome(
                delivery.content_hash(),
                delivery.reached(),
                records - damaged.count,
                damaged.count,
                text.columns,
            )
            outcome = replace(outcome, read_as=text.read_as)
            job.finish(conn, outcome)
            failpoints.hit("before_commit")
    return outcome


def copy_plain(
    conn: psycopg.Connection[Any], bronze: BronzeTable, columns: Sequence[BronzeColumn], text: CsvText
) -> int:
    """Send the bytes through COPY as they are; returns the number of records.

    raises     NotPlainError: they are not for COPY, or it counted other records than we did.
               The caller rolls back.
    """
    check = PlainCsvCheck(text.dialect.delimiter, text.dialect.header, crlf=text.crlf)
    statement = sql.SQL("copy {} ({}) from stdin (format csv, delimiter {}, encoding 'utf8')").format(
        bronze.name,
        sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
        sql.Literal(text.dialect.delimiter.decode()),
    )
    try:
        with conn.cursor() as cursor:
            with reading_ahead(_checked(check, text.chunks)) as parts:
                send_copy(cursor, statement, parts)
            copied = cursor.rowcount
    except psycopg.DataError as error:
        # Not chained: its CONTEXT holds cell values.
        raise NotPlainError(f"COPY says {type(error).__name__}") from None
    if copied != check.records:
        raise NotPlainError(f"COPY took {copied} records of {check.records}")
    return int(copied)


def _checked(check: PlainCsvCheck, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if part := check.feed(chunk):
            yield part
    if part := check.finish():
        yield part


def copy_carefully(
    conn: psycopg.Connection[Any],
    bronze: BronzeTable,
    columns: Sequence[BronzeColumn],
    text: CsvText,
    damaged: DamagedRecords,
) -> int:
    """Send record by record; what is damaged goes to `damaged` and the rest loads.

    returns    the number of records, damaged ones among them
    """
    records = CsvRecords(text.chunks, text.dialect, text.position)
    lines = CopyLines(columns, damaged, text.dialect.encoding)
    # No thread here: it would be Python all the time, and COPY would wait for the interpreter's lock.
    with conn.cursor() as cursor:
        send_copy(cursor, numbered_copy(bronze, columns), gathered(lines.of(records)))
    return lines.records


def numbered_copy(bronze: BronzeTable, columns: Sequence[BronzeColumn]) -> sql.Composed:
    """Return the COPY statement for what `CopyLines` makes."""
    names = ["_row", *(column.name for column in columns if not column.in_more)]
    if any(column.in_more for column in columns):
        names.append("_more")
    return sql.SQL("copy {} ({}) from stdin (format text, encoding 'utf8')").format(
        bronze.name, sql.SQL(", ").join(map(sql.Identifier, names))
    )


class CopyLines:
    """Turn records into lines of COPY's text format, counting and setting damage aside."""

    def __init__(self, columns: Sequence[BronzeColumn], damaged: DamagedRecords, encoding: str) -> None:
        self.records = 0
        """How many there were so far, damaged ones among them."""
        self._render = _renderer(columns)
        self._damaged = damaged
        self._encoding = encoding
        # Counted in the text as UTF-8, they would mislead in a file of another encoding.
        self._has_positions = is_utf8(encoding)

    def of(self, records: Iterable[Record]) -> Iterator[bytes]:
        """Yield one line a record that is in order."""
        for record in records:
            self.records += 1
            if record.fields is None:
                self._set_aside(record)
            else:
                yield b"%d\t%s\n" % (self.records, self._render(record.fields))

    def _set_aside(self, record: Record) -> None:
        position = record.position if self._has_positions else None
        raw = delivered_bytes(record.raw, self._encoding)
        self._damaged.add(self.records, raw, position, record.damage or "damaged")


def _renderer(columns: Sequence[BronzeColumn]) -> Callable[[list[bytes | None]], bytes]:
    """Return what turns the fields of one record into COPY's text format."""
    own = [n for n, column in enumerate(columns) if not column.in_more]
    more = [(n, json.dumps(column.delivered.name)) for n, column in enumerate(columns) if column.in_more]
    if not more:
        return lambda fields: b"\t".join(map(escaped, fields))

    def with_more(fields: list[bytes | None]) -> bytes:
        pairs = (f"{key}: {json.dumps(_text(fields[n]), ensure_ascii=False)}" for n, key in more)
        rest = ("{" + ", ".join(pairs) + "}").encode()
        return b"\t".join(map(escaped, chain((fields[n] for n in own), [rest])))

    return with_more


def _text(field: bytes | None) -> str | None:
    return None if field is None else field.decode()
