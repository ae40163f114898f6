"""What a step is: parameters that a document gives, and the select that they become.

Belongs here: the interface that every step has, those of plug-ins too (entry point group
`datops.transforms`), and the types of texts that steps share. Does not: any one step.

A step's class is a pydantic model of its parameters. `apply` is all there is: it is called to check
a document as well as to build a statement, so it must ask nothing of the outside and never guess.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from datops_assets.transform import expressions
from datops_assets.transform.kinds import Columns, read_kind
from datops_assets.transform.syntax import column, exp, named

Engine = Literal["postgres", "spark"]
_COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_INPUT = re.compile(r"[a-z][a-z0-9_]{0,39}(\.[a-z][a-z0-9_]{0,39})?\Z")
_RESERVED = frozenset({"tableoid", "xmin", "xmax", "cmin", "cmax", "ctid"})


class StepError(ValueError):
    """A parameter of a step does not fit the columns that come in. `where` leads to it below the step."""

    def __init__(self, what: str, where: Sequence[str | int] = ()) -> None:
        self.where = tuple(where)
        super().__init__(what)


def _column_name(value: str) -> str:
    if not _COLUMN_NAME.match(value) or value in _RESERVED:
        raise ValueError("not a name, expected lower case letters, digits and _ (at most 63, a letter first)")
    return value


def _input(value: str) -> str:
    if not _INPUT.match(value):
        raise ValueError("not a table, expected one of this document, or PIPELINE.TABLE such as shop.orders")
    return value


def _order(value: str) -> str:
    _column_name(value.removeprefix("-"))
    return value


def _kind(value: str) -> str:
    read_kind(value)
    return value


ColumnName = Annotated[str, AfterValidator(_column_name)]
Input = Annotated[str, AfterValidator(_input)]
Order = Annotated[str, AfterValidator(_order)]
"""A column to sort by; `-total` is the largest first. Nulls come last either way."""
KindName = Annotated[str, AfterValidator(_kind)]
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Table:
    """What a step reads: where it is, and its columns in order."""

    reference: exp.Table
    columns: Columns


@dataclass(frozen=True)
class Given:
    """What a step gets.

    table     the rows so far
    others    the tables that `Step.inputs` names, by the names it gives
    engine    whose statement is built; one tree serves both where SQL agrees
    last      whether no step follows
    """

    table: Table
    others: Mapping[str, Table] = field(default_factory=dict)
    engine: Engine = "postgres"
    last: bool = True

    @property
    def columns(self) -> Columns:
        """Columns of the rows so far."""
        return self.table.columns

    def select(self, *outputs: exp.Expression) -> exp.Select:
        """`select … from` the rows so far."""
        return exp.Select().select(*outputs).from_(self.table.reference.copy())

    def require(self, names: Sequence[str], where: Sequence[str | int] = ()) -> None:
        """Refuse columns that are not there. Raises StepError."""
        for index, word in enumerate(names):
            with at(*where, index):
                expressions.require(word, self.columns)

    def expression(self, text: str, where: Sequence[str | int] = ()) -> exp.Expression:
        """Read an expression over one row. Raises StepError."""
        with at(*where):
            return self.ready(expressions.row_expression(text, self.columns))

    def ready(self, tree: exp.Expression) -> exp.Expression:
        """The expression as this engine has to be told."""
        return expressions.compared_by_code_point(tree, self.columns) if self.engine == "postgres" else tree

    def order(self, words: Sequence[str], where: Sequence[str | int] = ()) -> list[exp.Expression]:
        """What `order by` says; texts by code point, nulls last. Raises StepError."""
        found: list[exp.Expression] = []
        for index, word in enumerate(words):
            with at(*where, index):
                expressions.require(word.removeprefix("-"), self.columns)
            value: exp.Expr = column(word.removeprefix("-"))
            if self.engine == "postgres":
                value = expressions.collated(value, self.columns)
            found.append(exp.Ordered(this=value, desc=word.startswith("-"), nulls_first=False))
        return found


@dataclass(frozen=True)
class Made:
    """What a step gives: a select, and the columns it has, in order."""

    query: exp.Query
    columns: Columns


class Step(ABC):
    """One step of a transformation. Subclasses are pydantic models of their parameters.

    A plug-in's class is registered under `datops.transforms` by the name that documents use.
    """

    word: ClassVar[str]
    """The key a document uses."""

    def inputs(self) -> list[str]:
        """Other tables that it reads: `orders` of this document, or `shop.orders`."""
        return []

    @abstractmethod
    def apply(self, given: Given) -> Made:
        """Build the select of this step on what is given.

        Two calls with equal parameters give equal statements, and the rows depend on the data alone.

        raises    StepError: a parameter does not fit the columns, and what would
        """

    @classmethod
    def summary(cls) -> str:
        """One line for lists: the first of the class's docstring."""
        return (cls.__doc__ or cls.word).strip().splitlines()[0]


class Parameters(BaseModel, Step):
    """A step whose parameters are a mapping: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


@contextmanager
def at(*where: str | int) -> Iterator[None]:
    """Say of an error where it is below the step."""
    try:
        yield
    except StepError as error:
        raise StepError(str(error), (*where, *error.where)) from None
    except ValueError as error:
        raise StepError(str(error), where) from None


Value = TypeVar("Value")


def outputs(
    values: Mapping[str, Value], build: Callable[[str, Value], exp.Expression]
) -> list[exp.Expression]:
    """`value as name` of each, in order."""
    return [named(build(word, value), word) for word, value in values.items()]
