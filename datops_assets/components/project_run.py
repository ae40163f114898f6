"""All assets of the code location in one run, and what the warehouse holds after it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from psycopg import sql

from datops_assets.components.catalogue import Catalogue, open_catalogue
from datops_assets.components.declarations import read_declared
from datops_assets.components.document import PipelineDocument
from datops_assets.components.plans import pipeline_status
from datops_assets.components.runner import dagster_instance, execute_quietly, problems_of


@dataclass(frozen=True)
class Layer:
    """One schema of the warehouse."""

    layer: str
    tables: int
    rows: int


@dataclass(frozen=True)
class TableState:
    """One declared table after the run."""

    table: str
    bronze_rows: int
    silver_rows: int | None
    quarantined: int
    score: float | None


@dataclass(frozen=True)
class Reason:
    """Why how many records wait."""

    table: str
    reason: str
    rows: int


@dataclass(frozen=True)
class ProjectRun:
    """One run over everything; `problems` holds a sentence for each step that failed."""

    run_id: str
    success: bool
    layers: list[Layer]
    tables: list[TableState]
    reasons: list[Reason]
    checks_passed: int
    checks_failed: list[str]
    checks_warned: list[str]
    problems: list[str]


def run_project(definitions: dg.Definitions, project_root: Path) -> ProjectRun:
    """Materialize every asset of a code location once, in this process.

    Synthetic files are left alone: the demo has made its own, of the size that was asked for.
    """
    with warnings.catch_warnings(), dagster_instance(project_root) as instance:
        warnings.simplefilter("ignore")
        repository = definitions.get_repository_def()
        job = repository.get_job(repository.get_implicit_asset_job_names()[0])
        # Named one by one, so that automation knows that this run makes all of them.
        everything = [
            key for key in repository.asset_graph.executable_asset_keys if key.path[0] != "synthetic"
        ]
        result = execute_quietly(
            job, instance, asset_selection=everything, tags={"datops/started_by": "datops demo"}
        )
    evaluations = result.get_asset_check_evaluations()
    documents = [loaded.document for loaded in read_declared(project_root).documents]
    with open_catalogue(project_root) as catalogue:
        return ProjectRun(
            run_id=result.run_id,
            success=result.success,
            layers=[
                _layer(catalogue, schema, documents) for schema in ("bronze", "silver", "quarantine", "gold")
            ],
            tables=[state for document in documents for state in _states(catalogue, document)],
            reasons=[reason for document in documents for reason in _reasons(catalogue, document)],
            checks_passed=sum(one.passed for one in evaluations),
            checks_failed=[_check(one) for one in evaluations if _verdict(one) == "failed"],
            checks_warned=[_check(one) for one in evaluations if _verdict(one) == "warned"],
            problems=problems_of(result),
        )


def _verdict(evaluation: dg.AssetCheckEvaluation) -> str:
    if evaluation.passed:
        return "passed"
    return "warned" if evaluation.severity == dg.AssetCheckSeverity.WARN else "failed"


def _check(evaluation: dg.AssetCheckEvaluation) -> str:
    """`shop.orders: total.min: 7 of 2000 rows`; silver's descriptions name the expectations themselves."""
    layer, *table = evaluation.asset_key.path
    if layer == "silver":
        return f"{'.'.join(table)}: {evaluation.description}"
    return f"{evaluation.asset_key.to_user_string()}: {evaluation.check_name}: {evaluation.description}"


def _layer(catalogue: Catalogue, schema: str, documents: Sequence[PipelineDocument]) -> Layer:
    """What the documents made of one schema: a warehouse may hold more. Gold is the dbt project's."""
    names = catalogue.conn.execute(
        "select table_name from information_schema.tables where table_schema = %s and table_type = 'BASE TABLE'",
        [schema],
    ).fetchall()
    made = {f"{document.pipeline}_{table}" for document in documents for table in document.tables}
    counts = [_count(catalogue, schema, name) for (name,) in names if schema == "gold" or name in made]
    return Layer(schema, len(counts), sum(counts))


def _count(catalogue: Catalogue, schema: str, name: str) -> int:
    query = sql.SQL("select count(*) from {}").format(sql.Identifier(schema, name))
    row = catalogue.conn.execute(query).fetchone()
    return int(row[0]) if row else 0


def _states(catalogue: Catalogue, document: PipelineDocument) -> list[TableState]:
    rows: list[dict[str, Any]] = pipeline_status(catalogue, document)
    fields = TableState.__dataclass_fields__
    return [TableState(**{name: row[name] for name in fields}) for row in rows]


def _reasons(catalogue: Catalogue, document: PipelineDocument) -> list[Reason]:
    from datops_assets.quality import list_quarantine

    found = list_quarantine(catalogue.conn, document.pipeline, None)
    return [Reason(one.table, one.reason, one.rows) for one in found]
