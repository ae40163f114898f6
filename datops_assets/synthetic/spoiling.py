"""What a value, a record or a line becomes by a fault, and which of them can have it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datops_assets.synthetic.cells import Frame, csv_cell, json_cell, json_string
from datops_assets.synthetic.declaration import Fault
from datops_assets.synthetic.files import Layout, Record
from datops_assets.synthetic.tables import Column, Table

_NOT_OF_THE_TYPE = ("n/a", "unknown", "#REF!", "twelve", "?")
_NO_DATES = ("2026-02-30T10:00:00Z", "0000-00-00", "31/12/2026 25:61", "yesterday")
_NOT_IN_THE_SET = ("teleported", "???", "N/A", "unbekannt")
_UNKNOWN_KEY = 9_000_000_000
_FAR_FUTURE_S = 7_289_568_000  # 2201-01-01
_TOO_MUCH = {
    "money": 999_999_999_999,
    "int": 2_000_000_000,
    "time": _FAR_FUTURE_S,
    "time_ms": _FAR_FUTURE_S * 1000,
}
# Encodes to the single byte E9, "é" in Latin-1. No character of ours starts with one of the
# bytes that would have to follow it in UTF-8.
_LATIN_1_BYTE = "\udce9"


def possible(frame: Frame, fault: Fault) -> NDArray[np.bool_]:
    """Which records can have a fault: a null cannot go missing, a 0 cannot turn negative."""
    anywhere = np.ones(len(frame), dtype=np.bool_)
    if fault.fault == "stale_duplicate":
        return _with_a_past(frame)
    column = fault.target()
    if column is None:
        return anywhere
    values = frame.columns[column.name]
    if fault.fault == "negative":
        return np.asarray(values) > 0
    if column.kind == "int" and column.optional:
        return np.asarray(values) != 0
    if fault.fault == "stray_quote":
        plain = [len(text) > 1 and csv_cell(text) == text for text in values]
        return np.array(plain, dtype=np.bool_)
    return anywhere


def first_version(frame: Frame) -> Frame:
    """Records as they were when they came to be."""
    columns = dict(frame.columns)
    for name, how, other in frame.table.first_version:
        columns[name] = [other] * len(frame) if how == "=" else frame.columns[other]
    return Frame(frame.table, columns)


def spoiled(layout: Layout, frame: Frame, record: int, fault: Fault, draw: int) -> Record:
    """One record of a frame as its file holds it, with a fault in it."""
    alone = frame.take(np.array([record]))
    if layout.table.format == "parquet":
        values = layout.records(alone)[0]
        position = layout.columns.index(target(fault))
        value = _spoiled_value(fault, values[position], draw)
        return (*values[:position], value, *values[position + 1 :])
    cells = [column[0] for column in layout.cells(alone)]
    line = layout.lines([[cell] for cell in cells])[0]
    if fault.fault == "truncated_row":
        if layout.table.format == "csv":
            return ",".join(cells[: 1 + draw % (len(cells) - 1)])
        return line[: len(line) // 2]
    if fault.fault == "extra_column":
        return f"{line},surplus" if layout.table.format == "csv" else f'{line[:-1]},"surplus":"x"}}'
    column = target(fault)
    cells[layout.columns.index(column)] = _spoiled_cell(alone, column, fault, draw)
    return layout.lines([[cell] for cell in cells])[0]


def cut(table: Table, line: str) -> str:
    """Cut a line so that nobody takes it for whole."""
    return line[: len(line) // 2] if table.format == "jsonl" else line[: max(line.find(","), 1)]


def target(fault: Fault) -> Column:
    """The column of a fault that is in one; `ShopPlan` refused it where there is none."""
    column = fault.target()
    if column is None:
        raise ValueError(f"{fault.fault} on {fault.table} has no column")
    return column


def _with_a_past(frame: Frame) -> NDArray[np.bool_]:
    differs = np.zeros(len(frame), dtype=np.bool_)
    for name, how, other in frame.table.first_version:
        if how == "@":
            differs |= np.asarray(frame.columns[name]) != np.asarray(frame.columns[other])
    return differs


def _spoiled_value(fault: Fault, value: int | str | None, draw: int) -> int | str | None:
    """What a value becomes by a fault that keeps it to its column's type."""
    match fault.fault:
        case "missing_value":
            return None
        case "negative":
            return -int(value or 0)
        case "unknown_foreign_key":
            return _UNKNOWN_KEY + draw % 1_000_000
        case "nul_byte":
            return _inserted(str(value), "\x00")
    kind = target(fault).kind
    return _NOT_IN_THE_SET[draw % len(_NOT_IN_THE_SET)] if kind == "text" else _TOO_MUCH[kind]


def _spoiled_cell(alone: Frame, column: Column, fault: Fault, draw: int) -> str:
    """What a cell of a text format becomes, as it stands in the file."""
    is_csv = alone.table.format == "csv"
    text = alone.cell(column.name, 0) or ""
    match fault.fault:
        case "wrong_type" | "bad_date":
            choice = _NO_DATES if fault.fault == "bad_date" else _NOT_OF_THE_TYPE
            wrong = choice[draw % len(choice)]
            return csv_cell(wrong) if is_csv else json_string(wrong)
        case "stray_quote":
            return _inserted(text, '"')
        case "bad_encoding" | "nul_byte":
            byte = _LATIN_1_BYTE if fault.fault == "bad_encoding" else "\x00"
            return _inserted(csv_cell(text) if is_csv else json_string(text), byte)
    value = _spoiled_value(fault, alone.columns[column.name][0], draw)
    if value is not None:
        values = [value] if isinstance(value, str) else np.array([value], dtype=np.int64)
        value = Frame(alone.table, {column.name: values}).cell(column.name, 0)
    return csv_cell(value) if is_csv else json_cell(column, value)


def _inserted(text: str, byte: str) -> str:
    """Put a byte after a text's first character (or its opening quote)."""
    return text[:1] + byte + text[1:]
