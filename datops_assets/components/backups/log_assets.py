"""The log between backups in the asset graph: an asset that receives it, and a check that it is whole and near."""

from collections.abc import Iterator
from typing import Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step

from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.catalogue import open_catalogue
from datops_assets.components.failures import failing_as_dagster

CHECK = "wal"
_OFTEN = "*/5 * * * *"


def log_definitions(
    document: BackupDocument, spec: dg.AssetSpec, tags: dict[str, str]
) -> tuple[dg.AssetsDefinition, dg.AssetChecksDefinition, list[tuple[Any, str | None]]]:
    """The asset, its check, and jobs for both with their cron lines."""
    received, held = _received(document, spec), _held(document, spec.key)
    declared = document.wal
    assert declared is not None
    receiving = dg.define_asset_job(
        f"{document.backup}_wal", selection=dg.AssetSelection.assets(spec.key).without_checks(), tags=tags,
        description=f"Keep what the server of {document.backup} has written to its log by now.",
    )  # fmt: skip
    holding = dg.define_asset_job(
        f"{document.backup}_wal_check", selection=dg.AssetSelection.checks(held), tags=tags,
        description=f"Hold the log of {document.backup} against its promise.",
    )  # fmt: skip
    return received, held, [(receiving, declared.schedule), (holding, _OFTEN)]


def _received(document: BackupDocument, spec: dg.AssetSpec) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=f"{document.backup}_backup_wal",
        specs=[spec],
        pool=f"backup_wal_{document.backup}",
        op_tags={"datops/backup": document.backup},
    )
    def receive(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        from datops_assets.components.backups.log import receive_log

        with failing_as_dagster(), open_catalogue() as catalogue:
            received = receive_log(document, catalogue, once=True, say=context.log.warning)
        if received.started_anew:
            context.log.error(received.started_anew)
        yield dg.MaterializeResult(
            spec.key,
            metadata={
                "segments": received.segments,
                "covered": received.covered,
                "until": dg.MetadataValue.timestamp(received.until) if received.until else "-",
                "started_anew": received.started_anew or "-",
                "failed": dg.MetadataValue.json(received.failed),
            },
        )

    return receive


def _held(document: BackupDocument, key: dg.AssetKey) -> dg.AssetChecksDefinition:
    promised = document.promise.wal_s
    spec = dg.AssetCheckSpec(
        CHECK,
        asset=key,
        description=f"The log goes on from the newest backup, at most {promised:g} s behind.",
    )

    @dg.multi_asset_check(name=f"{document.backup}_backup_wal_held", specs=[spec])
    def hold() -> Iterator[dg.AssetCheckResult]:
        from datops_assets.components.backups.log import check_log

        with failing_as_dagster(), open_catalogue() as catalogue:
            checked = check_log(document, catalogue)
        state = checked.state
        yield dg.AssetCheckResult(
            check_name=CHECK,
            asset_key=key,
            passed=not checked.findings,
            metadata={
                "findings": dg.MetadataValue.json(checked.findings),
                "covered": state.covered or "-",
                "rpo_s": state.behind_s if state.behind_s is not None else "unknown",
                "promised_s": promised,
                "retained_bytes": state.retained_bytes if state.retained_bytes is not None else "no slot",
                "slot": f"{state.slot}: {state.slot_status or 'not there'}",
                "files": state.segments,
                "stored_bytes": state.stored_bytes,
            },
        )

    return hold
