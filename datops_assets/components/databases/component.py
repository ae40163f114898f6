"""The component `TeamDatabase`: materializing applies the document, checks say what has drifted.

Loading it touches nothing but the YAML file.
"""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step
from pydantic import Field

from datops_assets.components.databases.document import TeamDatabaseDocument, read_team_database
from datops_assets.components.databases.shown import as_entries, as_list
from datops_assets.components.failures import failing_as_dagster
from datops_assets.config.settings import find_project_root, read_settings

DRIFT, PASSWORDS, LINTS = "drift", "passwords", "lints"


class TeamDatabase(dg.Component, dg.Model, dg.Resolvable):
    """One database of a team: its roles, rights, limits and passwords.

    The document is read by datops itself and never passes through a template engine.
    """

    document: str = Field("database.yaml", description="The document of the database, beside this file.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Read the document and translate it. Raises DeclarationError with `file:line` for each problem."""
        folder = Path(context.path)
        return database_definitions(
            read_team_database(folder / self.document, find_project_root(folder)).document
        )


def database_definitions(document: TeamDatabaseDocument) -> dg.Definitions:
    """Everything Dagster holds for one database."""
    asset, checks = _asset(document), [_drift(document), _passwords(document), _lints(document)]
    job = dg.define_asset_job(
        f"{document.name}_database_checks",
        selection=dg.AssetSelection.checks(*(key for check in checks for key in check.check_keys)),
        tags={"datops/team": document.team},
    )
    schedules = []
    if document.schedule:
        schedules.append(
            dg.ScheduleDefinition(
                name=f"{document.name}_database_schedule",
                job=job,
                cron_schedule=document.schedule,
                execution_timezone="UTC",
                default_status=dg.DefaultScheduleStatus.RUNNING,
            )
        )
    return dg.Definitions(assets=[asset], asset_checks=checks, jobs=[job], schedules=schedules)


def asset_key(document: TeamDatabaseDocument) -> dg.AssetKey:
    """The asset of a team's database."""
    return dg.AssetKey(["databases", document.name])


def _asset(document: TeamDatabaseDocument) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(document),
        description=document.description or f"The database {document.name} of {document.team}, as declared.",
        group_name="databases",
        kinds={"postgres"},
        owners=list(document.owners or [f"team:{document.team}"]),
        tags={**document.tags},
        op_tags={"datops/team": document.team},
        pool=f"database_{document.name}",
    )
    def applied(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        from datops_assets.databases import apply

        root = read_settings().project_root
        with failing_as_dagster():
            done = apply(document.connect(root), document.desired(), document.store(root), datetime.now(UTC))
        for step in done.done:
            context.log.info(f"{step.statement}  -- {step.why}")
        if done.left.steps:
            raise dg.Failure(
                description=f"somebody changed {document.name} while it was applied; materialize it again",
                metadata={"left": [step.statement for step in done.left.steps]},
            )
        statements = dg.MetadataValue.md(_as_sql(done.done))
        return dg.MaterializeResult(
            metadata={
                "steps": len(done.done),
                "statements": statements,
                "kept": as_list(done.left.kept),
                "cannot": as_list(done.left.cannot),
            }
        )

    return applied


def _drift(document: TeamDatabaseDocument) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(document),
        name=DRIFT,
        description="The server has what the document declares, and no more.",
    )
    def drift(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        from datops_assets.databases import read_plan

        root = read_settings().project_root
        with failing_as_dagster():
            found = read_plan(document.connect(root), document.desired(), document.store(root))
        return dg.AssetCheckResult(
            passed=not found.steps,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{len(found.steps)} step(s) to the declared state: datops database plan {document.name}"
            if found.steps
            else "the server has what is declared",
            metadata={
                **as_entries("step", [f"{step.statement};  -- {step.why}" for step in found.steps]),
                **as_entries("kept", found.kept),
                **as_entries("cannot", found.cannot),
            },
        )

    return drift


def _passwords(document: TeamDatabaseDocument) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(document), name=PASSWORDS, description="No password is older than its login allows."
    )
    def passwords(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with failing_as_dagster():
            old = aged(document, read_settings().project_root, datetime.now(UTC))
        names = ", ".join(old)
        return dg.AssetCheckResult(
            passed=not old,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"to be rotated: {names}" if old else "no password is too old",
            metadata={
                **as_entries(
                    "next", [f"datops database rotate {document.name} --login {name}" for name in old]
                )
            },
        )

    return passwords


def _lints(document: TeamDatabaseDocument) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(document),
        name=LINTS,
        description="No table, view or function has a known weak point.",
    )
    def lints(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        from datops_assets.databases import lint

        desired = document.desired()
        with (
            failing_as_dagster(),
            closing(document.connect(read_settings().project_root)(desired.database)) as conn,
        ):
            found = lint(conn, desired.schemas)
        return dg.AssetCheckResult(
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{len(found)} weak point(s): datops database lint {document.name}"
            if found
            else "no weak point was found",
            metadata=as_entries("weak point", [f"{one.where}: {one.why} ({one.name})" for one in found]),
        )

    return lints


def aged(document: TeamDatabaseDocument, project_root: Path, now: datetime) -> list[str]:
    """Logins whose password, made by datops, is older than the document allows."""
    store, found = document.store(project_root), []
    for name, login in document.logins.items():
        if login.rotate_after_days is None or login.absent or login.password_env:
            continue
        secret = store.read(document.name, name)
        if secret is not None and (now - secret.made_at).days >= login.rotate_after_days:
            found.append(name)
    return found


def _as_sql(steps: Any) -> str:
    lines = [f"{step.statement};  -- {step.why}" for step in steps]
    return "\n".join(["```sql", *lines, "```"]) if lines else "none"
