"""What a pipeline would do, how it stands, and where it differs from its document."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from datops_assets.components.catalogue import Catalogue
from datops_assets.components.document import PipelineDocument
from datops_assets.components.sources import declared_table, open_source
from datops_assets.components.transform_statements import declared_version, transform_order

if TYPE_CHECKING:
    from datops_assets.quality import JudgementPlan

Row = dict[str, Any]


def plan_pipeline(catalogue: Catalogue, document: PipelineDocument) -> list[Row]:
    """A row for each thing a run would do, and for each file it would leave alone and why."""
    rows: list[Row] = []
    for name in document.load_order():
        loads = _planned_loads(catalogue, document, name)
        rows += loads
        if document.tables[name].contract is not None:
            coming = sum(row["count"] for row in loads if row["what"] in ("load", "compare"))
            rows.append(_planned_judgement(catalogue, document, name, coming))
    return rows + [_planned_build(catalogue, document, name) for name in transform_order(document)]


def _planned_build(catalogue: Catalogue, document: PipelineDocument, name: str) -> Row:
    """A transformation is built by every run."""
    found = catalogue.conn.execute(_LAST_BUILD, (document.pipeline, name)).fetchone()
    why = "every run builds it anew"
    if found is None:
        why = "it was never built"
    elif found[0] != declared_version(document, name):
        why = "its declaration changed"
    label = f"{document.pipeline}.{name}"
    return {"table": label, "step": "transform", "what": "build", "count": 0, "why": why}


_LAST_BUILD = """
select version, rows, built_at from datops.builds join datops.tables using (table_id)
where source = %s and name = %s order by build_id desc limit 1
"""


def _planned_loads(catalogue: Catalogue, document: PipelineDocument, name: str) -> list[Row]:
    from datops_assets.ingestion import plan_load

    root = catalogue.settings.project_root
    table = declared_table(document, name, root)
    reasons: dict[tuple[str, str], list[str]] = {}
    with open_source(document, root) as source:
        for one in plan_load(catalogue.conn, source, table):
            reasons.setdefault((one.action, one.reason), []).append(one.path)
    missing = nothing_yet(catalogue, document, name)
    if missing is not None:
        reasons["nothing", missing] = []
    return [
        {
            "table": table.label,
            "step": "bronze",
            "what": what,
            "count": len(paths),
            "why": reason,
            "paths": paths,
        }
        for (what, reason), paths in reasons.items()
    ]


def nothing_yet(catalogue: Catalogue, document: PipelineDocument, name: str) -> str | None:
    """Why a table that nothing was ever loaded into finds nothing; None where it is as it should be."""
    from datops_assets.ingestion import list_loads

    if list_loads(catalogue.conn, document.pipeline, name, limit=1):
        return None
    root = catalogue.settings.project_root
    table = declared_table(document, name, root)
    with open_source(document, root) as source:
        found = source.check(table)
        return None if found.ok and source.list_units(table) else found.message


def _planned_judgement(catalogue: Catalogue, document: PipelineDocument, name: str, coming: int) -> Row:
    """What silver would do after bronze has taken the files that are coming."""
    judgement = _judgement_plan(catalogue, document, name)
    what, why = judgement.what, judgement.why
    if coming and (what in ("nothing", "add") or not judgement.loads):
        what, why = "judge", "judge what bronze brings"
    elif what == "rebuild" and not judgement.loads and not _holds_rows(catalogue, document, name):
        what, why = "nothing", "there is nothing to judge yet"
    return {
        "table": f"{document.pipeline}.{name}",
        "step": "silver",
        "what": what,
        "count": judgement.loads + coming,
        "why": why,
        "columns": [dataclasses.asdict(difference) for difference in judgement.columns],
    }


def _holds_rows(catalogue: Catalogue, document: PipelineDocument, name: str) -> bool:
    """Whether silver holds what any load brought."""
    found = catalogue.conn.execute(
        "select exists (select from datops.judged_loads join datops.tables using (table_id)"
        " where source = %s and name = %s)",
        (document.pipeline, name),
    ).fetchone()
    return found == (True,)


def _judgement_plan(catalogue: Catalogue, document: PipelineDocument, name: str) -> JudgementPlan:
    from datops_assets.quality import plan_judgement

    table = document.tables[name]
    assert table.contract is not None
    return plan_judgement(
        catalogue.conn, document.pipeline, name, table.contract, table.rename, table.disposition
    )


def loads_to_judge(catalogue: Catalogue, document: PipelineDocument) -> list[int]:
    """Loads that silver should hold and does not, or holds and should not.

    Without those that a blocking check keeps out: they wait for a person or for other files.
    """
    judged = [name for name, table in document.tables.items() if table.contract is not None]
    rows = catalogue.conn.execute(_TO_JUDGE, {"source": document.pipeline, "names": judged})
    return [load_id for (load_id,) in rows]


_TO_JUDGE = """
select l.load_id
from datops.loads as l
join datops.tables as t using (table_id)
left join datops.judged_loads as j on j.table_id = l.table_id and j.load_id = l.load_id
where t.source = %(source)s and t.name = any (%(names)s) and (l.state = 'loaded') <> (j.load_id is not null)
  and not exists (
    select from datops.judgements as g
    where g.table_id = l.table_id and g.state = 'blocked' and g.started_at > l.finished_at
      and g.judgement_id > coalesce(
        (select max(o.judgement_id) from datops.judgements as o
          where o.table_id = l.table_id and o.state = 'judged'), 0))
order by l.load_id
"""


def pipeline_status(catalogue: Catalogue, document: PipelineDocument) -> list[Row]:
    """A row a table: last load, last judgement, quarantine, score, and one state for all of it.

    Each row also has the pipeline's score: the tables' scores, weighted by their rows in bronze.
    """
    rows = [_status(catalogue, document, name) for name in document.tables]
    rows += [_status_of_build(catalogue, document, name) for name in transform_order(document)]
    score = pipeline_score(rows)
    return [{**row, "pipeline_score": score} for row in rows]


def pipeline_score(rows: Sequence[Row]) -> float | None:
    """sum(score x bronze rows) / sum(bronze rows) over the tables that were judged; None where none was."""
    judged = [(row["score"], max(row["bronze_rows"], 1)) for row in rows if row["score"] is not None]
    if not judged:
        return None
    return sum(score * weight for score, weight in judged) / sum(weight for _, weight in judged)


def _status(catalogue: Catalogue, document: PipelineDocument, name: str) -> Row:
    from psycopg.rows import class_row

    from datops_assets.quality import count_waiting

    wanted = {"source": document.pipeline, "name": name}
    with catalogue.conn.cursor(row_factory=class_row(_TableStatus)) as cursor:
        status = cursor.execute(_STATUS, wanted).fetchone() or _TableStatus()
    return {
        "table": f"{document.pipeline}.{name}",
        "state": status.state(has_contract=document.tables[name].contract is not None),
        "last_load": status.last_load,
        "bronze_rows": status.bronze_rows,
        "silver_rows": status.silver_rows,
        "quarantined": count_waiting(catalogue.conn, document.pipeline, name),
        "score": status.score,
        "refused_files": status.refused_files,
    }


def _status_of_build(catalogue: Catalogue, document: PipelineDocument, name: str) -> Row:
    """A transformation has no bronze, no quarantine and no score."""
    found = catalogue.conn.execute(_LAST_BUILD, (document.pipeline, name)).fetchone()
    state = "never built" if found is None else "ok"
    if found is not None and found[0] != declared_version(document, name):
        state = "behind"
    return {
        "table": f"{document.pipeline}.{name}",
        "state": state,
        "last_load": found[2] if found else None,
        "bronze_rows": 0,
        "silver_rows": found[1] if found else None,
        "quarantined": 0,
        "score": None,
        "refused_files": 0,
    }


@dataclass(frozen=True)
class _TableStatus:
    """What the catalogue says of one table."""

    last_load: datetime | None = None
    bronze_rows: int = 0
    refused_files: int = 0
    unjudged: int = 0
    """Loads that silver should hold and does not, or holds and should not."""
    score: float | None = None
    judged: str | None = None
    """State of the last judgement."""
    checks_failed: int = 0
    """Of that judgement; those that only warn are not counted."""
    silver_rows: int | None = None

    def state(self, *, has_contract: bool) -> str:
        """One word or two for all of it: what a person has to look at first."""
        if self.refused_files:
            return "files refused"
        if self.last_load is None:
            return "never loaded"
        if not has_contract:
            return "ok"
        if self.judged == "blocked":
            return "blocked"
        if self.judged is None:
            return "never judged"
        if self.unjudged:
            return "behind"
        return "failed" if self.checks_failed else "ok"


# A refused file counts until a load of the same path succeeds, one that was interrupted until the next run.
_STATUS = """
with wanted as (
    select table_id from datops.tables where source = %(source)s and name = %(name)s
), newest as (
    select distinct on (path) path, state, run_id, reload_requested
    from datops.loads join wanted using (table_id)
    order by path, load_id desc
), last_run as (
    select run_id from datops.loads join wanted using (table_id) order by load_id desc limit 1
), loaded as (
    select max(finished_at) filter (where state in ('loaded', 'staged', 'superseded', 'undone')) as last_load,
           coalesce(sum(rows) filter (where state = 'loaded'), 0)::bigint as bronze_rows
    from datops.loads join wanted using (table_id)
), unjudged as (
    select count(*) as loads from datops.loads join wanted using (table_id)
      left join datops.judged_loads using (table_id, load_id)
    where (state = 'loaded') <> (judgement_id is not null)
), judged as (
    select score, state,
           (select count(*) from datops.check_results as c
             where c.judgement_id = datops.judgements.judgement_id
               and not passed and severity <> 'warn') as checks_failed,
           (select rows_total from datops.judgements join wanted using (table_id)
             where state = 'judged' order by judgement_id desc limit 1) as rows_total
    from datops.judgements join wanted using (table_id)
    order by judgement_id desc limit 1
)
select loaded.last_load, loaded.bronze_rows,
       (select count(*) from newest where state in ('failed', 'refused') and not reload_requested
            or state = 'interrupted' and run_id = (select run_id from last_run)) as refused_files,
       unjudged.loads as unjudged, judged.score, judged.state as judged,
       coalesce(judged.checks_failed, 0) as checks_failed, judged.rows_total as silver_rows
from loaded cross join unjudged left join judged on true
"""


def pipeline_drift(catalogue: Catalogue, document: PipelineDocument) -> list[Row]:
    """A row for each difference between the warehouse and the document; none where there is no drift."""
    rows: list[Row] = []
    for name, table in document.tables.items():
        if table.contract is None:
            continue
        label = f"{document.pipeline}.{name}"
        judge_again = f"datops pipeline rebuild {label}"
        for difference in _judgement_plan(catalogue, document, name).columns:
            what, declared, actual = (
                f"silver column {difference.name}",
                difference.declared,
                difference.actual,
            )
            rows.append(_drifted(label, what, declared, actual, judge_again))
        declared = table.contract.version(rename=table.rename)
        for (version,) in catalogue.conn.execute(_JUDGED_BY, {"source": document.pipeline, "name": name}):
            if version != declared:
                rows.append(
                    _drifted(label, "contract that silver was judged by", declared, version, judge_again)
                )
    return rows


def _drifted(table: str, what: str, declared: str | None, actual: str | None, next_step: str) -> Row:
    return {"table": table, "what": what, "declared": declared, "actual": actual, "next_step": next_step}


_JUDGED_BY = """
select distinct contracts.version
from datops.judged_loads
join datops.contracts using (contract_id)
join datops.tables on tables.table_id = judged_loads.table_id
where tables.source = %(source)s and tables.name = %(name)s
order by 1
"""
