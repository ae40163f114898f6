"""Drill the backup whose turn it is, and note the outcome."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.backups.listing import (
    PHYSICAL,
    chain_of,
    destinations_of,
    entries,
    reach_from,
    readable,
)
from datops_assets.components.catalogue import Catalogue
from datops_assets.errors import BackupError

if TYPE_CHECKING:
    from datops_assets.backup.catalogue import BackupEntry
    from datops_assets.backup.drill import Drilled


def proof(
    document: BackupDocument, catalogue: Catalogue, entry: BackupEntry, at: str | None = None
) -> Drilled:
    """Drill a backup and note the outcome. A drill that fails is an outcome, too."""
    from datetime import UTC

    from datops_assets.backup import catalogue as noted
    from datops_assets.backup.drill import drill
    from datops_assets.components.backups.document import staging_of

    later = [
        one.finished_at
        for one in entries(document, catalogue)
        if one.is_good and one.finished_at and one.started_at > entry.started_at
    ]
    now, next_finished_at = datetime.now(UTC), min(later, default=None)
    with noted.read_lock(catalogue.conn, entry.backup_id):
        if entry.kind in PHYSICAL:
            done = _prove_physical(document, catalogue, entry, at, now, next_finished_at)
        else:
            destination, manifest = readable(document, catalogue, entry, at)
            done = drill(
                manifest, destination, document.keys(), staging_of(catalogue.settings), now=now,
                next_finished_at=next_finished_at, pg_bin=catalogue.settings.pg_bin, jobs=document.logical.jobs,
            )  # fmt: skip
    noted.note_drill(
        catalogue.conn, entry.backup_id, done.started_at, done.passed, done.rto_s, done.rpo_s, done.findings,
        done.seconds | {"destination": done.destination, "tables": done.tables, "rows": done.rows},
    )  # fmt: skip
    return done


def _prove_physical(
    document: BackupDocument, catalogue: Catalogue, entry: BackupEntry, at: str | None, now: datetime,
    next_finished_at: datetime | None,
) -> Drilled:  # fmt: skip
    from datops_assets.backup.physical_drill import drill_physical
    from datops_assets.components.backups.document import staging_of

    chain = chain_of(document, catalogue, entry, at)
    lost_s = ((next_finished_at or now) - (entry.snapshot_at or entry.started_at)).total_seconds()
    if (
        document.wal is not None
    ):  # what is written behind the backup is in the log, as far as that goes on from it
        reach = reach_from(document, chain, destinations_of(document, catalogue, at))
        if reach.until is not None and reach.missing is None:
            lost_s = min(lost_s, (now - reach.until).total_seconds())
    return drill_physical(
        chain, document.keys(), staging_of(catalogue.settings), now=now,
        rpo_s=lost_s, pg_bin=catalogue.settings.pg_bin, jobs=document.logical.jobs,
    )  # fmt: skip


def turn(document: BackupDocument, catalogue: Catalogue) -> BackupEntry:
    """The backup whose turn it is to be drilled.

    raises    BackupError: there is no good one
    """
    from datops_assets.backup.retention import Candidate, next_to_drill

    good = {one.backup_id: one for one in entries(document, catalogue) if one.is_good}
    chosen = next_to_drill(
        Candidate(entry.backup_id, entry.snapshot_at or entry.started_at, entry.drilled_at)
        for entry in good.values()
    )
    if chosen is None:
        raise BackupError(
            f"{document.backup} has no good backup; take one: datops backup run {document.backup}"
        )
    return good[chosen]
