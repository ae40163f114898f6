"""Prove a backup: restore it on a server of its own, hold everything against what was backed up, measure.

The scratch server has its own folder, listens on loopback only, and is gone afterwards; the source is not asked.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from datops_assets.backup import facts
from datops_assets.backup.destinations import Destination
from datops_assets.backup.encryption import Keys
from datops_assets.backup.manifest import Manifest
from datops_assets.backup.restore import (
    Wanted,
    create_database,
    fetch,
    load,
    read_content,
    restore_roles,
)
from datops_assets.backup.runs import free_bytes
from datops_assets.backup.server import Server, fitting_programs
from datops_assets.errors import BackupDamagedError, BackupError, BackupRefusedError, LockTakenError
from datops_assets.postgres.failpoints import hit
from datops_assets.resources.embedded import EmbeddedServer

_DATABASE = "datops_drill"
_SPARE = 1.1
_EMPTY_SERVER_BYTES = 128 << 20


@dataclass(frozen=True)
class Drilled:
    """What a drill found; right where there are no findings."""

    backup_id: str
    destination: str
    started_at: datetime
    rto_s: float | None
    """From the first byte fetched to the restored database answering; None where it never did."""
    rpo_s: float
    """What would have been lost at the worst moment: from this snapshot to the next good backup, or to now."""
    tables: int
    rows: int
    seconds: dict[str, float]
    findings: list[str]

    @property
    def passed(self) -> bool:
        """Whether the backup is proven."""
        return not self.findings


def drill(
    manifest: Manifest, destination: Destination, keys: Keys, staging: Path, *, now: datetime,
    next_finished_at: datetime | None, pg_bin: Path | None = None, jobs: int = 2,
) -> Drilled:  # fmt: skip
    """Restore one backup on a scratch server and compare.

    next_finished_at    when the next good backup was finished; None where there is none yet
    raises              BackupRefusedError: there is no room to drill; the backup is not to blame
    promise             the source is not asked, and nothing of the drill stays. A backup that cannot be restored
                        is a finding, not an error
    """
    seconds: dict[str, float] = {}
    held = manifest.facts["tables"]
    rpo_s = ((next_finished_at or now) - manifest.snapshot_at).total_seconds()
    rto_s: float | None = None
    findings: list[str] = []
    _require_room(manifest, staging)
    with scratch_folder(staging, manifest.backup_id) as folder:
        try:
            rto_s, findings = _restore_and_compare(manifest, destination, keys, folder, pg_bin, jobs, seconds)
        except BackupDamagedError as error:
            findings = [str(error)]
        except BackupError as error:
            findings = [f"cannot be restored: {error}"]
        except psycopg.Error as error:  # its text may hold values
            findings = [
                f"cannot be read once it is restored: {type(error).__name__}, SQLSTATE {error.sqlstate}"
            ]
    return Drilled(
        manifest.backup_id, destination.name, now, rto_s, max(rpo_s, 0.0), len(held),
        sum(rows for rows, _ in held.values()), seconds, findings,
    )  # fmt: skip


def _require_room(manifest: Manifest, staging: Path) -> None:
    """The files, the database that is made of them, and a server with its log."""
    restored = manifest.facts.get("database_bytes", 2 * manifest.plain_bytes)
    needed = int((manifest.plain_bytes + restored) * _SPARE) + _EMPTY_SERVER_BYTES
    free = free_bytes(staging)
    if free < needed:
        raise BackupRefusedError(
            f"{staging} has {free} bytes free, a drill of {manifest.backup_id} needs {needed};"
            " make room there, or move DATOPS_HOME"
        )


@contextmanager
def scratch_folder(staging: Path, backup_id: str) -> Iterator[Path]:
    """A folder that is gone afterwards; servers and folders that killed drills left go first.

    raises    LockTakenError: another process drills this backup
    """
    for left in staging.glob("drill-*"):
        with _locked(left) as alone:
            if alone:
                EmbeddedServer(left / "server").stop()
                shutil.rmtree(left, ignore_errors=True)
    folder = staging / f"drill-{backup_id}"
    if folder.exists():
        raise LockTakenError(f"another process drills the backup {backup_id}; wait for it, then try again")
    folder.mkdir(parents=True, mode=0o700)
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether nobody else holds the folder; held until the end, or until the process dies."""
    with (folder / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _restore_and_compare(
    manifest: Manifest, destination: Destination, keys: Keys, folder: Path, pg_bin: Path | None, jobs: int,
    seconds: dict[str, float],
) -> tuple[float, list[str]]:  # fmt: skip
    begun = time.monotonic()
    fetch(manifest, destination, keys, folder / "dump", Wanted(), jobs)
    seconds["fetch"] = round(time.monotonic() - begun, 3)
    programs = fitting_programs(manifest.server_version, pg_bin)
    scratch = EmbeddedServer(folder / "server", pg_bin=programs.bin, durable=False)
    try:
        address = scratch.start()
        seconds["server"] = round(time.monotonic() - begun - seconds["fetch"], 3)
        server = Server(
            {
                "host": address.host,
                "port": address.port,
                "user": address.user,
                "password": address.password,
                "dbname": "postgres",
            }
        )
        hit("drill.started")
        restore_roles(folder / "dump", server, programs)
        with closing(server.connect()) as admin:
            create_database(admin, _DATABASE, manifest)
        target = server.at(_DATABASE)
        load(manifest, folder / "dump", target, programs, Wanted(), jobs)
        with closing(target.connect()) as conn:
            conn.execute("select 1")
        rto_s = round(time.monotonic() - begun, 3)
        compared = time.monotonic()
        findings = facts.compare(manifest.facts, _read(target, jobs), ignored_roles=[address.user])
        seconds["compare"] = round(time.monotonic() - compared, 3)
    finally:
        scratch.stop()
    return rto_s, findings


def _read(target: Server, jobs: int) -> dict[str, Any]:
    with closing(target.connect()) as conn:
        facts.prepare(conn)
        found = {
            "objects": facts.read_objects(conn),
            "sequences": facts.read_sequences(conn),
            "large_objects": facts.read_large_objects(conn),
        }
    return found | {"tables": read_content(target, jobs)}
