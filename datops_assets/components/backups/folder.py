"""What commands do to restore a whole server into a folder: which backup, how far in the log, and from where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from datops_assets.components.backups.document import BackupDocument, staging_of
from datops_assets.components.backups.listing import (
    PHYSICAL,
    chain_of,
    choose,
    destinations_of,
    entries,
    reach_from,
)
from datops_assets.components.catalogue import Catalogue
from datops_assets.errors import BackupError, DeclarationError

if TYPE_CHECKING:
    from datops_assets.backup.catalogue import BackupEntry
    from datops_assets.backup.destinations import Destination
    from datops_assets.backup.log_archive import LogFile
    from datops_assets.backup.physical_restore import Chain, FolderPlan, FolderRestored
    from datops_assets.backup.recovery import Target

_NAMES_SHOWN = 10


def restore_folder(
    document: BackupDocument, catalogue: Catalogue, folder: Path, target: Target, *, backup_id: str | None,
    at: str | None, apply: bool, places: Mapping[str, Path] | None = None,
) -> FolderPlan | FolderRestored:  # fmt: skip
    """Plan the restore of a whole server into a folder, or do it while nobody may remove what it needs.

    target    without one: to the end of the log, or of the newest backup where there is no log
    places    where tablespaces go, by their names; the others stay inside the folder
    raises    BackupError: no backup lies before the target, or the log has no place of that name
    """
    from datops_assets.backup import catalogue as noted
    from datops_assets.backup.log_archive import fetch_log
    from datops_assets.backup.physical_restore import plan_folder
    from datops_assets.backup.physical_restore import restore_folder as restore_into

    destinations, keys = destinations_of(document, catalogue, at), document.keys()
    good = _candidates(document, catalogue, target, backup_id)
    place = _located(document, catalogue, good, target, destinations)
    entry = _before(good, place)
    with noted.read_lock(catalogue.conn, entry.backup_id):
        chain = chain_of(document, catalogue, entry, at)
        way = _way_to(document, chain, destinations, target, place)
        plan = plan_folder(
            chain,
            folder,
            way.target,
            lost=way.lost,
            wal_segments=len(way.needed),
            problems=way.problems,
            places=places,
        )
        if not apply:
            return plan

        def bring(into: Path) -> None:
            fetch_log(way.needed, destinations, document.backup, keys, into)

        return restore_into(
            chain,
            keys,
            folder,
            way.target,
            plan=plan,
            fetch_log=bring,
            pg_bin=catalogue.settings.pg_bin,
            places=places,
        )


@dataclass(frozen=True)
class _Way:
    """From a backup to a target."""

    target: Target
    lost: str
    needed: list[LogFile]
    problems: list[str]


def _way_to(
    document: BackupDocument, chain: Chain, destinations: Sequence[Destination], target: Target, place: Target
) -> _Way:
    from datops_assets.backup.log_archive import needed_for, problems_of
    from datops_assets.backup.physical_restore import moment_of

    reach = reach_from(document, chain, destinations, target.timeline)
    if target.is_end and not reach.files and not reach.problems:
        lost = f"what was written after {chain[-1].manifest.snapshot_at:%Y-%m-%d %H:%M:%S} UTC"
        return _Way(moment_of(chain), lost, [], [])
    until = f"{reach.until:%Y-%m-%d %H:%M:%S} UTC" if reach.until else "the end of the log"
    lost = f"what was written after {until if target.is_end else target}"
    return _Way(target, lost, needed_for(place, reach), problems_of(place, reach))


def _candidates(
    document: BackupDocument, catalogue: Catalogue, target: Target, backup_id: str | None
) -> list[BackupEntry]:
    """The good physical backups, the oldest first, or the one that is asked for."""
    if backup_id is not None:
        chosen = choose(document, catalogue, backup_id)
        if chosen.kind not in PHYSICAL:
            raise BackupError(f"the backup {chosen.backup_id} is a dump; restore it with --database")
        return [chosen]
    good = [one for one in entries(document, catalogue) if one.is_good and one.kind in PHYSICAL]
    if not good:
        raise BackupError(
            f"{document.backup} has no good physical backup; take one: datops backup run --kind full"
        )
    if target.timeline is None:
        return good
    older = [one for one in good if (one.timeline or 1) <= target.timeline]
    if not older:
        raise BackupError(
            f"every physical backup is of a timeline behind {target.timeline}, the oldest of {good[0].timeline}"
        )
    return older


def _before(good: Sequence[BackupEntry], place: Target) -> BackupEntry:
    """The newest from which the target can be reached."""
    from datops_assets.backup.physical_restore import is_before

    found = [one for one in good if is_before(one.snapshot_at, one.end_lsn, place)]
    if not found:
        first = good[0]
        raise BackupError(
            f"the {place} lies before the first physical backup, which holds what was there at"
            f" {first.snapshot_at} (LSN {first.end_lsn}); nothing older can be restored"
        )
    return found[-1]


def _located(
    document: BackupDocument, catalogue: Catalogue, good: Sequence[BackupEntry], target: Target,
    destinations: Sequence[Destination],
) -> Target:  # fmt: skip
    """The target by its place in the log, where it is a name; the log behind the oldest backup is read for it.

    raises    BackupError: the log has no such name, or has it more than once
    """
    if target.name is None:
        return target
    from datops_assets.backup.log_archive import list_answering, longest
    from datops_assets.backup.recovery import Target
    from datops_assets.backup.restore_points import find_restore_points
    from datops_assets.postgres.lsn import format_lsn, parse_lsn
    from datops_assets.resources.embedded.programs import find_programs

    start = parse_lsn(good[0].end_lsn or "0/0")
    listed, _ = list_answering(destinations, document.backup)
    files = [one for one in longest(one for there in listed.values() for one in there) if one.covered > start]
    programs = find_programs(catalogue.settings.pg_bin, (good[-1].server_version or 0) // 10000)
    scratch = staging_of(catalogue.settings)
    points = [
        point
        for point in find_restore_points(
            files, destinations, document.backup, document.keys(), programs, scratch
        )
        if point.lsn >= start and target.timeline in (None, point.timeline)
    ]
    places = sorted({point.lsn for point in points if point.name == target.name})
    if not places:
        names = sorted({point.name for point in points})
        shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN]) or "none"
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        raise BackupError(
            f"the log kept has no place that is called {target.name!r}; it has: {shown}{more}."
            " To a time or a place: --to-time, --to-lsn"
        )
    if len(places) > 1:
        at = ", ".join(format_lsn(place) for place in places)
        raise BackupError(
            f"the log has {len(places)} places that are called {target.name!r}; choose one: --to-lsn {at}"
        )
    return Target(lsn=format_lsn(places[0]), timeline=target.timeline)


def target_from(
    to_time: str | None, to_lsn: str | None, to_name: str | None, to_timeline: int | None
) -> Target:
    """How far to go, as a person says it; a time without zone is UTC.

    raises    DeclarationError: more than one, or not to be read
    """
    from datops_assets.backup.recovery import Target
    from datops_assets.postgres.lsn import format_lsn, parse_lsn

    if sum(one is not None for one in (to_time, to_lsn, to_name)) > 1:
        raise DeclarationError(["--to-time, --to-lsn and --to-name stand side by side, expected one of them"])
    if to_timeline is not None and to_timeline < 1:
        raise DeclarationError([f"--to-timeline {to_timeline}, expected the number of a timeline: 1 or more"])
    try:
        if to_time is not None:
            time = datetime.fromisoformat(to_time)
            return Target(time=time if time.tzinfo else time.replace(tzinfo=UTC), timeline=to_timeline)
        if to_lsn is not None:
            return Target(lsn=format_lsn(parse_lsn(to_lsn)), timeline=to_timeline)
    except ValueError:
        raise DeclarationError(
            ["the target cannot be read, expected --to-time '2026-11-21 18:30:00' or --to-lsn 16/B374D848"]
        ) from None
    return Target(name=to_name, timeline=to_timeline)
