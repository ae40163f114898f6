"""Restore a physical backup into a folder: fetched, combined, recovered by a server that is shut off, pages checked.

promise   the folder has its name only when it is whole: it is made beside it, and renamed. Nothing is ever written
          into a folder that holds something
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from datops_assets.backup import facts
from datops_assets.backup.destinations import Destination
from datops_assets.backup.encryption import Keys
from datops_assets.backup.manifest import Manifest
from datops_assets.backup.physical import DATA, WAL
from datops_assets.backup.recovery import RecoveringServer, Target
from datops_assets.backup.restore import Wanted, fetch
from datops_assets.backup.runs import free_bytes
from datops_assets.backup.server import Server
from datops_assets.backup.server_manifest import NAME as SERVER_MANIFEST
from datops_assets.backup.server_manifest import compare_members, read_server_manifest
from datops_assets.backup.tablespaces import FOLDER, Tablespace, problems_of_places, put_elsewhere
from datops_assets.backup.verify import read_from
from datops_assets.errors import (
    BackupDamagedError,
    BackupError,
    BackupRefusedError,
    DatopsError,
    SourceUnreachableError,
)
from datops_assets.postgres.failpoints import hit
from datops_assets.postgres.lsn import parse_lsn
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets.resources.embedded.postmaster import read_postmaster

_SPARE = 1.1
_RECOVERING = "recovering"
"""Stands in a folder that a recovery may have changed."""
_LONGEST_CHAIN = 1000


@dataclass(frozen=True)
class Link:
    """One backup of a chain and where it is read."""

    manifest: Manifest
    destination: Destination


Chain = Sequence[Link]
"""A full backup and the incremental ones on top of it, the oldest first."""
FetchLog = Callable[[Path], None]
"""Brings the log that is wanted behind the backup into a folder."""


@dataclass(frozen=True)
class FolderPlan:
    """What a restore into a folder would do. Nothing was changed to find out."""

    backups: list[str]
    kind: str
    snapshot_at: datetime
    source: str
    folder: str
    target: str
    lost: str
    """What is not in the restored server."""
    fetched_bytes: int
    needed_bytes: int
    free_bytes: int
    wal_segments: int
    tablespaces: dict[str, str]
    """Where each of the server's own goes."""
    steps: list[str]
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FolderRestored:
    """A server's folder that was restored and is ready to start."""

    folder: str
    target: str
    recovery: list[str]
    """Where the recovery ended, in PostgreSQL's words."""
    databases: list[str]
    seconds: dict[str, float]
    findings: list[str]


def read_chain(destinations: Sequence[Destination], name: str, backup_id: str, keys: Keys) -> list[Link]:
    """A backup and all that it cannot be restored without, each from the first destination that has it right.

    raises     BackupDamagedError: one of them is missing, or its manifest was changed
    """
    chain: list[Link] = []
    wanted: str | None = backup_id
    while wanted is not None:
        link = _read_link(destinations, name, wanted, keys)
        manifest = link.manifest
        if manifest.kind == "logical" or len(chain) > _LONGEST_CHAIN:
            raise BackupDamagedError(f"the backup {manifest.backup_id} holds no server")
        if chain and manifest.system_identifier != chain[0].manifest.system_identifier:
            raise BackupDamagedError(f"the backup {manifest.backup_id} is of another server than its child")
        chain.insert(0, link)
        wanted = manifest.parent
    if chain[0].manifest.kind != "full":
        raise BackupDamagedError(
            f"the backup {chain[0].manifest.backup_id} is incremental and names no parent"
        )
    return chain


def _read_link(destinations: Sequence[Destination], name: str, backup_id: str, keys: Keys) -> Link:
    said: DatopsError | None = None
    for destination in destinations:
        try:
            return Link(read_from(destination, name, backup_id, keys), destination)
        except (BackupDamagedError, BackupRefusedError, SourceUnreachableError) as error:
            said = said or error
    raise said or BackupError(f"no destination has the backup {backup_id}")


def plan_folder(
    chain: Chain,
    folder: Path,
    target: Target,
    *,
    lost: str,
    wal_segments: int = 0,
    problems: Sequence[str] = (),
    places: Mapping[str, Path] | None = None,
) -> FolderPlan:
    """Say what a restore would do, and what stands in its way.

    places     where tablespaces go, by their names; the others stay inside the folder
    """
    last, places = chain[-1].manifest, places or {}
    segment_bytes = int(last.facts["cluster"]["segment_bytes"])
    # A chain and what it is combined to lie side by side for a while.
    plain = sum(link.manifest.plain_bytes for link in chain) * (2 if len(chain) > 1 else 1)
    needed = int((plain + wal_segments * segment_bytes) * _SPARE)
    free = free_bytes(folder.parent)
    known = tablespaces_of(chain)
    found = [*problems, *_in_the_way(folder), *problems_of_places(known, places, folder)]
    if free < needed:
        found.append(f"{folder.parent} has {free} bytes free, the restore needs {needed}")
    artefacts = sum(len(link.manifest.artefacts) for link in chain)
    steps = [f"fetch {artefacts} artefact(s) of {len(chain)} backup(s) and hold each file against its hash"]
    if len(chain) > 1:
        steps.append(f"combine {len(chain)} backups")
    if wal_segments:
        steps.append(f"fetch {wal_segments} segment(s) of the log")
    steps += [f"recover to {target}, without network", "check every page", f"give it the name {folder}"]
    return FolderPlan(
        [link.manifest.backup_id for link in chain], last.kind, last.snapshot_at, last.database, str(folder),
        str(target), lost, sum(link.manifest.stored_bytes for link in chain), needed, free, wal_segments,
        {one.name: str(places.get(one.name, folder / FOLDER / str(one.oid))) for one in known}, steps, found,
    )  # fmt: skip


def _in_the_way(folder: Path) -> list[str]:
    if read_postmaster(folder) is not None:
        return [f"a server runs on {folder}; restore into another folder"]
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return [f"{folder} is no folder"]
    if folder.is_dir() and any(folder.iterdir()):
        return [f"{folder} is not empty; restore into a folder that is not there"]
    return []


def restore_folder(
    chain: Chain, keys: Keys, folder: Path, target: Target, *, plan: FolderPlan, fetch_log: FetchLog | None = None,
    pg_bin: Path | None = None, places: Mapping[str, Path] | None = None,
) -> FolderRestored:  # fmt: skip
    """Restore into a folder that is not there, or is empty.

    promise    killed in the middle, there is no folder of that name; run again, it goes on with what was fetched
    raises     BackupRefusedError: something is in the way. BackupDamagedError: a backup is not what was written.
               BackupError: it does not recover to the target, or pages are damaged
    """
    if plan.problems:
        raise BackupRefusedError("; ".join(plan.problems))
    seconds: dict[str, float] = {}
    making = folder.with_name(f"{folder.name}.restoring")
    _forget_recovered(making)
    with prepared(chain, keys, making, seconds, fetch_log, pg_bin) as server:
        (server.base / _RECOVERING).touch()
        with _timed(seconds, "recover"):
            answering = _start(server, chain, target, durable=True)
            hit("restore.recovering")
            databases = [at.dbname for at in databases_of(answering)]
            findings = _compare_if_at_moment(chain, target, answering)
        said = server.said()
        server.stop()
        with _timed(seconds, "pages"):
            findings += check_pages(server, chain)
        if findings:
            raise BackupError(
                f"{making} is not what was backed up ({'; '.join(findings[:3])}); it keeps that name"
            )
        hit("restore.recovered")
        put_elsewhere(server.data, tablespaces_of(chain), places or {})
        if folder.exists():
            folder.rmdir()
        shutil.move(server.data, folder)
        base = server.base
    for left in {making, base}:
        shutil.rmtree(left, ignore_errors=True)
    return FolderRestored(str(folder), str(target), said, databases, seconds, findings)


@contextmanager
def prepared(
    chain: Chain,
    keys: Keys,
    folder: Path,
    seconds: dict[str, float],
    fetch_log: FetchLog | None,
    pg_bin: Path | None,
) -> Iterator[RecoveringServer]:
    """A folder with data and log that only has to be recovered; a server that was started on it is stopped."""
    last = chain[-1].manifest
    server = RecoveringServer(folder, last.server_version, pg_bin)
    try:
        with _timed(seconds, "fetch"):
            if len(chain) == 1:
                _fetch_one(chain[0], keys, server.base)
            else:
                _fetch_and_combine(chain, keys, server)
            server.wal.mkdir(exist_ok=True, mode=0o700)
            if fetch_log is not None:
                fetch_log(server.wal)
        hit("restore.fetched")
        yield server
    finally:
        server.stop()


def tablespaces_of(chain: Chain) -> list[Tablespace]:
    """The server's own, as the backup has them."""
    return [Tablespace(**one) for one in chain[-1].manifest.facts.get("tablespaces", [])]


def moment_of(chain: Chain) -> Target:
    """Where in the log the backup's content is known, or where it ends."""
    last = chain[-1].manifest
    if last.facts.get("content") != "hashed":
        return Target()
    return Target(lsn=last.end_lsn, inclusive=False)


def is_before(snapshot_at: datetime | None, end_lsn: str | None, target: Target) -> bool:
    """Whether a target can be reached from a backup: not before the backup ends."""
    if target.time is not None:
        return snapshot_at is not None and snapshot_at <= target.time
    if target.lsn is not None:
        return end_lsn is not None and parse_lsn(end_lsn) <= parse_lsn(target.lsn)
    return True


def _start(server: RecoveringServer, chain: Chain, target: Target, *, durable: bool) -> Server:
    last = chain[-1].manifest
    superuser, dbname = last.facts["superuser"], last.database.rpartition("/")[2]
    try:
        answering = server.start(target, durable=durable, superuser=superuser, dbname=dbname)
    except BackupError as error:
        # The plan found that the log reaches to that time: nothing was committed after it, so all of it is wanted.
        if target.time is None or "before configured recovery target was reached" not in str(error):
            raise
        answering = server.start(Target(), durable=durable, superuser=superuser, dbname=dbname)
    with closing(answering.connect()) as conn:
        conn.execute("select 1")
    return answering


def start_for_drill(server: RecoveringServer, chain: Chain) -> Server:
    """Recover to the place where the content is known; what is restored is thrown away."""
    return _start(server, chain, moment_of(chain), durable=False)


def check_pages(server: RecoveringServer, chain: Chain) -> list[str]:
    """Findings in the pages of the stopped server; a server without checksums has none to check."""
    return server.check_pages() if chain[-1].manifest.facts["cluster"]["data_checksums"] else []


def databases_of(server: Server) -> list[Server]:
    """Every database of the server that lets anybody in."""
    with closing(server.connect()) as conn:
        names = conn.execute("select datname from pg_database where datallowconn order by 1").fetchall()
    return [server.at(name) for (name,) in names]


def read_database(server: Server, jobs: int) -> dict[str, Any]:
    """What a database holds, as it was noted when it was backed up."""
    from datops_assets.backup.restore import read_content

    with closing(server.connect()) as conn:
        facts.prepare(conn)
        found = {
            "objects": facts.read_objects(conn),
            "sequences": facts.read_sequences(conn),
            "large_objects": facts.read_large_objects(conn),
        }
    return found | {"tables": read_content(server, jobs)}


def _compare_if_at_moment(chain: Chain, target: Target, answering: Server) -> list[str]:
    if target.is_end or target != moment_of(chain):
        return []
    try:
        return facts.compare(chain[-1].manifest.facts, read_database(answering, 2))
    except psycopg.Error as error:  # its text may hold values
        return [f"it cannot be read: {type(error).__name__}, SQLSTATE {error.sqlstate}"]


def _forget_recovered(making: Path) -> None:
    """What a recovery changed is no longer what was fetched: it is fetched anew, and its server ended."""
    left = EmbeddedServer(making)
    if (left.base / _RECOVERING).exists():
        left.stop()
        for folder in {making, left.base}:
            shutil.rmtree(folder, ignore_errors=True)


def _fetch_one(link: Link, keys: Keys, into: Path) -> None:
    manifest = link.manifest
    fetch(manifest, link.destination, keys, into, Wanted())
    for name in manifest.facts["folders"]:
        (into / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    _require_listed(manifest, into)


def _require_listed(manifest: Manifest, folder: Path) -> None:
    """Hold the files, whose hashes were just found right, against the server's own list.

    raises     BackupDamagedError: they differ
    """
    text = (folder / DATA / SERVER_MANIFEST).read_bytes()
    listed = read_server_manifest(text, f"{SERVER_MANIFEST} of {manifest.backup_id}")
    members = {
        member.name.removeprefix(f"{DATA}/"): member
        for artefact in manifest.artefacts
        for member in artefact.members
        if not member.name.startswith(f"{WAL}/")
    }
    findings = compare_members(listed, members)
    if findings:
        raise BackupDamagedError(f"the backup {manifest.backup_id}: {'; '.join(findings[:3])}")


def _fetch_and_combine(chain: Chain, keys: Keys, server: RecoveringServer) -> None:
    """Every file of every parent is held against its hash before pg_combinebackup sees it: it would not look."""
    parts = [server.base / "chain" / f"{number:03d}" for number in range(len(chain))]
    for link, part in zip(chain, parts, strict=True):
        _fetch_one(link, keys, part)
    shutil.rmtree(server.data, ignore_errors=True)
    command = [
        server.programs.path("pg_combinebackup"),
        "--manifest-checksums=CRC32C",
        f"--output={server.data}",
    ]
    Server({}).run([*command, *(str(part / DATA) for part in parts)], "the backups cannot be combined")
    log = parts[-1] / WAL
    if log.is_dir():
        shutil.copytree(log, server.wal, dirs_exist_ok=True)
    shutil.rmtree(server.base / "chain")


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    seconds[what] = round(time.monotonic() - begun, 3)
