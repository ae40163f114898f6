"""sqlglot's nodes, imported when a statement is built and not before.

Documents are read by processes that only load definitions; sqlglot costs 0.2 s there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlglot import exp

    from datops_assets.transform.kinds import Columns
else:

    class _Later:
        """Stands for `sqlglot.exp` until something is asked of it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(import_module("sqlglot.expressions"), name)

    exp = _Later()

__all__ = ["column", "columns_of", "exp", "name", "null", "number", "text"]


def name(word: str) -> exp.Identifier:
    """A name in quotes, so that no keyword is taken for one."""
    return exp.to_identifier(word, quoted=True)


def column(word: str, table: str | None = None) -> exp.Column:
    """A column by its name."""
    return exp.Column(this=name(word), table=name(table) if table else None)


def columns_of(columns: Columns, table: str | None = None) -> list[exp.Expression]:
    """Every column, in order."""
    return [column(word, table) for word in columns]


def named(value: exp.Expression, word: str) -> exp.Expression:
    """`value as word`; a column of that name as it is."""
    if isinstance(value, exp.Column) and value.name == word:
        return value
    return exp.Alias(this=value, alias=name(word))


def text(value: str) -> exp.Literal:
    """A text constant."""
    return exp.Literal.string(value)


def number(value: int) -> exp.Condition:
    """A whole number."""
    return exp.Literal.number(value)


def null() -> exp.Null:
    """No value."""
    return exp.Null()
