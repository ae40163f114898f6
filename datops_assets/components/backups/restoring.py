"""Restore a database from a backup, with the catalogue or without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.backups.listing import LOGICAL, readable
from datops_assets.components.catalogue import Catalogue
from datops_assets.errors import BackupError, DeclarationError

if TYPE_CHECKING:
    from datops_assets.backup.catalogue import BackupEntry
    from datops_assets.backup.destinations import Destination
    from datops_assets.backup.manifest import Manifest
    from datops_assets.backup.restore import Restored, RestorePlan, Wanted
    from datops_assets.backup.server import Server
    from datops_assets.config.settings import Settings


def target_of(
    document: BackupDocument, settings: Settings, to: str | None, password_env: str | None
) -> Server:
    """The server to restore on: the one that a call names, else the one that is backed up."""
    from datops_assets.components.backups.document import BackupSource, server_of

    if to is None:
        return document.server(settings)
    from pydantic import ValidationError

    try:
        source = BackupSource(url=to, password_env=password_env)
    except ValidationError as error:
        said = "; ".join(
            item["msg"].removeprefix("Value error, ") for item in error.errors(include_input=False)
        )
        raise DeclarationError([f"--to: {said}"]) from None
    return server_of(source, settings.project_root)


def restore(
    document: BackupDocument, catalogue: Catalogue, entry: BackupEntry, target: Server, wanted: Wanted, *,
    onto: str | None, at: str | None, apply: bool,
) -> RestorePlan | Restored:  # fmt: skip
    """Plan a restore, or do it while nobody may remove the backup."""
    from datops_assets.backup import catalogue as noted

    with noted.read_lock(catalogue.conn, entry.backup_id):
        found = readable(document, catalogue, entry, at)
        return _restore(document, catalogue.settings, *found, target, wanted, onto=onto, apply=apply)


def restore_without_catalogue(
    document: BackupDocument, settings: Settings, backup_id: str | None, target: Server, wanted: Wanted, *,
    onto: str | None, at: str, apply: bool,
) -> RestorePlan | Restored:  # fmt: skip
    """The same from what stands at one destination, for the day the warehouse is lost; nothing is noted.

    Nobody else may prune meanwhile: there is no catalogue to say that it is being read.
    raises    BackupError: there is no such backup. BackupDamagedError: its manifest is not what was written
    """
    from datops_assets.backup.verify import list_at, read_from

    (destination,) = (one for one in document.open_destinations(settings) if one.name == at)
    found = [one for one in list_at(destination, document.backup)[0] if one.kind in LOGICAL]
    chosen = [one for one in found if backup_id is None or one.backup_id == backup_id.upper()]
    if not chosen:
        raise BackupError(
            f"{destination.shown} has no {'such ' if backup_id else ''}backup of {document.backup};"
            f" see: datops backup list {document.backup} --at {at}"
        )
    manifest = read_from(destination, document.backup, chosen[-1].backup_id, document.keys())
    return _restore(document, settings, destination, manifest, target, wanted, onto=onto, apply=apply)


def _restore(
    document: BackupDocument, settings: Settings, destination: Destination, manifest: Manifest, target: Server,
    wanted: Wanted, *, onto: str | None, apply: bool,
) -> RestorePlan | Restored:  # fmt: skip
    from datops_assets.backup.restore import plan_restore, restore_logical
    from datops_assets.components.backups.document import staging_of

    staging = staging_of(settings)
    if not apply:
        return plan_restore(manifest, destination, target, staging, wanted, onto)
    return restore_logical(
        manifest, destination, document.keys(), target, staging, wanted=wanted, onto=onto,
        pg_bin=settings.pg_bin, jobs=document.logical.jobs,
    )  # fmt: skip
