"""`datops up`: warehouse, web UI and daemon, until Ctrl-C."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from datops_assets.errors import DeclarationError, TerminalError

# Dagster's notes to its own developers about parts that are in preview, in beta or superseded. By
# how they begin: a class can't be named here, because Python reads this before it finds packages.
_QUIET = ",".join(f"ignore:{kind} `" for kind in ("Class", "Function", "Method", "Parameter", "Property"))

# Run status sensors (of a team's own) take five runs a tick otherwise, and fall behind in a bad night.
RUNS_A_TICK = {
    "DAGSTER_RUN_STATUS_SENSOR_PROCESS_LIMIT": "100",
    "DAGSTER_RUN_STATUS_SENSOR_FETCH_LIMIT": "100",
}

# The UI has no login of its own, so it listens on loopback only.
_DEV = ("-w", "workspace.yaml", "-h", "127.0.0.1", "-p")


def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the web UI on 127.0.0.1.")] = 3000,
) -> None:
    """Start the warehouse, the web UI and the daemon; the sensors that documents switch on run."""
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.config.settings import child_environment, read_settings

    settings = read_settings()
    root = settings.project_root
    if not (root / "workspace.yaml").is_file():
        raise TerminalError(f"{root} has no workspace.yaml; run this inside a datops project")
    _claim_project(settings.home / "up.lock", port)
    _require_free(port)
    _require_valid_documents(root)
    with open_catalogue():
        pass
    typer.echo(
        f"web UI: http://127.0.0.1:{port} (Ctrl-C ends it; the warehouse stays: datops warehouse stop)"
    )
    sys.stdout.flush()  # exec forgets what is buffered
    os.chdir(root)
    # A shell starts background commands with these ignored, and Dagster would inherit that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.execve(
        sys.executable,
        [sys.executable, "-m", "datops_assets.components.dagster_dev", *_DEV, str(port)],
        child_environment(PYTHONWARNINGS=_QUIET, **RUNS_A_TICK),
    )


def _claim_project(file: Path, port: int) -> None:
    """Hold the project's lock until the process ends, whatever it becomes by exec.

    raises    TerminalError: another `datops up` holds it
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, _, other = os.read(descriptor, 100).decode().partition(" ")
        raise TerminalError(
            f"datops up already runs here (pid {pid}, port {other}): http://127.0.0.1:{other}"
        ) from None
    os.set_inheritable(descriptor, True)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()} {port}".encode())


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                reason = os.strerror(error.errno or 0)
                raise TerminalError(f"port {port}: {reason}; datops up --port 3000") from None
            other = port + 1 if port < 65535 else 3000
            raise TerminalError(
                f"port {port} is taken (another `datops up`?); datops up --port {other}"
            ) from None


def _require_valid_documents(root: Path) -> None:
    from datops_assets.components.declarations import read_declared

    problems = read_declared(root).problems
    if problems:
        raise DeclarationError(problems)
