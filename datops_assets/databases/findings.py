"""Findings: what was seen, how bad it is, the evidence, and when it was over. Kept in `datops.findings`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, LiteralString

import psycopg

Severity = Literal["info", "warning", "critical"]

_SEEN: LiteralString = """
insert into datops.findings as f
       (server, kind, subject, team, severity, summary, evidence, first_seen, last_seen, changed_at)
values (%(server)s, %(kind)s, %(subject)s, %(team)s, %(severity)s, %(summary)s, %(evidence)s, now(), now(), now())
on conflict (server, kind, subject) where resolved_at is null do update
   set severity = case when excluded.severity = 'warning' and f.kind = any(%(load)s)
                            and f.first_seen < now() - make_interval(secs => %(escalate_s)s) then 'critical'
                       else excluded.severity end,
       team = excluded.team, summary = excluded.summary, evidence = excluded.evidence, last_seen = now()
returning first_seen = last_seen, severity
"""
_RESOLVE: LiteralString = """
update datops.findings set resolved_at = now(), changed_at = now()
 where server = %(server)s and resolved_at is null and not kind = any(%(unseen)s)
   and not ((kind, subject) in (select * from unnest(%(kinds)s::text[], %(subjects)s::text[])))
   and last_seen < now() - case when kind = any(%(events)s) then make_interval(secs => %(linger_s)s)
                                else interval '0' end
returning kind, subject, severity, summary, evidence, team
"""
_CHANGED: LiteralString = """
update datops.findings set changed_at = now(), told_severity = severity
 where server = %(server)s and resolved_at is null and severity is distinct from told_severity
"""
LOAD = ("connection_storm", "statement_flood", "temporary_files", "rollbacks", "deadlocks")
"""Kinds that are a warning while they pass and critical once they stay."""
EVENTS = (
    "brute_force", "break_in", "denied", "refused_connections", "new_client", "new_application", "mass_change",
    "privilege", "grant", "hba", "setting", "exfiltration", "exfiltration_select",
    "bulk_read", "off_hours", "new_statement", "growth", *LOAD,
)  # fmt: skip
"""Kinds that happen and are over, where others last; they count as resolved a while after they were seen last."""


@dataclass(frozen=True)
class Finding:
    """One thing that was seen. (kind, subject) says which; seen again, it is the same one."""

    kind: str
    subject: str
    severity: Severity
    summary: str
    evidence: dict[str, Any] = field(default_factory=dict)
    team: str = ""
    """Whose database or role it is about; empty: the server's."""


@dataclass(frozen=True)
class Changes:
    """Findings that are new, and those that are over."""

    new: tuple[Finding, ...]
    resolved: tuple[Finding, ...]


def enter(
    conn: psycopg.Connection[Any],
    server: str,
    found: Sequence[Finding],
    *,
    unseen: Collection[str] = (),
    linger_s: float = 900,
    escalate_s: float = 3600,
) -> Changes:
    """Keep what was found; what is not found any more is resolved. One transaction.

    unseen      kinds that could not be looked at: what is open of them stays open
    linger_s    how long after it was seen last an event counts as over
    escalate_s  a warning about load that has been open for longer becomes critical
    """
    from psycopg.types.json import Jsonb

    new = []
    with conn.transaction():
        for one in found:
            row = {"server": server, "kind": one.kind, "subject": one.subject, "team": one.team,
                   "severity": one.severity, "summary": one.summary, "evidence": Jsonb(one.evidence),
                   "load": list(LOAD), "escalate_s": escalate_s}  # fmt: skip
            if conn.execute(_SEEN, row).fetchone() == (True, one.severity):
                new.append(one)
        about = {
            "server": server, "kinds": [one.kind for one in found], "subjects": [one.subject for one in found],
            "events": list(EVENTS), "unseen": list(unseen), "linger_s": linger_s,
        }  # fmt: skip
        resolved = tuple(Finding(*row) for row in conn.execute(_RESOLVE, about))
        conn.execute(_CHANGED, about)
    return Changes(tuple(new), resolved)
