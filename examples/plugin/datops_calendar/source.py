"""A calendar as a source: one row a day, one unit a year."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import Field, model_validator

from datops_assets.components.document import PipelineDocument, SourceSettings, TableDocument
from datops_assets.components.sources.kind import SourceKind
from datops_assets.ingestion import ArrowDelivery, Reachability, Source, SourceTable, Unit

SCHEMA = pa.schema(
    [("day", pa.date32()), ("weekday", pa.string()), ("iso_week", pa.int16()), ("is_weekend", pa.bool_())]
)


class CalendarSource(SourceSettings):
    """Days of the Gregorian calendar; nothing is asked of the outside."""

    type: Literal["calendar"]

    @property
    def shown(self) -> str:
        """There is but one."""
        return "the Gregorian calendar"


class CalendarTableDocument(TableDocument):
    """One table: which years."""

    from_year: int = Field(ge=1900, le=2199, description="First year.")
    to_year: int = Field(ge=1900, le=2199, description="Last year.")

    @model_validator(mode="after")
    def _in_order(self) -> CalendarTableDocument:
        if self.from_year > self.to_year:
            raise ValueError("from_year is after to_year, expected the first year first")
        return self

    @property
    def delivered_as(self) -> str:
        """The years."""
        return f"{self.from_year} to {self.to_year}"

    @property
    def technology(self) -> str:
        """For the asset's icon."""
        return "calendar"


@dataclass(frozen=True)
class CalendarTable(SourceTable):
    """What the source is told of one table."""

    years: range = range(0)


class CalendarKind(SourceKind[CalendarSource, CalendarTableDocument]):
    """Days of the calendar: weekday, week, weekend or not."""

    settings = CalendarSource
    table = CalendarTableDocument

    def declare(self, document: PipelineDocument, name: str, project_root: Path) -> CalendarTable:
        """Say which years."""
        _, table = self.parts(document, name)
        return CalendarTable(
            source=document.pipeline,
            name=name,
            disposition=table.load,
            rename=table.rename,
            years=range(table.from_year, table.to_year + 1),
        )

    def open(self, document: PipelineDocument, project_root: Path) -> Calendar:
        """Nothing has to be opened."""
        return Calendar()


class Calendar(Source[CalendarTable]):
    """Each year is a unit; what a year delivers never changes."""

    def check(self, table: CalendarTable) -> Reachability:
        """A calendar is always there, unless no year is wanted of it."""
        if not table.years:
            return Reachability(False, "no year is asked for, expected from_year and to_year")
        return Reachability(True, f"{len(table.years)} year(s)")

    def list_units(self, table: CalendarTable, watermark: str | None = None) -> Sequence[Unit]:
        """A unit a year. Its fingerprint is its name: the content never changes."""
        return [Unit(str(year), "rows", 0, fingerprint=str(year)) for year in table.years]

    def open(self, unit: Unit) -> Year:
        """One year."""
        return Year(int(unit.path), unit.most_rows)

    def sketch(self, table: CalendarTable) -> list[str]:
        """The columns are always the same."""
        return SCHEMA.names

    def acknowledge(self, unit: Unit) -> None:
        """Nobody waits to hear it."""


class Year(ArrowDelivery):
    """The days of one year as record batches."""

    def __init__(self, year: int, most_rows: int | None) -> None:
        self._year = year
        self._most_rows = most_rows

    def schema(self) -> pa.Schema:
        """Typed columns: bronze keeps them."""
        return SCHEMA

    def batches(self) -> Iterator[pa.RecordBatch]:
        """366 rows at most, so one batch."""
        first = date(self._year, 1, 1)
        days = [first + timedelta(days=n) for n in range((date(self._year + 1, 1, 1) - first).days)]
        rows = [
            {
                "day": day,
                "weekday": f"{day:%A}",
                "iso_week": day.isocalendar().week,
                "is_weekend": day.weekday() > 4,
            }
            for day in days[: self._most_rows]
        ]
        yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)

    def content_hash(self) -> str:
        """Of what is delivered; here the year says all of it."""
        return hashlib.sha256(f"{self._year}:{self._most_rows}".encode()).hexdigest()

    def close(self) -> None:
        """Nothing is open."""
