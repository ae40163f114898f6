"""What a source promises to the loader: files, databases, APIs and plug-ins keep it alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from datops_assets.ingestion.tables import FileTable, Format, SourceTable

if TYPE_CHECKING:  # pyarrow takes 0.3 s to import; only Parquet needs it
    import pyarrow as pa

    from datops_assets.ingestion.kept import KeptPortions

TableT = TypeVar("TableT", bound=SourceTable)
MORE = "_more"
"""Stands for a type: the column is past those that a bronze table has."""


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
    fingerprint: str | None
    """Changes whenever the content may have changed; cheap to get. None: only reading it tells."""
    partition_key: str | None = None
    location: str = ""
    """Where the source itself finds it."""
    waiting: str | None = None
    """Why it must not be taken yet; None when it is complete."""
    refused: str | None = None
    """Why it cannot be taken at all and what to do: the rest of a sentence about it."""
    most_rows: int | None = None
    """Deliver no more than the first so many rows: for trying out; None: all."""
    declared: FileTable | None = None
    """The table it was listed for, where how it is opened is declared there."""


@dataclass(frozen=True)
class Reached:
    """How far a source has been read once a delivery is loaded."""

    watermark: str | None = None
    """Where the next reading goes on, in the source's own words; None: it keeps no place."""
    has_more: bool = False
    """Whether there is more right now, so that the same run goes on."""


class Delivery(ABC):
    """An opened unit; a context manager. Read all of it, then ask for `content_hash` and `reached`."""

    @abstractmethod
    def content_hash(self) -> str:
        """Return the sha256 of what was delivered.

        raises     FileChangedError: what was read is not one version of the unit.
                   The caller keeps nothing of it.
        """

    def reached(self) -> Reached:
        """Say where the next reading goes on; entered in the catalogue together with the rows."""
        return Reached()

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


class CopyDelivery(Delivery):
    """Rows in PostgreSQL's binary COPY format, handed on as they are."""

    @abstractmethod
    def columns(self) -> list[tuple[str, str]]:
        """Return name and PostgreSQL type of each column, in the order of the fields."""

    @abstractmethod
    def chunks(self, types: Sequence[str]) -> Iterator[bytes]:
        """Yield the binary COPY stream, header and trailer included, cut anywhere.

        types      PostgreSQL's type that each column is to be sent as, never narrower than its own; those
                   with MORE come together as one json object, the last field of a row
        raises     SourceUnreachableError: the connection was lost
        """

    @abstractmethod
    def rows(self) -> int:
        """Return how many rows the source says it sent; asked for after the last chunk."""


class Source(ABC, Generic[TableT]):
    """Where rows come from. Five promises, and two that a source may leave alone.

    `datops_assets.testing.sources` checks them. A context manager: what it holds open
    it closes at the end.
    """

    @abstractmethod
    def check(self, table: TableT) -> Reachability:
        """Say whether the table can be read now; never raises for an unreachable source."""

    @abstractmethod
    def list_units(self, table: TableT, watermark: str | None = None) -> Sequence[Unit]:
        """List all that is there now, in load order. The same state gives the same list. Opens no content.

        watermark  what the last load of the table reached, where this source keeps its place
        raises     SourceUnreachableError, SourceRefusedError
        """

    @abstractmethod
    def open(self, unit: Unit) -> Delivery:
        """Open a unit for one pass. Opening it again delivers the same bytes, or content_hash() raises."""

    @abstractmethod
    def sketch(self, table: TableT) -> list[str]:
        """Name the columns of the newest unit, without loading anything."""

    @abstractmethod
    def acknowledge(self, unit: Unit) -> None:
        """Hear that the unit is durably loaded. May be called again for the same unit after a crash."""

    def hash_content(self, unit: Unit) -> str | None:
        """Return the sha256 of a unit without loading it; None: only its load can tell.

        raises     FileChangedError: it changed meanwhile, or is gone
        """
        return None

    def count_left_out(self, table: TableT) -> int:
        """Count the rows there that no later reading brings, for nothing tells when they came; 0: none are known.

        raises     SourceUnreachableError, SourceRefusedError
        """
        return 0

    def keep_in(self, kept: KeptPortions) -> None:
        """Hear where a reading that takes long may keep what it has, before anything is listed."""

    def close(self) -> None:
        """Let go of what is open between units: connections, pools. May be called again."""

    def __enter__(self) -> Self:
        """Use the source inside a with block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close, whatever happened."""
        self.close()
