"""Which loads are live where a table is delivered whole (replace, snapshot): one rule, kept here.

The live loads are the newest delivery. Its files are loaded one by one as `staged`, which silver
does not see; when all of them are there they become `loaded` and what they replace `superseded`,
in one transaction. Nothing of the old leaves before the new is complete.

- Where paths name a day, the newest day's files are the delivery, in however many runs they come.
- Otherwise files under names that the live delivery never had are a new delivery. Once one file of
  the live delivery is delivered with other content, the live delivery itself is renewed: that file
  replaces only itself, new ones join, those that are no longer there leave, the others stay.

Belongs here: deciding from the files that are there and the catalogue's entries, and writing down
what was decided. Which file is loaded is decided in plan.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row

from datops_assets.ingestion.source import Unit
from datops_assets.postgres import failpoints


@dataclass(frozen=True)
class Entry:
    """What an entry of the catalogue says about deliveries."""

    load_id: int
    path: str
    fingerprint: str | None
    state: str
    day: str | None
    delivery: int | None
    """The delivery it was part of, named by the first load that brought it; None until one was complete."""
    superseded_by: int | None
    """Of another path where the file itself was not delivered again; None: it never was live."""


@dataclass(frozen=True)
class Decision:
    """What the staged loads lead to."""

    missing: tuple[str, ...] = ()
    """Files of the delivery that are not loaded; while there are any, nothing becomes live."""
    live: tuple[int, ...] = ()
    """Staged loads that become live."""
    replaced: dict[int, int] = field(default_factory=dict)
    """Loads that are not live any more, or never were, and the load to undo to get them back."""
    delivery: int | None = None
    """The delivery that is live then; None while nothing changes."""
    overtaken: tuple[int, ...] = ()
    """Staged loads of a content that is there no more."""


_ENTRIES: LiteralString = """
select load_id, path, fingerprint, case when reload_requested then 'interrupted' else state end as state,
       partition_key as day, delivery, superseded_by
  from datops.loads where table_id = %s and state <> 'loading' order by load_id
"""
_LEAVE: LiteralString = """
update datops.loads l set state = 'superseded', superseded_by = r.superseded_by
  from unnest(%s::bigint[], %s::bigint[]) as r (load_id, superseded_by)
 where l.load_id = r.load_id
"""
# With what failed or was undone on the way: mended later, such a file is still one of the delivery.
_NAME: LiteralString = """
update datops.loads set delivery = %s
 where table_id = %s and delivery is null and (state <> 'superseded' or superseded_by is null)
"""


def finish_delivery(
    conn: psycopg.Connection[Any],
    table_id: int,
    units: Sequence[Unit],
    *,
    by_partition: bool,
    partitions: Collection[str] | None = None,
) -> str | None:
    """Let silver see the staged loads instead of those they replace, if the delivery is complete.

    units         all files that are there, after the run tried those that were new
    by_partition  the newest partition is the delivery, whichever order the files came in
    partitions    the run took only files of these; others are not missed
    returns       why it is not complete yet; None when there was nothing to do or it is done
    promise       follows from files and catalogue alone, so the next run makes up for one that was killed
    """
    staged = "select exists (select from datops.loads where table_id = %s and state = 'staged')"
    if conn.execute(staged, (table_id,)).fetchone() == (False,):
        return None
    wanted = [unit for unit in units if partitions is None or unit.partition_key in partitions]
    decision = decide_delivery(units, wanted, read_entries(conn, table_id), by_partition=by_partition)
    failpoints.hit("before_swap")
    with conn.transaction():
        _leave(conn, dict.fromkeys(decision.overtaken))
        if decision.delivery is not None:
            _leave(conn, decision.replaced)
            failpoints.hit("in_swap")
            live = "update datops.loads set state = 'loaded' where load_id = any(%s)"
            conn.execute(live, (list(decision.live),))
            conn.execute(_NAME, (decision.delivery, table_id))
    failpoints.hit("after_swap")
    if not decision.missing:
        return None
    return (
        f"{len(decision.missing)} file(s) of the delivery are not loaded ({', '.join(decision.missing[:5])}), so the"
        " one before it stays in place; deliver them again, or take them away, and run again"
    )


def read_entries(conn: psycopg.Connection[Any], table_id: int) -> list[Entry]:
    """Return what is known of a table's files, in load order."""
    with conn.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(_ENTRIES, (table_id,)).fetchall()


def decide_delivery(
    units: Sequence[Unit], wanted: Sequence[Unit], entries: Sequence[Entry], *, by_partition: bool
) -> Decision:
    """Decide what becomes live. Pure.

    units      all files that are there
    wanted     those of them that are missed where they are not loaded
    entries    of the table, in load order
    """
    current = {unit.path: entry for unit, entry in _current(units, entries)}
    staged = [entry for entry in entries if entry.state == "staged"]
    live = [entry for entry in entries if entry.state == "loaded"]
    missing = [unit for unit in wanted if _is_missing(current[unit.path])]
    here = [entry for entry in staged if current.get(entry.path, entry) is entry]
    days = {entry.day for entry in (*live, *here)} | {unit.partition_key for unit in missing}
    newest = max((day for day in days if day is not None), default=None)
    if by_partition and newest is not None:
        decision = _by_day(newest, here, live, missing, entries)
    else:
        here = [entry for entry in here if entry.path in current]
        decision = _by_name(here, live, missing, entries, current.keys())
    overtaken = _ids(set(staged).difference(here))
    return replace(decision, overtaken=overtaken)


def reinstated(undone: Entry, entries: Sequence[Entry]) -> list[int]:
    """Return the loads that are live again once a live one was undone. Pure.

    undone     as it was while it was live
    entries    of the table, in load order, the undone one no longer live among them

    What the path held before comes back at once. What had left without a load of its own path comes
    back when nothing is left of what had come instead: the day before, the delivery before, or the
    files that were no longer there when the delivery was renewed.
    """
    own = [e.load_id for e in entries if e.path == undone.path and e.superseded_by == undone.load_id]
    left = _left_with_others(entries)
    if undone.day is not None:
        if own or any(entry.state == "loaded" for entry in entries):
            return own
        newest = max((entry.day or "" for entry, _ in left), default="")
        return [entry.load_id for entry, _ in left if (entry.day or "") == newest]
    standing = (e for e in entries if e.state == "loaded" or (e.state == "superseded" and e.superseded_by))
    newest_of = {entry.delivery: entry.load_id for entry in standing}
    return own + [
        entry.load_id
        for entry, first in left
        if first.delivery is not None and first.delivery == undone.delivery
        if newest_of.get(first.delivery, 0) < first.load_id
    ]


def _by_day(
    newest: str,
    here: Sequence[Entry],
    live: Sequence[Entry],
    missing: Sequence[Unit],
    entries: Sequence[Entry],
) -> Decision:
    """The newest day's files are the delivery; a file of an older day takes its place among what was."""
    lacking = tuple(unit.path for unit in missing if unit.partition_key == newest)
    if lacking or not here:
        return Decision(lacking if here else ())
    new = {entry.path: entry for entry in here}
    stays = [entry for entry in live if entry.day == newest and entry.path not in new]
    shown = [entry for entry in here if entry.day == newest]
    first = min(entry.load_id for entry in (shown or stays))
    gone = {entry.load_id: first for entry in (*live, *here) if entry.day != newest}
    gone |= {entry.load_id: new[entry.path].load_id for entry in live if entry.path in new}
    gone |= {e.load_id: new[e.path].load_id for e, _ in _left_with_others(entries) if e.path in new}
    return Decision((), _ids(shown), gone, _name_of(stays) or first)


def _by_name(
    here: Sequence[Entry],
    live: Sequence[Entry],
    missing: Sequence[Unit],
    entries: Sequence[Entry],
    present: Collection[str],
) -> Decision:
    """New names are a new delivery; a name that the live delivery had renews the live delivery."""
    if missing or not here:
        return Decision(tuple(unit.path for unit in missing) if here else ())
    new = {entry.path: entry.load_id for entry in here}
    deliveries = {entry.delivery for entry in live if entry.delivery is not None}
    names = {entry.path for entry in (*live, *(e for e in entries if e.delivery in deliveries))}
    renewed = not names.isdisjoint(new)
    first = min(new.values())
    stays = [e for e in live if renewed and e.path in present and e.path not in new]
    gone = {entry.load_id: new.get(entry.path, first) for entry in set(live).difference(stays)}
    return Decision((), _ids(here), gone, (renewed and _name_of(live)) or first)


def _current(units: Iterable[Unit], entries: Iterable[Entry]) -> Iterable[tuple[Unit, Entry | None]]:
    """Pair each file with the newest entry of the content it has now."""
    tried = (entry for entry in entries if entry.state != "interrupted")
    known = {(entry.path, entry.fingerprint): entry for entry in tried}
    return ((unit, known.get((unit.path, unit.fingerprint))) for unit in units)


def _is_missing(entry: Entry | None) -> bool:
    """Whether a file's content was not taken: it waits, could not be read, or was refused."""
    return entry is None or entry.state in ("failed", "refused")


def _left_with_others(entries: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """The loads that left with their delivery, not by newer content of their own path, and for which load."""
    by_id = {entry.load_id: entry for entry in entries}
    left = [
        (entry, by_id[entry.superseded_by])
        for entry in entries
        if entry.state == "superseded" and entry.superseded_by in by_id
    ]
    return [(entry, first) for entry, first in left if first.path != entry.path]


def _name_of(entries: Sequence[Entry]) -> int | None:
    """The delivery that loads belong to; of loads from before the table was delivered whole, the first."""
    return min((entry.delivery or entry.load_id for entry in entries), default=None)


def _ids(entries: Iterable[Entry]) -> tuple[int, ...]:
    return tuple(entry.load_id for entry in entries)


def _leave(conn: psycopg.Connection[Any], replaced: Mapping[int, int | None]) -> None:
    conn.execute(_LEAVE, (list(replaced), list(replaced.values())))
