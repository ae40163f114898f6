"""Finished files and the labels of what was done to them; records as they stand in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datops_assets.synthetic.cells import Frame, cells, csv_lines, json_lines, text_file
from datops_assets.synthetic.parquet import parquet_file
from datops_assets.synthetic.tables import Column, Table

# A line of a CSV, JSON or JSON lines file, or the values of a Parquet record.
Record = str | tuple[int | str | None, ...]


@dataclass(frozen=True)
class Label:
    """What was done to one record, or to a file as a whole.

    day       the day of the file; None where there is one file for all days
    record    its number in the file, from 1, header not counted; None for a whole file
    key       the key it has (or had, where the key itself is damaged)
    original  the value before; for truncated_row the whole line, for late the file it
              belongs to, for cut_file and empty_file the number of records before
    """

    day: str | None
    table: str
    file: str
    record: int | None
    key: dict[str, str | None] | None
    fault: str
    column: str | None
    original: str | None


@dataclass(frozen=True)
class ShopFile:
    """One finished file: its path below the shop's folder, bytes, records and labels."""

    path: str
    data: bytes
    rows: int
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Which columns a file has, and what they are called in it."""

    table: Table
    columns: tuple[Column, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, table: Table) -> Layout:
        """The layout that a table's files have."""
        return cls(table, table.columns, tuple(column.name for column in table.columns))

    def without(self, column: Column) -> Layout:
        """The same, one column missing."""
        left = [kept for kept in self.columns if kept != column]
        return Layout(self.table, tuple(left), tuple(kept.name for kept in left))

    def renamed(self, column: Column) -> Layout:
        """The same, one column under another name."""
        names = (f"{kept.name}_new" if kept == column else kept.name for kept in self.columns)
        return Layout(self.table, self.columns, tuple(names))

    def cells(self, frame: Frame) -> list[list[str]]:
        """The cells of a text format, by column."""
        return [cells(frame, column) for column in self.columns]

    def lines(self, columns: Sequence[list[str]]) -> list[str]:
        """Join cells into records of a text format."""
        return csv_lines(columns) if self.table.format == "csv" else json_lines(self.names, columns)

    def records(self, frame: Frame) -> list[Record]:
        """Records as this layout's file holds them."""
        if self.table.format == "parquet":
            return list(zip(*self._values(frame), strict=True))
        return list(self.lines(self.cells(frame)))

    def file(self, records: Sequence[Record]) -> bytes:
        """Put records together to a file."""
        if self.table.format != "parquet":
            return text_file(self.table, self.names, [str(record) for record in records])
        values = [[record[position] for record in records] for position in range(len(self.columns))]
        return parquet_file(self.names, self.columns, values)

    def whole_file(self, frame: Frame) -> bytes:
        """Put all records of a frame together to a file, by column."""
        if self.table.format == "parquet":
            return parquet_file(self.names, self.columns, self._values(frame))
        return text_file(self.table, self.names, self.lines(self.cells(frame)))

    def _values(self, frame: Frame) -> list[list[int | str | None]]:
        return [np.asarray(frame.columns[column.name]).tolist() for column in self.columns]
