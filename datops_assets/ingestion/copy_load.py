"""PostgreSQL's binary COPY into bronze as it is: what one server sends the other takes, nothing is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.errors import LoadRefusedError
from datops_assets.ingestion.bronze import (
    BronzeColumn,
    WantedColumn,
    constant_load_id,
    number_rows,
)
from datops_assets.ingestion.catalogue import Outcome
from datops_assets.ingestion.copy_text import send_copy
from datops_assets.ingestion.job import LoadJob
from datops_assets.ingestion.names import occurrences
from datops_assets.ingestion.read_ahead import reading_ahead
from datops_assets.ingestion.schema_policy import follow_by_policy
from datops_assets.ingestion.source import MORE, CopyDelivery
from datops_assets.ingestion.widening import fitting_column
from datops_assets.postgres import failpoints


def load_copy(conn: psycopg.Connection[Any], job: LoadJob) -> Outcome:
    """Load one delivery of rows in binary COPY format: all of it, or nothing.

    raises     SourceUnreachableError, LockTakenError; nothing was kept.
               LoadRefusedError: a column's type changed to one that bronze cannot widen to, or the
               two servers count other rows
    promise    rows and the catalogue's entry commit together
    """
    with job.open_copy() as delivery:
        delivered = delivery.columns()
        columns = _follow(conn, job, delivered)
        failpoints.hit("before_copy")
        with conn.transaction():
            number_rows(conn, job.bronze, job.load_id)
            with constant_load_id(conn, job.bronze, job.load_id, job.unit.size_bytes):
                rows = _copy(conn, job, columns, delivery)
            failpoints.hit("after_copy")
            header = [name for name, _ in delivered]
            outcome = job.outcome(delivery.content_hash(), delivery.reached(), rows, 0, header)
            job.finish(conn, outcome)
            failpoints.hit("before_commit")
    return outcome


def _follow(
    conn: psycopg.Connection[Any], job: LoadJob, delivered: Sequence[tuple[str, str]]
) -> list[BronzeColumn]:
    """Give every column its place in bronze, as wide as both what is there and what comes."""
    names = occurrences([name for name, _ in delivered])
    wanted = [WantedColumn(name, type_) for name, (_, type_) in zip(names, delivered, strict=True)]
    columns = follow_by_policy(conn, job, wanted, [name for name, _ in delivered])
    return [
        fitting_column(conn, job, column, want.type) for column, want in zip(columns, wanted, strict=True)
    ]


def _copy(
    conn: psycopg.Connection[Any], job: LoadJob, columns: Sequence[BronzeColumn], delivery: CopyDelivery
) -> int:
    names = [column.name for column in columns if not column.in_more]
    names += ["_more"] if len(names) < len(columns) else []
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        job.bronze.name, sql.SQL(", ").join(map(sql.Identifier, names))
    )
    types = [MORE if column.in_more else column.type for column in columns]
    chunks = job.watched(delivery.chunks(types))
    with conn.cursor() as cursor:
        with reading_ahead(chunks) as ahead:
            send_copy(cursor, statement, ahead)
        taken = cursor.rowcount
    if taken != delivery.rows():
        raise LoadRefusedError(
            f"{job.unit.path}: the source sent {delivery.rows()} rows, the warehouse took {taken}; run again"
        )
    return taken
