"""The shop's folder: whose it is, files that appear whole or not at all, and the label file."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from hashlib import sha256
from pathlib import Path

from datops_assets.errors import LockTakenError, TerminalError
from datops_assets.synthetic.files import Label
from datops_assets.synthetic.plan import ShopPlan
from datops_assets.synthetic.tables import ORDERS, TABLES

# Raise it when the same plan no longer gives the same bytes: folders of the older version are
# then refused instead of being mixed.
FORMAT_VERSION = 1

_MANIFEST = "shop.json"
_LABELS = "faults.jsonl"


class ShopFolder:
    """One plan's files, on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Keep other processes of ours out while files are written.

        raises   LockTakenError: another one is writing. Nothing was touched.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise LockTakenError(f"another process is generating into {self.root}") from error
        finally:
            os.close(folder)

    def claim(self, plan: ShopPlan, *, force: bool = False) -> None:
        """Make the folder this plan's own, or refuse.

        force    remove the files of another shop first
        raises   TerminalError: it holds another shop. Nothing was touched.
        """
        wanted = _identity(plan)
        manifest = self.root / _MANIFEST
        found = _read_manifest(manifest)
        if found == wanted:
            return
        if not force and (found is not None or self._files()):
            differing = sorted(name for name in wanted if (found or {}).get(name) != wanted[name])
            raise TerminalError(
                f"{self.root} holds another shop ({', '.join(differing)} differ); "
                "choose another --out, or replace it with --force"
            )
        for path in self._files():
            path.unlink()
        (self.root / _LABELS).unlink(missing_ok=True)
        self.write(_MANIFEST, (json.dumps(wanted, indent=2) + "\n").encode())

    def write(self, path: str, data: bytes) -> bool:
        """Write a file whole, under a temporary name first; say whether anything had to be."""
        final = self.root / path
        if _holds(final, data):
            return False
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{final.name}.tmp")
        temporary.write_bytes(data)
        temporary.rename(final)
        return True

    def last_day(self) -> date | None:
        """The last day that the folder has a file of, judged by the orders."""
        before, after = ORDERS.pattern.split("{day}")
        names = [path.name for path in self.root.glob(ORDERS.pattern.format(day="????-??-??"))]
        prefix = Path(before).name
        days = [name.removeprefix(prefix).removesuffix(after) for name in names]
        return max(map(date.fromisoformat, days), default=None)

    def write_labels(self, first: date, last: date, labels: Sequence[Label]) -> None:
        """Replace the labels of some days (and of files without a day) and keep the others'."""
        path = self.root / _LABELS
        kept: list[tuple[str, str]] = []
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            day = json.loads(line)["day"]
            if day is not None and not first.isoformat() <= day <= last.isoformat():
                kept.append((day, line))
        if not labels and not path.exists():
            return
        new = [(label.day or "", _label_line(label)) for label in labels]
        lines = [line for _, line in sorted(kept + new, key=lambda entry: entry[0])]
        self.write(_LABELS, "".join(f"{line}\n" for line in lines).encode())

    def _files(self) -> list[Path]:
        return [
            path
            for table in TABLES.values()
            for path in self.root.glob(table.pattern.format(day="????-??-??"))
        ]


def _identity(plan: ShopPlan) -> dict[str, object]:
    """What a folder's files follow from: everything of a plan but the number of days."""
    faults = json.dumps([fault.model_dump() for fault in plan.faults])
    return {
        "generator": "datops shop",
        "version": FORMAT_VERSION,
        "seed": plan.seed,
        "scale": plan.thousandths / 1000,
        "start": plan.start.isoformat(),
        "faults": sha256(faults.encode()).hexdigest()[:16] if plan.faults else None,
    }


def _read_manifest(path: Path) -> dict[str, object] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def _label_line(label: Label) -> str:
    # A lone surrogate (a byte that is not UTF-8) is written as an escape.
    text = json.dumps(asdict(label), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()
