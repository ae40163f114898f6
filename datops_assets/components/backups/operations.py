"""What commands and steps do with a document: open its parts, act, note the outcome in the catalogue."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.catalogue import Catalogue
from datops_assets.errors import BackupError, DatopsError, DeclarationError

if TYPE_CHECKING:
    from datops_assets.backup.catalogue import BackupEntry
    from datops_assets.backup.destinations import Destination
    from datops_assets.backup.drill import Drilled
    from datops_assets.backup.log_archive import Reach
    from datops_assets.backup.logical import BackupPlan, Taken
    from datops_assets.backup.manifest import Kind, Manifest
    from datops_assets.backup.physical_restore import Chain, Link
    from datops_assets.backup.restore import Restored, RestorePlan, Wanted
    from datops_assets.backup.server import Server
    from datops_assets.backup.verify import Verified
    from datops_assets.config.settings import Settings

LOGICAL = ("logical",)
PHYSICAL = ("full", "incremental")
"""Kinds that hold a whole server."""


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
