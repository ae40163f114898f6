"""`datops doctor`: what this machine lacks, and the next step for each."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import typer

from datops_assets.cli.output import Json, say_json
from datops_assets.config.settings import (
    SETTINGS,
    Settings,
    inherited_variables,
    read_settings,
    unknown_variables,
)
from datops_assets.errors import DatopsError

_GIB = 1024**3
_WEB_PORT = 3000
State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. `message` ends with the next step where there is one."""

    check: str
    state: State
    message: str


def doctor(as_json: Json = False) -> None:
    """Look at everything datops needs and say what to do about what is missing. Exit code 1 on a failure."""
    findings = examine(read_settings())
    if as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{finding.state:5} {finding.check:12} {finding.message}")
    raise typer.Exit(1 if any(finding.state == "fail" for finding in findings) else 0)


def examine(settings: Settings) -> list[Finding]:
    """Run all checks; one that fails does not keep the others from being made."""
    return [_guarded(check, settings) for check in _CHECKS]


def _guarded(check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except DatopsError as error:
        return Finding(check.__name__.removeprefix("_check_"), "fail", str(error))


def _check_python(settings: Settings) -> Finding:
    state: State = "ok" if (3, 11) <= sys.version_info[:2] <= (3, 13) else "fail"
    advice = "" if state == "ok" else "; datops runs on 3.11 to 3.13: make dev PYTHON=python3.12"
    return Finding("python", state, f"{platform.python_version()} on {platform.platform(terse=True)}{advice}")


def _check_packages(settings: Settings) -> Finding:
    found, missing = [], []
    for name in ("dagster", "dagster-dbt", "dbt-core", "dbt-postgres", "psycopg", "pyarrow"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("packages", "fail", f"{', '.join(missing)} missing; run: make dev")
    return Finding("packages", "ok", ", ".join(found))


def _check_project(settings: Settings) -> Finding:
    if (settings.project_root / "workspace.yaml").is_file():
        return Finding("project", "ok", str(settings.project_root))
    return Finding(
        "project", "warn", f"no workspace.yaml in or above {settings.project_root}; cd into the project"
    )


def _check_write(settings: Settings) -> Finding:
    folder = settings.home
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        return Finding("write", "fail", f"{folder}: {reason}; set DATOPS_HOME to a folder of yours")
    return Finding("write", "ok", str(folder))


def _check_disk(settings: Settings) -> Finding:
    folder = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < _GIB:
        return Finding(
            "disk", "fail", f"{free / _GIB:.1f} GB free; free some, or set DATOPS_HOME to another disk"
        )
    if free < 5 * _GIB:
        return Finding("disk", "warn", f"{free / _GIB:.1f} GB free; our server alone may take 4 GB of WAL")
    return Finding("disk", "ok", f"{free / _GIB:.0f} GB free")


def _check_memory(settings: Settings) -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GB available"
    if memory.available < 1.5 * _GIB:
        return Finding("memory", "warn", f"{text}; `datops up` takes about 1 GB: close something")
    return Finding("memory", "ok", text)


def _check_documents(settings: Settings) -> Finding:
    from datops_assets.components.declarations import read_declared

    declared = read_declared(settings.project_root)
    if declared.problems:
        more = f" (1 of {len(declared.problems)}: datops validate)" if len(declared.problems) > 1 else ""
        return Finding("documents", "fail", declared.problems[0] + more)
    return Finding("documents", "ok", f"{len(declared.documents)} pipeline(s), valid")


def _check_variables(settings: Settings) -> Finding:
    unknown = unknown_variables(settings.project_root)
    if unknown:
        said = "; ".join(_unknown(name) for name in unknown)
        return Finding("variables", "warn", said)
    names = inherited_variables()
    text = (
        f"{', '.join(names)} ignored; name them in a document or in DATOPS_… variables"
        if names
        else "none in the way"
    )
    return Finding("variables", "ok", text)


def _unknown(name: str) -> str:
    near = get_close_matches(name, SETTINGS, n=1)
    return f"{name} is no setting of datops" + (f"; did you mean {near[0]}?" if near else "")


def _check_programs(settings: Settings) -> Finding:
    from datops_assets.resources.embedded.programs import find_programs

    try:
        programs = find_programs(settings.pg_bin)
    except DatopsError as error:  # without our own server, psql alone is missed
        return Finding("programs", "warn" if settings.warehouse_url else "fail", str(error))
    return Finding("programs", "ok", f"PostgreSQL {programs.version} in {programs.bin}")


def _check_warehouse(settings: Settings) -> Finding:
    from datops_assets.resources.warehouse import open_warehouse

    found = open_warehouse(settings)
    major, minor = divmod(found.server_version, 10000)
    whose = "our own server" if found.embedded else "DATOPS_WAREHOUSE_URL"
    return Finding("warehouse", "ok", f"PostgreSQL {major}.{minor} at {found.address} ({whose})")


def _check_catalogue(settings: Settings) -> Finding:
    from datops_assets.postgres.migrations import pending, read_migrations
    from datops_assets.resources.warehouse import open_warehouse

    with open_warehouse(settings).connect() as conn:
        missing = pending(conn)
    if missing:
        return Finding("catalogue", "warn", f"{len(missing)} migrations to apply; run: datops db upgrade")
    return Finding("catalogue", "ok", f"up to date ({read_migrations()[-1].name})")


def _check_history(settings: Settings) -> Finding:
    from datops_assets.resources.warehouse import open_dagster_database

    database = open_dagster_database(settings)
    database.connect().close()
    return Finding("history", "ok", f"Dagster's history is kept at {database.address}")


def _check_web_port(settings: Settings) -> Finding:
    with socket.socket() as probe:
        probe.settimeout(1)
        taken = probe.connect_ex(("127.0.0.1", _WEB_PORT)) == 0
    if taken:
        return Finding("web port", "warn", f"port {_WEB_PORT} is taken; run: datops up --port 3001")
    return Finding("web port", "ok", f"{_WEB_PORT} is free")


_CHECKS = (
    _check_python,
    _check_packages,
    _check_project,
    _check_write,
    _check_disk,
    _check_memory,
    _check_documents,
    _check_variables,
    _check_programs,
    _check_warehouse,
    _check_catalogue,
    _check_history,
    _check_web_port,
)
