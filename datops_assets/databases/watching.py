"""One look at a server: the watchdog acts, detection compares with the look before, findings are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from datops_assets.databases.actual import Connect
from datops_assets.databases.desired import TeamDatabase
from datops_assets.databases.detect import (
    Baseline,
    Sample,
    TableCounts,
    Thresholds,
    judge,
    learn,
    take_sample,
)
from datops_assets.databases.findings import Changes, enter
from datops_assets.databases.watchdog import Intervention, watch_once

_KEEP: LiteralString = """
insert into datops.watched (server, memory, taken_at) values (%s, %s, %s)
on conflict (server) do update set memory = excluded.memory, taken_at = excluded.taken_at
"""
_LEARN: LiteralString = """
insert into datops.baselines (server, subject, measure, samples, mean, deviation) values (%s, %s, %s, %s, %s, %s)
on conflict (server, subject, measure) do update
   set samples = excluded.samples, mean = excluded.mean, deviation = excluded.deviation
"""


@dataclass(frozen=True)
class Look:
    """What one look did and found."""

    interventions: tuple[Intervention, ...]
    changes: Changes
    skipped: tuple[str, ...]
    """What could not be looked at; nothing is known of it."""


def look(
    connect: Connect,
    catalogue: psycopg.Connection[Any],
    server: str,
    databases: Sequence[TeamDatabase],
    thresholds: Thresholds | None = None,
    expected: frozenset[str] = frozenset(),
) -> Look:
    """Look at a server once: act on its sessions, compare with the look before, enter the findings.

    server     its name in our tables
    databases  whose logins are held to their limits, and whose tables are watched
    raises     WarehouseError: the server does not let us in
    """
    limits = thresholds or Thresholds()
    before = _remember(catalogue, server)
    with ExitStack() as stack:
        conn = stack.enter_context(closing(connect(None)))
        done = watch_once(conn, catalogue, server, databases)
        present = {row[0] for row in conn.execute("select datname from pg_database where datallowconn")}
        names = sorted({one.database for one in databases} & present)
        inside = {name: stack.enter_context(closing(connect(name))) for name in names}
        sample = take_sample(conn, inside, before.log_place if before else None)
    baselines = _baselines(catalogue, server)
    changes = enter(catalogue, server, judge(sample, before, baselines, limits, expected))
    _keep(catalogue, server, sample, learn(sample, baselines, limits))
    return Look(tuple(done), changes, sample.skipped)


def _remember(catalogue: psycopg.Connection[Any], server: str) -> Sample | None:
    row = catalogue.execute(
        "select memory, taken_at from datops.watched where server = %s", (server,)
    ).fetchone()
    if row is None:
        return None
    memory: dict[str, Any] = row[0]
    at: datetime = row[1]
    return Sample(
        at=at,
        sessions=(),
        places=0,
        powers={name: tuple(powers) for name, powers in memory["powers"].items()},
        hba=memory["hba"],
        counts={name: (v[0], v[1], v[2], v[3]) for name, v in memory["counts"].items()},
        tables={name: TableCounts(*value) for name, value in memory["tables"].items()},
        log_place=(memory["log"][0], memory["log"][1]) if memory["log"] else None,
    )


def _keep(
    catalogue: psycopg.Connection[Any],
    server: str,
    sample: Sample,
    baselines: Mapping[tuple[str, str], Baseline],
) -> None:
    memory = {
        "powers": {name: list(powers) for name, powers in sample.powers.items()},
        "hba": sample.hba,
        "counts": {name: list(value) for name, value in sample.counts.items()},
        "tables": {
            name: [one.rows, one.deleted, one.updated, one.file] for name, one in sample.tables.items()
        },
        "log": list(sample.log_place) if sample.log_place else None,
    }
    with catalogue.transaction(), catalogue.cursor() as cursor:
        cursor.execute(_KEEP, (server, Jsonb(memory), sample.at))
        rows = [(server, *key, one.samples, one.mean, one.deviation) for key, one in baselines.items()]
        cursor.executemany(_LEARN, rows)


def _baselines(catalogue: psycopg.Connection[Any], server: str) -> dict[tuple[str, str], Baseline]:
    query: LiteralString = (
        "select subject, measure, samples, mean, deviation from datops.baselines where server = %s"
    )
    return {(row[0], row[1]): Baseline(*row[2:]) for row in catalogue.execute(query, (server,))}
