"""The faults document: which faults there are, which table can have which, and reading the YAML.

    faults:
      - {table: orders, fault: negative, column: total, rate: 0.002}

Nothing here damages anything; damage.py does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datops_assets.errors import DeclarationError
from datops_assets.synthetic.tables import TABLES, Column, Format, Kind, Table

DEMO_FAULTS = Path(__file__).parent / "faults" / "demo.yaml"

FaultName = Literal[
    "missing_value",
    "wrong_type",
    "negative",
    "unknown_foreign_key",
    "bad_date",
    "out_of_range",
    "stray_quote",
    "bad_encoding",
    "nul_byte",
    "duplicate_key",
    "stale_duplicate",
    "late",
    "truncated_row",
    "extra_column",
    "repeated_header",
    "renamed_column",
    "missing_column",
    "empty_file",
    "cut_file",
]
TableName = Literal["customers", "products", "orders", "order_items", "payments", "web_events"]

# The way to a value of the document: faults, 2, rate.
_Place = tuple[int | str, ...]

_ALL: tuple[Format, ...] = ("csv", "json", "jsonl", "parquet")
_TEXT: tuple[Format, ...] = ("csv", "json", "jsonl")
_LINES: tuple[Format, ...] = ("csv", "jsonl")
_NUMBERS: tuple[Kind, ...] = ("int", "money")
_TIMES: tuple[Kind, ...] = ("time", "time_ms")


@dataclass(frozen=True)
class FaultKind:
    """What a fault is done to, and where it is possible.

    scope    one cell, one record, or the file as a whole; a rate is a share of these
    formats  the file formats that can show it
    kinds    the kinds of column it can be in; none where it is in no single column
    """

    scope: Literal["cell", "record", "file"]
    formats: tuple[Format, ...] = _ALL
    kinds: tuple[Kind, ...] = ()


_ANY: tuple[Kind, ...] = ("int", "money", "time", "time_ms", "text", "bool", "json")
FAULTS: dict[str, FaultKind] = {
    "missing_value": FaultKind("cell", _ALL, _ANY),
    "wrong_type": FaultKind("cell", _TEXT, (*_NUMBERS, *_TIMES, "bool")),
    "negative": FaultKind("cell", _ALL, _NUMBERS),
    "unknown_foreign_key": FaultKind("cell", _ALL, ("int",)),
    "bad_date": FaultKind("cell", _TEXT, _TIMES),
    "out_of_range": FaultKind("cell", _ALL, (*_NUMBERS, *_TIMES, "text")),
    "stray_quote": FaultKind("cell", ("csv",), ("text",)),
    "bad_encoding": FaultKind("cell", _LINES, ("text",)),
    "nul_byte": FaultKind("cell", ("csv", "jsonl", "parquet"), ("text",)),
    "duplicate_key": FaultKind("record"),
    "stale_duplicate": FaultKind("record"),
    "late": FaultKind("record"),
    "truncated_row": FaultKind("record", _LINES),
    "extra_column": FaultKind("record", _TEXT),
    "repeated_header": FaultKind("record", ("csv",)),
    "renamed_column": FaultKind("file", _ALL, _ANY),
    "missing_column": FaultKind("file", _ALL, _ANY),
    "empty_file": FaultKind("file"),
    "cut_file": FaultKind("file"),
}


class Fault(BaseModel):
    """One fault of a faults document. Where no column is named, the first that suits is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: TableName
    fault: FaultName
    column: str | None = Field(None, strict=True)
    rate: float = Field(gt=0, le=1, strict=True, description="Share of records (or files, or cells) hit.")

    @property
    def kind(self) -> FaultKind:
        """What this fault is done to."""
        return FAULTS[self.fault]

    def target(self) -> Column | None:
        """The column the fault is in; None where it is in no single one."""
        suiting = _suiting(TABLES[self.table], self.fault)
        if self.column is None:
            return suiting[0] if suiting else None
        return next((column for column in suiting if column.name == self.column), None)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    faults: list[Fault]


def read_faults(path: Path) -> tuple[Fault, ...]:
    """Read a faults document.

    raises   DeclarationError: with every problem of the document as
             `file:line: what is wrong, what was expected`, never a value of it
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DeclarationError(
            [f"{path}:1: cannot be read ({reason}), expected a faults document"]
        ) from error
    data, lines = _parsed(path, text)
    problems = _misshapen(data)
    items = data.get("faults") if isinstance(data, dict) else None
    faults = []
    for position, item in enumerate(items if isinstance(items, list) else ()):
        # Entries that are right in themselves are checked against their table all the same.
        if ("faults", position) not in {place[:2] for place, _ in problems}:
            faults.append(Fault.model_validate(item))
            if found := misfit(faults[-1]):
                field, sentence = found
                place = ("faults", position, field)
                problems.append((place, f"faults[{position}].{field} {sentence}"))
    if problems:
        said = sorted((lines.of(place), sentence) for place, sentence in problems)
        raise DeclarationError([f"{path}:{line}: {sentence}" for line, sentence in said])
    return tuple(faults)


def _misshapen(data: object) -> list[tuple[_Place, str]]:
    """What is wrong in a document before any table is looked at: where, and a sentence."""
    try:
        _Document.model_validate(data)
    except ValidationError as error:
        wrong = ((tuple(problem["loc"]), problem["type"]) for problem in error.errors())
        return [(place, _explained(place, kind)) for place, kind in wrong]
    return []


def _suiting(table: Table, fault: str) -> list[Column]:
    columns = [column for column in table.columns if column.kind in FAULTS[fault].kinds]
    if fault == "unknown_foreign_key":
        return [column for column in columns if column.references]
    # Without a name the first one is taken, and a key is seldom what is meant.
    return sorted(columns, key=lambda column: column.name in table.key)


def misfit(fault: Fault) -> tuple[str, str] | None:
    """Say why a table can not have a fault: the field that is wrong, and a sentence."""
    table = TABLES[fault.table]
    if table.format not in fault.kind.formats:
        possible = [name for name, kind in FAULTS.items() if table.format in kind.formats]
        return "fault", f"not possible in {table.format}, expected one of {', '.join(possible)}"
    if fault.fault in ("late", "stale_duplicate") and not table.daily:
        return "fault", "not possible for a table of one file, expected another fault"
    if fault.fault == "stale_duplicate" and not table.first_version:
        return "fault", "not possible where records have one version, expected orders or customers"
    suiting = [column.name for column in _suiting(table, fault.fault)]
    if fault.kind.kinds and not suiting:
        return "fault", f"not possible, no column of {table.name} suits it; expected another fault"
    if fault.column is not None and not suiting:
        return "column", "is of no use for this fault, expected none"
    if fault.column is not None and fault.column not in suiting:
        return "column", f"does not suit the fault, expected one of {', '.join(suiting)}"
    return None


_EXPECTED = {
    "faults": "a list of faults",
    "table": f"one of {', '.join(TABLES)}",
    "fault": f"one of {', '.join(FAULTS)}",
    "column": "the name of a column",
    "rate": "a number above 0 and at most 1",
}


def _explained(place: _Place, kind: str) -> str:
    """Turn pydantic's error into our sentence; pydantic's own would quote the value."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)[1:]
    if kind == "extra_forbidden":
        known = "faults" if len(place) == 1 else "table, fault, column, rate"
        return f"{name} is unknown, expected {known}"
    field = next((part for part in reversed(place) if isinstance(part, str)), "")
    if not place:
        return "not a faults document, expected `faults:` with a list"
    if place and isinstance(place[-1], int):
        return f"{name} is wrong, expected {{table: …, fault: …, rate: …}}"
    said = "is missing" if kind == "missing" else "is wrong"
    return f"{name} {said}, expected {_EXPECTED[field]}"


class _Lines:
    """Finds the line of a place in a YAML document."""

    def __init__(self, root: yaml.Node | None) -> None:
        self._root = root

    def of(self, place: _Place) -> int:
        """The line of a place, or of the nearest thing around it that exists."""
        node, line = self._root, 1
        if node is not None:
            line = node.start_mark.line + 1
        for part in place:
            found = _inside(node, part)
            if found is None:
                break
            line, node = found
        return line


def _inside(node: yaml.Node | None, part: int | str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item.start_mark.line + 1, item
    return None


def _parsed(path: Path, text: str) -> tuple[object, _Lines]:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return yaml.safe_load(text), _Lines(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        reason = getattr(error, "problem", None) or "it cannot be parsed"
        raise DeclarationError([f"{path}:{line}: not YAML ({reason}), expected `faults:`"]) from error
