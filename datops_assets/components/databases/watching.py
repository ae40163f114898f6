"""Watches the servers of all declared team databases: an asset for the graph, a function for the command."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step
from pydantic import Field

from datops_assets.components.catalogue import open_catalogue
from datops_assets.components.failures import failing_as_dagster
from datops_assets.config.settings import read_settings
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    from datops_assets.components.databases.document import TeamDatabaseDocument
    from datops_assets.databases import Look

KEY = dg.AssetKey(["databases", "watch"])


class DatabaseWatch(dg.Component, dg.Model, dg.Resolvable):
    """Holds the limits of all declared team databases and looks for trouble on their servers."""

    cron: str = Field(
        "* * * * *", description="When to look (UTC); for more often than each minute: datops database watch."
    )
    schedule: bool = Field(True, description="Whether it looks by itself.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """One asset, its check and a schedule; the documents are read when it runs."""
        job = dg.define_asset_job("database_watch", selection=dg.AssetSelection.assets(KEY))
        running = dg.DefaultScheduleStatus.RUNNING if self.schedule else dg.DefaultScheduleStatus.STOPPED
        schedule = dg.ScheduleDefinition(
            name="database_watch_schedule", job=job, cron_schedule=self.cron, execution_timezone="UTC",
            default_status=running,
        )  # fmt: skip
        return dg.Definitions(assets=[watch_asset()], jobs=[job], schedules=[schedule])


def watch_asset() -> dg.AssetsDefinition:
    """Each materialization is one look; its check fails while something critical is open."""

    @dg.asset(
        key=KEY,
        group_name="databases",
        kinds={"postgres"},
        description="Sessions held to their limits, and what was found on the servers of the teams' databases.",
        check_specs=[dg.AssetCheckSpec("findings", asset=KEY, description="Nothing critical is open.")],
        pool="database_watch",
    )
    def watch(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        with failing_as_dagster():
            looks = look_at_all(read_settings().project_root)
            critical, others = open_findings(read_settings().project_root)
        for server, seen in looks.items():
            for one in seen.interventions:
                context.log.warning(
                    f"{server}: {one.action} {one.session.role} ({one.session.pid}): {one.reason}"
                )
        check = dg.AssetCheckResult(
            check_name="findings",
            passed=not critical,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={"critical": critical, "others": others},
        )
        yield dg.MaterializeResult(
            metadata={
                "interventions": sum(len(seen.interventions) for seen in looks.values()),
                "open findings": len(critical) + len(others),
                "not looked at": sorted({part for seen in looks.values() for part in seen.skipped}),
            }
        )
        yield check

    return watch


def look_at_all(project_root: Path | None = None) -> dict[str, "Look"]:
    """Look once at every server that a document names.

    raises    DeclarationError: a document is wrong; WarehouseError: a server does not let us in
    """
    from datops_assets.components.declarations import TEAM_DATABASES
    from datops_assets.databases import look

    root = project_root or read_settings().project_root
    loaded, problems = TEAM_DATABASES.read_all(root)
    if problems:
        raise DeclarationError(problems)
    by_server: dict[str, list[TeamDatabaseDocument]] = {}
    for one in loaded:
        by_server.setdefault(one.document.server.url if one.document.server else "warehouse", []).append(
            one.document
        )
    with open_catalogue(root) as catalogue:
        if not by_server:
            return {"warehouse": look(lambda name: _warehouse(root, name), catalogue.conn, "warehouse", [])}
        return {
            server: look(
                documents[0].connect(root), catalogue.conn, server, [one.desired() for one in documents]
            )
            for server, documents in by_server.items()
        }


def open_findings(project_root: Path) -> tuple[list[str], list[str]]:
    """What is open: the critical ones, and the others."""
    with open_catalogue(project_root) as catalogue:
        rows = catalogue.conn.execute(
            "select severity = 'critical', kind || ': ' || summary from datops.findings where resolved_at is null"
        ).fetchall()
    return [text for bad, text in rows if bad], [text for bad, text in rows if not bad]


def _warehouse(root: Path, name: str | None) -> Any:
    from datops_assets.resources.warehouse import open_warehouse

    warehouse = open_warehouse(read_settings(root))
    return (warehouse.at(name) if name else warehouse).connect()
