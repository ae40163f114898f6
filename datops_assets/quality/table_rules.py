"""Checks of the whole table, made once silver has changed: aggregates across tables, freshness, volume.

They set no row aside: which row would it be? With `severity: block` they roll the judgement back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composable

from datops_assets.quality.contract_rules import CompareRule, FreshnessRule, VolumeRule
from datops_assets.quality.judged import CheckResult, Subject, threshold_kept
from datops_assets.quality.references import other_silver

Connection = psycopg.Connection[Any]

_LEAST_HISTORY = 3
_COUNTED = ("count", "sum")


def check_compare(conn: Connection, subject: Subject, silver: Composable, rule: CompareRule) -> CheckResult:
    """Compare an aggregate of silver with one of the other table, group by group; all groups of both sides.

    raises  DeclarationError: the other table has no silver yet
    """
    there = other_silver(conn, subject, rule)
    ours, theirs = _aggregate(*rule.ours), _aggregate(*rule.theirs)
    differs: Composable = SQL("a.value is distinct from b.value")
    if rule.tolerance:
        differs = SQL("coalesce(abs(a.value::numeric - b.value::numeric) > {}, {})").format(
            sql.Literal(rule.tolerance), differs
        )
    row = conn.execute(
        SQL("select count(*), count(*) filter (where {differs}) from {a} as g full join {b} as h {on},"
            " lateral (select {a_value} as value) as a, lateral (select {b_value} as value) as b").format(
            differs=differs,
            a=_groups(silver, rule.by, ours),
            b=_groups(there, rule.columns, theirs),
            on=SQL("using ({})").format(_listed(_key_names(rule))) if rule.by else SQL("on true"),
            a_value=_absent_is_zero("g.ours", rule.ours[0]),
            b_value=_absent_is_zero("h.ours", rule.theirs[0]),
        )
    ).fetchone()  # fmt: skip
    assert row is not None
    groups, failed = row
    kept = threshold_kept(failed, groups, rule.max_rows, rule.max_ratio)
    what = "group(s)" if rule.by else "total"
    said = f"{rule.compare} is not {rule.equals} of {rule.references} in {failed} of {groups} {what}"
    detail = {"said": said} if failed else None
    return CheckResult(rule.check_name(), None, rule.severity, groups, failed, kept, detail)


def _aggregate(function: str, column: str | None) -> Composable:
    inner: Composable = SQL("*") if column is None else sql.Identifier(column)
    return SQL("{}({})").format(sql.Identifier(function), inner)


def _groups(table: Composable, by: Sequence[str], aggregate: Composable) -> Composable:
    if not by:
        return SQL("(select {} as ours from {})").format(aggregate, table)
    keys = SQL(", ").join(
        SQL("{} as {}").format(sql.Identifier(name), sql.Identifier(f"k{place}"))
        for place, name in enumerate(by)
    )
    present = SQL(" and ").join(SQL("{} is not null").format(sql.Identifier(name)) for name in by)
    return SQL("(select {}, {} as ours from {} where {} group by {})").format(
        keys, aggregate, table, present, _listed(by)
    )


def _key_names(rule: CompareRule) -> list[str]:
    return [f"k{place}" for place in range(len(rule.by))]


def _listed(names: Sequence[str]) -> Composable:
    return SQL(", ").join(map(sql.Identifier, names))


def _absent_is_zero(value: str, function: str) -> Composable:
    """A group that is not there has no rows: their count and their sum are 0."""
    place = sql.Identifier(*value.split("."))
    return SQL("coalesce({}, 0)").format(place) if function in _COUNTED else SQL("{}").format(place)


def check_freshness(conn: Connection, silver: Composable, rule: FreshnessRule) -> CheckResult:
    """Hold the newest value of silver's column against the clock. The session's time zone is UTC."""
    column = sql.Identifier(rule.freshness)
    row = conn.execute(
        SQL(
            "select max({0}) is null, extract(epoch from now() - (max({0}) + case when pg_typeof(max({0})) ="
            " 'date'::regtype then interval '1 day' else interval '0' end)) / 3600 from {1}"
        ).format(column, silver)
    ).fetchone()
    assert row is not None
    empty, age_h = row
    kept = not empty and age_h <= rule.max_age_h
    detail: dict[str, object] = {
        "age_h": None if empty else round(float(age_h), 2),
        "max_age_h": rule.max_age_h,
    }
    if not kept:
        found = (
            f"no value of {rule.freshness}"
            if empty
            else f"{float(age_h):.1f} h since the newest {rule.freshness}"
        )
        detail["said"] = f"{found}, expected at most {rule.max_age_h:g} h"
    return CheckResult(rule.check_name(), rule.freshness, rule.severity, 1, 0 if kept else 1, kept, detail)


def check_volume(conn: Connection, table_id: int, loads: Sequence[int], rule: VolumeRule) -> CheckResult:
    """Hold what each of some loads brought (or each of their days) against bounds and what is usual."""
    failed: list[str] = []
    measured = (_days if rule.per == "day" else _loads)(conn, table_id, loads, rule.history)
    for name, rows, usual, known in measured:
        bounds = rule.volume
        low, high = bounds.min, bounds.max
        problems = []
        if (low is not None and rows < low) or (high is not None and rows > high):
            problems.append(_between(low, high))
        if bounds.within is not None and known >= _LEAST_HISTORY:
            least, most = usual * (1 - bounds.within), usual * (1 + bounds.within)
            if not least <= rows <= most:
                problems.append(
                    f"usual are {usual:g} (within {bounds.within:g}: {max(least, 0):g} to {most:g})"
                )
        if problems:
            failed.append(f"{name}: {rows} rows, expected {'; '.join(problems)}")
    kept = threshold_kept(len(failed), len(measured), rule.max_rows, rule.max_ratio)
    detail = {"said": "; ".join(failed[:5])} if failed else None
    return CheckResult(rule.check_name(), None, rule.severity, len(measured), len(failed), kept, detail)


def _between(low: int | None, high: int | None) -> str:
    bounds = (("at least", low), ("at most", high))
    return " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)


Measured = tuple[str, int, float, int]
"""A load or day: its name, its rows, the usual number, and how many before it that comes from."""


def _loads(conn: Connection, table_id: int, loads: Sequence[int], history: int) -> list[Measured]:
    # Whole deliveries are superseded by the next one, and still say what is usual.
    rows = conn.execute(
        "select n.path, n.rows, coalesce(u.usual, 0), u.known from datops.loads as n, lateral ("
        " select percentile_cont(0.5) within group (order by h.rows) as usual, count(*) as known from ("
        "  select rows from datops.loads as o where o.table_id = n.table_id and o.load_id < n.load_id"
        "  and o.state in ('loaded', 'superseded') and o.rows is not null"
        "  order by o.load_id desc limit %(history)s) as h) as u"
        " where n.table_id = %(table_id)s and n.load_id = any (%(loads)s) order by n.load_id",
        {"table_id": table_id, "loads": list(loads), "history": history},
    )
    return [(path, rows_ or 0, float(usual), known) for path, rows_, usual, known in rows]


def _days(conn: Connection, table_id: int, loads: Sequence[int], history: int) -> list[Measured]:
    rows = conn.execute(
        "with days as (select coalesce(partition_key, (finished_at at time zone 'UTC')::date::text) as day,"
        " sum(rows) as rows, bool_or(load_id = any (%(loads)s)) as touched from datops.loads"
        " where table_id = %(table_id)s and state = 'loaded' group by 1)"
        " select n.day, n.rows, coalesce(u.usual, 0), u.known from days as n, lateral ("
        " select percentile_cont(0.5) within group (order by h.rows) as usual, count(*) as known from ("
        "  select rows from days as o where o.day < n.day order by o.day desc limit %(history)s) as h) as u"
        " where n.touched order by n.day",
        {"table_id": table_id, "loads": list(loads), "history": history},
    )
    return [(day, int(count or 0), float(usual), known) for day, count, usual, known in rows]


def rechecked(
    conn: Connection, subject: Subject, silver: Composable, checks: Sequence[CheckResult]
) -> tuple[CheckResult, ...]:
    """The checks of the last judgement, those made anew that may change while this table does not.

    That is by the clock, or by the other table.
    """
    now: dict[str, CheckResult] = {}
    for rule in subject.contract.rules:
        if isinstance(rule, FreshnessRule):
            now[rule.check_name()] = check_freshness(conn, silver, rule)
        elif isinstance(rule, CompareRule):
            now[rule.check_name()] = check_compare(conn, subject, silver, rule)
    known = {check.name for check in checks}
    kept = [now.get(check.name, check) for check in checks]
    return (*kept, *(check for name, check in now.items() if name not in known))
