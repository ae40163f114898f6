"""Which type holds what a bronze column has and what comes next: one table, whatever brings it. Pure."""

from __future__ import annotations

import re

_WIDER: dict[str, tuple[str, ...]] = {
    "smallint": ("integer", "bigint", "real", "double precision", "numeric"),
    "integer": ("bigint", "double precision", "numeric"),
    "bigint": ("numeric",),
}
"""Changes of a column's type that change no value; whole numbers also widen to numeric (see `wider`).

Not real to double precision: 0.1 would be 0.10000000149011612 from then on, also in a rebuild.
"""
_DIGITS = {"smallint": 5, "integer": 10, "bigint": 19}
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")
_MOST_DIGITS = 76
"""What an Arrow decimal can hold; PostgreSQL could hold more."""


def wider(held: str, delivered: str) -> str | None:
    """Return the type that holds what a bronze column has and what is delivered; None: there is none.

    promise    no value changes, neither of those there nor of those to come
    """
    if held == delivered or held in _WIDER.get(delivered, ()):
        return held
    if delivered in _WIDER.get(held, ()):
        return delivered
    one, other = _numeric_shape(held), _numeric_shape(delivered)
    if "numeric" in (held, delivered) and (one or other):
        return "numeric"
    if one is None or other is None:
        return None
    whole, scale = max(one[0] - one[1], other[0] - other[1]), max(one[1], other[1])
    return f"numeric({whole + scale},{scale})" if whole + scale <= _MOST_DIGITS else None


_PRINTED = (
    *(
        "smallint",
        "integer",
        "bigint",
        "real",
        "double precision",
        "numeric(10,2)",
        "numeric(12,4)",
        "numeric",
    ),
    *("text", "json", "boolean", "date", "timestamp", "timestamptz"),
)


def print_widening() -> str:
    """The table of the documentation: what bronze becomes when a column comes with another type."""
    lines = ["| in bronze | comes as | bronze becomes |", "| --- | --- | --- |"]
    for held in _PRINTED:
        by_target: dict[str | None, list[str]] = {}
        for delivered in _PRINTED:
            if delivered != held:
                by_target.setdefault(wider(held, delivered), []).append(f"`{delivered}`")
        for target, names in by_target.items():
            if target is not None:
                becomes = "the same" if target == held else f"`{target}`"
                lines.append(f"| `{held}` | {', '.join(names)} | {becomes} |")
    return "\n".join([*lines, "| any | any other | refused: no type holds both |"])


def _numeric_shape(name: str) -> tuple[int, int] | None:
    match = _NUMERIC.fullmatch(name)
    if match is not None:
        return int(match[1]), int(match[2])
    return (_DIGITS[name], 0) if name in _DIGITS else None
