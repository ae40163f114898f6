"""Records of one file: held by column (Frame), written as text cells, lines and whole files.

Everything that decides bytes of CSV, JSON and JSON lines is here, and nothing of it is left to
a library whose output might change: `json.dumps` of one string is the only call outside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np

from datops_assets.synthetic.draws import Ints
from datops_assets.synthetic.tables import Column, Table

Values = Ints | Sequence[str] | np.ndarray


@dataclass(frozen=True)
class Frame:
    """Records of one table, by column: arrays for numbers, lists for text."""

    table: Table
    columns: Mapping[str, Values]

    def __len__(self) -> int:
        return len(self.columns[self.table.columns[0].name])

    def texts(self, name: str) -> list[str | None]:
        """A column as people and CSV files write it; None for null."""
        return _texts(self.table.column(name), self.columns[name])

    def cell(self, name: str, record: int) -> str | None:
        """One value as people and CSV files write it; `record` counts from 0."""
        values = self.columns[name][record : record + 1]
        return _texts(self.table.column(name), values)[0]

    def take(self, records: Ints) -> Frame:
        """Some of the records, in the order given."""
        chosen = records.tolist()
        return Frame(
            self.table,
            {
                name: values[records]
                if isinstance(values, np.ndarray)
                else [values[record] for record in chosen]
                for name, values in self.columns.items()
            },
        )


def epoch_s(day: date) -> int:
    """Midnight (UTC) of a day, in seconds since 1970."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def money(cents: int) -> str:
    """Write cents as a decimal number: -5 is -0.05."""
    sign, cents = ("-", -cents) if cents < 0 else ("", cents)
    return f"{sign}{cents // 100}.{cents % 100:02d}"


def _texts(column: Column, values: Values) -> list[str | None]:
    if column.kind in ("text", "json"):
        return list(values)
    array = np.asarray(values)
    match column.kind:
        case "time":
            return _times(array, "s")
        case "time_ms":
            return _times(array, "ms")
        case "money":
            return [money(cents) for cents in array.tolist()]
        case "bool":
            return ["true" if value else "false" for value in array.tolist()]
    if column.optional:
        return [str(value) if value else None for value in array.tolist()]
    return [str(value) for value in array.tolist()]


def _times(array: Ints, unit: str) -> list[str | None]:
    written = np.datetime_as_string(array.astype(f"datetime64[{unit}]"))
    return [f"{moment}Z" for moment in written.tolist()]


def csv_cell(text: str | None) -> str:
    """Write one CSV field (RFC 4180): null is nothing, an empty text is two quotes."""
    if text is None:
        return ""
    if text == "" or "," in text or '"' in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def json_cell(column: Column, text: str | None) -> str:
    """Write one JSON value: numbers, booleans and nested values bare, the rest as strings."""
    if text is None:
        return "null"
    if column.kind in ("int", "money", "bool", "json"):
        return text
    return json_string(text)


def json_string(text: str) -> str:
    """Write a JSON string, in UTF-8 rather than in escapes."""
    return json.dumps(text, ensure_ascii=False)


def cells(frame: Frame, column: Column) -> list[str]:
    """A column's cells as its file format writes them (CSV, JSON and JSON lines)."""
    texts = frame.texts(column.name)
    if frame.table.format != "csv":
        return [json_cell(column, text) for text in texts]
    if column.kind == "text":
        return [csv_cell(text) for text in texts]
    return ["" if text is None else text for text in texts]


def csv_lines(columns: Sequence[list[str]]) -> list[str]:
    """Join cells into CSV records, without the line feed at the end."""
    return [",".join(record) for record in zip(*columns, strict=True)]


def json_lines(names: Sequence[str], columns: Sequence[list[str]]) -> list[str]:
    """Join cells into JSON objects, one a line."""
    form = "{" + ",".join(json_string(name).replace("%", "%%") + ":%s" for name in names) + "}"
    return [form % record for record in zip(*columns, strict=True)]


def text_file(table: Table, names: Sequence[str], lines: Sequence[str]) -> bytes:
    """Put records together to a CSV, JSON or JSON lines file."""
    if table.format == "json":
        text = "[\n" + ",\n".join(lines) + "\n]\n"
    else:
        header = [",".join(names)] if table.format == "csv" else []
        text = "".join(f"{line}\n" for line in (*header, *lines))
    # A lone surrogate stands for a byte that is not UTF-8; only the fault bad_encoding makes one.
    return text.encode("utf-8", "surrogateescape")
