"""How much happens on a day, and at which hour: week, year, growth and chance, in integers."""

from __future__ import annotations

from calendar import monthrange
from datetime import date, timedelta

from datops_assets.synthetic.draws import Draws, Ints, cumulative

# Per mille of an ordinary day. Monday first; the middle of each month, January first.
_WEEKDAY = (970, 930, 930, 960, 1060, 1160, 990)
_MONTH = (900, 880, 930, 950, 970, 960, 920, 910, 980, 1030, 1250, 1400)
_GROWTH_PER_YEAR = 120
_CHANCE = 80

# Share of a day's activity in each hour, UTC.
HOURS: Ints = cumulative(
    (9, 6, 4, 3, 3, 5, 12, 24, 38, 48, 52, 54, 60, 54, 48, 46, 50, 60, 74, 88, 92, 80, 54, 26)
)


def demand(seed: int, start: date, day: int) -> int:
    """Say how busy a day is, in per mille of an ordinary day; `day` counts from 0 at `start`."""
    today = start + timedelta(days=day)
    chance = Draws(seed, "demand").one_below("chance", day, 2 * _CHANCE + 1) - _CHANCE
    growth = 1000 + _GROWTH_PER_YEAR * day // 365
    return _WEEKDAY[today.weekday()] * _of_year(today) * growth * (1000 + chance) // 1000**3


def _of_year(today: date) -> int:
    """Interpolate between the middles of two months, so that no month begins with a jump."""
    length = monthrange(today.year, today.month)[1]
    past_middle = 2 * today.day - length
    here, neighbour = _MONTH[today.month - 1], _MONTH[today.month % 12]
    if past_middle < 0:
        neighbour = _MONTH[today.month - 2]
    return here + (neighbour - here) * abs(past_middle) // (2 * length)


class Counts:
    """How many of something (orders, sign-ups, visits) a shop sees on each day.

    per_day    on an ordinary day, in thousandths
    before     how many there were before the first day
    """

    def __init__(self, seed: int, start: date, name: str, per_day: int, *, before: int = 0) -> None:
        self._seed, self._start, self._name, self._per_day = seed, start, name, per_day
        self._until = [before]

    def on(self, day: int) -> int:
        """How many there are on a day."""
        return self.until(day) - self.until(day - 1)

    def until(self, day: int) -> int:
        """How many there have been up to the end of a day; day -1 is before the first."""
        while len(self._until) <= day + 1:
            self._until.append(self._until[-1] + self._drawn(len(self._until) - 1))
        return self._until[day + 1]

    def _drawn(self, day: int) -> int:
        # Rounded up or down by chance, or a small shop would have no order on any day.
        millionths = self._per_day * demand(self._seed, self._start, day)
        chance = Draws(self._seed, "counts").one_below(self._name, day, 1_000_000)
        return (millionths + chance) // 1_000_000
