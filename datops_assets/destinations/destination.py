"""What a destination promises: a table arrives whole or not at all, as far as the target can do that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from datops_assets.destinations.rows import Rows

TargetT = TypeVar("TargetT")


@dataclass(frozen=True)
class Delivered:
    """What one delivery did."""

    rows: int
    where: str
    """For people; no secret."""
    changed: bool = True
    """False: the target held just this already, or this very delivery had arrived before."""


class Destination(ABC, Generic[TargetT]):
    """Where tables go. A context manager: what it holds open it closes at the end."""

    @abstractmethod
    def deliver(self, rows: Rows, target: TargetT, marker: str) -> Delivered:
        """Deliver all rows.

        marker   names this delivery; the same one again, after a crash, is the same delivery
        raises   DestinationUnreachableError: try again. DestinationRefusedError: stop for a person.
                 In both cases the target is as it was, but for an API: what it took it has
        """

    def close(self) -> None:
        """Let go of what is open. May be called again."""

    def __enter__(self) -> Self:
        """Use the destination inside a with block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close, whatever happened."""
        self.close()
