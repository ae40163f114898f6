"""Take a backup of a document, of the kind that is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.backups.listing import PHYSICAL, entries, readable
from datops_assets.components.catalogue import Catalogue
from datops_assets.errors import BackupError

if TYPE_CHECKING:
    from datops_assets.backup.manifest import Kind
    from datops_assets.backup.runs import BackupPlan, Taken


def plan_run(document: BackupDocument, catalogue: Catalogue, kind: Kind = "logical") -> BackupPlan:
    """Say what a run would do."""
    from datops_assets.backup.logical import plan_logical
    from datops_assets.backup.physical import plan_physical

    if kind != "logical":
        return plan_physical(document.physical_backup(catalogue.settings), kind)
    return plan_logical(document.logical_backup(catalogue.settings))


def run(document: BackupDocument, catalogue: Catalogue, why: str, kind: Kind = "logical") -> Taken:
    """Take a backup. Raises as `take_logical` and `take_physical` do.

    raises    BackupError: an incremental one has nothing to build on
    """
    from datops_assets.backup.logical import take_logical
    from datops_assets.backup.physical import take_physical

    if kind == "incremental":
        return _run_incremental(document, catalogue, why)
    if kind == "full":
        return take_physical(catalogue.conn, document.physical_backup(catalogue.settings), why=why)
    return take_logical(catalogue.conn, document.logical_backup(catalogue.settings), why=why)


def _run_incremental(document: BackupDocument, catalogue: Catalogue, why: str) -> Taken:
    from datops_assets.backup import catalogue as noted
    from datops_assets.backup.physical import take_physical

    backup = document.physical_backup(catalogue.settings)
    good = [one for one in entries(document, catalogue) if one.is_good and one.kind in PHYSICAL]
    if not good:
        raise BackupError(
            f"{document.backup} has no good full backup to build on; take one: datops backup run --kind full"
        )
    with noted.read_lock(catalogue.conn, good[-1].backup_id):
        destination, manifest = readable(document, catalogue, good[-1], None)
        return take_physical(catalogue.conn, backup, why=why, parent=(manifest, destination))
