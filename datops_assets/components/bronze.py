"""Bronze assets: one step a table that loads the files which are new.

Belongs here: the translation between Dagster's step and `ingestion.load_table`, and what
the asset shows of a load. Does not: how a file is read (ingestion).
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step

from datops_assets.components.automation import DAILY
from datops_assets.components.catalogue import Catalogue, open_catalogue
from datops_assets.components.document import Freshness, PipelineDocument, TableDocument, TransformDocument
from datops_assets.components.failures import failing_as_dagster
from datops_assets.components.partitions import (
    asked_days,
    daily_partitions,
    days_in_bronze,
    files_without_day,
    record_days,
)
from datops_assets.components.sources import declared_table, open_source
from datops_assets.components.transform_statements import downstream, transform_order
from datops_assets.errors import RetryableError, SourceRefusedError
from datops_assets.telemetry.printable import one_line

if TYPE_CHECKING:
    from datops_assets.ingestion import LoadEntry, LoadResult, PastLoad, TableLoaded

FILES_CHECK = "files"
SCHEMA_CHECK = "schema"
LEFT_OUT = "rows_without_cursor"
"""Metadata: rows at the source that no later load brings."""


def asset_key(layer: str, source: str, table: str) -> dg.AssetKey:
    """`<layer>/<source>/<table>`."""
    return dg.AssetKey([layer, source, table])


def keys_of(document: PipelineDocument, tables: Sequence[str] = ()) -> list[dg.AssetKey]:
    """The assets of some tables of a source, or of all, as its job runs them, and what is made of them."""
    keys = []
    for name in tables or document.load_order():
        keys.append(asset_key("bronze", document.pipeline, name))
        if document.tables[name].contract is not None:
            keys.append(asset_key("silver", document.pipeline, name))
    made = downstream(document, tables) if tables else transform_order(document)
    return keys + [asset_key("silver", document.pipeline, name) for name in made]


def bronze_asset(document: PipelineDocument, name: str, *, by_day: bool = True) -> dg.AssetsDefinition:
    """The asset that loads the new files of one table into bronze.

    by_day   with the table's daily partitions, where it has them; False is for the source's own job
    """
    table = document.tables[name]
    key = asset_key("bronze", document.pipeline, name)
    spec = dg.AssetSpec(
        key,
        deps=[dg.AssetKey(upstream.split("/")) for upstream in document.after],
        group_name="bronze",
        kinds={table.technology, "postgres"},
        owners=owners_of(document, table),
        tags={**document.tags, **table.tags, **layer_tags("bronze", table)},
        description=_description(document, name),
        metadata={
            "dagster/relation_identifier": f"bronze.{document.pipeline}_{name}",
            "delivered_as": table.delivered_as,
        },
        partitions_def=daily_partitions(document, table) if by_day else None,
        freshness_policy=None if table.contract else freshness_policy(document, table),
    )

    @dg.multi_asset(
        name=step_name(key.to_python_identifier(), document, by_day),
        specs=[spec],
        backfill_policy=dg.BackfillPolicy.single_run() if spec.partitions_def else None,
        retry_policy=retry_policy(document),
        pool=document.pool or f"source_{document.pipeline}",
        op_tags={"datops/pipeline": document.pipeline},
    )
    def load(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        days = asked_days(context, table)
        with failing_as_dagster(), open_catalogue() as catalogue:
            loaded = _load(context, catalogue, document, name, days)
            _try_again(context, document, loaded)
            pruned = prune(catalogue, document, name)
            if table.days is not None:
                record_days(context, key, days, days_in_bronze(catalogue, document, name, context.run.run_id))
        for result in loaded.results:
            context.log.info(_line(result))
        for past in pruned:
            context.log.info(f"{past.path}: {past.rows} rows of load {past.ulid} left bronze")
        return dg.MaterializeResult(
            metadata={**_metadata(document.pipeline, name, loaded), **_pruned(pruned)}
        )

    return load


def _description(document: PipelineDocument, name: str) -> str:
    """The document's words speak of the table's last layer, so of bronze only where there is no silver."""
    table = document.tables[name]
    if table.description and table.contract is None:
        return table.description
    return f"{name} of {document.pipeline} as delivered: every record of every file."


def layer_tags(layer: str, table: TableDocument) -> dict[str, str]:
    """Tags that selections and conditions go by."""
    return {"layer": layer, **(DAILY if table.days else {})}


def step_name(name: str, document: PipelineDocument, by_day: bool) -> str:
    """Name of a step; where tables have days, the job that takes all days at once has steps of its own."""
    return name if by_day or not document.has_days else f"{name}__ALL_DAYS"


def _load(
    context: dg.AssetExecutionContext,
    catalogue: Catalogue,
    document: PipelineDocument,
    name: str,
    days: list[str] | None,
) -> "TableLoaded":
    from datops_assets.components.sources.files import missing_folder
    from datops_assets.ingestion import load_table

    root = catalogue.settings.project_root
    if (missing := missing_folder(document, root)) is not None:
        raise SourceRefusedError(f"{document.pipeline}: {missing}")
    with open_source(document, root) as source:
        return load_table(
            catalogue.conn,
            source,
            declared_table(document, name, root),
            batch=context.run.run_id,
            run_id=context.run.run_id,
            partitions=days,
            adbc_url=catalogue.warehouse.url,
        )


def prune(
    catalogue: Catalogue, document: PipelineDocument, name: str, *, apply: bool = True
) -> "list[PastLoad]":
    """Let bronze go of what silver no longer needs, as the table's `keep:` says; without it of nothing.

    apply    else only say what would go
    """
    from datops_assets.ingestion import Keep, plan_prune, prune_loads

    keep = document.tables[name].keep
    if keep is None:
        return []
    table = declared_table(document, name, catalogue.settings.project_root)
    return (prune_loads if apply else plan_prune)(catalogue.conn, table, Keep(keep.loads, keep.days))


def _pruned(pruned: "Sequence[PastLoad]") -> dict[str, Any]:
    if not pruned:
        return {}
    return {"loads_pruned": len(pruned), "rows_pruned": sum(past.rows for past in pruned)}


def _try_again(context: dg.AssetExecutionContext, document: PipelineDocument, loaded: "TableLoaded") -> None:
    """Let the step run again while files are left that changed or were locked out; what is loaded stays.

    The last try ends well, so that the files that are there reach silver: then the files check
    fails the run and names the others.

    raises    RetryableError: files were interrupted, and the document's retries are not used up
    """
    left = [result for result in loaded.results if result.state == "interrupted"]
    if not left or context.retry_number >= document.retries.max:
        return
    for result in loaded.results:
        context.log.info(_line(result))
    raise RetryableError(
        f"{len(left)} file(s) could not be taken this time:\n"
        + "\n".join(str(result.error) for result in left)
    )


def files_check(document: PipelineDocument, *, by_day: bool = True) -> dg.AssetChecksDefinition:
    """One step for a whole source that fails the run in which a file was refused, or interrupted to the last.

    Not part of the load's step: one bad file must not keep the good ones from silver, yet
    the run has to end as failed and name the file. The check stays failed until the file is
    mended or undone, the runs after it do not fail again.
    """
    specs = [
        dg.AssetCheckSpec(
            FILES_CHECK,
            asset=asset_key("bronze", document.pipeline, name),
            description="No file waits refused, no damaged record waits in the quarantine, files arrived as expected.",
        )
        for name in document.tables
    ] + [
        dg.AssetCheckSpec(
            SCHEMA_CHECK,
            asset=asset_key("bronze", document.pipeline, name),
            description="No delivery waits because its columns are not those that `schema: freeze` keeps.",
        )
        for name, table in document.tables.items()
        if table.schema_policy == "freeze"
    ]

    @dg.multi_asset_check(
        name=step_name(f"{document.pipeline}_{FILES_CHECK}", document, by_day), specs=specs, can_subset=True
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        refused: list[str] = []
        with failing_as_dagster(), open_catalogue() as catalogue:
            for key in sorted(context.selected_asset_check_keys):
                if key.name == SCHEMA_CHECK:
                    yield _judge_schema(catalogue, document, key.asset_key)
                    continue
                result, files = _judge_files(catalogue, document, key.asset_key, context.run.run_id)
                refused += files
                yield result
        if refused:
            raise dg.Failure(
                description=f"{len(refused)} file(s) were not taken, the others are loaded:\n"
                + "\n".join(refused),
                allow_retries=False,
            )

    return check


def _judge_files(
    catalogue: Any, document: PipelineDocument, key: dg.AssetKey, run_id: str
) -> tuple[dg.AssetCheckResult, list[str]]:
    from datops_assets.ingestion import FileTable, landing_findings, refused_loads
    from datops_assets.quality import list_quarantine

    name = key.path[-1]
    table = declared_table(document, name, catalogue.settings.project_root)
    refused = refused_loads(catalogue.conn, document.pipeline, name, run_id=run_id)
    waiting = list_quarantine(catalogue.conn, document.pipeline, name)
    damaged = sum(reason.rows for reason in waiting if reason.stage == "bronze")
    missing = []
    if isinstance(table, FileTable):
        missing = [str(finding) for finding in landing_findings(catalogue.conn, table)]
    if document.tables[name].days is not None and (paths := files_without_day(catalogue, document, name)):
        missing.append(f"{len(paths)} file(s) belong to no day of the partitions, e.g. {paths[0]}")
    result = dg.AssetCheckResult(
        asset_key=key,
        check_name=FILES_CHECK,
        passed=not (refused or damaged or missing),
        severity=dg.AssetCheckSeverity.ERROR if refused else dg.AssetCheckSeverity.WARN,
        description=_said([_sentence(load) for load in refused], damaged, missing),
        metadata={
            "files_refused": len(refused),
            "damaged_records": damaged,
            "arrival_findings": len(missing),
        },
    )
    return result, [_sentence(load) for load in refused if load.run_id == run_id]


def _judge_schema(catalogue: Any, document: PipelineDocument, key: dg.AssetKey) -> dg.AssetCheckResult:
    """What waits at a frozen table, and how its columns differ. The files check is what fails the run."""
    from datops_assets.ingestion import list_frozen_out

    waiting = list_frozen_out(catalogue.conn, document.pipeline, key.path[-1])
    metadata: dict[str, Any] = {"deliveries_waiting": len(waiting)}
    if waiting:
        changed = {load.path: load.differences for load in waiting[:20]}
        metadata["columns_changed"] = dg.MetadataValue.json(changed)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=SCHEMA_CHECK,
        passed=not waiting,
        description="\n".join(_sentence(load) for load in waiting)
        or "the columns are those of the load before",
        metadata=metadata,
    )


def _sentence(load: "LoadEntry") -> str:
    error = load.error or load.state
    # Who delivers files chooses their names: one with a line end could look like another file's sentence.
    return one_line(error if error.startswith(load.path) else f"{load.path}: {error}")


def _said(refused: Sequence[str], damaged: int, missing: Sequence[str]) -> str:
    parts = [f"refused: {line}" for line in refused]
    if damaged:
        parts.append(f"{damaged} damaged record(s) wait in the quarantine: datops quarantine list")
    return "\n".join([*parts, *missing]) or "every file was taken whole"


def _metadata(source: str, name: str, loaded: "TableLoaded") -> dict[str, Any]:
    taken = [result for result in loaded.results if result.state == "loaded"]
    metadata: dict[str, Any] = {
        "dagster/row_count": loaded.rows_total,
        "rows_added": loaded.rows_added,
        "files_loaded": len(taken),
        "files_refused": len(loaded.results) - len(taken),
        "damaged_records": sum(result.damaged_rows for result in loaded.results),
    }
    if loaded.left_out:
        metadata[LEFT_OUT] = loaded.left_out
    if loaded.pending:
        metadata["waiting"] = loaded.pending
    if loaded.results:
        metadata["loads"] = dg.MetadataValue.md(_table(loaded.results))
    different = [result for result in loaded.results if result.differences]
    if different:
        metadata["columns_changed"] = dg.MetadataValue.json(
            {result.path: result.differences for result in different[:20]}
        )
    found_out = {result.path: result.read_as for result in taken if result.read_as}
    if found_out:
        metadata["read_as"] = dg.MetadataValue.json(dict(list(found_out.items())[:20]))
    if loaded.columns:
        metadata["dagster/column_schema"] = dg.TableSchema(
            [dg.TableColumn(column.name, type=column.type) for column in loaded.columns]
        )
    return metadata


def _table(results: Sequence["LoadResult"], most: int = 50) -> str:
    lines = ["| file | state | rows | damaged | seconds |", "| --- | --- | --: | --: | --: |"]
    for result in results[:most]:
        lines.append(
            f"| {result.path} | {result.state} | {result.rows} | {result.damaged_rows} | {result.seconds:.2f} |"
        )
    if len(results) > most:
        lines.append(f"| and {len(results) - most} more: `datops load list` | | | | |")
    return "\n".join(lines)


def _line(result: "LoadResult") -> str:
    if result.state == "loaded":
        return f"{result.path}: {result.rows} rows, {result.damaged_rows} damaged, {result.seconds:.2f} s"
    return f"{result.path}: {result.state}: {result.error}"


def owners_of(document: PipelineDocument, table: TableDocument | TransformDocument) -> list[str]:
    """The table's owners, else the document's, else its team."""
    return list(table.owners or document.owners or [f"team:{document.team}"])


def freshness_policy(
    document: PipelineDocument, table: TableDocument | TransformDocument
) -> dg.FreshnessPolicy | None:
    """How old the last materialization of the table's last layer may be."""
    return freshness_window(table.freshness or document.freshness)


def freshness_window(freshness: Freshness | None) -> dg.FreshnessPolicy | None:
    """How old the last materialization may be."""
    if freshness is None:
        return None
    warn = timedelta(hours=freshness.warn_after_h) if freshness.warn_after_h else None
    return dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=freshness.fail_after_h), warn_window=warn
    )


def retry_policy(document: PipelineDocument) -> dg.RetryPolicy | None:
    """Try again with growing waits; only errors that may pass ever get here (failures.py)."""
    if document.retries.max == 0:
        return None
    return dg.RetryPolicy(
        max_retries=document.retries.max,
        delay=document.retries.delay_s,
        backoff=dg.Backoff.EXPONENTIAL,
        jitter=dg.Jitter.PLUS_MINUS,
    )
