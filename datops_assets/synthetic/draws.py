"""Random numbers that are the same everywhere: each is a pure function of its name and its index.

Belongs here: turning (seed, names, index) into integers. Does not belong here: anything that
knows what is drawn.

numpy promises no stable stream for its Generator methods (NEP 19), and the last bit of log or
exp differs between machines. So a draw is SplitMix64 on a counter, in integers only. No draw
depends on how many were made before it: a day, a column or a fault can be added or left out
without moving any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Bits: TypeAlias = NDArray[np.uint64]

# SplitMix64 (Steele, Lea, Flood 2014): the counter's step and the two multipliers of its mixer.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


class Draws:
    """A family of random streams below one tuple of names, such as (seed, "orders", day)."""

    def __init__(self, *names: object) -> None:
        self._names = "\x1f".join(map(str, names))

    def bits(self, stream: str, index: Ints, version: Ints | None = None) -> Bits:
        """Draw 64 bits for each index (and version) of a stream."""
        named = blake2b(f"{self._names}\x1f{stream}".encode(), digest_size=8).digest()
        key = np.array([int.from_bytes(named, "big")], dtype=np.uint64)
        drawn = _mixed(key + (index.astype(np.uint64) + np.uint64(1)) * _STEP)
        if version is None:
            return drawn
        return _mixed(drawn + (version.astype(np.uint64) + np.uint64(1)) * _STEP)

    def below(self, stream: str, index: Ints, limit: int | Ints, version: Ints | None = None) -> Ints:
        """Draw an integer from 0 to `limit` - 1 for each index; the bias is below limit / 2**64."""
        top = np.asarray(limit, dtype=np.uint64)
        return (self.bits(stream, index, version) % top).astype(np.int64)

    def between(self, stream: str, index: Ints, low: int, high: int) -> Ints:
        """Draw an integer from `low` to `high`, both included, for each index."""
        return low + self.below(stream, index, high - low + 1)

    def happens(self, stream: str, index: Ints, rate: float) -> NDArray[np.bool_]:
        """Say for each index whether something of this rate (0 to 1) happens to it."""
        # 32 bits: a rate of 1 is 2**32, which none of them reaches, so it is always.
        high = self.bits(stream, index) >> np.uint64(32)
        return high < np.uint64(int(rate * 2**32))

    def pick(self, stream: str, index: Ints, cumulative: Ints, version: Ints | None = None) -> Ints:
        """Draw a position for each index, by weights given as their cumulative sum."""
        drawn = self.below(stream, index, int(cumulative[-1]), version)
        return np.searchsorted(cumulative, drawn, side="right").astype(np.int64)

    def one_below(self, stream: str, index: int, limit: int) -> int:
        """Draw one integer from 0 to `limit` - 1."""
        return int(self.below(stream, np.array([index], dtype=np.int64), limit)[0])


def cumulative(weights: Sequence[int] | Ints) -> Ints:
    """Sum weights up, as `Draws.pick` takes them."""
    return np.cumsum(np.asarray(weights, dtype=np.int64))


def numbered(count: int) -> Ints:
    """Count from 0: the indexes of a stream."""
    return np.arange(count, dtype=np.int64)


def _mixed(value: Bits) -> Bits:
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))
