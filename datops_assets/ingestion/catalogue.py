"""The entries of `datops.loads`: what was read when, with which outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from datops_assets.ingestion.kept import FORGET
from datops_assets.ingestion.source import Unit
from datops_assets.postgres.ulid import new_ulid

LIVE = ("loaded", "staged")
"""States whose rows count: loaded, or complete and waiting for the rest of their delivery."""


@dataclass(frozen=True)
class LoadEntry:
    """One row of the load catalogue."""

    load_id: int
    ulid: str
    source: str
    table: str
    path: str
    content_hash: str | None
    fingerprint: str | None
    reading: str | None
    """How its table was declared to be read; a file that failed is worth another try under another reading."""
    size_bytes: int | None
    format: str
    state: str
    batch: str
    run_id: str | None
    partition_key: str | None
    rows: int | None
    damaged_rows: int
    header: list[str] | None
    differences: dict[str, Any] | None
    same_content_as: int | None
    superseded_by: int | None
    error: str | None
    read_as: dict[str, Any] | None
    """What was found out of how it is written (encoding, delimiter), and by what; None: all of it is declared."""
    watermark: str | None
    """What the source had reached with it; None where the source keeps no place."""
    reload_requested: bool
    """A person asked for the file again, so this entry holds it back no more."""
    started_at: datetime
    finished_at: datetime | None
    frozen_out: bool = False
    """Refused because its columns are not those that `schema: freeze` keeps."""
    pruned_at: datetime | None = None
    """When bronze let go of rows of it that silver no longer needs; None: never."""
    pruned_rows: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a finished load found."""

    content_hash: str
    rows: int
    damaged_rows: int
    header: list[str]
    differences: dict[str, Any]
    watermark: str | None = None
    """Where the source's next reading goes on."""
    has_more: bool = False
    """Whether the source has more right now."""
    read_as: dict[str, str] = field(default_factory=dict)
    """What was found out of how it is written."""


_COLUMNS = ", ".join(
    {
        "source": "t.source",
        "table": 't.name as "table"',
        "frozen_out": "(l.state = 'refused' and l.differences is not null) as frozen_out",
    }.get(name, f"l.{name}")
    for name in LoadEntry.__dataclass_fields__
)
_WITHOUT_HEADER = _COLUMNS.replace("l.header,", "null as header,").replace(
    "l.differences,", "null as differences,"
)
_FROM = "from datops.loads l join datops.tables t using (table_id)"
_SUPERSEDE_PATH: LiteralString = """
update datops.loads
   set state = 'superseded', superseded_by = case when state = 'loaded' then %(load_id)s end
 where table_id = %(table_id)s and path = %(path)s and state = any(%(replaces)s) and load_id <> %(load_id)s
"""
# What is read again from an earlier place on takes the place of all that was read since.
_SUPERSEDE_SINCE: LiteralString = """
update datops.loads
   set state = case when state in ('loaded', 'staged') then 'superseded' else state end,
       superseded_by = case when state = 'loaded' then %(load_id)s else superseded_by end, reload_requested = false
 where table_id = %(table_id)s and load_id >= %(rereads_from)s and load_id < %(load_id)s and watermark is not null
"""
_WATERMARK: LiteralString = """
select watermark from datops.loads
 where table_id = %(table_id)s and watermark is not null and state in ('loaded', 'staged', 'superseded', 'undone')
   and load_id < coalesce(%(before)s, load_id + 1)
 order by load_id desc limit 1
"""
_FINISH: LiteralString = """
update datops.loads l
   set state = %(state)s, content_hash = %(content_hash)s, rows = %(rows)s, damaged_rows = %(damaged_rows)s,
       header = %(header)s, differences = %(differences)s, watermark = %(watermark)s,
       read_as = %(read_as)s, finished_at = clock_timestamp(),
       same_content_as = (select min(o.load_id) from datops.loads o
                           where o.table_id = l.table_id and o.content_hash = %(content_hash)s
                             and o.path <> l.path and o.state in ('loaded', 'staged', 'superseded', 'undone'))
 where load_id = %(load_id)s and state = 'loading'
returning load_id
"""


def known_entries(conn: psycopg.Connection[Any], table_id: int) -> dict[str, list[LoadEntry]]:
    """Return per path, oldest first, without its columns: what is live, the last entry that says anything, and the
    last that was taken: where a file that could not be read came and went again, the last says nothing of it."""
    where = (
        "l.table_id = %s and (l.state in ('loaded', 'staged') or l.load_id in ("
        " select unnest(array[max(o.load_id), max(o.load_id) filter (where o.state in ('superseded', 'undone'))])"
        " from datops.loads o where o.table_id = l.table_id and o.path = l.path"
        " and o.state not in ('loading', 'interrupted') and not o.reload_requested))"
    )
    entries: dict[str, list[LoadEntry]] = {}
    for entry in reversed(fetch_loads(conn, where, [table_id], None, with_columns=False)):
        entries.setdefault(entry.path, []).append(entry)
    return entries


def previous_header(conn: psycopg.Connection[Any], table_id: int, load_id: int) -> list[str] | None:
    """Return the columns of the load before this one; a file without any column does not count."""
    row = conn.execute(
        "select header from datops.loads where table_id = %s and load_id < %s and header is not null"
        " and jsonb_array_length(header) > 0 and state in ('loaded', 'staged', 'superseded', 'undone')"
        " order by load_id desc limit 1",
        (table_id, load_id),
    ).fetchone()
    return None if row is None else list(row[0])


def reserve_load(
    conn: psycopg.Connection[Any],
    table_id: int,
    unit: Unit,
    *,
    batch: str,
    run_id: str | None,
    content_hash: str | None,
    reading: str | None = None,
) -> tuple[int, str]:
    """Enter a load as begun, in a transaction of its own; returns load_id and ULID."""
    ulid = new_ulid()
    row = conn.execute(
        "insert into datops.loads (ulid, table_id, path, content_hash, fingerprint, reading, size_bytes, format, state,"
        " batch, run_id, partition_key) values (%s, %s, %s, %s, %s, %s, %s, %s, 'loading', %s, %s, %s)"
        " returning load_id",
        (
            ulid, table_id, unit.path, content_hash, unit.fingerprint, reading, unit.size_bytes,
            unit.format or "unknown", batch, run_id, unit.partition_key,
        ),
    ).fetchone()  # fmt: skip
    assert row is not None
    return int(row[0]), ulid


def finishing(
    table_id: int,
    load_id: int,
    path: str,
    outcome: Outcome,
    *,
    state: str,
    replaces: Sequence[str],
    rereads_from: int | None = None,
) -> list[tuple[LiteralString, dict[str, Any]]]:
    """Return the statements that enter a load as done; they belong into the transaction that wrote its rows.

    The last one returns no row where another run has entered it as interrupted: then roll back.

    replaces   states in which older loads of the same path give way; their rows stay in bronze
    rereads_from   the first load of those that give way because their rows were read again; None: none
    """
    values = {
        "table_id": table_id,
        "path": path,
        "replaces": list(replaces),
        "load_id": load_id,
        "state": state,
        "content_hash": outcome.content_hash,
        "rows": outcome.rows,
        "damaged_rows": outcome.damaged_rows,
        "header": Jsonb(outcome.header),
        "differences": Jsonb(outcome.differences) if outcome.differences else None,
        "watermark": outcome.watermark,
        "read_as": Jsonb(outcome.read_as) if outcome.read_as else None,
        "rereads_from": rereads_from,
    }
    giving_way = [(_SUPERSEDE_PATH, values)] + ([(_SUPERSEDE_SINCE, values)] if rereads_from else [])
    return [*giving_way, (FORGET, values), (_FINISH, values)]


def withdraw_load(conn: psycopg.Connection[Any], load_id: int) -> None:
    """Take a load's entry away as if it had not begun: the unit turned out to hold nothing new."""
    with conn.transaction():
        gone = "delete from datops.loads where load_id = %s and state = 'loading' returning table_id"
        for (table_id,) in conn.execute(gone, (load_id,)).fetchall():
            conn.execute(FORGET, {"table_id": table_id})


def first_reread(conn: psycopg.Connection[Any], table_id: int) -> int | None:
    """Return the first load that a person asked to read again, of a source that keeps its place."""
    row = conn.execute(
        "select min(load_id) from datops.loads where table_id = %s and reload_requested and watermark is not null",
        (table_id,),
    ).fetchone()
    assert row is not None
    return row[0]


def watermark_of(conn: psycopg.Connection[Any], table_id: int, before: int | None = None) -> str | None:
    """Return where the next reading of a table goes on; None: at its beginning.

    before     as it was before this load; None: now
    """
    row = conn.execute(_WATERMARK, {"table_id": table_id, "before": before}).fetchone()
    return None if row is None else row[0]


def end_load(
    conn: psycopg.Connection[Any],
    load_id: int,
    state: str,
    error: str,
    differences: dict[str, Any] | None = None,
) -> None:
    """Enter a load as failed, refused or interrupted, with the sentence that says why.

    differences   of its columns from those that are frozen, where they are why it was refused
    """
    conn.execute(
        "update datops.loads set state = %s, error = %s, differences = %s, finished_at = clock_timestamp()"
        " where load_id = %s",
        (state, error, Jsonb(differences) if differences else None, load_id),
    )


def interrupt_orphans(conn: psycopg.Connection[Any], table_id: int) -> None:
    """Enter what a dead process left behind as interrupted. Only the holder of the lock may say so."""
    conn.execute(
        "update datops.loads set state = 'interrupted', finished_at = clock_timestamp(),"
        " error = 'the process that loaded it ended; nothing of it was kept' where table_id = %s and state = 'loading'",
        (table_id,),
    )


def note_redelivery(conn: psycopg.Connection[Any], load_id: int, unit: Unit) -> None:
    """Remember that a file was touched or delivered again with the same content."""
    conn.execute("update datops.loads set fingerprint = %s where load_id = %s", (unit.fingerprint, load_id))


def left_with_its_delivery(conn: psycopg.Connection[Any], load_id: int) -> bool:
    """Return whether a load was live and left together with all of its delivery."""
    left = (
        "select exists (select from datops.loads l where l.load_id = %s and l.state = 'superseded'"
        " and l.superseded_by is not null and not exists (select from datops.loads o"
        " where o.table_id = l.table_id and o.delivery = l.delivery and o.state = 'loaded'))"
    )
    return conn.execute(left, (load_id,)).fetchone() == (True,)


def live_rows(conn: psycopg.Connection[Any], table_id: int) -> int:
    """Return how many rows silver may see."""
    row = conn.execute(
        "select coalesce(sum(rows - pruned_rows), 0) from datops.loads where table_id = %s and state = 'loaded'",
        (table_id,),
    ).fetchone()
    assert row is not None
    return int(row[0])


def fetch_loads(
    conn: psycopg.Connection[Any],
    where: str,
    values: Sequence[object],
    limit: int | None,
    *,
    with_columns: bool = True,
) -> list[LoadEntry]:
    """Return entries, newest first. `where` is a condition on datops.loads l and datops.tables t.

    with_columns   also the header and its differences: of thousands of wide files they are most of the catalogue
    """
    columns = _COLUMNS if with_columns else _WITHOUT_HEADER
    query = f"select {columns} {_FROM} where {where} order by l.load_id desc limit %s"
    with conn.cursor(row_factory=class_row(LoadEntry)) as cursor:
        return cursor.execute(query, [*values, limit]).fetchall()
