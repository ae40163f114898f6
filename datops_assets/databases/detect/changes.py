"""What is other than at the look before: rights, settings, whole tables. Event triggers see none of it whole. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from datops_assets.databases.detect.sample import Sample, TableCounts
from datops_assets.databases.detect.thresholds import Bounds, Thresholds
from datops_assets.databases.findings import Finding

_STRONG = frozenset({"superuser", "bypassrls", "createrole", "replication"})
_GUARDS = frozenset({
    "allow_system_table_mods", "archive_command", "archive_library", "archive_mode", "fsync", "full_page_writes",
    "hba_file", "ident_file", "listen_addresses", "local_preload_libraries", "log_connections", "log_destination",
    "logging_collector", "password_encryption", "row_security", "session_preload_libraries",
    "shared_preload_libraries", "ssl", "ssl_min_protocol_version", "wal_level",
})  # fmt: skip
"""Settings whose change lets somebody in, hides something, or loses data."""


def judge_changes(sample: Sample, before: Sample, bounds: Bounds) -> Iterator[Finding]:
    """Findings about what changed since the look before."""
    yield from _powers(sample, before)
    yield from _grants(sample, before)
    yield from _settings(sample, before)
    by_oid = {(_database(name), one.oid): one for name, one in sample.tables.items()}
    watched = {_database(name) for name in sample.tables} | set(sample.grants)
    for name, was in before.tables.items():
        limit = bounds.of(_database(name))
        if was.rows >= limit.mass_rows and _database(name) in watched:
            renamed = by_oid.get((_database(name), was.oid))
            yield from _table(name, was, sample.tables.get(name) or renamed, sample, limit)


def _powers(sample: Sample, before: Sample) -> Iterator[Finding]:
    """Roles that can do more than before."""
    if not before.powers or not sample.powers:
        return
    for role, powers in sample.powers.items():
        gained = set(powers) - set(before.powers.get(role, ()))
        strong = gained & _STRONG or {name for name in gained if name.startswith("in pg_")}
        if gained:
            yield Finding("privilege", role, "critical" if strong else "warning",
                          f"{role} can do more than before: {', '.join(sorted(gained))}",
                          {"gained": sorted(gained), "new role": role not in before.powers})  # fmt: skip


def _grants(sample: Sample, before: Sample) -> Iterator[Finding]:
    """What nobody in a database was allowed to do before; drift says of each declared object more."""
    for name, now in sample.grants.items():
        gained = sorted(now - before.grants.get(name, now))
        public = [one for one in gained if one.endswith(" to PUBLIC")]
        if gained:
            words = f"there are other rights in {name}: {'; '.join(gained[:5])}"
            yield Finding("grant", name, "critical" if public else "warning", words, {"gained": gained[:20]})


def _settings(sample: Sample, before: Sample) -> Iterator[Finding]:
    if sample.hba != before.hba and sample.hba and before.hba:
        yield Finding("hba", "pg_hba.conf", "critical", "who may connect how has changed (pg_hba.conf)")
    if not sample.settings or not before.settings:
        return
    changed = {
        name
        for name in sample.settings.keys() | before.settings.keys()
        if sample.settings.get(name) != before.settings.get(name)
    }
    for name in sorted(changed):
        evidence = {"before": _shown(before.settings, name), "now": _shown(sample.settings, name)}
        yield Finding("setting", name, "critical" if name in _GUARDS else "warning",
                      f"the server's {name} has changed", evidence)  # fmt: skip


def _shown(settings: Mapping[str, str], name: str) -> str:
    """Numbers and switches; a text may hold a secret, and is here as a hash only."""
    value = settings.get(name, "not set")
    return "a text" if len(value) == 32 else value


def _table(
    name: str, was: TableCounts, now: TableCounts | None, sample: Sample, limit: Thresholds
) -> Iterator[Finding]:
    evidence: dict[str, Any] = {"rows before": was.rows}
    young = sample.at.timestamp() - was.since < limit.young_table_s
    if now is None:
        mild = young or was.partition
        evidence |= {
            "partition": was.partition,
            "days watched": round((sample.at.timestamp() - was.since) / 86400, 1),
        }
        yield Finding("mass_change", name, "warning" if mild else "critical",
                      f"{name} is gone, with {was.rows} rows", evidence)  # fmt: skip
        return
    changed = {"deleted": now.deleted - was.deleted, "updated": now.updated - was.updated}
    if now.file != was.file and now.rows < was.rows * (1 - limit.mass_share):
        yield Finding("mass_change", name, "warning" if young else "critical",
                      f"{name} was emptied of {was.rows} rows", evidence)  # fmt: skip
    elif max(changed.values()) > limit.mass_share * was.rows:
        word = max(changed, key=lambda key: changed[key])
        bad = word == "deleted" and not young
        yield Finding("mass_change", name, "critical" if bad else "warning",
                      f"{changed[word]} rows of {name} were {word}, of {was.rows}",
                      {**evidence, **changed})  # fmt: skip


def _database(name: str) -> str:
    return name.split("/", maxsplit=1)[0]
