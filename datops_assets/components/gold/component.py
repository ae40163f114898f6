"""The component `Gold`: a dbt project becomes assets with checks. A thin translation, no work.

Loading reads the prepared graph and imports neither dagster_dbt nor dbt.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from datops_assets.components.automation import WHEN_SILVER_CHANGED
from datops_assets.components.catalogue import open_catalogue
from datops_assets.components.failures import failing_as_dagster
from datops_assets.components.gold.graph import Check, Graph, Model
from datops_assets.components.gold.project import DbtProject
from datops_assets.config.settings import Settings, read_settings


class GoldConfig(dg.Config):
    """What a person may choose when starting a run."""

    full_refresh: bool = Field(
        False, description="Build incremental models from nothing. Snapshots keep their history."
    )


class Gold(dg.Component, dg.Model, dg.Resolvable):
    """A dbt project on the warehouse: each model an asset, each test an asset check."""

    project: str = Field("dbt_project", description="Folder of the dbt project, below the project's root.")
    select: str = Field("fqn:*", description="dbt selection of the models that this component builds.")
    exclude: str = Field("", description="dbt selection of the models that it leaves to others.")
    name: str = Field("gold", description="Name of the step; give each component its own.")
    team: str = Field(description="Who answers for these tables.")
    owners: list[str] = Field(
        default=[], description="E-mail addresses; without any, the team owns the assets."
    )
    fresh_within_hours: int | None = Field(
        None, ge=1, description="Warn when an asset was not built for this long."
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Translate the project into one step with many assets."""
        return self.definitions(read_settings(context.project_root))

    def definitions(self, settings: Settings) -> dg.Definitions:
        """The same for known settings; the project is prepared where it is missing or stale."""
        project = DbtProject(
            folder=self._folder(settings.project_root),
            home=settings.home / "dbt",
            select=self.select,
            exclude=self.exclude,
        )
        return dg.Definitions(assets=[_gold_assets(self, project, project.graph(), settings)])

    def _folder(self, project_root: Path) -> Path:
        """In the project; in a wheel without one the project that it brings."""
        own, shipped = project_root / self.project, Path(__file__).parents[2] / self.project
        return shipped if shipped.is_dir() and not own.is_dir() else own


def _gold_assets(gold: Gold, project: DbtProject, graph: Graph, settings: Settings) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=gold.name,
        specs=[_spec(gold, model) for model in graph.models],
        check_specs=[_check_spec(check) for check in graph.checks],
        can_subset=True,
        retry_policy=dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL),
    )
    def build(context: dg.AssetExecutionContext, config: GoldConfig) -> Iterator[Any]:
        from datops_assets.components.gold.build import build_gold

        with failing_as_dagster(), open_catalogue(settings.project_root) as catalogue:
            yield from build_gold(
                context,
                project,
                graph,
                conn=catalogue.conn,
                url=catalogue.warehouse.url,
                full_refresh=config.full_refresh,
            )

    return build


def _spec(gold: Gold, model: Model) -> dg.AssetSpec:
    columns = [dg.TableColumn(column.name, column.type, column.description) for column in model.columns]
    return dg.AssetSpec(
        key=dg.AssetKey(model.key),
        deps=[dg.AssetKey(dep) for dep in model.deps],
        description=model.description,
        group_name="gold",
        kinds={"dbt", "postgres", *(["snapshot"] if model.materialized == "snapshot" else [])},
        owners=list(model.owners or gold.owners or [f"team:{gold.team}"]),
        tags={**model.tags, "layer": "gold"},
        code_version=model.code_version,
        skippable=True,
        automation_condition=WHEN_SILVER_CHANGED,
        freshness_policy=_freshness(gold),
        metadata={
            "dagster/relation_identifier": model.relation,
            "dagster/column_schema": dg.TableSchema(columns=columns),
            "dagster_dbt/unique_id": model.unique_id,
            "dagster_dbt/materialization_type": model.materialized,
        },
    )


def _check_spec(check: Check) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        name=check.name,
        asset=dg.AssetKey(check.model),
        additional_deps=[dg.AssetKey(dep) for dep in check.additional_deps],
        description=check.description,
        blocking=check.blocking,
        metadata={"dagster_dbt/unique_id": check.unique_id},
    )


def _freshness(gold: Gold) -> dg.FreshnessPolicy | None:
    if gold.fresh_within_hours is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=gold.fresh_within_hours))
