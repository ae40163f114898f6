"""The component `DatabaseBackup`: one document becomes an asset with checks, a job to back up and one to drill.

Loading it touches nothing but the YAML file.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step
from pydantic import Field

from datops_assets.components.alert_route import CHECK_KIND
from datops_assets.components.backups.document import BackupDocument, read_backup
from datops_assets.components.backups.log_assets import log_definitions
from datops_assets.components.catalogue import Catalogue, open_catalogue
from datops_assets.components.failures import failing_as_dagster
from datops_assets.config.settings import find_project_root

if TYPE_CHECKING:
    from datops_assets.backup.catalogue import BackupEntry
    from datops_assets.backup.runs import Taken

AGE, VERIFIED, DRILLED = "age", "verified", "drilled"
DRILL = "drill"
"""The kind by which routes of alerts tell drills from other checks."""
_HOURLY = "7 * * * *"
KIND = "datops/backup_kind"
"""Tag of a run: which kind of physical backup it takes."""


class DatabaseBackup(dg.Component, dg.Model, dg.Resolvable):
    """The backups of one PostgreSQL database, taken, verified and drilled.

    The document is read by datops itself and never passes through a template engine.
    """

    document: str = Field("backup.yaml", description="The backup document, beside this file.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Read the document and translate it. Raises DeclarationError with `file:line` for each problem."""
        folder = Path(context.path)
        return backup_definitions(read_backup(folder / self.document, find_project_root(folder)).document)


def backup_definitions(document: BackupDocument) -> dg.Definitions:
    """Everything Dagster holds for one document."""
    taken, proven = _taken(document), _proven(document)
    tags = {"datops/backup": document.backup, "datops/team": document.team}
    backing_up = dg.define_asset_job(
        f"{document.backup}_backup", selection=[taken], tags=tags,
        description=document.description or f"Back up {document.backup}, verify it, let old backups go.",
    )  # fmt: skip
    drilling = dg.define_asset_job(
        f"{document.backup}_drill", selection=[proven], tags=tags,
        description=f"Restore the backup of {document.backup} whose turn it is, and compare.",
    )  # fmt: skip
    promises = _promises(document)
    holding = dg.define_asset_job(
        f"{document.backup}_promises", selection=dg.AssetSelection.checks(promises), tags=tags,
        description=f"Hold the backups of {document.backup} against what is promised.",
    )  # fmt: skip
    copying, copied = _physical(document, tags)
    checks = [promises]
    if document.wal is not None:
        spec = _spec(
            document, log_key(document), f"The log of the server of {document.backup} between backups.", []
        )
        received, held, logging = log_definitions(document, spec, tags)
        copied, checks, copying = [*copied, received], [*checks, held], [*copying, *logging]
    timed = [
        (backing_up, document.logical.schedule),
        (drilling, document.drill.schedule),
        (holding, _HOURLY if _is_scheduled(document) else None),
        *copying,
    ]
    schedules = [
        dg.ScheduleDefinition(
            name=f"{job.name}_schedule", job=job, cron_schedule=cron, execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
        for job, cron in timed
        if cron
    ]  # fmt: skip
    return dg.Definitions(
        assets=[taken, proven, *copied],
        asset_checks=checks,
        jobs=[backing_up, drilling, holding, *(job for job, _ in copying)],
        schedules=schedules,
    )


def _physical(
    document: BackupDocument, tags: dict[str, str]
) -> "tuple[list[tuple[Any, str | None]], list[dg.AssetsDefinition]]":
    """Jobs of physical backups with their cron lines, and their asset; nothing where none are declared."""
    declared = document.physical
    if declared is None:
        return [], []
    asset = _taken(document, physical=True)
    jobs: list[tuple[Any, str | None]] = [
        (
            dg.define_asset_job(
                f"{document.backup}_{kind}", selection=[asset], tags=tags | {KIND: kind},
                description=f"Take a physical backup of the server of {document.backup}: {kind}.",
            ),
            cron,
        )
        for kind, cron in (("full", declared.schedule), ("incremental", declared.incremental))
    ]  # fmt: skip
    return jobs, [asset]


def _is_scheduled(document: BackupDocument) -> bool:
    physical = document.physical
    return bool(document.logical.schedule or (physical and physical.schedule))


def asset_key(document: BackupDocument) -> dg.AssetKey:
    """The backups of a document."""
    return dg.AssetKey(["backup", document.backup])


def physical_key(document: BackupDocument) -> dg.AssetKey:
    """The physical backups of a document."""
    return dg.AssetKey(["backup", document.backup, "physical"])


def log_key(document: BackupDocument) -> dg.AssetKey:
    """The log between the backups of a document."""
    return dg.AssetKey(["backup", document.backup, "wal"])


def drill_key(document: BackupDocument) -> dg.AssetKey:
    """What drills say of them."""
    return dg.AssetKey(["backup", document.backup, "drill"])


def _spec(
    document: BackupDocument, key: dg.AssetKey, description: str, deps: list[dg.AssetKey]
) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        deps=deps,
        description=description,
        group_name="backup",
        kinds={"postgres"},
        owners=list(document.owners or [f"team:{document.team}"]),
        tags={"layer": "backup"},
    )


def _taken(document: BackupDocument, *, physical: bool = False) -> dg.AssetsDefinition:
    """The asset of logical backups, or of physical ones: full, or incremental where the run's tag says so."""
    key = physical_key(document) if physical else asset_key(document)
    described = (
        f"Backups of the whole server of {document.backup}, and what changed since." if physical else None
    )

    @dg.multi_asset(
        name=f"{document.backup}_{'physical_' if physical else ''}backup_taken",
        specs=[
            _spec(document, key, described or document.description or f"Backups of {document.backup}.", [])
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "whole", asset=key, description="Every destination has the new backup as it was written."
            )
        ],
        retry_policy=dg.RetryPolicy(max_retries=2, delay=60, backoff=dg.Backoff.EXPONENTIAL),
        pool=f"backup_{document.backup}",
        op_tags={"datops/backup": document.backup},
    )
    def back_up(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        from datops_assets.components.backups import listing, pruning, taking, verifying

        kind: Any = context.run.tags.get(KIND, "full") if physical else "logical"
        with failing_as_dagster(), open_catalogue() as catalogue:
            taken = taking.run(document, catalogue, f"run {context.run.run_id}", kind)
            entry = listing.choose(document, catalogue, taken.manifest.backup_id)
            looks = verifying.verify_copies(document, catalogue, entry)
            gone = pruning.prune(document, catalogue)
        manifest, findings = taken.manifest, [finding for look in looks for finding in look.findings]
        context.log.info(f"{manifest.backup_id}: {manifest.stored_bytes} bytes in {manifest.seconds:.1f} s")
        yield dg.MaterializeResult(
            key,
            metadata=_told(taken, entry, [one.backup_id for one in gone]),
            check_results=[
                dg.AssetCheckResult(
                    check_name="whole",
                    passed=not findings and not taken.failed,
                    metadata={
                        "findings": dg.MetadataValue.json(findings),
                        "failed": dg.MetadataValue.json(taken.failed),
                    },
                )
            ],
        )

    return back_up


def _told(taken: "Taken", entry: "BackupEntry", gone: list[str]) -> dict[str, Any]:
    manifest = taken.manifest
    return {
        "backup_id": manifest.backup_id,
        "kind": manifest.kind,
        "parent": manifest.parent or "-",
        "snapshot_at": dg.MetadataValue.timestamp(manifest.snapshot_at),
        "lsn": manifest.end_lsn or "-",
        "seconds": manifest.seconds,
        "stored_bytes": manifest.stored_bytes,
        "plain_bytes": manifest.plain_bytes,
        "tables": len(manifest.facts["tables"]),
        "rows": sum(rows for rows, _ in manifest.facts["tables"].values()),
        "whole_sha256": entry.whole or "-",
        "destinations": dg.MetadataValue.json(entry.destinations),
        "pruned": dg.MetadataValue.json(gone),
    }


def _proven(document: BackupDocument) -> dg.AssetsDefinition:
    key = drill_key(document)
    description = f"A restore of {document.backup} on a server of its own, compared with the backup."

    @dg.multi_asset(
        name=f"{document.backup}_backup_proven",
        specs=[_spec(document, key, description, [asset_key(document)])],
        check_specs=[
            dg.AssetCheckSpec(
                "restored", asset=key, description="The restored database is what was backed up."
            )
        ],
        pool=f"backup_{document.backup}",
        op_tags={"datops/backup": document.backup},
    )
    def drill(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        from datops_assets.components.backups import proving

        with failing_as_dagster(), open_catalogue() as catalogue:
            done = proving.proof(document, catalogue, proving.turn(document, catalogue))
        context.log.info(f"{done.backup_id}: RTO {done.rto_s} s, RPO {done.rpo_s:.0f} s")
        yield dg.MaterializeResult(
            key,
            metadata={
                "backup_id": done.backup_id,
                "destination": done.destination,
                "rto_s": done.rto_s if done.rto_s is not None else dg.MetadataValue.null(),
                "rpo_s": done.rpo_s,
                "tables": done.tables,
                "rows": done.rows,
                "seconds": dg.MetadataValue.json(done.seconds),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="restored",
                    passed=done.passed,
                    description=f"{done.backup_id}: {done.findings[0] if done.findings else 'as it was backed up'}",
                    metadata={"findings": dg.MetadataValue.json(done.findings[:100]), CHECK_KIND: DRILL},
                )
            ],
        )

    return drill


def _promises(document: BackupDocument) -> dg.AssetChecksDefinition:
    """Held against the clock, so that a backup that was never taken is seen, too."""
    key = asset_key(document)
    specs = [
        dg.AssetCheckSpec(
            AGE, asset=key, description=f"A good one is younger than {document.promise.age_h:g} h."
        ),
        dg.AssetCheckSpec(
            VERIFIED,
            asset=key,
            description=f"One was read whole in the last {document.promise.verified_h:g} h.",
        ),
        dg.AssetCheckSpec(
            DRILLED, asset=key, description=f"A drill passed in the last {document.promise.drilled_h:g} h."
        ),
    ]

    @dg.multi_asset_check(name=f"{document.backup}_backup_promises", specs=specs)
    def hold() -> Iterator[dg.AssetCheckResult]:
        with failing_as_dagster(), open_catalogue() as catalogue:
            ages = ages_of(_entries(document, catalogue), datetime.now(UTC))
        promised = {
            AGE: document.promise.age_h,
            VERIFIED: document.promise.verified_h,
            DRILLED: document.promise.drilled_h,
        }
        for name, most in promised.items():
            age_h = ages[name]
            yield dg.AssetCheckResult(
                check_name=name,
                asset_key=key,
                passed=age_h is not None and age_h <= most,
                severity=dg.AssetCheckSeverity.ERROR if name == AGE else dg.AssetCheckSeverity.WARN,
                metadata={"promised_h": most, "age_h": age_h if age_h is not None else "never"}
                | ({CHECK_KIND: DRILL} if name == DRILLED else {}),
            )

    return hold


def ages_of(entries: "list[BackupEntry]", now: datetime) -> dict[str, float | None]:
    """Hours since the newest good backup's snapshot, the last whole look, and the last drill that passed."""
    good = [entry for entry in entries if entry.is_good]

    def age(times: list[datetime]) -> float | None:
        return max(now - max(times), timedelta()).total_seconds() / 3600 if times else None

    return {
        AGE: age([one.snapshot_at for one in good if one.snapshot_at]),
        VERIFIED: age([one.verified_at for one in good if one.verified_at]),
        DRILLED: age([one.drilled_at for one in good if one.drilled_at and one.drill_passed]),
    }


def _entries(document: BackupDocument, catalogue: Catalogue) -> "list[BackupEntry]":
    from datops_assets.components.backups import listing

    return listing.entries(document, catalogue)
