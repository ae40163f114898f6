"""What commands and steps do with the log between backups, and restores of a whole server with it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.backups.operations import (
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
    from datops_assets.backup.physical_restore import FolderPlan, FolderRestored
    from datops_assets.backup.recovery import Target
    from datops_assets.backup.wal import LogState, Received


def receive_log(
    document: BackupDocument, catalogue: Catalogue, *, once: bool, stop: threading.Event | None = None
) -> Received:
    """Keep the log. Raises as `receive` does."""
    from datops_assets.backup.wal import receive

    return receive(catalogue.conn, document.log_stream(catalogue.settings), once=once, stop=stop)


@dataclass(frozen=True)
class LogChecked:
    """The log held against what is promised of it; right where there are no findings."""

    state: LogState
    findings: list[str]


def check_log(document: BackupDocument, catalogue: Catalogue) -> LogChecked:
    """Whether the log goes on from the newest physical backup without a gap, and how far it is behind."""
    from datops_assets.backup.wal import read_state

    state = read_state(catalogue.conn, document.log_stream(catalogue.settings))
    findings = []
    if state.slot_status is None:
        findings.append(f"the source has no slot {state.slot}: start datops backup wal {document.backup}")
    elif state.slot_status == "lost":
        findings.append(f"the source dropped what the slot {state.slot} held: take a full backup")
    if state.behind_s is None or state.behind_s > document.promise.wal_s:
        behind = "nothing is kept" if state.behind_s is None else f"it is {state.behind_s:.0f} s behind"
        findings.append(f"the log: {behind}, promised are {document.promise.wal_s:g} s")
    good = [one for one in entries(document, catalogue) if one.is_good and one.kind in PHYSICAL]
    if not good:
        findings.append("no physical backup is there for the log to go on from")
    else:
        chain = chain_of(document, catalogue, good[-1], None)
        for destination in destinations_of(document, catalogue, None):
            reach = reach_from(document, chain, destination)
            findings += [f"{destination.name}: {problem}" for problem in reach.problems]
            if reach.missing or not reach.files:
                what = reach.missing or "what follows the newest physical backup"
                findings.append(f"{destination.name}: the log lacks {what}; take a full backup")
    return LogChecked(state, findings)


def restore_folder(
    document: BackupDocument, catalogue: Catalogue, folder: Path, target: Target, *, backup_id: str | None,
    at: str | None, apply: bool,
) -> FolderPlan | FolderRestored:  # fmt: skip
    """Plan the restore of a whole server into a folder, or do it while nobody may remove what it needs.

    target    without one: to the end of the log, or of the newest backup where there is no log
    raises    BackupError: no backup lies before the target
    """
    from datops_assets.backup import catalogue as noted
    from datops_assets.backup.log_archive import fetch_log, needed_for, problems_of
    from datops_assets.backup.physical_restore import moment_of, plan_folder
    from datops_assets.backup.physical_restore import restore_folder as restore_into

    entry = _before(document, catalogue, target, backup_id)
    with noted.read_lock(catalogue.conn, entry.backup_id):
        chain = chain_of(document, catalogue, entry, at)
        last = chain[-1].manifest
        reaches = [
            (reach_from(document, chain, one), one) for one in destinations_of(document, catalogue, at)
        ]
        reach, destination = max(reaches, key=lambda pair: pair[0].covered)
        if target.is_end and not reach.files:
            wanted, lost = (
                moment_of(chain),
                f"what was written after {last.snapshot_at:%Y-%m-%d %H:%M:%S} UTC",
            )
            needed, problems = [], []
        else:
            until = f"{reach.until:%Y-%m-%d %H:%M:%S} UTC" if reach.until else "the end of the log"
            wanted, lost = target, f"what was written after {until if target.is_end else target}"
            needed, problems = needed_for(target, reach), problems_of(target, reach)
        plan = plan_folder(chain, folder, wanted, lost=lost, wal_segments=len(needed), problems=problems)
        if not apply:
            return plan

        def bring(into: Path) -> None:
            fetch_log(needed, destination, document.backup, document.keys(), into)

        return restore_into(
            chain,
            document.keys(),
            folder,
            wanted,
            plan=plan,
            fetch_log=bring,
            pg_bin=catalogue.settings.pg_bin,
        )


def _before(
    document: BackupDocument, catalogue: Catalogue, target: Target, backup_id: str | None
) -> BackupEntry:
    """The newest good physical backup from which the target can be reached, or the one that is asked for."""
    from datops_assets.backup.physical_restore import is_before

    if backup_id is not None:
        chosen = choose(document, catalogue, backup_id)
        if chosen.kind not in PHYSICAL:
            raise BackupError(f"the backup {chosen.backup_id} is a dump; restore it with --database")
        good = [chosen]
    else:
        good = [one for one in entries(document, catalogue) if one.is_good and one.kind in PHYSICAL]
    if not good:
        raise BackupError(
            f"{document.backup} has no good physical backup; take one: datops backup run --kind full"
        )
    found = [one for one in good if is_before(one.snapshot_at, one.end_lsn, target)]
    if not found:
        first = good[0]
        raise BackupError(
            f"the {target} lies before the first physical backup, which holds what was there at"
            f" {first.snapshot_at} (LSN {first.end_lsn}); nothing older can be restored"
        )
    return found[-1]


def target_from(to_time: str | None, to_lsn: str | None, to_name: str | None) -> Target:
    """How far to go, as a person says it; a time without zone is UTC.

    raises    DeclarationError: more than one, or not to be read
    """
    from datops_assets.backup.recovery import Target
    from datops_assets.postgres.lsn import format_lsn, parse_lsn

    if sum(one is not None for one in (to_time, to_lsn, to_name)) > 1:
        raise DeclarationError(["--to-time, --to-lsn and --to-name stand side by side, expected one of them"])
    try:
        if to_time is not None:
            time = datetime.fromisoformat(to_time)
            return Target(time=time if time.tzinfo else time.replace(tzinfo=UTC))
        if to_lsn is not None:
            return Target(lsn=format_lsn(parse_lsn(to_lsn)))
    except ValueError:
        raise DeclarationError(
            ["the target cannot be read, expected --to-time '2026-11-21 18:30:00' or --to-lsn 16/B374D848"]
        ) from None
    return Target(name=to_name)
