"""What becomes of a file once it is durably loaded: it stays, goes into an archive, or is deleted.

Only the file that was loaded is touched, never one that took its place since. Every step may be
done again after a crash: a copy that is there already is not made twice.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from datops_assets.errors import FileChangedError, SourceRefusedError
from datops_assets.ingestion.source import Unit
from datops_assets.ingestion.store import Store
from datops_assets.postgres import failpoints

_MOST_NAMESAKES = 1000


@dataclass(frozen=True)
class AfterLoad:
    """What to do with loaded files."""

    action: Literal["leave", "archive", "delete"] = "leave"
    archive: Path | str | None = None
    """Folder or URL; a folder per day of loading is made in it."""


def put_away(store: Store, unit: Unit, how: AfterLoad) -> None:
    """Archive or delete one file that is loaded; do nothing where it is gone, or is another one now.

    raises     SourceRefusedError, SourceUnreachableError: the next run tries again
    """
    if how.action == "leave":
        return
    failpoints.hit("before_put_away")
    try:
        store.require_unchanged(unit)
    except FileChangedError:
        return
    if how.action == "delete":
        store.delete(unit)
    else:
        assert how.archive is not None
        day = datetime.now(UTC).date().isoformat()
        if isinstance(how.archive, Path):
            _archive(unit, Path(unit.location), how.archive / day / unit.path)
        else:
            store.move(unit, f"{how.archive.rstrip('/')}/{day}/{unit.path}")
    failpoints.hit("after_put_away")


def _archive(unit: Unit, source: Path, wanted: Path) -> None:
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for target in _namesakes(wanted):
            if _is_same(source, target):
                break
            if _placed(source, target):
                failpoints.hit("in_put_away")
                break
        source.unlink()
    except FileNotFoundError:
        return  # somebody else took it away
    except OSError as error:
        raise SourceRefusedError(
            f"{unit.path} is loaded, but cannot be moved into {wanted.parent}: {error.strerror};"
            " give us the right to write there, then run again"
        ) from None


def _namesakes(wanted: Path) -> list[Path]:
    more = (wanted.with_name(f"{wanted.stem}.{n}{wanted.suffix}") for n in range(2, _MOST_NAMESAKES))
    return [wanted, *more]


def _placed(source: Path, target: Path) -> bool:
    """Put a file beside its new name, in one step; False where another one has that name."""
    if target.exists():
        return False
    try:
        os.link(source, target, follow_symlinks=True)
        return True
    except FileExistsError:
        return False
    except OSError:
        pass  # another disk, or one without links
    part = target.with_name(f".{target.name}.part")
    shutil.copy2(source, part)
    with part.open("rb") as copy:
        os.fsync(copy.fileno())
    part.rename(target)
    return True


def _is_same(source: Path, target: Path) -> bool:
    """Whether a file stands there already, after a crash or because it was delivered again."""
    if not target.is_file() or target.stat().st_size != source.stat().st_size:
        return False
    with source.open("rb") as one, target.open("rb") as other:
        while (part := one.read(1 << 20)) == other.read(1 << 20):
            if not part:
                return True
    return False
