"""Types of columns, as far as a statement can be checked before it runs.

Belongs here: PostgreSQL's names of the types a document may write, and which type an expression
has. Does not: which expressions there are (expressions.py). A type that is not known is None:
the server has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from datops_assets.transform.syntax import exp

Kind = str | None
"""A type as PostgreSQL writes it (`numeric(12,2)`), None where it is not known."""
Columns = Mapping[str, Kind]
"""Columns of a table, in order."""

NAMES = (
    "smallint integer bigint numeric double text boolean date time timestamp timestamptz uuid json bytea"
).split()
"""What a document may write, and numeric(p,s)."""
_NUMBERS = ["smallint", "integer", "bigint", "numeric", "double precision"]
"""Each holds what those before it hold, for arithmetic."""
_WHOLE = _NUMBERS[:3]
_FROM_SQLGLOT = {
    "INT": "integer",
    "DECIMAL": "numeric",
    "DOUBLE": "double precision",
    "VARCHAR": "text",
    "VARBINARY": "bytea",
    **{name.upper(): name for name in NAMES if name not in ("integer", "numeric", "double", "bytea")},
}


def read_kind(text: str) -> str:
    """The type that a document writes, as PostgreSQL does.

    raises    ValueError: no such type
    """
    compact = re.sub(r"\s+", "", text.lower())
    compact = {"doubleprecision": "double"}.get(compact, compact)
    found = re.fullmatch(r"numeric\((\d{1,4}),(\d{1,4})\)", compact)
    if found and 1 <= int(found[1]) <= 1000 and int(found[2]) <= int(found[1]):
        return compact
    if compact not in NAMES:
        raise ValueError(f"{text!r} is no type, expected one of: {', '.join(NAMES)}, numeric(p,s)")
    return "double precision" if compact == "double" else compact


def family(kind: Kind) -> Kind:
    """The type without precision."""
    return kind.partition("(")[0] if kind else None


def is_number(kind: Kind) -> bool:
    """Whether arithmetic works on it."""
    return family(kind) in _NUMBERS


def is_whole(kind: Kind) -> bool:
    """Whether it holds whole numbers only."""
    return kind in _WHOLE


def has_no_equality(kind: Kind) -> bool:
    """Whether PostgreSQL cannot group, join or de-duplicate by it."""
    return kind == "json"


def data_type(kind: str) -> exp.DataType:
    """The type as a node."""
    return exp.DataType.build(kind, dialect="postgres")


def kind_of_type(node: exp.DataType) -> str:
    """The type that a cast writes.

    raises    ValueError: none that a document may write
    """
    known = _FROM_SQLGLOT.get(str(getattr(node.this, "value", node.this)))
    sizes = [int(size.name) for size in node.expressions]
    if known is None or (sizes and known != "numeric"):
        shown = node.sql(dialect="postgres").lower()
        raise ValueError(f"{shown} is no type here, expected one of: {', '.join(NAMES)}, numeric(p,s)")
    return f"numeric({sizes[0]},{sizes[1] if len(sizes) > 1 else 0})" if sizes else known


def common(kinds: Iterable[Kind]) -> Kind:
    """The type of `coalesce`, `case` and their like over values of these types."""
    found = list(dict.fromkeys(kinds))
    if not found or None in found:
        return None
    if len(found) == 1:
        return family(found[0])
    if all(is_number(kind) for kind in found):
        return max((str(family(kind)) for kind in found), key=_NUMBERS.index)
    return None


def kind_of(node: exp.Expr, columns: Columns) -> Kind:
    """The type of an expression over these columns, None where it is not known."""
    what = type(node).__name__
    if what == "Column":
        return columns.get(node.name)
    if what in ("Paren", "Neg", "Abs", "Collate", "Filter", "Window", "Min", "Max", "Distinct"):
        return kind_of(node.this, columns)
    if what in ("Lag", "Lead", "FirstValue", "LastValue", "Nullif"):
        return kind_of(node.this, columns)
    if what == "Literal":
        return _kind_of_literal(node)
    if what == "Cast":
        return kind_of_type(node.args["to"])
    if what in ("Coalesce", "Greatest", "Least", "Case"):
        return common(kind_of(each, columns) for each in _results(node))
    if what in _ARITHMETIC:
        return _kind_of_arithmetic(what, kind_of(node.this, columns), kind_of(node.expression, columns))
    if what in ("Round", "Floor", "Ceil"):
        return (
            "numeric"
            if family(kind_of(node.this, columns)) == "numeric" or node.args.get("decimals")
            else ("double precision" if is_number(kind_of(node.this, columns)) else None)
        )
    if what == "Sum":
        kind = family(kind_of(node.this, columns))
        return {"smallint": "bigint", "integer": "bigint", "bigint": "numeric"}.get(str(kind), kind)
    if what == "Avg":
        kind = family(kind_of(node.this, columns))
        return "numeric" if is_whole(kind) else kind
    if what in ("DateTrunc", "TimestampTrunc"):
        return kind_of(node.this, columns)
    return _FIXED.get(what)


_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Mod")
_FIXED: Mapping[str, str] = {
    **dict.fromkeys(
        "And Or Not EQ NEQ GT GTE LT LTE Is NullSafeEQ NullSafeNEQ Between In Like Boolean StartsWith "
        "LogicalAnd LogicalOr".split(),
        "boolean",
    ),
    **dict.fromkeys("DPipe Concat Lower Upper Left Right Replace Trim Substring SplitPart".split(), "text"),
    **dict.fromkeys("Length StrPosition".split(), "integer"),
    **dict.fromkeys("Count RowNumber Rank DenseRank".split(), "bigint"),
    "Ntile": "integer",
    "Extract": "numeric",
    "Interval": "interval",
}


def _results(node: exp.Expr) -> list[exp.Expr]:
    """The values one of which the expression is; nulls and texts that are read as their neighbours' type left out."""
    if type(node).__name__ == "Case":
        found = [each.args["true"] for each in node.args["ifs"]]
        found += [node.args["default"]] if node.args.get("default") is not None else []
    else:
        found = [node.this, *node.expressions]
    found = [each for each in found if type(each).__name__ != "Null"]
    typed = [each for each in found if not (type(each).__name__ == "Literal" and each.is_string)]
    return typed or found


def _kind_of_literal(node: exp.Expr) -> str:
    if node.is_string:
        return "text"
    if not node.name.isdigit():
        return "numeric"
    return "integer" if int(node.name) < 2**31 else "bigint" if int(node.name) < 2**63 else "numeric"


def _kind_of_arithmetic(what: str, left: Kind, right: Kind) -> Kind:
    if is_number(left) and is_number(right):
        kind = max(str(family(left)), str(family(right)), key=_NUMBERS.index)
        return "numeric" if what == "Div" and is_whole(kind) else kind
    if left == "date" and what in ("Add", "Sub"):
        days = right in ("smallint", "integer")
        return (
            "date" if days else "integer" if right == "date" else "timestamp" if right == "interval" else None
        )
    if left in ("timestamp", "timestamptz") and right == "interval":
        return left
    return "interval" if left == right and left in ("timestamp", "timestamptz") else None
