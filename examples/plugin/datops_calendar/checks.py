"""A rule for contracts: a day on which somebody works."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from datops_assets.quality import OwnCheck


class WorkingDay(OwnCheck):
    """A day is no Saturday, no Sunday, and none of the days that are named."""

    word: ClassVar[str] = "working_day"
    column: str = Field(pattern=r"^[a-z_][a-z0-9_]*$", description="Column of the days.")
    closed: list[str] = Field(
        default_factory=list, description="More days on which nobody works, as MM-DD, e.g. 12-25."
    )

    def expression(self) -> str:
        """In the words of an `expression:` rule: judged in the warehouse and in tests alike."""
        days = [tuple(map(int, day.split("-"))) for day in self.closed]
        others = [
            f"and not (extract(month from {self.column}) = {month} and extract(day from {self.column}) = {day})"
            for month, day in days
        ]
        return " ".join([f"extract(isodow from {self.column}) < 6", *others])

    def reason(self) -> str:
        """What the quarantine says of a row; never its value."""
        return "nobody works on that day"
