"""Watches the servers of all declared team databases: an asset for the graph, a function for the command."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg  # annotations stay evaluated here: Dagster reads those of a step
from pydantic import Field

from datops_assets.components.catalogue import open_catalogue
from datops_assets.components.databases.shown import as_entries, as_list
from datops_assets.components.failures import failing_as_dagster
from datops_assets.config.settings import read_settings
from datops_assets.errors import DatopsError, DeclarationError

if TYPE_CHECKING:
    from datops_assets.components.databases.document import TeamDatabaseDocument
    from datops_assets.databases import Look

KEY = dg.AssetKey(["databases", "watch"])
FINDINGS, COVERAGE = "findings", "coverage"
_OPEN = """
select severity, kind, subject, team, first_seen, summary from datops.findings where resolved_at is null
 order by severity <> 'critical', severity <> 'warning', first_seen desc
"""


@dataclass(frozen=True)
class OpenFinding:
    """A finding that is not over, as people read it."""

    severity: str
    kind: str
    subject: str
    team: str
    since: datetime
    summary: str

    @property
    def next_step(self) -> str:
        """What to do about it."""
        from datops_assets.databases import KINDS

        return KINDS[self.kind].next_step if self.kind in KINDS else ""

    def as_text(self) -> str:
        """One line."""
        whose = f" of {self.team}" if self.team else ""
        since = f"{self.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return f"{self.severity}: {self.summary} ({self.kind}{whose}, since {since}). Next: {self.next_step}"

    def as_markdown(self) -> str:
        """The same, for a page that shows Markdown."""
        return (
            self.as_text()
            .replace(f"{self.severity}:", f"**{self.severity}:**", 1)
            .replace("Next:", "*Next:*")
        )


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
        check_specs=[
            dg.AssetCheckSpec(FINDINGS, asset=KEY, description="Nothing critical is open."),
            dg.AssetCheckSpec(COVERAGE, asset=KEY, description="All that is looked for could be looked at."),
        ],
        pool="database_watch",
    )
    def watch(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        with failing_as_dagster():
            looks = look_at_all(read_settings().project_root)
            found = open_findings(read_settings().project_root)
        for server, seen in looks.items():
            for one in seen.interventions:
                context.log.warning(
                    f"{server}: {one.action} {one.session.role} ({one.session.pid}): {one.reason}"
                )
        acts = [
            f"{one.action} {one.session.role} ({one.session.pid}): {one.reason}"
            for seen in looks.values()
            for one in seen.interventions
        ]
        skipped = sorted({f"{server}: {part}" for server, seen in looks.items() for part in seen.skipped})
        yield dg.MaterializeResult(
            metadata={
                "open findings": len(found),
                "critical": sum(one.severity == "critical" for one in found),
                "findings": as_list([one.as_markdown() for one in found]),
                "interventions": len(acts),
                "what was done": as_list(acts),
                "servers": as_list(sorted(looks)),
            }
        )
        yield _findings_check(found)
        without = sorted({f"{server}: {part}" for server, seen in looks.items() for part in seen.without})
        yield _coverage_check(skipped, without)

    return watch


def _findings_check(found: list[OpenFinding]) -> dg.AssetCheckResult:
    critical = [one for one in found if one.severity == "critical"]
    said = f"{len(critical)} critical, {len(found) - len(critical)} other finding(s) are open"
    return dg.AssetCheckResult(
        check_name=FINDINGS,
        passed=not critical,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{said}: {critical[0].summary}" if critical else said,
        metadata=as_entries("finding", [one.as_text() for one in found]),
    )


def _coverage_check(skipped: list[str], without: list[str]) -> dg.AssetCheckResult:
    """A server that lacks an extension has no fault; what is not seen for it is said all the same."""
    said = f"{len(skipped)} part(s) could not be looked at" if skipped else "all was looked at"
    if without:
        said += f", {len(without)} skipped for want of an extension"
    return dg.AssetCheckResult(
        check_name=COVERAGE,
        passed=not skipped,
        severity=dg.AssetCheckSeverity.WARN,
        description=said,
        metadata={**as_entries("not looked at", skipped), **as_entries("skipped", without)},
    )


def look_at_all(project_root: Path | None = None) -> dict[str, "Look"]:
    """Look once at every server that a document names.

    raises    DeclarationError: a document is wrong; WarehouseError: a server does not let us in; the
              others were looked at by then
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
    looks: dict[str, Look] = {}
    refused: list[DatopsError] = []
    with open_catalogue(root) as catalogue:
        if not by_server:
            return {"warehouse": look(lambda name: _warehouse(root, name), catalogue.conn, "warehouse", [])}
        for server, documents in by_server.items():
            try:
                connect, desired = documents[0].connect(root), [one.desired() for one in documents]
                looks[server] = look(connect, catalogue.conn, server, desired)
            except DatopsError as error:
                refused.append(error)
    if refused:
        raise refused[0]
    return looks


def open_findings(project_root: Path) -> list[OpenFinding]:
    """What is open, the worst first."""
    with open_catalogue(project_root) as catalogue:
        return [OpenFinding(*row) for row in catalogue.conn.execute(_OPEN)]


def _warehouse(root: Path, name: str | None) -> Any:
    from datops_assets.resources.warehouse import open_warehouse

    warehouse = open_warehouse(read_settings(root))
    return (warehouse.at(name) if name else warehouse).connect()
