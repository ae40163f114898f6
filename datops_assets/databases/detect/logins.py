"""Who tries to get in, who got in, and from where. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from datops_assets.databases.detect.sample import Sample
from datops_assets.databases.detect.server_log import Burst, LogSeen, Who
from datops_assets.databases.detect.thresholds import Bounds
from datops_assets.databases.detect.usual import Familiar, Trait
from datops_assets.databases.findings import Finding

NO_ROLE = "names that are no role"
"""What is typed in the place of a role may be a password: such names are told by their number only."""


def judge_logins(sample: Sample, familiar: Familiar, bounds: Bounds) -> Iterator[Finding]:
    """Findings about logins, refusals and strangers."""
    if sample.log is not None:
        yield from _failed(sample, sample.log, bounds)
        yield from _broken_in(sample, sample.log, bounds)
        yield from _refused(sample, sample.log, bounds)
    for role, trait, values in familiar.strangers(sample, bounds):
        yield from _strangers(role, trait, values)


def _strangers(role: str, trait: Trait, values: list[str]) -> Iterator[Finding]:
    """What a role never had before."""
    if trait == "statement":
        yield Finding("new_statement", role, "info", f"{role} ran {len(values)} statement(s) of a shape that is new",
                      {"queryid": values[:10], "shapes": len(values)})  # fmt: skip
        return
    for value in values:
        if trait == "client":
            yield Finding("new_client", f"{role} from {value}", "warning",
                          f"{role} comes from {value}, as it never did before", {"network": value})  # fmt: skip
        elif trait == "hour":
            yield Finding("off_hours", f"{role} at {value}", "warning",
                          f"{role} is at work at an hour at which it never was: {value}",
                          {"hour (UTC)": value})  # fmt: skip
        else:
            yield Finding("new_application", f"{role} by {value}", "info",
                          f"{role} comes by {value}, as it never did before", {"application": value})  # fmt: skip


def _named(sample: Sample, role: str) -> str:
    return role if role in sample.powers else NO_ROLE


def _failed(sample: Sample, log: LogSeen, bounds: Bounds) -> Iterator[Finding]:
    """By role and by client: one client may try many roles, many clients one.

    A program with an old password tries again and again too, but slowly: that is a warning.
    """
    bursts = [(who, one) for who, one in log.bursts.items() if who in log.failed] + list(log.guessed.items())
    for word in ("role", "client"):
        counts: Counter[str] = Counter()
        speeds: dict[str, float] = {}
        for (role, client), burst in bursts:
            name = _named(sample, role) if word == "role" else client
            counts[name] += burst.count
            speeds[name] = speeds.get(name, 0.0) + burst.per_minute
        for name, count in counts.items():
            limit = bounds.of(name)
            if count < limit.failed_logins:
                continue
            fast = speeds[name] >= limit.failed_logins
            evidence = {"failed": count, "in a minute": round(speeds[name], 1),
                        "clients" if word == "role" else "roles": _others(sample, bursts, name, word)}  # fmt: skip
            yield Finding("brute_force", f"{word} {name}", "critical" if fast else "warning",
                          f"{count} logins of {word} {name} failed", evidence)  # fmt: skip


def _others(sample: Sample, bursts: list[tuple[Who, Burst]], name: str, word: str) -> list[str]:
    pairs = [(_named(sample, role), client) for (role, client), _ in bursts]
    found = {client if word == "role" else role for role, client in pairs if name in (role, client)}
    return sorted(found)[:10]


def _broken_in(sample: Sample, log: LogSeen, bounds: Bounds) -> Iterator[Finding]:
    """A login right after a burst of failures: by the log, else by the session that is there."""
    guessed = dict(log.guessed)
    for session in sample.sessions:
        who = (session.role, session.client or "[local]")
        burst = log.bursts.get(who)
        if (
            burst is not None
            and 0 <= (session.backend_start - burst.last).total_seconds() <= bounds.server.burst_s
        ):
            guessed[who] = burst
    for (role, client), burst in guessed.items():
        limit = bounds.of(role)
        if burst.count >= limit.failed_logins and burst.per_minute >= limit.failed_logins:
            yield Finding("break_in", f"{role} from {client}", "critical",
                          f"{role} logged in from {client} after {burst.count} logins had failed",
                          {"failed": burst.count, "client": client})  # fmt: skip


def _refused(sample: Sample, log: LogSeen, bounds: Bounds) -> Iterator[Finding]:
    if log.refused >= bounds.server.refused_connections:
        yield Finding("refused_connections", "server", "warning",
                      f"{log.refused} connections found no place", {"refused": log.refused})  # fmt: skip
    for role, count in log.denied.items():
        if count >= bounds.of(role).denied:
            name = _named(sample, role)
            yield Finding("denied", name, "warning",
                          f"{count} statements of {name} were not permitted", {"denied": count})  # fmt: skip
