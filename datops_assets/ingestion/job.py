"""One load under way: what to read, where it goes, and how it is entered in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from datops_assets.errors import LoadRefusedError, LockTakenError
from datops_assets.ingestion.bronze import BronzeTable
from datops_assets.ingestion.catalogue import LoadEntry, Outcome, finishing
from datops_assets.ingestion.names import header_differences
from datops_assets.ingestion.plan import PlannedLoad, same_content
from datops_assets.ingestion.source import ArrowDelivery, CopyDelivery, Delivery, Reached, TextDelivery, Unit
from datops_assets.ingestion.tables import CsvOptions, FileTable, SourceTable

_EMPTY_FILE = (
    "{path} holds no record that could be loaded, and with `load: {load}` it would take the place of records;"
    " deliver it again with its records, or take it away; where none is right, declare `allow_empty: true`"
)
_EMPTY = (
    "{path} is empty at the source, and with `load: {load}` that would take the place of records; if none is right,"
    " declare `allow_empty: true` for {label} and run again, else the next run takes it as soon as it has rows"
)


@dataclass(frozen=True)
class Progress:
    """How far a load is."""

    path: str
    bytes_done: int
    """Bytes of the unpacked text handed on so far."""
    size_bytes: int
    """Size of the file; smaller than what is done where it is packed."""


class UnchangedError(Exception):
    """The unit turned out to hold what is loaded already; whoever reads it rolls back."""

    def __init__(self, known: LoadEntry) -> None:
        self.known = known
        super().__init__(f"{known.path} holds what load {known.ulid} brought")


@dataclass(frozen=True)
class LoadJob:
    """One unit on its way into bronze."""

    planned: PlannedLoad
    declared: SourceTable
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
    rereads_from: int | None = None
    """The first load whose rows this one brings again; it and those after it give way."""

    @property
    def unit(self) -> Unit:
        """What is read."""
        return self.planned.unit

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
        if not isinstance(self.declared, FileTable):
            return CsvOptions()
        return self.declared.csv_of(self.unit.format)

    @property
    def records(self) -> str | None:
        """Where in a JSON document its records are."""
        return self.declared.records if isinstance(self.declared, FileTable) else None

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

    def open_copy(self) -> CopyDelivery:
        """Open the unit, which comes as PostgreSQL sends it."""
        delivery = self.open(self.unit)
        assert isinstance(delivery, CopyDelivery)
        return delivery

    def watched(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks of a delivery, telling whoever watches."""
        done = 0
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            self.tell(done)

    def tell(self, bytes_done: int) -> None:
        """Tell whoever watches how far the load is."""
        if self.progress is not None:
            self.progress(Progress(self.unit.path, bytes_done, self.unit.size_bytes))

    def outcome(
        self, content_hash: str, reached: Reached, rows: int, damaged_rows: int, header: list[str]
    ) -> Outcome:
        """Sum up what was loaded, and what differs from the load before it.

        raises     LoadRefusedError: nothing was, where that would leave nothing of what was there before.
                   UnchangedError: all of it is loaded already. The caller rolls back.
        """
        known = same_content(self.planned, content_hash, self.declared.taking)
        if self.unit.fingerprint is None and known is not None:
            raise UnchangedError(known)
        # A file holds records, or it was cut on its way; a table may be empty from the first.
        is_file = isinstance(self.declared, FileTable)
        is_new_table = self.header_before is None and not is_file
        may_be_empty = is_new_table or (self.declared.allow_empty and not damaged_rows)
        if rows == 0 and self.declared.whole and not may_be_empty:
            sentence = _EMPTY_FILE if is_file else _EMPTY
            raise LoadRefusedError(
                sentence.format(
                    path=self.unit.path, load=self.declared.disposition, label=self.declared.label
                )
            )
        before = self.header_before if header else None
        differences = header_differences(before, header, self.declared.rename)
        return Outcome(
            content_hash, rows, damaged_rows, header, differences, reached.watermark, reached.has_more
        )

    def finishing(self, outcome: Outcome) -> list[tuple[Any, dict[str, Any]]]:
        """Return the statements that enter it as done."""
        return finishing(
            self.bronze.table_id,
            self.load_id,
            self.unit.path,
            outcome,
            state=self.state,
            replaces=self.replaces,
            rereads_from=self.rereads_from,
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
