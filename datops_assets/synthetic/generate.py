"""Generating a shop: all days of a plan, or one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from datops_assets.errors import DeclarationError
from datops_assets.synthetic.plan import Generated, ShopPlan
from datops_assets.synthetic.tables import TABLES

if TYPE_CHECKING:
    from datops_assets.synthetic.files import Label, ShopFile
    from datops_assets.synthetic.folder import ShopFolder


def generate_shop(
    plan: ShopPlan,
    out: Path,
    *,
    force: bool = False,
    on_day: Callable[[date], None] | None = None,
) -> Generated:
    """Write the files of all days of a plan below `out`.

    force    replace the files of another shop that `out` holds
    on_day   called after each day's files are written
    raises   TerminalError: `out` holds another shop, and no `force`. Nothing was written.
             LockTakenError: another process is generating into `out`. Nothing was written.
    promise  the same plan gives the same bytes, on every machine and with every version of
             numpy; a day's files do not depend on `plan.days`. A file appears whole or not at
             all, and one that is there already with these bytes is not touched. Files of later
             days that are there stay.
    """
    return _generate(plan, range(plan.days), out, force=force, on_day=on_day)


def generate_shop_day(plan: ShopPlan, day: date, out: Path, *, force: bool = False) -> Generated:
    """Write the files that arrive on one day, the same that `generate_shop` writes for it.

    day      any day from `plan.start` on; `plan.days` is no limit, so a schedule can go on
    raises   as `generate_shop`; DeclarationError: the day is before the plan's start
    promise  as `generate_shop`
    """
    number = (day - plan.start).days
    if number < 0:
        raise DeclarationError([f"{day} is before the shop's start, expected {plan.start} or later"])
    return _generate(plan, range(number, number + 1), out, force=force, on_day=None)


def _generate(
    plan: ShopPlan,
    days: range,
    out: Path,
    *,
    force: bool,
    on_day: Callable[[date], None] | None,
) -> Generated:
    # numpy is imported only when something is generated: definitions load without it.
    from datops_assets.synthetic.damage import Damage
    from datops_assets.synthetic.folder import ShopFolder
    from datops_assets.synthetic.shop import Shop

    folder, files = ShopFolder(out), Damage(plan, Shop(plan))
    dates = [plan.start + timedelta(days=day) for day in days]
    done = _Done()
    with folder.taken():
        folder.claim(plan, force=force)
        for day, today in zip(days, dates, strict=True):
            daily = (files.file(table, day) for table in TABLES.values() if table.daily)
            done.write(folder, daily)
            if on_day:
                on_day(today)
        # A file without a day shows the last day of the folder, or a call for an old day
        # would turn it back.
        newest = ((folder.last_day() or dates[-1]) - plan.start).days
        done.write(folder, (files.file(t, newest) for t in TABLES.values() if not t.daily))
        folder.write_labels(dates[0], dates[-1], done.labels)
    return done.generated(out)


@dataclass
class _Done:
    """What has been written so far."""

    files: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    labels: list[Label] = field(default_factory=list)

    def write(self, folder: ShopFolder, files: Iterable[ShopFile]) -> None:
        for file in files:
            self.files.append(file.path)
            if folder.write(file.path, file.data):
                self.written.append(file.path)
            self.rows[file.path.split("/")[0]] += file.rows
            self.labels += file.labels

    def generated(self, out: Path) -> Generated:
        injected: dict[str, dict[str, int]] = {}
        for label in self.labels:
            of_table = injected.setdefault(label.table, {})
            of_table[label.fault] = of_table.get(label.fault, 0) + 1
        return Generated(
            out=out,
            files=tuple(self.files),
            written=tuple(self.written),
            rows=dict(self.rows),
            labels=injected,
        )
