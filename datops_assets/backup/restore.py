"""Restore a logical backup: whole, one schema or one table, into a database; the plan first.

promise   a restored database has its name only when it is whole: it is filled under another one. Nothing is
          overwritten; a database that is in the way is moved aside, and only when it was named with its address
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.backup import facts
from datops_assets.backup.artefacts import Artefact, unpack
from datops_assets.backup.destinations import Destination
from datops_assets.backup.encryption import Keys
from datops_assets.backup.logical import DUMP, ROLES, TOC
from datops_assets.backup.manifest import Manifest
from datops_assets.backup.server import Server, fitting_programs
from datops_assets.errors import BackupDamagedError, BackupError, BackupRefusedError
from datops_assets.postgres.failpoints import hit
from datops_assets.resources.embedded.programs import Programs

_SPARE = 1.1
_KEPT_IN_ANY_CASE = ("SCHEMA", "EXTENSION", "TYPE", "DOMAIN", "COLLATION", "FUNCTION", "SHELL TYPE")


@dataclass(frozen=True)
class Wanted:
    """What of a backup is restored: everything, one schema, or one table."""

    schema: str | None = None
    table: str | None = None
    """`schema.table`, as the backup calls it."""

    def has(self, label: str) -> bool:
        """Whether a table of the backup is wanted."""
        if self.table is not None:
            return label == self.table
        return self.schema is None or facts.unspell(label)[0] == self.schema

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self.schema is None and self.table is None


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would do. Nothing was changed to find out."""

    backup_id: str
    snapshot_at: datetime
    source: str
    target: str
    """host:port/database."""
    tables: int
    rows: int
    fetched_bytes: int
    needed_bytes: int
    free_bytes: int
    steps: list[str]
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Restored:
    """A restore that was done and held against the backup."""

    target: str
    tables: int
    rows: int
    seconds: dict[str, float]
    findings: list[str]


def plan_restore(
    manifest: Manifest,
    destination: Destination,
    target: Server,
    staging: Path,
    wanted: Wanted,
    onto: str | None,
) -> RestorePlan:
    """Say what a restore would do, and what stands in its way.

    onto      address that a person typed: of a database in the way, or on the server the backup came from
    """
    tables = {label: held for label, held in manifest.facts["tables"].items() if wanted.has(label)}
    artefacts = _needed(manifest, wanted)
    unpacked = sum(member.bytes for artefact in artefacts for member in artefact.members)
    free = shutil.disk_usage(_existing(staging)).free
    problems = [] if tables or wanted.is_everything else [_no_such(manifest, wanted)]
    if free < unpacked * _SPARE:
        problems.append(f"{staging} has {free} bytes free, unpacking needs {int(unpacked * _SPARE)}")
    steps = [f"fetch {len(artefacts)} artefact(s) from {destination.name} and hold each against its hash"]
    with closing(beside(target).connect()) as conn:
        exists = _exists(conn, target.dbname)
        same_server = _system(conn) == manifest.system_identifier
        major = conn.info.server_version // 10000
    if major < manifest.server_version // 10000:
        problems.append(
            f"{target.address} is PostgreSQL {major}, the backup is of {manifest.server_version // 10000};"
            " restore it on a server that is not older"
        )
    filled = _is_filled(target) if exists else False
    if same_server and manifest.database.endswith(f"/{target.dbname}") and onto != target.address:
        problems.append(
            f"{target.address} is the source itself; to replace it, say so: --onto {target.address}"
        )
    elif filled and wanted.is_everything and onto != target.address:
        problems.append(f"{target.address} is not empty; to replace it, say so: --onto {target.address}")
    if not exists or wanted.is_everything:
        held = manifest.facts.get("database_bytes")
        about = f", about {held} bytes on its server's disk" if held and wanted.is_everything else ""
        steps.append(f"fill a new database {_filling(target.dbname)}{about}")
    if wanted.is_everything and exists:
        steps.append(f"move {target.dbname} aside as {_aside(target.dbname)}")
    if not exists or wanted.is_everything:
        steps.append(f"give it the name {target.dbname}")
    else:
        steps.append(f"add {len(tables)} table(s) to {target.dbname} in one transaction")
        problems += _in_the_way(target, list(tables))
    if wanted.is_everything:
        problems += _missing_roles(manifest, target)
    steps.append("hold rows and content of every restored table against the backup")
    return RestorePlan(
        manifest.backup_id, manifest.snapshot_at, manifest.database, target.address, len(tables),
        sum(held[0] for held in tables.values()), sum(one.bytes for one in artefacts), int(unpacked * _SPARE), free,
        steps, problems,
    )  # fmt: skip


def restore_logical(
    manifest: Manifest, destination: Destination, keys: Keys, target: Server, staging: Path, *,
    wanted: Wanted = Wanted(), onto: str | None = None, pg_bin: Path | None = None, jobs: int = 2,
) -> Restored:  # fmt: skip
    """Restore, and hold the outcome against the backup.

    promise    killed in the middle, what was there is there; run again, it goes on with what was fetched
    raises     BackupRefusedError: something is in the way. BackupDamagedError: the backup is not what was written
    """
    plan = plan_restore(manifest, destination, target, staging, wanted, onto)
    if plan.problems:
        raise BackupRefusedError("; ".join(plan.problems))
    seconds: dict[str, float] = {}
    folder = staging / f"restore-{manifest.backup_id}"
    with _timed(seconds, "fetch"):
        fetch(manifest, destination, keys, folder, wanted, jobs)
    hit("restore.fetched")
    with closing(beside(target).connect()) as admin:
        exists = _exists(admin, target.dbname)
        programs = fitting_programs(admin.info.server_version, pg_bin)
        if exists and not wanted.is_everything:
            with _timed(seconds, "load"):
                _add(manifest, folder, target, programs, wanted)
            findings = _check(manifest, target, wanted, jobs, seconds)
        else:
            filling = target.at(_filling(target.dbname))
            with _timed(seconds, "load"):
                create_database(admin, filling.dbname, manifest)
                load(manifest, folder, filling, programs, wanted, jobs)
            hit("restore.loaded")
            findings = _check(manifest, filling, wanted, jobs, seconds)
            if findings:
                raise BackupError(
                    f"{filling.dbname} is not what was backed up ({'; '.join(findings[:3])}); it keeps that name"
                )
            _swap(admin, filling.dbname, target.dbname)
    shutil.rmtree(folder, ignore_errors=True)
    return Restored(target.address, plan.tables, plan.rows, seconds, findings)


def fetch(
    manifest: Manifest, destination: Destination, keys: Keys, folder: Path, wanted: Wanted, jobs: int = 2
) -> None:
    """Bring the files that are needed into a folder; what is there already and right is left alone.

    jobs      artefacts at once
    raises    BackupDamagedError: a file is not what was backed up; those that are right stay
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    names = _files(manifest, wanted)

    def bring(artefact: Artefact) -> None:
        if all(
            _is_there(folder, member.name, member.sha256)
            for member in artefact.members
            if member.name in names
        ):
            return
        unpack(
            destination, manifest.place(artefact), artefact, keys, encrypted=manifest.key_id is not None, into=folder,
            wanted=names.__contains__,
        )  # fmt: skip

    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        for done in [pool.submit(bring, artefact) for artefact in _needed(manifest, wanted)]:
            done.result()
    lost = [name for name in names if not (folder / name).is_file()]
    if lost:
        raise BackupDamagedError(f"the backup {manifest.backup_id} has no file {lost[0]}")


def create_database(admin: psycopg.Connection[Any], name: str, manifest: Manifest) -> None:
    """Make an empty database of the backup's encoding and locale; one left by a killed restore goes first."""
    about = manifest.facts["database"]
    admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
    provider = {"c": "libc", "i": "icu", "b": "builtin"}[about["provider"]]
    statement = sql.SQL("create database {} template template0 encoding {} lc_collate {} lc_ctype {}").format(
        sql.Identifier(name),
        sql.Literal(about["encoding"]),
        sql.Literal(about["collate"]),
        sql.Literal(about["ctype"]),
    )
    if admin.info.server_version >= 150000:
        statement += sql.SQL(" locale_provider {}").format(sql.Identifier(provider))
    if about["locale"] is not None:
        kind = "icu_locale" if provider == "icu" else "builtin_locale"
        statement += sql.SQL(f" {kind} {{}}").format(sql.Literal(about["locale"]))
    admin.execute(statement)
    for setting in about["settings"]:
        parameter, _, value = setting.partition("=")
        admin.execute(
            sql.SQL("alter database {} set {} = {}").format(
                sql.Identifier(name), sql.Identifier(parameter), sql.Literal(value)
            )
        )


def load(
    manifest: Manifest, folder: Path, target: Server, programs: Programs, wanted: Wanted, jobs: int
) -> None:
    """Fill an empty database from the fetched dump."""
    command = [programs.path("pg_restore"), "--no-password", f"--dbname={target.dbname}", f"--jobs={jobs}"]
    # Nothing waits for the disk between tables: the name that the database gets at the end is written for good,
    # and with it all that came before.
    target = target.with_option("synchronous_commit", "off")
    if wanted.is_everything:
        target.run(
            [*command, "--exit-on-error", str(folder / DUMP)], f"the restore into {target.address} failed"
        )
        return
    listing = _listing(manifest, folder, target, programs, wanted, fresh=True)
    try:
        # A function may need a table that is left out: what counts is that the wanted tables come back.
        target.run([*command, f"--use-list={listing}", str(folder / DUMP)], "")
    except BackupError:
        pass


def restore_roles(folder: Path, target: Server, programs: Programs) -> None:
    """Make the roles of a backup on a server that has none of them; those that are there stay as they are."""
    command = [programs.path("psql"), "--no-psqlrc", "--quiet", "--no-password", f"--dbname={target.dbname}"]
    target.run([*command, f"--file={folder / ROLES}"], f"the roles cannot be restored at {target.address}")


def _add(manifest: Manifest, folder: Path, target: Server, programs: Programs, wanted: Wanted) -> None:
    """Add tables to a database that has others: all of them or none."""
    listing = _listing(manifest, folder, target, programs, wanted, fresh=False)
    command = [
        programs.path("pg_restore"), "--no-password", f"--dbname={target.dbname}", "--single-transaction",
        "--exit-on-error", f"--use-list={listing}", str(folder / DUMP),
    ]  # fmt: skip
    target.run(command, f"the restore into {target.address} failed, and nothing of it was kept")


def _listing(
    manifest: Manifest, folder: Path, target: Server, programs: Programs, wanted: Wanted, *, fresh: bool
) -> Path:
    """Write the lines of the dump's list of contents that are wanted."""
    everything, chosen = folder / "contents.all", folder / "contents"
    target.run(
        [programs.path("pg_restore"), "--list", str(folder / DUMP)],
        "the dump cannot be listed",
        stdout=everything,
    )
    labels = [label for label in manifest.facts["tables"] if wanted.has(label)]
    parts = {part for label in labels for part in manifest.facts["parts"].get(label, [])}
    objects = {part.partition(" ")[2] for part in parts}
    with chosen.open("w", encoding="utf-8") as out:
        for line in everything.read_text("utf-8", "surrogateescape").splitlines():
            if not line.startswith(";") and _is_wanted(line, labels, parts, objects, fresh=fresh):
                out.write(line + "\n")
    return chosen


def _is_wanted(line: str, labels: Sequence[str], parts: set[str], objects: set[str], *, fresh: bool) -> bool:
    """Whether an entry of the list belongs to a wanted table: `number; class object KIND schema name owner`."""
    _, _, rest = line.partition("; ")
    class_, object_, what = rest.split(" ", 2)
    if what.startswith("FK CONSTRAINT"):  # the other table may not be there
        return False
    if f"{class_} {object_}" in parts:
        return True
    if (
        class_ == "0"
        and object_ in objects
        and what.startswith(("TABLE DATA", "SEQUENCE SET", "SEQUENCE OWNED BY"))
    ):
        return True
    if what.startswith(("ACL ", "COMMENT ")):
        return any(_is_about(f" {what} ", *facts.unspell(label)) for label in labels)
    return fresh and class_ != "0" and what.startswith(_KEPT_IN_ANY_CASE)


def _is_about(what: str, schema: str, table: str) -> bool:
    """Whether grants or a comment are a table's, or a column's of it; the list has the name in quotes or without."""
    quoted = '"' + table.replace('"', '""') + '"'
    # A line of the list is one, whatever a name holds.
    below, *names = (re.sub(r"[\r\n]", " ", name) for name in (schema, table, quoted))
    return any(f" {below} TABLE {name} " in what or f" {below} COLUMN {name}." in what for name in names)


def _check(
    manifest: Manifest, target: Server, wanted: Wanted, jobs: int, seconds: dict[str, float]
) -> list[str]:
    expected = {label: held for label, held in manifest.facts["tables"].items() if wanted.has(label)}
    with _timed(seconds, "check"):
        found = read_content(target, jobs, set(expected))
    return facts.compare_tables(expected, found)


def read_content(target: Server, jobs: int, only: set[str] | None = None) -> dict[str, list[Any]]:
    """[rows, content hash] of the tables of a database."""

    def connect() -> psycopg.Connection[Any]:
        conn = target.connect()
        facts.prepare(conn)
        return conn

    with connect() as conn:
        tables = facts.read_tables(conn)
    return facts.hash_tables(connect, [one for one in tables if only is None or one.label in only], jobs)


def _files(manifest: Manifest, wanted: Wanted) -> set[str]:
    """Names of the files that are needed."""
    files = {member.name for artefact in manifest.artefacts for member in artefact.members}
    if wanted.is_everything:
        return files
    rows = {file for label, file in manifest.facts["toc"].items() if wanted.has(label)}
    return rows | {TOC}


def _needed(manifest: Manifest, wanted: Wanted) -> list[Artefact]:
    names = _files(manifest, wanted)
    return [one for one in manifest.artefacts if any(member.name in names for member in one.members)]


def _is_there(folder: Path, name: str, sha256: str) -> bool:
    import hashlib

    path = folder / name
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _no_such(manifest: Manifest, wanted: Wanted) -> str:
    what = f"table {wanted.table}" if wanted.table else f"schema {wanted.schema}"
    known = sorted(
        {facts.unspell(label)[0] if wanted.schema else label for label in manifest.facts["tables"]}
    )
    return f"the backup has no {what}, it has: {', '.join(known[:10])}"


def _in_the_way(target: Server, labels: Sequence[str]) -> list[str]:
    with closing(target.connect()) as conn:
        there = {table.label for table in facts.read_tables(conn)}
    return [
        f"{label} is in {target.address} already; restore into a new database and copy from there"
        for label in labels
        if label in there
    ]


def _missing_roles(manifest: Manifest, target: Server) -> list[str]:
    """Roles that own or may do something in the backup and are not on the target's server."""
    needed = set()
    for name, about in manifest.facts["objects"].items():
        if not name.startswith("role "):
            needed |= {about["owner"], *(grant.split(" ")[0] for grant in about["grants"])}
    with closing(beside(target).connect()) as conn:
        conn.execute("set search_path = pg_catalog")
        there = {name for (name,) in conn.execute("select oid::regrole::text from pg_roles")}
    lacking = sorted(needed - there - {None, "public"})
    if not lacking:
        return []
    return [
        f"{target.address} lacks the role(s) {', '.join(lacking)}; make them first, {ROLES} of the backup has them"
    ]


def beside(target: Server) -> Server:
    """A database of the same server from which the target can be made, renamed and looked for."""
    return target.at("postgres" if target.dbname != "postgres" else "template1")


def _exists(conn: psycopg.Connection[Any], name: str) -> bool:
    return conn.execute("select from pg_database where datname = %s", (name,)).fetchone() is not None


def _is_filled(target: Server) -> bool:
    with closing(target.connect()) as conn:
        row = conn.execute(
            "select from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' limit 1"
        ).fetchone()
    return row is not None


def _system(conn: psycopg.Connection[Any]) -> int | None:
    row = conn.execute("select system_identifier from pg_control_system()").fetchone()
    return row[0] if row else None


def _swap(admin: psycopg.Connection[Any], filled: str, name: str) -> None:
    """Give the filled database its name; one that has it is moved aside."""
    try:
        with admin.transaction():  # killed in between, nobody would find a database of that name
            if _exists(admin, name):
                admin.execute(
                    sql.SQL("alter database {} rename to {}").format(
                        sql.Identifier(name), sql.Identifier(_aside(name))
                    )
                )
            admin.execute(
                sql.SQL("alter database {} rename to {}").format(sql.Identifier(filled), sql.Identifier(name))
            )
    except psycopg.errors.ObjectInUse:
        raise BackupRefusedError(
            f"sessions use the database {name}; end them and run the restore again; the restored one is {filled}"
        ) from None


def _filling(name: str) -> str:
    return f"{name[:50]}__restoring"


def _aside(name: str) -> str:
    return f"{name[:40]}__before_{datetime.now(UTC):%Y%m%d%H%M}"


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    seconds[what] = round(time.monotonic() - begun, 3)
