"""The component `Export`: one document becomes an asset for each table that goes out.

Loading it touches nothing but the YAML file. A delivery is named by its run: a step that is tried
again delivers the same once more, and destinations that can tell take it once.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step
from pydantic import Field

from datops_assets.components.automation import WHEN_SILVER_CHANGED
from datops_assets.components.catalogue import Catalogue, open_catalogue
from datops_assets.components.destinations import destination_kind
from datops_assets.components.export_document import ExportDocument, read_export
from datops_assets.components.failures import failing_as_dagster
from datops_assets.destinations.destination import Delivered


class Export(dg.Component, dg.Model, dg.Resolvable):
    """Tables of gold and silver that go to files, a database or an API.

    The document is read by datops itself and never passes through a template engine.
    """

    document: str = Field("export.yaml", description="The export document, beside this file.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Read the document and translate it. Raises DeclarationError with `file:line` for each problem."""
        path = Path(context.path) / self.document
        return export_definitions(read_export(path, _shown(path, Path(context.project_root))))


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def export_definitions(document: ExportDocument) -> dg.Definitions:
    """Everything Dagster holds for one export."""
    assets = [export_asset(document, name) for name in document.tables]
    job = dg.define_asset_job(
        export_job_name(document),
        selection=dg.AssetSelection.assets(*(export_key(document, name) for name in document.tables)),
        description=document.description or f"Deliver every table of {document.export}.",
        tags={"datops/export": document.export, "datops/team": document.team},
    )
    schedules = []
    if document.schedule:
        schedules.append(
            dg.ScheduleDefinition(
                job_name=export_job_name(document),
                cron_schedule=document.schedule,
                execution_timezone="UTC",
                default_status=dg.DefaultScheduleStatus.RUNNING,
            )
        )
    return dg.Definitions(assets=assets, jobs=[job], schedules=schedules)


def export_job_name(document: ExportDocument) -> str:
    """The job that delivers all tables."""
    return f"{document.export}_export"


def export_key(document: ExportDocument, name: str) -> dg.AssetKey:
    """`export/<name>/<table>`."""
    return dg.AssetKey(["export", document.export, name])


def export_asset(document: ExportDocument, name: str) -> dg.AssetsDefinition:
    """The asset that delivers one table."""
    table = document.tables[name]
    key = export_key(document, name)
    freshness = None
    if table.freshness:
        warn = timedelta(hours=table.freshness.warn_after_h) if table.freshness.warn_after_h else None
        fail = timedelta(hours=table.freshness.fail_after_h)
        freshness = dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn)
    spec = dg.AssetSpec(
        key,
        deps=[dg.AssetKey(table.from_.split("/"))],
        group_name="export",
        kinds={destination_kind(document.destination.type).technology},
        owners=list(table.owners or document.owners or [f"team:{document.team}"]),
        tags={**document.tags, **table.tags, "layer": "export"},
        description=table.description or f"{table.from_}, delivered to {document.destination.shown}.",
        metadata={"destination": document.destination.shown},
        automation_condition=None if document.schedule else WHEN_SILVER_CHANGED,
        freshness_policy=freshness,
    )
    retries = document.retries
    policy = dg.RetryPolicy(max_retries=retries.max, delay=retries.delay_s, backoff=dg.Backoff.EXPONENTIAL)

    @dg.multi_asset(
        name=key.to_python_identifier(),
        specs=[spec],
        retry_policy=policy if retries.max else None,
        pool=document.pool or f"destination_{document.export}",
        op_tags={"datops/export": document.export},
    )
    def deliver(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        with failing_as_dagster(), open_catalogue() as catalogue:
            delivered = deliver_table(catalogue, document, name, marker=context.run.run_id)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": delivered.rows,
                "delivered_to": delivered.where,
                "changed": delivered.changed,
            }
        )

    return deliver


def deliver_table(catalogue: Catalogue, document: ExportDocument, name: str, *, marker: str) -> Delivered:
    """Deliver one table as it is now.

    marker   names this delivery; under the same one a destination that can tell takes it once
    raises   DestinationUnreachableError, DestinationRefusedError
             TableMissingError: the warehouse has no such table or column
    """
    from datops_assets.destinations import open_rows

    table = document.tables[name]
    kind = destination_kind(document.destination.type)
    target = kind.target(name, table, document.destination)
    root = catalogue.settings.project_root
    order_by = getattr(table, "order_by", ())
    with (
        kind.open(document.destination, document.export, root) as destination,
        open_rows(catalogue.conn, table.relation, columns=table.columns, order_by=order_by) as rows,
    ):
        return destination.deliver(rows, target, marker)


def run_export(document: ExportDocument, project_root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Deliver every table in this process, in Dagster's history.

    returns   a row for each table that was delivered, and a sentence for each that was not
    """
    import warnings

    from datops_assets.components.runner import dagster_instance, execute_quietly, problems_of

    with warnings.catch_warnings(), dagster_instance(project_root) as instance:
        warnings.simplefilter("ignore")
        here = dg.Definitions(executor=dg.in_process_executor)
        steps = dg.Definitions.merge(export_definitions(document), here)
        result = execute_quietly(
            steps.resolve_job_def(export_job_name(document)),
            instance,
            tags={"datops/started_by": "datops export run"},
        )
    rows = []
    for event in result.get_asset_materialization_events():
        metadata = {key: value.value for key, value in event.materialization.metadata.items()}
        rows.append(
            {
                "table": event.asset_key.path[-1] if event.asset_key else "",
                "rows": metadata["dagster/row_count"],
                "delivered_to": metadata["delivered_to"],
                "changed": metadata["changed"],
                "run_id": result.run_id,
            }
        )
    return rows, problems_of(result)
