"""The component `Pipeline`: one document becomes assets, checks, a job, a sensor, a schedule.

Loading it touches nothing but the YAML file: no connection, no driver, no pandas.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from datops_assets.components.automation import TO_SILVER
from datops_assets.components.bronze import bronze_asset, files_check, keys_of
from datops_assets.components.document import PipelineDocument
from datops_assets.components.documents import read_documents
from datops_assets.components.silver import silver_asset
from datops_assets.components.source_sensor import is_watched, source_sensor
from datops_assets.components.transform_statements import transform_order
from datops_assets.components.transforms import transform_asset
from datops_assets.config.settings import find_project_root


class Pipeline(dg.Component, dg.Model, dg.Resolvable):
    """Tables of one source system, from its files or rows to checked silver tables.

    The document is read by datops itself and never passes through a template engine.
    """

    document: str = Field("pipeline.yaml", description="The pipeline document, beside this file.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Read the document and translate it. Raises DeclarationError with `file:line` for each problem."""
        folder = Path(context.path)
        documents = read_documents(folder / self.document, find_project_root(folder))
        return dg.Definitions.merge(*(pipeline_definitions(loaded.document) for loaded in documents))


def pipeline_definitions(document: PipelineDocument) -> dg.Definitions:
    """Everything Dagster holds for one source system."""
    shown, name = job_definitions(document, by_day=True), job_name(document)
    # With days the job's steps are not those of the assets that the graph shows: it stands on its own.
    jobs: list[Any] = list(shown.jobs or [])
    if document.has_days:
        jobs = [job_definitions(document).resolve_job_def(name)]
    schedules = []
    if document.schedule:
        schedules.append(
            dg.ScheduleDefinition(
                job_name=name,
                cron_schedule=document.schedule,
                execution_timezone="UTC",
                # Declared is wanted: like the sensor it runs as soon as the daemon is up.
                default_status=dg.DefaultScheduleStatus.RUNNING,
            )
        )
    return dg.Definitions(
        assets=shown.assets,
        asset_checks=shown.asset_checks,
        jobs=jobs,
        sensors=[source_sensor(document, name)] if is_watched(document) else [],
        schedules=schedules,
    )


def job_definitions(document: PipelineDocument, *, by_day: bool = False) -> dg.Definitions:
    """The source's job and the steps it is made of.

    by_day   the tables that have days are run for those that somebody asks for; without it for
             all that is new, whatever its day (see partitions.py)
    """
    assets = source_assets(document, by_day=by_day)
    job = dg.define_asset_job(
        job_name(document),
        selection=dg.AssetSelection.assets(*keys_of(document)),
        description=document.description or f"Load and judge what is new of {document.pipeline}.",
        tags={"datops/pipeline": document.pipeline, "datops/team": document.team, **TO_SILVER},
    )
    return dg.Definitions(assets=assets, asset_checks=[files_check(document, by_day=by_day)], jobs=[job])


def source_assets(document: PipelineDocument, *, by_day: bool = True) -> list[dg.AssetsDefinition]:
    """Bronze and silver of every table, referenced tables first; then what is made of them."""
    assets = []
    for name in document.load_order():
        assets.append(bronze_asset(document, name, by_day=by_day))
        if document.tables[name].contract is not None:
            assets.append(silver_asset(document, name, by_day=by_day))
    assets += [transform_asset(document, name, by_day=by_day) for name in transform_order(document)]
    return assets


def job_name(document: PipelineDocument) -> str:
    """The job that takes one source from files to silver."""
    return f"{document.pipeline}_pipeline"
