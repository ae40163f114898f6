"""Who buys: a population that grows day by day and whose members change now and then.

A customer's state on a day is a function of its id and the day, so that a day's file can be
made without the days before it.
"""

from __future__ import annotations

from datetime import date

import numpy as np

from datops_assets.synthetic import words
from datops_assets.synthetic.cells import Frame, Values, epoch_s
from datops_assets.synthetic.draws import Draws, Ints, cumulative, numbered
from datops_assets.synthetic.seasons import HOURS, Counts
from datops_assets.synthetic.tables import CUSTOMERS

_BEFORE = 1_500
_PER_DAY = 6_300  # thousandths; 2,000 customers after 90 days from January
_HISTORY_S = 3 * 365 * 86_400
_SHORTEST_PERIOD, _PERIODS = 60, 240
# A customer's weight is 1 / (x + 1/50) with x uniform in 0 to 1: a Zipf-like tail whose
# busiest customer orders about once a day at scale 1.
_WEIGHT_RANGE = 1 << 20


class Customers:
    """The shop's customers, numbered from 1 in the order in which they signed up."""

    def __init__(self, seed: int, start: date, thousandths: int) -> None:
        self._draws = Draws(seed, "customers")
        self._start_s = epoch_s(start)
        self._before = max(1, _BEFORE * thousandths // 1000)
        self._counts = Counts(seed, start, "customers", _PER_DAY * thousandths // 1000, before=self._before)
        self._weights: Ints = cumulative([])
        self._signed_up: dict[int, Ints] = {}

    def until(self, day: int) -> int:
        """How many there are by the end of a day; also the highest customer_id."""
        return self._counts.until(day)

    def cumulative_weights(self, day: int) -> Ints:
        """How much more than others each customer of a day visits and buys, summed up."""
        count = self.until(day)
        if len(self._weights) < count:
            drawn = self._draws.below("weight", numbered(count + count // 4), _WEIGHT_RANGE)
            self._weights = skewed(drawn)
        return self._weights[:count]

    def signed_up_s(self, customer_ids: Ints) -> Ints:
        """When each customer signed up (seconds since 1970); never decreasing with the id."""
        position = customer_ids - 1
        gap = _HISTORY_S // self._before
        early = self._start_s - _HISTORY_S + position * gap
        signed_up = early + self._draws.below("signed_up", customer_ids, max(gap, 1))
        late = np.flatnonzero(position >= self._before)
        if late.size:
            signed_up[late] = self._of_new(position[late])
        return signed_up

    def delta(self, day: int) -> Frame:
        """The customers that are new or changed on a day, as they are at its end.

        The first day's delta holds everybody.
        """
        ids = numbered(self.until(day)) + 1
        periods, age = self._ages(ids, day)
        # Who signs up today is of age 0.
        changed = (age % periods == 0) | (day == 0)
        ids, periods, age = ids[changed], periods[changed], age[changed]
        return self._as_of(ids, day, version=age // periods, days_ago=age % periods)

    def _ages(self, ids: Ints, day: int) -> tuple[Ints, Ints]:
        """Days from one change of a customer to its next, and days since it came to be.

        Those from before the first day start at an age of their own: some have changed already,
        and not all of them change next on the same day.
        """
        periods = _SHORTEST_PERIOD + self._draws.below("period", ids, _PERIODS)
        joined = self._joined_day(ids - 1)
        phase = 1 + self._draws.below("phase", ids, 3 * periods - 1)
        return periods, np.where(joined < 0, phase + day, day - joined)

    def _as_of(self, ids: Ints, day: int, version: Ints, days_ago: Ints) -> Frame:
        draws, signed_up = self._draws, self.signed_up_s(ids)
        change = self._start_s + (day - days_ago) * 86_400 + draws.below("at", ids, 86_400, version)
        updated = np.where(version > 0, np.maximum(change, signed_up), signed_up)
        home = draws.pick("home", ids, _HOMES, version // 3)
        names = [
            _name(*drawn)
            for drawn in zip(
                home.tolist(),
                draws.bits("given", ids).tolist(),
                draws.bits("family", ids, version // 4).tolist(),
                draws.below("odd", ids, 1000).tolist(),
                strict=True,
            )
        ]
        hosts = draws.below("host", ids, len(words.MAIL_HOSTS), version // 2).tolist()
        segments = draws.pick("segment", ids, _SEGMENTS, version).tolist()
        columns: dict[str, Values] = {
            "customer_id": ids,
            "email": [
                f"{mail or 'customer'}.{number}@{words.MAIL_HOSTS[host]}"
                for (_, mail), number, host in zip(names, ids.tolist(), hosts, strict=True)
            ],
            "full_name": [name for name, _ in names],
            "country": [words.PEOPLE[country][0] for country in home.tolist()],
            "segment": [words.SEGMENTS[segment][0] for segment in segments],
            "signed_up_at": signed_up,
            "updated_at": updated,
        }
        return Frame(CUSTOMERS, columns)

    def _joined_day(self, position: Ints) -> Ints:
        """The day a customer signed up on; -1 for those from before the first day."""
        last = int(position.max(initial=0))
        ends: list[int] = []
        while not ends or ends[-1] <= last:
            ends.append(self._counts.until(len(ends) - 1))
        return np.searchsorted(np.array(ends), position, side="right").astype(np.int64) - 1

    def _of_new(self, position: Ints) -> Ints:
        day = self._joined_day(position)
        found = np.empty_like(position)
        for today in np.unique(day).tolist():
            here = np.flatnonzero(day == today)
            found[here] = self._sign_ups(today)[position[here] - self.until(today - 1)]
        return found

    def _sign_ups(self, day: int) -> Ints:
        """When the new customers of a day signed up, in the order of their ids."""
        if day not in self._signed_up:
            if len(self._signed_up) > _REMEMBERED_DAYS:
                self._signed_up.clear()
            index = numbered(self._counts.on(day)) + (day << 32)
            hour = self._draws.pick("signed_up_hour", index, HOURS)
            second = hour * 3600 + self._draws.below("signed_up_second", index, 3600)
            self._signed_up[day] = self._start_s + day * 86_400 + np.sort(second)
        return self._signed_up[day]


# Sign-ups of so many days stay in memory; what is forgotten is drawn again.
_REMEMBERED_DAYS = 2_000
_HOMES = cumulative([weight for _, weight, _, _ in words.PEOPLE])
_SEGMENTS = cumulative([weight for _, weight in words.SEGMENTS])


def skewed(drawn: Ints) -> Ints:
    """Turn uniform draws below 2**20 into Zipf-like weights, summed up."""
    return np.cumsum((np.int64(_WEIGHT_RANGE) << 10) // (drawn + _WEIGHT_RANGE // 50))


def _name(home: int, given_bits: int, family_bits: int, odd: int) -> tuple[str, str]:
    """Make a name, and the left side of its mail address."""
    _, _, givens, families = words.PEOPLE[home]
    given = givens[given_bits % len(givens)]
    family = families[family_bits % len(families)]
    mail = words.mail_name(given) + words.mail_name(family)
    spare = family_bits >> 32
    if odd < 20:
        nickname = words.NICKNAMES[spare % len(words.NICKNAMES)]
        return f'{given} "{nickname}" {family}', mail
    if odd < 40:
        return f"{family}, {given}", mail
    if odd < 50:
        return f"{given} {family} {words.EMOJI[spare % len(words.EMOJI)]}", mail
    if odd < 54:
        return f"{given} {family}\n{words.CARE_OF[spare % len(words.CARE_OF)]}", mail
    return f"{given} {family}", mail
