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
from psycopg.types.json import Jsonb

from datops_assets.cdc.source import Partition, SourceTable
from datops_assets.cdc.streams import StreamEntry
from datops_assets.postgres.tables import table_id

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
    partitions: Mapping[int, str] | None = None
    """Where the rows of each table below a partitioned one were kept, by oid; None: nobody looked."""
    frozen: Mapping[str, Any] | None = None
    """How its columns differ, where `schema: freeze` keeps its mirror from following them."""
    accepted: bool = False
    """Whether a person took that difference."""


def known_tables(warehouse: psycopg.Connection[Any], entry: StreamEntry) -> dict[tuple[str, str], KnownTable]:
    """What is remembered of a stream's tables, by (schema, name) in the source."""
    return {
        (schema, name): KnownTable(oid, tuple(columns), file, copied, _by_oid(partitions), frozen, accepted)
        for schema, name, oid, columns, file, copied, partitions, frozen, accepted in warehouse.execute(
            "select schema_name, table_name, oid::bigint, columns, file::bigint, copied_lsn::text, partitions,"
            " frozen, accepted"
            " from datops.stream_tables where stream_id = %s",
            (entry.stream_id,),
        )
    }


def _by_oid(kept: Mapping[str, str] | None) -> dict[int, str] | None:
    return None if kept is None else {int(oid): file for oid, file in kept.items()}


def files_of(table: SourceTable) -> dict[int, str]:
    """Where the rows of each table below a partitioned one are kept, by oid."""
    return {oid: part.file for oid, part in table.partitions.items()}


def rows_came_or_went(before: Mapping[int, str] | None, now: Mapping[int, Partition]) -> bool:
    """Whether a partitioned table got or lost rows of which its log says nothing.

    A partition that is attached brings its rows, one that is detached or dropped takes them along, and a truncate of
    one alone is not sent where rows come as their root's. One that was written anew (vacuum full) looks the same.
    """
    if before is None:
        return False
    return any(oid not in now or now[oid].file != file for oid, file in before.items()) or any(
        oid not in before and not part.came_empty for oid, part in now.items()
    )


def freeze_table(
    warehouse: psycopg.Connection[Any], source: str, name: str, found: Mapping[str, Any]
) -> None:
    """Let a table's mirror wait for a person, in the caller's transaction; its log goes on."""
    warehouse.execute(
        "update datops.stream_tables set frozen = %s, accepted = false where table_id = %s",
        (Jsonb(found), table_id(warehouse, source, name)),
    )


def frozen_tables(warehouse: psycopg.Connection[Any], source: str) -> dict[str, Mapping[str, Any]]:
    """The tables of a stream whose mirrors wait, each with how its columns differ."""
    return dict(
        warehouse.execute(
            "select t.name, s.frozen from datops.stream_tables s join datops.tables t using (table_id)"
            " where t.source = %s and s.frozen is not null and not s.accepted order by t.name",
            (source,),
        ).fetchall()
    )


def accept_table(warehouse: psycopg.Connection[Any], source: str, name: str) -> Mapping[str, Any] | None:
    """Take a frozen table's columns as they are now; the next drain copies it anew.

    returns    the difference that was accepted; None: its mirror follows
    """
    row = warehouse.execute(
        "update datops.stream_tables s set accepted = true from datops.tables t where t.table_id = s.table_id"
        " and t.source = %s and t.name = %s and s.frozen is not null returning s.frozen",
        (source, name),
    ).fetchone()
    return row[0] if row else None


def difference(known: KnownTable, now: SourceTable) -> dict[str, Any]:
    """Say how a table's columns differ from what they were, in the words of a pipeline's; empty where they do not.

    returns    any of appeared, vanished (lists), renamed and retyped (old to new; column to its change), key
    """
    before = {column.get("number", column["name"]): column for column in known.columns}
    found: dict[str, Any] = {"appeared": [], "vanished": [], "renamed": {}, "retyped": {}}
    seen = set()
    for column in now.columns:
        number = now.numbers.get(column.name, column.name)
        was = before.get(number)
        seen.add(number)
        if was is None:
            found["appeared"].append(column.name)
            continue
        if was["name"] != column.name:
            found["renamed"][was["name"]] = column.name
        if was["type"] != column.type:
            found["retyped"][column.name] = f"{was['type']}, now {column.type}"
    found["vanished"] = [column["name"] for number, column in before.items() if number not in seen]
    key = [column["name"] for column in known.columns if column["key"]]
    if sorted(found["renamed"].get(name, name) for name in key) != sorted(now.key):
        found["key"] = f"{', '.join(key)}, now {', '.join(now.key)}"
    return {what: names for what, names in found.items() if names}


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
    if rows_came_or_went(known.partitions, now.partitions):
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
