"""The `backup_manifest` that PostgreSQL writes into a base backup: read, and held against files. Pure but for hashing.

source    PostgreSQL, "Backup Manifest Format" (versions 1 and 2)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from datops_assets.backup.artefacts import Member
from datops_assets.backup.crc32c import Crc32c
from datops_assets.errors import BackupDamagedError
from datops_assets.postgres.lsn import parse_lsn

NAME = "backup_manifest"
_SEAL = b'"Manifest-Checksum"'
_PIECE_BYTES = 1 << 20
# Files of the folder that no manifest names: the log, the manifest itself, and what a server writes anew.
_NOT_LISTED = ("pg_wal/", NAME, "postgresql.auto.conf", "recovery.signal", "standby.signal")


@dataclass(frozen=True)
class ListedFile:
    """One file as the server wrote it."""

    bytes: int
    algorithm: str
    checksum: str
    """Hexadecimal; empty for the algorithm NONE."""


@dataclass(frozen=True)
class WalRange:
    """The part of the log that a backup cannot be started without."""

    timeline: int
    start_lsn: int
    end_lsn: int


@dataclass(frozen=True)
class ServerManifest:
    """A whole one, whose own checksum is right."""

    version: int
    system_identifier: int | None
    """None in version 1, which has none."""
    files: dict[str, ListedFile]
    wal_ranges: tuple[WalRange, ...]


def read_server_manifest(text: bytes, place: str) -> ServerManifest:
    """Read a manifest and hold it against its own checksum.

    raises     BackupDamagedError: changed, cut off, or none
    """
    at = text.rfind(_SEAL)
    try:
        values: dict[str, Any] = json.loads(text)
        said = values["Manifest-Checksum"]
        manifest = ServerManifest(
            version=values["PostgreSQL-Backup-Manifest-Version"],
            system_identifier=values.get("System-Identifier"),
            files={_path(one): _file(one) for one in values["Files"]},
            wal_ranges=tuple(
                WalRange(one["Timeline"], parse_lsn(one["Start-LSN"]), parse_lsn(one["End-LSN"]))
                for one in values["WAL-Ranges"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BackupDamagedError(f"{place} is no backup manifest, or was cut off") from None
    if at < 0 or hashlib.sha256(text[:at]).hexdigest() != said:
        raise BackupDamagedError(f"{place} was changed: its Manifest-Checksum differs")
    if manifest.version not in (1, 2):
        raise BackupDamagedError(f"{place} has version {manifest.version}, expected 1 or 2")
    if len(manifest.files) != len(values["Files"]):
        raise BackupDamagedError(f"{place} names a file twice")
    return manifest


def compare_members(manifest: ServerManifest, members: Mapping[str, Member]) -> list[str]:
    """What differs between the server's list and the files of a backup, whose checksums are known.

    The server's list has CRC32C or, in older backups, SHA-256; of any other kind no file is taken for right.
    """
    findings = _missing_and_extra(manifest, members)
    for path, listed in manifest.files.items():
        member = members.get(path)
        if member is None:
            continue
        if member.bytes != listed.bytes:
            findings.append(f"{path} has {member.bytes} bytes, the server wrote {listed.bytes}")
        elif {"CRC32C": member.crc32c, "SHA256": member.sha256}.get(listed.algorithm) != listed.checksum:
            findings.append(f"{path} is not what the server wrote: its {listed.algorithm} differs")
    return findings


def check_folder(folder: Path) -> list[str]:
    """Hold a base backup in a folder against its manifest: every file read, of any algorithm PostgreSQL knows.

    raises     BackupDamagedError: there is no whole manifest
    """
    try:
        text = (folder / NAME).read_bytes()
    except FileNotFoundError:
        raise BackupDamagedError(f"{folder} holds no {NAME}") from None
    manifest = read_server_manifest(text, str(folder / NAME))
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    findings = _missing_and_extra(manifest, found)
    for name, listed in manifest.files.items():
        if name not in found:
            continue
        size = found[name].stat().st_size
        if size != listed.bytes:
            findings.append(f"{name} has {size} bytes, the server wrote {listed.bytes}")
        elif listed.algorithm != "NONE":
            with found[name].open("rb") as file:
                if _digest(file, listed.algorithm) != listed.checksum:
                    findings.append(f"{name} is not what the server wrote: its {listed.algorithm} differs")
    return findings


def _missing_and_extra(manifest: ServerManifest, found: Mapping[str, object]) -> list[str]:
    missing = [f"{path} is missing" for path in manifest.files if path not in found]
    extra = [path for path in found if path not in manifest.files and not path.startswith(_NOT_LISTED)]
    return missing + [f"{path} is a file that the server did not write" for path in extra]


def _digest(file: IO[bytes], algorithm: str) -> str:
    digest: Any = Crc32c() if algorithm == "CRC32C" else hashlib.new(algorithm.lower())
    while data := file.read(_PIECE_BYTES):
        digest.update(data)
    return str(digest.hexdigest())


def _path(one: dict[str, Any]) -> str:
    return (
        str(one["Path"])
        if "Path" in one
        else bytes.fromhex(one["Encoded-Path"]).decode("utf-8", "surrogateescape")
    )


def _file(one: dict[str, Any]) -> ListedFile:
    return ListedFile(int(one["Size"]), one.get("Checksum-Algorithm", "NONE"), one.get("Checksum", ""))
