"""What commands and assets ask of a stream, however its changes are found: by the source's log, or by looking.

Belongs here: the interface and its answers. Does not: either way (log_capture, query/capture).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg

from datops_assets.cdc.drain import Drained
from datops_assets.cdc.preflight import Finding
from datops_assets.cdc.streaming import Progress

Connect = Callable[[], psycopg.Connection[Any]]
"""Opens one more connection to the warehouse."""


@dataclass(frozen=True)
class Copied:
    """What a snapshot copied."""

    place: str
    """Where the stream goes on from, in its own words."""
    rows: dict[str, int]
    """Per table of the stream."""


@dataclass(frozen=True)
class Standing:
    """How a stream stands, as the warehouse and the source say."""

    state: str | None
    """new, snapshot, streaming or resync_required; None: it never began."""
    reason: str | None = None
    """Why a person must decide."""
    since: str | None = None
    """Where its snapshot was taken."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What a person is shown."""
    figures: Mapping[str, float | int] = field(default_factory=dict)
    """What an asset shows over time."""
    tables: Mapping[str, Mapping[str, float | int | str]] = field(default_factory=dict)
    """What the assets of one table show besides, per table."""
    is_sound: bool = False
    """Whether it goes on by itself from where it is."""
    health: Mapping[str, str] = field(default_factory=dict)
    """What that was told by."""

    @property
    def has_begun(self) -> bool:
        """Whether its first snapshot is whole."""
        return self.state not in (None, "new", "snapshot")


class Moved(Protocol):
    """What was done since something was said last."""

    @property
    def changes(self) -> int:
        """Of all tables."""
        ...

    @property
    def transactions(self) -> int:
        """Of the source; 0 where it does not show them."""
        ...

    @property
    def seconds(self) -> float:
        """How long it took."""
        ...

    @property
    def applied(self) -> str:
        """The place that was reached."""
        ...


class Capture(ABC):
    """One stream. Connections to the warehouse are autocommit; who moves it holds its lease."""

    source: str
    """The stream's name."""

    @abstractmethod
    def preflight(self) -> list[Finding]:
        """Say what stands in the way. Raises SourceUnreachableError, SourceRefusedError."""

    @abstractmethod
    def snapshot(self, warehouse: psycopg.Connection[Any], connect: Connect) -> Copied:
        """Copy all tables as they are now, in place of what there was; killed, the next call begins anew."""

    @abstractmethod
    def drain(self, warehouse: psycopg.Connection[Any], connect: Connect) -> Drained:
        """Bring what the source has by now. Rows, mirror and place commit together."""

    @abstractmethod
    def stream(
        self,
        warehouse: psycopg.Connection[Any],
        connect: Connect,
        *,
        stopping: Callable[[], bool],
        report: Callable[[Progress], None],
        every_s: float | None,
        report_s: float,
    ) -> None:
        """Go on until `stopping`.

        every_s    longest wait between two commits; None: what suits the way
        """

    @abstractmethod
    def stop(self, warehouse: psycopg.Connection[Any]) -> None:
        """Forget the stream here and in the source; bronze keeps its tables."""

    @abstractmethod
    def standing(self, warehouse: psycopg.Connection[Any]) -> Standing:
        """Ask where it is."""

    @abstractmethod
    def news(self, standing: Standing) -> tuple[bool, str]:
        """Say whether a run is worth it, and why or why not. The snapshot is whole, and no person is needed."""

    @abstractmethod
    def said(self, done: Moved) -> str:
        """One line about what was done."""
