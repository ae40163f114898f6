"""Damaged records on their way to the quarantine: kept on disk until COPY into bronze is over."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from datops_assets.ingestion.copy_text import escaped, gathered
from datops_assets.postgres.identifiers import quarantine_table
from datops_assets.postgres.quarantine_table import ensure_quarantine_table

_IN_MEMORY_BYTES = 4 << 20


class DamagedRecord(NamedTuple):
    """A record that cannot be loaded."""

    row: int
    raw: bytes
    position: int | None
    reason: str


class DamagedRecords:
    """Collect what cannot be loaded; a connection cannot write here while it copies into bronze."""

    def __init__(self, load_id: int) -> None:
        self.count = 0
        self.load_id = load_id
        self._spool = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 closed by __exit__

    def __enter__(self) -> DamagedRecords:
        """Collect inside a with block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop the temporary file."""
        self._spool.close()

    def add(self, row: int, raw: bytes, position: int | None, reason: str) -> None:
        """Set one record aside.

        row        its number in the file; damaged records are numbered, too
        position   byte offset in the uncompressed file; None where it has none
        """
        self.count += 1
        self._spool.write(json.dumps([row, raw.hex(), position, reason]).encode() + b"\n")

    def records(self) -> Iterator[DamagedRecord]:
        """Yield all of them in the order they were added."""
        self._spool.seek(0)
        for line in self._spool:
            row, raw, position, reason = json.loads(line)
            yield DamagedRecord(row, bytes.fromhex(raw), position, reason)

    def write(self, conn: psycopg.Connection[Any], source: str, table: str) -> None:
        """Copy all of them into the quarantine, in the caller's transaction."""
        if self.count == 0:
            return
        ensure_quarantine_table(conn, source, table)
        statement = sql.SQL("copy {} (_load_id, _row, stage, reasons, raw, position) from stdin").format(
            quarantine_table(source, table)
        )
        with conn.cursor() as cursor, cursor.copy(statement) as copy:
            for part in gathered(self._line(record) for record in self.records()):
                copy.write(part)

    def _line(self, record: DamagedRecord) -> bytes:
        quoted = record.reason.replace("\\", "\\\\").replace('"', '\\"')
        reasons = escaped(f'{{"{quoted}"}}'.encode())
        position = escaped(None if record.position is None else b"%d" % record.position)
        raw = rb"\\x" + record.raw.hex().encode()
        return (
            b"\t".join([b"%d" % self.load_id, b"%d" % record.row, b"bronze", reasons, raw, position]) + b"\n"
        )
