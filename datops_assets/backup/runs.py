"""What every run of a backup goes through, whatever it takes: entered, published, and put right where it was killed.

Belongs here: the order in which a backup becomes good. Does not: what is in it (logical.py, physical.py).
"""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from datops_assets.backup import catalogue
from datops_assets.backup.destinations import MANIFEST, Destination
from datops_assets.backup.encryption import Keys
from datops_assets.backup.manifest import Manifest, folder_of, read_manifest, write_manifest
from datops_assets.backup.server import Server
from datops_assets.errors import BackupDamagedError, BackupError, DatopsError
from datops_assets.postgres.failpoints import hit

_LOOKED_FOR = timedelta(days=7)
"""How long after a failed run its leftovers are looked for at the destinations."""


@dataclass(frozen=True)
class Declared:
    """What a person declares about all that is kept of one server under one name: backups, and its log."""

    name: str
    server: Server = field(repr=False)
    destinations: Sequence[Destination]
    keys: Keys
    staging: Path
    """Folder for what is on its way: a dump before it is packed, the log behind a copy."""
    pg_bin: Path | None = None


@dataclass(frozen=True)
class Backup(Declared):
    """What a person declares about backups, whatever kind they are of."""

    jobs: int = 2


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
class Taken:
    """One backup that is good, and the destinations that do not have it."""

    manifest: Manifest
    failed: dict[str, str]


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


def now_of(conn: psycopg.Connection[Any]) -> datetime:
    """The server's clock."""
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return row[0]


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
