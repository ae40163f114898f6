"""Who tries to get in, who got in, and from where. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from datops_assets.databases.detect.sample import Sample
from datops_assets.databases.detect.server_log import Burst, LogSeen, Who
from datops_assets.databases.detect.thresholds import Thresholds
from datops_assets.databases.detect.usual import Familiar
from datops_assets.databases.findings import Finding

NO_ROLE = "names that are no role"
"""What is typed in the place of a role may be a password: such names are told by their number only."""


def judge_logins(sample: Sample, familiar: Familiar, limit: Thresholds) -> Iterator[Finding]:
    """Findings about logins, refusals and strangers."""
    if sample.log is not None:
        yield from _failed(sample, sample.log, limit)
        yield from _broken_in(sample, sample.log, limit)
        yield from _refused(sample, sample.log, limit)
    for role, trait, value in familiar.strangers(sample, limit):
        if trait == "client":
            yield Finding("new_client", f"{role} from {value}", "warning",
                          f"{role} comes from {value}, as it never did before", {"network": value})  # fmt: skip
        else:
            yield Finding("new_application", f"{role} by {value}", "info",
                          f"{role} comes by {value}, as it never did before", {"application": value})  # fmt: skip


def _named(sample: Sample, role: str) -> str:
    return role if role in sample.powers else NO_ROLE


def _failed(sample: Sample, log: LogSeen, limit: Thresholds) -> Iterator[Finding]:
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


def _broken_in(sample: Sample, log: LogSeen, limit: Thresholds) -> Iterator[Finding]:
    """A login right after a burst of failures: by the log, else by the session that is there."""
    guessed = dict(log.guessed)
    for session in sample.sessions:
        who = (session.role, session.client or "[local]")
        burst = log.bursts.get(who)
        if burst is not None and 0 <= (session.backend_start - burst.last).total_seconds() <= limit.burst_s:
            guessed[who] = burst
    for (role, client), burst in guessed.items():
        if burst.count >= limit.failed_logins and burst.per_minute >= limit.failed_logins:
            yield Finding("break_in", f"{role} from {client}", "critical",
                          f"{role} logged in from {client} after {burst.count} logins had failed",
                          {"failed": burst.count, "client": client})  # fmt: skip


def _refused(sample: Sample, log: LogSeen, limit: Thresholds) -> Iterator[Finding]:
    if log.refused >= limit.refused_connections:
        yield Finding("refused_connections", "server", "warning",
                      f"{log.refused} connections found no place", {"refused": log.refused})  # fmt: skip
    for role, count in log.denied.items():
        if count >= limit.denied:
            name = _named(sample, role)
            yield Finding("denied", name, "warning",
                          f"{count} statements of {name} were not permitted", {"denied": count})  # fmt: skip
