"""The component `AlertRoute`: failed runs, failed checks, freshness and findings, told to one place.

It is a sensor with a place of its own in the history, not a run status sensor: those take at most five
runs a tick. What it remembers is in its cursor, so it works while the warehouse does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from datops_assets.components.catalogue import open_catalogue
from datops_assets.config.settings import expand
from datops_assets.errors import DatopsError

if TYPE_CHECKING:
    from datops_assets.telemetry.alerts import Event, Route

INTERVAL_S = 30
CHECK_KIND = "alert_kind"
"""Metadata of a check that is told as another kind than `check_failed`."""
MOST_EVENTS = 500
"""Of each sort, a tick; the rest comes with the next one."""
OVERLAP_S = 120
"""So far back each tick looks again.

A run's end has the time of the machine that it ran on, and clocks differ; a finding has the time at which its
transaction began, and one that began later may be seen before it.
"""


class AlertRoute(dg.Component, dg.Model, dg.Resolvable):
    """Tells one place what it is for: a chat, a mailbox, a pager, a program."""

    name: str = Field(description="Name of the route and of its sensor.", pattern=r"^[a-z][a-z0-9_]*$")
    address_env: str = Field(
        "DATOPS_ALERT_ADDRESS",
        description="Variable with the address, which is the secret: https://…, one of Apprise's, or a plug-in's.",
    )
    severity: Literal["info", "warning", "critical"] = Field("warning", description="The least that is told.")
    teams: list[str] = Field(default_factory=list, description="Patterns of teams; none: all.")
    kinds: list[str] = Field(
        default_factory=list,
        description="Patterns: run_failed, check_failed, drill, stale, finding_…, unreachable; none: all.",
    )
    subjects: list[str] = Field(
        default_factory=list, description="Patterns of jobs, assets and databases; none: all."
    )
    group_by: list[Literal["team", "kind", "subject", "severity"]] = Field(
        ["team", "kind"], description="What is told together."
    )
    repeat_h: float | None = Field(
        4, gt=0, description="Hours until it is told again while it lasts; null: never."
    )
    tell_resolved: bool = Field(True, description="Whether the end is told too.")
    quiet_from: str | None = Field(
        None, description="Begin of quiet hours, 22:00; only what is critical is told."
    )
    quiet_until: str | None = Field(None, description="End of quiet hours, 07:00.")
    quiet_zone: str = Field("UTC", description="Time zone of the quiet hours.")
    web_ui_url: str | None = Field(None, description="Address of the web UI, for links.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """One sensor; it reads the address when it has something to tell."""
        return dg.Definitions(sensors=[alert_sensor(self.route(), self.address_env, self.web_ui_url)])

    def route(self) -> Route:
        """What decides by it. Raises ValueError: the quiet hours are none."""
        from zoneinfo import ZoneInfo

        from datops_assets.telemetry.alerts import QuietHours, Route

        quiet = None
        if self.quiet_from is not None and self.quiet_until is not None:
            ZoneInfo(self.quiet_zone)
            quiet = QuietHours(
                time.fromisoformat(self.quiet_from), time.fromisoformat(self.quiet_until), self.quiet_zone
            )
        elif self.quiet_from or self.quiet_until:
            raise ValueError("quiet_from stands without quiet_until, expected both")
        return Route(
            self.name, self.severity, tuple(self.teams), tuple(self.kinds), tuple(self.subjects), tuple(self.group_by),
            None if self.repeat_h is None else timedelta(hours=self.repeat_h), self.tell_resolved, quiet,
        )  # fmt: skip


@dataclass
class _Place:
    """How far the history was read, and what is open."""

    runs: float
    checks: int
    freshness: int
    findings: str
    open: list[dict[str, Any]]
    told_runs: list[str] = field(default_factory=list)
    """Runs that failed within OVERLAP_S of `runs`."""
    told_findings: list[str] = field(default_factory=list)
    """Findings that changed within OVERLAP_S of `findings`, each with when it did."""

    @classmethod
    def read(cls, cursor: str | None, now: datetime, instance: dg.DagsterInstance) -> _Place:
        if cursor:
            return cls(**json.loads(cursor))
        # What was before the route is not its affair.
        last = instance.event_log_storage.get_maximum_record_id() or 0
        place = cls(now.timestamp(), last, last, now.isoformat(), [])
        place.told_runs = [one.dagster_run.run_id for one in _failed_runs(instance, place)]
        place.told_findings = _recent_findings(place)
        return place


def alert_sensor(route: Route, address_env: str, web_ui_url: str | None = None) -> dg.SensorDefinition:
    """The sensor of a route; a message that does not arrive is logged without the address and sent again."""

    @dg.sensor(
        name=route.name,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Tells the address in {address_env} of failures and findings.",
    )
    def tell(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from datops_assets.components.alert_channels import find_channel
        from datops_assets.telemetry.alerts import decide, from_json, to_json, unsent
        from datops_assets.telemetry.delivery import deliver

        address, now = expand(address_env), datetime.now(UTC)
        if not address:
            return dg.SkipReason(
                f"{address_env} is not set; export it, or add it to .env beside workspace.yaml"
            )
        place = _Place.read(context.cursor, now, context.instance)
        events = list(_collect(context.instance, place, web_ui_url, now, _teams(context)))
        known = {one.key: one for one in map(from_json, place.open)}
        decision = decide(route, known, events, now)
        lost = []
        for message in decision.messages:
            delivery = deliver(address, message, secrets=[address], find_channel=find_channel)
            if not delivery.delivered:
                lost.append(message)
                context.log.error(
                    f"{route.name}: not told after {delivery.attempts} attempt(s): {delivery.reason}"
                )
        place.open = [to_json(one) for one in unsent(known, decision, lost).values()]
        context.update_cursor(json.dumps(place.__dict__))
        told = len(decision.messages) - len(lost)
        return dg.SkipReason(f"{len(events)} event(s), {told} message(s) sent, {len(lost)} to be sent again")

    return tell


def _teams(context: dg.SensorEvaluationContext) -> Mapping[dg.AssetKey, str]:
    """Whose each asset of this code location is: the first of its owners that is a team."""
    repository = context.repository_def
    if repository is None:
        return {}
    return {
        node.key: owner.removeprefix("team:")
        for node in repository.asset_graph.asset_nodes
        for owner in reversed(node.owners)
        if owner.startswith("team:")
    }


def _collect(
    instance: dg.DagsterInstance,
    place: _Place,
    ui: str | None,
    now: datetime,
    teams: Mapping[dg.AssetKey, str],
) -> Iterator[Event]:
    """Everything since the last tick; moves `place`."""
    yield from _runs(instance, place, ui)
    yield from _checks(instance, place, ui, teams)
    yield from _freshness(instance, place, ui, teams)
    yield from _findings(place, now)


def _runs(instance: dg.DagsterInstance, place: _Place, ui: str | None) -> Iterator[Event]:
    from datops_assets.telemetry.alerts import Event

    records = _failed_runs(instance, place)
    told = set(place.told_runs)
    place.runs = max([place.runs, *(_ended(one).timestamp() for one in records)])
    place.told_runs = [
        one.dagster_run.run_id for one in records if _ended(one).timestamp() > place.runs - OVERLAP_S
    ]
    for record in records:
        run = record.dagster_run
        if run.run_id in told:
            continue
        yield Event(
            "run_failed", f"{run.job_name}/{run.run_id[:8]}", "critical",
            f"{run.job_name} failed: {_cause(instance, run)}",
            _ended(record), run.tags.get("datops/team", ""),
            f"{ui.rstrip('/')}/runs/{run.run_id}" if ui else None, lasts=False,
            facts={"run_id": run.run_id, "job": run.job_name,
                   "assets": sorted(key.to_user_string() for key in run.asset_selection or ())},
        )  # fmt: skip


def _failed_runs(instance: dg.DagsterInstance, place: _Place) -> Sequence[dg.RunRecord]:
    """Those that failed since the last tick, and shortly before it."""
    since = datetime.fromtimestamp(place.runs - OVERLAP_S, UTC)
    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    most = MOST_EVENTS + len(place.told_runs)
    return instance.get_run_records(wanted, limit=most, order_by="update_timestamp", ascending=True)


def _ended(record: dg.RunRecord) -> datetime:
    return record.update_timestamp.replace(tzinfo=UTC)


def _cause(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        data = event.step_failure_data if event is not None else None
        if data is not None and data.user_failure_data is not None and data.user_failure_data.description:
            return str(data.user_failure_data.description)
        if data is not None and data.error is not None:
            return str(data.error.message).strip()
    return "see its log"


def _checks(
    instance: dg.DagsterInstance, place: _Place, ui: str | None, teams: Mapping[dg.AssetKey, str]
) -> Iterator[Event]:
    from datops_assets.telemetry.alerts import Event

    wanted = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION, after_cursor=place.checks)
    for record in instance.event_log_storage.get_event_records(wanted, limit=MOST_EVENTS, ascending=True):
        place.checks, event = record.storage_id, record.event_log_entry.dagster_event
        if event is None:
            continue
        found = event.asset_check_evaluation_data
        asset = found.asset_key.to_user_string()
        kind = found.metadata.get(CHECK_KIND)
        yield Event(
            str(kind.value) if kind else "check_failed",
            f"{asset}:{found.check_name}",
            "critical" if found.severity == dg.AssetCheckSeverity.ERROR else "warning",
            found.description or "the check failed",
            datetime.fromtimestamp(record.timestamp, UTC),
            teams.get(found.asset_key, ""),
            url=f"{ui.rstrip('/')}/assets/{asset}?view=checks" if ui else None,
            over=found.passed,
            facts={"run_id": record.event_log_entry.run_id, "asset": asset, "check": found.check_name},
        )


def _freshness(
    instance: dg.DagsterInstance, place: _Place, ui: str | None, teams: Mapping[dg.AssetKey, str]
) -> Iterator[Event]:
    from datops_assets.telemetry.alerts import Event

    wanted = dg.EventRecordsFilter(dg.DagsterEventType.FRESHNESS_STATE_CHANGE, after_cursor=place.freshness)
    for record in instance.event_log_storage.get_event_records(wanted, limit=MOST_EVENTS, ascending=True):
        place.freshness, event = record.storage_id, record.event_log_entry.dagster_event
        if event is None:
            continue
        change: Any = event.event_specific_data
        state, asset = str(change.new_state.value).upper(), change.key.to_user_string()
        yield Event(
            "stale",
            asset,
            "critical" if state == "FAIL" else "warning",
            "it is older than it may be",
            datetime.fromtimestamp(record.timestamp, UTC),
            teams.get(change.key, ""),
            url=f"{ui.rstrip('/')}/assets/{asset}" if ui else None,
            over=state == "PASS",
            facts={"asset": asset},
        )


def _findings(place: _Place, now: datetime) -> Iterator[Event]:
    from datops_assets.telemetry.alerts import Event

    since, told = _shortly_before(place.findings), set(place.told_findings)
    try:
        with open_catalogue() as catalogue:
            rows = catalogue.conn.execute(
                "select finding_id || ' ' || changed_at, kind, server || ' ' || subject, severity, summary, changed_at,"
                " resolved_at, team from datops.findings where changed_at > %s order by changed_at limit %s",
                (since, MOST_EVENTS + len(told)),
            ).fetchall()
    except DatopsError as error:
        yield Event("unreachable", "warehouse", "critical", str(error), now)
        return
    yield Event("unreachable", "warehouse", "critical", "it answers again", now, over=True)
    if rows:
        place.findings = max(datetime.fromisoformat(place.findings), rows[-1][5]).isoformat()
        window = _shortly_before(place.findings)
        place.told_findings = [row[0] for row in rows if row[5] > window]
    for change, kind, subject, severity, summary, at, resolved_at, team in rows:
        if change in told:
            continue
        yield Event(f"finding_{kind}", subject, severity, summary, at, team, over=resolved_at is not None)


def _recent_findings(place: _Place) -> list[str]:
    """Those that changed shortly before the route began; none while the warehouse does not answer."""
    try:
        with open_catalogue() as catalogue:
            query = "select finding_id || ' ' || changed_at from datops.findings where changed_at > %s"
            return [row[0] for row in catalogue.conn.execute(query, (_shortly_before(place.findings),))]
    except DatopsError:
        return []


def _shortly_before(moment: str) -> datetime:
    return datetime.fromisoformat(moment) - timedelta(seconds=OVERLAP_S)
