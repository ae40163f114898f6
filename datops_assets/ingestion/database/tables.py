"""Which table of a database is read, which of its columns, and from where on: values only."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace

from datops_assets.errors import DeclarationError, SourceRefusedError
from datops_assets.ingestion.source import Unit
from datops_assets.ingestion.tables import ChangedFile, Format, SourceTable, reading_of

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LOOKBACK = re.compile(r"(\d{1,9})([smhd]?)")


@dataclass(frozen=True)
class Lookback:
    """How far below the watermark a reading begins again: seconds of a time, or steps of a number."""

    amount: int
    is_time: bool

    @classmethod
    def parse(cls, text: str) -> Lookback:
        """Read `90s`, `30m`, `1h`, `2d`, or a plain number for a cursor that counts.

        raises    DeclarationError
        """
        found = _LOOKBACK.fullmatch(text)
        if found is None or not int(found[1]):
            raise DeclarationError([f"lookback {text!r}: expected 30m, 1h, 2d, or a number of steps"])
        return cls(int(found[1]) * _SECONDS.get(found[2], 1), bool(found[2]))


@dataclass(frozen=True, kw_only=True)
class DatabaseTable(SourceTable):
    """One table of a database."""

    schema: str | None = None
    """None: the database's own default."""
    relation: str
    cursor: str | None = None
    """Column that only grows; None: every reading is of the whole table."""
    lookback: Lookback | None = None
    columns: tuple[str, ...] = ()
    """Only these; none: all."""
    exclude: tuple[str, ...] = ()
    as_text: tuple[str, ...] = ()
    """Columns delivered as the text the database prints, whatever their type."""
    parallel: int = 1
    """Connections that share the first reading, or each reading of the whole table."""

    @property
    def where(self) -> str:
        """Its name in the database, for people."""
        return f"{self.schema}.{self.relation}" if self.schema else self.relation

    @property
    def changed_unit(self) -> ChangedFile:
        """Whole tables merged by key keep what earlier readings brought; else a reading gives way to the next."""
        return "append" if self.disposition == "merge" and self.cursor is None else "replace"

    @property
    def reading(self) -> str:
        """Return what changes when its rows are read in another way."""
        return reading_of(
            self.where, self.cursor, self.lookback, self.columns, self.exclude, self.as_text, self.whole
        )

    def require_columns(self, names: list[str], database: str) -> None:
        """Hold what is declared against the columns that are there.

        raises    DeclarationError: some are not, with those that are
        """
        asked = [*self.columns, *self.exclude, *self.as_text, *([self.cursor] if self.cursor else [])]
        unknown = [name for name in dict.fromkeys(asked) if name not in names]
        if unknown:
            raise SourceRefusedError(
                f"{self.label}: {self.where} at {database} has no column {', '.join(map(repr, unknown))},"
                f" expected some of: {', '.join(names)}"
            )

    def takes(self, name: str) -> bool:
        """Whether a column is read."""
        return (not self.columns or name in self.columns) and name not in self.exclude


@dataclass(frozen=True)
class Reading:
    """One reading of a table: all of it, or a range of its cursor."""

    table: DatabaseTable
    lower: str | None = None
    """Cursor values greater than this (before the lookback), as the database prints it; None: from the beginning."""
    upper: str | None = None
    """And not greater than this; None: no limit."""
    most_rows: int | None = None

    @property
    def path(self) -> str:
        """Its identity in the load catalogue; readings from the beginning share one, so each replaces the last."""
        where = self.table.where
        if self.lower is None:
            return where
        back = f" - {self.table.lookback.amount}" if self.table.lookback else ""
        return f"{where} {self.table.cursor} > {self.lower}{back} <= {self.upper}"

    @property
    def connections(self) -> int:
        """How many read it: what came since the watermark, or a sample, is not worth dividing."""
        return self.table.parallel if self.lower is None and self.most_rows is None else 1

    def unit(self, format_: Format, size_bytes: int, fingerprint: str | None) -> Unit:
        """Say it as a unit, which `read_from` understands again."""
        location = json.dumps(asdict(self), default=str)
        return Unit(self.path, format_, size_bytes, fingerprint, location=location)

    @classmethod
    def read_from(cls, unit: Unit) -> Reading:
        """Take it out of a unit."""
        values = json.loads(unit.location)
        table = values.pop("table")
        lookback = table.pop("lookback")
        table |= {name: tuple(table[name]) for name in ("columns", "exclude", "as_text")}
        declared = DatabaseTable(**table, lookback=Lookback(**lookback) if lookback else None)
        return replace(cls(declared, **values), most_rows=unit.most_rows)
