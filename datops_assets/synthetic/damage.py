"""Damages files on purpose and writes down what was done: one label for each injected fault.

Faults are drawn from streams of their own and applied to finished records, so the other data
is what it is without them. A record has one fault at most: where two are drawn for it, the one
that the document names first is injected. A file that is hit as a whole gets no other faults,
but late records and old versions of other days still arrive in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from datops_assets.synthetic.cells import Frame
from datops_assets.synthetic.declaration import Fault
from datops_assets.synthetic.draws import Draws, numbered
from datops_assets.synthetic.files import Label, Layout, Record, ShopFile
from datops_assets.synthetic.plan import ShopPlan
from datops_assets.synthetic.shop import Shop
from datops_assets.synthetic.spoiling import cut, first_version, possible, spoiled, target
from datops_assets.synthetic.tables import Table

# A late record and an old version arrive one to so many days after their own day.
_LONGEST_DELAY_DAYS = 3
_MOVING = ("late", "stale_duplicate")


@dataclass(frozen=True)
class _Extra:
    """A record put before another one of a file, which `position` counts from 0."""

    position: int
    record: Record
    label: Label


@dataclass(frozen=True)
class _Mover:
    """A record of one day that arrives on another."""

    arrives: int
    frame: Frame
    fault: Fault
    draw: int


class Damage:
    """Makes the files of a shop, with the faults that the plan asks for."""

    def __init__(self, plan: ShopPlan, shop: Shop) -> None:
        self._plan, self._shop = plan, shop
        self._faults: dict[str, list[tuple[Fault, Draws]]] = {}
        for position, fault in enumerate(plan.faults):
            # Two entries for the same thing hit other records each.
            same = sum(_what(fault) == _what(other) for other in plan.faults[:position])
            draws = Draws(plan.seed, "fault", *_what(fault), same)
            self._faults.setdefault(fault.table, []).append((fault, draws))
        self._movers: dict[tuple[str, int], list[_Mover]] = {}

    def file(self, table: Table, day: int) -> ShopFile:
        """Make a table's file of a day."""
        frame = self._shop.records(table, day)
        if table.name in self._faults:
            return self._damaged(frame, day)
        return ShopFile(self._path(table, day), Layout.of(table).whole_file(frame), len(frame))

    def _damaged(self, frame: Frame, day: int) -> ShopFile:
        table = frame.table
        whole = self._of_file(table, day)
        layout = _layout(table, whole)
        hits = self._hits(frame, day)
        late = {record for record, (fault, _) in hits.items() if fault.fault == "late"}
        records = layout.records(frame)
        labels: dict[int, Label] = {}
        extras: list[_Extra] = []
        if not whole:
            labels, extras = self._inject(frame, day, layout, hits, records)
        self._remember(frame, day, hits)
        extras += self._arriving(table, day, len(frame), layout)
        records, found = _assembled(records, labels, late, extras)
        file = ShopFile(self._path(table, day), layout.file(records), len(records), tuple(found))
        return self._hit_whole(file, whole, layout, records, day) if whole else file

    def _inject(
        self,
        frame: Frame,
        day: int,
        layout: Layout,
        hits: dict[int, tuple[Fault, int]],
        records: list[Record],
    ) -> tuple[dict[int, Label], list[_Extra]]:
        """Spoil `records` in place; the labels of those, and the records to be added."""
        labels: dict[int, Label] = {}
        extras = []
        for record, (fault, draw) in hits.items():
            label = self._label(frame, day, record, fault)
            if fault.fault == "duplicate_key":
                position = record + 1 + draw % (len(frame) - record)
                extras.append(_Extra(position, records[record], label))
            elif fault.fault == "repeated_header":
                header = ",".join(layout.names)
                extras.append(_Extra(record, header, replace(label, key=None)))
            elif fault.fault not in _MOVING:
                if fault.fault == "truncated_row":
                    label = replace(label, original=str(records[record]))
                records[record] = spoiled(layout, frame, record, fault, draw)
                labels[record] = label
        return labels, extras

    def _of_file(self, table: Table, day: int) -> Fault | None:
        """The fault that the file as a whole has on a day, if any."""
        for fault, draws in self._faults[table.name]:
            if fault.kind.scope == "file":
                stream = f"hit{self._drawn_day(table, day)}"
                if draws.happens(stream, numbered(1), fault.rate)[0]:
                    return fault
        return None

    def _hits(self, frame: Frame, day: int) -> dict[int, tuple[Fault, int]]:
        """Which records of a day have which fault, and a number that decides its details."""
        found: dict[int, tuple[Fault, int]] = {}
        index = numbered(len(frame))
        today = self._drawn_day(frame.table, day)
        for fault, draws in self._faults[frame.table.name]:
            if fault.kind.scope != "file":
                hit = draws.happens(f"hit{today}", index, fault.rate) & possible(frame, fault)
                details = draws.below(f"details{today}", index[hit], 1 << 48)
                for record, draw in zip(index[hit].tolist(), details.tolist(), strict=True):
                    found.setdefault(record, (fault, draw))
        return dict(sorted(found.items()))

    def _remember(self, frame: Frame, day: int, hits: dict[int, tuple[Fault, int]]) -> list[_Mover]:
        """Keep the records of a day that arrive later, for the days on which they do."""
        table = frame.table
        for old in [key for key in self._movers if key[0] == table.name and abs(key[1] - day) > 9]:
            del self._movers[old]
        movers = [
            _Mover(day + 1 + draw % _LONGEST_DELAY_DAYS, frame.take(np.array([record])), fault, draw)
            for record, (fault, draw) in hits.items()
            if fault.fault in _MOVING
        ]
        self._movers[table.name, day] = movers
        return movers

    def _arriving(self, table: Table, day: int, length: int, layout: Layout) -> list[_Extra]:
        """The late records and old versions of earlier days that arrive on a day."""
        if not any(fault.fault in _MOVING for fault, _ in self._faults[table.name]):
            return []
        extras = []
        for then in range(max(0, day - _LONGEST_DELAY_DAYS), day):
            movers = self._movers.get((table.name, then))
            if movers is None:
                frame = self._shop.records(table, then)
                movers = self._remember(frame, then, self._hits(frame, then))
            for mover in movers:
                if mover.arrives == day:
                    label = self._label(mover.frame, day, 0, mover.fault)
                    frame = mover.frame
                    if mover.fault.fault == "late":
                        label = replace(label, original=self._path(table, then))
                    else:
                        frame = first_version(frame)
                    position = (mover.draw >> 8) % (length + 1)
                    extras.append(_Extra(position, layout.records(frame)[0], label))
        return extras

    def _hit_whole(
        self, file: ShopFile, fault: Fault, layout: Layout, records: Sequence[Record], day: int
    ) -> ShopFile:
        """Do to a file what is done to it as a whole, and label that."""
        table = layout.table
        label = self._label_file(file, fault, table, day)
        match fault.fault:
            case "empty_file":
                return replace(file, data=b"", rows=0, labels=(label,))
            case "cut_file" if table.format in ("json", "parquet"):
                # The end of the container is gone, so no record of it can be relied on.
                return replace(file, data=file.data[: len(file.data) // 2], rows=0, labels=(label,))
            case "cut_file" if not records:
                return file
            case "cut_file":
                draws = Draws(self._plan.seed, "cut", table.name)
                last = 1 + draws.one_below("at", day, len(records))
                kept = [str(record) for record in records[:last]]
                kept[-1] = cut(table, kept[-1])
                before = [known for known in file.labels if known.record and known.record < last]
                labels = (replace(label, record=last), *before)
                return replace(file, data=layout.file(kept)[:-1], rows=last, labels=labels)
        return replace(file, labels=(label, *file.labels))

    def _label(self, frame: Frame, day: int, record: int, fault: Fault) -> Label:
        """Begin a label; the record's number is known only when the file is put together."""
        column = fault.target()
        return Label(
            day=self._day(frame.table, day),
            table=frame.table.name,
            file=self._path(frame.table, day),
            record=None,
            key={name: frame.cell(name, record) for name in frame.table.key},
            fault=fault.fault,
            column=column.name if column else None,
            original=frame.cell(column.name, record) if column else None,
        )

    def _label_file(self, file: ShopFile, fault: Fault, table: Table, day: int) -> Label:
        column = fault.target()
        return Label(
            day=self._day(table, day),
            table=table.name,
            file=file.path,
            record=None,
            key=None,
            fault=fault.fault,
            column=column.name if column else None,
            original=None if column else str(file.rows),
        )

    def _drawn_day(self, table: Table, day: int) -> int:
        # The one file of a table without days has its faults in the same records every day.
        return day if table.daily else 0

    def _day(self, table: Table, day: int) -> str | None:
        return (self._plan.start + timedelta(days=day)).isoformat() if table.daily else None

    def _path(self, table: Table, day: int) -> str:
        return table.path(self._plan.start + timedelta(days=day))


def _what(fault: Fault) -> tuple[str, str, str]:
    column = fault.target()
    return fault.table, fault.fault, column.name if column else ""


def _layout(table: Table, whole: Fault | None) -> Layout:
    layout = Layout.of(table)
    if whole and whole.fault == "missing_column":
        return layout.without(target(whole))
    if whole and whole.fault == "renamed_column":
        return layout.renamed(target(whole))
    return layout


def _assembled(
    records: Sequence[Record], labels: dict[int, Label], late: set[int], extras: Sequence[_Extra]
) -> tuple[list[Record], list[Label]]:
    """Put a file's records in their order and number their labels from 1."""
    before: dict[int, list[_Extra]] = {}
    for extra in extras:
        before.setdefault(extra.position, []).append(extra)
    put: list[Record] = []
    found: list[Label] = []
    for position in range(len(records) + 1):
        for extra in before.get(position, ()):
            put.append(extra.record)
            found.append(replace(extra.label, record=len(put)))
        if position < len(records) and position not in late:
            put.append(records[position])
            if position in labels:
                found.append(replace(labels[position], record=len(put)))
    return put, found
