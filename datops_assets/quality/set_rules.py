"""Rules that look beyond one row: foreign keys, unique values, row counts.

Rules that refuse rows put them into the temporary table `_refused` before the rest of their
load reaches silver; rules that only warn are counted once silver has changed. A row that its
own row rules refuse takes no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composable

from datops_assets.errors import DeclarationError
from datops_assets.quality.contract_rules import ForeignKeyRule, HoldsRule, RowCountRule, UniqueRule
from datops_assets.quality.expressions import read_joined
from datops_assets.quality.judged import CheckResult, Subject, threshold_kept
from datops_assets.quality.references import other_silver, silver_kinds
from datops_assets.quality.silver import Silver
from datops_assets.quality.stage import Stage

Connection = psycopg.Connection[Any]
SetRule = ForeignKeyRule | UniqueRule | HoldsRule


def refusing_rules(subject: Subject) -> list[SetRule]:
    """The set rules that set rows aside."""
    return [rule for rule in subject.contract.rules if isinstance(rule, SetRule) and rule.severity != "warn"]


def reason_of(rule: SetRule) -> str:
    """The reason a refused row carries."""
    if isinstance(rule, HoldsRule):
        return f"{rule.name or rule.holds}: is false with {rule.references}"
    if isinstance(rule, UniqueRule):
        return f"{', '.join(rule.unique)}: another row has the same"
    return f"{', '.join(rule.foreign_key)}: not in {rule.references}"


def create_refused(conn: Connection) -> None:
    """Make an empty `_refused` for one group of loads."""
    conn.execute(
        "create temp table if not exists _refused (_load_id bigint, _row bigint, reason text) on commit drop"
    )
    conn.execute("truncate _refused")


def refuse(silver: Silver, stage: Stage) -> None:
    """Fill `_refused` by every set rule that sets rows aside."""
    for rule in refusing_rules(silver.subject):
        failing = _taken(silver, stage, rule) if isinstance(rule, UniqueRule) else failing_rows(stage, rule)
        stage.conn.execute(
            SQL("insert into _refused select f._load_id, f._row, {} from ({}) as f").format(
                sql.Literal(reason_of(rule)), failing
            )
        )


def failing_rows(stage: Stage, rule: ForeignKeyRule | HoldsRule) -> Composable:
    """A query of the rows that a rule which looks into another table refuses. Raises DeclarationError."""
    return orphans(stage, rule) if isinstance(rule, ForeignKeyRule) else breaches(stage, rule)


def count_failing(stage: Stage, rule: ForeignKeyRule | HoldsRule) -> int:
    """Rows that fail such a rule which only warns."""
    row = stage.conn.execute(
        SQL("select count(*) from ({}) as f").format(failing_rows(stage, rule))
    ).fetchone()
    assert row is not None
    return int(row[0])


def check_unique(conn: Connection, silver: Silver, rule: UniqueRule, rows_total: int) -> CheckResult:
    """Count the rows of silver whose values an other row has too (a rule that only warns)."""
    names = _identifiers(rule.unique)
    row = conn.execute(
        SQL(
            "select coalesce(sum(rows - 1), 0)::bigint from"
            " (select count(*) as rows from {} where {} group by {} having count(*) > 1) as d"
        ).format(silver.table, _all_present(names), SQL(", ").join(names))
    ).fetchone()
    assert row is not None
    kept = threshold_kept(row[0], rows_total, rule.max_rows, rule.max_ratio)
    return CheckResult(rule.check_name(), ", ".join(rule.unique), rule.severity, rows_total, row[0], kept)


def check_rows(rule: SetRule, rows_judged: int, rows_failed: int) -> CheckResult:
    """Compare the rows a rule refused or warned of with its threshold."""
    columns = rule.unique if isinstance(rule, UniqueRule) else _referring_columns(rule)
    kept = threshold_kept(rows_failed, rows_judged, rule.max_rows, rule.max_ratio)
    return CheckResult(rule.check_name(), ", ".join(columns), rule.severity, rows_judged, rows_failed, kept)


def _referring_columns(rule: ForeignKeyRule | HoldsRule) -> list[str]:
    return rule.foreign_key if isinstance(rule, ForeignKeyRule) else rule.match


def check_row_count(rule: RowCountRule, rows: int) -> CheckResult:
    """Compare a number of rows with its bounds."""
    low, high = rule.row_count.min, rule.row_count.max
    kept = (low is None or rows >= low) and (high is None or rows <= high)
    detail: dict[str, object] = {"rows": rows, "min": low, "max": high}
    if not kept:
        bounds = [("at least", low), ("at most", high)]
        expected = " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)
        subject = "silver would hold" if rule.of == "table" else "what is judged holds"
        detail["said"] = f"{subject} {rows} rows, expected {expected}"
    return CheckResult(rule.check_name(), None, rule.severity, 1, 0 if kept else 1, kept, detail)


def orphans(stage: Stage, rule: ForeignKeyRule) -> Composable:
    """A query of the rows whose values the other table does not have.

    raises  DeclarationError: the other table has no silver, or is this one
    """
    other = other_silver(stage.conn, stage.query.subject, rule)
    return SQL(
        "select c._load_id, c._row from {} as c where {} and not exists (select from {} as o where {})"
    ).format(
        stage.table,
        _all_present(_identifiers(rule.foreign_key)),
        other,
        _same(rule.foreign_key, rule.columns),
    )


def breaches(stage: Stage, rule: HoldsRule) -> Composable:
    """A query of the rows for which a condition over them and their row in the other table is false.

    raises  DeclarationError: the other table has no silver, or is this one, or lacks a column of the condition
    """
    subject = stage.query.subject
    other = other_silver(stage.conn, subject, rule)
    theirs = silver_kinds(stage.conn, other)
    kinds = {**subject.contract.kinds, **{f"{rule.prefix}.{name}": kind for name, kind in theirs.items()}}
    try:
        condition = read_joined(rule.holds, kinds, rule.prefix)
    except ValueError as error:
        raise DeclarationError([f"{subject.label}: {rule.check_name()}: {error}"]) from error
    joined = SQL(", ").join(
        SQL("o.{} as {}").format(sql.Identifier(name), sql.Identifier(f"{rule.prefix}.{name}"))
        for name in theirs
        if f"{rule.prefix}.{name}" in condition.columns
    )
    return SQL(
        "select distinct j._load_id, j._row from (select c.*, {} from {} as c join {} as o on {}) as j where not {}"
    ).format(joined, stage.table, other, _same(rule.match, rule.columns), condition.sql)


def _same(ours: Sequence[str], theirs: Sequence[str]) -> Composable:
    pairs = zip(_identifiers(theirs), _identifiers(ours), strict=True)
    return SQL(" and ").join(SQL("o.{} = c.{}").format(their, our) for their, our in pairs)


def _taken(silver: Silver, stage: Stage, rule: UniqueRule) -> Composable:
    """Rows whose values belong to another key: to the one silver has them for, else to the first row of the load."""
    values = _identifiers(rule.unique)
    identity = _identifiers(silver.subject.contract.key or ["_load_id", "_row"])
    mine, theirs = (
        SQL("row({})::record").format(
            SQL(", ").join(SQL("{}.{}").format(SQL(side), part) for part in identity)
        )
        for side in ("c", "s")
    )
    first = SQL("first_value({}) over (partition by {} order by c._load_id, c._row)").format(
        mine, SQL(", ").join(values)
    )
    return SQL(
        "select c._load_id, c._row from"
        " (select c.*, {mine} as mine, {first} as first from {stage} as c where {present}) as c"
        " left join {silver} as s on"
        " {same}"
        " where case when s._load_id is null then c.first is distinct from c.mine else {theirs} is"
        " distinct from c.mine end"
    ).format(
        mine=mine, first=first, stage=stage.table, present=_all_present(values), silver=silver.table, theirs=theirs,
        same=SQL(" and ").join(SQL("s.{0} = c.{0}").format(value) for value in values),
    )  # fmt: skip


def _identifiers(names: Sequence[str]) -> list[sql.Identifier]:
    return [sql.Identifier(name) for name in names]


def _all_present(names: Sequence[Composable]) -> Composable:
    return SQL(" and ").join(SQL("{} is not null").format(name) for name in names)
