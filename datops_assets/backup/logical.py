"""Take a logical backup: pg_dump in directory format and our own facts, both in one exported snapshot.

Belongs here: dumping, packing, and the order in which a backup becomes good. Does not: what is in it (facts.py),
when it is taken (components).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg

from datops_assets.backup import catalogue, facts
from datops_assets.backup.manifest import Manifest
from datops_assets.backup.packing import Packer, packer_of
from datops_assets.backup.runs import (
    Backup,
    BackupPlan,
    Taken,
    entered,
    free_bytes,
    now_of,
    publish,
    sweep,
    working_folder,
)
from datops_assets.backup.server import fitting_programs
from datops_assets.backup.source import as_source, ask_server, describe_database
from datops_assets.errors import BackupError
from datops_assets.postgres.failpoints import hit
from datops_assets.postgres.ulid import new_ulid

ROLES, TABLESPACES, DUMP = "roles.sql", "tablespaces.sql", "dump"
TOC = f"{DUMP}/toc.dat"
_SPARE = 1.1
"""Free space that is asked for, by the size of the database with its indexes."""
_TABLE_DATA = re.compile(r"^(\d+); 0 (\d+) TABLE DATA ")
# What pg_dump says when a worker has closed the file of a table: its number is the file's name.
_FINISHED = re.compile(r"pg_dump: finished item (\d+) TABLE DATA ")


@dataclass(frozen=True)
class LogicalBackup(Backup):
    """What a person declares about the logical backups of one database; its staging folder needs room for the dump."""

    role_passwords: bool = False
    lock_timeout_s: int = 300


def plan_logical(backup: LogicalBackup) -> BackupPlan:
    """Say what a run would do, and what stands in its way."""
    with backup.server.connect() as conn, as_source(backup.server):
        facts.prepare(conn)
        server_version, size, *_ = ask_server(conn)
        tables = facts.read_tables(conn)
    programs = fitting_programs(server_version, backup.pg_bin)
    free = free_bytes(backup.staging)
    return BackupPlan(
        name=backup.name, kind="logical", database=backup.server.address, server_version=server_version,
        program=f"pg_dump {programs.version}", database_bytes=size, tables=len(tables),
        destinations={one.name: one.shown for one in backup.destinations},
        encrypted_with=backup.keys.current.name if backup.keys.current else None,
        staging=str(backup.staging), staging_free_bytes=free, problems=_lacks_room(backup, size),
    )  # fmt: skip


def take_logical(
    conn: psycopg.Connection[Any], backup: LogicalBackup, *, why: str, who: str | None = None
) -> Taken:
    """Take one backup.

    conn       the catalogue's
    promise    a backup is listed as good, here and at a destination, only when it is there whole: its manifest
               is written last. Whatever dies before that leaves something that the next run removes
    raises     BackupError, SourceUnreachableError, SourceRefusedError: nothing counts as a backup
               LockTakenError: another process takes backups of this name
    """
    with catalogue.running(conn, backup.name):
        sweep(conn, backup.name, backup.destinations, backup.staging, backup.keys)
        backup_id = new_ulid()
        with (
            entered(conn, backup.name, backup_id, "logical", backup.server.address, None, who, why) as (
                started_at,
                by,
            ),
            working_folder(backup.staging, backup_id) as folder,
        ):
            return _take(conn, backup, folder, backup_id, started_at, by, why)


def _take(
    conn: psycopg.Connection[Any], backup: LogicalBackup, folder: Path, backup_id: str, started_at: datetime,
    who: str, why: str,
) -> Taken:  # fmt: skip
    begun = time.monotonic()
    failed: dict[str, str] = {}
    with packer_of(
        folder, backup.name, backup_id, backup.destinations, backup.keys, failed, backup.jobs
    ) as packer:
        with backup.server.connect() as source:
            server_version, size, in_recovery, system, timeline = ask_server(source)
            problems = _lacks_room(backup, size)
            if problems:
                raise BackupError("; ".join(problems))
            programs = fitting_programs(server_version, backup.pg_bin)
            with as_source(backup.server):
                facts.prepare(source, backup.lock_timeout_s)
                held, snapshot_at, lsn = _dump_with_facts(
                    backup, folder, source, programs, packer, in_recovery=in_recovery
                )
        hit("backup.dumped")
        _dump_roles(backup, folder, programs)
        held["database_bytes"] = size
        held["toc"] = _data_files(backup, folder, programs, held.pop("oids"))
        _require_all_rows(held)
        held["seconds"] = {"dump": round(time.monotonic() - begun, 3)}
        artefacts = packer.finish()
    held["seconds"]["all"] = round(time.monotonic() - begun, 3)
    hit("backup.packed")
    current = backup.keys.current
    manifest = Manifest(
        backup_id=backup_id, name=backup.name, kind="logical", database=backup.server.address,
        started_at=started_at, snapshot_at=snapshot_at, finished_at=now_of(conn), system_identifier=system,
        timeline=timeline, start_lsn=lsn, end_lsn=lsn, server_version=server_version,
        tools={"pg_dump": programs.version, "datops": version("datops")}, parent=None,
        key_id=current.id if current else None, key_name=current.name if current else None, who=who, why=why,
        artefacts=tuple(artefacts), facts=held,
    )  # fmt: skip
    return publish(conn, manifest, backup.destinations, backup.keys, failed)


def _dump_with_facts(
    backup: LogicalBackup,
    folder: Path,
    source: psycopg.Connection[Any],
    programs: Any,
    packer: Packer,
    *,
    in_recovery: bool,
) -> tuple[dict[str, Any], datetime, str]:
    """Dump, hash and pack in one snapshot, at the same time; returns the facts, when and where the snapshot is."""
    source.execute("begin isolation level repeatable read read only")
    # `now()` is before the snapshot, and what was committed by then is in it.
    row = source.execute("select now(), pg_export_snapshot()").fetchone()
    assert row is not None
    snapshot_at, snapshot = row
    where = "pg_last_wal_replay_lsn()" if in_recovery else "pg_current_wal_lsn()"
    lsn = source.execute(f"select {where}::text").fetchone()
    tables = facts.read_tables(source)
    held: dict[str, Any] = {
        "sequences": facts.read_sequences(source),
        "objects": facts.read_objects(source),
        "large_objects": facts.read_large_objects(source),
        "parts": facts.read_parts(source, tables),
        "database": describe_database(source),
        "oids": {table.label: table.oid for table in tables},
    }
    command = [
        programs.path("pg_dump"), "--format=directory", "--compress=0", "--no-sync", "--no-password", "--verbose",
        f"--jobs={backup.jobs}", f"--snapshot={snapshot}", f"--lock-wait-timeout={backup.lock_timeout_s}s",
        f"--file={folder / DUMP}",
    ]  # fmt: skip

    def connect() -> psycopg.Connection[Any]:
        conn = backup.server.connect()
        facts.prepare(conn, backup.lock_timeout_s)
        conn.execute("begin isolation level repeatable read read only")
        conn.execute(f"set transaction snapshot '{snapshot}'")
        return conn

    def heard(line: str) -> None:
        if finished := _FINISHED.match(line):
            packer.ready(f"{DUMP}/{finished[1]}.dat")

    # The snapshot lives as long as the transaction of `source`, which is not touched meanwhile.
    with ThreadPoolExecutor(max_workers=1) as pool:
        what = f"the dump of {backup.server.address} failed"
        dumping = pool.submit(backup.server.run, command, what, heard=heard)
        held["tables"] = facts.hash_tables(connect, tables, backup.jobs)
        dumping.result()
    held["sequences_after"] = facts.read_sequences(source)
    source.execute("rollback")
    assert lsn is not None
    return held, snapshot_at, lsn[0]


def _dump_roles(backup: LogicalBackup, folder: Path, programs: Any) -> None:
    base = [programs.path("pg_dumpall"), "--no-password", f"--database={backup.server.dbname}"]
    hidden = [] if backup.role_passwords else ["--no-role-passwords"]
    for what, file in ((["--roles-only", *hidden], ROLES), (["--tablespaces-only"], TABLESPACES)):
        backup.server.run(
            [*base, *what, f"--file={folder / file}"], f"the roles of {backup.server.address} cannot be read"
        )


def _data_files(
    backup: LogicalBackup, folder: Path, programs: Any, oids: Mapping[str, int]
) -> dict[str, str]:
    """The file of the dump that holds each table's rows, by `schema.table`."""
    listing = folder.with_suffix(".list")
    try:
        backup.server.run(
            [programs.path("pg_restore"), "--list", str(folder / DUMP)],
            "the dump cannot be listed",
            stdout=listing,
        )
        by_oid = {
            int(found[2]): f"{DUMP}/{found[1]}.dat"
            for line in listing.read_text("utf-8", "replace").splitlines()
            if (found := _TABLE_DATA.match(line))
        }
    finally:
        listing.unlink(missing_ok=True)
    return {label: by_oid[oid] for label, oid in oids.items() if oid in by_oid}


def _require_all_rows(held: Mapping[str, Any]) -> None:
    """Hold the dump's list of contents against what was counted. Raises BackupError: rows were left out."""
    lost = [label for label, (rows, _) in held["tables"].items() if rows and label not in held["toc"]]
    if lost:
        raise BackupError(
            f"pg_dump left out the rows of {len(lost)} table(s): {', '.join(sorted(lost)[:5])};"
            " it does so for what belongs to an extension: move them to a schema of their own"
        )


def _lacks_room(backup: LogicalBackup, size: int) -> list[str]:
    needed = int(size * _SPARE)
    free = free_bytes(backup.staging)
    lacking = (
        [] if free >= needed else [f"{backup.staging} has {free} bytes free, the dump may need {needed}"]
    )
    for destination in backup.destinations:
        left = destination.free_bytes()
        if left is not None and left < size // 10:
            lacking.append(
                f"the destination {destination.name} has {left} bytes free, expected {size // 10} or more"
            )
    return lacking
