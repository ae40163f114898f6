"""Row conditions of a contract: a small, safe part of PostgreSQL's expressions.

Read by sqlglot, allowed by a list, and written anew. So that no row can make a statement
fail, arithmetic is done in numeric (no overflow of integers) and a division by zero is null.
So that the verdict depends on the row alone, nothing asks the clock, other rows or a locale.
sqlglot is imported on first use: it costs 0.2 s, which contracts without expressions do not pay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datops_assets.postgres import lazy_sql
from datops_assets.quality.types import ValueType, value_type

if TYPE_CHECKING:
    from sqlglot import exp

_OPERATORS = (
    "And Or Not Paren EQ NEQ GT GTE LT LTE NullSafeEQ NullSafeNEQ Is Between In Like Add Sub Mul Div Mod Neg DPipe "
    "Case If Column Identifier Literal Boolean Null Cast DataType DataTypeParam Interval IntervalSpan Var"
).split()
_FUNCTIONS = (
    "Abs Round Floor Ceil Coalesce Nullif Greatest Least Length Lower Upper Left Right StartsWith StrPosition "
    "Replace Trim Concat Extract DateTrunc TimestampTrunc"
).split()
_FUNCTION_WORDS = (
    "abs, round, floor, ceil, coalesce, nullif, greatest, least, length, lower, upper, left, right, starts_with, "
    "strpos, replace, trim, concat, extract, date_trunc"
)
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Round", "Floor", "Ceil")
_CLOCK_WORDS = frozenset({"now", "today", "tomorrow", "yesterday"})
_UNITS = frozenset("YEAR QUARTER MONTH WEEK DAY HOUR MINUTE SECOND DOW ISODOW DOY EPOCH ISOYEAR".split())
_LITERAL_TYPES = frozenset({"DATE", "TIMESTAMP", "TIMESTAMPTZ", "INTERVAL", "DECIMAL", "TIME"})


@dataclass(frozen=True)
class Expression:
    """A checked condition; `text` is PostgreSQL over columns named as the contract names them."""

    text: str
    columns: frozenset[str]

    @property
    def sql(self) -> lazy_sql.Composable:
        """For a query in which the columns are visible under their names."""
        return lazy_sql.SQL("({})").format(lazy_sql.SQL(self.text))


def read_expression(text: str, columns: Mapping[str, ValueType]) -> Expression:
    """Read and check the text of an `expression:` rule.

    raises  ValueError: what is not allowed, and what is
    """
    return _read(parse_expression(text), columns)


def _read(tree: exp.Expression, columns: Mapping[str, ValueType]) -> Expression:
    nodes = list(tree.walk())
    for node in nodes:
        _check_node(node, columns)
    names = frozenset(node.name for node in nodes if type(node).__name__ == "Column")
    if not names:
        raise ValueError("the expression names no column of this contract")
    exact = any(type(node).__name__ in _ARITHMETIC for node in nodes)
    typed = tree.transform(lambda node: _typed_column(node, columns, exact))
    return Expression(typed.transform(_null_instead_of_division_by_zero).sql(dialect="postgres"), names)


def read_joined(text: str, columns: Mapping[str, ValueType], other: str) -> Expression:
    """Read a condition over a row and one of another table, whose columns are `other.column`.

    columns   those of this row by name, and of the other as "other.column"
    returns   SQL over columns of these names
    raises    ValueError: what is not allowed, and what is
    """
    return _read(_qualified(parse_expression(text), other), columns)


def check_joined(text: str, columns: Mapping[str, ValueType], other: str) -> None:
    """Read a condition over two rows while the other table's columns are not known. Raises ValueError."""
    theirs = joined_columns(text, other)
    if not theirs:
        raise ValueError(f"the condition names no column of the other table, expected {other}.column")
    unknown = {f"{other}.{name}": value_type("text") for name in theirs}
    _read(_qualified(parse_expression(text), other), {**columns, **unknown})


def joined_columns(text: str, other: str) -> list[str]:
    """The columns of the other table that a condition over two rows names. Raises ValueError: it cannot be read."""
    nodes = parse_expression(text).walk()
    found = [node for node in nodes if type(node).__name__ == "Column" and node.text("table") == other]
    return list(dict.fromkeys(node.name for node in found))


def _qualified(tree: exp.Expression, other: str) -> exp.Expression:
    """Columns of the other table as plain ones, called "other.column"."""
    from sqlglot import exp

    def renamed(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Column) and node.table == other:
            return exp.column(exp.to_identifier(f"{other}.{node.name}", quoted=True))
        return node

    return tree.transform(renamed)


def parse_expression(text: str) -> exp.Expression:
    """Read one expression; what it may hold is not looked at."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    if "{{" in text or "{%" in text:
        raise ValueError("templates are not run here; write the expression itself")
    try:
        statements = sqlglot.parse(text, read="postgres")
    except SqlglotError as error:
        raise ValueError("not an expression that PostgreSQL would read") from error
    if len(statements) != 1 or statements[0] is None:
        raise ValueError("expected one expression, without a semicolon")
    return statements[0]  # type: ignore[return-value]


def _check_node(node: exp.Expr, columns: Mapping[str, ValueType]) -> None:
    kind = type(node).__name__
    if kind == "Column":
        if node.args.get("table") is not None:
            raise ValueError(f"{node.sql()!r} names a table; an expression sees one row of its own")
        if node.name not in columns:
            raise ValueError(f"{node.name!r} is not a column of this contract")
    elif kind == "Literal" and node.is_string and node.name.strip().lower() in _CLOCK_WORDS:
        raise ValueError("the verdict may not depend on the clock")
    elif kind == "Cast" and not _is_typed_literal(node):
        raise ValueError("a cast may fail on a row; only literals take a type, such as date '2020-01-31'")
    elif kind in ("Extract", "DateTrunc", "TimestampTrunc"):
        unit = str(node.this.name if kind == "Extract" else node.args["unit"].name).upper()
        if unit not in _UNITS:
            raise ValueError(
                f"{unit.lower()!r} is not a unit, expected one of: {', '.join(sorted(_UNITS)).lower()}"
            )
    elif kind in ("Select", "Subquery", "Exists", "Union", "Any", "All") or (
        kind == "In" and node.args.get("query")
    ):
        raise ValueError(
            "a subquery is not allowed: an expression sees one row; use unique, foreign_key or row_count"
        )
    elif kind not in _OPERATORS and kind not in _FUNCTIONS:
        raise ValueError(
            f"{_named(node)} is not allowed; operators, case, and these functions are: {_FUNCTION_WORDS}"
        )


def _is_typed_literal(node: exp.Expr) -> bool:
    return type(node.this).__name__ == "Literal" and str(node.args["to"].this.value) in _LITERAL_TYPES


def _named(node: exp.Expr) -> str:
    name = node.name or node.sql(dialect="postgres")
    return repr(name if len(name) <= 40 else type(node).__name__)


def _typed_column(node: exp.Expression, columns: Mapping[str, ValueType], exact: bool) -> exp.Expression:
    from sqlglot import exp

    if not isinstance(node, exp.Column):
        return node
    kind = columns[node.name]
    quoted = exp.column(exp.to_identifier(node.name, quoted=True))
    if kind.family == "text":
        return exp.Collate(this=quoted, expression=exp.to_identifier("C", quoted=True))
    if exact and kind.is_number:
        # A double prints its shortest exact form; a direct cast would keep 15 digits only.
        inner: exp.Expression = exp.cast(quoted, "text") if kind.family == "double" else quoted
        return exp.cast(inner, "numeric", dialect="postgres")
    return quoted


def _null_instead_of_division_by_zero(node: exp.Expression) -> exp.Expression:
    from sqlglot import exp

    if isinstance(node, exp.Div | exp.Mod):
        node.set("expression", exp.Nullif(this=node.expression, expression=exp.Literal.number(0)))
    return node
