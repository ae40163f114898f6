"""Why the server did not start, in one sentence with the next step."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datops_assets.errors import WarehouseError


def folder_refused(folder: Path, error: OSError) -> WarehouseError:
    """The sentence for a folder that cannot be made or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WarehouseError(
            f"the disk that holds {folder} is full; free some space, or set DATOPS_HOME to another disk"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return WarehouseError(f"{folder} cannot be written to; set DATOPS_HOME to a folder of yours")
    if error.errno == errno.ENOENT:
        return WarehouseError(f"{folder} is gone; restore it, or move its folder away to begin anew")
    reason = os.strerror(error.errno or errno.EIO)
    return WarehouseError(f"{folder} cannot be used ({reason}); set DATOPS_HOME to another folder")


@contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """Say in a sentence that the disk is full or that we may not write."""
    try:
        yield
    except OSError as error:
        raise folder_refused(folder, error) from error
    except subprocess.SubprocessError as error:  # a program that could not take its account
        raise WarehouseError(
            f"a PostgreSQL program does not start on {folder}; run: datops doctor"
        ) from error


def last_words(base: Path, pid: int) -> str:
    """What the process said before it ended: on stderr, then as FATAL in the JSON log."""
    said = [line for line in (base / "start.log").read_text(errors="replace").splitlines() if line]
    for log in (base / "log").glob("*.json"):
        for line in log.read_text(errors="replace").splitlines()[-200:]:
            if f'"pid":{pid},' in line and ('"FATAL"' in line or '"PANIC"' in line or '"could not' in line):
                said.append(str(json.loads(line).get("message")))
    return "\n".join(said)


def start_failed(base: Path, said: str) -> WarehouseError:
    """The sentence for a server that ended while starting, from its last words."""
    if "No space left" in said:
        return folder_refused(base, OSError(errno.ENOSPC, ""))
    # `… [4711] FATAL:  reason`; the line before often says which line of which file it is about.
    words = [line.partition(":  ")[2] or line for line in said.splitlines() if "skipping missing" not in line]
    reason = ", ".join(words[-2:]) or "it said nothing"
    log = base / "log"
    return WarehouseError(f"PostgreSQL does not start ({reason}); look into {log}, then run: datops doctor")
