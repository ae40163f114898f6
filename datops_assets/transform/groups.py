"""Steps that look at rows together: groups, neighbours, rows that become columns and back."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from datops_assets.transform import expressions
from datops_assets.transform.kinds import common, has_no_equality, kind_of
from datops_assets.transform.step import ColumnName, Given, Made, Order, Parameters, StepError, Text, at
from datops_assets.transform.syntax import column, columns_of, exp, named, number, text


def _require_groupable(given: Given, words: list[str], where: str) -> None:
    given.require(words, [where])
    for index, word in enumerate(words):
        if has_no_equality(given.columns[word]):
            raise StepError(
                f"{word} is {given.columns[word]}, which has no equality; derive a text of it before",
                [where, index],
            )


class Aggregate(Parameters):
    """One row of each group, with what its rows add up to."""

    word: ClassVar[str] = "aggregate"
    by: list[ColumnName] = Field(
        default_factory=list, description="Columns of the group; none: all rows are one."
    )
    columns: dict[ColumnName, Text] = Field(
        min_length=1,
        description="`name: expression`: `revenue: sum(total)`, `paid: count(*) filter (where paid)`.",
    )

    def apply(self, given: Given) -> Made:
        """`group by`."""
        _require_groupable(given, self.by, "by")
        kinds: dict[str, str | None] = {word: given.columns[word] for word in self.by}
        chosen: list[exp.Expression] = [column(word) for word in self.by]
        for word, said in self.columns.items():
            with at("columns", word):
                if word in self.by:
                    raise ValueError(f"{word} is a column of the group, expected another name")
                tree = expressions.aggregate_expression(said, given.columns)
            kinds[word] = kind_of(tree, given.columns)
            chosen.append(named(given.ready(tree), word))
        return Made(given.select(*chosen).group_by(*map(column, self.by)), kinds)


class Window(Parameters):
    """New columns from a row's neighbours: places, running totals, the row before."""

    word: ClassVar[str] = "window"
    by: list[ColumnName] = Field(default_factory=list, description="Neighbours have these columns in common.")
    order: list[Order] = Field(
        default_factory=list,
        description="Their order; ties are decided by the other columns, so rows are the same each time.",
    )
    last_rows: int | None = Field(
        None, ge=1, description="Aggregates look at so many rows up to this one; else at all up to this one."
    )
    columns: dict[ColumnName, Text] = Field(
        min_length=1, description="`name: expression`, e.g. `place: row_number()`, `so_far: sum(total)`."
    )

    def apply(self, given: Given) -> Made:
        """`over (…)`."""
        _require_groupable(given, self.by, "by")
        if self.last_rows is not None and not self.order:
            raise StepError("counts rows back, expected `order:` beside it", ["last_rows"])
        kinds, trees = dict(given.columns), {}
        for word, said in self.columns.items():
            with at("columns", word):
                trees[word] = expressions.window_expression(
                    said, given.columns, lambda node, framed: self._over(node, framed, given)
                )
                if not self.order and expressions.needs_order(trees[word]):
                    raise ValueError("goes by an order, expected `order:` beside `columns:`")
            kinds[word] = kind_of(trees[word], given.columns)
        chosen = [named(given.ready(trees[word]) if word in trees else column(word), word) for word in kinds]
        return Made(given.select(*chosen), kinds)

    def _over(self, node: exp.Expr, framed: bool, given: Given) -> exp.Expression:
        by = list(map(column, self.by))
        if not self.order:
            return exp.Window(this=node, partition_by=by)
        ordered = given.order(self.order, ["order"])
        # Places are shared by equal rows, as rank() and dense_rank() promise; all else wants one order.
        if not isinstance(node, exp.Rank | exp.DenseRank):
            first = {word.removeprefix("-") for word in self.order} | set(self.by)
            ordered += given.order(
                [
                    word
                    for word, kind in given.columns.items()
                    if word not in first and not has_no_equality(kind)
                ]
            )
        start = number(self.last_rows - 1) if self.last_rows else "UNBOUNDED"
        spec = exp.WindowSpec(kind="ROWS", start=start, start_side="PRECEDING", end="CURRENT ROW")
        order = exp.Order(expressions=ordered)
        return exp.Window(this=node, partition_by=by, order=order, spec=spec if framed else None)


class Pivot(Parameters):
    """Rows to columns: one row of each group, a column for each listed value."""

    word: ClassVar[str] = "pivot"
    by: list[ColumnName] = Field(min_length=1, description="Columns of the group.")
    column: ColumnName = Field(description="Whose values become columns.")
    values: list[str] | dict[str, ColumnName] = Field(
        min_length=1, description="The values, or `value: column` where its name should be another."
    )
    value: ColumnName | None = Field(None, description="What is added up; not for `count`.")
    function: Literal["count", "sum", "min", "max", "avg"] = "count"

    @model_validator(mode="after")
    def _value_where_needed(self) -> Pivot:
        if (self.value is None) != (self.function == "count"):
            said = (
                "counts rows, expected no `value:`" if self.value else "adds something up, expected `value:`"
            )
            raise ValueError(f"function: {self.function} {said}")
        return self

    def names(self) -> dict[str, str]:
        """The column of each value.

        raises    StepError: a value makes no name, or two make the same
        """
        if isinstance(self.values, dict):
            return self.values
        found: dict[str, str] = {}
        for index, value in enumerate(self.values):
            word = re.sub(r"[^a-z0-9]+", "_", value.lower()).strip("_")
            if not word or not word[0].isalpha() or word in found.values():
                raise StepError(
                    "makes no column name of its own, expected `value: column`", ["values", index]
                )
            found[value] = word
        return found

    def apply(self, given: Given) -> Made:
        """An aggregate with a filter for each value."""
        _require_groupable(given, self.by, "by")
        given.require([self.column], ["column"])
        if given.columns[self.column] not in (None, "text"):
            kind = given.columns[self.column]
            raise StepError(f"{self.column} is {kind}, expected a text; cast it before", ["column"])
        kinds: dict[str, str | None] = {word: given.columns[word] for word in self.by}
        chosen: list[exp.Expression] = [column(word) for word in self.by]
        for value, word in self.names().items():
            if word in kinds:
                raise StepError(f"two columns would be called {word}, expected different names", ["values"])
            tree = self._aggregate(given)
            condition = exp.EQ(this=column(self.column), expression=text(value))
            kinds[word] = kind_of(tree, given.columns)
            chosen.append(
                named(given.ready(exp.Filter(this=tree, expression=exp.Where(this=condition))), word)
            )
        return Made(given.select(*chosen).group_by(*map(column, self.by)), kinds)

    def _aggregate(self, given: Given) -> exp.Expression:
        if self.value is None:
            return exp.Count(this=exp.Star())
        with at("value"):
            return expressions.aggregate_expression(f'{self.function}("{self.value}")', given.columns)


class Unpivot(Parameters):
    """Columns to rows: a row for each listed column, with its name and its value."""

    word: ClassVar[str] = "unpivot"
    columns: list[ColumnName] = Field(min_length=1, description="The columns that become rows; of one type.")
    name: ColumnName = Field("name", description="Column of their names.")
    value: ColumnName = Field("value", description="Column of their values.")

    def apply(self, given: Given) -> Made:
        """A select for each column, one below the other."""
        given.require(self.columns, ["columns"])
        kept = {word: kind for word, kind in given.columns.items() if word not in self.columns}
        for word, where in ((self.name, "name"), (self.value, "value")):
            if word in kept or self.name == self.value:
                raise StepError(f"two columns would be called {word}, expected different names", [where])
        kinds = [given.columns[word] for word in self.columns]
        kind = common(kinds)
        if kind is None and None not in kinds:
            raise StepError("are of different types, expected one type; cast them before", ["columns"])
        # lateral values would read the rows once; a union is what Spark says the same way
        if given.engine == "postgres":
            return self._lateral(given, kept, kind)
        parts = [
            given.select(*columns_of(kept), named(text(word), self.name), named(column(word), self.value))
            for word in self.columns
        ]
        query: exp.Query = parts[0]
        for part in parts[1:]:
            query = exp.Union(this=query, expression=part, distinct=False)
        return Made(query, kept | {self.name: "text", self.value: kind})

    def _lateral(self, given: Given, kept: dict[str, str | None], kind: str | None) -> Made:
        rows = [exp.Tuple(expressions=[text(word), column(word)]) for word in self.columns]
        alias = exp.TableAlias(
            this=exp.to_identifier("unpivoted_"),
            columns=[exp.to_identifier(self.name, quoted=True), exp.to_identifier(self.value, quoted=True)],
        )
        listed = exp.Lateral(this=exp.Subquery(this=exp.Values(expressions=rows)), alias=alias)
        query = given.select(*columns_of(kept), column(self.name), column(self.value)).join(
            listed, join_type="cross"
        )
        return Made(query, kept | {self.name: "text", self.value: kind})


__all__ = ["Aggregate", "Pivot", "Unpivot", "Window"]
