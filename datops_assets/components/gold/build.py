"""One `dbt build` as one Dagster step: connect, run, convert, say what failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from psycopg import Connection, sql

from datops_assets.components.gold.events import EventReader
from datops_assets.components.gold.failures import what_failed
from datops_assets.components.gold.graph import Graph, Model
from datops_assets.components.gold.process import connection_variables, dbt_arguments, start_dbt, stop
from datops_assets.components.gold.project import DbtProject

_LOCK = "select pg_advisory_lock(hashtextextended('datops.gold', 0))"
_TRY_LOCK = "select pg_try_advisory_lock(hashtextextended('datops.gold', 0))"
_UNLOCK = "select pg_advisory_unlock(hashtextextended('datops.gold', 0))"


def build_gold(
    context: dg.AssetExecutionContext,
    project: DbtProject,
    graph: Graph,
    *,
    conn: Connection[Any],
    url: str,
    full_refresh: bool = False,
) -> Iterator[Any]:
    """Build what the step selects; yield an output for each relation, a result for each test.

    conn    holds the lock that keeps two builds apart, and counts rows
    url     the same warehouse, for dbt's process; handed over by its environment
    raises  dg.Failure: a model failed, or a test of severity error; what was built by then stays
    """
    arguments = ["build", *_selection(context, project, graph), *(["--full-refresh"] if full_refresh else [])]
    with _one_at_a_time(context, conn):
        target = project.new_run(context.run.run_id)
        reader = EventReader(context, target)
        arguments += dbt_arguments(project.folder, target)
        process = start_dbt(arguments, target, connection_variables(url))
        try:
            for line in process.stdout or ():
                for event in reader.read(line):
                    yield _enriched(event, graph, conn, reader)
            process.wait()
        finally:
            stop(process)
    project.remember_parse(target)
    if process.returncode != 0:
        raise dg.Failure(description=what_failed(target, reader.errors), allow_retries=False)


def _selection(context: dg.AssetExecutionContext, project: DbtProject, graph: Graph) -> list[str]:
    models = {dg.AssetKey(model.key): model.selector for model in graph.models}
    checks = {dg.AssetCheckKey(dg.AssetKey(c.model), c.name): c.selector for c in graph.checks}
    if context.selected_asset_keys >= models.keys() and context.selected_asset_check_keys >= checks.keys():
        return ["--select", project.select, *(["--exclude", project.exclude] if project.exclude else [])]
    selected = [models[key] for key in context.selected_asset_keys]
    selected += [checks[key] for key in context.selected_asset_check_keys]
    return ["--indirect-selection", "empty", "--select", *sorted(selected)]


@contextmanager
def _one_at_a_time(context: dg.AssetExecutionContext, conn: Connection[Any]) -> Iterator[None]:
    # Two dbt runs would rename the same tables under each other. A lost connection frees the lock.
    if conn.execute(_TRY_LOCK).fetchone() != (True,):
        context.log.info("another run builds gold; waiting for it")
        conn.execute(_LOCK)
    try:
        yield
    finally:
        if not conn.broken:
            conn.execute(_UNLOCK)


def _enriched(event: Any, graph: Graph, conn: Connection[Any], reader: EventReader) -> Any:
    if isinstance(event, dg.Output):
        models = {dg.AssetKey(model.key).to_python_identifier(): model for model in graph.models}
        if event.output_name not in models:
            raise dg.Failure(
                description="the dbt project has changed since the definitions were loaded; "
                "reload the code location and run again",
                allow_retries=False,
            )
        return event.with_metadata({**event.metadata, **_size(models[event.output_name], conn)})
    if isinstance(event, dg.AssetCheckResult):
        return _explained(event, reader)
    return event


def _size(model: Model, conn: Connection[Any]) -> dict[str, Any]:
    described = {"dagster/relation_identifier": model.relation}
    if model.materialized == "view":  # counting would run its query
        return described
    relation = sql.Identifier(*model.relation.split(".", 1))
    counted = conn.execute(sql.SQL("select count(*) from {}").format(relation)).fetchone()
    return {**described, "dagster/row_count": counted[0] if counted else 0}


def _explained(result: dg.AssetCheckResult, reader: EventReader) -> dg.AssetCheckResult:
    """Add the sentence and, for a test that failed, the query that shows the rows."""
    explanation, metadata = reader.explain(result)
    return dg.AssetCheckResult(
        passed=result.passed,
        asset_key=result.asset_key,
        check_name=result.check_name,
        severity=result.severity,
        description=explanation,
        metadata={**result.metadata, **metadata},
    )
