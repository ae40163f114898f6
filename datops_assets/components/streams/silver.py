"""What stands in silver of a stream: one step a table, after the mirror moved.

Belongs here: the assets, and what they show. Does not: bronze (component.py), how a view or a verdict
comes about (cdc, quality).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step

from datops_assets.components.automation import WHEN_BRONZE_CHANGED
from datops_assets.components.bronze import freshness_window
from datops_assets.components.catalogue import Catalogue, open_catalogue
from datops_assets.components.failures import failing_as_dagster
from datops_assets.components.silver import (
    check_results,
    check_specs,
    column_lineage,
    column_schema,
    judgement_metadata,
)
from datops_assets.components.streams.document import StreamDocument

if TYPE_CHECKING:
    from datops_assets.cdc import Told
    from datops_assets.components.streams.document import StreamTable
    from datops_assets.quality.judged import Judgement, Kind


def silver_assets(document: StreamDocument) -> list[dg.AssetsDefinition]:
    """The assets of all tables that have something in silver."""
    tables = document.tables.items()
    return [
        *(_view_asset(document, name) for name, table in tables if table.silver == "view"),
        *(_judged_asset(document, name) for name, table in tables if table.contract is not None),
        *(_history_asset(document, name) for name, table in tables if table.history),
    ]


def bring_to_silver(catalogue: Catalogue, document: StreamDocument) -> None:
    """Do what the assets of silver do, for whoever has no Dagster running."""
    for name in document.silver_order():
        table = document.tables[name]
        if table.silver == "view":
            show_table(catalogue, document, name)
        elif table.contract is not None:
            judge_mirrored(catalogue, document, name)
        if table.history:
            keep_history(catalogue, document, name)


def about(document: StreamDocument, table: "StreamTable", layer: str) -> dict[str, Any]:
    """What every asset of a table says of itself."""
    return {
        "group_name": layer,
        "owners": list(table.owners or document.owners or [f"team:{document.team}"]),
        "tags": {"layer": layer, **table.tags},
    }


def _view_asset(document: StreamDocument, name: str) -> dg.AssetsDefinition:
    table = document.tables[name]
    spec = dg.AssetSpec(
        ["silver", document.stream, name],
        deps=[["bronze", document.stream, name]],
        kinds={"postgres", "view"},
        description=table.description
        or f"{name} of {document.stream} as it is there now, under silver's names.",
        metadata={"dagster/relation_identifier": f"silver.{document.stream}_{name}"},
        automation_condition=WHEN_BRONZE_CHANGED,
        **about(document, table, "silver"),
    )

    @dg.multi_asset(
        name=f"silver__{document.stream}__{name}", specs=[spec], op_tags={"datops/stream": document.stream}
    )
    def show() -> Iterator[dg.MaterializeResult[Any]]:
        with failing_as_dagster(), open_catalogue() as catalogue:
            columns = show_table(catalogue, document, name)
        schema = dg.TableSchema([dg.TableColumn(column, type=type_) for column, type_ in columns.items()])
        yield dg.MaterializeResult(metadata={"dagster/column_schema": schema})

    return show


def show_table(catalogue: Catalogue, document: StreamDocument, name: str) -> dict[str, str]:
    """Let the table's view show the mirror as it is now; returns its columns and their types.

    raises    LoadRefusedError: the view cannot be made
    """
    from datops_assets.cdc import renew_view

    return renew_view(catalogue.conn, document.stream, name, document.tables[name].rename)


def _judged_asset(document: StreamDocument, name: str) -> dg.AssetsDefinition:
    """As a pipeline's silver, judged by the keys that changed."""
    table = document.tables[name]
    contract = table.contract
    assert contract is not None
    version = contract.version(rename=table.rename)
    spec = dg.AssetSpec(
        ["silver", document.stream, name],
        deps=[
            ["bronze", document.stream, name],
            *(["silver", *reference] for reference in table.references(document.stream)),
        ],
        kinds={"postgres", "contract"},
        description=table.description or f"{name} of {document.stream}, typed, keyed and checked.",
        metadata={
            "dagster/relation_identifier": f"silver.{document.stream}_{name}",
            "dagster/column_schema": column_schema(contract),
            "contract_version": version,
        },
        code_version=version,
        automation_condition=WHEN_BRONZE_CHANGED,
        freshness_policy=freshness_window(table.freshness),
        **about(document, table, "silver"),
    )

    @dg.multi_asset(
        name=f"silver__{document.stream}__{name}",
        specs=[spec],
        check_specs=check_specs(spec.key, contract),
        op_tags={"datops/stream": document.stream},
    )
    def judge(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        from datops_assets.quality import JudgementBlockedError

        with failing_as_dagster(), open_catalogue() as catalogue:
            try:
                judgement = judge_mirrored(catalogue, document, name, run_id=context.run.run_id)
            except JudgementBlockedError as blocked:
                # Recorded before the step fails, so that the asset shows what stopped it.
                yield from check_results(spec.key, blocked.judgement, contract)
                raise
            lineage = column_lineage(catalogue, document.stream, name, contract, table.rename)
        yield dg.MaterializeResult(metadata=judgement_metadata(judgement) | lineage)
        yield from check_results(spec.key, judgement, contract)

    return judge


def judge_mirrored(
    catalogue: Catalogue,
    document: StreamDocument,
    name: str,
    *,
    kind: "Kind" = "load",
    run_id: str | None = None,
) -> "Judgement":
    """Judge what changed of one table's mirror.

    kind      rebuild: all of it; replay: what waits in the quarantine too
    raises    JudgementBlockedError: a blocking check failed; silver is as it was
    """
    from datops_assets.cdc import FollowedMirror
    from datops_assets.quality import MirrorSubject, judge_mirror

    table = document.tables[name]
    assert table.contract is not None
    subject = MirrorSubject(document.stream, name, table.contract, table.rename, "merge")
    mirror = FollowedMirror(document.stream, name)
    return judge_mirror(catalogue.conn, subject, mirror, kind=kind, run_id=run_id)


def _history_asset(document: StreamDocument, name: str) -> dg.AssetsDefinition:
    table = document.tables[name]
    spec = dg.AssetSpec(
        ["silver", document.stream, f"{name}_history"],
        deps=[["bronze", document.stream, f"{name}_changes"]],
        kinds={"postgres", "scd2"},
        description=f"Every version that a row of {name} of {document.stream} had, from when to when.",
        metadata={"dagster/relation_identifier": f"silver.{document.stream}_{name}_history"},
        automation_condition=WHEN_BRONZE_CHANGED,
        **about(document, table, "silver"),
    )

    @dg.multi_asset(
        name=f"silver__{document.stream}__{name}_history",
        specs=[spec],
        op_tags={"datops/stream": document.stream},
    )
    def tell() -> Iterator[dg.MaterializeResult[Any]]:
        with failing_as_dagster(), open_catalogue() as catalogue:
            told = keep_history(catalogue, document, name)
        metadata: dict[str, Any] = {
            "changes": told.changes,
            "versions_begun": told.begun,
            "versions_ended": told.ended,
            "seconds": told.seconds,
            "told_lsn" if document.capture == "log" else "told_look": told.told or "no snapshot yet",
        }
        yield dg.MaterializeResult(metadata=metadata)

    return tell


def keep_history(catalogue: Catalogue, document: StreamDocument, name: str) -> "Told":
    """Bring the table's history to where its log is.

    raises    LoadRefusedError: the columns do not fit the history's
    """
    from datops_assets.cdc import tell_history

    return tell_history(catalogue.conn, document.stream, name, document.tables[name].rename)
