"""What is unusual or dangerous on a server, from what PostgreSQL shows without any extension.

`take_sample` reads; everything behind it is pure: a sample, the one before, what is usual. A part that
could not be looked at is named in `Sample.skipped`, and never counts as fine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString

import psycopg

from datops_assets.databases.findings import Finding
from datops_assets.databases.sessions import Session, read_places, read_sessions

_MOST_LOG_BYTES = 4 * 1024**2
_POWERS: LiteralString = """
select r.rolname, array_remove(array[
       case when r.rolsuper then 'superuser' end, case when r.rolbypassrls then 'bypassrls' end,
       case when r.rolcreaterole then 'createrole' end, case when r.rolreplication then 'replication' end,
       case when r.rolcreatedb then 'createdb' end], null)
       || array(select 'in ' || g.rolname from pg_auth_members m join pg_roles g on g.oid = m.roleid
                 where m.member = r.oid order by 1)
  from pg_roles r where r.rolname !~ '^pg_'
"""
_WRAPAROUND: LiteralString = """
select datname, age(datfrozenxid)::float8 / current_setting('autovacuum_freeze_max_age')::float8 from pg_database
"""
_ARCHIVER: LiteralString = """
select failed_count, coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false),
       extract(epoch from now() - last_failed_time)::float8 from pg_stat_archiver
"""
_SLOTS: LiteralString = """
select slot_name, active, wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8
  from pg_replication_slots where not pg_is_in_recovery()
"""
_DATABASES: LiteralString = """
select datname, xact_commit, xact_rollback, deadlocks, temp_bytes from pg_stat_database where datname is not null
"""
_TABLES: LiteralString = """
select n.nspname || '.' || c.relname, n_live_tup, n_tup_del, n_tup_upd, c.relfilenode::bigint
  from pg_stat_user_tables s join pg_class c on c.oid = s.relid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname <> 'datops'
"""
_HBA: LiteralString = """
select md5(string_agg(concat(type, database, user_name, address, auth_method), ';' order by line_number))
  from pg_hba_file_rules
"""
_LOG: LiteralString = (
    "select pg_current_logfile('jsonlog'), (pg_stat_file(pg_current_logfile('jsonlog'), true)).size"
)


@dataclass(frozen=True)
class Thresholds:
    """From where on something is said, and how loudly."""

    statement_warning_s: float = 1800
    statement_critical_s: float = 3600
    in_transaction_warning_s: float = 300
    in_transaction_critical_s: float = 1800
    blocked_sessions: int = 5
    connections_share: float = 0.8
    failed_logins: int = 10
    """In the time between two samples, of one role or one client."""
    mass_share: float = 0.5
    """Of a table's rows, changed between two samples."""
    mass_rows: int = 1000
    retained_bytes: float = 1024**3
    freeze_share: float = 0.9
    copied_rows: int = 100_000
    baseline_samples: int = 30
    """Before so many samples nothing counts as unusual."""
    deviations: float = 6
    temp_bytes: float = 1024**3
    rollback_share: float = 0.5
    transactions: int = 200


@dataclass(frozen=True)
class TableCounts:
    """What the server counted of a table; `file` is another once it was truncated or rewritten."""

    rows: int
    deleted: int
    updated: int
    file: int


@dataclass(frozen=True)
class Sample:
    """A server at one moment."""

    at: datetime
    sessions: tuple[Session, ...]
    places: int
    powers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hba: str | None = None
    freeze_share: Mapping[str, float] = field(default_factory=dict)
    archive_failing_s: float | None = None
    slots: Mapping[str, tuple[bool, str | None, float]] = field(default_factory=dict)
    """Name: followed, wal_status, bytes of log kept for it."""
    counts: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)
    """Database: commits, rollbacks, deadlocks, bytes of temporary files; all since the server's start."""
    tables: Mapping[str, TableCounts] = field(default_factory=dict)
    """`database/schema.table`."""
    failed_logins: Mapping[str, int] = field(default_factory=dict)
    """`role NAME` or `client ADDRESS`: since the sample before."""
    log_place: tuple[str, int] | None = None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Baseline:
    """What is usual: a mean that forgets, and the mean distance from it."""

    samples: int = 0
    mean: float = 0.0
    deviation: float = 0.0

    def learn(self, value: float) -> Baseline:
        """With one more value. A hundred samples make the older ones small."""
        weight = max(1 / (self.samples + 1), 0.01)
        mean = self.mean + weight * (value - self.mean)
        deviation = self.deviation + weight * (abs(value - mean) - self.deviation)
        return Baseline(self.samples + 1, mean, deviation)

    def is_unusual(self, value: float, floor: float, thresholds: Thresholds) -> bool:
        """Far above what is usual, and above `floor`, below which nobody is to be woken."""
        usual = self.mean + thresholds.deviations * max(self.deviation, self.mean * 0.05)
        return self.samples >= thresholds.baseline_samples and value > max(usual, floor)


def take_sample(
    conn: psycopg.Connection[Any],
    databases: Mapping[str, psycopg.Connection[Any]],
    before: tuple[str, int] | None = None,
) -> Sample:
    """Look at a server.

    databases    connections into the databases whose tables are watched
    before       how far the log was read by the sample before; None: what is in it now is old
    """
    skipped: list[str] = []

    def ask(what: str, query: LiteralString) -> list[tuple[Any, ...]]:
        try:
            with conn.transaction():
                return conn.execute(query).fetchall()
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.UndefinedFunction,
            psycopg.errors.UndefinedFile,
        ):
            skipped.append(what)
            return []

    tables = {
        f"{name}/{row[0]}": TableCounts(*row[1:])
        for name, one in databases.items()
        for row in one.execute(_TABLES)
    }
    archiver = ask("archiver", _ARCHIVER)
    failed, place = _failed_logins(conn, before, skipped)
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return Sample(
        at=row[0],
        sessions=tuple(read_sessions(conn)),
        places=read_places(conn),
        powers={name: tuple(powers) for name, powers in ask("roles", _POWERS)},
        hba=next((one[0] for one in ask("pg_hba.conf", _HBA)), None),
        freeze_share=dict(ask("wraparound", _WRAPAROUND)),
        archive_failing_s=archiver[0][2] if archiver and archiver[0][1] else None,
        slots={one[0]: (one[1], one[2], one[3] or 0.0) for one in ask("slots", _SLOTS)},
        counts={one[0]: (one[1], one[2], one[3], one[4]) for one in ask("databases", _DATABASES)},
        tables=tables,
        failed_logins=failed,
        log_place=place,
        skipped=tuple(skipped),
    )


def _failed_logins(
    conn: psycopg.Connection[Any], before: tuple[str, int] | None, skipped: list[str]
) -> tuple[Counter[str], tuple[str, int] | None]:
    """Count the logins that failed by the server's JSON log, from where the last sample stopped."""
    found: Counter[str] = Counter()
    try:
        with conn.transaction():
            row = conn.execute(_LOG).fetchone()
    except psycopg.Error:
        row = None
    if row is None or row[0] is None or row[1] is None:
        skipped.append("failed logins: the server writes no JSON log that we can read")
        return found, None
    file, size = str(row[0]), int(row[1])
    start = before[1] if before and before[0] == file and before[1] <= size else (0 if before else size)
    start = max(start, size - _MOST_LOG_BYTES)
    read: LiteralString = "select pg_read_binary_file(%s, %s, %s, true)"
    text = conn.execute(read, (file, start, size - start)).fetchone()
    content = bytes(text[0]) if text and text[0] else b""
    whole = content.rfind(b"\n") + 1
    for line in content[:whole].splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("state_code") in ("28P01", "28000"):
            found[f"role {entry.get('user', '?')}"] += 1
            found[f"client {entry.get('remote_host', '?')}"] += 1
    return found, (file, start + whole)


def judge(
    sample: Sample,
    before: Sample | None,
    baselines: Mapping[tuple[str, str], Baseline],
    thresholds: Thresholds = Thresholds(),
    expected: frozenset[str] = frozenset(),
) -> list[Finding]:
    """Everything there is to say about a sample. `expected` are roles that may copy whole tables out."""
    found = [
        *_sessions(sample, thresholds),
        *_connections(sample, baselines, thresholds),
        *_copies(sample, thresholds, expected),
        *_logins(sample, thresholds),
        *_server(sample, thresholds),
    ]
    if before is not None:
        found += [
            *_powers(sample, before),
            *_tables(sample, before, thresholds),
            *_counts(sample, before, thresholds),
        ]
    return list({(one.kind, one.subject): one for one in found}.values())


def learn(
    sample: Sample, baselines: Mapping[tuple[str, str], Baseline], thresholds: Thresholds
) -> dict[tuple[str, str], Baseline]:
    """The baselines with this sample in them; what is unusual teaches nothing, or an attack became usual."""
    known = {key: (baselines.get(key, Baseline()), value) for key, value in measures(sample).items()}
    return {
        key: usual.learn(value)
        for key, (usual, value) in known.items()
        if not usual.is_unusual(value, 10, thresholds)
    }


def measures(sample: Sample) -> dict[tuple[str, str], float]:
    """What is compared with what is usual: (role, measure)."""
    return {(role, "connections"): float(count) for role, count in _per_role(sample).items()}


def _per_role(sample: Sample) -> Counter[str]:
    return Counter(session.role for session in sample.sessions)


def _sessions(sample: Sample, limit: Thresholds) -> Iterator[Finding]:
    for session in sample.sessions:
        about = {"pid": session.pid, "role": session.role, "database": session.database, "client": session.client,
                 "application": session.application}  # fmt: skip
        subject = f"{session.role}/{session.pid}"
        age = session.statement_s if session.is_active else None
        if age is not None and age > limit.statement_warning_s:
            bad = age > limit.statement_critical_s
            yield Finding("long_statement", subject, "critical" if bad else "warning",
                          f"a statement of {session.role} has run for {age:.0f} s", about)  # fmt: skip
        idle = session.in_state_s if session.is_in_transaction else None
        if idle is not None and idle > limit.in_transaction_warning_s:
            bad = idle > limit.in_transaction_critical_s
            yield Finding("idle_in_transaction", subject, "critical" if bad else "warning",
                          f"{session.role} has done nothing inside a transaction for {idle:.0f} s", about)  # fmt: skip
        if session.blocks > limit.blocked_sessions:
            yield Finding("lock_queue", subject, "critical",
                          f"{session.blocks} sessions wait for {session.role}", about)  # fmt: skip


def _connections(
    sample: Sample, baselines: Mapping[tuple[str, str], Baseline], limit: Thresholds
) -> Iterator[Finding]:
    taken, per_role = len(sample.sessions), _per_role(sample)
    if taken > limit.connections_share * sample.places:
        evidence = {"taken": taken, "places": sample.places, "by role": dict(per_role.most_common(5))}
        yield Finding(
            "connections", "server", "critical", f"{taken} of {sample.places} connections are taken", evidence
        )
    for role, count in per_role.items():
        usual = baselines.get((role, "connections"), Baseline())
        if usual.is_unusual(count, 10, limit):
            evidence = {"connections": count, "usual": round(usual.mean, 1), "samples": usual.samples}
            yield Finding("connection_storm", role, "warning",
                          f"{role} has {count} connections, usual are {usual.mean:.0f}", evidence)  # fmt: skip


def _copies(sample: Sample, limit: Thresholds, expected: frozenset[str]) -> Iterator[Finding]:
    for session in sample.sessions:
        if session.copied_rows > limit.copied_rows and session.role not in expected:
            evidence = {"rows": session.copied_rows, "bytes": session.copied_bytes, "client": session.client,
                        "application": session.application, "database": session.database}  # fmt: skip
            yield Finding("exfiltration", session.role, "critical",
                          f"{session.role} copies rows out: {session.copied_rows} so far", evidence)  # fmt: skip


def _logins(sample: Sample, limit: Thresholds) -> Iterator[Finding]:
    for who, count in sample.failed_logins.items():
        if count >= limit.failed_logins:
            yield Finding(
                "brute_force", who, "critical", f"{count} logins of {who} failed", {"failed": count}
            )


def _server(sample: Sample, limit: Thresholds) -> Iterator[Finding]:
    for name, share in sample.freeze_share.items():
        if share > limit.freeze_share:
            evidence: dict[str, Any] = {"of autovacuum_freeze_max_age": round(share, 2)}
            yield Finding("wraparound", name, "critical" if share > 2 else "warning",
                          f"{name} has to be vacuumed against wraparound", evidence)  # fmt: skip
    if sample.archive_failing_s is not None:
        yield Finding("archive", "server", "critical", "the log is not archived any more; it will fill the disk",
                      {"failed seconds ago": round(sample.archive_failing_s)})  # fmt: skip
    for name, (followed, status, retained) in sample.slots.items():
        evidence = {"wal_status": status, "retained_bytes": retained, "followed": followed}
        if status in ("unreserved", "lost"):
            yield Finding("slot", name, "critical", f"slot {name} is {status}", evidence)
        elif retained > limit.retained_bytes:
            words = f"slot {name} keeps {retained / 1024**2:.0f} MiB of log"
            yield Finding("slot", name, "warning" if followed else "critical", words, evidence)


def _powers(sample: Sample, before: Sample) -> Iterator[Finding]:
    """Roles that can do more than before. Event triggers do not see these statements."""
    if not before.powers or not sample.powers:
        return
    for role, powers in sample.powers.items():
        gained = set(powers) - set(before.powers.get(role, ()))
        strong = gained & {"superuser", "bypassrls", "createrole", "replication"} or {
            name for name in gained if name.startswith("in pg_")
        }
        if gained:
            yield Finding("privilege", role, "critical" if strong else "warning",
                          f"{role} can do more than before: {', '.join(sorted(gained))}",
                          {"gained": sorted(gained), "new role": role not in before.powers})  # fmt: skip
    if sample.hba != before.hba and sample.hba and before.hba:
        yield Finding("privilege", "pg_hba.conf", "critical", "who may connect how has changed (pg_hba.conf)")


def _tables(sample: Sample, before: Sample, limit: Thresholds) -> Iterator[Finding]:
    for name, was in before.tables.items():
        now = sample.tables.get(name)
        if was.rows < limit.mass_rows:
            continue
        evidence: dict[str, Any] = {"rows before": was.rows}
        if now is None:
            yield Finding("mass_change", name, "critical", f"{name} is gone, with {was.rows} rows", evidence)
            continue
        changed = {"deleted": now.deleted - was.deleted, "updated": now.updated - was.updated}
        if now.file != was.file and now.rows < was.rows * (1 - limit.mass_share):
            yield Finding("mass_change", name, "critical", f"{name} was emptied of {was.rows} rows", evidence)
        elif max(changed.values()) > limit.mass_share * was.rows:
            word = max(changed, key=lambda key: changed[key])
            yield Finding("mass_change", name, "critical" if word == "deleted" else "warning",
                          f"{changed[word]} rows of {name} were {word}, of {was.rows}",
                          {**evidence, **changed})  # fmt: skip


def _counts(sample: Sample, before: Sample, limit: Thresholds) -> Iterator[Finding]:
    for name, now in sample.counts.items():
        was = before.counts.get(name)
        if was is None:
            continue
        commits, rollbacks, deadlocks, temp = (b - a for a, b in zip(was, now, strict=True))
        if temp > limit.temp_bytes:
            yield Finding("temporary_files", name, "warning",
                          f"{name} wrote {temp / 1024**2:.0f} MiB of temporary files",
                          {"bytes": temp})  # fmt: skip
        if rollbacks > limit.transactions and rollbacks > limit.rollback_share * (commits + rollbacks):
            yield Finding("rollbacks", name, "warning", f"{rollbacks} transactions of {name} were rolled back",
                          {"commits": commits, "rollbacks": rollbacks, "deadlocks": deadlocks})  # fmt: skip
