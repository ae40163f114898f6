"""What is usual on a server: how many, how fast, from where. Values in, values out; watching.py keeps them.

A mean that forgets (EWMA, by time, not by the number of looks) and the mean absolute distance from it
(MAD) per role or database and measure. What is unusual is learned only as the highest usual value: a
nightly load becomes usual after some nights, an attack does not within the hour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Literal

from datops_assets.databases.detect.sample import Sample
from datops_assets.databases.detect.thresholds import Thresholds
from datops_assets.databases.findings import Severity

Trait = Literal["client", "application"]
MOST_FAMILIAR = 100
"""A role that comes from more places, or under more names, than this may come from anywhere."""


@dataclass(frozen=True)
class Measure:
    """A number that is compared with what is usual, and what is said where it is far above."""

    kind: str
    severity: Severity
    says: str
    """`{subject}`, `{value}` and `{usual}` are filled in."""


MEASURES: Mapping[str, Measure] = {
    "connections": Measure(
        "connection_storm", "warning", "{subject} has {value:.0f} connections, usual are {usual:.0f}"
    ),
    "copied_rows": Measure(
        "exfiltration", "critical", "{subject} copies {value:.0f} rows out, usual are {usual:.0f}"
    ),
    "transactions_per_s": Measure(
        "statement_flood", "warning", "{subject} runs {value:.0f} transactions a second, usual are {usual:.0f}"
    ),
    "read_rows_per_s": Measure(
        "bulk_read", "warning", "{value:.0f} rows of {subject} are read a second, usual are {usual:.0f}"
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

    def strangers(self, sample: Sample, thresholds: Thresholds) -> Iterator[tuple[str, Trait, str]]:
        """Role, trait, value: what a role that was watched for long enough never had before."""
        for (role, trait), seen in traits(sample).items():
            known = self.values.get((role, trait), {})
            if not known or len(known) >= MOST_FAMILIAR:
                continue
            if (sample.at - min(known.values())).total_seconds() < thresholds.learning_s:
                continue
            for value in sorted(seen - known.keys()):
                yield role, trait, value

    def unknown(self, sample: Sample) -> list[tuple[str, Trait, str]]:
        """What has to be kept of a sample."""
        return [
            (role, trait, value)
            for (role, trait), seen in traits(sample).items()
            if len(self.values.get((role, trait), {})) < MOST_FAMILIAR
            for value in sorted(seen - self.values.get((role, trait), {}).keys())
        ]


def traits(sample: Sample) -> dict[tuple[str, Trait], set[str]]:
    """Where the sessions of each login or role come from, and what they call themselves."""
    found: dict[tuple[str, Trait], set[str]] = {}
    for session in sample.sessions:
        who = sample.habit_of(session.role)
        found.setdefault((who, "client"), set()).add(network(session.client))
        if session.application:
            found.setdefault((who, "application"), set()).add(_program(session.application))
    return found


def network(client: str | None) -> str:
    """The network of an address: machines come and go in it. `local` for a socket of the machine."""
    if client is None:
        return "local"
    address = ip_address(client.split("/")[0].split("%")[0])
    return str(ip_network(f"{address}/{24 if address.version == 4 else 64}", strict=False))


def _program(application: str) -> str:
    """A program's name without what changes from start to start: numbers, and what stands behind a dash."""
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
    return found


def floors(thresholds: Thresholds) -> dict[str, float]:
    """Below what each measure is never unusual."""
    return {
        "connections": thresholds.connections_floor,
        "copied_rows": thresholds.copied_rows,
        "transactions_per_s": thresholds.transactions_per_s,
        "read_rows_per_s": thresholds.read_rows_per_s,
    }


def learn(
    sample: Sample, before: Sample | None, baselines: Baselines, thresholds: Thresholds
) -> dict[tuple[str, str], Baseline]:
    """The baselines with this sample in them."""
    at = sample.at
    return {
        key: baselines.get(key, Baseline(at, at)).learn(value, at, thresholds)
        for key, value in measured(sample, before).items()
    }
