"""Prove a physical backup: recover it on a server that is shut off, read everything, compare, check every page."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from datops_assets.backup import facts
from datops_assets.backup.drill import Drilled, scratch_folder
from datops_assets.backup.encryption import Keys
from datops_assets.backup.physical_restore import (
    Chain,
    check_pages,
    databases_of,
    prepared,
    read_database,
    start_for_drill,
)
from datops_assets.backup.recovery import RecoveringServer
from datops_assets.backup.restore import read_content
from datops_assets.backup.server import Server
from datops_assets.errors import BackupDamagedError, BackupError, WarehouseError
from datops_assets.postgres.failpoints import hit


def drill_physical(
    chain: Chain,
    keys: Keys,
    staging: Path,
    *,
    now: datetime,
    rpo_s: float,
    pg_bin: Path | None = None,
    jobs: int = 2,
) -> Drilled:
    """Restore one backup on a scratch server and compare.

    rpo_s      what would have been lost at the worst moment, in seconds
    promise    as `drill`
    """
    last = chain[-1].manifest
    seconds: dict[str, float] = {}
    rto_s: float | None = None
    tables = rows = 0
    findings: list[str] = []
    with scratch_folder(staging, last.backup_id) as folder:
        try:
            begun = time.monotonic()
            with prepared(chain, keys, folder / "server", seconds, None, pg_bin) as server:
                answering = start_for_drill(server, chain)
                rto_s = round(time.monotonic() - begun, 3)
                hit("drill.started")
                try:
                    tables, rows, findings = _read_all(last.facts, answering, jobs)
                except psycopg.Error as error:  # its text may hold values
                    findings = [f"cannot be read: {type(error).__name__}, SQLSTATE {error.sqlstate}"]
                seconds["read"] = round(time.monotonic() - begun - rto_s, 3)
                server.stop()
                findings += _pages(server, chain, seconds)
        except BackupDamagedError as error:
            findings = [str(error)]
        except (BackupError, WarehouseError) as error:
            findings = [f"cannot be restored: {error}"]
    return Drilled(
        last.backup_id,
        chain[-1].destination.name,
        now,
        rto_s,
        max(rpo_s, 0.0),
        tables,
        rows,
        seconds,
        findings,
    )


def _read_all(held: dict[str, Any], answering: Server, jobs: int) -> tuple[int, int, list[str]]:
    """Read every row of every database; hold the one that is backed up against what it held."""
    tables = rows = 0
    findings: list[str] = []
    for database in databases_of(answering):
        if database.dbname == answering.dbname and held.get("content") == "hashed":
            found = read_database(database, jobs)
            findings += facts.compare(held, found)
            content = found["tables"]
        else:
            content = read_content(database, jobs)
        tables += len(content)
        rows += sum(count for count, _ in content.values())
    with closing(answering.connect()) as conn:
        conn.execute("checkpoint")
    return tables, rows, findings


def _pages(server: RecoveringServer, chain: Chain, seconds: dict[str, float]) -> list[str]:
    begun = time.monotonic()
    findings = check_pages(server, chain)
    seconds["pages"] = round(time.monotonic() - begun, 3)
    return findings
