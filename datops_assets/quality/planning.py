"""What a judgement would do, asked without doing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from datops_assets.quality import record
from datops_assets.quality.contract import Contract, Disposition
from datops_assets.quality.judged import Subject
from datops_assets.quality.silver import ColumnDifference, Silver
from datops_assets.quality.work import due_for_days, plan_work, stays_outside


@dataclass(frozen=True)
class JudgementPlan:
    """The next judgement of a table.

    what       nothing, add, change or rebuild
    loads      how many loads it would judge
    columns    where silver's columns differ from the contract: add and widen break no reader,
               retype and remove may
    """

    what: str
    why: str
    loads: int
    columns: tuple[ColumnDifference, ...]


def plan_judgement(
    conn: psycopg.Connection[Any],
    source: str,
    table: str,
    contract: Contract,
    rename: Mapping[str, str] | None = None,
    disposition: Disposition = "append",
    *,
    partition_keys: Sequence[str] = (),
) -> JudgementPlan:
    """Say what `judge_table` (or `judge_partitions`) would do now. Writes nothing, takes no lock."""
    subject = Subject(source, table, contract, rename or {}, disposition)
    silver = Silver(conn, subject)
    found = conn.execute(
        "select table_id from datops.tables where source = %s and name = %s", (source, table)
    ).fetchone()
    live = record.live_loads(conn, found[0]) if found else []
    judged = record.judged_loads(conn, found[0]) if found else {}
    if found and stays_outside(partition_keys, subject, judged):
        live = due_for_days(partition_keys, live, record.held_loads(conn, found[0]))
    work = plan_work(subject, live, judged, silver_fits=silver.fits(), again=partition_keys)
    return JudgementPlan(work.what, work.why, len(work.new), tuple(silver.differences()))
