"""What a run would load and why. Deciding only: no file is opened, nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from datops_assets.ingestion.catalogue import LIVE, LoadEntry
from datops_assets.ingestion.source import Unit

Action = Literal["load", "compare", "skip"]


@dataclass(frozen=True)
class PlannedLoad:
    """One unit and what the next run does with it."""

    unit: Unit
    action: Action
    """compare: loaded before and touched since; its hash decides."""
    reason: str
    known: tuple[LoadEntry, ...] = ()
    """Entries of the same path: live ones, the last one, and the last that was taken."""

    @property
    def path(self) -> str:
        """The unit's path below the root."""
        return self.unit.path

    @property
    def fingerprint(self) -> str | None:
        """The unit's fingerprint."""
        return self.unit.fingerprint

    @property
    def will_load(self) -> bool:
        """Whether a run has something to do for it."""
        return self.action != "skip"


def decide(unit: Unit, known: Sequence[LoadEntry], reading: str) -> PlannedLoad:
    """Decide from what the catalogue says about the path.

    reading    how the table is declared to be read now
    """
    entries = tuple(known)
    if unit.waiting is not None:
        return PlannedLoad(unit, "skip", unit.waiting, entries)
    if not entries:
        return PlannedLoad(unit, "load", "new", entries)
    if unit.fingerprint is None:
        return PlannedLoad(unit, "load", "only reading it tells whether it changed", entries)
    same = [
        entry
        for entry in entries
        if entry.fingerprint == unit.fingerprint and not _worth_another_try(entry, reading)
    ]
    if same:
        return PlannedLoad(unit, "skip", _reason_to_skip(same[-1], entries), entries)
    if any(entry.content_hash is not None for entry in entries):
        return PlannedLoad(unit, "compare", "touched since it was loaded; its hash decides", entries)
    return PlannedLoad(unit, "load", "it or its declaration changed since it failed", entries)


def same_content(planned: PlannedLoad, content_hash: str, reading: str) -> LoadEntry | None:
    """Return the entry that makes loading this content again pointless; None when it must be loaded."""
    for entry in reversed(planned.known):
        settled = entry.state in (*LIVE, "undone", "refused") and not _worth_another_try(entry, reading)
        if entry.content_hash == content_hash and settled:
            return entry
    return None


def live_entries(planned: PlannedLoad) -> list[LoadEntry]:
    """Return the loads of the same path that silver sees, or soon will."""
    return [entry for entry in planned.known if entry.state in LIVE]


def _worth_another_try(entry: LoadEntry, reading: str) -> bool:
    """Return whether a file was not taken under a declaration that is another one now."""
    return entry.state in ("failed", "refused") and entry.reading != reading


def _reason_to_skip(entry: LoadEntry, known: Sequence[LoadEntry]) -> str:
    if entry.state == "undone":
        return f"undone by a person; datops load reload {entry.ulid}"
    if entry.state == "failed":
        return f"failed and not changed since; datops load reload {entry.ulid}"
    older = [other for other in known if other.state in LIVE]
    if entry.frozen_out:
        return f"refused by `schema: freeze` and not changed since; datops contract accept {entry.source}.{entry.table}"
    if entry.state == "refused" and older:
        return f"refused beside the load before it; datops load undo {older[-1].ulid} lets it in"
    if entry.state == "refused":
        return f"refused and not changed since; datops load reload {entry.ulid}"
    if entry.state == "superseded":
        return "unchanged; a later delivery replaced it"
    return "unchanged"
