"""The rules of a table: over a row, over a key, over other tables, over all of it.

Belongs here: what a document may say below `rules:`. Does not: rules of one column (column_rule.py), whether they fit
the contract they stand in (contract.py), how a verdict is reached (row_checks.py, set_rules.py, table_rules.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from datops_assets.quality.contract_parts import Judged, Length, Part, parts_error
from datops_assets.quality.own_check import OwnCheck

_AGGREGATE = re.compile(r"(count|sum|min|max|avg)\((\*|[a-z][a-z0-9_]{0,62})\)")


class _NamedRule(Judged):
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_]{1,80}$", description="Letters, digits and _: the asset check's name."
    )
    description: str | None = None

    def sentence(self) -> str:
        """What the rule says, for people."""
        return self.description or self._says()

    def check_name(self) -> str:
        """The rule's name, or one made of what it says; letters, digits and _ only."""
        return self.name or re.sub(r"[^A-Za-z0-9]+", "_", self._says()).strip("_")[:80]

    def _says(self) -> str:
        raise NotImplementedError


class ExpressionRule(_NamedRule):
    """A condition over one row in SQL. A row fails when it is false; null passes, as in a CHECK constraint."""

    expression: str

    def _says(self) -> str:
        return f"expression {' '.join(self.expression.split())}"

    def reason(self) -> str:
        """What is said of a row that fails."""
        return f"{self.name or self.expression}: is false"


FindCheck = Callable[[str], type[OwnCheck]]


def _no_plugins(name: str) -> type[OwnCheck]:
    raise ValueError(f"there is no check {name!r}, expected one that an installed package brings")


class OwnCheckRule(_NamedRule):
    """A condition over one row that an installed package brings. A row fails when it is false; null passes."""

    check: str = Field(description="Its name: `datops plugins list` shows which there are.")
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="Its parameters.")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    find: ClassVar[FindCheck] = staticmethod(_no_plugins)
    """Looks up a check by its name, or raises ValueError. Set by whoever knows plug-ins."""

    @model_validator(mode="after")
    def _parameters_fit(self) -> OwnCheckRule:
        try:
            found = type(self).find(self.check)
        except ValueError as error:
            raise parts_error([(("check",), str(error))]) from None
        try:
            found.model_validate(self.with_)
        except ValidationError as error:
            raise parts_error(
                [
                    (("with", *each["loc"]), each["msg"].removeprefix("Value error, "))
                    for each in error.errors()
                ]
            ) from None
        return self

    @property
    def own(self) -> OwnCheck:
        """The check with its parameters."""
        return type(self).find(self.check).model_validate(self.with_)

    @property
    def expression(self) -> str:
        """The condition as an expression rule would have it."""
        return self.own.expression()

    def reason(self) -> str:
        """What is said of a row that fails."""
        return f"{self.check_name()}: {self.own.reason()}"

    def _says(self) -> str:
        return " ".join([self.check, *(f"{key} {value}" for key, value in self.with_.items())])


class UniqueRule(_NamedRule):
    """No two rows of silver share these values. Rows with a null among them are left alone."""

    unique: list[str] = Field(min_length=1)

    def _says(self) -> str:
        return f"unique {', '.join(self.unique)}"


class ForeignKeyRule(_NamedRule):
    """These values exist in another silver table when the row is judged. A null among them passes."""

    foreign_key: list[str] = Field(min_length=1)
    references: str = Field(description="A table of the same pipeline, or pipeline.table.")
    columns: list[str] = Field(min_length=1, description="Its columns, in the same order.")

    @model_validator(mode="after")
    def _pairs(self) -> ForeignKeyRule:
        if len(self.foreign_key) != len(self.columns):
            raise ValueError("foreign_key and columns differ in length")
        return self

    def their_columns(self) -> list[str]:
        """The columns of the other table that it reads."""
        return list(self.columns)

    def _says(self) -> str:
        return f"foreign_key {', '.join(self.foreign_key)} in {self.references}"


class HoldsRule(_NamedRule):
    """A condition over a row and the one it belongs to in another silver table, whose columns are `table.column`.

    A row fails when it is false; null passes, and so does a row without a match.
    """

    holds: str = Field(description="e.g. `shipped_at >= orders.ordered_at`.")
    references: str = Field(description="A table of the same pipeline, or pipeline.table.")
    match: list[str] = Field(min_length=1, description="Columns of this table that find the other row.")
    columns: list[str] = Field(min_length=1, description="Its columns, in the same order.")

    @model_validator(mode="after")
    def _pairs(self) -> HoldsRule:
        if len(self.match) != len(self.columns):
            raise ValueError("match and columns differ in length")
        return self

    @property
    def prefix(self) -> str:
        """What stands before the other table's columns in the condition."""
        return self.references.rpartition(".")[2]

    def their_columns(self) -> list[str]:
        """The columns of the other table that it reads."""
        from datops_assets.quality.expressions import joined_columns

        return list(dict.fromkeys([*self.columns, *joined_columns(self.holds, self.prefix)]))

    def _says(self) -> str:
        return f"holds {' '.join(self.holds.split())}"


class CompareRule(_NamedRule):
    """An aggregate of this table against one of another silver table, group by group. A check of the whole table."""

    compare: str = Field(description="`sum(amount)`; also count(*), min, max, avg.")
    equals: str = Field(description="The other table's aggregate, e.g. `sum(total)`.")
    references: str = Field(description="A table of the same pipeline, or pipeline.table.")
    by: list[str] = Field(
        default_factory=list, description="Columns that name a group; none: the whole table."
    )
    columns: list[str] = Field(
        default_factory=list, description="The other table's columns for `by`, in order."
    )
    tolerance: Decimal = Field(Decimal(0), ge=0, description="The largest difference that counts as equal.")

    @field_validator("compare", "equals")
    @classmethod
    def _aggregate(cls, text: str) -> str:
        found = _AGGREGATE.fullmatch(text)
        if found is None or (found[2] == "*" and found[1] != "count"):
            raise ValueError("not an aggregate, expected count(*) or sum, min, max, avg, count of one column")
        return text

    @model_validator(mode="after")
    def _pairs(self) -> CompareRule:
        if len(self.by) != len(self.columns):
            raise ValueError("by and columns differ in length")
        return self

    @property
    def ours(self) -> tuple[str, str | None]:
        """Function and column of this table's aggregate; the column is None for count(*)."""
        return _read_aggregate(self.compare)

    @property
    def theirs(self) -> tuple[str, str | None]:
        """The same of the other table's."""
        return _read_aggregate(self.equals)

    def their_columns(self) -> list[str]:
        """The columns of the other table that it reads."""
        column = self.theirs[1]
        return list(dict.fromkeys([*self.columns, *([column] if column else [])]))

    def _says(self) -> str:
        return f"{self.compare} equals {self.equals} of {self.references}"


def _read_aggregate(text: str) -> tuple[str, str | None]:
    found = _AGGREGATE.fullmatch(text)
    assert found is not None
    return found[1], None if found[2] == "*" else found[2]


class FreshnessRule(_NamedRule):
    """The newest value of a column is not older than this when the table is judged, or looked at."""

    freshness: str = Field(description="A column of type date, timestamp (taken as UTC) or timestamptz.")
    max_age_h: float = Field(gt=0, le=24 * 3650, description="Hours; a day counts as lasting until its end.")

    def _says(self) -> str:
        return f"freshness of {self.freshness}"


class Volume(Part):
    """Bounds of a number of rows: absolute, or around the usual number."""

    min: int | None = Field(None, ge=0)
    max: int | None = Field(None, ge=0)
    within: float | None = Field(
        None,
        gt=0,
        description="At most this share above or below the usual: 0.5 takes 50 to 150 where 100 is.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Volume:
        if self.min is None and self.max is None and self.within is None:
            raise ValueError("expected min, max, within or several of them")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        return self


class VolumeRule(_NamedRule):
    """How many rows each load, or each day, brings. The usual number is the median of those before."""

    volume: Volume
    per: Literal["load", "day"] = Field(
        "load", description="`day`: the load's partition, else the day it was loaded (UTC)."
    )
    history: int = Field(
        10, ge=3, le=1000, description="Loads or days before that say what is usual; 3 at least."
    )

    def _says(self) -> str:
        return f"volume per {self.per}"


class RowCountRule(_NamedRule):
    """How many rows silver (`of: table`) or what is judged now (`of: load`) may hold."""

    row_count: Length
    of: Literal["table", "load"] = "table"

    def _says(self) -> str:
        return f"row_count of the {self.of}"


_RULES = {
    "expression": ExpressionRule,
    "check": OwnCheckRule,
    "unique": UniqueRule,
    "foreign_key": ForeignKeyRule,
    "row_count": RowCountRule,
    "holds": HoldsRule,
    "compare": CompareRule,
    "freshness": FreshnessRule,
    "volume": VolumeRule,
}
RowRule = ExpressionRule | OwnCheckRule
"""Conditions over one row: both have an `expression` and a `reason`."""
ReferringRule = ForeignKeyRule | HoldsRule | CompareRule
"""Rules that look into another silver table, which therefore is judged first."""
TableRule = RowCountRule | CompareRule | FreshnessRule | VolumeRule
"""Checks of the whole table: they set no row aside."""


_BESIDE = "(check)"  # in brackets, as pydantic has what is no key of a document


def _rule_kind(value: Any) -> str | None:
    if isinstance(value, Mapping):
        found = [key for key in _RULES if key in value]
        kind = found[0] if len(found) == 1 else None
    else:
        kind = next((key for key, model in _RULES.items() if isinstance(value, model)), None)
    # What is wrong with `with:` stands beside the key `check:`, not below it.
    return _BESIDE if kind == "check" else kind


Rule = Annotated[
    Annotated[ExpressionRule, Tag("expression")]
    | Annotated[OwnCheckRule, Tag(_BESIDE)]
    | Annotated[UniqueRule, Tag("unique")]
    | Annotated[ForeignKeyRule, Tag("foreign_key")]
    | Annotated[RowCountRule, Tag("row_count")]
    | Annotated[HoldsRule, Tag("holds")]
    | Annotated[CompareRule, Tag("compare")]
    | Annotated[FreshnessRule, Tag("freshness")]
    | Annotated[VolumeRule, Tag("volume")],
    Discriminator(
        _rule_kind,
        custom_error_type="rule_kind",
        custom_error_message=f"not a rule, expected exactly one of: {', '.join(_RULES)}",
    ),
]
