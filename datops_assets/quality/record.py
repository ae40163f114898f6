"""What the catalogue knows of judgements: reading it before, writing it after."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from datops_assets.postgres.ulid import new_ulid
from datops_assets.quality.judged import CheckResult, Judgement, Subject
from datops_assets.quality.work import LiveLoad

Connection = psycopg.Connection[Any]


def live_loads(conn: Connection, table_id: int) -> list[LiveLoad]:
    """The loads silver should hold, in load order."""
    rows = conn.execute(
        "select load_id, partition_key from datops.loads where table_id = %s and state ="
        " 'loaded' order by load_id",
        (table_id,),
    )
    return [LiveLoad(*row) for row in rows]


def held_loads(conn: Connection, table_id: int) -> list[LiveLoad]:
    """The loads silver holds now, live or not, in load order."""
    rows = conn.execute(
        "select load_id, l.partition_key from datops.judged_loads j join datops.loads l using (load_id)"
        " where j.table_id = %s order by load_id",
        (table_id,),
    )
    return [LiveLoad(*row) for row in rows]


def judged_loads(conn: Connection, table_id: int) -> dict[int, str]:
    """The loads silver holds, with the version of the contract that judged each."""
    rows = conn.execute(
        "select j.load_id, c.version from datops.judged_loads j join datops.contracts c using"
        " (contract_id) where j.table_id = %s",
        (table_id,),
    )
    return dict(rows.fetchall())


def has_dropped_records(conn: Connection, table_id: int) -> bool:
    """Whether somebody decided to leave records of this table out for good."""
    row = conn.execute(
        "select exists (select from datops.dropped_records where table_id = %s)", (table_id,)
    ).fetchone()
    return bool(row and row[0])


def last_rows_total(conn: Connection, table_id: int) -> int | None:
    """Rows in silver after the last judgement that changed it; None before the first."""
    row = conn.execute(
        "select rows_total from datops.judgements where table_id = %s and state = 'judged'"
        " order by judgement_id desc limit 1",
        (table_id,),
    ).fetchone()
    return int(row[0]) if row else None


def last_checks(conn: Connection, table_id: int) -> tuple[CheckResult, ...]:
    """What the last judgement found: it holds until the next one, also through runs with nothing to judge."""
    rows = conn.execute(
        "select check_name, column_name, severity, rows_judged, rows_failed, passed, detail from datops.check_results"
        " where judgement_id = (select max(judgement_id) from datops.judgements"
        " where table_id = %s and state = 'judged')"
        " order by check_name",
        (table_id,),
    )
    return tuple(CheckResult(*row) for row in rows)


def contract_id(conn: Connection, table_id: int, subject: Subject) -> int:
    """The catalogue's number of this version of the contract; entered on first use."""
    document = {
        "contract": subject.contract.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "rename": dict(subject.rename),
        "disposition": subject.disposition,
    }
    row = conn.execute(
        "insert into datops.contracts (table_id, version, document) values (%s, %s, %s)"
        " on conflict (table_id, version) do update set document = excluded.document returning contract_id",
        (table_id, subject.version, Jsonb(document)),
    ).fetchone()
    assert row is not None
    return int(row[0])


def write_judgement(
    conn: Connection,
    table_id: int,
    contract: int,
    judgement: Judgement,
    *,
    started_at: datetime,
    run_id: str | None,
    metrics: Mapping[str, float],
) -> Judgement:
    """Enter a judgement, its checks and its metrics; returns it with its number."""
    ulid = new_ulid()
    row = conn.execute(
        "insert into datops.judgements (ulid, table_id, contract_id, kind, state, rows_judged,"
        " rows_passed, rows_quarantined,"
        " rows_inserted, rows_updated, rows_deleted, rows_total, score, run_id, started_at)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning judgement_id",
        (
            ulid, table_id, contract, judgement.kind, judgement.state, judgement.rows_judged, judgement.rows_passed,
            judgement.rows_quarantined, judgement.rows_inserted, judgement.rows_updated, judgement.rows_deleted,
            judgement.rows_total, judgement.score, run_id, started_at,
        ),
    ).fetchone()  # fmt: skip
    assert row is not None
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into datops.check_results (judgement_id, check_name, column_name, severity,"
            " rows_judged, rows_failed, passed, detail)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    row[0],
                    c.name,
                    c.column,
                    c.severity,
                    c.rows_judged,
                    c.rows_failed,
                    c.passed,
                    json.dumps(c.detail) if c.detail else None,
                )
                for c in judgement.checks
            ],
        )
        cursor.executemany(
            "insert into datops.metrics (table_id, judgement_id, metric, value) values (%s, %s, %s, %s)",
            [(table_id, row[0], name, value) for name, value in metrics.items()],
        )
    return dataclasses.replace(judgement, judgement_id=row[0], ulid=ulid)


def write_judged_loads(
    conn: Connection,
    table_id: int,
    contract: int,
    judgement: Judgement,
    *,
    whole: bool,
    gone: tuple[int, ...],
) -> None:
    """Say which loads silver holds now. `whole`: only those of this judgement."""
    if whole:
        conn.execute("delete from datops.judged_loads where table_id = %s", (table_id,))
    elif gone:
        conn.execute(
            "delete from datops.judged_loads where table_id = %s and load_id = any(%s)",
            (table_id, list(gone)),
        )
    conn.execute(
        "insert into datops.judged_loads (table_id, load_id, judgement_id, contract_id) select %s,"
        " unnest(%s::bigint[]), %s, %s",
        (table_id, list(judgement.loads), judgement.judgement_id, contract),
    )
