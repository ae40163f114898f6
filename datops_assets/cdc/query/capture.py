"""A stream by queries, as commands and assets know it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg

from datops_assets.cdc.capture import Capture, Connect, Copied, Moved, Standing
from datops_assets.cdc.preflight import Finding
from datops_assets.cdc.query.catalogue import find_entry, known_tables
from datops_assets.cdc.query.declared import HashingLook, Look, QueriedTable, QueryStream
from datops_assets.cdc.query.looking import Looked, drain, end_stream, take_snapshot
from datops_assets.cdc.streaming import Progress
from datops_assets.errors import SourceRefusedError

_GLANCE_S = 0.2
"""How often a stream that waits for its next look asks whether it is to stop."""


class QueryCapture(Capture):
    """Looks at the tables."""

    def __init__(self, stream: QueryStream, every_s: float) -> None:
        self.source = stream.source
        self._stream = stream
        self._every_s = every_s

    def preflight(self) -> list[Finding]:
        """Look at each table, and say how it will be compared."""
        found: list[Finding] = []
        for one in self._stream.tables:
            try:
                with one.look() as look:
                    found.append(_judge(one, look))
            except SourceRefusedError as error:
                found.append(Finding("stop", one.label, str(error), "correct the document, or grant it"))
        return found

    def snapshot(self, warehouse: psycopg.Connection[Any], connect: Connect) -> Copied:
        """Each table as it is at one moment."""
        began = datetime.now(UTC)
        return Copied(began.isoformat(timespec="seconds"), take_snapshot(warehouse, connect, self._stream))

    def drain(self, warehouse: psycopg.Connection[Any], connect: Connect) -> Looked:
        """One look at each table."""
        return drain(warehouse, connect, self._stream)

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
        """Look again and again; says what a look found after each that found something."""
        wait_s = self._every_s if every_s is None else every_s
        since = time.monotonic()
        while not stopping():
            began = time.monotonic()
            done = self.drain(warehouse, connect)
            report(
                Progress(
                    done.changes, 0, dict(done.tables), done.applied, done.seconds, time.monotonic() - since,
                    dict(done.columns_added), list(done.copied),
                )
            )  # fmt: skip
            since = began  # what the next look finds came after this one began
            while not stopping() and (left_s := began + wait_s - time.monotonic()) > 0:
                time.sleep(min(_GLANCE_S, left_s))

    def stop(self, warehouse: psycopg.Connection[Any]) -> None:
        """There is nothing of it in the source."""
        end_stream(warehouse, self.source)

    def standing(self, warehouse: psycopg.Connection[Any]) -> Standing:
        """When the tables were looked at; what came since nobody knows."""
        entry = find_entry(warehouse, self.source)
        if entry is None:
            return Standing(None)
        known = known_tables(warehouse, entry.stream_id)
        now = datetime.now(UTC)
        tables = {
            name: {
                "watermark": one.watermark,
                "looked_at": one.looked_at,
                "compared_at": one.compared_at,
                "rows_read": one.rows_read,
            }
            for name, one in known.items()
        }
        figures: dict[str, float | int] = {}
        looked = [known[one.name].looked_at for one in self._stream.tables if one.name in known]
        if looked:
            figures["lag_seconds"] = (now - min(looked)).total_seconds()
        fields = {"looks": entry.looks, "changes": entry.changes, **figures, "tables": tables}
        return Standing(
            entry.state,
            entry.reason,
            "the first look",
            fields,
            figures,
            {name: {"rows_read": one.rows_read} for name, one in known.items()},
            is_sound=entry.state == "streaming",
            health={"state": entry.state},
        )

    def news(self, standing: Standing) -> tuple[bool, str]:
        """Nothing tells but a look: it is time for one, or not."""
        age_s = standing.figures.get("lag_seconds")
        if age_s is None or age_s >= self._every_s:
            return True, "time for a look"
        return False, f"the last look is {age_s:.0f} s old, the next comes after {self._every_s:.0f} s"

    def said(self, done: Moved) -> str:
        """By looks."""
        return f"{done.changes} change(s) in {done.seconds:.2f} s, {done.applied}"


def _judge(one: QueriedTable, look: Look) -> Finding:
    key = one.key or tuple(look.primary_key)
    if not key:
        mend = f"name the columns that tell its rows apart: tables: {{{one.name}: {{key: [...]}}}}"
        return Finding("stop", one.label, "no primary key tells its rows apart", mend)
    about = f"key ({', '.join(key)}), {len(look.columns)} columns"
    hashed = [column for column in look.columns if one.compare == "rows" or column.name in key]
    bent = [column.name for column in hashed if column.printed is None]
    if one.compare == "never":
        mend = f"take `compare: keys` for {one.name} to have them"
        return Finding("warn", one.label, f"{about}; deleted rows are not found", mend)
    if not isinstance(look, HashingLook) or bent:
        why = (
            f"{', '.join(bent)} has no text both sides print alike" if bent else "no hashes in this database"
        )
        return Finding(
            "warn",
            one.label,
            f"{about}; each comparison reads all rows: {why}",
            "set `compare_every` to what that costs",
        )
    return Finding("ok", one.label, f"{about}; {one.compare} are compared by hashes")
