"""What is asked for (ShopPlan) and what came of it (Generated)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from datops_assets.errors import DeclarationError
from datops_assets.synthetic.declaration import Fault, misfit

DEFAULT_START = date(2026, 1, 1)
_MOST_SCALE = 10_000
_LAST_START = date(9000, 1, 1)


@dataclass(frozen=True)
class ShopPlan:
    """A shop to generate. Everything in it follows from these values, byte for byte.

    days     how many days, from `start` on; a day's files do not depend on it
    scale    1 is 2,000 customers, 200 products and about 150 orders a day; thousandths count
    faults   what is damaged on purpose, see `read_faults`
    """

    seed: int
    days: int = 90
    scale: float = 1.0
    start: date = DEFAULT_START
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if self.days < 1:
            problems.append("--days is too small, expected 1 or more")
        if not 0.001 <= self.scale <= _MOST_SCALE:
            problems.append(f"--scale is out of range, expected 0.001 to {_MOST_SCALE}")
        if not date(1971, 1, 1) <= self.start <= _LAST_START:
            problems.append("--start is out of range, expected a day from 1971 to 8999")
        for position, fault in enumerate(self.faults):
            if found := misfit(fault):
                problems.append(f"faults[{position}].{found[0]} {found[1]}")
        if problems:
            raise DeclarationError(problems)

    @property
    def thousandths(self) -> int:
        """The scale in thousandths, so that everything below is integers."""
        return round(self.scale * 1000)


@dataclass(frozen=True)
class Generated:
    """What a call generated.

    files    every file it answers for, below `out`, in the order of days
    written  those of them that were not there yet, or with other content
    rows     records per table, injected ones included
    labels   injected faults, per table and fault: {"orders": {"negative": 12}}
    """

    out: Path
    files: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    rows: dict[str, int] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
