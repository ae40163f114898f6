"""What all databases have in common as sources: looking at a table, and where to go on reading.

Belongs here: which units there are now. Does not: how one database is asked (postgres, mysql,
engine), or how its rows travel.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

from datops_assets.errors import DatopsError, SourceRefusedError
from datops_assets.ingestion.database.address import Address
from datops_assets.ingestion.database.tables import DatabaseTable, Reading
from datops_assets.ingestion.source import Reachability, Source, Unit
from datops_assets.ingestion.tables import Format

CursorKind = Literal["number", "time", "text"]


class TableColumn(Protocol):
    """One column of a source table, whatever the database."""

    @property
    def name(self) -> str:
        """As the database names it."""
        ...

    @property
    def declared(self) -> str:
        """Its type as the database prints it."""
        ...

    @property
    def cursor_kind(self) -> CursorKind | None:
        """What its values count, if they can only grow in an order that survives being written down."""
        ...


ColumnT = TypeVar("ColumnT", bound=TableColumn)


@dataclass(frozen=True)
class Found(Generic[ColumnT]):
    """What is known of a table without reading it."""

    columns: list[ColumnT]
    """All there are, in the table's order."""
    rows: int
    """An estimate; 0: nobody counted."""
    size_bytes: int

    def taken(self, table: DatabaseTable) -> list[ColumnT]:
        """Those that are read."""
        return [column for column in self.columns if table.takes(column.name)]

    def cursor(self, table: DatabaseTable) -> ColumnT | None:
        """The cursor's column, if one is declared."""
        return next((column for column in self.columns if column.name == table.cursor), None)


class TableSource(Source[DatabaseTable], Generic[ColumnT]):
    """The tables of one database."""

    unit_format: ClassVar[Format]

    def __init__(self, address: Address) -> None:
        self._address = address

    @abstractmethod
    def explained(self, what: str) -> AbstractContextManager[None]:
        """Turn the driver's errors into sentences about `what`; not chained, they may hold cell values."""

    @abstractmethod
    def find(self, table: DatabaseTable) -> Found[ColumnT]:
        """Look at a table. Raises SourceRefusedError where this user sees none of the name."""

    @abstractmethod
    def try_out(self, table: DatabaseTable, found: Found[ColumnT]) -> None:
        """Select no row of it, to find out whether this user may."""

    @abstractmethod
    def highest(self, table: DatabaseTable, cursor: ColumnT) -> str | None:
        """The cursor's highest value as text that reads back as the same; None: there is none."""

    @abstractmethod
    def without_place(self, table: DatabaseTable, cursor: ColumnT) -> int:
        """Count the rows whose cursor has no value that a reading could go on from."""

    @abstractmethod
    def is_greater(self, cursor: ColumnT, one: str, other: str) -> bool:
        """Compare two values as the cursor does."""

    @abstractmethod
    def state(self, reading: Reading, cursor: ColumnT) -> str:
        """Tell one content of a range from another, without reading its rows."""

    def looked_at(self, table: DatabaseTable) -> Found[ColumnT]:
        """Look at a table and hold it against what is declared.

        raises    SourceRefusedError: no such table or column, or a cursor that is none
        """
        found = self.find(table)
        table.require_columns([column.name for column in found.columns], self._address.shown)
        cursor = found.cursor(table)
        if cursor is not None and cursor.cursor_kind is None:
            raise SourceRefusedError(
                f"{table.label}: the cursor {cursor.name!r} is {cursor.declared}, expected a whole number,"
                " a decimal, a date, a timestamp, text or uuid"
            )
        if cursor is not None and table.lookback is not None:
            expected = "time" if table.lookback.is_time else "number"
            if cursor.cursor_kind != expected:
                raise SourceRefusedError(
                    f"{table.label}: the lookback does not go with the cursor {cursor.name!r}, which is"
                    f" {cursor.declared}; expected 1h for a time, 100 for a number"
                )
        return found

    def no_table(self, table: DatabaseTable) -> SourceRefusedError:
        """What to say where there is none."""
        return SourceRefusedError(
            f"there is no table {table.where} at {self._address.shown} that this user may see;"
            f" correct `table:` of {table.label}, or grant it"
        )

    def check(self, table: DatabaseTable) -> Reachability:
        """Say whether the table can be read now, and what was found."""
        try:
            with self.explained(table.where):
                found = self.looked_at(table)
                self.try_out(table, found)
                left_out = self._left_out(table, found)
        except DatopsError as error:
            return Reachability(False, str(error))
        rows = f"about {found.rows:,} rows" if found.rows else "rows not counted yet"
        columns = len(found.taken(table))
        said = f"{table.where} at {self._address.shown}: {columns} column(s), {rows}"
        if left_out:
            said += f"; {left_out:,} of them have no value in the cursor {table.cursor!r}: only a first load takes them"
        return Reachability(True, said)

    def list_units(self, table: DatabaseTable, watermark: str | None = None) -> Sequence[Unit]:
        """Give the whole table, or what its cursor has past the watermark."""
        with self.explained(table.where):
            found = self.looked_at(table)
            cursor = found.cursor(table)
            if cursor is None:
                return [Reading(table).unit(self.unit_format, found.size_bytes, None)]
            upper = self.highest(table, cursor)
            if watermark is None:
                return [Reading(table, None, upper).unit(self.unit_format, found.size_bytes, upper)]
            has_grown = upper is not None and self.is_greater(cursor, upper, watermark)
            reading = Reading(table, watermark, upper if has_grown else watermark)
            if table.lookback is not None:
                return [reading.unit(self.unit_format, 0, self.state(reading, cursor))]
            return [reading.unit(self.unit_format, 0, upper)] if has_grown else []

    def count_left_out(self, table: DatabaseTable) -> int:
        """Those without a value in the cursor: the first reading took what there was, no later one looks for them."""
        with self.explained(table.where):
            return self._left_out(table, self.looked_at(table)) if table.cursor is not None else 0

    def _left_out(self, table: DatabaseTable, found: Found[ColumnT]) -> int:
        cursor = found.cursor(table)
        return 0 if cursor is None else self.without_place(table, cursor)

    def sketch(self, table: DatabaseTable) -> list[str]:
        """Name the columns."""
        with self.explained(table.where):
            return [column.name for column in self.looked_at(table).taken(table)]

    def acknowledge(self, unit: Unit) -> None:
        """Leave the source as it is: the watermark stands in the catalogue."""
