"""Names that somebody gave to places in the log (`pg_create_restore_point`), found by reading the log.

Belongs here: finding them in files of the log as destinations keep them. Does not: going there (recovery.py).
source    PostgreSQL, src/backend/access/rmgrdesc/xlogdesc.c: what pg_waldump prints of such a record
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datops_assets.backup.destinations import Destination
from datops_assets.backup.encryption import Keys
from datops_assets.backup.log_archive import LogFile, fetch_log
from datops_assets.backup.wal_segments import is_history
from datops_assets.errors import BackupError
from datops_assets.postgres.lsn import parse_lsn
from datops_assets.resources.embedded.programs import Programs

_RECORD = re.compile(r"\blsn: ([0-9A-F]+/[0-9A-F]+), .*?\bdesc: RESTORE_POINT (.*)$")


@dataclass(frozen=True)
class RestorePoint:
    """A place in the log that has a name."""

    name: str
    lsn: int
    timeline: int


def find_restore_points(
    files: Sequence[LogFile], destinations: Sequence[Destination], name: str, keys: Keys, programs: Programs,
    scratch: Path,
) -> list[RestorePoint]:  # fmt: skip
    """Read files of the log, in their order, two at a time: a record may begin in one and end in the next.

    programs   of the major version that wrote the log
    scratch    has room for two segments
    raises     BackupDamagedError, SourceUnreachableError: a file cannot be had
               BackupError: the programs cannot read the log
    """
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    found: dict[tuple[int, int], RestorePoint] = {}
    before: LogFile | None = None
    with tempfile.TemporaryDirectory(dir=scratch, prefix="points-") as folder:
        here = Path(folder)
        for one in files:
            if is_history(one.segment):
                continue
            if before is not None and before.timeline != one.timeline:
                (here / before.segment).unlink()
                before = None
            fetch_log([one], destinations, name, keys, here)
            for point in _read(here, (before or one).segment, one, programs):
                found[point.timeline, point.lsn] = point
            if before is not None:
                (here / before.segment).unlink()
            before = one
    return sorted(found.values(), key=lambda point: (point.lsn, point.timeline))


def _read(folder: Path, first: str, last: LogFile, programs: Programs) -> list[RestorePoint]:
    command = [programs.path("pg_waldump"), f"--path={folder}", "--rmgr=XLOG", first, last.segment]
    done = subprocess.run(
        command, capture_output=True, cwd="/", env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, check=False
    )
    # It ends with an error where the log ends, in a part or in the middle of a record: what it found counts.
    if done.returncode < 0 or (done.returncode and b"error:" not in done.stderr):
        raise BackupError(f"the log cannot be searched for names: pg_waldump ended with {done.returncode}")
    text = done.stdout.decode("utf-8", "replace")
    return [
        RestorePoint(match[2], parse_lsn(match[1]), last.timeline)
        for line in text.split("\n")
        if (match := _RECORD.search(line))
    ]
