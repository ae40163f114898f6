"""Take a physical backup: pg_basebackup's tar stream, file by file into artefacts, nothing of it on our disk.

The stream is never unpacked to be taken (no path of it becomes a path of ours), each file is hashed on its way and held
against the manifest that the server made, and the log up to a moment is kept whose content is known (moment.py). The
server's checksums are CRC32C: one without OpenSSL takes longer for SHA-256 than for all else.
Belongs here: full and incremental backups of a whole server. Does not: the log between backups (wal.py).
"""

from __future__ import annotations

import io
import tarfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Any, LiteralString

import psycopg

from datops_assets.backup import catalogue, facts
from datops_assets.backup.artefacts import Artefact, Member, Packing, unpack
from datops_assets.backup.destinations import Destination
from datops_assets.backup.manifest import Kind, Manifest, folder_of
from datops_assets.backup.moment import Moment, NoMomentError, hold_moment
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
from datops_assets.backup.server import Server, fitting_programs
from datops_assets.backup.server_manifest import NAME as SERVER_MANIFEST
from datops_assets.backup.server_manifest import ServerManifest, compare_members, read_server_manifest
from datops_assets.backup.source import as_source, ask_server, describe_database
from datops_assets.backup.tablespaces import Tablespace, copy_by_archives, read_tablespaces
from datops_assets.backup.tar_stream import read_entries
from datops_assets.backup.wal_segments import segment_name
from datops_assets.errors import BackupDamagedError, BackupError
from datops_assets.postgres.failpoints import hit
from datops_assets.postgres.lsn import format_lsn, parse_lsn
from datops_assets.postgres.ulid import new_ulid
from datops_assets.resources.embedded.programs import Programs

DATA, WAL = "data", "wal"
"""Folders of a physical backup: the server's, and the log behind it up to the moment."""
ARTEFACT_BYTES = 256 << 20
"""An artefact ends when it has this many bytes, unpacked: a restore that was cut goes on from there."""
_PIECE_BYTES = 1 << 20
_MANIFEST_MOST_BYTES = 1 << 30
_INCREMENTAL_FROM = 170000
_SPARE = 1.1
_CLUSTER: LiteralString = """
select coalesce((select sum(pg_database_size(oid)) from pg_database
                  where has_database_privilege(oid, 'connect')), 0)::bigint,
       (select pg_size_bytes(current_setting('wal_segment_size'))),
       (select rolreplication or rolsuper from pg_roles where rolname = current_user),
       current_setting('summarize_wal', true), current_setting('data_checksums'),
       (select rolname::text from pg_roles where rolsuper and rolcanlogin order by oid limit 1)
"""
_AHEAD: LiteralString = """
select format('%s.%s', n.nspname, c.relname), s.seqincrement * (32 + s.seqcache)
  from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
"""


@dataclass(frozen=True)
class PhysicalBackup(Backup):
    """What a person declares about the physical backups of one server."""

    content: bool = True
    """Whether every table of the database is hashed at the backup's moment: one full read of it."""


@dataclass(frozen=True)
class Cluster:
    """What has to be known of a server before it is copied."""

    server_version: int
    system_identifier: int
    timeline: int
    bytes: int
    segment_bytes: int
    data_checksums: bool
    superuser: str | None
    """Whoever may read everything in a restored copy."""
    tablespaces: list[Tablespace]
    problems: list[str]


def plan_physical(backup: PhysicalBackup, kind: Kind) -> BackupPlan:
    """Say what a run would do, and what stands in its way."""
    with backup.server.connect() as conn, as_source(backup.server):
        facts.prepare(conn)
        cluster = _look(conn, backup, kind)
        tables = facts.read_tables(conn)
    programs = fitting_programs(cluster.server_version, backup.pg_bin)
    return BackupPlan(
        name=backup.name, kind=kind, database=backup.server.address, server_version=cluster.server_version,
        program=f"pg_basebackup {programs.version}", database_bytes=cluster.bytes, tables=len(tables),
        destinations={one.name: one.shown for one in backup.destinations},
        encrypted_with=backup.keys.current.name if backup.keys.current else None,
        staging=str(backup.staging), staging_free_bytes=free_bytes(backup.staging), problems=cluster.problems,
    )  # fmt: skip


def take_physical(
    conn: psycopg.Connection[Any], backup: PhysicalBackup, *, why: str, who: str | None = None,
    parent: tuple[Manifest, Destination] | None = None,
) -> Taken:  # fmt: skip
    """Take one backup of a whole server: full, or what changed since `parent`.

    conn       the catalogue's
    promise    as `take_logical`: listed as good only when it is whole. What is listed is what the server sent: each
               file's SHA-256 is the one of the server's own manifest
    raises     BackupError, SourceUnreachableError, SourceRefusedError: nothing counts as a backup
               LockTakenError: another process takes backups of this name
    """
    kind: Kind = "incremental" if parent else "full"
    with catalogue.running(conn, backup.name):
        sweep(conn, backup.name, backup.destinations, backup.staging, backup.keys)
        backup_id = new_ulid()
        with (
            entered(
                conn, backup.name, backup_id, kind, backup.server.address,
                parent[0].backup_id if parent else None, who, why,
            ) as (started_at, by),
            working_folder(backup.staging, backup_id) as folder,
        ):  # fmt: skip
            return _Taking(conn, backup, folder, backup_id, kind, parent).take(started_at, by, why)


class _Taking:
    """One run."""

    def __init__(
        self, conn: psycopg.Connection[Any], backup: PhysicalBackup, folder: Path, backup_id: str, kind: Kind,
        parent: tuple[Manifest, Destination] | None,
    ) -> None:  # fmt: skip
        self._conn, self._backup, self._folder, self._kind, self._parent = conn, backup, folder, kind, parent
        self._backup_id, self._failed = backup_id, dict[str, str]()
        self._files = _Files(backup, backup_id, self._failed)

    def take(self, started_at: datetime, who: str, why: str) -> Taken:
        begun = time.monotonic()
        backup = self._backup
        try:
            with backup.server.connect() as keeper, as_source(backup.server):
                facts.prepare(keeper)
                cluster = _look(keeper, backup, self._kind)
                if cluster.problems:
                    raise BackupError("; ".join(cluster.problems))
                programs = fitting_programs(cluster.server_version, backup.pg_bin)
                _keep_log(keeper, self._backup_id)
                row = keeper.execute("select clock_timestamp()").fetchone()
                assert row is not None
                listed = self._stream(programs, cluster)
                copied_s = time.monotonic() - begun
                hit("backup.dumped")
                held, moment = _content(backup, keeper)
                end = max(one.end_lsn for one in listed.wal_ranges)
                lsn = moment.lsn if moment else format_lsn(end)
                self._tail(programs, cluster, end, parse_lsn(lsn))
        except BaseException:
            self._files.abandon()
            raise
        artefacts = self._files.finish()
        hit("backup.packed")
        held["folders"] = self._files.folders
        held["superuser"] = cluster.superuser
        held["tablespaces"] = [asdict(one) for one in cluster.tablespaces]
        held["cluster"] = {"segment_bytes": cluster.segment_bytes, "data_checksums": cluster.data_checksums}
        held["seconds"] = {"copy": round(copied_s, 3), "all": round(time.monotonic() - begun, 3)}
        current = backup.keys.current
        manifest = Manifest(
            backup_id=self._backup_id, name=backup.name, kind=self._kind, database=backup.server.address,
            started_at=started_at, snapshot_at=moment.at if moment else row[0], finished_at=now_of(self._conn),
            system_identifier=cluster.system_identifier, timeline=listed.wal_ranges[-1].timeline,
            start_lsn=format_lsn(min(one.start_lsn for one in listed.wal_ranges)), end_lsn=lsn,
            server_version=cluster.server_version,
            tools={"pg_basebackup": programs.version, "datops": version("datops")},
            parent=self._parent[0].backup_id if self._parent else None,
            key_id=current.id if current else None, key_name=current.name if current else None, who=who, why=why,
            artefacts=tuple(artefacts), facts=held,
        )  # fmt: skip
        return publish(self._conn, manifest, backup.destinations, backup.keys, self._failed)

    def _stream(self, programs: Programs, cluster: Cluster) -> ServerManifest:
        """Copy the server, and hold what came against the list that came with it."""
        command = [
            programs.path("pg_basebackup"), "--format=tar", "--wal-method=fetch", "--checkpoint=fast",
            "--manifest-checksums=CRC32C", "--no-password", f"--label=datops {self._backup_id}",
        ]  # fmt: skip
        if self._parent is not None:
            command.append(f"--incremental={self._parents_manifest()}")
        what = f"the copy of {self._backup.server.address} failed"
        try:
            if cluster.tablespaces:
                text = copy_by_archives(command, self._backup.server, what, self._folder, self._files.add_all)
                self._files.add_manifest(text)
            else:
                with self._backup.server.stream([*command, "--pgdata=-"], what) as sent:
                    text = self._files.add_all(sent)
        except (tarfile.TarError, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise BackupError(f"{what}: what the server sent was cut off") from None
        if text is None:
            raise BackupError(f"{what}: it came without its {SERVER_MANIFEST}")
        listed = read_server_manifest(text, SERVER_MANIFEST)
        members = {path.removeprefix(f"{DATA}/"): one for path, one in self._files.members.items()}
        findings = compare_members(listed, members)
        if listed.system_identifier not in (None, cluster.system_identifier):
            findings.append("it is of another server")
        if findings:
            raise BackupError(f"{what}: {'; '.join(findings[:3])}")
        return listed

    def _parents_manifest(self) -> Path:
        assert self._parent is not None
        manifest, destination = self._parent
        name = f"{DATA}/{SERVER_MANIFEST}"
        for artefact in manifest.artefacts:
            if any(member.name == name for member in artefact.members):
                unpack(
                    destination, manifest.place(artefact), artefact, self._backup.keys,
                    encrypted=manifest.key_id is not None, into=self._folder / "parent", wanted=name.__eq__,
                )  # fmt: skip
                return self._folder / "parent" / name
        raise BackupDamagedError(f"the backup {manifest.backup_id} has no {SERVER_MANIFEST}")

    def _tail(self, programs: Programs, cluster: Cluster, start: int, end: int) -> None:
        """Add the log from the segment in which the copy ended to the moment."""
        if end <= start:
            return
        tail = self._folder / WAL
        tail.mkdir(mode=0o700)
        # pg_receivewal begins with the segment of which it finds a part.
        first = segment_name(cluster.timeline, start, cluster.segment_bytes)
        (tail / f"{first}.partial").touch()
        command = [
            programs.path("pg_receivewal"), f"--directory={tail}", f"--endpos={format_lsn(end)}", "--no-loop",
            "--no-password",
        ]  # fmt: skip
        _move_log_on(self._backup.server)
        self._backup.server.run(command, f"the log of {self._backup.server.address} cannot be read")
        for path in sorted(tail.iterdir()):
            with path.open("rb") as file:
                self._files.add(f"{WAL}/{path.name.removesuffix('.partial')}", path.stat().st_size, file)


class _Files:
    """Files on their way into artefacts, one artefact after the other."""

    def __init__(self, backup: PhysicalBackup, backup_id: str, failed: dict[str, str]) -> None:
        self._backup, self._below, self._failed = backup, folder_of(backup.name, backup_id), failed
        self._packing: Packing | None = None
        # Ending one means waiting for the disk or the store: the next one begins meanwhile.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="artefact")
        self._ended: list[Future[Artefact]] = []
        self.members: dict[str, Member] = {}
        self.folders: list[str] = []

    def add(self, name: str, size: int, content: Any) -> None:
        """Add a file; an artefact that has enough ends before it."""
        if self._packing is not None and self._packing.plain_bytes + size > ARTEFACT_BYTES:
            self._end_one()
        if self._packing is None:
            keys = self._backup.keys
            artefact = f"{len(self._ended) + 1:05d}.tar.zst{'.enc' if keys.current else ''}"
            self._packing = Packing(
                artefact, f"{self._below}/{artefact}", self._backup.destinations, keys.current, self._failed
            )
        self.members[name] = self._packing.add(name, size, content, crc32c=True)

    def add_manifest(self, text: bytes | None) -> None:
        """Add the server's manifest that came beside the archives."""
        if text is not None:
            self.add(f"{DATA}/{SERVER_MANIFEST}", len(text), io.BytesIO(text))

    def add_all(self, sent: IO[bytes], below: str = "") -> bytes | None:
        """Add every file of pg_basebackup's stream, below a folder; the server's manifest, when it came."""
        text = None
        for about, entry in read_entries(sent):
            name = f"{DATA}/{below}{_tame(about)}"
            if about.isdir():
                self.folders.append(name)
                continue
            content: Any = entry
            if name == f"{DATA}/{SERVER_MANIFEST}":
                if about.size > _MANIFEST_MOST_BYTES:
                    raise BackupError(f"the server's {SERVER_MANIFEST} has {about.size} bytes")
                text = entry.read()
                content = io.BytesIO(text)
            self.add(name, about.size, content)
        while sent.read(_PIECE_BYTES):  # the padding behind the end
            pass
        return text

    def finish(self) -> list[Artefact]:
        """End the last artefact, and wait for all of them."""
        self._end_one()
        done = [one.result() for one in self._ended]
        self._pool.shutdown()
        return done

    def abandon(self) -> None:
        """Forget the one that is open. The others go with the run's folder."""
        if self._packing is not None:
            self._packing.abandon()
        self._pool.shutdown()

    def _end_one(self) -> None:
        for one in self._ended:
            if one.done():
                one.result()
        if self._packing is not None:
            packing, self._packing = self._packing, None
            self._ended.append(self._pool.submit(_end, packing))


def _end(packing: Packing) -> Artefact:
    try:
        artefact = packing.finish()
    except BaseException:
        packing.abandon()
        raise
    hit("backup.artefact")
    return artefact


def _tame(about: tarfile.TarInfo) -> str:
    """The name of what a server sends, below its folder.

    raises     BackupError: a link, a device, or a name that leads elsewhere
    """
    parts = [part for part in PurePosixPath(about.name).parts if part != "."]
    if not (about.isreg() or about.isdir()):
        raise BackupError(f"the server sent {about.name!r}, which is neither a file nor a folder")
    if not parts or ".." in parts or about.name.startswith("/") or "\\" in about.name:
        raise BackupError(f"the server sent {about.name!r}, which leads out of its folder")
    return "/".join(parts)


def _look(conn: psycopg.Connection[Any], backup: PhysicalBackup, kind: Kind) -> Cluster:
    server_version, _, _, system, timeline = ask_server(conn)
    row = conn.execute(_CLUSTER).fetchone()
    assert row is not None
    size, segment_bytes, may, summarizes, checksums, superuser = row
    tablespaces = read_tablespaces(conn)
    problems = []
    if not may:
        problems.append(
            f"the role may not copy the server; on it: alter role {backup.server.parameters.get('user')} replication"
        )
    if tablespaces and (free := free_bytes(backup.staging)) < int(size * _SPARE):
        problems.append(
            f"{backup.staging} has {free} bytes free; a server with tablespaces of its own"
            f" ({', '.join(one.name for one in tablespaces)}) is written there first, and may need {int(size * _SPARE)}"
        )
    if kind == "incremental" and (server_version < _INCREMENTAL_FROM or summarizes != "on"):
        problems.append(
            "incremental backups need PostgreSQL 17 or newer and summarize_wal = on; take full ones"
        )
    for destination in backup.destinations:
        left = destination.free_bytes()
        if left is not None and left < size // 10:
            problems.append(
                f"the destination {destination.name} has {left} bytes free, expected {size // 10} or more"
            )
    return Cluster(
        server_version,
        system,
        timeline,
        size,
        segment_bytes,
        checksums == "on",
        superuser,
        tablespaces,
        problems,
    )


def _keep_log(keeper: psycopg.Connection[Any], backup_id: str) -> None:
    """Keep the log from here on for as long as this connection is open."""
    try:
        keeper.execute(
            "select pg_create_physical_replication_slot(%s, true, true)",
            (f"datops_backup_{backup_id.lower()}",),
        )
    except psycopg.Error as error:
        raise BackupError(
            f"no replication slot can be made for the time of the copy (SQLSTATE {error.sqlstate});"
            " look at max_replication_slots"
        ) from None


def _content(backup: PhysicalBackup, keeper: psycopg.Connection[Any]) -> tuple[dict[str, Any], Moment | None]:
    """What the database holds at a moment behind the copy; why not, where there is none."""
    held: dict[str, Any] = {"tables": {}, "database": describe_database(keeper)}
    if not backup.content:
        return held | {"content": "not wanted"}, None
    sequences = facts.read_sequences(keeper)
    try:
        with hold_moment(backup.server) as moment, _reader(backup.server, moment) as source:
            tables = facts.read_tables(source)
            held |= {
                "objects": facts.read_objects(source),
                "large_objects": facts.read_large_objects(source),
                "tables": facts.hash_tables(lambda: _reader(backup.server, moment), tables, backup.jobs),
            }
    except NoMomentError as error:
        return held | {"content": str(error)}, None
    # A server that recovers finds a sequence where the log has it: up to 32 values and a cache ahead.
    ahead = dict(keeper.execute(_AHEAD).fetchall())
    after = {
        name: [last + ahead.get(name, 0), called]
        for name, (last, called) in facts.read_sequences(keeper).items()
    }
    return held | {"content": "hashed", "sequences": sequences, "sequences_after": after}, moment


def _reader(server: Server, moment: Moment) -> psycopg.Connection[Any]:
    """A connection that sees the moment."""
    conn = server.connect()
    facts.prepare(conn)
    conn.execute("begin isolation level repeatable read read only")
    conn.execute(f"set transaction snapshot '{moment.snapshot}'")
    return conn


def _move_log_on(server: Server) -> None:
    """Write something: pg_receivewal only stops behind its end, and an idle server would let it wait."""
    with server.connect() as conn:
        conn.execute("select pg_current_xact_id(), pg_logical_emit_message(false, 'datops', 'backup')")
