"""What is usual on a server: how many, how fast, from where. Values in, values out; watching.py keeps them.

A mean that forgets (EWMA, by time, not by the number of looks) and the mean absolute distance from it
(MAD) per role or database and measure. What is unusual is learned only as the highest usual value: a
nightly load becomes usual after some nights, an attack does not within the hour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Literal

from datops_assets.databases.detect.sample import Sample
from datops_assets.databases.detect.thresholds import Bounds, Thresholds
from datops_assets.databases.findings import Severity

Trait = Literal["client", "application", "hour", "statement"]
MOST_FAMILIAR: Mapping[Trait, int] = {"client": 100, "application": 100, "hour": 48, "statement": 500}
"""A role that has had more than this may have anything. Hours: those of a working day, those of the weekend."""
_AT_WORK_S = 60
"""A session that did something within this time is at work; a pool's idle ones are not."""


@dataclass(frozen=True)
class Measure:
    """A number that is compared with what is usual, and what is said where it is far above."""

    kind: str
    severity: Severity
    says: str
    """`{subject}`, `{value}` and `{usual}` are filled in."""
    floor: Callable[[Thresholds], float]
    """Below it nothing is unusual."""
    critical_from: Callable[[Thresholds], float] | None = None


MEASURES: Mapping[str, Measure] = {
    "connections": Measure(
        "connection_storm", "warning", "{subject} has {value:.0f} connections, usual are {usual:.0f}",
        lambda limit: limit.connections_floor,
    ),
    "copied_rows": Measure(
        "exfiltration", "critical", "{subject} copies {value:.0f} rows out, usual are {usual:.0f}",
        lambda limit: limit.copied_rows,
    ),
    "selected_rows": Measure(
        "exfiltration_select", "warning", "{subject} was given {value:.0f} rows by select, usual are {usual:.0f}",
        lambda limit: limit.selected_rows, lambda limit: limit.selected_rows_critical,
    ),
    "transactions_per_s": Measure(
        "statement_flood", "warning", "{subject} runs {value:.0f} transactions a second, usual are {usual:.0f}",
        lambda limit: limit.transactions_per_s,
    ),
    "read_rows_per_s": Measure(
        "bulk_read", "warning", "{value:.0f} rows of {subject} are read a second, usual are {usual:.0f}",
        lambda limit: limit.read_rows_per_s,
    ),
    "growth_bytes": Measure(
        "growth", "warning", "{subject} grew by {value:.0f} bytes within the hour, usual are {usual:.0f}",
        lambda limit: limit.growth_bytes,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Baseline:
    """What is usual of one thing."""

    since: datetime
    seen_at: datetime
    samples: int = 0
    mean: float = 0.0
    deviation: float = 0.0

    def learn(self, value: float, at: datetime, thresholds: Thresholds) -> Baseline:
        """With one more value. While it is learned all count alike; later each by the time that has passed."""
        weight = 1 / (self.samples + 1)
        if self.is_learned(at, thresholds):
            passed = max((at - self.seen_at).total_seconds(), 0.0)
            weight = 1 - 0.5 ** (passed / thresholds.half_life_s)
            value = min(value, self.highest_usual(thresholds))
        mean = self.mean + weight * (value - self.mean)
        deviation = self.deviation + weight * (abs(value - mean) - self.deviation)
        return replace(self, seen_at=at, samples=self.samples + 1, mean=mean, deviation=deviation)

    def is_learned(self, at: datetime, thresholds: Thresholds) -> bool:
        """Whether it was watched for long enough to say what is usual."""
        watched_s = (at - self.since).total_seconds()
        return self.samples >= thresholds.learning_samples and watched_s >= thresholds.learning_s

    def highest_usual(self, thresholds: Thresholds) -> float:
        """Above this it is unusual. A twentieth of the mean counts as a deviation, and so does 1."""
        return self.mean + thresholds.deviations * max(self.deviation, self.mean * 0.05, 1.0)

    def is_unusual(self, value: float, floor: float, at: datetime, thresholds: Thresholds) -> bool:
        """Far above what is usual, and above `floor`, below which nobody is to be woken."""
        return self.is_learned(at, thresholds) and value > max(self.highest_usual(thresholds), floor)


Baselines = Mapping[tuple[str, str], Baseline]
"""(login, role or database; measure)."""


@dataclass(frozen=True)
class Familiar:
    """Where a role comes from and under which names, each with the time it was first seen."""

    values: Mapping[tuple[str, Trait], Mapping[str, datetime]]

    def strangers(self, sample: Sample, bounds: Bounds) -> Iterator[tuple[str, Trait, list[str]]]:
        """Role, trait, values: what a role that was watched for long enough never had before."""
        for (role, trait), seen in traits(sample).items():
            known = self.values.get((role, trait), {})
            if not known or len(known) >= MOST_FAMILIAR[trait]:
                continue
            if (sample.at - min(known.values())).total_seconds() < bounds.of(role).learning_s:
                continue
            near = {hour_of(sample.at + timedelta(hours=by)) for by in (-1, 1)} if trait == "hour" else set()
            strange = sorted(seen - known.keys())
            if strange and not near & known.keys():  # clocks are set forward and back, jobs take longer
                yield role, trait, strange

    def unknown(self, sample: Sample) -> list[tuple[str, Trait, str]]:
        """What has to be kept of a sample."""
        return [
            (role, trait, value)
            for (role, trait), seen in traits(sample).items()
            for known in [self.values.get((role, trait), {})]
            for value in sorted(seen - known.keys())[: max(MOST_FAMILIAR[trait] - len(known), 0)]
        ]


def traits(sample: Sample) -> dict[tuple[str, Trait], set[str]]:
    """Of each login or role: where it comes from, what it calls itself, when it works, what it runs.

    Hours and statements of declared logins only: whoever else is on the server keeps none.
    """
    found: dict[tuple[str, Trait], set[str]] = {}
    for session in sample.sessions:
        who = sample.habit_of(session.role)
        found.setdefault((who, "client"), set()).add(network(session.client))
        found.setdefault((who, "application"), set()).add(_program(session.application))
        at_work = session.is_active or (session.statement_s is not None and session.statement_s < _AT_WORK_S)
        if at_work and session.role in sample.logins:
            found.setdefault((who, "hour"), set()).add(hour_of(sample.at))
    for role, shapes in (sample.shapes or {}).items():
        if role in sample.logins and shapes:
            found.setdefault((sample.habit_of(role), "statement"), set()).update(shapes)
    return found


def hour_of(at: datetime) -> str:
    """The hour (UTC) of a working day or of the weekend: `workday 09`."""
    utc = at.astimezone(UTC)
    return f"{'workday' if utc.weekday() < 5 else 'weekend'} {utc:%H}"


def network(client: str | None) -> str:
    """The network of an address: machines come and go in it. `local` for a socket of the machine."""
    if client is None:
        return "local"
    address = ip_address(client.split("/")[0].split("%")[0])
    return str(ip_network(f"{address}/{24 if address.version == 4 else 64}", strict=False))


def _program(application: str) -> str:
    """A program's name without what changes from start to start: numbers, and what stands behind a dash."""
    if not application:
        return "no name"
    name = application.split(" - ", maxsplit=1)[0].rstrip("0123456789.-_:#/ ")
    return name[:63] or "numbered"


def measured(sample: Sample, before: Sample | None) -> dict[tuple[str, str], float]:
    """What is compared with what is usual: (login, role or database; measure)."""
    found: dict[tuple[str, str], float] = {}
    connections: Counter[str] = Counter()
    copied: Counter[str] = Counter()
    for session in sample.sessions:
        connections[sample.habit_of(session.role)] += 1
        copied[sample.habit_of(session.role)] += session.copied_rows
    for who, count in connections.items():
        found[who, "connections"], found[who, "copied_rows"] = float(count), float(copied[who])
    passed = 0.0 if before is None else (sample.at - before.at).total_seconds()
    if before is not None and passed > 0:
        for name, now in sample.counts.items():
            was = before.counts.get(name)
            if was is None or now.transactions < was.transactions:  # the statistics began anew
                continue
            found[name, "transactions_per_s"] = (now.transactions - was.transactions) / passed
            found[name, "read_rows_per_s"] = (now.read_rows - was.read_rows) / passed
        found |= _selected(sample, before)
    for name, size in sample.sizes.items():
        found[name, "growth_bytes"] = max(size.bytes - size.begun_bytes, 0.0)
    return found


def _selected(sample: Sample, before: Sample) -> dict[tuple[str, str], float]:
    """Rows given by select since the look before; nothing of a role whose statements were forgotten meanwhile."""
    found: dict[tuple[str, str], float] = {}
    if sample.selected is None or before.selected is None:
        return found
    for role, rows in sample.selected.items():
        more = rows - before.selected.get(role, 0.0)
        if more >= 0:
            key = (sample.habit_of(role), "selected_rows")
            found[key] = found.get(key, 0.0) + more
    return found


def learn(
    sample: Sample, before: Sample | None, baselines: Baselines, bounds: Bounds
) -> dict[tuple[str, str], Baseline]:
    """The baselines with this sample in them."""
    at = sample.at
    return {
        key: baselines.get(key, Baseline(at, at)).learn(value, at, bounds.of(key[0]))
        for key, value in measured(sample, before).items()
    }
