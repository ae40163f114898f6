"""One load under way: what to read, where it goes, and how it is entered in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from datops_assets.errors import LoadRefusedError, LockTakenError
from datops_assets.ingestion.bronze import BronzeTable
from datops_assets.ingestion.catalogue import Outcome, finishing
from datops_assets.ingestion.names import header_differences
from datops_assets.ingestion.source import ArrowDelivery, Delivery, TextDelivery, Unit
from datops_assets.ingestion.tables import CsvOptions, FileTable

_EMPTY = (
    "{path} holds no record that could be loaded, and with `load: {load}` it would take the place of records;"
    " deliver it again with its records, or take it away"
)


@dataclass(frozen=True)
class Progress:
    """How far a load is."""

    path: str
    bytes_done: int
    """Bytes of the unpacked text handed on so far."""
    size_bytes: int
    """Size of the file; smaller than what is done where it is packed."""


@dataclass(frozen=True)
class LoadJob:
    """One unit on its way into bronze."""

    unit: Unit
    declared: FileTable
    bronze: BronzeTable
    load_id: int
    ulid: str
    state: str
    """What it becomes: loaded, or staged until its delivery is complete."""
    replaces: tuple[str, ...]
    """States in which older loads of the same path give way to it."""
    header_before: list[str] | None
    open: Callable[[Unit], Delivery]
    progress: Callable[[Progress], None] | None = None

    @property
    def source(self) -> str:
        """The source's name."""
        return self.declared.source

    @property
    def table(self) -> str:
        """The table's name."""
        return self.declared.name

    @property
    def csv(self) -> CsvOptions:
        """How its CSV files are written."""
        return self.declared.csv

    def open_text(self) -> TextDelivery:
        """Open the unit, which is of a text format."""
        delivery = self.open(self.unit)
        assert isinstance(delivery, TextDelivery)
        return delivery

    def open_arrow(self) -> ArrowDelivery:
        """Open the unit, which has types."""
        delivery = self.open(self.unit)
        assert isinstance(delivery, ArrowDelivery)
        return delivery

    def watched(self, delivery: TextDelivery) -> Iterator[bytes]:
        """Yield the chunks of a delivery, telling whoever watches."""
        done = 0
        for chunk in delivery.chunks():
            yield chunk
            done += len(chunk)
            self.tell(done)

    def tell(self, bytes_done: int) -> None:
        """Tell whoever watches how far the load is."""
        if self.progress is not None:
            self.progress(Progress(self.unit.path, bytes_done, self.unit.size_bytes))

    def outcome(self, content_hash: str, rows: int, damaged_rows: int, header: list[str]) -> Outcome:
        """Sum up what was loaded, and what differs from the load before it.

        raises     LoadRefusedError: nothing was, where that would leave nothing of what was there before.
                   The caller rolls back.
        """
        if rows == 0 and self.declared.whole:
            raise LoadRefusedError(_EMPTY.format(path=self.unit.path, load=self.declared.disposition))
        before = self.header_before if header else None
        differences = header_differences(before, header, self.declared.rename)
        return Outcome(content_hash, rows, damaged_rows, header, differences)

    def finishing(self, outcome: Outcome) -> list[tuple[Any, dict[str, Any]]]:
        """Return the statements that enter it as done."""
        return finishing(
            self.bronze.table_id,
            self.load_id,
            self.unit.path,
            outcome,
            state=self.state,
            replaces=self.replaces,
        )

    def finish(self, conn: psycopg.Connection[Any], outcome: Outcome) -> None:
        """Enter it as done, in the caller's transaction."""
        for statement, values in self.finishing(outcome):
            cursor = conn.execute(statement, values)
        self.require_entered(cursor.fetchone() is not None)

    def require_entered(self, is_entered: bool) -> None:
        """Hold that the last statement of `finishing` found the entry as we left it.

        raises    LockTakenError: another run took over, because our lock was gone
        """
        if not is_entered:
            raise LockTakenError(
                f"{self.unit.path}: the connection that kept other runs away was lost and another run took over;"
                " nothing of this try was kept, try again"
            )
