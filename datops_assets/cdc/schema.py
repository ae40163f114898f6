"""What became of a followed table: compared with what it was when its mirror was made.

The log says which columns a change has, and not where they came from: a default that old rows got, a new
name, a type whose values were computed anew write no change. So what the log cannot tell is copied anew,
that table alone (snapshot.copy_tables). Deciding is pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from datops_assets.cdc.source import SourceTable
from datops_assets.cdc.streams import StreamEntry

Verdict = Literal["same", "grown", "changed", "recreated"]


@dataclass(frozen=True)
class KnownTable:
    """A table as it was when its mirror was made or last compared."""

    oid: int
    columns: tuple[Mapping[str, Any], ...]
    """name, type, key, number of each."""
    file: int | None
    copied: str | None
    """The mirror holds all that was committed before this place; None: before the stream's own snapshot."""


def known_tables(warehouse: psycopg.Connection[Any], entry: StreamEntry) -> dict[tuple[str, str], KnownTable]:
    """What is remembered of a stream's tables, by (schema, name) in the source."""
    return {
        (schema, name): KnownTable(oid, tuple(columns), file, copied)
        for schema, name, oid, columns, file, copied in warehouse.execute(
            "select schema_name, table_name, oid::bigint, columns, file::bigint, copied_lsn::text"
            " from datops.stream_tables where stream_id = %s",
            (entry.stream_id,),
        )
    }


def compare(known: KnownTable, now: SourceTable) -> tuple[Verdict, list[str]]:
    """Say what became of a table, and which columns came that are null in all rows there were.

    returns    same: the log tells all · grown: nothing but such columns · changed: copy it anew ·
               recreated: another table of that name
    """
    if known.oid != now.oid:
        return "recreated", []
    columns = {column["name"]: column for column in known.columns}
    names_by_number = {column.get("number"): column["name"] for column in known.columns}
    if {name for name, column in columns.items() if column["key"]} != set(now.key):
        return "changed", []
    rewritten = known.file is not None and known.file != now.file
    new = []
    for column in now.columns:
        number, before = now.numbers[column.name], columns.get(column.name)
        if names_by_number.get(number, column.name) != column.name:
            return "changed", []  # renamed
        if before is None:
            if rewritten or column.name in now.filled:
                return "changed", []  # rows that were there may have got a value
            new.append(column.name)
        elif before["type"] != column.type or before.get("number", number) != number:
            return "changed", []  # computed anew, or dropped and added again
        elif rewritten and before.get("modifier") != now.modifiers[column.name]:
            return "changed", []  # rounded or cut: numeric(10,4) to numeric(10,2)
    return ("grown", new) if new else ("same", [])
