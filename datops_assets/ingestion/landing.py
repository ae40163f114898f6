"""Whether as many files arrived per day as were declared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import psycopg

from datops_assets.ingestion.catalogue import known_entries
from datops_assets.ingestion.tables import FileTable
from datops_assets.postgres.tables import find_table_id


@dataclass(frozen=True)
class LandingFinding:
    """A day with fewer or more files than declared."""

    table: str
    day: date
    expected: int
    found: int

    def __str__(self) -> str:
        """Say it in a sentence."""
        return f"{self.table}: {self.found} file(s) of {self.day.isoformat()}, expected {self.expected}"


def landing_findings(
    conn: psycopg.Connection[Any], table: FileTable, *, until: date | None = None
) -> list[LandingFinding]:
    """Return the days on which files are missing or surplus, from the first day that has a file.

    until      the last day to look at; None: the last day that has a file
    promise    a day is the file's partition, else the day it was loaded; nothing declared, nothing found
    """
    if table.landing.files_per_day is None:
        return []
    number = find_table_id(conn, table.source, table.name)
    entries = known_entries(conn, number) if number is not None else {}
    days = [
        date.fromisoformat(last.partition_key) if last.partition_key else last.started_at.date()
        for last in (known[-1] for known in entries.values())
    ]
    return compare_days(table.label, days, table.landing.files_per_day, until)


def compare_days(table: str, days: Iterable[date], expected: int, until: date | None) -> list[LandingFinding]:
    """Hold the number of files per day against what was expected. Pure."""
    found = Counter(days)
    if not found:
        return []
    first, last = min(found), until or max(found)
    span = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return [LandingFinding(table, day, expected, found[day]) for day in span if found[day] != expected]
