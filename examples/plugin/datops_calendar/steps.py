"""A step for transformations: numbers into classes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator
from sqlglot import exp

from datops_assets.transform import ColumnName, Given, Made, Parameters, StepError


class Classify(Parameters):
    """A class for each number: the label of the first bound that it does not pass, else `above`."""

    word: ClassVar[str] = "classify"
    column: ColumnName = Field(description="Column of the numbers.")
    into: ColumnName = Field(description="New column of the labels.")
    up_to: dict[str, float] = Field(
        min_length=1, description="Label: greatest number that gets it, in growing order."
    )
    above: str = Field("above", description="Label of greater numbers.")

    @model_validator(mode="after")
    def _growing(self) -> Classify:
        bounds = list(self.up_to.values())
        if bounds != sorted(set(bounds)):
            raise ValueError("the bounds of up_to do not grow, expected e.g. {small: 10, large: 100}")
        return self

    def apply(self, given: Given) -> Made:
        """`case when … then … end`, built as a syntax tree: no text of a document is pasted into it."""
        given.require([self.column], ["column"])
        if given.columns[self.column] in ("text", "boolean", "json"):
            raise StepError(f"{self.column} is {given.columns[self.column]}, expected a number", ["column"])
        value = exp.column(self.column, quoted=True)
        case = exp.Case().when(value.is_(exp.null()), exp.null())
        for label, bound in self.up_to.items():
            case = case.when(value <= exp.convert(bound), exp.Literal.string(label))
        labels = case.else_(exp.Literal.string(self.above))
        columns = {**given.columns, self.into: "text"}
        chosen = [
            exp.alias_(labels, word, quoted=True) if word == self.into else exp.column(word, quoted=True)
            for word in columns
        ]
        return Made(given.select(*chosen), columns)
