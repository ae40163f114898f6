"""Findings: what was seen, how bad it is, the evidence, and when it was over. Kept in `datops.findings`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, LiteralString

import psycopg

Severity = Literal["info", "warning", "critical"]

_SEEN: LiteralString = """
insert into datops.findings (server, kind, subject, severity, summary, evidence, first_seen, last_seen)
values (%(server)s, %(kind)s, %(subject)s, %(severity)s, %(summary)s, %(evidence)s, now(), now())
on conflict (server, kind, subject) where resolved_at is null do update
   set severity = excluded.severity, summary = excluded.summary, evidence = excluded.evidence, last_seen = now()
returning first_seen = last_seen
"""
_RESOLVE: LiteralString = """
update datops.findings set resolved_at = now()
 where server = %(server)s and resolved_at is null
   and not ((kind, subject) in (select * from unnest(%(kinds)s::text[], %(subjects)s::text[])))
   and last_seen < now() - case when kind = any(%(events)s) then interval '15 minutes' else interval '0' end
returning kind, subject, severity, summary, evidence
"""
EVENTS = ("brute_force", "mass_change", "privilege", "exfiltration", "rollbacks")
"""Kinds that happen and are over, where others last; they count as resolved a while after they were seen last."""


@dataclass(frozen=True)
class Finding:
    """One thing that was seen. (kind, subject) says which; seen again, it is the same one."""

    kind: str
    subject: str
    severity: Severity
    summary: str
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """Findings that are new, and those that are over."""

    new: tuple[Finding, ...]
    resolved: tuple[Finding, ...]


def enter(conn: psycopg.Connection[Any], server: str, found: Sequence[Finding]) -> Changes:
    """Keep what was found; what is not found any more is resolved. One transaction."""
    from psycopg.types.json import Jsonb

    new = []
    with conn.transaction():
        for one in found:
            row = {"server": server, "kind": one.kind, "subject": one.subject, "severity": one.severity,
                   "summary": one.summary, "evidence": Jsonb(one.evidence)}  # fmt: skip
            if conn.execute(_SEEN, row).fetchone() == (True,):
                new.append(one)
        about = {
            "server": server, "kinds": [one.kind for one in found], "subjects": [one.subject for one in found],
            "events": list(EVENTS),
        }  # fmt: skip
        resolved = tuple(Finding(*row) for row in conn.execute(_RESOLVE, about))
    return Changes(tuple(new), resolved)
