"""What a person declares about one table of a source: values only, nothing is opened here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from datops_assets.errors import DeclarationError
from datops_assets.ingestion.packed import without_packing

Format = Literal[
    "csv", "jsonl", "json", "parquet", "orc", "avro", "excel", "fixed", "rows", "copy"
]  # fmt: skip
"""How a unit is written; `rows` are record batches of a driver, `copy` is PostgreSQL's binary COPY."""
Disposition = Literal["append", "replace", "merge", "snapshot"]
ChangedFile = Literal["append", "replace", "refuse"]
SchemaPolicy = Literal["evolve", "freeze", "quarantine"]

ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".orc": "orc",
    ".avro": "avro",
    ".xlsx": "excel",
    ".xlsm": "excel",
}
"""File endings that name a format without being told; that of a packing may follow a text format."""


def reading_of(*how: object) -> str:
    """Return a short name for a way of reading: the same values, the same name."""
    return hashlib.sha256(repr(how).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CsvOptions:
    """How the CSV files of a table are written."""

    delimiter: str = ","
    """auto: each file's own, told by its first records."""
    encoding: str = "utf-8"
    """auto: each file's own, told by its first bytes."""
    header: bool = True

    def __post_init__(self) -> None:
        """Refuse what COPY could not take either."""
        is_one = len(self.delimiter) == 1 and self.delimiter.isascii() and self.delimiter not in '"\r\n\0'
        if not is_one and self.delimiter != "auto":
            raise DeclarationError(
                ["csv.delimiter: expected one ASCII character other than a quote or a line end"]
            )
        if self.encoding == "auto":
            return
        try:
            "".encode(self.encoding)
        except LookupError:
            raise DeclarationError(
                [f"csv.encoding: {self.encoding!r} is not an encoding that Python knows"]
            ) from None


@dataclass(frozen=True)
class ExcelOptions:
    """Where in a workbook the records are."""

    sheet: str | None = None
    """None: it has only one."""
    header_row: int = 1
    """Counted from 1; what stands above is passed over."""


@dataclass(frozen=True)
class FixedColumn:
    """One column of a fixed-width text, in characters."""

    name: str
    begin: int
    """Counted from 0."""
    width: int


@dataclass(frozen=True)
class FixedOptions:
    """Where the columns of a fixed-width text stand."""

    columns: tuple[FixedColumn, ...]
    encoding: str = "utf-8"
    trim: bool = False
    """Whether blanks around a value are no part of it."""

    @property
    def length(self) -> int:
        """Characters of a record."""
        return max(column.begin + column.width for column in self.columns)


@dataclass(frozen=True)
class Landing:
    """When a file counts as fully delivered, and how many a day should bring."""

    stable_for_s: float = 0
    """Seconds since the last modification before a file is taken."""
    done_marker: str | None = None
    """A file beside it that says "complete": a plain name, or a pattern with {name}."""
    files_per_day: int | None = None


@dataclass(frozen=True)
class FilePartition:
    """The day a file belongs to, read from its path below the root."""

    pattern: str
    """Regular expression; group `date`, else the first group, holds the day."""
    format: str = "%Y-%m-%d"

    def key_of(self, path: str) -> str | None:
        """Return the day as an ISO date (so that keys sort by time); None where the path names none."""
        match = re.search(self.pattern, path)
        if match is None:
            return None
        text = match.groupdict().get("date") or match.group(1 if match.re.groups else 0)
        try:
            return datetime.strptime(text, self.format).date().isoformat()
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """What every table of every source has: its names, and what a delivery does to those before it."""

    source: str
    name: str
    disposition: Disposition = "append"
    rename: dict[str, str] = field(default_factory=dict)
    schema_policy: SchemaPolicy = "evolve"
    """What happens when a delivery's columns are not those known."""
    allow_empty: bool = False
    """Whether a whole delivery without a record may take the place of records."""

    @property
    def label(self) -> str:
        """The name people use in messages and commands."""
        return f"{self.source}.{self.name}"

    @property
    def whole(self) -> bool:
        """Whether the newest delivery is all there is."""
        return self.disposition in ("replace", "snapshot")

    @property
    def by_day(self) -> bool:
        """Whether a unit belongs to a day, its partition."""
        return False

    @property
    def changed_unit(self) -> ChangedFile:
        """What a known path with new content does to the loads before it."""
        return "replace"

    @property
    def reading(self) -> str:
        """Return what changes when its units are to be read, or taken, in another way."""
        return reading_of(self.whole)

    @property
    def taking(self) -> str:
        """Return `reading`, and under which policy: another one is worth another try of what was refused."""
        policies = [] if self.schema_policy == "evolve" else [self.schema_policy]
        return " ".join([self.reading, *policies, *(["allow_empty"] if self.allow_empty else [])])


@dataclass(frozen=True, kw_only=True)
class FileTable(SourceTable):
    """One table of a file source: which files, how they are written, what a new delivery does."""

    root: Path | str
    """A folder of this machine, or a URL."""
    pattern: str
    """Glob below the root; several stand one a line."""
    format: Format | None = None
    csv: CsvOptions = CsvOptions()
    records: str | None = None
    """Path to the array in a JSON document ("data.items"); None: the document is the array."""
    excel: ExcelOptions = ExcelOptions()
    fixed: FixedOptions | None = None
    """Stated where the format is `fixed`."""
    member: str | None = None
    """Glob of the file inside a zip; None: it holds only one."""
    landing: Landing = Landing()
    changed_file: ChangedFile = "replace"
    partition: FilePartition | None = None

    @property
    def patterns(self) -> list[str]:
        """Return the globs one by one."""
        return self.pattern.split("\n")

    @property
    def by_day(self) -> bool:
        """Whether its files carry their day."""
        return self.partition is not None

    @property
    def changed_unit(self) -> ChangedFile:
        """As declared."""
        return self.changed_file

    @property
    def reading(self) -> str:
        """Return what changes when its files are to be read, or taken, in another way."""
        how = (self.format, self.csv, self.records, self.changed_file, self.whole)
        more = (self.member, self.excel != ExcelOptions() and self.excel, self.fixed)
        return reading_of(*how, *(part for part in more if part))

    def csv_of(self, format_: Format | None) -> CsvOptions:
        """Return how CSV text of a unit is written: a workbook's is always of one kind."""
        return CsvOptions() if format_ == "excel" else self.csv

    def format_of(self, path: str) -> Format | None:
        """Return the stated format, else the one the ending names; None where it names none."""
        if self.format is not None:
            return self.format
        names = [without_packing(path), self.member or ""]
        return next(
            (known for name in names for ending, known in ENDINGS.items() if name.lower().endswith(ending)),
            None,
        )
