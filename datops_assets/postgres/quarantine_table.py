"""The one shape that every quarantine table has."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from datops_assets.postgres.identifiers import quarantine_table, warehouse_name

_CREATE = """
create table if not exists {} (
    _load_id        bigint not null,
    _row            bigint not null,
    stage           text not null check (stage in ('bronze', 'silver')),
    reasons         text[] not null,
    record          json,
    raw             bytea,
    position        bigint,
    contract_id     bigint,
    quarantined_at  timestamptz not null default now(),
    constraint {} primary key (_load_id, _row)
)
"""


def ensure_quarantine_table(conn: psycopg.Connection[Any], source: str, table: str) -> None:
    """Make the quarantine of a table, if it is not there. Call it under `lock_table`.

    stage bronze  a damaged record: `raw` bytes, `position` in the uncompressed file (bytes)
    stage silver  refused by a contract: `record` holds the delivered values
    """
    # PostgreSQL's own name for it, `…_pkey`, may be that of another table.
    key = sql.Identifier(f"{warehouse_name(source, table)}__pkey")
    conn.execute(sql.SQL(_CREATE).format(quarantine_table(source, table), key))
