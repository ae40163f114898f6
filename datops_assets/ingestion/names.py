"""From delivered column names to bronze column names, and what changed between two headers. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from datops_assets.postgres.names import contract_name

MAX_NAME_BYTES = 63
"""PostgreSQL cuts longer identifiers without an error."""
MAX_COLUMNS = 250
"""Past this the rest of a record goes into `_more`: 250 TOAST pointers of 18 bytes still fit one page."""
OWN_COLUMNS = ("_load_id", "_row", "_more")
RESERVED = frozenset({*OWN_COLUMNS, "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
"""Names PostgreSQL or datops uses in every bronze table."""


@dataclass(frozen=True)
class Delivered:
    """A column as a file names it; the second column called "a" is Delivered("a", 2)."""

    name: str
    occurrence: int = 1


def occurrences(header: Iterable[str]) -> list[Delivered]:
    """Number the repeats of each name."""
    seen: dict[str, int] = {}
    numbered = []
    for name in header:
        seen[name] = seen.get(name, 0) + 1
        numbered.append(Delivered(name, seen[name]))
    return numbered


def bronze_name(column: Delivered, taken: Iterable[str]) -> str:
    """Return the column name for bronze: as delivered, unless PostgreSQL or we could not keep it so.

    taken      names this table already uses for other columns
    promise    depends on its arguments only, so that two processes agree
    """
    name = column.name.replace("\0", "")
    if not name:
        name = "column"
    if column.occurrence > 1:
        name = f"{name}_{column.occurrence}"
    if name in RESERVED:
        name = f"{name}_"
    used = set(taken)
    candidate, number = _shortened(name), 1
    while candidate in used:
        number += 1
        candidate = _shortened(f"{name}_{number}")
    return candidate


def _shortened(name: str) -> str:
    raw = name.encode("utf-8", "replace")
    if len(raw) <= MAX_NAME_BYTES:
        return raw.decode()
    # The hash keeps two long names apart that differ only past the cut.
    digest = hashlib.sha256(raw).hexdigest()[:8]
    return f"{raw[: MAX_NAME_BYTES - 9].decode(errors='ignore')}_{digest}"


def header_differences(
    before: Sequence[str] | None, now: Sequence[str], rename: Mapping[str, str]
) -> dict[str, list[str] | dict[str, str]]:
    """Compare a header with the one loaded before it; empty when nothing differs.

    returns    any of appeared, vanished, moved (lists) and renamed (old to new): a column is
               renamed when one vanished and one appeared that mean the same contract column
    """
    if before is None:
        return {}
    appeared = [name for name in dict.fromkeys(now) if name not in set(before)]
    vanished = [name for name in dict.fromkeys(before) if name not in set(now)]
    meaning = {contract_name(name, rename): name for name in appeared}
    renamed = {
        old: meaning[contract_name(old, rename)] for old in vanished if contract_name(old, rename) in meaning
    }
    found: dict[str, list[str] | dict[str, str]] = {
        "appeared": [name for name in appeared if name not in renamed.values()],
        "vanished": [name for name in vanished if name not in renamed],
        "moved": _moved(before, now),
        "renamed": renamed,
    }
    return {kind: names for kind, names in found.items() if names}


def _moved(before: Sequence[str], now: Sequence[str]) -> list[str]:
    shared_before = [name for name in dict.fromkeys(before) if name in set(now)]
    shared_now = [name for name in dict.fromkeys(now) if name in set(before)]
    return [new for old, new in zip(shared_before, shared_now, strict=True) if old != new]
