"""The row rules of a contract in Python, one text row at a time: the same verdicts as in SQL.

For samples without a warehouse and for the pandera rendering; never for a whole table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datops_assets.quality import formats
from datops_assets.quality.cleaning import clean_text
from datops_assets.quality.column_rule import ColumnRule
from datops_assets.quality.contract import Contract
from datops_assets.quality.contract_rules import RowRule
from datops_assets.quality.expressions_python import OnlyInWarehouseError, compile_expression
from datops_assets.quality.named_patterns import named_pattern
from datops_assets.quality.row_checks import RowCheck, row_checks
from datops_assets.quality.types import NotAValueError

TextRow = Mapping[str, str | None]


@dataclass(frozen=True)
class PythonCheck:
    """One row rule. `breaks` takes cleaned texts by contract column."""

    rule: RowCheck
    breaks: Callable[[TextRow], bool]


@dataclass(frozen=True)
class PythonChecks:
    """All row rules that can be judged here, and a sentence for each that cannot."""

    checks: tuple[PythonCheck, ...]
    not_judged: tuple[str, ...]


def python_checks(contract: Contract) -> PythonChecks:
    """Render every row rule, in the order of `row_checks`."""
    expressions = {rule.check_name(): rule for rule in contract.rules if isinstance(rule, RowRule)}
    found, sentences = [], []
    for rule in row_checks(contract):
        if rule.column is not None:
            found.append(PythonCheck(rule, _column_breaks(rule, contract.columns[rule.column])))
            continue
        try:
            found.append(PythonCheck(rule, _expression_breaks(contract, expressions[rule.name].expression)))
        except OnlyInWarehouseError as error:
            sentences.append(f"{rule.name}: {error}")
    sentences += [
        f"{rule.check_name()}: looks beyond one row"
        for rule in contract.rules
        if not isinstance(rule, RowRule)
    ]
    return PythonChecks(tuple(found), tuple(sentences))


def clean_row(contract: Contract, row: TextRow) -> dict[str, str | None]:
    """Apply `clean:` to a row of texts by contract column; a column that is not there is null."""
    return {name: clean_text(row.get(name), rule.clean) for name, rule in contract.columns.items()}


def typed(rule: ColumnRule, text: str) -> object:
    """The value of a text; raises NotAValueError."""
    if rule.formats:
        return formats.parse(text, rule.kind.family, rule.compiled_formats, rule.timezone)
    return rule.kind.parse(text)


def _column_breaks(check: RowCheck, rule: ColumnRule) -> Callable[[TextRow], bool]:
    what = check.name.rpartition(".")[2]
    name = check.column
    assert name is not None
    if what in ("required", "key"):
        return lambda row: row[name] is None
    if what == "type":
        return lambda row: row[name] is not None and _typed_or_none(rule, row[name]) is None
    breaks = dict(_value_breaks(rule))[what]

    def judge(row: TextRow) -> bool:
        value = _typed_or_none(rule, row[name])
        return value is not None and breaks(value)

    return judge


def _value_breaks(rule: ColumnRule) -> Iterator[tuple[str, Callable[[Any], bool]]]:
    def bound(value: Any) -> Any:
        return rule.constant_kind.parse(rule.constant_text(value))

    if rule.min is not None:
        low = bound(rule.min)
        yield "min", lambda value: value < low
    if rule.max is not None:
        high = bound(rule.max)
        yield "max", lambda value: value > high
    if rule.in_ is not None:
        members = [bound(value) for value in rule.in_]
        yield "in", lambda value: value not in members
    pattern, length = rule.compiled_regex, rule.length
    if pattern is not None:
        yield "regex", lambda value: not pattern.matches(value)
    if rule.like is not None:
        named = named_pattern(rule.like)
        yield "like", lambda value: not named.matches(value)
    if length is not None:
        low_length, high_length = length.min or 0, length.max if length.max is not None else float("inf")
        yield "length", lambda value: not low_length <= len(value) <= high_length


def _typed_or_none(rule: ColumnRule, text: str | None) -> Any:
    if text is None:
        return None
    try:
        value = typed(rule, text)
    except NotAValueError:
        return None
    # JSON's null is a value, Python's is none.
    return "null" if value is None else value


def _expression_breaks(contract: Contract, text: str) -> Callable[[TextRow], bool]:
    evaluate = compile_expression(text)
    return lambda row: (
        evaluate({name: _typed_or_none(rule, row[name]) for name, rule in contract.columns.items()}) is False
    )
