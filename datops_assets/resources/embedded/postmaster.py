"""What the pid file says, and whether to believe it.

Looks at files and processes; the only thing it changes is a stale pid file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Above the largest process id of Linux (2^22) and macOS (99998): never anybody's.
_NOBODYS_PID = 2**31 - 1


@dataclass(frozen=True)
class Postmaster:
    """The first lines of postmaster.pid (PostgreSQL, src/include/utils/pidfile.h)."""

    pid: int
    started_at: int
    port: int
    socket: Path
    ready: bool


def read_postmaster(data: Path) -> Postmaster | None:
    """The server that runs on this data folder; None when none does, whatever the file says."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        found = Postmaster(
            pid=int(lines[0]), started_at=int(lines[2]), port=int(lines[3] or 0), socket=Path(lines[4]),
            ready=len(lines) > 7 and lines[7].strip() == "ready",
        )  # fmt: skip
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, IndexError):  # being written, or cut off by a crash
        return None
    return found if _runs_on(found.pid, data) else None


def list_servers(data: Path) -> list[int]:
    """Process ids of all PostgreSQL processes that work in this data folder."""
    import psutil

    return [
        process.pid
        for process in psutil.process_iter(["name"])
        if (process.info["name"] or "").startswith("postgres") and _runs_on(process.pid, data)
    ]


def disown_stale_pid(data: Path) -> None:
    """Make postmaster.pid name nobody, when it names a process that is not its server.

    PostgreSQL refuses to start while the process id in that file is alive, be it a
    zombie or a stranger that got the number later. The file itself must stay: it leads
    PostgreSQL to the shared memory of backends that outlived their postmaster.
    """
    file = data / "postmaster.pid"
    try:
        first, _, rest = file.read_text().partition("\n")
    except FileNotFoundError:
        return
    if not first.strip():  # cut off by a crash: PostgreSQL asks to remove it by hand
        file.unlink()
    elif not first.strip().isdigit() or not _runs_on(int(first), data):
        file.write_text(f"{_NOBODYS_PID}\n{rest}")


def is_alive(pid: int) -> bool:
    """Whether this process does something still; a zombie does not."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _runs_on(pid: int, data: Path) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # The folder it works in, because that follows a rename of the project; else the one it was given.
        return process.cwd() == str(data) or str(data) in process.cmdline()
    except psutil.AccessDenied:
        return str(data) in process.cmdline()
    except psutil.Error:
        return False
