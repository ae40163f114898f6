"""What the server's JSON log says of logins and refusals since it was last read.

Only the role, the client and the error's code are taken from a line: no statement, no value.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

import psycopg

MOST_LOG_BYTES = 4 * 1024**2
_PLACE: LiteralString = (
    "select pg_current_logfile('jsonlog'), (pg_stat_file(pg_current_logfile('jsonlog'), true)).size,"
    " current_setting('log_timezone')"
)
_READ: LiteralString = "select pg_read_binary_file(%s, %s, %s, true)"
_FAILED = ("28P01", "28000")
_DENIED, _TOO_MANY = "42501", "53300"

Place = tuple[str, int]
"""File, and how far it was read (bytes)."""
Who = tuple[str, str]
"""Role, client: an address, or `[local]` for a socket of the machine."""


@dataclass(frozen=True)
class Burst:
    """Logins of one role from one client that failed one after the other."""

    count: int
    first: datetime
    last: datetime

    @property
    def per_minute(self) -> float:
        """How fast; within the first minute as many as there were."""
        return self.count / max((self.last - self.first).total_seconds() / 60, 1.0)


@dataclass(frozen=True)
class LogSeen:
    """What the log says since the look before."""

    place: Place | None = None
    failed: Mapping[Who, int] = field(default_factory=dict)
    bursts: Mapping[Who, Burst] = field(default_factory=dict)
    """Failures that no login of the same client has ended yet; goes from look to look."""
    guessed: Mapping[Who, Burst] = field(default_factory=dict)
    """Bursts that ended with a login; only where the server writes down logins (log_connections)."""
    denied: Mapping[str, int] = field(default_factory=dict)
    """Role: statements that it was not permitted."""
    refused: int = 0
    """Connections that found no place."""


def read_log(
    conn: psycopg.Connection[Any], before: Place | None, bursts: Mapping[Who, Burst], burst_s: float
) -> LogSeen | None:
    """Read on from where the look before stopped; None where there is no JSON log that we may read.

    before    None: what is in the log now is old
    """
    try:
        with conn.transaction():
            row = conn.execute(_PLACE).fetchone()
            if row is None or row[0] is None or row[1] is None:
                return None
            file, size = str(row[0]), int(row[1])
            start = _start(file, size, before)
            text = conn.execute(_READ, (file, start, size - start)).fetchone()
    except psycopg.errors.Error:
        return None
    content = bytes(text[0]) if text and text[0] else b""
    whole = content.rfind(b"\n") + 1
    seen = count(content[:whole].splitlines(), bursts, burst_s, ZoneInfo(row[2]))
    return LogSeen((file, start + whole), seen.failed, seen.bursts, seen.guessed, seen.denied, seen.refused)


def _start(file: str, size: int, before: Place | None) -> int:
    if before is None:
        return size
    start = before[1] if before[0] == file and before[1] <= size else 0
    return max(start, size - MOST_LOG_BYTES)


def count(lines: Iterable[bytes], bursts: Mapping[Who, Burst], burst_s: float, zone: tzinfo) -> LogSeen:
    """Count what lines of the log say; `bursts` are those that were not over at the look before.

    zone    of the log's times
    """
    failed: Counter[Who] = Counter()
    denied: Counter[str] = Counter()
    guessed: dict[Who, Burst] = {}
    open_bursts, refused = dict(bursts), 0
    latest: datetime | None = None
    for line in lines:
        try:
            entry = json.loads(line)
            at = datetime.fromisoformat(entry["timestamp"][:23]).replace(tzinfo=zone)
        except (ValueError, KeyError, TypeError):
            continue  # a line of somebody else's
        latest = at
        who = (str(entry.get("user", "?")), str(entry.get("remote_host", "[local]")))
        code = entry.get("state_code")
        if code in _FAILED:
            failed[who] += 1
            before = open_bursts.get(who)
            if before is None or at - before.last > timedelta(seconds=burst_s):
                before = Burst(0, at, at)
            open_bursts[who] = Burst(before.count + 1, before.first, at)
        elif code == _TOO_MANY:
            refused += 1
        elif code == _DENIED:
            denied[who[0]] += 1
        elif str(entry.get("message", "")).startswith("connection authorized:") and who in open_bursts:
            burst = open_bursts.pop(who)
            if at - burst.last <= timedelta(seconds=burst_s):
                guessed[who] = burst
    if latest is not None:
        horizon = latest - timedelta(seconds=burst_s)
        open_bursts = {who: one for who, one in open_bursts.items() if one.last >= horizon}
    return LogSeen(None, failed, open_bursts, guessed, denied, refused)
