"""Remove what the retention lets go, of backups and of the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.backups.listing import LOGICAL, PHYSICAL, entries
from datops_assets.components.catalogue import Catalogue


@dataclass(frozen=True)
class Pruned:
    """What retention says of one backup."""

    backup_id: str
    snapshot_at: datetime | None
    stored_bytes: int | None
    goes: bool
    reasons: list[str]


def plan_prune(document: BackupDocument, catalogue: Catalogue) -> list[Pruned]:
    """Say of each finished backup whether it stays, and why."""
    from datetime import UTC

    from datops_assets.backup import catalogue as noted
    from datops_assets.backup.retention import Kept, keep

    finished = [entry for entry in entries(document, catalogue) if entry.state == "complete"]
    # Each by itself: a dump does not stand in for a copy of the server, nor the other way round.
    kept: dict[str, list[str]] = {}
    for kinds in (LOGICAL, PHYSICAL):
        kept |= keep(
            [
                Kept(one.backup_id, one.snapshot_at or one.started_at, one.is_good, one.parent)
                for one in finished
                if one.kind in kinds
            ],
            document.retained(),
            datetime.now(UTC),
            noted.list_read(catalogue.conn),
        )
    return [
        Pruned(
            one.backup_id, one.snapshot_at, one.stored_bytes, one.backup_id not in kept,
            kept.get(one.backup_id, ["no rule keeps it"]),
        )
        for one in finished
    ]  # fmt: skip


def prune(document: BackupDocument, catalogue: Catalogue) -> list[Pruned]:
    """Remove what retention lets go; what somebody began to read meanwhile stays.

    promise    the manifest goes first: killed in the middle, what is left counts as no backup, and goes next time
    """
    from datops_assets.backup import catalogue as noted

    gone = []
    with noted.running(catalogue.conn, document.backup):
        for one in plan_prune(document, catalogue):
            if not one.goes:
                continue
            with noted.remove_lock(catalogue.conn, one.backup_id) as alone:
                if alone:
                    _remove(document, catalogue, one.backup_id)
                    gone.append(one)
        if document.wal is not None:
            forget_log(document, catalogue)
    return gone


def forget_log(document: BackupDocument, catalogue: Catalogue) -> int:
    """Remove the log that no physical backup needs any more; how many files that were. Without one all stays."""
    from datops_assets.backup.wal import forget
    from datops_assets.postgres.lsn import parse_lsn

    kept = [one for one in entries(document, catalogue) if one.state == "complete" and one.kind in PHYSICAL]
    starts = [parse_lsn(one.start_lsn) for one in kept if one.start_lsn]
    return forget(
        catalogue.conn,
        document.backup,
        document.open_destinations(catalogue.settings),
        min(starts, default=None),
    )


def _remove(document: BackupDocument, catalogue: Catalogue, backup_id: str) -> None:
    from datops_assets.backup import catalogue as noted
    from datops_assets.backup.manifest import folder_of

    # First the entry: a removal that is killed leaves files that nobody takes for a backup of the list.
    noted.note_pruned(catalogue.conn, backup_id, "no rule of the retention keeps it")
    for destination in document.open_destinations(catalogue.settings):
        destination.remove(folder_of(document.backup, backup_id))
