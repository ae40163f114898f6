"""Other tools for physical backups, side by side with ours on the same server and data: Barman and pgBackRest.

Each is fetched for the bench alone, into its folder: Barman from the package index, pgBackRest from Debian. Debian's
pgBackRest knows PostgreSQL up to 15, so both sides copy a server of Debian's PostgreSQL 15. Where one cannot be had,
the reason is printed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Bench
from datops_assets.errors import WarehouseError
from datops_assets.resources.embedded.account import choose_account
from datops_assets.resources.embedded.programs import find_programs
from datops_assets.resources.warehouse import Warehouse

BARMAN = ("barman==3.19.1", "psycopg2-binary")
DEBIAN_BIN = Path("/usr/lib/postgresql/15/bin")
JOBS = 2


class NoPeerError(Exception):
    """It cannot be had here; says why."""


class Barman:
    """Barman with its streaming method: pg_basebackup into its folder, and a receiver of the log beside it."""

    def __init__(self, bench: Bench, source: Warehouse) -> None:
        """Install it, configure it, start its receiver.

        raises    NoPeerError
        """
        self._home = bench.folder / "barman"
        (self._home / "servers").mkdir(parents=True)
        environment = self._home / "environment"
        uv = Path(sys.executable).parent / "uv"
        _fetch([uv, "venv", "--quiet", "--python", sys.executable, environment])
        python = environment / "bin" / "python"
        _fetch([uv, "pip", "install", "--quiet", "--python", python, *BARMAN])
        rsync = _unpacked(bench.folder / "rsync", "rsync", "libpopt0", "libxxhash0")
        self._command = [environment / "bin" / "barman", "-c", self._home / "barman.conf"]
        password = self._home / "pgpass"
        password.write_text(f"*:*:*:*:{source.password}\n")
        password.chmod(0o600)
        libraries = ":".join(str(path) for path in (rsync / "usr/lib").glob("*-linux-gnu*"))
        self._environment = {
            **os.environ, "PGPASSFILE": str(password), "LD_LIBRARY_PATH": libraries,
            "PATH": f"{rsync / 'usr/bin'}:{os.environ['PATH']}",
        }  # fmt: skip
        where = f"host={source.host} port={source.port} user={source.user} dbname={source.dbname}"
        (self._home / "barman.conf").write_text(
            f"[barman]\nbarman_home = {self._home}\nbarman_user = {_account_name()}\nlog_file = {self._home}/log\n"
            f"configuration_files_directory = {self._home}/servers\n"
        )
        (self._home / "servers" / "bench.conf").write_text(
            f"[bench]\ndescription = bench\nconninfo = {where}\nstreaming_conninfo = {where}\n"
            "backup_method = postgres\nstreaming_archiver = on\nslot_name = barman_bench\ncreate_slot = auto\n"
            f"path_prefix = {bench.bin}\nimmediate_checkpoint = true\n"
        )
        self._run("receive-wal", "--create-slot", "bench")
        self._receiver = subprocess.Popen(
            [*self._command, "receive-wal", "bench"], env=self._environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(3)
        self._run("switch-wal", "--force", "bench")

    def backup(self) -> None:
        """Take one; the last one goes first."""
        shutil.rmtree(self._home / "bench" / "base", ignore_errors=True)
        self._run("backup", "bench")

    def restore(self, folder: Path) -> None:
        """Copy the last one into a folder."""
        shutil.rmtree(folder, ignore_errors=True)
        self._run("restore", "bench", "latest", str(folder))

    def stop(self, source: Warehouse) -> None:
        """End the receiver, and drop its slot."""
        os.killpg(self._receiver.pid, signal.SIGTERM)
        self._receiver.wait()
        with source.connect(autocommit=True) as conn:
            for _ in range(50):
                row = conn.execute(
                    "select active from pg_replication_slots where slot_name = 'barman_bench'"
                ).fetchone()
                if row is None or not row[0]:
                    break
                time.sleep(0.1)
            conn.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'barman_bench'"
            )

    def _run(self, *arguments: str) -> None:
        _answered([*self._command, *arguments], self._environment)


class PgBackRest:
    """pgBackRest: zstd level 1, AES-256, as many processes as we have jobs; it reads the server's files itself."""

    def __init__(self, bench: Bench, data: Path, port: int, sockets: Path) -> None:
        """Fetch it and make its repository.

        raises    NoPeerError
        """
        root = _unpacked(bench.folder / "pgbackrest", "pgbackrest")
        home = bench.folder / "pgbackrest"
        self._repository = home / "repository"
        self._environment = {**os.environ, "PGBACKREST_REPO1_CIPHER_PASS": secrets.token_urlsafe(32)}
        self._command = [
            root / "usr/bin/pgbackrest", "--stanza=bench", f"--repo1-path={self._repository}", "--config=/dev/null",
            "--log-level-console=error", "--log-level-file=off", f"--lock-path={home / 'lock'}",
            "--repo1-cipher-type=aes-256-cbc",
        ]  # fmt: skip
        self._server = [
            f"--pg1-path={data}",
            f"--pg1-port={port}",
            f"--pg1-socket-path={sockets}",
            "--pg1-user=datops",
        ]

    def backup(self) -> None:
        """Take one into a new repository."""
        shutil.rmtree(self._repository, ignore_errors=True)
        self._run(*self._server, "stanza-create")
        self._run(
            *self._server, f"--process-max={JOBS}", "--compress-type=zst", "--compress-level=1", "--start-fast",
            "--no-archive-check", "--repo1-retention-full=1", "--type=full", "backup",
        )  # fmt: skip

    def restore(self, folder: Path) -> None:
        """Unpack the last one into a folder, each file held against its checksum."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        self._run(f"--pg1-path={folder}", f"--process-max={JOBS}", "restore")

    @property
    def stored_mb(self) -> float:
        """Of the repository."""
        files = (path for path in self._repository.rglob("*") if path.is_file())
        return round(sum(path.stat().st_size for path in files) / 1e6, 1)

    def _run(self, *arguments: str) -> None:
        _answered([*self._command, *arguments], self._environment)


@contextmanager
def debian_server(bench: Bench) -> Iterator[tuple[Warehouse, Path, Path]]:
    """A fresh server of Debian's PostgreSQL 15, gone afterwards: the way in, its data, its socket's folder.

    raises    NoPeerError: there is none on this machine
    """
    try:
        programs = find_programs(DEBIAN_BIN, 15)
    except WarehouseError:
        raise NoPeerError(f"there is no PostgreSQL 15 at {DEBIAN_BIN}") from None
    folder = bench.folder.parent / "debian"
    folder.mkdir()
    account = choose_account(folder)
    data = folder / "data"

    def run(program: str, *arguments: str) -> None:
        done = account.run([programs.path(program), "-D", str(data), *arguments])
        if done.returncode:
            raise NoPeerError(f"{program} of PostgreSQL 15 does not run: {done.stderr.strip()[-200:]}")

    run("initdb", "-U", "datops", "-E", "UTF8", "--no-locale", "--auth=trust", "--data-checksums")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # pgBackRest wants to be named as the archive; the log that a backup needs is not waited for.
    with (data / "postgresql.conf").open("a") as out:
        out.write(
            f"listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{folder}'\n"
            "wal_level = logical\narchive_mode = on\narchive_command = 'true pgbackrest'\nmax_wal_size = '4GB'\n"
        )
    run("pg_ctl", "start", "-w", "-l", str(folder / "log"))
    try:
        yield Warehouse("127.0.0.1", port, "datops", "postgres", None), data, folder
    finally:
        run("pg_ctl", "stop", "-m", "immediate")


def _unpacked(folder: Path, *packages: str) -> Path:
    """Debian's packages, unpacked and not installed."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NoPeerError(f"{packages[0]} comes from Debian's packages, and there is no apt-get here")
    folder.mkdir(parents=True)
    _fetch(["apt-get", "download", *packages], folder)
    for package in folder.glob("*.deb"):
        _fetch(["dpkg-deb", "-x", package, folder / "root"])
    return folder / "root"


def _fetch(command: list[str | Path], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoPeerError(f"{Path(command[0]).name} cannot fetch it: {done.stderr.strip()[-200:]}")


def _answered(command: list[str | Path], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-300:]
        raise NoPeerError(f"{Path(command[0]).name} does not run here: {said}")


def _account_name() -> str:
    import getpass

    return getpass.getuser()
