"""The quarantine: what waits there and why, judging it again, leaving it out for good.

Damaged records (stage `bronze`) are listed and dropped here too, but no contract can judge them.
Only records of live loads wait: those of a load that was undone or superseded stay in the table,
unseen, and are there again should the load come back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL

from datops_assets.errors import LoadRefusedError
from datops_assets.postgres.identifiers import quarantine_table
from datops_assets.postgres.quarantine_table import ensure_quarantine_table
from datops_assets.postgres.tables import lock_table, table_id
from datops_assets.quality import record
from datops_assets.quality.contract import Contract, Disposition
from datops_assets.quality.judged import Judgement, Subject
from datops_assets.quality.judging import judge_waiting
from datops_assets.quality.work import CONTRACT_CHANGED

Connection = psycopg.Connection[Any]

_LIVE = ["loaded", "staged"]
"""States of a load whose records wait; staged: complete, and waiting for the rest of its delivery."""


@dataclass(frozen=True)
class Reason:
    """How many records of a table wait for one reason. A record counts under each of its reasons."""

    table: str
    stage: str
    reason: str
    rows: int
    since: datetime


@dataclass(frozen=True)
class WaitingRecord:
    """One record in the quarantine. `record` is what was delivered, `raw` the bytes of a damaged one."""

    path: str
    load_id: int
    row: int
    stage: str
    reasons: list[str]
    record: Any
    raw: bytes | None
    position: int | None
    since: datetime


@dataclass(frozen=True)
class Replayed:
    """What a replay did. A second one releases nothing.

    contract_changed   the whole table was judged again, also rows that silver already held
    rows_left_silver   rows of silver that the changed contract refuses; they wait now
    """

    rows_released: int
    rows_waiting: int
    judgement: Judgement
    contract_changed: bool = False
    rows_left_silver: int = 0


def list_quarantine(conn: Connection, source: str | None = None, table: str | None = None) -> list[Reason]:
    """Count waiting records by table and reason, most first; of all tables where none is named."""
    reasons = []
    for found_source, found_table in _tables(conn, source, table):
        rows = conn.execute(
            SQL(
                "select q.stage, reason, count(*), min(q.quarantined_at) from {} as q, unnest(q.reasons) as reason"
                " group by q.stage, reason order by count(*) desc, reason"
            ).format(_waiting(found_source, found_table))
        )
        reasons += [Reason(f"{found_source}.{found_table}", *row) for row in rows]
    return reasons


def count_waiting(conn: Connection, source: str, table: str) -> int:
    """Count the records that wait; each once, whatever its reasons."""
    if not _tables(conn, source, table):
        return 0
    query = SQL("select count(*) from {} as q").format(_waiting(source, table))
    row = conn.execute(query).fetchone()
    return int(row[0]) if row else 0


def show_quarantine(
    conn: Connection, source: str, table: str, *, reason: str | None = None, limit: int = 20
) -> list[WaitingRecord]:
    """Read waiting records, oldest load first; only those with exactly this reason."""
    if not _tables(conn, source, table):
        return []
    rows = conn.execute(
        SQL(
            "select q.path, q._load_id, q._row, q.stage, q.reasons, q.record, q.raw, q.position, q.quarantined_at"
            " from {} as q where {} order by q._load_id, q._row limit {}"
        ).format(_waiting(source, table), _with_reason(reason), sql.Literal(limit))
    )
    return [WaitingRecord(*row) for row in rows]


def replay_quarantine(
    conn: Connection,
    *,
    source: str,
    table: str,
    contract: Contract,
    rename: Mapping[str, str] | None = None,
    disposition: Disposition = "append",
    run_id: str | None = None,
) -> Replayed:
    """Judge what waits by the contract as it is now; records that pass move to silver, once.

    A record that lost to another of its key in the meantime leaves the quarantine too, and
    silver keeps the winner. A contract that changed judges everything again, since silver
    never holds rows of two versions: then rows may also leave silver, and are counted.
    Raises and promises as `judge_table`.
    """
    subject = Subject(source, table, contract, rename or {}, disposition)
    with lock_table(conn, source, table), _places_noted(conn, subject):
        judgement = judge_waiting(conn, subject, run_id)
        released, left, waiting = _moved(conn, subject)
    return Replayed(released, waiting, judgement, judgement.why == CONTRACT_CHANGED, left)


def drop_quarantined(
    conn: Connection, *, source: str, table: str, because: str, reason: str | None = None
) -> int:
    """Leave waiting records out for good; returns how many. They stay in bronze, with `because` in the catalogue.

    promise   records leave the quarantine and are noted in one transaction; no later
              judgement or rebuild sees them
    raises    LoadRefusedError: the table is a mirror
    """
    if not _tables(conn, source, table):
        return 0
    mirrored = conn.execute(
        "select from datops.mirror_judgements where table_id = %s", (table_id(conn, source, table),)
    ).fetchone()
    if mirrored is not None:
        raise LoadRefusedError(
            f"{source}.{table} is a mirror: its rows are those of the source; correct them there, or the contract"
        )
    with lock_table(conn, source, table), conn.transaction():
        row = conn.execute(
            SQL(
                "with gone as (delete from {} as q using datops.loads as l where l.load_id = q._load_id"
                " and l.state = any ({}) and {} returning q._load_id, q._row),"
                " noted as (insert into datops.dropped_records (table_id, load_id, row, reason)"
                " select {}, _load_id, _row, {} from gone on conflict do nothing) select count(*) from gone"
            ).format(
                quarantine_table(source, table),
                sql.Literal(_LIVE),
                _with_reason(reason),
                sql.Literal(table_id(conn, source, table)),
                sql.Literal(because),
            )
        ).fetchone()
    assert row is not None
    return int(row[0])


def _with_reason(reason: str | None) -> sql.Composable:
    if reason is None:
        return SQL("true")
    # Whole: "id: missing" is part of "customer_id: missing", and dropping the one must not drop the other.
    return SQL("{} = any (q.reasons)").format(sql.Literal(reason))


@contextmanager
def _places_noted(conn: Connection, subject: Subject) -> Iterator[None]:
    """Keep the places of what waits and of what silver holds, to be compared with those after."""
    ensure_quarantine_table(conn, subject.source, subject.table)
    places = "create temp table {} as select _load_id, _row from {} as q where {}"
    waits = (sql.Identifier("_waited"), _waiting(subject.source, subject.table), SQL("stage = 'silver'"))
    there = conn.execute("select to_regclass(%s)", (subject.silver.as_string(conn),)).fetchone() != (None,)
    versions = record.judged_loads(conn, table_id(conn, subject.source, subject.table)).values()
    # Nothing else takes rows out at a replay, and a great table's places are many.
    may_leave = there and any(version != subject.version for version in versions)
    held = (
        SQL("{}").format(subject.silver)
        if may_leave
        else SQL("(select 0::bigint as _load_id, 0::bigint as _row)")
    )
    try:
        conn.execute(SQL(places).format(*waits))
        conn.execute(SQL(places).format(sql.Identifier("_held"), held, sql.Literal(may_leave)))
        yield
    finally:
        if not conn.closed and not conn.broken:
            conn.execute("drop table if exists pg_temp._waited, pg_temp._held")


def _moved(conn: Connection, subject: Subject) -> tuple[int, int, int]:
    """Records that wait no more, rows that wait and were in silver, and all that wait."""
    row = conn.execute(
        SQL(
            "with q as (select _load_id, _row from {} as q where q.stage = 'silver')"
            " select (select count(*) from (table _waited except table q) as released),"
            " (select count(*) from (table q intersect table _held) as gone), (select count(*) from q)"
        ).format(_waiting(subject.source, subject.table))
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1]), int(row[2])


def _waiting(source: str, table: str) -> sql.Composable:
    """The records of a quarantine that wait, each with its file's `path`: the one place that says which do."""
    return SQL(
        "(select q.*, l.path from {} as q join datops.loads as l on l.load_id = q._load_id where l.state = any ({}))"
    ).format(quarantine_table(source, table), sql.Literal(_LIVE))


def _tables(conn: Connection, source: str | None, table: str | None) -> list[tuple[str, str]]:
    """The tables of the catalogue that have a quarantine."""
    return conn.execute(
        "select source, name from datops.tables where (%(source)s::text is null or source = %(source)s)"
        " and (%(table)s::text is null or name = %(table)s)"
        " and to_regclass(format('quarantine.%%I', source || '_' || name)) is not null order by source, name",
        {"source": source, "table": table},
    ).fetchall()
