"""Which backups of a document there are, and where each is read: the catalogue and the destinations asked together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.catalogue import Catalogue
from datops_assets.errors import BackupError, DatopsError, DeclarationError

if TYPE_CHECKING:
    from datops_assets.backup.catalogue import BackupEntry
    from datops_assets.backup.destinations import Destination
    from datops_assets.backup.log_archive import Reach
    from datops_assets.backup.manifest import Manifest
    from datops_assets.backup.physical_restore import Chain, Link

LOGICAL = ("logical",)
PHYSICAL = ("full", "incremental")
"""Kinds that hold a whole server."""


def entries(document: BackupDocument, catalogue: Catalogue) -> list[BackupEntry]:
    """All that the catalogue knows of, the oldest first."""
    from datops_assets.backup.catalogue import list_backups

    return list_backups(catalogue.conn, document.backup)


def choose(
    document: BackupDocument,
    catalogue: Catalogue,
    backup_id: str | None,
    kinds: Collection[str] | None = None,
) -> BackupEntry:
    """The backup of that id; without one the newest good one, of one of `kinds` where some are given.

    raises    BackupError: there is none
    """
    known = entries(document, catalogue)
    if backup_id is None:
        found = [entry for entry in known if entry.is_good and (kinds is None or entry.kind in kinds)]
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


def destinations_of(document: BackupDocument, catalogue: Catalogue, at: str | None) -> list[Destination]:
    """The destination of that name, or all of them.

    raises    DeclarationError: the document has none of that name
    """
    if at is not None and at not in document.destinations:
        known = ", ".join(document.destinations)
        raise DeclarationError([f"{document.backup} has no destination {at!r}, expected one of: {known}"])
    opened = document.open_destinations(catalogue.settings)
    return [one for one in opened if at in (None, one.name)]


def readable(
    document: BackupDocument, catalogue: Catalogue, entry: BackupEntry, at: str | None
) -> tuple[Destination, Manifest]:
    """A destination that has the backup, one without known damage first, and the manifest there.

    raises    BackupDamagedError: the manifest is not what was written, at none of them
    """
    from datops_assets.backup.verify import read_from
    from datops_assets.errors import BackupDamagedError, BackupRefusedError, SourceUnreachableError

    there = [one for one in destinations_of(document, catalogue, at) if one.name in entry.destinations]
    last: DatopsError | None = None
    for destination in sorted(there, key=lambda one: one.name in entry.damaged_at):
        try:
            return destination, read_from(destination, entry.name, entry.backup_id, document.keys())
        except (BackupDamagedError, BackupRefusedError, SourceUnreachableError) as error:
            last = error
    raise last or BackupError(f"{entry.backup_id} stands at none of the destinations")


def chain_of(
    document: BackupDocument, catalogue: Catalogue, entry: BackupEntry, at: str | None
) -> list[Link]:
    """A physical backup and all that it needs; a destination without known damage comes first."""
    from datops_assets.backup.physical_restore import read_chain

    there = destinations_of(document, catalogue, at)
    in_order = sorted(
        there, key=lambda one: (one.name not in entry.destinations, one.name in entry.damaged_at)
    )
    return read_chain(in_order, document.backup, entry.backup_id, document.keys())


def reach_from(
    document: BackupDocument, chain: Chain, destinations: Sequence[Destination], to: int | None = None
) -> Reach:
    """How far the log at those destinations that answer, taken together, goes on from a backup.

    to         the timeline to end on; None for the newest
    """
    import tempfile

    from datops_assets.backup.log_archive import list_answering, longest, reach_of, read_histories
    from datops_assets.postgres.lsn import parse_lsn

    last = chain[-1].manifest
    listed, _ = list_answering(destinations, document.backup)
    files = longest(one for there in listed.values() for one in there)
    with tempfile.TemporaryDirectory() as scratch:
        histories = read_histories(files, destinations, document.backup, document.keys(), Path(scratch))
    start = parse_lsn(last.end_lsn or "0/0")
    return reach_of(files, histories, last.timeline or 1, start, last.facts["cluster"]["segment_bytes"], to)
