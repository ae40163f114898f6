"""What commands and steps do with the log between backups: it is received, and held against its promise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datops_assets.components.backups.document import BackupDocument
from datops_assets.components.backups.listing import PHYSICAL, chain_of, destinations_of, entries, reach_from
from datops_assets.components.catalogue import Catalogue

if TYPE_CHECKING:
    from datops_assets.backup.wal import LogState, Received


def receive_log(
    document: BackupDocument, catalogue: Catalogue, *, once: bool, stop: threading.Event | None = None,
    say: Callable[[str], None],
) -> Received:  # fmt: skip
    """Keep the log. Raises as `receive` does."""
    from datops_assets.backup.wal import receive

    return receive(catalogue.conn, document.log_stream(catalogue.settings), once=once, stop=stop, say=say)


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
        reach = reach_from(document, chain, destinations_of(document, catalogue, None))
        findings += reach.problems
        if reach.missing or not reach.files:
            what = reach.missing or "what follows the newest physical backup"
            findings.append(
                f"the log lacks {what}; take a full backup: datops backup run {document.backup} --kind full"
            )
    return LogChecked(state, findings + _unlevel(document, catalogue))


def _unlevel(document: BackupDocument, catalogue: Catalogue) -> list[str]:
    """Which destinations do not keep the log as the others do."""
    from datops_assets.backup.log_archive import list_answering
    from datops_assets.backup.log_copies import plan_copies

    listed, silent = list_answering(destinations_of(document, catalogue, None), document.backup)
    findings = list(silent.values())
    for name, lacking in plan_copies(listed).items():
        whole = [one for one, _ in lacking if not one.partial]
        if whole:
            findings.append(
                f"the destination {name} lacks {len(whole)} file(s) of the log that another has, the first is"
                f" {whole[0].segment}; datops backup wal {document.backup} brings them when it answers"
            )
    return findings
