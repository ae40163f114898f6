"""What every part of a contract has in common, and the values that stand in one.

Belongs here: what rules of columns and of tables are made of. Does not: the rules (column_rule.py,
contract_rules.py), the contract as a whole (contract.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

Severity = Literal["warn", "error", "block"]
Scalar = bool | int | float | Decimal | datetime | date | str


class Part(BaseModel):
    """Part of a document: no key that it does not know, and it does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Judged(Part):
    """A rule that rows keep or break, and how bad that is."""

    severity: Severity = Field(
        "error", description="warn counts, error sets rows aside, block rolls the judgement back."
    )
    max_rows: int | None = Field(None, ge=0, description="More failing rows than this fail the check.")
    max_ratio: float | None = Field(
        None, ge=0, le=1, description="A larger share of failing rows fails the check."
    )


class Length(Part):
    """Bounds of a text's length, in characters."""

    min: int | None = Field(None, ge=0)
    max: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> Length:
        if self.min is None and self.max is None:
            raise ValueError("expected min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        return self


def parts_error(problems: Sequence[tuple[tuple[str | int, ...], str]]) -> PydanticCustomError:
    """One error for problems at several places: `(location, sentence)` pairs, so that each line can be named."""
    sentences = "; ".join(f"{'.'.join(map(str, where))}: {what}" for where, what in problems)
    return PydanticCustomError(
        "contract_parts", "{sentences}", {"sentences": sentences, "problems": problems}
    )
