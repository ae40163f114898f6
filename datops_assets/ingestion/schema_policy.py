"""What a table's `schema:` says to the columns of a delivery, before bronze follows them.

evolve follows, freeze refuses what differs until a person accepts it. quarantine is not seen here:
bronze takes everything, and the contract sets rows aside (quality).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from datops_assets.errors import SchemaFrozenError
from datops_assets.ingestion.bronze import BronzeColumn, WantedColumn, follow_columns, list_columns
from datops_assets.ingestion.catalogue import LoadEntry, fetch_loads
from datops_assets.ingestion.job import LoadJob
from datops_assets.ingestion.names import header_differences, occurrences
from datops_assets.postgres.tables import lock_table
from datops_assets.postgres.widening import wider

Difference = dict[str, Any]
"""Any of appeared, vanished (lists), renamed and retyped (old to new; column to its change)."""

_WITHOUT_HEADER = frozenset({"json", "jsonl"})
# What a person undid says nothing about how the table should look.
_FROZEN_HEADER: LiteralString = """
select header from datops.loads
 where table_id = %s and load_id < %s and jsonb_array_length(header) > 0 and state in ('loaded', 'staged', 'superseded')
 order by load_id desc limit 1
"""
_ACCEPTED: LiteralString = """
select differences from datops.loads r
 where table_id = %(table_id)s and path = %(path)s and state = 'refused' and schema_accepted
   and not exists (select from datops.loads l where l.table_id = r.table_id and l.path = r.path
                    and l.load_id > r.load_id and l.state in ('loaded', 'staged', 'superseded', 'undone'))
 order by load_id desc limit 1
"""
_FROZEN_OUT: LiteralString = """
t.source = %s and t.name = %s and l.state = 'refused' and l.differences is not null and not l.reload_requested
  and l.load_id = (select max(o.load_id) from datops.loads o
                    where o.table_id = l.table_id and o.path = l.path and o.state <> 'loading')
"""


@dataclass(frozen=True)
class KnownColumns:
    """What a table's columns are: those of its last load, with the types bronze has."""

    header: Sequence[str]
    columns: Sequence[BronzeColumn]


def follow_by_policy(
    conn: psycopg.Connection[Any], job: LoadJob, wanted: Sequence[WantedColumn], names: Sequence[str]
) -> list[BronzeColumn]:
    """Give every wanted column its place in bronze, where the table's policy lets it have one.

    names      all delivered names in order, also of columns that have no type yet
    raises     SchemaFrozenError: the columns are frozen and these are others; nothing was changed.
               LockTakenError
    """
    if job.declared.schema_policy == "freeze":
        _require_frozen(conn, job, wanted, names)
    return follow_columns(conn, job.bronze, wanted, job.load_id)


def schema_difference(
    known: KnownColumns,
    wanted: Sequence[WantedColumn],
    names: Sequence[str],
    rename: Mapping[str, str],
    *,
    has_header: bool,
) -> Difference:
    """Say how a delivery's columns differ from the known ones; empty when they do not. Pure.

    The order of columns is no difference, nor is a type that the column holds as it is. Without a
    header (JSON) a name that no record has is just not there.
    """
    header = known.header if has_header else [column.delivered.name for column in known.columns]
    found: Difference = dict(header_differences(header, names, rename))
    found.pop("moved", None)
    if not has_header:
        found.pop("vanished", None)
    places = {column.delivered: column for column in known.columns}
    repeats = [
        f"{column.name} ({column.occurrence})"
        for column in occurrences(names)
        if column.occurrence > 1 and column not in places
    ]
    if repeats:
        found["appeared"] = [*found.get("appeared", []), *repeats]
    retyped = {}
    for want in wanted:
        column = places.get(want.delivered)
        if column is not None and not column.in_more and wider(column.type, want.type) != column.type:
            retyped[want.delivered.name] = f"{column.type}, now {want.type}"
    if retyped:
        found["retyped"] = retyped
    return found


def is_within(difference: Difference, accepted: Difference) -> bool:
    """Whether a person who took `accepted` took all of `difference`. Pure."""
    for kind, names in difference.items():
        taken = accepted.get(kind, ())
        if isinstance(names, dict):
            if any(taken.get(name) != change for name, change in names.items()) if taken else names:
                return False
        elif not set(names) <= set(taken):
            return False
    return True


def said_difference(difference: Difference) -> str:
    """The difference as a person reads it."""
    parts = []
    for kind, words in (("appeared", "new"), ("vanished", "missing")):
        if kind in difference:
            parts.append(f"{words}: {', '.join(map(repr, difference[kind]))}")
    if "renamed" in difference:
        pairs = (f"{old!r} is now {new!r}" for old, new in difference["renamed"].items())
        parts.append(f"renamed: {', '.join(pairs)}")
    if "retyped" in difference:
        pairs = (f"{name!r} was {change}" for name, change in difference["retyped"].items())
        parts.append(f"of another type: {', '.join(pairs)}")
    return "; ".join(parts)


def list_frozen_out(conn: psycopg.Connection[Any], source: str, table: str) -> list[LoadEntry]:
    """Return the loads that wait because their columns are not those of a frozen table, by path."""
    return sorted(fetch_loads(conn, _FROZEN_OUT, [source, table], None), key=lambda load: load.path)


def accept_columns(conn: psycopg.Connection[Any], source: str, table: str) -> list[LoadEntry]:
    """Take the columns of all refused loads of a frozen table as its own; the next run loads them.

    returns    the loads, with the differences that were accepted; none when none waits
    promise    only these differences: what comes with yet others is refused again
    """
    with lock_table(conn, source, table):
        waiting = list_frozen_out(conn, source, table)
        conn.execute(
            "update datops.loads set schema_accepted = true, reload_requested = true where load_id = any(%s)",
            ([load.load_id for load in waiting],),
        )
    return waiting


def _require_frozen(
    conn: psycopg.Connection[Any], job: LoadJob, wanted: Sequence[WantedColumn], names: Sequence[str]
) -> None:
    table_id = job.bronze.table_id
    before = conn.execute(_FROZEN_HEADER, (table_id, job.load_id)).fetchone()
    if before is None or not names:
        return
    difference = schema_difference(
        KnownColumns(before[0], list_columns(conn, table_id)),
        wanted,
        names,
        job.declared.rename,
        has_header=job.unit.format not in _WITHOUT_HEADER,
    )
    if not difference:
        return
    accepted = conn.execute(_ACCEPTED, {"table_id": table_id, "path": job.unit.path}).fetchone()
    if accepted is not None and is_within(difference, accepted[0]):
        return
    label = job.declared.label
    raise SchemaFrozenError(
        f"{job.unit.path}: its columns are not those of {label}, which `schema: freeze` keeps"
        f" ({said_difference(difference)}); nothing of it was loaded. To take them: datops contract"
        f" accept {label}, and the next run loads it; or let the table follow: `schema: evolve`",
        difference,
    )
