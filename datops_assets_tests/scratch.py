"""Where tests keep what is gone after them: servers, projects, files.

In memory where there is room. A database is some 350 files: to copy them costs 200 ms of a core on a disk's
file system, 35 ms in memory, and most tests want one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil

_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30
"""Bytes. Three workers with all servers that there are need a quarter of it."""


def scratch_root(memory: Path = _MEMORY) -> Path:
    """Shared memory, if it has room and programs may run from it; /tmp otherwise: a socket's path must be short.

    And /tmp where DATOPS_TESTS_ON_DISK is set, as `make test-all` does: the slow tests write gigabytes.
    """
    if (
        "DATOPS_TESTS_ON_DISK" in os.environ
        or not memory.is_dir()
        or not os.access(memory, os.W_OK | os.X_OK)
    ):
        return Path("/tmp")
    forbids_programs = os.statvfs(memory).f_flag & os.ST_NOEXEC
    room = min(shutil.disk_usage(memory).free, psutil.virtual_memory().available // 2)
    return memory if room >= _ROOM and not forbids_programs else Path("/tmp")


ROOT = scratch_root()


def scratch_folder(prefix: str) -> Path:
    """A new folder; whoever asks for it removes it."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir=ROOT))
