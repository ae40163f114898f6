"""The row rules of a contract as conditions on one row, each with its reason. No connection.

In these conditions `"name"` is the typed value of a contract column and `_r<n>` the delivered
text of the n-th one, cleaned. A condition that is null does not fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql
from psycopg.sql import SQL, Composable

from datops_assets.quality.column_rule import ColumnRule
from datops_assets.quality.contract import Contract
from datops_assets.quality.contract_parts import Scalar, Severity
from datops_assets.quality.contract_rules import RowRule
from datops_assets.quality.expressions import read_expression
from datops_assets.quality.named_patterns import named_pattern

LONGEST_KEY_BYTES = 2600
"""A third of a page, less what a row of a btree index needs for itself: PostgreSQL refuses more."""

NOT_IN_CONTRACT = "not a column of the contract"
"""What is said of a value in a delivered column that a closed contract does not name."""


@dataclass(frozen=True)
class RowCheck:
    """One condition. `fails` is SQL that is true for a row that breaks it."""

    name: str
    column: str | None
    severity: Severity
    reason: str
    fails: Composable
    max_rows: int | None = None
    max_ratio: float | None = None

    @property
    def refuses(self) -> bool:
        """Whether a failing row stays out of silver."""
        return self.severity != "warn"


def raw(position: int) -> sql.Identifier:
    """The delivered text of the contract's n-th column."""
    return sql.Identifier(f"_r{position}")


def unreadable(position: int) -> sql.Identifier:
    """Whether the delivered JSON of the n-th column cannot become text (an escaped NUL, half a surrogate pair)."""
    return sql.Identifier(f"_u{position}")


def row_checks(contract: Contract, from_json: frozenset[str] = frozenset()) -> list[RowCheck]:
    """All row rules, in the order of the contract.

    from_json   columns delivered as JSON, whose text may be unreadable
    """
    checks: list[RowCheck] = []
    for position, (name, column) in enumerate(contract.columns.items()):
        checks += _column_checks(name, column, position, name in from_json)
    if contract.on_null_key == "quarantine":
        checks += _key_checks(contract)
    checks += _key_length(contract)
    kinds = {name: column.kind for name, column in contract.columns.items()}
    for rule in contract.rules:
        if isinstance(rule, RowRule):
            fails = SQL("not {}").format(read_expression(rule.expression, kinds).sql)
            name = rule.check_name()
            checks.append(
                RowCheck(
                    name,
                    None,
                    rule.severity,
                    rule.reason(),
                    fails,
                    rule.max_rows,
                    rule.max_ratio,
                )
            )
    return checks


def _column_checks(name: str, rule: ColumnRule, position: int, from_json: bool) -> Iterator[RowCheck]:
    typed, text = sql.Identifier(name), raw(position)

    def check(what: str, reason: str, fails: Composable, severity: Severity = rule.severity) -> RowCheck:
        return RowCheck(
            f"{name}.{what}", name, severity, f"{name}: {reason}", fails, rule.max_rows, rule.max_ratio
        )

    broken = SQL("{} is not null and {} is null").format(text, typed)
    if from_json:
        broken = SQL("({}) or {}").format(broken, unreadable(position))
    if rule.kind.family != "text" or from_json:
        # A value that is none cannot stand in silver: a type that only warns sets rows aside all the same.
        yield check(
            "type", f"not {rule.kind.noun}", broken, "error" if rule.severity == "warn" else rule.severity
        )
    if rule.required:
        missing = SQL("{} is null").format(text)
        yield check(
            "required",
            "missing",
            SQL("{} and not {}").format(missing, unreadable(position)) if from_json else missing,
        )
    yield from _value_checks(check, rule, typed)


def _value_checks(check: object, rule: ColumnRule, typed: Composable) -> Iterator[RowCheck]:
    assert callable(check)
    kind = rule.kind

    def constant(value: Scalar) -> Composable:
        return rule.constant_kind.literal(rule.constant_text(value))

    ordered = SQL('{} collate "C"').format(typed) if kind.family == "text" else typed
    if rule.min is not None:
        yield check("min", "below the minimum", SQL("{} < {}").format(ordered, constant(rule.min)))
    if rule.max is not None:
        yield check("max", "above the maximum", SQL("{} > {}").format(ordered, constant(rule.max)))
    if rule.in_ is not None:
        members = SQL(", ").join(constant(value) for value in rule.in_)
        yield check(
            "in",
            "not in the allowed set",
            SQL("{} <> all (array[{}]::{}[])").format(typed, members, kind.postgres),
        )
    pattern = rule.compiled_regex
    if pattern is not None:
        yield check(
            "regex",
            "does not match the pattern",
            SQL("{} !~ {}").format(typed, sql.Literal(pattern.postgres)),
        )
    if rule.like is not None:
        named = named_pattern(rule.like)
        yield check("like", f"not {named.noun}", named.fails_sql(typed))
    if rule.length is not None:
        bounds = [
            SQL("length({}) {} {}").format(typed, SQL(sign), sql.Literal(bound))
            for sign, bound in (("<", rule.length.min), (">", rule.length.max))
            if bound is not None
        ]
        yield check("length", "too short or too long", SQL(" or ").join(bounds))


def _key_checks(contract: Contract) -> Iterator[RowCheck]:
    names = list(contract.columns)
    for name in contract.key:
        if not contract.columns[name].required or contract.columns[name].severity == "warn":
            fails = SQL("{} is null").format(raw(names.index(name)))
            yield RowCheck(f"{name}.key", name, "error", f"{name}: missing in the key", fails)


def _key_length(contract: Contract) -> Iterator[RowCheck]:
    """One value that the key's index cannot hold would keep every other row from silver."""
    sizes = [
        SQL("coalesce(octet_length({}::text), 0)").format(sql.Identifier(name))
        for name in contract.key
        if contract.columns[name].kind.catalogue_name in ("text", "bytea", "numeric")
    ]
    if sizes:
        fails = SQL("{} > {}").format(SQL(" + ").join(sizes), sql.Literal(LONGEST_KEY_BYTES))
        reason = f"key: longer than the {LONGEST_KEY_BYTES} bytes an index can hold"
        yield RowCheck("key.length", ", ".join(contract.key), "error", reason, fails)
