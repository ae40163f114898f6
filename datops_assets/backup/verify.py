"""Hold what is kept against what was written: every byte of every artefact, the manifest, the catalogue."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from datops_assets.backup.artefacts import Artefact, check_stored, unpack
from datops_assets.backup.destinations import MANIFEST, Destination
from datops_assets.backup.encryption import Keys
from datops_assets.backup.manifest import Manifest, folder_of, read_manifest, whole_of
from datops_assets.errors import BackupDamagedError, DatopsError


@dataclass(frozen=True)
class Verified:
    """What a look at one destination's copy found; right where there are no findings."""

    backup_id: str
    destination: str
    artefacts: int
    bytes: int
    seconds: float
    opened: bool
    """Whether artefacts were decrypted and unpacked, too; else only their stored bytes were hashed."""
    findings: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all is as it was written."""
        return not self.findings


def read_from(destination: Destination, name: str, backup_id: str, keys: Keys | None) -> Manifest:
    """The manifest of one backup at a destination.

    raises    BackupDamagedError: missing, changed, or another backup's; TerminalError: the key is not at hand
    """
    place = f"{folder_of(name, backup_id)}/{MANIFEST}"
    try:
        text = destination.read(place)
    except FileNotFoundError:
        raise BackupDamagedError(f"{place} is missing at the destination {destination.name}") from None
    manifest = read_manifest(text, place, keys)
    if (manifest.backup_id, manifest.name) != (backup_id, name):
        raise BackupDamagedError(f"{place} is the manifest of {manifest.name} {manifest.backup_id}")
    return manifest


def verify(
    destination: Destination, name: str, backup_id: str, keys: Keys, *, catalogue_text: str | None,
    quick: bool = False, jobs: int = 2,
) -> Verified:  # fmt: skip
    """Read one copy of a backup to the last byte; every finding in one go.

    catalogue_text    the manifest as the catalogue has it; None where it has none
    quick             hash the stored bytes only: needs no key, and finds the same damage
    promise           a finding is not raised; what keeps us from looking (no key, no answer) is
    """
    begun = time.monotonic()
    try:
        manifest = read_from(destination, name, backup_id, None if quick else keys)
    except BackupDamagedError as error:
        return Verified(backup_id, destination.name, 0, 0, time.monotonic() - begun, not quick, [str(error)])
    findings = _against_catalogue(destination, manifest, catalogue_text)
    findings += _extra_files(destination, manifest)

    def look(artefact: Artefact) -> list[str]:
        place = manifest.place(artefact)
        try:
            if quick:
                check_stored(destination, place, artefact)
            else:
                unpack(destination, place, artefact, keys, encrypted=manifest.key_id is not None, into=None)
        except BackupDamagedError as error:
            return [str(error)]
        except OSError as error:
            return [f"{place} cannot be read: {error.strerror or type(error).__name__}"]
        return []

    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        for found in pool.map(look, manifest.artefacts):
            findings += found
    return Verified(
        backup_id, destination.name, len(manifest.artefacts), manifest.stored_bytes, time.monotonic() - begun,
        not quick, findings,
    )  # fmt: skip


def _against_catalogue(destination: Destination, manifest: Manifest, text: str | None) -> list[str]:
    if text is None:
        return []
    there = whole_of(destination.read(f"{manifest.folder}/{MANIFEST}").decode())
    return [] if there == whole_of(text) else [f"the manifest at {destination.name} is not the catalogue's"]


def _extra_files(destination: Destination, manifest: Manifest) -> list[str]:
    known = {MANIFEST, *(artefact.name for artefact in manifest.artefacts)}
    extra = sorted(set(destination.list_files(manifest.folder)) - known)
    return (
        [f"{manifest.folder} holds {len(extra)} file(s) that the manifest does not know: {extra[0]}"]
        if extra
        else []
    )


def list_at(destination: Destination, name: str | None = None) -> tuple[list[Manifest], list[str]]:
    """All backups that stand finished at a destination, the oldest first, and what is wrong with others."""
    found: list[Manifest] = []
    problems: list[str] = []
    for folder in [name] if name else destination.list_folders(""):
        for backup_id in destination.list_folders(folder):
            try:
                found.append(read_from(destination, folder, backup_id, None))
            except BackupDamagedError as error:
                if MANIFEST in destination.list_files(folder_of(folder, backup_id)):
                    problems.append(str(error))
            except DatopsError as error:
                problems.append(str(error))
    return sorted(found, key=lambda manifest: manifest.started_at), problems


def pick_destination(destinations: Sequence[Destination], wanted: str | None) -> list[Destination]:
    """The destination of that name, or all of them in their order."""
    return [one for one in destinations if wanted in (None, one.name)]
