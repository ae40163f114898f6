"""A stream through PostgreSQL's log, as commands and assets know it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import psycopg

from datops_assets.cdc.capture import Capture, Connect, Copied, Moved, Standing
from datops_assets.cdc.drain import Drained, drain
from datops_assets.cdc.preflight import Finding, preflight
from datops_assets.cdc.snapshot import end_stream, take_snapshot
from datops_assets.cdc.status import has_news, lag_seconds, read_slot
from datops_assets.cdc.streaming import Progress, stream_changes
from datops_assets.cdc.streams import ChangeStream, find_stream
from datops_assets.errors import SourceRefusedError

HEARTBEAT_BYTES = 256 << 20
"""Log that a stream without changes of its own may hold back in the source before it is drained all the same."""
_EVERY_S = 0.2


class LogCapture(Capture):
    """Follows a slot."""

    def __init__(self, parameters: dict[str, Any], stream: ChangeStream) -> None:
        self.source = stream.source
        self._parameters = parameters
        self._stream = stream

    def preflight(self) -> list[Finding]:
        """Hold server, tables and publication against what a slot needs."""
        return preflight(self._parameters, self._stream)

    def snapshot(self, warehouse: psycopg.Connection[Any], connect: Connect) -> Copied:
        """From the very place where a new slot begins."""
        self._require_log(warehouse)
        taken = take_snapshot(warehouse, connect, self._parameters, self._stream)
        return Copied(taken.lsn, taken.rows)

    def drain(self, warehouse: psycopg.Connection[Any], connect: Connect) -> Drained:
        """To the place of a mark of ours."""
        self._require_log(warehouse)
        return drain(warehouse, self._parameters, self._stream)

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
        """As transactions are committed."""
        self._require_log(warehouse)
        stream_changes(
            warehouse, self._parameters, self._stream,
            stopping=stopping, report=report, every_s=_EVERY_S if every_s is None else every_s, report_s=report_s,
        )  # fmt: skip

    def stop(self, warehouse: psycopg.Connection[Any]) -> None:
        """Drop slot and publication."""
        end_stream(warehouse, self._parameters, self._stream)

    def standing(self, warehouse: psycopg.Connection[Any]) -> Standing:
        """What the slot holds back, and how far behind the warehouse is."""
        entry = find_stream(warehouse, self.source)
        slot = read_slot(self._parameters, self._stream, entry)
        fields: dict[str, Any] = {"slot": self._stream.slot}
        figures: dict[str, float | int] = {}
        if entry is not None:
            fields |= {
                "snapshot": entry.snapshot, "applied": entry.applied, "applied_commit_at": entry.applied_commit_at,
                "changes": entry.changes, "lag_seconds": lag_seconds(entry, slot),
            }  # fmt: skip
        if slot is not None:
            fields |= dataclasses.asdict(slot)
            figures = {
                "lag_bytes": slot.lag_bytes or 0,
                "retained_wal_bytes": slot.retained_bytes or 0,
                "lag_seconds": (lag_seconds(entry, slot) if entry else None) or 0.0,
            }
        status = slot.wal_status if slot is not None else None
        return Standing(
            entry.state if entry else None,
            entry.reason if entry else None,
            entry.snapshot if entry else None,
            fields,
            figures,
            is_sound=status in ("reserved", "extended"),
            health={"wal_status": status or "no slot"},
        )

    def news(self, standing: Standing) -> tuple[bool, str]:
        """Peek into the slot."""
        if has_news(self._parameters, self._stream):
            return True, "changes"
        retained = standing.figures.get("retained_wal_bytes", 0)
        if not standing.fields.get("active") and retained > HEARTBEAT_BYTES:
            return True, "the slot holds back log of other tables"
        return False, "no changes since the last run"

    def said(self, done: Moved) -> str:
        """By transactions."""
        return (
            f"{done.changes} change(s) of {done.transactions} transaction(s) in {done.seconds:.2f} s,"
            f" at {done.applied}"
        )

    def _require_log(self, warehouse: psycopg.Connection[Any]) -> None:
        """Raises SourceRefusedError: the stream of this name goes by queries."""
        kept = warehouse.execute(
            "select capture from datops.streams where source = %s", (self.source,)
        ).fetchone()
        if kept is not None and kept[0] != "log":
            raise SourceRefusedError(
                f"{self.source} is followed by queries; end that first, with the document as it was:"
                f" datops cdc stop {self.source}"
            )
