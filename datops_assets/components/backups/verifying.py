"""Look at what stands at the destinations, and note what was found; enter what the catalogue lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.backups.listing import destinations_of, entries
from datops_assets.components.catalogue import Catalogue

if TYPE_CHECKING:
    from datops_assets.backup.catalogue import BackupEntry
    from datops_assets.backup.manifest import Manifest
    from datops_assets.backup.verify import Verified


def verify_copies(
    document: BackupDocument,
    catalogue: Catalogue,
    entry: BackupEntry,
    *,
    at: str | None = None,
    quick: bool = False,
) -> list[Verified]:
    """Look at every copy of a backup, or the one at `at`, and note what was found."""
    from datops_assets.backup import catalogue as noted
    from datops_assets.backup.verify import verify

    results = []
    text = noted.read_text(catalogue.conn, entry.backup_id)
    with noted.read_lock(catalogue.conn, entry.backup_id):
        for destination in destinations_of(document, catalogue, at):
            if destination.name not in entry.destinations:
                continue
            found = verify(
                destination, entry.name, entry.backup_id, document.keys(), catalogue_text=text, quick=quick,
                jobs=document.logical.jobs,
            )  # fmt: skip
            noted.note_verified(
                catalogue.conn, entry.backup_id, destination.name, found.passed, found.findings
            )
            results.append(found)
    return results


def verify_log(document: BackupDocument, catalogue: Catalogue, at: str | None) -> list[Verified]:
    """Read the log that destinations keep to the last byte; nothing where none is received."""
    import time

    from datops_assets.backup.log_archive import check_log, list_log
    from datops_assets.backup.verify import Verified

    results = []
    for destination in destinations_of(document, catalogue, at) if document.wal is not None else []:
        begun = time.monotonic()
        files = list_log(destination, document.backup)
        findings = check_log(files, destination, document.backup, document.keys())
        results.append(
            Verified(
                "the log", destination.name, len(files), sum(one.bytes for one in files), time.monotonic() - begun,
                True, findings,
            )
        )  # fmt: skip
    return results


def rebuild(document: BackupDocument, catalogue: Catalogue) -> tuple[list[Manifest], list[str]]:
    """Enter every finished backup that stands at a destination, and write manifests that are missing there.

    returns    what was entered anew, and problems with what stands there
    """
    from datops_assets.backup import catalogue as noted
    from datops_assets.backup.destinations import MANIFEST
    from datops_assets.backup.manifest import folder_of, read_manifest
    from datops_assets.backup.runs import adopt
    from datops_assets.backup.verify import list_at
    from datops_assets.backup.wal import enter_found

    destinations, keys = document.open_destinations(catalogue.settings), document.keys()
    entered: list[Manifest] = []
    problems: list[str] = []
    with noted.running(catalogue.conn, document.backup):
        known = {entry.backup_id: entry for entry in entries(document, catalogue)}
        for entry in known.values():
            text = noted.read_text(catalogue.conn, entry.backup_id)
            for destination in destinations:
                folder = folder_of(entry.name, entry.backup_id)
                if entry.state != "complete" or text is None or destination.name not in entry.destinations:
                    continue
                files = destination.list_files(folder)
                whole = all(
                    files.get(artefact.name) == artefact.bytes
                    for artefact in read_manifest(text, "the catalogue").artefacts
                )
                if MANIFEST not in files and whole:
                    destination.write(f"{folder}/{MANIFEST}", text.encode())
        there: dict[str, Manifest] = {}
        for destination in destinations:
            found, wrong = list_at(destination, document.backup)
            problems += wrong
            there |= {manifest.backup_id: manifest for manifest in found}
        # The oldest first: a parent is entered before its children.
        for manifest in sorted(there.values(), key=lambda one: one.started_at):
            # A warehouse that was restored from its own backup knows that backup as one that runs.
            noted_as = known.get(manifest.backup_id)
            if noted_as is not None and noted_as.state in ("complete", "pruned"):
                continue
            if manifest.parent is not None and manifest.parent not in known:
                problems.append(
                    f"{manifest.backup_id} needs {manifest.parent}, which stands at no destination"
                )
            elif adopt(catalogue.conn, document.backup, manifest.backup_id, destinations, keys):
                known[manifest.backup_id] = noted.list_backups(catalogue.conn, None, manifest.backup_id)[0]
                entered.append(manifest)
    enter_found(catalogue.conn, document.backup, destinations)
    return entered, problems
