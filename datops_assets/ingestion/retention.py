"""Which rows bronze may let go, and letting them go: what neither silver nor a person needs any more.

Belongs here: the rule, as one query over the catalogue, and taking the rows out. Does not: which
loads are live (delivery), what silver holds (quality).

Two kinds of rows may go. Those of a load that gave way (superseded, undone), once silver has let go of
it too: they only wait for `datops load undo`. And, where deliveries are merged by key, those of an
older load that is still live but were overtaken: silver shows a later row of their key. Rows that
silver shows, that wait in the quarantine, or that a person dropped stay, however old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from datops_assets.ingestion.tables import SourceTable
from datops_assets.postgres import failpoints
from datops_assets.postgres.identifiers import bronze_table, quarantine_table, silver_table
from datops_assets.postgres.tables import find_table_id, lock_table


@dataclass(frozen=True)
class Keep:
    """How much of what may go is kept all the same: one of the two."""

    loads: int | None = None
    """So many loads that gave way; of merged ones so many besides the newest."""
    days: int | None = None
    """Loads that are not older than this."""


@dataclass(frozen=True)
class PastLoad:
    """A load of which rows may go, or went."""

    load_id: int
    ulid: str
    path: str
    state: str
    rows: int
    """Rows that went; planned: rows it has in bronze, of which those may go."""


# A load that silver still holds is passed over, whatever its state: silver has not read what replaced it.
_PAST: LiteralString = """
with known as (
    select l.load_id, l.ulid, l.path, l.state, l.rows, l.pruned_at, l.finished_at,
           j.load_id is not null as in_silver,
           row_number() over (partition by l.state = 'loaded' order by l.load_id desc)
               - (l.state = 'loaded')::int as place
      from datops.loads l left join datops.judged_loads j using (table_id, load_id)
     where l.table_id = %(table_id)s and l.state in ('loaded', 'superseded', 'undone') and l.rows > 0
)
select load_id, ulid, path, state, rows from known
 where pruned_at is null and place > coalesce(%(loads)s::int, 0)
   and finished_at < now() - coalesce(%(days)s::int, 0) * interval '1 day'
   and case when state = 'loaded' then in_silver and %(merged)s else not in_silver end
 order by load_id
"""
_GONE: LiteralString = "delete from {bronze} where _load_id = any(%(loads)s) returning _load_id"
_OVERTAKEN: LiteralString = """
delete from {bronze} b where b._load_id = any(%(loads)s)
   and not exists (select from {silver} s where s._load_id = b._load_id and s._row = b._row)
   and not exists (select from datops.dropped_records d where d.load_id = b._load_id and d.row = b._row)
   {waiting}
returning _load_id
"""
_WAITING: LiteralString = (
    "and not exists (select from {quarantine} q where q._load_id = b._load_id and q._row = b._row)"
)
_NOTE: LiteralString = """
with gone as ({delete}), counted as (select _load_id as load_id, count(*) as rows from gone group by 1)
update datops.loads l set pruned_at = clock_timestamp(),
       pruned_rows = coalesce((select c.rows from counted c where c.load_id = l.load_id), 0)
 where l.load_id = any(%(loads)s) returning l.load_id, l.ulid, l.path, l.state, l.pruned_rows as rows
"""


def plan_prune(conn: psycopg.Connection[Any], table: SourceTable, keep: Keep) -> list[PastLoad]:
    """List the loads of which rows may go now, oldest first. Changes nothing."""
    table_id = find_table_id(conn, table.source, table.name)
    values = {"table_id": table_id, "loads": keep.loads, "days": keep.days}
    with conn.cursor(row_factory=class_row(PastLoad)) as cursor:
        return cursor.execute(_PAST, {**values, "merged": table.disposition == "merge"}).fetchall()


def prune_loads(conn: psycopg.Connection[Any], table: SourceTable, keep: Keep) -> list[PastLoad]:
    """Take out of bronze what may go.

    returns    the loads that were looked at, with the rows that went
    raises     LockTakenError
    promise    silver stays as it is, also when it is judged again by the same contract; rows and the
               catalogue's note of them go in one transaction, each load once
    """
    with lock_table(conn, table.source, table.name), conn.transaction():
        past = plan_prune(conn, table, keep)
        has_silver = _is_there(conn, silver_table(table.source, table.name))
        merged = [load.load_id for load in past if load.state == "loaded" and has_silver]
        gave_way = [load.load_id for load in past if load.state != "loaded"]
        has_quarantine = _is_there(conn, quarantine_table(table.source, table.name))
        if gave_way and has_quarantine:
            forget = sql.SQL("delete from {} where _load_id = any(%s)")
            conn.execute(forget.format(quarantine_table(table.source, table.name)), (gave_way,))
        went = _take_out(conn, table, _GONE, gave_way)
        waiting = sql.SQL(_WAITING if has_quarantine else "").format(
            quarantine=quarantine_table(table.source, table.name)
        )
        went += _take_out(conn, table, _OVERTAKEN, merged, waiting)
        failpoints.hit("before_prune_commit")
        return sorted(went, key=lambda load: load.load_id)


def _take_out(
    conn: psycopg.Connection[Any],
    table: SourceTable,
    delete: LiteralString,
    loads: Sequence[int],
    waiting: sql.Composable | None = None,
) -> list[PastLoad]:
    if not loads:
        return []
    names = {
        "bronze": bronze_table(table.source, table.name),
        "silver": silver_table(table.source, table.name),
        "waiting": waiting or sql.SQL(""),
    }
    statement = sql.SQL(_NOTE).format(delete=sql.SQL(delete).format(**names))
    with conn.cursor(row_factory=class_row(PastLoad)) as cursor:
        return cursor.execute(statement, {"loads": list(loads)}).fetchall()


def _is_there(conn: psycopg.Connection[Any], name: sql.Identifier) -> bool:
    return conn.execute("select to_regclass(%s)", (name.as_string(conn),)).fetchone() != (None,)
