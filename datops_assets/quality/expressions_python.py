"""`expression:` rules in Python, for `datops contract test` and the pandera rendering.

The same three-valued logic as PostgreSQL's. What is not evaluated here (date arithmetic, time
units, collation of anything but code points) says so when it is compiled, never by a wrong verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Context, Decimal, localcontext
from typing import TYPE_CHECKING, Any

from datops_assets.quality.expressions import parse_expression
from datops_assets.quality.types import NotAValueError, value_type

if TYPE_CHECKING:
    from sqlglot import exp

Row = Mapping[str, Any]
Evaluate = Callable[[Row], Any]
# Wide enough that sums and products of any contract's numbers are exact.
_CONTEXT = Context(prec=400)


class OnlyInWarehouseError(ValueError):
    """This expression is judged by PostgreSQL only."""


def compile_expression(text: str) -> Evaluate:
    """Compile a checked expression to a function of a typed row: True, False or None.

    raises  OnlyInWarehouseError: a part of it has no counterpart here
    """
    evaluate = _compile(parse_expression(text))

    def in_context(row: Row) -> Any:
        with localcontext(_CONTEXT):
            return evaluate(row)

    return in_context


# What a node may say for its compiler to have read all of it; anything else is a form not thought of here.
_READ_ARGS = frozenset(
    "this expression expressions low high ifs default to true is_string negate typed safe".split()
)


def _compile(node: exp.Expression) -> Evaluate:
    compiler = _COMPILERS.get(type(node).__name__)
    said = {name for name, value in node.args.items() if value not in (None, False, [])}
    if compiler is None or not said <= _READ_ARGS:
        raise OnlyInWarehouseError(f"{node.sql(dialect='postgres')!r} is judged in the warehouse only")
    evaluate = compiler(node)
    if not node.args.get("negate"):
        return evaluate

    def negated(row: Row) -> Any:
        value = evaluate(row)
        return None if value is None else not value

    return negated


def _column(node: exp.Expression) -> Evaluate:
    name = node.name
    return lambda row: _plain(row[name])


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return Decimal(value)
    return Decimal(repr(value)) if isinstance(value, float) else value


def _literal(node: exp.Expression) -> Evaluate:
    value: Any = node.name if node.is_string else Decimal(node.name)
    return lambda row: value


def _boolean(node: exp.Expression) -> Evaluate:
    value = bool(node.this)
    return lambda row: value


def _typed_literal(node: exp.Expression) -> Evaluate:
    family = {
        "DATE": "date",
        "TIMESTAMP": "timestamp",
        "TIMESTAMPTZ": "timestamptz",
        "DECIMAL": "numeric",
        "TIME": "time",
    }
    name = family.get(str(node.args["to"].this.value))
    try:
        value = value_type(name or "").parse(node.this.name)
    except ValueError as error:
        raise OnlyInWarehouseError(
            f"{node.sql(dialect='postgres')!r} is judged in the warehouse only"
        ) from error
    return lambda row: value


def _parameters(node: exp.Expression) -> list[Evaluate]:
    found = [node.this] if node.args.get("this") is not None else []
    return [_compile(each) for each in found + list(node.args.get("expressions") or [])]


def _strict(apply: Callable[..., Any], *names: str) -> Callable[[exp.Expression], Evaluate]:
    """A function of its arguments that is null when one of them is."""

    def compiler(node: exp.Expression) -> Evaluate:
        parts = [_compile(node.args[name]) for name in names if node.args.get(name) is not None]

        def evaluate(row: Row) -> Any:
            values = [part(row) for part in parts]
            return None if None in values else apply(*_alike(values))

        return evaluate

    return compiler


def _alike(values: list[Any]) -> list[Any]:
    """Read string literals as what they stand beside, as PostgreSQL does."""
    kinds = {datetime: "timestamp", date: "date", time: "time", Decimal: "numeric"}
    models = [value for value in values if not isinstance(value, str)]
    if not models or len(models) == len(values) or type(models[0]) not in kinds:
        return values
    model = models[0]
    name = "timestamptz" if isinstance(model, datetime) and model.tzinfo else kinds[type(model)]
    try:
        return [value_type(name, "UTC").parse(value) if isinstance(value, str) else value for value in values]
    except NotAValueError as error:
        raise OnlyInWarehouseError(f"a literal that is no {name}") from error


def _and(node: exp.Expression) -> Evaluate:
    left, right = _compile(node.this), _compile(node.args["expression"])

    def evaluate(row: Row) -> Any:
        values = (left(row), right(row))
        return False if False in values else None if None in values else True

    return evaluate


def _or(node: exp.Expression) -> Evaluate:
    left, right = _compile(node.this), _compile(node.args["expression"])

    def evaluate(row: Row) -> Any:
        values = (left(row), right(row))
        return True if True in values else None if None in values else False

    return evaluate


def _is(node: exp.Expression) -> Evaluate:
    left, right = _compile(node.this), _compile(node.args["expression"])
    return lambda row: left(row) is right(row)


def _distinct(same: bool) -> Callable[[exp.Expression], Evaluate]:
    def compiler(node: exp.Expression) -> Evaluate:
        left, right = _compile(node.this), _compile(node.args["expression"])
        return lambda row: (_alike([left(row), right(row)])[0] == _alike([left(row), right(row)])[1]) is same

    return compiler


def _in(node: exp.Expression) -> Evaluate:
    value, members = _compile(node.this), [_compile(each) for each in node.args["expressions"]]

    def evaluate(row: Row) -> Any:
        left = value(row)
        if left is None:
            return None
        found = [member(row) for member in members]
        same = [
            None if each is None else _alike([left, each])[0] == _alike([left, each])[1] for each in found
        ]
        return True if True in same else None if None in same else False

    return evaluate


def _case(node: exp.Expression) -> Evaluate:
    if node.args.get("this") is not None:
        raise OnlyInWarehouseError("case with a value is judged in the warehouse only")
    branches = [(_compile(each.this), _compile(each.args["true"])) for each in node.args["ifs"]]
    default = _compile(node.args["default"]) if node.args.get("default") is not None else lambda row: None

    def evaluate(row: Row) -> Any:
        return (
            next((then(row) for condition, then in branches if condition(row) is True), None)
            if any(condition(row) is True for condition, _ in branches)
            else default(row)
        )

    return evaluate


def _coalesce(node: exp.Expression) -> Evaluate:
    parts = _parameters(node)
    return lambda row: next((value for value in (part(row) for part in parts) if value is not None), None)


def _nullif(node: exp.Expression) -> Evaluate:
    left, right = _compile(node.this), _compile(node.args["expression"])
    return lambda row: None if left(row) == right(row) else left(row)


def _like(value: str, pattern: str) -> bool:
    pieces = re.split(r"(\\.|[%_])", pattern, flags=re.DOTALL)
    wild = {"%": ".*", "_": "."}
    rendered = "".join(
        wild.get(piece, re.escape(piece[1:] if len(piece) == 2 and piece[0] == "\\" else piece))
        for piece in pieces
    )
    return re.fullmatch(rendered, value, re.DOTALL) is not None


def _numbers(apply: Callable[[Decimal, Decimal], Any]) -> Callable[[Any, Any], Any]:
    def checked(left: Any, right: Any) -> Any:
        if not isinstance(left, Decimal) or not isinstance(right, Decimal):
            raise OnlyInWarehouseError("arithmetic on dates and times is judged in the warehouse only")
        return apply(left, right)

    return checked


_TWO = ("this", "expression")
_COMPILERS: dict[str, Callable[[exp.Expression], Evaluate]] = {
    "Column": _column,
    "Literal": _literal,
    "Cast": _typed_literal,
    "Boolean": _boolean,
    "Null": lambda node: lambda row: None,
    "Paren": lambda node: _compile(node.this),
    "And": _and,
    "Or": _or,
    "Not": _strict(lambda value: not value, "this"),
    "Is": _is,
    "NullSafeEQ": _distinct(same=True),
    "NullSafeNEQ": _distinct(same=False),
    "EQ": _strict(lambda left, right: left == right, *_TWO),
    "NEQ": _strict(lambda left, right: left != right, *_TWO),
    "LT": _strict(lambda left, right: left < right, *_TWO),
    "LTE": _strict(lambda left, right: left <= right, *_TWO),
    "GT": _strict(lambda left, right: left > right, *_TWO),
    "GTE": _strict(lambda left, right: left >= right, *_TWO),
    "Between": _strict(lambda value, low, high: low <= value <= high, "this", "low", "high"),
    "In": _in,
    "Like": _strict(_like, *_TWO),
    "Case": _case,
    "Coalesce": _coalesce,
    "Nullif": _nullif,
    "Add": _strict(_numbers(lambda left, right: left + right), *_TWO),
    "Sub": _strict(_numbers(lambda left, right: left - right), *_TWO),
    "Mul": _strict(_numbers(lambda left, right: left * right), *_TWO),
    "Div": _strict(_numbers(lambda left, right: left / right if right else None), *_TWO),
    "Mod": _strict(_numbers(lambda left, right: left % right if right else None), *_TWO),
    "Neg": _strict(lambda value: -value, "this"),
    "Abs": _strict(abs, "this"),
    "Length": _strict(lambda value: Decimal(len(value)), "this"),
    "StartsWith": _strict(lambda value, start: value.startswith(start), *_TWO),
    "DPipe": _strict(lambda left, right: f"{left}{right}", *_TWO),
}
