"""Which backups stay and which go: values in, values out; no clock, no connection, no file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Kept:
    """One backup as retention sees it."""

    backup_id: str
    snapshot_at: datetime
    is_good: bool = True
    """Whether it can be restored as far as anybody knows."""
    parent: str | None = None
    """The backup that it cannot be restored without."""


@dataclass(frozen=True)
class Retention:
    """One that any rule keeps stays. Days, weeks, months and years without a backup do not count."""

    last: int = 7
    days: int | None = None
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0


_PERIODS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "daily": lambda at: (at.year, at.month, at.day),
    "weekly": lambda at: tuple(at.isocalendar()[:2]),
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: (at.year,),
}


def keep(
    backups: Iterable[Kept], retention: Retention, now: datetime, in_use: Collection[str] = ()
) -> dict[str, list[str]]:
    """Why each backup stays, by its id; those without a reason go.

    in_use     backups that somebody reads
    promise    the last good one stays, and every backup that one that stays cannot do without; what comes
               from the future (a clock that was wrong) stays, and pushes nothing else out
    """
    newest_first = sorted(backups, key=lambda one: (one.snapshot_at, one.backup_id), reverse=True)
    reasons: dict[str, list[str]] = {one.backup_id: [] for one in newest_first}
    for one in newest_first:
        if one.snapshot_at > now:
            reasons[one.backup_id].append("its time has not come yet")
        elif retention.days is not None and one.snapshot_at >= now - timedelta(days=retention.days):
            reasons[one.backup_id].append(f"younger than {retention.days} days")
        if one.backup_id in in_use:
            reasons[one.backup_id].append("is being read")
    good = [one for one in newest_first if one.is_good]
    past = [one for one in good if one.snapshot_at <= now]
    if good:
        reasons[(past or good)[0].backup_id].append("the last good one")
    for one in past[: retention.last]:
        reasons[one.backup_id].append(f"one of the last {retention.last}")
    for rule, period in _PERIODS.items():
        for one in _newest_of_each(past, period, getattr(retention, rule)):
            reasons[one.backup_id].append(rule)
    _keep_parents(newest_first, reasons)
    return {backup_id: why for backup_id, why in reasons.items() if why}


def _newest_of_each(
    newest_first: Sequence[Kept], period: Callable[[datetime], tuple[int, ...]], most: int
) -> list[Kept]:
    seen: dict[tuple[int, ...], Kept] = {}
    for one in newest_first:
        if len(seen) == most and period(one.snapshot_at.astimezone(UTC)) not in seen:
            break
        seen.setdefault(period(one.snapshot_at.astimezone(UTC)), one)
    return list(seen.values()) if most else []


def _keep_parents(backups: Sequence[Kept], reasons: dict[str, list[str]]) -> None:
    parents = {one.backup_id: one.parent for one in backups}
    for backup_id in [one.backup_id for one in backups if reasons[one.backup_id]]:
        child, parent = backup_id, parents.get(backup_id)
        while parent in reasons and f"needed by {child}" not in reasons[parent]:
            reasons[parent].append(f"needed by {child}")
            child, parent = parent, parents.get(parent)


@dataclass(frozen=True)
class Candidate:
    """One good backup as the choice of a drill sees it."""

    backup_id: str
    snapshot_at: datetime
    drilled_at: datetime | None


def next_to_drill(candidates: Iterable[Candidate]) -> str | None:
    """The backup whose turn it is: the newest that was never drilled, else the one drilled longest ago.

    promise    as many drills as there are backups drill each of them once
    """
    waiting = list(candidates)
    never = [one for one in waiting if one.drilled_at is None]
    if never:
        return max(never, key=lambda one: (one.snapshot_at, one.backup_id)).backup_id
    drilled = [(one.drilled_at, one.backup_id) for one in waiting if one.drilled_at is not None]
    return min(drilled)[1] if drilled else None
