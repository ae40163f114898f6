"""Daily partitions of tables whose files carry their day in the path.

Two kinds of runs reach a step. One is for days that somebody asked for: a backfill, or
`--partition`. The other is the source's own job (sensor, schedule, command line), which takes
everything new whatever its day. Dagster knows that one as a run without partitions, and
cannot run a partitioned asset without one where its input is partitioned too: so the job is
made of the same steps without their days, and each step says itself which days it touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, LiteralString

import dagster as dg

from datops_assets.components.catalogue import Catalogue
from datops_assets.components.document import PipelineDocument, TableDocument


@dataclass(frozen=True)
class DayInBronze:
    """What the catalogue knows of one day of a bronze table."""

    day: str
    files: int
    rows: int
    touched: bool
    """Whether the run that asks loaded any of it."""

    @property
    def metadata(self) -> dict[str, Any]:
        """What the day's partition shows."""
        return {"dagster/partition_row_count": self.rows, "files": self.files}


@dataclass(frozen=True)
class DayInSilver:
    """What the catalogue knows of one day of a silver table."""

    day: str
    files: int
    rows: int
    touched: bool
    """Whether the run that asks judged any of it."""

    @property
    def metadata(self) -> dict[str, Any]:
        """What the day's partition shows; rows may have given way to newer ones of the same key."""
        return {"rows_judged": self.rows, "files": self.files}


def daily_partitions(document: PipelineDocument, table: TableDocument) -> dg.DailyPartitionsDefinition | None:
    """The partitions of a table; None where it has none.

    All tables of a source start at the earliest `start`: a backfill over several of them
    needs one list of days.
    """
    if table.days is None:
        return None
    return dg.DailyPartitionsDefinition(start_date=first_day(document), end_offset=1)


def first_day(document: PipelineDocument) -> str:
    """The first day of the source's partitions, as a partition key."""
    starts = [table.days.start for table in document.tables.values() if table.days]
    return min(starts).isoformat()


def asked_days(context: dg.AssetExecutionContext, table: TableDocument) -> list[str] | None:
    """The days this step is for; None means everything that is new, as always where a table has no days."""
    if table.days is None or not (context.has_partition_key or context.has_partition_key_range):
        return None
    return list(context.partition_keys)


def days_in_bronze(
    catalogue: Catalogue, document: PipelineDocument, name: str, run_id: str
) -> list[DayInBronze]:
    """Every day that has files in bronze, oldest first; files that name no day are not among them."""
    return [DayInBronze(*row) for row in _fetch(catalogue, _DAYS_IN_BRONZE, document, name, run_id)]


def days_in_silver(
    catalogue: Catalogue, document: PipelineDocument, name: str, run_id: str
) -> list[DayInSilver]:
    """Every day whose files silver holds, oldest first."""
    return [DayInSilver(*row) for row in _fetch(catalogue, _DAYS_IN_SILVER, document, name, run_id)]


def files_without_day(catalogue: Catalogue, document: PipelineDocument, name: str) -> list[str]:
    """Paths of live files that belong to no partition: their path names no day, or one before the first."""
    return [path for (path,) in _fetch(catalogue, _WITHOUT_DAY, document, name, "")]


def record_days(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    asked: list[str] | None,
    days: Iterable[DayInBronze] | Iterable[DayInSilver],
) -> None:
    """Tell Dagster which days hold what.

    Days that were asked for are materialized by Dagster itself and only get their counts. Any
    other day that this run touched is recorded here; without partitions also a day that an
    earlier run loaded and died before it could say so.
    """
    known = context.instance.get_materialized_partitions(key) if asked is None else set()
    for day in days:
        if asked is not None and day.day in asked:
            context.add_asset_metadata(day.metadata, asset_key=key, partition_key=day.day)
        elif day.touched or (asked is None and day.day not in known):
            context.log_event(dg.AssetMaterialization(key, partition=day.day, metadata=day.metadata))


def _fetch(
    catalogue: Catalogue, query: LiteralString, document: PipelineDocument, name: str, run_id: str
) -> list[tuple[Any, ...]]:
    values = {"source": document.pipeline, "name": name, "run_id": run_id, "first": first_day(document)}
    return catalogue.conn.execute(query, values).fetchall()


_DAYS_IN_BRONZE: LiteralString = """
select l.partition_key, count(*), coalesce(sum(l.rows), 0)::bigint, coalesce(bool_or(l.run_id = %(run_id)s), false)
from datops.loads as l join datops.tables as t using (table_id)
where t.source = %(source)s and t.name = %(name)s and l.state in ('loaded', 'staged')
  and l.partition_key >= %(first)s
group by l.partition_key order by l.partition_key
"""

_DAYS_IN_SILVER: LiteralString = """
select l.partition_key, count(*), coalesce(sum(l.rows), 0)::bigint, coalesce(bool_or(g.run_id = %(run_id)s), false)
from datops.judged_loads as j
join datops.judgements as g using (judgement_id)
join datops.loads as l on l.load_id = j.load_id
join datops.tables as t on t.table_id = j.table_id
where t.source = %(source)s and t.name = %(name)s and l.partition_key >= %(first)s
group by l.partition_key order by l.partition_key
"""

_WITHOUT_DAY: LiteralString = """
select l.path
from datops.loads as l join datops.tables as t using (table_id)
where t.source = %(source)s and t.name = %(name)s and l.state in ('loaded', 'staged')
  and (l.partition_key is null or l.partition_key < %(first)s)
order by l.path
"""
