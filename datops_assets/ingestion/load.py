"""Load all that is new of one table into bronze, exactly once."""

from __future__ import annotations

import errno
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import psycopg

from datops_assets.errors import (
    ContainerDamagedError,
    DatopsError,
    LoadRefusedError,
    RetryableError,
    SchemaFrozenError,
    SourceRefusedError,
    WarehouseError,
    WarehouseUnreachableError,
)
from datops_assets.ingestion import catalogue
from datops_assets.ingestion.bronze import (
    BronzeColumn,
    analyze_grown,
    bronze_of,
    ensure_bronze_table,
    list_columns,
    summarize_earlier_loads,
    wait_for_load,
)
from datops_assets.ingestion.bronze_check import require_as_left
from datops_assets.ingestion.catalogue import LoadEntry, Outcome
from datops_assets.ingestion.copy_load import load_copy
from datops_assets.ingestion.csv_load import load_csv
from datops_assets.ingestion.delivery import finish_delivery
from datops_assets.ingestion.job import LoadJob, Progress, UnchangedError
from datops_assets.ingestion.json_load import load_json
from datops_assets.ingestion.kept import KeptPortions
from datops_assets.ingestion.plan import PlannedLoad, decide, live_entries, same_content
from datops_assets.ingestion.source import Source, Unit
from datops_assets.ingestion.tables import SourceTable
from datops_assets.postgres import failpoints
from datops_assets.postgres.tables import find_table_id, lock_table, table_id

TableT = TypeVar("TableT", bound=SourceTable)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class LoadResult:
    """What became of one unit in this run."""

    load_id: int
    ulid: str
    path: str
    state: str
    rows: int = 0
    damaged_rows: int = 0
    differences: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    bytes: int = 0
    has_more: bool = False
    """Whether the source has more right after it."""
    read_as: dict[str, str] = field(default_factory=dict)
    """What was found out of how it is written; empty where all of it is declared."""


@dataclass(frozen=True)
class TableLoaded:
    """What one run did to one bronze table."""

    source: str
    table: str
    results: list[LoadResult]
    """Units this run tried, in load order; what was skipped is not among them."""
    rows_total: int
    """Rows that silver may see now."""
    columns: list[BronzeColumn]
    pending: str | None = None
    """Why a whole delivery (replace, snapshot) is not in silver's sight yet."""
    left_out: int = 0
    """Rows at the source that no later run brings: see `Source.count_left_out`."""

    @property
    def rows_added(self) -> int:
        """Rows this run added to bronze."""
        return sum(result.rows for result in self.results)

    @property
    def failed(self) -> list[LoadResult]:
        """Units that were not loaded."""
        return [result for result in self.results if result.error is not None]


def plan_load(conn: psycopg.Connection[Any], source: Source[TableT], table: TableT) -> list[PlannedLoad]:
    """Say what the next run would load and why, unit by unit in load order. Changes nothing.

    raises     SourceUnreachableError, SourceRefusedError
    """
    number = find_table_id(conn, table.source, table.name)
    if number is None:
        return [decide(unit, (), table.taking) for unit in source.list_units(table)]
    known = catalogue.known_entries(conn, number)
    watermark = catalogue.watermark_of(conn, number, catalogue.first_reread(conn, number))
    units = source.list_units(table, watermark)
    return [decide(unit, known.get(unit.path, ()), table.taking) for unit in units]


def load_table(
    conn: psycopg.Connection[Any],
    source: Source[TableT],
    table: TableT,
    *,
    batch: str,
    run_id: str | None = None,
    partitions: Sequence[str] | None = None,
    schema: str = "bronze",
    adbc_url: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TableLoaded:
    """Load all units that are new, in order; a bad one does not stop the others.

    conn       autocommit, TimeZone UTC; used by nobody else meanwhile
    batch      names this call in the catalogue; nothing is decided by it
    partitions only units of these partitions; None: all
    adbc_url   where Parquet goes; None: as `conn`
    returns    per unit what became of it: the caller decides whether a failed one fails the run
    raises     WarehouseError, WarehouseUnreachableError: the server is the problem, not a unit.
               SourceUnreachableError, SourceRefusedError: the source cannot say what there is.
               LockTakenError. What was loaded by then stays.
    promise    a unit is there whole or not at all, and never twice; killed at any moment, the
               next call completes the work
    """
    with lock_table(conn, table.source, table.name):
        run = _Run(conn, source, table, batch, run_id, schema, adbc_url, progress)
        source.keep_in(KeptPortions.beside(conn, run.bronze.table_id))
        left_out = source.count_left_out(table)
        results: list[LoadResult] = []
        goes_on = True
        while goes_on:
            plan = plan_load(conn, source, table)
            for planned in plan:
                if planned.action == "skip":
                    run.pass_over(planned)
            taken = [
                result
                for planned in plan
                if planned.action != "skip"
                and (partitions is None or planned.unit.partition_key in partitions)
                if (result := run.take(planned)) is not None
            ]
            results += taken
            goes_on = bool(taken) and taken[-1].has_more
        pending = run.finish([planned.unit for planned in plan], results, partitions)
        return TableLoaded(
            table.source,
            table.name,
            results,
            catalogue.live_rows(conn, run.bronze.table_id),
            list_columns(conn, run.bronze.table_id),
            pending,
            left_out,
        )


class _Run(Generic[TableT]):
    """One call of load_table, under the table's lock."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        source: Source[TableT],
        table: TableT,
        batch: str,
        run_id: str | None,
        schema: str,
        adbc_url: str | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.conn = conn
        self.source = source
        self.table = table
        self.batch = batch
        self.run_id = run_id
        self.adbc_url = adbc_url
        self.progress = progress
        self.whole = table.whole
        self.begun = False
        self.bronze = bronze_of(table_id(conn, table.source, table.name), schema, table.source, table.name)
        with conn.transaction():
            wait_for_load(conn, self.bronze)
            catalogue.interrupt_orphans(conn, self.bronze.table_id)
        require_as_left(conn, self.bronze)
        ensure_bronze_table(conn, self.bronze)

    def take(self, planned: PlannedLoad) -> LoadResult | None:
        """Load one unit; None when its hash shows that there is nothing to do."""
        content_hash = None
        if planned.action == "compare" and planned.unit.refused is None:
            try:
                content_hash = self.source.hash_content(planned.unit)
            except DatopsError as error:
                return self._not_loaded(planned, self._reserve(planned, None), error, 0.0)
            if (known := self._known(planned, content_hash)) is not None:
                catalogue.note_redelivery(self.conn, known.load_id, planned.unit)
                self._acknowledge_again(planned, known)
                return None
        if not self.begun:
            summarize_earlier_loads(self.conn, self.bronze)
            self.begun = True
        reserved = self._reserve(planned, content_hash)
        failpoints.hit("after_reserve")
        started = time.monotonic()
        try:
            self._require_allowed(planned)
            outcome = self._load(self._job(planned, reserved))
        except UnchangedError as unchanged:
            catalogue.withdraw_load(self.conn, reserved[0])
            catalogue.note_redelivery(self.conn, unchanged.known.load_id, planned.unit)
            self._acknowledge_again(planned, unchanged.known)
            return None
        except (ContainerDamagedError, LoadRefusedError, SourceRefusedError, RetryableError) as error:
            if isinstance(error, WarehouseUnreachableError):
                raise
            return self._not_loaded(planned, reserved, error, time.monotonic() - started)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            return self._not_loaded(planned, reserved, _no_room(planned), time.monotonic() - started)
        except psycopg.Error as error:
            return self._refused_by_server(planned, reserved, error, time.monotonic() - started)
        failpoints.hit("after_commit")
        self.source.acknowledge(planned.unit)
        return LoadResult(
            *reserved, planned.path, "loaded", outcome.rows, outcome.damaged_rows, outcome.differences,
            seconds=time.monotonic() - started, bytes=planned.unit.size_bytes, has_more=outcome.has_more,
            read_as=outcome.read_as,
        )  # fmt: skip

    def pass_over(self, planned: PlannedLoad) -> None:
        """Tell the source of what is loaded already: a crash may have come between the commit and that."""
        if planned.unit.waiting is None:
            for entry in planned.known:
                if entry.fingerprint is not None and entry.fingerprint == planned.fingerprint:
                    self._acknowledge_again(planned, entry)
                    return

    def _acknowledge_again(self, planned: PlannedLoad, entry: LoadEntry) -> None:
        if entry.state in ("loaded", "superseded") and not entry.reload_requested:
            self.source.acknowledge(planned.unit)

    def finish(
        self, units: Sequence[Unit], results: Sequence[LoadResult], partitions: Sequence[str] | None
    ) -> str | None:
        """Let silver see a delivery that is complete, and tell the planner how large the table is now."""
        analyze_grown(self.conn, self.bronze, sum(result.rows for result in results))
        if not self.whole:
            return None
        return finish_delivery(
            self.conn, self.bronze.table_id, units, by_partition=self.table.by_day, partitions=partitions
        )

    def _known(self, planned: PlannedLoad, content_hash: str | None) -> LoadEntry | None:
        """Return the entry that makes loading this content again pointless."""
        if content_hash is None:
            return None
        known = same_content(planned, content_hash, self.table.taking)
        return known or self._left_behind(planned, content_hash)

    def _left_behind(self, planned: PlannedLoad, content_hash: str) -> LoadEntry | None:
        """Return the entry of a file that lies there since an earlier delivery, and was only touched."""
        last = planned.known[-1] if planned.known else None
        if not self.whole or last is None or last.content_hash != content_hash:
            return None
        return last if catalogue.left_with_its_delivery(self.conn, last.load_id) else None

    def _reserve(self, planned: PlannedLoad, content_hash: str | None) -> tuple[int, str]:
        return catalogue.reserve_load(
            self.conn,
            self.bronze.table_id,
            planned.unit,
            batch=self.batch,
            run_id=self.run_id,
            content_hash=content_hash,
            reading=self.table.taking,
        )

    def _job(self, planned: PlannedLoad, reserved: tuple[int, str]) -> LoadJob:
        load_id, ulid = reserved
        return LoadJob(
            planned=planned,
            declared=self.table,
            bronze=self.bronze,
            load_id=load_id,
            ulid=ulid,
            state="staged" if self.whole else "loaded",
            replaces=self._replaces(),
            header_before=catalogue.previous_header(self.conn, self.bronze.table_id, load_id),
            open=self.source.open,
            progress=self.progress,
            rereads_from=catalogue.first_reread(self.conn, self.bronze.table_id),
        )

    def _replaces(self) -> tuple[str, ...]:
        if self.whole:
            return ("staged",)
        return () if self.table.changed_unit == "append" else catalogue.LIVE

    def _load(self, job: LoadJob) -> Outcome:
        if job.unit.format in ("csv", "excel"):
            return load_csv(self.conn, job)
        if job.unit.format == "fixed":
            from datops_assets.ingestion.fixed_load import load_fixed

            return load_fixed(self.conn, job)
        if job.unit.format in ("json", "jsonl"):
            return load_json(self.conn, job)
        if job.unit.format == "copy":
            return load_copy(self.conn, job)
        from datops_assets.ingestion.arrow_load import load_arrow  # pyarrow takes 0.3 s to import

        return load_arrow(self.conn, job, self.adbc_url)

    def _require_allowed(self, planned: PlannedLoad) -> None:
        if planned.unit.refused is not None:
            raise LoadRefusedError(f"{planned.path} {planned.unit.refused}")
        if planned.unit.format is None:
            raise LoadRefusedError(
                f"{planned.path}: its ending names no format; let `files:` match data only, or state"
                " `format:` csv, jsonl, json, parquet, orc, avro, excel or fixed"
            )
        if self.table.changed_unit == "refuse" and live_entries(planned):
            raise LoadRefusedError(
                f"{planned.path} is loaded and has changed since, which `changed_file: refuse` does not allow;"
                f" to take it instead of the old one: datops load undo {live_entries(planned)[-1].ulid},"
                " and the next run loads it"
            )

    def _not_loaded(
        self, planned: PlannedLoad, reserved: tuple[int, str], error: DatopsError, seconds: float
    ) -> LoadResult:
        state = "failed"
        if isinstance(error, LoadRefusedError):
            state = "refused"
        elif isinstance(error, RetryableError):
            state = "interrupted"  # the next run tries again, changed or not
        difference = error.difference if isinstance(error, SchemaFrozenError) else None
        catalogue.end_load(self.conn, reserved[0], state, str(error), difference)
        return LoadResult(
            *reserved,
            planned.path,
            state,
            differences=difference or {},
            error=str(error),
            seconds=seconds,
            bytes=planned.unit.size_bytes,
        )

    def _refused_by_server(
        self, planned: PlannedLoad, reserved: tuple[int, str], error: psycopg.Error, seconds: float
    ) -> LoadResult:
        """A statement failed: the unit's fault where the server still works. Its text may hold cell values."""
        if self.conn.closed or self.conn.broken or _is_about_the_server(error):
            raise error
        sentence = (
            f"{planned.path}: the warehouse refused it ({type(error).__name__}, SQLSTATE {error.sqlstate});"
            f" if {self.bronze.schema}.{self.bronze.relation} was changed by hand, undo that,"
            f" then: datops load reload {reserved[1]}"
        )
        return self._not_loaded(planned, reserved, WarehouseError(sentence), seconds)


def _no_room(planned: PlannedLoad) -> RetryableError:
    return RetryableError(
        f"{planned.path}: there is no room for temporary files in {tempfile.gettempdir()}, so nothing of it was kept;"
        " free some, or set TMPDIR to another folder, then run again"
    )


def _is_about_the_server(error: psycopg.Error) -> bool:
    too_much_of_something = (error.sqlstate or "").startswith("54")  # an operational error, but of this unit
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not too_much_of_something
