"""What commands and steps do with a document: open its parts, act, note the outcome in the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.catalogue import Catalogue
from datops_assets.errors import BackupError, DeclarationError

if TYPE_CHECKING:
    from datops_assets.backup.catalogue import BackupEntry
    from datops_assets.backup.destinations import Destination
    from datops_assets.backup.logical import BackupPlan, Taken
    from datops_assets.backup.manifest import Manifest
    from datops_assets.backup.verify import Verified


def plan_run(document: BackupDocument, catalogue: Catalogue) -> BackupPlan:
    """Say what a run would do."""
    from datops_assets.backup.logical import plan_logical

    return plan_logical(document.logical_backup(catalogue.settings))


def run(document: BackupDocument, catalogue: Catalogue, why: str) -> Taken:
    """Take a backup. Raises as `take_logical` does."""
    from datops_assets.backup.logical import take_logical

    return take_logical(catalogue.conn, document.logical_backup(catalogue.settings), why=why)


def entries(document: BackupDocument, catalogue: Catalogue) -> list[BackupEntry]:
    """All that the catalogue knows of, the oldest first."""
    from datops_assets.backup.catalogue import list_backups

    return list_backups(catalogue.conn, document.backup)


def choose(document: BackupDocument, catalogue: Catalogue, backup_id: str | None) -> BackupEntry:
    """The backup of that id; without one the newest good one.

    raises    BackupError: there is none
    """
    known = entries(document, catalogue)
    if backup_id is None:
        found = [entry for entry in known if entry.is_good]
        if not found:
            raise BackupError(
                f"{document.backup} has no good backup; take one: datops backup run {document.backup}"
            )
        return found[-1]
    for entry in known:
        if entry.backup_id == backup_id.upper() and entry.state == "complete":
            return entry
    raise BackupError(
        f"{document.backup} has no finished backup {backup_id}; see: datops backup list {document.backup}"
    )


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


def destinations_of(document: BackupDocument, catalogue: Catalogue, at: str | None) -> list[Destination]:
    """The destination of that name, or all of them.

    raises    DeclarationError: the document has none of that name
    """
    if at is not None and at not in document.destinations:
        known = ", ".join(document.destinations)
        raise DeclarationError([f"{document.backup} has no destination {at!r}, expected one of: {known}"])
    opened = document.open_destinations(catalogue.settings)
    return [one for one in opened if at in (None, one.name)]


def rebuild(document: BackupDocument, catalogue: Catalogue) -> tuple[list[Manifest], list[str]]:
    """Enter every finished backup that stands at a destination, and write manifests that are missing there.

    returns    what was entered anew, and problems with what stands there
    """
    from datops_assets.backup import catalogue as noted
    from datops_assets.backup.destinations import MANIFEST
    from datops_assets.backup.logical import adopt
    from datops_assets.backup.manifest import folder_of, read_manifest
    from datops_assets.backup.verify import list_at

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
        for destination in destinations:
            found, wrong = list_at(destination, document.backup)
            problems += wrong
            for manifest in found:
                missing = manifest.backup_id not in known
                if missing and adopt(catalogue.conn, document.backup, manifest.backup_id, destinations, keys):
                    known[manifest.backup_id] = noted.list_backups(catalogue.conn, None, manifest.backup_id)[
                        0
                    ]
                    entered.append(manifest)
    return entered, problems
