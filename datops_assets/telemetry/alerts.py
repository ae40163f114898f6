"""Alerts: who is told what, when, and when again. Values in, values out; sending is in delivery.py.

An event is something that happened (a run failed) or something that lasts until it is over (a finding,
a failed check). A route takes the events it is for, groups them, tells a group once, again after a
while, and once more when it is over; in quiet hours it keeps what is not critical for later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import Any, Literal
from zoneinfo import ZoneInfo

Severity = Literal["info", "warning", "critical"]
_RANK: Mapping[str, int] = {"info": 0, "warning": 1, "critical": 2}
_MOST_LINES = 20
_LONGEST_LINE = 500


@dataclass(frozen=True)
class Event:
    """One thing to be told. (kind, subject) says which; the same one again is the same alert."""

    kind: str
    """run_failed, check_failed, stale, finding, backup…"""
    subject: str
    severity: Severity
    summary: str
    at: datetime
    team: str = ""
    url: str | None = None
    lasts: bool = True
    """False: it happened and that was that; True: somebody will say that it is over."""
    over: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For programs: the run, the job, the assets."""


@dataclass(frozen=True)
class QuietHours:
    """From when to when nobody is woken but by what is critical; over midnight where `until` is earlier."""

    begin: time
    until: time
    zone: str = "UTC"

    def hold(self, now: datetime) -> bool:
        """Whether it is quiet now."""
        local = now.astimezone(ZoneInfo(self.zone)).time()
        if self.begin <= self.until:
            return self.begin <= local < self.until
        return local >= self.begin or local < self.until


@dataclass(frozen=True)
class Route:
    """Which events go where."""

    name: str
    severity: Severity = "warning"
    """The least that is told."""
    teams: tuple[str, ...] = ()
    """Patterns; none: all."""
    kinds: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ("team", "kind")
    repeat: timedelta | None = timedelta(hours=4)
    """Told again after so long, while it lasts. None: never."""
    tell_resolved: bool = True
    quiet: QuietHours | None = None

    def takes(self, event: Event) -> bool:
        """Whether an event is one of this route's."""
        return (
            _RANK[event.severity] >= _RANK[self.severity]
            and _matches(event.team, self.teams)
            and _matches(event.kind, self.kinds)
            and _matches(event.subject, self.subjects)
        )


@dataclass(frozen=True)
class Alert:
    """An event as a route remembers it."""

    event: Event
    told_at: datetime | None = None
    told_as: Severity | None = None
    """How bad it was when it was told."""
    count: int = 1
    """How often it came."""

    @property
    def key(self) -> tuple[str, str]:
        """Which alert it is."""
        return (self.event.kind, self.event.subject)


@dataclass(frozen=True)
class Message:
    """What is sent at once: a group's alerts."""

    route: str
    severity: Severity
    title: str
    alerts: tuple[Alert, ...]
    resolved: bool = False

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Which alerts it is about."""
        return tuple(one.key for one in self.alerts)

    @property
    def lines(self) -> tuple[str, ...]:
        """One for each alert; where there are many, the rest is counted."""
        shown = [_line(one) for one in self.alerts[:_MOST_LINES]]
        left = len(self.alerts) - len(shown)
        return (*shown, f"and {left} more") if left else tuple(shown)

    @property
    def body(self) -> str:
        """Lines for people."""
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Decision:
    """What to send, and what the route will remember once that has arrived."""

    messages: tuple[Message, ...] = ()
    open: Mapping[tuple[str, str], Alert] = field(default_factory=dict)
    told: Mapping[tuple[str, str], Alert] = field(default_factory=dict)
    """What the messages are about."""


def decide(
    route: Route, known: Mapping[tuple[str, str], Alert], events: Sequence[Event], now: datetime
) -> Decision:
    """Take in events and say what is to be told now.

    known      what the route remembers, by (kind, subject)
    events     in the order in which they happened
    promise    an alert is told once, and again only after `repeat` or where it got worse; what was never
               told is not told to be over; nothing that is not critical is told in quiet hours, and
               nothing is lost by them
    """
    alerts, ended = _take_in(route, known, events)
    quiet = route.quiet is not None and route.quiet.hold(now)
    due = {key: one for key, one in alerts.items() if _is_due(route, one, now, quiet)}
    # Good news wakes nobody: in quiet hours it waits with the alert that it ends.
    over = {} if quiet else {key: one for key, one in ended.items() if one.told_at and route.tell_resolved}
    messages = [*_messages(route, due, False), *_messages(route, over, True)]
    alerts |= {key: replace(one, told_at=now, told_as=one.event.severity) for key, one in due.items()}
    kept = {key: one for key, one in alerts.items() if one.event.lasts or one.told_at is None}
    if quiet:
        kept |= {key: one for key, one in ended.items() if one.told_at and route.tell_resolved}
    return Decision(tuple(messages), kept, due)


def _take_in(
    route: Route, known: Mapping[tuple[str, str], Alert], events: Sequence[Event]
) -> tuple[dict[tuple[str, str], Alert], dict[tuple[str, str], Alert]]:
    """What is open after these events, and what is over."""
    alerts = {key: one for key, one in known.items() if not one.event.over}
    ended = {key: one for key, one in known.items() if one.event.over}
    for event in events:
        key = (event.kind, event.subject)
        before = alerts.get(key)
        if event.over:
            if before is not None:
                ended[key] = replace(alerts.pop(key), event=replace(before.event, over=True))
            continue
        if not route.takes(event):
            continue
        came_back = ended.pop(key, None)
        before = before or came_back
        alerts[key] = Alert(event) if before is None else replace(before, event=event, count=before.count + 1)
    return alerts, ended


def _is_due(route: Route, alert: Alert, now: datetime, quiet: bool) -> bool:
    if quiet and alert.event.severity != "critical":
        return False
    if alert.told_at is None or alert.told_as is None:
        return True
    if _RANK[alert.event.severity] > _RANK[alert.told_as]:
        return True
    return route.repeat is not None and alert.event.lasts and now - alert.told_at >= route.repeat


def _messages(route: Route, alerts: Mapping[tuple[str, str], Alert], resolved: bool) -> list[Message]:
    groups: dict[tuple[str, ...], list[Alert]] = {}
    for alert in alerts.values():
        place = tuple(str(getattr(alert.event, name)) for name in route.group_by)
        groups.setdefault(place, []).append(alert)
    return [_message(route, group, resolved) for group in groups.values()]


def _message(route: Route, group: list[Alert], resolved: bool) -> Message:
    worst = max((one.event.severity for one in group), key=lambda name: _RANK[name])
    first = group[0].event
    named = f"{len(group)} × " if len(group) > 1 else ""
    title = f"{'resolved' if resolved else worst}: {named}{first.kind.replace('_', ' ')}"
    if len(group) == 1:
        title += f" {first.subject}"
    if first.team and "team" in route.group_by:
        title += f" ({first.team})"
    return Message(route.name, worst, title, tuple(group), resolved)


def _line(alert: Alert) -> str:
    event = alert.event
    text = event.summary if len(event.summary) <= _LONGEST_LINE else event.summary[:_LONGEST_LINE] + " …"
    again = f" ({alert.count} times)" if alert.count > 1 else ""
    link = f" {event.url}" if event.url else ""
    return f"{event.subject}: {text}{again}{link}"


def _matches(value: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(value, pattern) for pattern in patterns)


def unsent(
    before: Mapping[tuple[str, str], Alert], decision: Decision, lost: Sequence[Message]
) -> dict[tuple[str, str], Alert]:
    """What a route remembers where some messages did not arrive: their alerts wait for the next time."""
    kept = dict(decision.open)
    for message in lost:
        for key in message.keys:
            if message.resolved and key in before:
                kept[key] = replace(before[key], event=replace(before[key].event, over=True))
                continue
            if not message.resolved:
                kept[key] = decision.told[key]  # as it was before it was told: due for the same reason
    return kept


def to_json(alert: Alert) -> dict[str, Any]:
    """An alert as plain values."""
    event = alert.event
    return {
        "kind": event.kind, "subject": event.subject, "severity": event.severity, "summary": event.summary,
        "at": event.at.isoformat(), "team": event.team, "url": event.url, "lasts": event.lasts, "over": event.over,
        "told_at": alert.told_at.isoformat() if alert.told_at else None, "told_as": alert.told_as, "count": alert.count,
        "facts": dict(event.facts),
    }  # fmt: skip


def from_json(values: Mapping[str, Any]) -> Alert:
    """The other way."""
    told = values["told_at"]
    event = Event(
        values["kind"], values["subject"], values["severity"], values["summary"], datetime.fromisoformat(values["at"]),
        values["team"], values["url"], values["lasts"], values["over"], values.get("facts", {}),
    )  # fmt: skip
    # Releases before told no severity of its own: it was the event's.
    told_as = values.get("told_as", event.severity if told else None)
    return Alert(event, datetime.fromisoformat(told) if told else None, told_as, values["count"])
