"""Deciding what a judgement has to do. Values in, values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from datops_assets.quality.contract_rules import UniqueRule
from datops_assets.quality.judged import Subject

CONTRACT_CHANGED = "the contract changed"


@dataclass(frozen=True)
class LiveLoad:
    """One load that silver should hold."""

    load_id: int
    partition_key: str | None = None


@dataclass(frozen=True)
class Work:
    """What to do to silver.

    what    nothing: silver is right as it is; add: judge `new`; change: take `gone` out, put what
            stood behind back from `kept`, judge `new`; rebuild: judge `new` (all live loads) into a
            new table and swap
    replay  loads whose refused rows are judged once more
    """

    what: Literal["nothing", "add", "change", "rebuild"]
    why: str
    new: tuple[int, ...] = ()
    gone: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    replay: tuple[int, ...] = ()


def plan_work(
    subject: Subject,
    live: Sequence[LiveLoad],
    judged: Mapping[int, str],
    *,
    silver_fits: bool,
    again: Sequence[str] = (),
    rebuild: bool = False,
    replay: Sequence[int] = (),
) -> Work:
    """Decide from the live loads and the contract version that each load in silver was judged by.

    silver_fits   the table is there and has the contract's columns
    again         partitions to judge once more
    replay        loads with refused rows, to be judged once more
    """
    ids = tuple(sorted(load.load_id for load in live))
    stale = _is_stale(subject, judged)
    repeated = {load.load_id for load in live if load.partition_key in again and load.load_id in judged}
    gone = tuple(sorted((set(judged) - set(ids)) | repeated))
    new = tuple(load_id for load_id in ids if load_id not in judged or load_id in repeated)
    kept = tuple(load_id for load_id in ids if load_id in judged and load_id not in repeated)
    if rebuild:
        return Work("rebuild", "asked for", ids, gone)
    if not judged and not silver_fits:
        return Work("rebuild", "silver is made for the first time", ids)
    if stale:
        return Work("rebuild", CONTRACT_CHANGED, ids, gone)
    if not silver_fits:
        return Work("rebuild", "silver does not have the contract's columns", ids, gone)
    waiting = tuple(load_id for load_id in replay if load_id in kept)
    if not new and not gone and not waiting:
        return Work("nothing", "nothing is new")
    whole = _needs_whole(subject, new, gone, kept, waiting)
    if whole:
        return Work("rebuild", whole, ids, gone)
    if gone:
        return Work("change", f"{len(gone)} load(s) left or are judged again", new, gone, kept, waiting)
    return Work(
        "add",
        f"{len(new)} load(s) are new" if new else f"refused rows of {len(waiting)} load(s) are replayed",
        new,
        (),
        kept,
        waiting,
    )


def stays_outside(days: Sequence[str], subject: Subject, judged: Mapping[int, str]) -> bool:
    """Whether a judgement of some days leaves the others as silver has them.

    Not where another contract judged some of them, nor where each delivery replaces the one before it.
    """
    return bool(days) and subject.disposition in ("append", "merge") and not _is_stale(subject, judged)


def due_for_days(days: Sequence[str], live: Sequence[LiveLoad], held: Sequence[LiveLoad]) -> list[LiveLoad]:
    """The loads silver should hold after a judgement of some days only.

    Of those days what is live; of any other day what silver holds now, even where it changed since.
    """
    due = [load for load in live if load.partition_key in days]
    due += [load for load in held if load.partition_key not in days]
    return sorted(due, key=lambda load: load.load_id)


def _is_stale(subject: Subject, judged: Mapping[int, str]) -> bool:
    return any(version != subject.version for version in judged.values())


def _needs_whole(
    subject: Subject,
    new: Sequence[int],
    gone: Sequence[int],
    kept: Sequence[int],
    waiting: Sequence[int],
) -> str:
    """Why only judging everything gives the same silver as judging from scratch; '' where less will do."""
    if gone and not kept:
        return "every load that silver holds was undone or replaced"
    late = bool(new) and bool(kept) and min(new) < max(kept)
    if judges_in_turn(subject) and (gone or late or waiting):
        return "unique values are judged in load order, and that changed"
    return ""


def judges_in_turn(subject: Subject) -> bool:
    """Whether verdicts depend on what earlier loads left in silver: a unique rule that refuses rows."""
    return any(isinstance(rule, UniqueRule) and rule.severity != "warn" for rule in subject.contract.rules)
