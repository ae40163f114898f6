"""Tablespaces of a server's own: they travel with a physical backup, and come back in the folder, or where one says.

A restored server has them as folders below `pg_tblspc`, which PostgreSQL takes as they are (in-place tablespaces). No
path of the copied server is ever followed, whatever it was called: neither a link nor `tablespace_map` is restored.
Belongs here: copying them, and putting them elsewhere at the end. Does not: the copy of the rest (physical.py).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, LiteralString

import psycopg

from datops_assets.backup.server import Server
from datops_assets.backup.server_manifest import NAME as SERVER_MANIFEST
from datops_assets.errors import BackupError, DeclarationError
from datops_assets.postgres.lsn import parse_lsn
from datops_assets.resources.embedded.programs import Programs

FOLDER = "pg_tblspc"
MAP = "tablespace_map"
"""PostgreSQL makes links of what stands in it when a copy is started. We start none with it."""
_OWN: LiteralString = """
select oid::int, spcname::text, pg_tablespace_location(oid) from pg_tablespace
 where spcname not in ('pg_default', 'pg_global') order by oid
"""
_MADE = re.compile(r'\blsn: ([0-9A-F]+/[0-9A-F]+), .*?\bdesc: CREATE \d+ "(/.*?)"?$')
_START = re.compile(r"^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+)", re.MULTILINE)
_ARCHIVE = re.compile(r"(\d+)\.tar")


@dataclass(frozen=True)
class Tablespace:
    """One that is not the server's default."""

    oid: int
    name: str
    location: str
    """On the server that was copied; below its own folder, where it is relative."""


def read_tablespaces(conn: psycopg.Connection[Any]) -> list[Tablespace]:
    """Those of a server."""
    return [Tablespace(*row) for row in conn.execute(_OWN)]


def copy_by_archives(
    command: Sequence[str],
    server: Server,
    what: str,
    folder: Path,
    add: Callable[[IO[bytes], str], bytes | None],
) -> bytes | None:
    """Copy a server whose tablespaces no single stream can carry: an archive each, on our disk, until it was packed.

    command    pg_basebackup's, without the place where it writes to
    add        packs an archive, its files below a folder; returns the server's manifest where that was in it
    returns    the server's manifest
    raises     BackupError: it failed
    """
    archives = folder / "archives"
    server.run([*command, f"--pgdata={archives}"], what)
    for path in _in_order(archives):
        match = _ARCHIVE.fullmatch(path.name)
        with path.open("rb") as sent:
            add(sent, f"{FOLDER}/{match[1]}/" if match else "")
        path.unlink()
    listed = archives / SERVER_MANIFEST
    return listed.read_bytes() if listed.is_file() else None


def _in_order(archives: Path) -> Iterator[Path]:
    """The tablespaces first: the rest has the files that make a folder a server."""
    found = sorted(archives.glob("*.tar"))
    yield from (path for path in found if path.name != "base.tar")
    yield from (path for path in found if path.name == "base.tar")


def read_places(given: Sequence[str]) -> dict[str, Path]:
    """Where tablespaces go, by their names.

    given      NAME=FOLDER each
    raises     DeclarationError: one cannot be read
    """
    places: dict[str, Path] = {}
    for one in given:
        name, is_there, folder = one.partition("=")
        if not (name and is_there and folder.startswith("/")) or name in places:
            raise DeclarationError(
                [f"--tablespace {one!r}, expected NAME=/FOLDER, once for each name, the folder from the root"]
            )
        places[name] = Path(folder)
    return places


def problems_of_places(known: Sequence[Tablespace], places: Mapping[str, Path], folder: Path) -> list[str]:
    """Why tablespaces cannot go there, in sentences; none where they can."""
    names = {one.name for one in known}
    problems = []
    for name, place in places.items():
        if name not in names:
            shown = ", ".join(sorted(names)) or "none"
            problems.append(f"the backup has no tablespace {name!r}; it has: {shown}")
        if place.is_symlink() or (place.exists() and not (place.is_dir() and not any(place.iterdir()))):
            problems.append(
                f"{place} is not empty; a tablespace goes into a folder that is not there, or is empty"
            )
        if place == folder or folder in place.parents or place in folder.parents:
            problems.append(f"{place} and {folder} lie in each other; give the tablespace a folder elsewhere")
    if len(set(places.values())) < len(places):
        problems.append("two tablespaces are to go into one folder")
    return problems


def put_elsewhere(data: Path, known: Sequence[Tablespace], places: Mapping[str, Path]) -> None:
    """Move tablespaces of a stopped server out of its folder, and leave links to them."""
    for one in known:
        if one.name not in places:
            continue
        here, there = data / FOLDER / str(one.oid), places[one.name]
        there.parent.mkdir(parents=True, exist_ok=True)
        if there.exists():
            there.rmdir()
        shutil.move(here, there)
        here.symlink_to(there)


def require_none_made(programs: Programs, data: Path, wal: Path, target: int | None) -> None:
    """Refuse a log that makes a tablespace: a server that recovers would make it, and write there, at the old path.

    data       the folder to recover, which says itself from where
    wal        more of the log
    target     how far it recovers, in bytes; None for a time, a name, or to the end
    raises     BackupError: one is made, at that place of the log
    """
    label = data / "backup_label"
    start = _START.search(label.read_text(errors="replace")) if label.is_file() else None
    for folder in (data / "pg_wal", wal):
        for lsn, location in _made(programs, folder):
            if (start is None or parse_lsn(lsn) >= parse_lsn(start[1])) and (
                target is None or parse_lsn(lsn) < target
            ):
                raise BackupError(
                    f"the log makes a tablespace at {location!r} (LSN {lsn}), where the server that recovers would"
                    f" write; restore to before it (--to-lsn {lsn}), or from a newer full backup"
                )


def _made(programs: Programs, folder: Path) -> Iterator[tuple[str, str]]:
    """Where in the log a tablespace is made, and at which path."""
    segments = sorted(path.name for path in folder.glob("[0-9A-F]" * 24)) if folder.is_dir() else []
    for timeline in sorted({name[:8] for name in segments}):
        of_one = [name for name in segments if name.startswith(timeline)]
        command = [
            programs.path("pg_waldump"),
            f"--path={folder}",
            "--rmgr=Tablespace",
            of_one[0],
            of_one[-1],
        ]
        done = subprocess.run(command, capture_output=True, cwd="/", env={"LC_ALL": "C"}, check=False)
        # A location may hold a line's end: what follows it says nothing.
        for line in done.stdout.decode("utf-8", "replace").splitlines():
            if match := _MADE.search(line):
                yield match[1], match[2]
