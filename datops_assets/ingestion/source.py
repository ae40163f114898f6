"""What a source promises to the loader. Files keep it today; databases and APIs join by keeping it too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from datops_assets.ingestion.tables import Format

if TYPE_CHECKING:  # pyarrow takes 0.3 s to import; only Parquet needs it
    import pyarrow as pa

TableT = TypeVar("TableT")


@dataclass(frozen=True)
class Reachability:
    """Whether a source answers, in one sentence a person can act on."""

    ok: bool
    message: str


@dataclass(frozen=True)
class Unit:
    """One thing that is loaded whole or not at all: a file, a page of an API, a range of a table."""

    path: str
    """Identity inside the table; for files the path below the root, with forward slashes."""
    format: Format | None
    """None: nobody said how it is written; it is refused, alone."""
    size_bytes: int
    fingerprint: str
    """Changes whenever the content may have changed; cheap to get."""
    partition_key: str | None = None
    location: str = ""
    """Where the source itself finds it."""
    waiting: str | None = None
    """Why it must not be taken yet; None when it is complete."""
    refused: str | None = None
    """Why it cannot be taken at all and what to do: the rest of a sentence about it."""


class Delivery(ABC):
    """An opened unit; a context manager. Read all of it, then ask for `content_hash`."""

    @abstractmethod
    def content_hash(self) -> str:
        """Return the sha256 of what was delivered.

        raises     FileChangedError: what was read is not one version of the unit.
                   The caller keeps nothing of it.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of whatever is open."""

    def __enter__(self) -> Self:
        """Deliver inside a with block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close, whatever happened."""
        self.close()


class TextDelivery(Delivery):
    """Bytes in a text format (CSV, JSON lines, JSON)."""

    @abstractmethod
    def chunks(self) -> Iterator[bytes]:
        """Yield the uncompressed bytes in order, about a MiB each, cut anywhere.

        raises     ContainerDamagedError: the compression is broken or cut off.
                   FileChangedError: it vanished.
        """


class ArrowDelivery(Delivery):
    """Record batches with one schema."""

    @abstractmethod
    def schema(self) -> pa.Schema:
        """Return the columns as delivered; duplicate names are allowed."""

    @abstractmethod
    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, in batches of bounded size."""


class Source(ABC, Generic[TableT]):
    """Where rows come from. Five promises; the shared suite `SourceContract` in the tests checks them."""

    @abstractmethod
    def check(self, table: TableT) -> Reachability:
        """Say whether the table can be read now; never raises for an unreachable source."""

    @abstractmethod
    def list_units(self, table: TableT) -> Sequence[Unit]:
        """List all that is there now, in load order. The same state gives the same list. Opens no content."""

    @abstractmethod
    def open(self, unit: Unit) -> Delivery:
        """Open a unit for one pass. Opening it again delivers the same bytes, or content_hash() raises."""

    @abstractmethod
    def sketch(self, table: TableT) -> list[str]:
        """Name the columns of the newest unit, without loading anything."""

    @abstractmethod
    def acknowledge(self, unit: Unit) -> None:
        """Hear that the unit is durably loaded. May be called again for the same unit after a crash."""
