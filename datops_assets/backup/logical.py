"""Take a logical backup: pg_dump in directory format and our own facts, both in one exported snapshot.

Belongs here: dumping, packing, and the order in which a backup becomes good. Does not: what is in it (facts.py),
when it is taken (components).
"""

from __future__ import annotations

import getpass
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from datops_assets.backup import catalogue, facts
from datops_assets.backup.destinations import MANIFEST, Destination
from datops_assets.backup.encryption import Keys
from datops_assets.backup.manifest import Manifest, folder_of, read_manifest, write_manifest
from datops_assets.backup.packing import Packer, packer_of
from datops_assets.backup.server import Server, fitting_programs
from datops_assets.errors import BackupDamagedError, BackupError, DatopsError, SourceUnreachableError
from datops_assets.postgres.failpoints import hit
from datops_assets.postgres.ulid import new_ulid

ROLES, TABLESPACES, DUMP = "roles.sql", "tablespaces.sql", "dump"
TOC = f"{DUMP}/toc.dat"
_LOOKED_FOR = timedelta(days=7)
"""How long after a failed run its leftovers are looked for at the destinations."""
_SPARE = 1.1
"""Free space that is asked for, by the size of the database with its indexes."""
_TABLE_DATA = re.compile(r"^(\d+); 0 (\d+) TABLE DATA ")
# What pg_dump says when a worker has closed the file of a table: its number is the file's name.
_FINISHED = re.compile(r"pg_dump: finished item (\d+) TABLE DATA ")
_DATABASE: LiteralString = """
select json_build_object('encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype,
         'provider', d.datlocprovider, 'locale', {locale}, 'owner', d.datdba::regrole::text,
         'settings', coalesce((select json_agg(x) from pg_db_role_setting s, unnest(s.setconfig) x
                                where s.setdatabase = d.oid and s.setrole = 0), '[]'))
  from pg_database d where d.datname = current_database()
"""
_SERVER: LiteralString = """
select current_setting('server_version_num')::int, pg_database_size(current_database()), pg_is_in_recovery(),
       (select system_identifier from pg_control_system()), (select timeline_id from pg_control_checkpoint())
"""


@dataclass(frozen=True)
class BackupPlan:
    """What a run would do. Nothing was changed to find out."""

    name: str
    kind: str
    database: str
    server_version: int
    program: str
    database_bytes: int
    tables: int
    destinations: dict[str, str]
    encrypted_with: str | None
    staging: str
    staging_free_bytes: int
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LogicalBackup:
    """What a person declares about the logical backups of one database."""

    name: str
    server: Server = field(repr=False)
    destinations: Sequence[Destination]
    keys: Keys
    staging: Path
    """Folder in which the dump is written before it is packed; needs room for it."""
    pg_bin: Path | None = None
    jobs: int = 2
    role_passwords: bool = False
    lock_timeout_s: int = 300


@dataclass(frozen=True)
class Taken:
    """One backup that is good, and the destinations that do not have it."""

    manifest: Manifest
    failed: dict[str, str]


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


def publish(
    conn: psycopg.Connection[Any], manifest: Manifest, destinations: Sequence[Destination], keys: Keys,
    failed: dict[str, str],
) -> Taken:  # fmt: skip
    """Make a backup good: the manifest at every destination that has all artefacts, then the catalogue."""
    text = write_manifest(manifest, keys)
    there = []
    for destination in destinations:
        if destination.name in failed:
            continue
        try:
            destination.write(f"{manifest.folder}/{MANIFEST}", text.encode())
            there.append(destination.name)
        except DatopsError as error:
            failed[destination.name] = str(error)
        except OSError as error:
            failed[destination.name] = error.strerror or type(error).__name__
    if not there:
        raise BackupError(f"no destination takes the backup ({'; '.join(failed.values())})")
    hit("backup.published")
    catalogue.finish_run(conn, manifest, text, there, failed)
    for destination in destinations:
        if destination.name in failed:
            with suppress(DatopsError, OSError):
                destination.remove(manifest.folder)
    return Taken(manifest, failed)


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


@contextmanager
def as_source(server: Server) -> Iterator[None]:
    """Say of a broken connection that it is the source's. The driver's text may hold values."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        state = getattr(error, "sqlstate", None) or type(error).__name__
        raise SourceUnreachableError(f"reading {server.address} broke off ({state}); try again") from None
    except psycopg.Error as error:
        raise BackupError(
            f"{server.address} refused to be read ({type(error).__name__}, SQLSTATE {error.sqlstate})"
        ) from None


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


def describe_database(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    """Encoding, locale, owner and settings of the database."""
    version_ = conn.info.server_version
    locale: LiteralString = (
        "d.datlocale" if version_ >= 170000 else "d.daticulocale" if version_ >= 150000 else "null"
    )
    query = _DATABASE.replace("{locale}", locale)
    row = conn.execute(query if version_ >= 150000 else query.replace("d.datlocprovider", "'c'")).fetchone()
    assert row is not None
    return row[0]


def ask_server(conn: psycopg.Connection[Any]) -> tuple[int, int, bool, int, int]:
    """Version, bytes of the database, whether in recovery, system identifier, timeline."""
    row = conn.execute(_SERVER).fetchone()
    assert row is not None
    return row


def now_of(conn: psycopg.Connection[Any]) -> datetime:
    """The server's clock."""
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return row[0]


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


def free_bytes(folder: Path) -> int:
    """What the disk has left that holds, or will hold, a folder."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextmanager
def entered(
    conn: psycopg.Connection[Any], name: str, backup_id: str, kind: str, database: str, parent: str | None,
    who: str | None, why: str,
) -> Iterator[tuple[datetime, str]]:  # fmt: skip
    """Enter a run, and note why it failed if it does."""
    started_at, by = now_of(conn), who or _me()
    catalogue.enter_run(conn, backup_id, name, kind, database, parent, started_at, by, why)
    hit("backup.entered")
    try:
        yield started_at, by
    except Exception as error:
        reason = str(error) if isinstance(error, DatopsError) else type(error).__name__
        with suppress(psycopg.Error):
            catalogue.fail_run(conn, backup_id, reason)
        raise


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@contextmanager
def working_folder(staging: Path, name: str) -> Iterator[Path]:
    """A private folder that is gone afterwards."""
    folder = staging / name
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(
    conn: psycopg.Connection[Any], name: str, destinations: Sequence[Destination], staging: Path, keys: Keys
) -> None:
    """Put right what killed runs of this name left: the good are entered, the half written are removed.

    Called with the name's lock held: what says it runs does not.
    """
    lately = now_of(conn) - _LOOKED_FOR
    for entry in catalogue.list_backups(conn, name):
        if entry.state in ("running", "died"):
            shutil.rmtree(staging / entry.backup_id, ignore_errors=True)
            if not adopt(conn, name, entry.backup_id, destinations, keys):
                catalogue.fail_run(conn, entry.backup_id, "the process that took it was killed")
        elif entry.state == "failed" and entry.started_at >= lately:
            for destination in destinations:
                with suppress(DatopsError, OSError):
                    _remove_half(destination, folder_of(name, entry.backup_id))


def adopt(
    conn: psycopg.Connection[Any], name: str, backup_id: str, destinations: Sequence[Destination], keys: Keys
) -> bool:
    """Enter a backup that stands finished at a destination; whether there is one. Half a copy is removed."""
    there, found = [], None
    for destination in destinations:
        folder = folder_of(name, backup_id)
        try:
            text = destination.read(f"{folder}/{MANIFEST}").decode()
            manifest = read_manifest(text, f"{destination.name}: {folder}/{MANIFEST}", keys)
        except (FileNotFoundError, BackupDamagedError, UnicodeDecodeError):
            with suppress(DatopsError, OSError):
                _remove_half(destination, folder)
            continue
        if _is_whole(destination, manifest):
            there.append(destination.name)
            found = (manifest, text)
    if found is None:
        return False
    catalogue.finish_run(conn, *found, there, {})
    return True


def _is_whole(destination: Destination, manifest: Manifest) -> bool:
    files = destination.list_files(manifest.folder)
    return all(files.get(artefact.name) == artefact.bytes for artefact in manifest.artefacts)


def _remove_half(destination: Destination, folder: str) -> None:
    """Remove artefacts that no manifest stands beside."""
    files = destination.list_files(folder)
    if files and MANIFEST not in files:
        destination.remove(folder)
