"""What sessions do to a server: how long, how many, how much. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from datops_assets.databases.detect.sample import Counts, Sample
from datops_assets.databases.detect.thresholds import Bounds, Thresholds
from datops_assets.databases.detect.usual import MEASURES, Baselines, measured
from datops_assets.databases.findings import Finding
from datops_assets.databases.sessions import Session

_MIB = 1024**2


def judge_load(
    sample: Sample,
    before: Sample | None,
    baselines: Baselines,
    bounds: Bounds,
    exporters: frozenset[str],
) -> Iterator[Finding]:
    """Findings about statements, locks, connections, copies and rates."""
    for session in sample.sessions:
        yield from _ages(session, bounds.of(session.role, session.database))
    yield from _queues(sample, bounds)
    yield from _places(sample, bounds.server)
    yield from _copies(sample, baselines, bounds, exporters)
    yield from _selects(sample, before, baselines, bounds, exporters)
    yield from _unusual(sample, before, baselines, bounds, exporters)
    if before is not None:
        for name, now in sample.counts.items():
            was = before.counts.get(name)
            if was is not None:
                yield from _rates(name, was, now, bounds.of(name))
    yield from _temporary(sample, bounds)


def _about(session: Session) -> dict[str, Any]:
    return {"pid": session.pid, "role": session.role, "database": session.database, "client": session.client,
            "application": session.application}  # fmt: skip


def _ages(session: Session, limit: Thresholds) -> Iterator[Finding]:
    subject = f"{session.role}/{session.pid}"
    age = session.statement_s if session.is_active else None
    if age is not None and age > limit.statement_warning_s:
        bad = age > limit.statement_critical_s
        yield Finding("long_statement", subject, "critical" if bad else "warning",
                      f"a statement of {session.role} has run for {age:.0f} s", _about(session))  # fmt: skip
    idle = session.in_state_s if session.is_in_transaction else None
    if idle is not None and idle > limit.in_transaction_warning_s:
        bad = idle > limit.in_transaction_critical_s
        yield Finding("idle_in_transaction", subject, "critical" if bad else "warning",
                      f"{session.role} has done nothing inside a transaction for {idle:.0f} s",
                      _about(session))  # fmt: skip


def _queues(sample: Sample, bounds: Bounds) -> Iterator[Finding]:
    """Who is waited for. How long is known of those who wait, not for whom each of them does."""
    for session in sample.sessions:
        if not session.blocks or session.blocked:
            continue
        waits = [
            one.lock_wait_s or 0.0 for one in sample.sessions if one.blocked and one.database == session.database
        ]  # fmt: skip
        longest = max(waits, default=0.0)
        limit = bounds.of(session.role, session.database)
        queue = session.blocks > limit.blocked_sessions
        if not queue and longest <= limit.lock_wait_warning_s:
            continue
        bad = (queue and longest > limit.queue_s) or longest > limit.lock_wait_critical_s
        evidence = {**_about(session), "waiting": session.blocks, "longest wait, s": round(longest, 1)}
        yield Finding("lock_queue", f"{session.role}/{session.pid}", "critical" if bad else "warning",
                      f"{session.blocks} sessions wait for {session.role}, one of them for {longest:.0f} s",
                      evidence)  # fmt: skip


def _places(sample: Sample, limit: Thresholds) -> Iterator[Finding]:
    taken = len(sample.sessions)
    if taken > min(limit.connections_warning_share, limit.connections_share) * sample.places:
        bad = taken > limit.connections_share * sample.places
        per_role = Counter(session.role for session in sample.sessions)
        evidence = {"taken": taken, "places": sample.places, "by role": dict(per_role.most_common(5))}
        yield Finding("connections", "server", "critical" if bad else "warning",
                      f"{taken} of {sample.places} connections are taken", evidence)  # fmt: skip


def _copies(
    sample: Sample, baselines: Baselines, bounds: Bounds, exporters: frozenset[str]
) -> Iterator[Finding]:
    """Rows that leave by COPY, while it is not known what is usual for the role."""
    for session in sample.sessions:
        limit = bounds.of(session.role, session.database)
        usual = baselines.get((sample.habit_of(session.role), "copied_rows"))
        learned = usual is not None and usual.is_learned(sample.at, limit)
        if session.role in exporters or learned or session.copied_rows <= limit.copied_rows:
            continue
        bad = session.copied_rows > limit.copied_rows_critical
        evidence = {**_about(session), "rows": session.copied_rows, "bytes": session.copied_bytes}
        yield Finding("exfiltration", sample.habit_of(session.role), "critical" if bad else "warning",
                      f"{session.role} copies rows out: {session.copied_rows} so far", evidence)  # fmt: skip


def _selects(
    sample: Sample, before: Sample | None, baselines: Baselines, bounds: Bounds, exporters: frozenset[str]
) -> Iterator[Finding]:
    """Rows that leave by select, while it is not known what is usual for the login."""
    spared = {sample.habit_of(role) for role in exporters}
    for (subject, name), rows in measured(sample, before).items():
        limit, usual = bounds.of(subject), baselines.get((subject, name))
        learned = usual is not None and usual.is_learned(sample.at, limit)
        if name == "selected_rows" and rows > limit.selected_rows and not learned and subject not in spared:
            yield Finding("exfiltration_select", subject, "warning",
                          f"{subject} was given {rows:.0f} rows by select", {"rows": int(rows)})  # fmt: skip


def _unusual(
    sample: Sample,
    before: Sample | None,
    baselines: Baselines,
    bounds: Bounds,
    exporters: frozenset[str],
) -> Iterator[Finding]:
    spared = {sample.habit_of(role) for role in exporters}
    for (subject, name), value in measured(sample, before).items():
        usual, limit, measure = baselines.get((subject, name)), bounds.of(subject), MEASURES[name]
        if usual is None or not usual.is_unusual(value, measure.floor(limit), sample.at, limit):
            continue
        if name in ("copied_rows", "selected_rows") and subject in spared:
            continue
        evidence = {"now": round(value, 1), "usual": round(usual.mean, 1),
                    "up to": round(usual.highest_usual(limit), 1),
                    "watched since": usual.since.isoformat(timespec="minutes")}  # fmt: skip
        says = measure.says.format(subject=subject, value=value, usual=usual.mean)
        bad = measure.critical_from is not None and value > measure.critical_from(limit)
        yield Finding(measure.kind, subject, "critical" if bad else measure.severity, says, evidence)


def _rates(name: str, was: Counts, now: Counts, limit: Thresholds) -> Iterator[Finding]:
    commits, rollbacks = now.commits - was.commits, now.rollbacks - was.rollbacks
    if rollbacks > limit.transactions and rollbacks > limit.rollback_share * (commits + rollbacks):
        yield Finding("rollbacks", name, "warning",
                      f"{rollbacks} of {commits + rollbacks} transactions of {name} were rolled back",
                      {"commits": commits, "rollbacks": rollbacks})  # fmt: skip
    deadlocks = now.deadlocks - was.deadlocks
    if deadlocks >= limit.deadlocks:
        yield Finding("deadlocks", name, "warning", f"{deadlocks} deadlocks in {name}",
                      {"deadlocks": deadlocks})  # fmt: skip
    temp = now.temp_bytes - was.temp_bytes
    if temp > limit.temp_bytes:
        yield Finding("temporary_files", name, "warning",
                      f"sessions of {name} wrote {temp / _MIB:.0f} MiB of temporary files",
                      {"bytes": temp})  # fmt: skip


def _temporary(sample: Sample, bounds: Bounds) -> Iterator[Finding]:
    """Files that are being written now; statistics know them only once they are closed."""
    by_pid = {session.pid: session for session in sample.sessions}
    for pid, size in sample.temporary.items():
        session = by_pid.get(pid)
        limit = bounds.of(session.role, session.database) if session else bounds.server
        if size <= limit.temp_bytes:
            continue
        role = session.role if session else "the server itself"
        evidence = {**(_about(session) if session else {"pid": pid}), "bytes": int(size)}
        yield Finding("temporary_files", f"{role}/{pid}",
                      "critical" if size > limit.temp_critical_bytes else "warning",
                      f"a statement of {role} has {size / _MIB:.0f} MiB of temporary files", evidence)  # fmt: skip
