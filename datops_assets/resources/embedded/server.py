"""Start, find and stop our own PostgreSQL server.

Everything it has lies under one folder: `data`, `log`, `password`, `port`, `start.log`.
It belongs to no process of ours: it outlives the one that started it, and the next one
that needs it finds it, or starts it again after a crash.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datops_assets.errors import WarehouseError, WarehouseUnreachableError
from datops_assets.resources.embedded.account import Account, choose_account
from datops_assets.resources.embedded.cluster import (
    USER,
    Address,
    create_cluster,
    create_databases,
    finish_swap,
)
from datops_assets.resources.embedded.failures import folder_errors, last_words, start_failed
from datops_assets.resources.embedded.parameters import measure_machine, render, server_parameters
from datops_assets.resources.embedded.postmaster import (
    Postmaster,
    disown_stale_pid,
    is_alive,
    list_servers,
    read_postmaster,
)
from datops_assets.resources.embedded.programs import Programs, copy_programs, find_programs

_START_TIMEOUT_S = 300  # recovery after a crash replays at most max_wal_size (4 GB)
_STOP_TIMEOUT_S = 60
# mkdtemp makes a private folder in it. Nothing deeper: a socket has 107 bytes of path (103 on macOS).
_SOCKETS = Path("/tmp")  # noqa: S108
_SOCKET_PREFIX = "datops-"
# For root without a user namespace, when the project lies in /root.
_REACHABLE = Path("/var/lib/datops")


@dataclass(frozen=True)
class Status:
    """What can be said about the server without connecting to it."""

    running: bool
    pid: int | None
    port: int | None
    socket: Path | None
    started_at: int | None
    major: int | None
    data: Path
    log: Path


class EmbeddedServer:
    """PostgreSQL under `folder`, started by whoever needs it first.

    pg_bin   programs to use instead of the wheel's
    port     TCP port to insist on; without it a free one is picked and kept
    durable  False for tests: a crash of the machine loses everything
    """

    def __init__(
        self, folder: Path, *, pg_bin: Path | None = None, port: int | None = None, durable: bool = True
    ) -> None:
        self.folder = folder.resolve()
        self.pg_bin = pg_bin
        self._port = port
        self.durable = durable

    @property
    def base(self) -> Path:
        """Where the files are: `folder`, or elsewhere when the server's account cannot reach that."""
        moved = self.folder / "location"
        return Path(moved.read_text().strip()) if moved.is_file() else self.folder

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder."""
        return self.base / "data"

    def address(self) -> Address | None:
        """Where the server listens; None when it does not run or is not ready."""
        running = read_postmaster(self.data)
        return self._address(running) if running and running.ready else None

    def start(self) -> Address:
        """Make sure that the server runs, and say where.

        promise  safe in any number of processes at once: one starts it, the others wait.
                 What a killed server, a killed starter or a reused process id left
                 behind is put right first
        raises   WarehouseError: it cannot run here, with the reason
                 WarehouseUnreachableError: it is still recovering
        """
        return self.address() or self._start_alone()

    def stop(self) -> bool:
        """Stop the server and its sessions; False when it did not run."""
        if not self.folder.is_dir():
            return False
        with self.lock():
            return self.halt()

    def halt(self) -> bool:
        """`stop` for who holds the lock."""
        running = read_postmaster(self.data)
        if running is None:
            return False
        os.kill(running.pid, signal.SIGINT)  # fast: sessions are rolled back
        if not _wait(lambda: read_postmaster(self.data) is None, _STOP_TIMEOUT_S):
            os.kill(running.pid, signal.SIGQUIT)  # at once: the next start recovers from the WAL
            _wait(lambda: read_postmaster(self.data) is None, _STOP_TIMEOUT_S)
        self._remove_socket_folder()
        return True

    def status(self) -> Status:
        """What can be said without connecting."""
        running = read_postmaster(self.data)
        return Status(
            running=running is not None and running.ready,
            pid=running.pid if running else None,
            port=running.port if running else None,
            socket=running.socket if running else None,
            started_at=running.started_at if running else None,
            major=self.data_major(),
            data=self.data,
            log=self.base / "log",
        )

    def data_major(self) -> int | None:
        """The PostgreSQL version that wrote the data folder; None when there is none."""
        version = self.data / "PG_VERSION"
        return int(version.read_text()) if version.is_file() else None

    def programs(self) -> Programs:
        """The programs this server runs on."""
        return find_programs(self.pg_bin)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process from starting, stopping or upgrading this server meanwhile."""
        with folder_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = (self.folder / "lock").open("a")
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def launch(self, account: Account, programs: Programs) -> Postmaster:
        """Start the prepared server and wait until it takes connections. Called under the lock.

        A port that somebody takes in this very moment, and backends that outlive their
        killed postmaster, are worth another try; anything else is an error.
        """
        said = ""
        for attempt in range(6):
            disown_stale_pid(self.data)
            pid = account.start(
                self._command(account, programs, fresh_port=attempt > 0), self.base / "start.log"
            )
            if running := self._await_ready(pid):
                return running
            said = last_words(self.base, pid)
            if "shared memory" in said:
                _end_orphans(self.data)
            elif "TCP/IP socket" not in said or self._port:
                break
        self._remove_socket_folder()
        raise start_failed(self.base, said)

    def _start_alone(self) -> Address:
        with self.lock():
            running = read_postmaster(self.data)
            if running:  # starting, or on its way out
                running = self._await_ready(running.pid)
            if running:
                return self._address(running)
            with folder_errors(self.base):
                account, programs = self._prepare()
                self._require_major(programs)
                address = self._address(self.launch(account, programs))
            create_databases(address)
            return address

    def _prepare(self) -> tuple[Account, Programs]:
        """Choose the account and the programs; create folder, password and cluster where they are missing."""
        finish_swap(self.data)
        account = choose_account(self.data)
        programs = self.settle(account, self.programs())
        if self.data_major() is None:
            create_cluster(self.base, self.data, account, programs, durable=self.durable)
        return account, programs

    def _address(self, running: Postmaster) -> Address:
        with folder_errors(self.base / "password"):
            password = (self.base / "password").read_text()
        return Address("127.0.0.1", running.port, running.socket, USER, password)

    def settle(self, account: Account, programs: Programs) -> Programs:
        """Put the server's folder and the programs where the account reaches them."""
        self.base.mkdir(parents=True, exist_ok=True, mode=0o700)
        account.take_all(self.base)
        if not account.reaches(self.base):
            base = _reachable() / hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
            base.mkdir(exist_ok=True, mode=0o700)
            account.take_all(base)
            (self.folder / "location").write_text(str(base))
        if not account.reaches(programs.bin, programs.bin / "postgres"):
            programs = copy_programs(programs, _reachable())
        return programs

    def _require_major(self, programs: Programs) -> None:
        found = self.data_major()
        if found != programs.major:
            older = (found or 0) < programs.major
            raise WarehouseError(
                f"{self.data} was written by PostgreSQL {found}, the programs are of {programs.major}; "
                + ("run: datops warehouse upgrade" if older else "set DATOPS_PG_BIN to newer programs")
            )

    def write_parameters(self, account: Account, programs: Programs, data: Path) -> None:
        """Write the file of parameters that the cluster's postgresql.conf includes."""
        machine = measure_machine(self.base)
        parameters = server_parameters(major=programs.major, machine=machine, durable=self.durable)
        (data / "datops.conf").write_text(render(parameters))
        account.take(data / "datops.conf")

    def _command(self, account: Account, programs: Programs, *, fresh_port: bool) -> list[str]:
        self.write_parameters(account, programs, self.data)
        log, errors = self.base / "log", self.base / "start.log"
        log.mkdir(exist_ok=True, mode=0o700)
        errors.write_text("")
        account.take(log)
        account.take(errors)
        command = [programs.path("postgres"), "-D", str(self.data), "-c", f"log_directory={log}"]
        command += ["-p", str(self._pick_port(fresh=fresh_port))]
        return [*command, "-k", str(self._fresh_socket_folder(account))]

    def _fresh_socket_folder(self, account: Account) -> Path:
        """A new folder. The one of the last start goes: a killed server leaves its socket behind."""
        self._remove_socket_folder()
        folder = socket_folder(account)
        (self.base / "socket").write_text(str(folder))
        return folder

    def _remove_socket_folder(self) -> None:
        note = self.base / "socket"
        folder = Path(note.read_text().strip()) if note.is_file() else None
        if folder and folder.parent == _SOCKETS and folder.name.startswith(_SOCKET_PREFIX):
            shutil.rmtree(folder, ignore_errors=True)

    def _pick_port(self, *, fresh: bool) -> int:
        if self._port:
            if not _is_free(self._port):
                raise WarehouseError(
                    f"port {self._port} (DATOPS_PG_PORT) is taken; free it, or unset DATOPS_PG_PORT"
                )
            return self._port
        kept = self.base / "port"
        said = kept.read_text() if kept.is_file() and not fresh else ""
        port = int(said) if said.isdigit() else 0
        if not port or not _is_free(port):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            kept.write_text(str(port))
        return port

    def _await_ready(self, pid: int) -> Postmaster | None:
        """The server once it takes connections; None when it ended instead."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            running = read_postmaster(self.data)
            if running and running.ready:
                return running
            if not is_alive(pid):
                return None
            time.sleep(0.02)
        raise WarehouseUnreachableError(
            f"PostgreSQL is still recovering after {_START_TIMEOUT_S} s; try again, "
            f"its log is in {self.base / 'log'}"
        )


def _reachable() -> Path:
    _REACHABLE.mkdir(exist_ok=True)
    _REACHABLE.chmod(0o755)
    return _REACHABLE


def socket_folder(account: Account) -> Path:
    """A new private folder for a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX, dir=_SOCKETS))
    account.take(folder)
    return folder


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _end_orphans(data: Path) -> None:
    """End backends that outlived their postmaster; they end by themselves once they notice."""
    if _wait(lambda: not list_servers(data), 2):
        return
    for pid in list_servers(data):
        os.kill(pid, signal.SIGQUIT)
    _wait(lambda: not list_servers(data), 10)


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
