"""The component `ChangeStream`: one document becomes the assets of a database that is followed.

One step takes the snapshot where there is none and drains the log to where it was when the step began.
Loading it touches nothing but the YAML file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step
from pydantic import Field

from datops_assets.components.automation import TO_SILVER
from datops_assets.components.catalogue import Catalogue, open_catalogue
from datops_assets.components.failures import failing_as_dagster
from datops_assets.components.streams.document import StreamDocument, read_stream
from datops_assets.components.streams.silver import about, silver_assets
from datops_assets.config.settings import find_project_root, read_settings
from datops_assets.errors import DatopsError

if TYPE_CHECKING:
    from datops_assets.cdc import ChangeStream as Stream
    from datops_assets.cdc import Drained, SlotStatus, StreamEntry

INTERVAL_S = 30
HEARTBEAT_BYTES = 256 << 20
"""Log that a stream without changes of its own may hold back in the source before it is drained all the same."""
CHECK = "stream"


class ChangeStream(dg.Component, dg.Model, dg.Resolvable):
    """Tables of one PostgreSQL database, followed through its log.

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
        mirror, changes = f"bronze.{document.stream}_{name}", f"bronze.{document.stream}_{name}_changes"
        specs += [
            dg.AssetSpec(
                ["bronze", document.stream, name],
                description=table.description or f"{name} of {document.stream} as it is there now.",
                metadata={"dagster/relation_identifier": mirror},
                kinds={"postgres"},
                **about(document, table, "bronze"),
            ),
            dg.AssetSpec(
                ["bronze", document.stream, f"{name}_changes"],
                description=f"Every change of {name} of {document.stream}, in commit order.",
                metadata={"dagster/relation_identifier": changes},
                kinds={"postgres"},
                **about(document, table, "bronze"),
            ),
        ]
    return specs


def _assets(document: StreamDocument) -> dg.AssetsDefinition:
    first = next(iter(document.tables))
    checks = [
        dg.AssetCheckSpec(
            CHECK,
            asset=dg.AssetKey(["bronze", document.stream, first]),
            description="The stream goes on from where it was, and its slot keeps all that is needed.",
        )
    ]

    @dg.multi_asset(
        name=f"{document.stream}_stream",
        specs=_specs(document),
        check_specs=checks,
        retry_policy=dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL),
        pool=f"source_{document.stream}",
        op_tags={"datops/stream": document.stream},
    )
    def follow(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        with failing_as_dagster(), open_catalogue() as catalogue:
            done, entry, slot = follow_once(catalogue, document)
        context.log.info(
            f"{done.changes} change(s) of {done.transactions} transaction(s) in {done.seconds:.2f} s, at {done.applied}"
        )
        yield from _results(document, done, entry, slot)

    return follow


def follow_once(
    catalogue: Catalogue, document: StreamDocument
) -> tuple["Drained", "StreamEntry", "SlotStatus | None"]:
    """Take the snapshot where there is none, then drain; returns what was done, and how things stand."""
    from datops_assets.cdc import drain, find_stream, read_slot

    stream = document.change_stream()
    parameters = document.parameters(catalogue.settings.project_root)
    with _leased(catalogue, stream):
        take_first_snapshot(catalogue, document)
        done = drain(catalogue.conn, parameters, stream)
        entry = find_stream(catalogue.conn, stream.source)
    assert entry is not None
    return done, entry, read_slot(parameters, stream, entry)


def take_first_snapshot(catalogue: Catalogue, document: StreamDocument) -> None:
    """Copy the tables where they never were, or only half; the stream's lease is held."""
    from datops_assets.cdc import find_stream, take_snapshot

    stream = document.change_stream()
    entry = find_stream(catalogue.conn, stream.source)
    if entry is None or entry.state in ("new", "snapshot"):
        parameters = document.parameters(catalogue.settings.project_root)
        take_snapshot(catalogue.conn, catalogue.warehouse.connect, parameters, stream)


@contextmanager
def _leased(catalogue: Catalogue, stream: "Stream") -> Iterator[None]:
    from datops_assets.cdc import lease

    with lease(catalogue.conn, stream.source):
        yield


def _results(
    document: StreamDocument, done: "Drained", entry: "StreamEntry", slot: "SlotStatus | None"
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    from datops_assets.cdc.status import lag_seconds

    common: dict[str, Any] = {"applied_lsn": done.applied, "seconds": done.seconds}
    if slot is not None:
        common["lag_bytes"] = slot.lag_bytes or 0
        common["retained_wal_bytes"] = slot.retained_bytes or 0
        common["lag_seconds"] = lag_seconds(entry, slot) or 0.0
    for name in document.tables:
        metadata = {**common, "changes": done.tables.get(name, 0)}
        if name in done.columns_added:
            metadata["columns_changed"] = dg.MetadataValue.json({"appeared": done.columns_added[name]})
        yield dg.MaterializeResult(dg.AssetKey(["bronze", document.stream, name]), metadata=metadata)
        yield dg.MaterializeResult(
            dg.AssetKey(["bronze", document.stream, f"{name}_changes"]), metadata=metadata
        )
    status = slot.wal_status if slot is not None else None
    yield dg.AssetCheckResult(
        check_name=CHECK,
        asset_key=dg.AssetKey(["bronze", document.stream, next(iter(document.tables))]),
        passed=status in ("reserved", "extended"),
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"wal_status": status or "no slot", **common},
    )


def _sensor(document: StreamDocument) -> dg.SensorDefinition:
    name = job_name(document)
    running = document.sensor == "running"

    @dg.sensor(
        name=f"{document.stream}_changes",
        job_name=name,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description=f"Starts {name} when the log of {document.stream} has changes of its tables.",
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
    from datops_assets.cdc import find_stream, has_news, read_slot

    stream = document.change_stream()
    with open_catalogue() as catalogue:
        entry = find_stream(catalogue.conn, stream.source)
    if entry is None or entry.state in ("new", "snapshot"):
        return dg.RunRequest(tags={"datops/why": "first snapshot"})
    if entry.state == "resync_required":
        return dg.SkipReason(f"{entry.reason}; a person decides: datops cdc resync {stream.source}")
    if has_news(document.parameters(read_settings().project_root), stream):
        return dg.RunRequest(tags={"datops/why": "changes"})
    slot = read_slot(document.parameters(read_settings().project_root), stream, entry)
    if slot is not None and not slot.active and (slot.retained_bytes or 0) > HEARTBEAT_BYTES:
        return dg.RunRequest(tags={"datops/why": "the slot holds back log of other tables"})
    return dg.SkipReason("no changes since the last run")
