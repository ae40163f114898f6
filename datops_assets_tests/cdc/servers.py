"""PostgreSQL servers of a test's own: any version that is here, set as the test wants, restarted, copied, promoted."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from datops_assets.errors import WarehouseError
from datops_assets.resources.embedded.account import Account, choose_account
from datops_assets.resources.embedded.programs import Programs, find_programs
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.scratch import scratch_folder

DEBIAN = Path("/usr/lib/postgresql/15/bin")
_USER = "datops"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "logical",
    "fsync": "off",
    "shared_buffers": "64MB",
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def programs_of(major: int) -> Programs:
    """The programs of a version: the wheel's, or Debian's. Skips where there are none."""
    try:
        return find_programs(DEBIAN if major == 15 else None, major)
    except WarehouseError:
        pytest.skip(f"PostgreSQL {major} is not on this machine")


@dataclass
class OwnServer:
    """One server, in a folder of its own, that lets everybody in from this machine."""

    folder: Path
    programs: Programs
    account: Account
    settings: dict[str, str] = field(default_factory=dict)
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of its programs."""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def warehouse(self) -> Warehouse:
        """The way in, at the database `postgres`."""
        return Warehouse("127.0.0.1", self.port, _USER, "postgres", None)

    def make(self) -> None:
        """Run initdb."""
        self._run("initdb", "-D", self.data, "-U", _USER, "-E", "UTF8", "--no-locale", "--auth=trust", "--no-sync",
                  "--no-instructions")  # fmt: skip

    def start(self, **settings: str) -> None:
        """Start with these settings besides those from before, and wait until it takes connections."""
        self.settings |= settings
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        told = {**_SETTINGS, **self.settings, "port": str(self.port), "unix_socket_directories": ""}
        lines = [f"{name} = '{value}'\n" for name, value in told.items()]
        (self.data / "postgresql.conf").write_text("".join(lines))
        self._run("pg_ctl", "start", "-w", "-t", "120", "-D", self.data, "-l", self.folder / "log")

    def stop(self, mode: str = "fast") -> None:
        """Stop: `smart`, `fast`, or `immediate` as a crash would."""
        self._run("pg_ctl", "stop", "-w", "-t", "120", "-m", mode, "-D", self.data)

    def promote(self) -> None:
        """Make a primary of a standby."""
        self._run("pg_ctl", "promote", "-w", "-D", self.data)

    def follow(self, primary: OwnServer, **settings: str) -> None:
        """Make a standby of a server that was stopped and has nothing that the other lacks; it runs then."""
        (self.data / "standby.signal").touch()
        self.account.take(self.data / "standby.signal")
        self.start(
            primary_conninfo=f"host=127.0.0.1 port={primary.port} user={_USER} dbname=postgres", **settings
        )

    def copy(self, folder: Path, **settings: str) -> OwnServer:
        """A standby of this server that follows it, not started."""
        other = OwnServer(folder, self.programs, self.account, {**self.settings, **settings})
        where = f"host=127.0.0.1 port={self.port} user={_USER} dbname=postgres"
        self._run(
            "pg_basebackup", "-D", other.data, "-d", where, "-R", "-c", "fast", "-X", "stream", "--no-sync"
        )
        return other

    def said(self) -> str:
        """The server's log."""
        return (self.folder / "log").read_text(errors="replace")

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = self.account.run([self.programs.path(program), *map(str, arguments)], **self.environment)
        if done.returncode:
            log = self.folder / "log"
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise AssertionError(f"{program}: {done.stderr}{said}")


@contextmanager
def own_server(major: int = 18, **settings: str) -> Iterator[OwnServer]:
    """A server that runs, with these settings; gone afterwards, its standbys made by `standby_of` too."""
    with _folder() as folder:
        account = choose_account(folder / "data")
        account.take_all(folder)
        server = OwnServer(folder, programs_of(major), account, dict(settings))
        server.make()
        with _running(server):
            yield server


@contextmanager
def standby_of(primary: OwnServer, **settings: str) -> Iterator[OwnServer]:
    """A standby of a server, which runs."""
    with _folder() as folder:
        primary.account.take_all(folder)
        with _running(primary.copy(folder, **settings)) as standby:
            yield standby


@contextmanager
def _folder() -> Iterator[Path]:
    folder = scratch_folder("datops-cdc-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(server: OwnServer) -> Iterator[OwnServer]:
    server.start()
    try:
        yield server
    finally:
        if (server.data / "postmaster.pid").exists():
            server.stop("immediate")


def have_extension(server: Warehouse, name: str) -> bool:
    """Whether a server can make an extension."""
    with server.connect() as conn:
        query = "select 1 from pg_available_extensions where name = %s"
        return conn.execute(query, (name,)).fetchone() is not None
