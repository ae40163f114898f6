"""Make the data folder of a server, and the databases in it."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from datops_assets.config.settings import forget_libpq_variables
from datops_assets.errors import WarehouseError
from datops_assets.resources.embedded.account import Account
from datops_assets.resources.embedded.programs import Programs

USER = "datops"
DATABASES = ("datops", "dagster")


@dataclass(frozen=True)
class Address:
    """Where a server listens and how to get in."""

    host: str
    port: int
    socket: Path
    user: str
    password: str = field(repr=False)


def create_cluster(base: Path, data: Path, account: Account, programs: Programs, *, durable: bool) -> None:
    """Run initdb for `data`.

    promise  killed in the middle, it leaves nothing that a later start takes for a cluster
    """
    for left in base.glob("cluster-*"):
        shutil.rmtree(left, ignore_errors=True)
    # A name of its own: an initdb whose starter was killed may still be at work in the last one.
    fresh = Path(tempfile.mkdtemp(prefix="cluster-", dir=base))
    account.take(fresh)
    done = account.run(_initdb(programs, fresh, _keep_password(base, account), durable=durable))
    if done.returncode:
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        said = [line for line in done.stderr.splitlines() if "error:" in line or "FATAL" in line]
        raise WarehouseError(f"initdb failed ({'; '.join(said) or done.returncode}); run: datops doctor")
    with (fresh / "postgresql.conf").open("a") as file:
        file.write("include = 'datops.conf'\ninclude_if_exists = '../own.conf'\n")
    fresh.rename(data)


def _initdb(programs: Programs, data: Path, password: Path, *, durable: bool) -> list[str]:
    command = [programs.path("initdb"), "-D", str(data), "-U", USER, f"--pwfile={password}"]
    command += ["-E", "UTF8", "--no-locale", "--auth=scram-sha-256", "--data-checksums", "--no-instructions"]
    if programs.major >= 17:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    # The password is 256 random bits: stretching protects it from nothing and costs each connection time.
    command += ["-c", "scram_iterations=1"]
    return command if durable else [*command, "--no-sync"]


def _keep_password(base: Path, account: Account) -> Path:
    file = base / "password"
    if not file.is_file():
        descriptor = os.open(file.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as new:
            new.write(secrets.token_urlsafe(32))
        file.with_suffix(".new").rename(file)
    account.take(file)
    return file


def create_databases(address: Address) -> None:
    """Create the databases that are not there yet."""
    forget_libpq_variables()
    with psycopg.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        dbname="postgres",
        autocommit=True,
    ) as conn:
        present = {name for (name,) in conn.execute("select datname from pg_database")}
        for name in DATABASES:
            if name not in present:
                conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def swap_in(upgraded: Path, data: Path, kept: Path) -> None:
    """Put the upgraded cluster in the place of `data`, which stays as `kept`."""
    waiting = _waiting(data)
    upgraded.rename(waiting)
    data.rename(kept)
    waiting.rename(data)


def finish_swap(data: Path) -> None:
    """Finish a swap that was killed between its steps; without this a start would make an empty cluster."""
    waiting = _waiting(data)
    if waiting.is_dir() and not data.exists():
        waiting.rename(data)


def _waiting(data: Path) -> Path:
    return data.with_name(data.name + ".upgraded")
