"""A first contract for a table that has none: types that hold for every value looked at.

Belongs here: the types, what is never null, a likely key. Does not: ranges, sets and
patterns, which take a person's knowledge of the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.postgres.identifiers import bronze_table
from datops_assets.postgres.names import contract_name
from datops_assets.quality.delivered import BronzeColumn, read_delivered
from datops_assets.quality.types import NotAValueError, value_type

# Narrow ones first. A number with a leading zero is a name, not a quantity: it stays text.
_CANDIDATES = ("bigint", "numeric", "boolean", "date", "timestamptz", "timestamp", "uuid")
_TYPED = {
    "smallint": "smallint",
    "integer": "integer",
    "bigint": "bigint",
    "double precision": "double",
    "boolean": "boolean",
    "date": "date",
    "time without time zone": "time",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "uuid": "uuid",
    "bytea": "bytea",
}


@dataclass(frozen=True)
class SuggestedColumn:
    """One column: `required` when no value was null."""

    name: str
    type: str
    required: bool


@dataclass(frozen=True)
class SuggestedContract:
    """What the rows looked at would pass. `key` is empty where no single column is unique."""

    rows: int
    key: list[str]
    columns: list[SuggestedColumn]

    def as_yaml(self) -> str:
        """The `contract:` part of a document, ready to paste below a table."""
        lines = ["contract:"]
        if self.key:
            lines.append(f"  key: [{', '.join(self.key)}]")
        lines.append("  columns:")
        for column in self.columns:
            quoted = f'"{column.type}"' if "," in column.type else column.type
            lines.append(
                f"    {column.name}: {{type: {quoted}{', required: true' if column.required else ''}}}"
            )
        return "\n".join(lines)


def suggest_contract(
    conn: psycopg.Connection[Any], source: str, table: str, *, rows: int = 10_000
) -> SuggestedContract | None:
    """Look at the first rows of bronze; None where nothing was loaded yet.

    rows    how many rows are looked at, at most; the suggestion says how many there were
    """
    delivered = read_delivered(conn, source, table)
    chosen = _one_per_name(delivered.columns)
    if not chosen:
        return None
    query = sql.SQL("select {} from {} as b order by b._load_id, b._row limit {}").format(
        sql.SQL(", ").join(_as_text(column) for column in chosen.values()),
        bronze_table(source, table),
        sql.Literal(rows),
    )
    found = conn.execute(query).fetchall()
    if not found:
        return None
    values = {name: [row[position] for row in found] for position, name in enumerate(chosen)}
    columns = [
        SuggestedColumn(name, _type_of(chosen[name], values[name]), None not in values[name])
        for name in chosen
    ]
    return SuggestedContract(len(found), _key(values), columns)


def _one_per_name(columns: Sequence[BronzeColumn]) -> dict[str, BronzeColumn]:
    named: dict[str, BronzeColumn] = {}
    for column in columns:
        name = contract_name(column.delivered, {})
        if name and name[0].isalpha() and not column.in_more:
            named.setdefault(name, column)
    return named


def _as_text(column: BronzeColumn) -> sql.Composable:
    if column.type == "json":
        return sql.SQL("case when json_typeof({0}) <> 'null' then {0}::text end").format(column.value)
    return sql.SQL("{}::text").format(column.value)


def _type_of(column: BronzeColumn, values: Sequence[str | None]) -> str:
    if column.type in _TYPED or column.type.startswith("numeric"):
        return _TYPED.get(column.type, column.type)
    known = [value for value in values if value is not None]
    if column.type == "json":  # an object or array shows by its first letter, a string by its quotes
        if any(value[:1] in "{[" for value in known):
            return "json"
        known = [value[1:-1] if value[:1] == '"' else value for value in known]
    return next((name for name in _CANDIDATES if known and all(_is(name, value) for value in known)), "text")


def _is(name: str, text: str) -> bool:
    if (
        name in ("bigint", "numeric")
        and text.lstrip("+-").startswith("0")
        and text.lstrip("+-")[1:2].isdigit()
    ):
        return False
    if name == "boolean" and text in ("0", "1"):
        return False
    try:
        value_type(name).parse(text)
    except NotAValueError:
        return False
    return True


def _key(values: Mapping[str, Sequence[str | None]]) -> list[str]:
    """The first column that is never null, never twice the same and called …id, else none."""
    for name, column in values.items():
        if name.endswith("id") and None not in column and len(set(column)) == len(column):
            return [name]
    return []
