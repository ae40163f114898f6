"""One look at a server: the watchdog acts, detection compares with the look before, findings are kept.

What a look remembers is in the warehouse: a process that starts anew goes on where the one before ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from datops_assets.databases.actual import Connect
from datops_assets.databases.desired import TeamDatabase
from datops_assets.databases.detect import (
    Baseline,
    Bounds,
    Burst,
    Familiar,
    LogSeen,
    Sample,
    Size,
    TableCounts,
    Thresholds,
    judge,
    learn,
    take_sample,
)
from datops_assets.databases.detect.sample import Counts
from datops_assets.databases.findings import Changes, Finding, enter
from datops_assets.databases.watchdog import Intervention, Patience, watch_once

_KEEP: LiteralString = """
insert into datops.watched (server, memory, taken_at) values (%s, %s, %s)
on conflict (server) do update set memory = excluded.memory, taken_at = excluded.taken_at
"""
_LEARN: LiteralString = """
insert into datops.baselines (server, subject, measure, since, seen_at, samples, mean, deviation)
values (%s, %s, %s, %s, %s, %s, %s, %s)
on conflict (server, subject, measure) do update
   set seen_at = excluded.seen_at, samples = excluded.samples, mean = excluded.mean, deviation = excluded.deviation
"""
_LEARNED: LiteralString = """
select subject, measure, since, seen_at, samples, mean, deviation from datops.baselines where server = %s
"""
_MEET: LiteralString = """
insert into datops.familiar (server, role, trait, value, first_seen) values (%s, %s, %s, %s, %s) on conflict do nothing
"""
_KNOWN: LiteralString = "select role, trait, value, first_seen from datops.familiar where server = %s"


@dataclass(frozen=True)
class Look:
    """What one look did and found."""

    interventions: tuple[Intervention, ...]
    changes: Changes
    skipped: tuple[str, ...]
    """What could not be looked at; nothing is known of it."""
    without: tuple[str, ...] = ()
    """What would be looked at with an extension that is not there."""


def look(
    connect: Connect,
    catalogue: psycopg.Connection[Any],
    server: str,
    databases: Sequence[TeamDatabase],
    thresholds: Thresholds | None = None,
    patience: Patience | None = None,
) -> Look:
    """Look at a server once: act on its sessions, compare with the look before, enter the findings.

    server     its name in our tables
    databases  whose logins are held to their limits, and whose tables are watched
    thresholds for what is no team's, and where a team's document says nothing
    raises     WarehouseError: the server does not let us in
    """
    bounds = _bounds(databases, thresholds or Thresholds())
    limits = bounds.server
    before = _remember(catalogue, server)
    with ExitStack() as stack:
        conn = stack.enter_context(closing(connect(None)))
        done = watch_once(conn, catalogue, server, databases, patience or Patience())
        present = {row[0] for row in conn.execute("select datname from pg_database where datallowconn")}
        names = sorted({one.database for one in databases} & present)
        inside = {name: stack.enter_context(closing(connect(name))) for name in names}
        log = before.log if before else None
        sample = take_sample(
            conn, inside, log.place if log else None, log.bursts if log else None, limits.burst_s
        )
        administrator = conn.info.user
    sample = replace(
        sample,
        logins=_logins(databases),
        tables=_with_age(sample, before),
        sizes=_with_hour(sample, before, limits.growth_s),
    )
    baselines, familiar = _baselines(catalogue, server), _familiar(catalogue, server)
    exporters = frozenset({administrator, *_exporters(databases)})
    found = judge(sample, before, baselines, familiar, bounds, exporters)
    changes = enter(
        catalogue, server, [_with_team(one, databases) for one in found],
        unseen=sample.unseen, linger_s=limits.linger_s, escalate_s=limits.escalate_s,
    )  # fmt: skip
    _keep(catalogue, server, sample, learn(sample, before, baselines, bounds), familiar)
    return Look(tuple(done), changes, sample.skipped, sample.without)


def _bounds(databases: Sequence[TeamDatabase], server: Thresholds) -> Bounds:
    own: dict[str, Thresholds] = {}
    for one in databases:
        if one.thresholds:
            names = (*_logins([one]).keys(), *_logins([one]).values(), *([one.database] if one.whole else []))
            own |= dict.fromkeys(names, server.but(one.thresholds))
    return Bounds(server, own)


def _logins(databases: Sequence[TeamDatabase]) -> dict[str, str]:
    return {
        role: f"{one.name}_{login.name}"
        for one in databases
        for login in one.logins
        for role in one.pair(login)
    }


def _exporters(databases: Sequence[TeamDatabase]) -> set[str]:
    return {role for one in databases for login in one.logins if login.exports for role in one.pair(login)}


def _with_team(finding: Finding, databases: Sequence[TeamDatabase]) -> Finding:
    """Whose it is, by the role or the database that it is about."""
    about = {finding.subject.split("/")[0].split(" ")[0], finding.subject.removeprefix("role ")}
    for one in databases:
        theirs = {*one.roles(), *_logins([one]).values(), *([one.database] if one.whole else [])}
        if about & theirs:
            return replace(finding, team=one.team)
    return finding


def _with_age(sample: Sample, before: Sample | None) -> dict[str, TableCounts]:
    """The tables, each with when it was first looked at; one that was there at the first look is old."""
    known: dict[tuple[str, int | str], float] = {}
    for name, one in (
        before.tables.items() if before else ()
    ):  # renamed, or another in the place of it: the same to people
        known |= dict.fromkeys([(name.split("/")[0], one.oid), (name.split("/")[0], name)], one.since)
    aged = {}
    for name, one in sample.tables.items():
        database = name.split("/")[0]
        since = one.since if before and database in before.grants else 0.0
        since = known.get((database, one.oid), known.get((database, name), since))
        aged[name] = replace(one, since=since)
    return aged


def _with_hour(sample: Sample, before: Sample | None, longest_s: float) -> dict[str, Size]:
    """The sizes, each beside what it was when its hour began; a new hour begins with the size of now."""
    sizes = dict(sample.sizes)
    for name, was in before.sizes.items() if before else ():
        if name in sizes and sample.at.timestamp() - was.begun_at < longest_s:
            sizes[name] = replace(was, bytes=sizes[name].bytes)
    return sizes


def _remember(catalogue: psycopg.Connection[Any], server: str) -> Sample | None:
    row = catalogue.execute(
        "select memory, taken_at from datops.watched where server = %s", (server,)
    ).fetchone()
    if row is None or "sizes" not in row[0]:  # never looked, or by a release that remembered other things
        return None
    memory: dict[str, Any] = row[0]
    at: datetime = row[1]
    return Sample(
        at=at,
        sessions=(),
        places=0,
        powers={name: tuple(powers) for name, powers in memory["powers"].items()},
        hba=memory["hba"],
        settings=memory["settings"],
        counts={name: Counts(*value) for name, value in memory["counts"].items()},
        tables={name: TableCounts(*value) for name, value in memory["tables"].items()},
        grants={name: frozenset(lines) for name, lines in memory["grants"].items()},
        sizes={name: Size(*value) for name, value in memory["sizes"].items()},
        selected=memory["selected"],
        log=LogSeen(
            place=(memory["log"][0], memory["log"][1]),
            bursts={
                (role, client): Burst(count, datetime.fromisoformat(first), datetime.fromisoformat(last))
                for role, client, count, first, last in memory["bursts"]
            },
        )
        if memory["log"]
        else None,
    )


def _keep(
    catalogue: psycopg.Connection[Any],
    server: str,
    sample: Sample,
    baselines: Mapping[tuple[str, str], Baseline],
    familiar: Familiar,
) -> None:
    log = sample.log
    memory = {
        "powers": {name: list(powers) for name, powers in sample.powers.items()},
        "hba": sample.hba,
        "settings": dict(sample.settings),
        "counts": {name: astuple(value) for name, value in sample.counts.items()},
        "tables": {name: astuple(value) for name, value in sample.tables.items()},
        "grants": {name: sorted(lines) for name, lines in sample.grants.items()},
        "sizes": {name: astuple(value) for name, value in sample.sizes.items()},
        "selected": None if sample.selected is None else dict(sample.selected),
        "log": log.place if log else None,
        "bursts": [
            (*who, one.count, one.first.isoformat(), one.last.isoformat()) for who, one in log.bursts.items()
        ]
        if log
        else [],
    }
    with catalogue.transaction(), catalogue.cursor() as cursor:
        cursor.execute(_KEEP, (server, Jsonb(memory), sample.at))
        cursor.executemany(_LEARN, [(server, *key, *astuple(one)) for key, one in baselines.items()])
        cursor.executemany(_MEET, [(server, *one, sample.at) for one in familiar.unknown(sample)])


def _baselines(catalogue: psycopg.Connection[Any], server: str) -> dict[tuple[str, str], Baseline]:
    return {(row[0], row[1]): Baseline(*row[2:]) for row in catalogue.execute(_LEARNED, (server,))}


def _familiar(catalogue: psycopg.Connection[Any], server: str) -> Familiar:
    found: dict[tuple[str, Any], dict[str, datetime]] = {}
    for role, trait, value, first_seen in catalogue.execute(_KNOWN, (server,)):
        found.setdefault((role, trait), {})[value] = first_seen
    return Familiar(found)
