"""Expressions of a document: a small part of PostgreSQL's, read by sqlglot and allowed by a list.

The same words as in a contract's rules, plus casts, aggregates and windows where a step has them.
So that the rows depend on the data alone, nothing asks the clock, chance, a setting or another
table. A division by zero is null and whole numbers are divided exactly; texts are compared by code
point, in whatever locale the server runs. Spark then gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable

from datops_assets.transform.kinds import Columns, is_number, is_whole, kind_of, kind_of_type
from datops_assets.transform.syntax import exp, name

_OPERATORS = frozenset(
    "And Or Not Paren EQ NEQ GT GTE LT LTE NullSafeEQ NullSafeNEQ Is Between In Like Add Sub Mul Div Mod Neg DPipe "
    "Case If Column Identifier Literal Boolean Null Cast DataType DataTypeParam Interval IntervalSpan Var".split()
)
_FUNCTIONS = frozenset(
    "Abs Round Floor Ceil Coalesce Nullif Greatest Least Length Lower Upper Left Right StartsWith StrPosition "
    "Replace Trim Concat Substring SplitPart Extract DateTrunc TimestampTrunc".split()
)
_WORDS = (
    "abs, round, floor, ceil, coalesce, nullif, greatest, least, length, lower, upper, left, right, starts_with, "
    "strpos, replace, trim, concat, substring, split_part, extract, date_trunc"
)
_AGGREGATES = frozenset("Count Sum Avg Min Max LogicalAnd LogicalOr Distinct Star Filter Where".split())
_AGGREGATE_WORDS = "count, sum, avg, min, max, bool_and, bool_or"
_WINDOWS = frozenset("RowNumber Rank DenseRank Ntile Lag Lead FirstValue LastValue".split())
_WINDOW_WORDS = "row_number, rank, dense_rank, ntile, lag, lead, first_value, last_value"
_CLOCK_WORDS = frozenset({"now", "today", "tomorrow", "yesterday"})
_UNITS = frozenset("YEAR QUARTER MONTH WEEK DAY HOUR MINUTE SECOND DOW ISODOW DOY EPOCH ISOYEAR".split())
_ORDERED = frozenset("GT GTE LT LTE Between Greatest Least Min Max".split())


def row_expression(text: str, columns: Columns) -> exp.Expression:
    """An expression that sees one row.

    raises    ValueError: what is not allowed or not there, and what is
    """
    return _read(text, columns, frozenset(), _WORDS)


def aggregate_expression(text: str, columns: Columns) -> exp.Expression:
    """An expression over the rows of a group: every column stands inside an aggregate."""
    tree = _read(text, columns, _AGGREGATES, f"{_WORDS}; of a group: {_AGGREGATE_WORDS}")
    for node in tree.find_all(exp.Column):
        if not node.find_ancestor(exp.AggFunc, exp.Filter):
            raise ValueError(f"{node.name!r} stands outside of an aggregate, expected e.g. max({node.name})")
    _not_nested(tree)
    return tree


def window_expression(
    text: str, columns: Columns, over: Callable[[exp.Expr, bool], exp.Expression]
) -> exp.Expression:
    """An expression over the neighbours of a row.

    over      makes the window of a function; told whether the function looks at the frame
    """
    words = f"{_WORDS}; of the neighbours: {_WINDOW_WORDS}, {_AGGREGATE_WORDS}"
    tree = _read(text, columns, _AGGREGATES | _WINDOWS, words)
    _not_nested(tree)
    if not any(_is_windowed(node) for node in tree.walk()):
        raise ValueError("looks at no neighbour, expected a function such as row_number() or sum(…)")

    for node in [each for each in tree.walk() if _is_windowed(each) or isinstance(each, exp.Filter)]:
        if isinstance(node.parent, exp.Filter) and node.arg_key == "this":
            continue  # `filter (where …)` belongs to the aggregate: the window goes around both
        made = over(node.copy(), _has_frame(node))
        if node is tree:
            tree = made
        else:
            node.replace(made)
    return tree


def _has_frame(node: exp.Expr) -> bool:
    """Whether a function looks at a frame of rows, and not at places or one neighbour."""
    return type(node).__name__ in _AGGREGATES or isinstance(node, exp.FirstValue | exp.LastValue)


def needs_order(tree: exp.Expression) -> bool:
    """Whether a windowed expression means something in an order only."""
    return any(type(node.this).__name__ in _WINDOWS for node in tree.find_all(exp.Window))


def _is_windowed(node: exp.Expr) -> bool:
    return type(node).__name__ in _WINDOWS or isinstance(node, exp.AggFunc)


def _not_nested(tree: exp.Expression) -> None:
    for node in tree.walk():
        if _is_windowed(node) and node.find_ancestor(exp.AggFunc):
            raise ValueError("one aggregate stands inside another, expected two steps")


def _read(text: str, columns: Columns, more: frozenset[str], words: str) -> exp.Expression:
    tree = parse(text)
    for node in tree.walk():
        _check(node, columns, more, words)
    _check_types(tree, columns)
    return normalised(tree, columns)


def parse(text: str) -> exp.Expression:
    """Read one expression or statement.

    raises    ValueError: it is none, or more than one
    """
    import sqlglot
    from sqlglot.errors import SqlglotError

    if "{{" in text or "{%" in text:
        raise ValueError("templates are not run here; write the expression itself")
    try:
        found = sqlglot.parse(text, read="postgres")
    except SqlglotError:
        raise ValueError("not an expression that PostgreSQL would read") from None
    if len(found) != 1 or found[0] is None:
        raise ValueError("expected one expression, without a semicolon")
    return found[0]  # type: ignore[return-value]


def _check(node: exp.Expr, columns: Columns, more: frozenset[str], words: str) -> None:
    kind = type(node).__name__
    if kind == "Column":
        if node.args.get("table") is not None:
            raise ValueError(f"{node.sql()!r} names a table, expected the column alone")
        require(node.name, columns)
    elif kind == "Literal" and node.is_string and node.name.strip().lower() in _CLOCK_WORDS:
        raise ValueError("rows may not depend on the clock")
    elif kind == "Cast":
        kind_of_type(node.args["to"])
    elif kind in ("Extract", "DateTrunc", "TimestampTrunc"):
        unit = str(node.this.name if kind == "Extract" else node.args["unit"].name).upper()
        if unit not in _UNITS:
            units = ", ".join(sorted(_UNITS)).lower()
            raise ValueError(f"{unit.lower()!r} is not a unit, expected one of: {units}")
    elif kind in ("Select", "Subquery", "Exists", "Union", "Any", "All") or (
        kind == "In" and node.args.get("query")
    ):
        raise ValueError("a subquery is not allowed here, expected a step of its own: join, lookup or sql")
    elif kind not in _OPERATORS and kind not in _FUNCTIONS and kind not in more:
        shown = node.name or node.sql(dialect="postgres")
        shown = shown if len(shown) <= 40 else kind
        raise ValueError(
            f"{shown!r} is not allowed here; operators, case, casts, and these functions are: {words}"
        )


def require(word: str, columns: Columns) -> None:
    """Refuse a column that is not there.

    raises    ValueError: with those that are
    """
    if word not in columns:
        import difflib

        close = difflib.get_close_matches(word, columns, n=1)
        known = f"did you mean {close[0]}?" if close else f"expected one of: {', '.join(columns)}"
        raise ValueError(f"there is no column {word!r} here, {known}")


def _check_types(tree: exp.Expression, columns: Columns) -> None:
    for node in tree.walk():
        if isinstance(node, exp.Sum | exp.Avg | exp.Mul | exp.Div | exp.Mod | exp.Neg):
            for side in (node.this, node.args.get("expression")):
                if side is None:
                    continue
                kind = kind_of(side, columns)
                if kind is not None and not is_number(kind) and kind != "interval":
                    shown = side.sql(dialect="postgres") if len(side.sql()) <= 40 else type(side).__name__
                    raise ValueError(
                        f"{shown} is {kind}, expected a number; `cast(… as numeric)` makes it one"
                    )


def normalised(tree: exp.Expression, columns: Columns) -> exp.Expression:
    """The expression with one meaning on every engine."""

    def one_meaning(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Column):
            node.set("this", name(node.name))
        elif isinstance(node, exp.Div | exp.Mod):
            _divide(node, columns)
        elif isinstance(node, exp.Round) and node.args.get("decimals") is not None:
            if kind_of(node.this, columns) == "double precision":
                node.set("this", exp.cast(node.this, "numeric", dialect="postgres"))
        elif isinstance(node, exp.DateTrunc | exp.TimestampTrunc) and kind_of(node.this, columns) == "date":
            node.set("this", exp.cast(node.this, "timestamp", dialect="postgres"))
        return node

    return tree.transform(one_meaning)


def _divide(node: exp.Expr, columns: Columns) -> None:
    kind = kind_of(node.this, columns)
    if isinstance(node, exp.Div) and (kind is None or is_whole(kind)):
        node.set("this", exp.cast(node.this, "numeric", dialect="postgres"))
    by = node.expression
    if not (isinstance(by, exp.Literal) and by.name.strip("0.")):
        node.set("expression", exp.Nullif(this=by, expression=exp.Literal.number(0)))


def compared_by_code_point(tree: exp.Expression, columns: Columns) -> exp.Expression:
    """For PostgreSQL: texts whose order counts get the collation that Spark has anyway."""

    def ordered(node: exp.Expression) -> exp.Expression:
        if type(node).__name__ in _ORDERED:
            for key, value in list(node.args.items()):
                if isinstance(value, exp.Expr):
                    node.set(key, collated(value, columns))
                elif key == "expressions" and isinstance(value, list):
                    node.set(key, [collated(each, columns) for each in value])
        return node

    return tree.transform(ordered)


def collated(node: exp.Expr, columns: Columns) -> exp.Expr:
    """A text with the collation "C"; anything else as it is."""
    if isinstance(node, exp.Collate | exp.Literal) or kind_of(node, columns) != "text":
        return node
    return exp.Collate(this=exp.paren(node) if isinstance(node, exp.Binary) else node, expression=name("C"))
