"""Fixed-width text into bronze: lines that are alike many at a time, all others one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from datops_assets.ingestion.bronze import BronzeColumn, WantedColumn, number_rows, require_types
from datops_assets.ingestion.catalogue import Outcome
from datops_assets.ingestion.copy_text import gathered, send_copy
from datops_assets.ingestion.csv_check import NotPlainError
from datops_assets.ingestion.csv_load import CopyLines, numbered_copy
from datops_assets.ingestion.damaged import DamagedRecords
from datops_assets.ingestion.fixed_width import fixed_records, line_records, open_fixed, quick_lines, windows
from datops_assets.ingestion.job import LoadJob
from datops_assets.ingestion.names import occurrences
from datops_assets.ingestion.schema_policy import follow_by_policy
from datops_assets.ingestion.tables import FileTable, FixedOptions
from datops_assets.postgres import failpoints


def load_fixed(conn: psycopg.Connection[Any], job: LoadJob) -> Outcome:
    """Load one fixed-width file: all of it, or nothing.

    raises     ContainerDamagedError, FileChangedError, LockTakenError; nothing was kept
    promise    rows, damaged records and the catalogue's entry commit together
    """
    try:
        return _load(conn, job, careful=False)
    except NotPlainError:
        return _load(conn, job, careful=True)


def _load(conn: psycopg.Connection[Any], job: LoadJob, *, careful: bool) -> Outcome:
    assert isinstance(job.declared, FileTable)
    assert job.declared.fixed is not None
    options = job.declared.fixed
    names = [column.name for column in options.columns]
    with job.open_text() as delivery, DamagedRecords(job.load_id) as damaged:
        wanted = [WantedColumn(column, "text") for column in occurrences(names)]
        columns = follow_by_policy(conn, job, wanted, names)
        require_types(columns, wanted, job.unit.path)
        careful = careful or any(column.in_more for column in columns)
        lines = _Lines(columns, options, damaged)
        text = open_fixed(job.watched(delivery.chunks()), options)
        failpoints.hit("before_copy")
        with conn.transaction():
            number_rows(conn, job.bronze, job.load_id)
            with conn.cursor() as cursor:
                parts = lines.careful(text) if careful else lines.quick(text)
                send_copy(cursor, numbered_copy(job.bronze, columns), parts)
            failpoints.hit("after_copy")
            damaged.write(conn, job.source, job.table)
            failpoints.hit("after_quarantine")
            rows = lines.records - damaged.count
            outcome = job.outcome(delivery.content_hash(), delivery.reached(), rows, damaged.count, names)
            job.finish(conn, outcome)
            failpoints.hit("before_commit")
    return outcome


class _Lines:
    """Turn a text into lines of COPY's text format, each with its number."""

    def __init__(
        self, columns: Sequence[BronzeColumn], options: FixedOptions, damaged: DamagedRecords
    ) -> None:
        self._options = options
        self._copy = CopyLines(columns, damaged, options.encoding)

    @property
    def records(self) -> int:
        """How many records there were so far, damaged ones among them."""
        return self._copy.records

    def careful(self, text: Iterator[bytes]) -> Iterator[bytes]:
        """Yield line by line."""
        return gathered(self._copy.of(fixed_records(text, self._options)))

    def quick(self, text: Iterator[bytes]) -> Iterator[bytes]:
        """Yield a window at once where its lines are alike.

        raises     NotPlainError: a line is longer than 64 MiB
        """
        for window, position in windows(text):
            alike = quick_lines(window, self._options, self._copy.records + 1)
            if alike is None:
                yield from gathered(self._copy.of(line_records(window, position, self._options)))
            else:
                self._copy.records += alike[0]
                yield alike[1]
