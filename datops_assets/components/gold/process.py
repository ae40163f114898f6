"""dbt as a process of its own: its command line, its environment, what it prints.

The environment is closed: nothing of ours is inherited, so an inherited PGHOST or
DBT_TARGET_PATH cannot redirect a run, and the password is in no argument.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CANNOT_PARSE = 2  # exit code of prepare.py where the project is at fault, not we
_STOP_TIMEOUT_S = 25.0

# dbt must not go on writing when we were killed: the lock on gold went with us. Our end of its
# standard input closes then, whatever way we died. And it must hear of a cancelled run also where a shell
# started us in the background, which leaves SIGINT ignored.
_DBT = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(3)), daemon=True).start()
from dbt.cli.main import cli
cli()
"""

# Parsing a project fills in its profile but opens no connection.
NOWHERE = {
    "DATOPS_DBT_HOST": "nowhere.invalid",
    "DATOPS_DBT_PORT": "1",
    "DATOPS_DBT_USER": "nobody",
    "DATOPS_DBT_DBNAME": "nowhere",
    "DBT_ENV_SECRET_DATOPS_PASSWORD": "unused",
}
_NAMED_IN_PROFILE = {"host": "HOST", "port": "PORT", "user": "USER", "dbname": "DBNAME"}


def connection_variables(url: str) -> dict[str, str]:
    """Spell a connection URL as the variables that profiles.yml and libpq read."""
    from psycopg.pq import Conninfo

    variables = {"DBT_ENV_SECRET_DATOPS_PASSWORD": ""}
    for option in Conninfo.parse(url.encode()):
        if option.val is None:
            continue
        keyword, value = option.keyword.decode(), option.val.decode()
        if keyword in _NAMED_IN_PROFILE:
            variables[f"DATOPS_DBT_{_NAMED_IN_PROFILE[keyword]}"] = value
        elif keyword == "password":
            variables["DBT_ENV_SECRET_DATOPS_PASSWORD"] = value
        elif option.envvar:
            variables[option.envvar.decode()] = value
    return {"DATOPS_DBT_HOST": "localhost", "DATOPS_DBT_PORT": "5432", **variables}


def dbt_arguments(project: Path, target: Path) -> list[str]:
    """Arguments that every dbt command gets: where to read, where to write, no calls home."""
    return [
        *("--project-dir", str(project), "--profiles-dir", str(project)),
        *("--target-path", str(target), "--log-path", str(target)),
        *("--no-send-anonymous-usage-stats", "--no-version-check", "--no-use-colors"),
    ]


def start_dbt(arguments: Sequence[str], target: Path, connection: dict[str, str]) -> subprocess.Popen[str]:
    """Start dbt; it prints one JSON event a line."""
    return _start(
        ["-c", _DBT, *arguments, "--log-format", "json", "--log-format-file", "text"], target, connection
    )


def start_module(module: str, arguments: Sequence[str], target: Path) -> subprocess.Popen[str]:
    """Start a module of ours that uses dbt without a connection."""
    return _start(["-m", module, *arguments], target, NOWHERE)


def stop(process: subprocess.Popen[str]) -> None:
    """Stop dbt as Ctrl-C does: it cancels its queries first. Then less politely."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _start(arguments: Sequence[str], target: Path, connection: dict[str, str]) -> subprocess.Popen[str]:
    environment = {
        "HOME": str(target),
        "LANG": "C.UTF-8",
        "PGTZ": "UTC",
        "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path),
        "PYTHONUNBUFFERED": "1",
        **connection,
    }
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=target,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
