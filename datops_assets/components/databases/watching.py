"""Watches the servers of all declared team databases: an asset for the graph, a function for the command."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
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
FINDINGS, COVERAGE = "findings", "coverage"
MOST_SHOWN = 50
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
                "findings": dg.MetadataValue.md(as_table(found)),
                "interventions": len(acts),
                "what was done": dg.MetadataValue.md(_as_list(acts)),
                "servers": sorted(looks),
            }
        )
        yield _findings_check(found)
        yield dg.AssetCheckResult(
            check_name=COVERAGE,
            passed=not skipped,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{len(skipped)} part(s) could not be looked at" if skipped else "all was looked at",
            metadata={"not looked at": dg.MetadataValue.md(_as_list(skipped))},
        )

    return watch


def _findings_check(found: list[OpenFinding]) -> dg.AssetCheckResult:
    critical = [one for one in found if one.severity == "critical"]
    said = f"{len(critical)} critical, {len(found) - len(critical)} other finding(s) are open"
    return dg.AssetCheckResult(
        check_name=FINDINGS,
        passed=not critical,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{said}: {critical[0].summary}" if critical else said,
        metadata={"open": dg.MetadataValue.md(as_table(found))},
    )


def as_table(found: list[OpenFinding]) -> str:
    """Findings as a Markdown table, the worst first."""
    if not found:
        return "none"
    lines = ["| | kind | what | team | since (UTC) | next |", "| --- | --- | --- | --- | --- | --- |"]
    for one in found[:MOST_SHOWN]:
        cells = [one.severity, f"`{one.kind}`", one.summary, one.team, f"{one.since.astimezone(UTC):%m-%d %H:%M}",
                 one.next_step]  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if len(found) > MOST_SHOWN:
        lines.append(f"\nand {len(found) - MOST_SHOWN} more: datops database findings")
    return "\n".join(lines)


def _as_list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "none"


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


def open_findings(project_root: Path) -> list[OpenFinding]:
    """What is open, the worst first."""
    with open_catalogue(project_root) as catalogue:
        return [OpenFinding(*row) for row in catalogue.conn.execute(_OPEN)]


def _warehouse(root: Path, name: str | None) -> Any:
    from datops_assets.resources.warehouse import open_warehouse

    warehouse = open_warehouse(read_settings(root))
    return (warehouse.at(name) if name else warehouse).connect()
