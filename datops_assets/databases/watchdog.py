"""Holds limits that a session can lift itself: cancels a statement, then ends the session, and writes down why.

Only logins that a document declares are touched. Deciding is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, LiteralString

import psycopg

from datops_assets.databases.desired import Limits, TeamDatabase
from datops_assets.databases.sessions import Session, read_places, read_sessions


@dataclass(frozen=True)
class Patience:
    """How long the watchdog waits, and how much room it keeps."""

    slack_s: float = 2.0
    """Past a limit: the server's own timeouts come first, their sentence is the better one."""
    cancelled_s: float = 10.0
    """How long a cancelled statement may take to end."""
    kept_free: int = 5
    """Places that are kept for others, besides those that PostgreSQL reserves."""


_ACT: dict[str, LiteralString] = {
    # Once more by its start: the number may be another's by now.
    "cancel": "select pg_cancel_backend(pid) from pg_stat_activity where pid = %s and backend_start = %s",
    "terminate": "select pg_terminate_backend(pid) from pg_stat_activity where pid = %s and backend_start = %s",
}
_CANCELLED: LiteralString = """
select pid, backend_start, min(done_at), extract(epoch from clock_timestamp() - min(done_at))::float8
  from datops.interventions
 where server = %s and action = 'cancel' and done_at > clock_timestamp() - interval '1 hour' group by 1, 2
"""
_ENTER: LiteralString = """
insert into datops.interventions (server, database, role, pid, backend_start, action, reason, reached)
values (%s, %s, %s, %s, %s, %s, %s, %s)
"""


@dataclass(frozen=True)
class Intervention:
    """One session, what is done to it, and why."""

    session: Session
    action: Literal["cancel", "terminate"]
    reason: str


def limits_of(databases: Sequence[TeamDatabase]) -> dict[str, Limits]:
    """The limits of every role that logs in."""
    return {
        role: login.limits
        for database in databases
        for login in database.logins
        if not login.absent and not database.absent
        for role in database.pair(login)
    }


def decide(
    sessions: Sequence[Session],
    limits: Mapping[str, Limits],
    cancelled_s: Mapping[tuple[int, datetime], float],
    places: int,
    patience: Patience = Patience(),
) -> list[Intervention]:
    """What is to be done about which session.

    cancelled_s    seconds since a statement of a session was cancelled, by `Session.key`
    places         connections that the server has for those who are no superusers
    promise        a role that is not in `limits` is never touched; each session at most once
    """
    found = {one.session.key: one for one in _over(sessions, limits, cancelled_s, patience)}
    rest = [session for session in sessions if session.key not in found]
    found |= {one.session.key: one for one in _make_room(rest, limits, places, patience.kept_free)}
    return list(found.values())


def _over(
    sessions: Sequence[Session],
    limits: Mapping[str, Limits],
    cancelled_s: Mapping[tuple[int, datetime], float],
    patience: Patience,
) -> Iterator[Intervention]:
    for session in sessions:
        limit = limits.get(session.role)
        if limit is None:
            continue
        idle = _idle(session, limit, patience.slack_s)
        if idle is not None:
            yield Intervention(session, "terminate", idle)
            continue
        busy = _busy(session, limit, patience.slack_s)
        if busy is None:
            continue
        since = cancelled_s.get(session.key)
        # A cancel before this statement began was about another one.
        if since is None or since >= (session.statement_s or 0.0):
            yield Intervention(session, "cancel", busy)
        elif since > patience.cancelled_s:
            yield Intervention(
                session, "terminate", f"{busy}, and goes on {since:.0f} s after it was cancelled"
            )


def _idle(session: Session, limit: Limits, slack_s: float) -> str | None:
    """Why an idle session has to end; nothing can be cancelled in it."""
    if session.is_in_transaction:
        if _is_over(session.in_state_s, limit.idle_in_transaction_s, slack_s):
            return f"idle in a transaction for {session.in_state_s:.0f} s, {limit.idle_in_transaction_s} s are allowed"
        if _is_over(session.transaction_s, limit.transaction_s, slack_s):
            return f"a transaction of {session.transaction_s:.0f} s, {limit.transaction_s} s are allowed"
    if session.state == "idle" and _is_over(session.in_state_s, limit.idle_session_s, slack_s):
        return f"idle for {session.in_state_s:.0f} s, {limit.idle_session_s} s are allowed"
    return None


def _busy(session: Session, limit: Limits, slack_s: float) -> str | None:
    if not session.is_active:
        return None
    if _is_over(session.lock_wait_s, limit.lock_s, slack_s):
        return f"waits for a lock for {session.lock_wait_s:.0f} s, {limit.lock_s} s are allowed"
    if _is_over(session.statement_s, limit.statement_s, slack_s):
        return f"a statement of {session.statement_s:.0f} s, {limit.statement_s} s are allowed"
    if _is_over(session.transaction_s, limit.transaction_s, slack_s):
        return f"a transaction of {session.transaction_s:.0f} s, {limit.transaction_s} s are allowed"
    return None


def _is_over(age_s: float | None, limit_s: int | None, slack_s: float) -> bool:
    return age_s is not None and limit_s is not None and age_s > limit_s + slack_s


def _make_room(
    sessions: Sequence[Session], limits: Mapping[str, Limits], places: int, kept_free: int
) -> Iterator[Intervention]:
    """The longest idle sessions of watched roles go where too few places are left."""
    missing = kept_free - (places - len(sessions))
    idle = sorted(
        (one for one in sessions if one.role in limits and one.state == "idle"),
        key=lambda one: one.in_state_s or 0.0,
        reverse=True,
    )
    for session in idle[: max(missing, 0)]:
        reason = f"idle, and {len(sessions)} of {places} connections were taken: {kept_free} are kept free"
        yield Intervention(session, "terminate", reason)


def watch_once(
    server: psycopg.Connection[Any],
    catalogue: psycopg.Connection[Any],
    name: str,
    databases: Sequence[TeamDatabase],
    patience: Patience = Patience(),
) -> list[Intervention]:
    """Look once, act, and enter what was done.

    server     as administrator
    name       of the server, for the log
    returns    what was done to sessions that were still there
    """
    cancelled = {
        (pid, start): float(age) for pid, start, _, age in catalogue.execute(_CANCELLED, (name,)).fetchall()
    }
    todo = decide(read_sessions(server), limits_of(databases), cancelled, read_places(server), patience)
    return [one for one in todo if _act(server, catalogue, name, one)]


def _act(
    server: psycopg.Connection[Any], catalogue: psycopg.Connection[Any], name: str, one: Intervention
) -> bool:
    session = one.session
    reached = server.execute(_ACT[one.action], (session.pid, session.backend_start)).fetchone() == (True,)
    row = (name, session.database, session.role, *session.key, one.action, one.reason, reached)
    catalogue.execute(_ENTER, row)
    return reached
