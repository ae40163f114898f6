"""The component `ChangeStream`: one document becomes the assets of a database that is followed.

One step takes the snapshot where there is none and drains the log to where it was when the step began.
Loading it touches nothing but the YAML file.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step
from pydantic import Field

from datops_assets.components.automation import TO_SILVER
from datops_assets.components.bronze import SCHEMA_CHECK
from datops_assets.components.catalogue import Catalogue, open_catalogue
from datops_assets.components.failures import failing_as_dagster
from datops_assets.components.streams.document import StreamDocument, read_stream
from datops_assets.components.streams.silver import about, silver_assets
from datops_assets.config.settings import find_project_root, read_settings
from datops_assets.errors import DatopsError

if TYPE_CHECKING:
    from datops_assets.cdc import Capture, Drained, Progress, Standing

INTERVAL_S = 30
CHECK = "stream"


class ChangeStream(dg.Component, dg.Model, dg.Resolvable):
    """Tables of one database, followed through its log or by queries.

    The document is read by datops itself and never passes through a template engine.
    """

    document: str = Field("stream.yaml", description="The stream document, beside this file.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Read the document and translate it. Raises DeclarationError with `file:line` for each problem."""
        folder = Path(context.path)
        return stream_definitions(read_stream(folder / self.document, find_project_root(folder)).document)


def stream_definitions(document: StreamDocument) -> dg.Definitions:
    """Everything Dagster holds for one stream."""
    assets = [_assets(document), *silver_assets(document)]
    job = dg.define_asset_job(
        job_name(document),
        selection=dg.AssetSelection.assets(*(key for asset in assets for key in asset.keys)),
        description=document.description or f"Bring the changes of {document.stream} into bronze and silver.",
        tags={"datops/stream": document.stream, "datops/team": document.team, **TO_SILVER},
    )
    return dg.Definitions(assets=assets, jobs=[job], sensors=[_sensor(document)])


def job_name(document: StreamDocument) -> str:
    """The job that drains a stream."""
    return f"{document.stream}_stream"


def _specs(document: StreamDocument) -> list[dg.AssetSpec]:
    specs = []
    for name, table in document.tables.items():
        mirror = table.description or f"{name} of {document.stream} as it is there now."
        log = f"Every change of {name} of {document.stream}, in commit order."
        specs += [
            dg.AssetSpec(
                ["bronze", document.stream, asset],
                description=mirror if asset == name else log,
                metadata={"dagster/relation_identifier": f"bronze.{document.stream}_{asset}"},
                kinds={"postgres"},
                **about(document, table, "bronze"),
            )
            for asset in document.assets_of(name)
        ]
    return specs


def _assets(document: StreamDocument) -> dg.AssetsDefinition:
    first = next(iter(document.tables))
    checks = [
        dg.AssetCheckSpec(
            CHECK,
            asset=dg.AssetKey(["bronze", document.stream, first]),
            description="The stream goes on from where it was, and the source keeps all that is needed.",
        )
    ]

    checks += [
        dg.AssetCheckSpec(
            SCHEMA_CHECK,
            asset=dg.AssetKey(["bronze", document.stream, name]),
            description="The source's columns are those that the mirror has, or a person took others.",
        )
        for name, table in document.tables.items()
        if table.schema_policy == "freeze"
    ]

    @dg.multi_asset(
        name=f"bronze__{document.stream}",
        specs=_specs(document),
        check_specs=checks,
        retry_policy=dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL),
        pool=f"source_{document.stream}",
        op_tags={"datops/stream": document.stream},
    )
    def follow(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        from datops_assets.cdc.schema import frozen_tables

        with failing_as_dagster(), open_catalogue() as catalogue:
            engine = document.engine(catalogue.settings.project_root)
            done, standing = follow_once(catalogue, engine)
            gone = forget_old_changes(catalogue, document)
            frozen = frozen_tables(catalogue.conn, document.stream)
        context.log.info(engine.said(done))
        yield from _results(document, done, standing, gone)
        yield from _schema_checks(document, frozen)

    return follow


def follow_once(catalogue: Catalogue, engine: "Capture") -> tuple["Drained", "Standing"]:
    """Take the snapshot where there is none, then drain; returns what was done, and how things stand."""
    from datops_assets.cdc import keep_figures, lease

    with lease(catalogue.conn, engine.source):
        take_first_snapshot(catalogue, engine)
        done = engine.drain(catalogue.conn, catalogue.warehouse.connect)
        standing = engine.standing(catalogue.conn)
        keep_figures(catalogue.conn, engine.source, standing)
        return done, standing


def forget_old_changes(catalogue: Catalogue, document: StreamDocument) -> dict[str, int]:
    """Let the logs go of what is older than declared; returns how many changes went, per table with `keep:`."""
    from datops_assets.cdc import forget_changes

    return {
        name: forget_changes(catalogue.conn, document.stream, name, table.keep.days)
        for name, table in document.tables.items()
        if table.keep is not None and table.is_logged
    }


def take_first_snapshot(catalogue: Catalogue, engine: "Capture") -> None:
    """Copy the tables where they never were, or only half; the stream's lease is held."""
    if not engine.standing(catalogue.conn).has_begun:
        engine.snapshot(catalogue.conn, catalogue.warehouse.connect)


def _results(
    document: StreamDocument, done: "Drained", standing: "Standing", gone: dict[str, int]
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    common: dict[str, Any] = {
        "applied": done.applied, "seconds": done.seconds, **standing.figures, **standing.health,
    }  # fmt: skip
    over = document.limits.exceeded(standing.figures)
    for name in document.tables:
        metadata = {**common, "changes": done.tables.get(name, 0), **standing.tables.get(name, {})}
        metadata |= schema_changes(done, name)
        of_log = {**metadata, "changes_let_go": gone[name]} if name in gone else metadata
        for asset in document.assets_of(name):
            yield dg.MaterializeResult(
                dg.AssetKey(["bronze", document.stream, asset]),
                metadata=metadata if asset == name else of_log,
            )
    yield dg.AssetCheckResult(
        check_name=CHECK,
        asset_key=dg.AssetKey(["bronze", document.stream, next(iter(document.tables))]),
        passed=standing.is_sound and not over,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(over) or None,
        metadata=common,
    )


def _schema_checks(
    document: StreamDocument, frozen: Mapping[str, Mapping[str, Any]]
) -> Iterator[dg.AssetCheckResult]:
    """What each table that keeps its columns says: whether its mirror waits for a person, and why."""
    from datops_assets.ingestion import said_difference

    for name, table in document.tables.items():
        if table.schema_policy != "freeze":
            continue
        found = frozen.get(name)
        label = f"{document.stream}.{name}"
        yield dg.AssetCheckResult(
            check_name=SCHEMA_CHECK,
            asset_key=dg.AssetKey(["bronze", document.stream, name]),
            passed=found is None,
            severity=dg.AssetCheckSeverity.ERROR,
            description="the columns are those of the mirror"
            if found is None
            else f"its columns are not those of {label}, which `schema: freeze` keeps ({said_difference(dict(found))});"
            f" its mirror stands still, its log goes on. To take them: datops contract accept {label}, and the next"
            " drain copies the table anew; or let it follow: `schema: evolve`",
            metadata={} if found is None else {"columns_changed": dg.MetadataValue.json(dict(found))},
        )


def schema_changes(done: "Drained | Progress", name: str) -> dict[str, Any]:
    """How a table's columns changed, as the asset shows it, and whether the table was copied for that."""
    shown: dict[str, Any] = {}
    changed = dict(done.differences.get(name, {}))
    appeared = [*changed.get("appeared", []), *done.columns_added.get(name, [])]
    if appeared:
        changed["appeared"] = list(dict.fromkeys(appeared))
    if changed:
        shown["columns_changed"] = dg.MetadataValue.json(changed)
    if name in done.copied:
        shown["copied"] = "anew: the log does not tell what became of its rows" if changed else "whole"
    return shown


def _sensor(document: StreamDocument) -> dg.SensorDefinition:
    name = job_name(document)
    running = document.sensor == "running"

    @dg.sensor(
        name=f"{document.stream}_changes",
        job_name=name,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description=f"Starts {name} when {document.stream} has changes of its tables, or it is time to look.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        under_way = dg.RunsFilter(
            job_name=name, statuses=[dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED]
        )
        if context.instance.get_runs_count(under_way):
            return dg.SkipReason(f"a run of {name} is under way")
        try:
            return _look(document)
        except DatopsError as error:
            return dg.SkipReason(f"cannot look for changes: {error}")

    return watch


def _look(document: StreamDocument) -> dg.RunRequest | dg.SkipReason:
    engine = document.engine(read_settings().project_root)
    with open_catalogue() as catalogue:
        standing = engine.standing(catalogue.conn)
    if not standing.has_begun:
        return dg.RunRequest(tags={"datops/why": "first snapshot"})
    if standing.state == "resync_required":
        return dg.SkipReason(f"{standing.reason}; a person decides: datops cdc resync {engine.source}")
    is_worth_it, why = engine.news(standing)
    return dg.RunRequest(tags={"datops/why": why}) if is_worth_it else dg.SkipReason(why)
