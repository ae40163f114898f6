"""Follow a slot on and on: the same engine as a drain, committing many times a second, until told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

from datops_assets.cdc.drain import Drained, emit, opened, renew_tables, require_known, run
from datops_assets.cdc.following import Following
from datops_assets.cdc.source import reached
from datops_assets.cdc.streams import ChangeStream

_HEARTBEAT_S = 10.0
"""Silence after which a mark is written into the source's log, so that an idle database's slot moves on."""


_LOOK_S = 300.0
"""Between two looks at the tables themselves: a partition that left says nothing in the log."""


@dataclass(frozen=True)
class Progress:
    """What a stream did since it last said something."""

    changes: int
    transactions: int
    tables: dict[str, int]
    applied: str
    seconds: float
    longest_lag_s: float
    """Between a commit in the source and the one here; by both servers' clocks."""
    columns_added: dict[str, list[str]] = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)
    differences: dict[str, dict[str, Any]] = field(default_factory=dict)


def stream_changes(
    warehouse: psycopg.Connection[Any],
    parameters: dict[str, Any],
    stream: ChangeStream,
    *,
    stopping: Callable[[], bool],
    report: Callable[[Progress], None],
    every_s: float = 0.2,
    report_s: float = 60.0,
) -> None:
    """Apply changes as they are committed, until `stopping`.

    warehouse   autocommit; holds the stream's lease
    every_s     longest that a finished transaction waits for others before it is committed
    report      called every `report_s` seconds and at the end, with what was done since the last call
    raises      as `drain`; what is committed by then stays
    promise     as `drain`
    """
    with opened(warehouse, parameters, stream) as (source, entry):
        teller = _Teller(
            source,
            report,
            report_s,
            entry.applied or "",
            lambda: require_known(warehouse, source, stream, entry),
        )
        renew_tables(warehouse, source, parameters, stream, entry, teller.done)
        run(
            warehouse, source, parameters, stream, teller.done,
            end=None, batch_s=every_s, on_commit=teller.committed, stopping=stopping,
        )  # fmt: skip
        teller.tell()


class _Teller:
    """Says now and then what was done, and keeps an idle slot moving."""

    def __init__(
        self,
        source: psycopg.Connection[Any],
        report: Callable[[Progress], None],
        every_s: float,
        applied: str,
        look: Callable[[], None],
    ) -> None:
        """`look` raises TableChangedError where the log does not tell what became of a table."""
        self.done = Drained(applied=applied)
        self._look = look
        self._looked_at = time.monotonic()
        self._source = source
        self._report = report
        self._every_s = every_s
        self._told_at = self._moved_at = time.monotonic()
        self._applied = applied
        self._lag_s = 0.0
        self._committed_at: datetime | None = None

    def committed(self, following: Following) -> None:
        now = time.monotonic()
        if self.done.applied != self._applied:
            self._applied, self._moved_at = self.done.applied, now
            if following.committed_at is not None and following.committed_at != self._committed_at:
                self._committed_at = following.committed_at
                lag_s = (datetime.now(UTC) - following.committed_at).total_seconds()
                self._lag_s = max(self._lag_s, lag_s)
        elif now - self._moved_at > _HEARTBEAT_S:
            self._moved_at = now
            if not reached(self._source)[0]:  # a standby says itself how far it has come
                emit(self._source, "heartbeat")
        if now - self._told_at >= self._every_s:
            self.tell()
        if now - self._looked_at > _LOOK_S:
            self._looked_at = now
            self._look()

    def tell(self) -> None:
        now, done = time.monotonic(), self.done
        progress = Progress(
            done.changes, done.transactions, dict(done.tables), done.applied, now - self._told_at, self._lag_s,
            dict(done.columns_added), list(done.copied), dict(done.differences),
        )  # fmt: skip
        done.changes = done.transactions = 0
        for kept in (done.tables, done.columns_added, done.differences, done.copied):
            kept.clear()
        self._told_at, self._lag_s = now, 0.0
        self._report(progress)
