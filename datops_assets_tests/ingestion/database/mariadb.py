"""A MariaDB of our own for tests: the packages of Debian, unpacked into a cache, never installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from datops_assets_tests.scratch import scratch_folder

PACKAGES = ("mariadb-server-core", "mariadb-common", "libaio1", "liburing2")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "datops-tests" / "mariadb"
PASSWORD = "datops-test"
_LONGEST_START_S = 60


class NoMariaDbError(Exception):
    """This machine has none and cannot get one; says why."""


def programs() -> Path:
    """The folder with mariadbd below it, fetched by apt on first use.

    raises    NoMariaDbError
    """
    root = CACHE / "root"
    if (root / "usr/sbin/mariadbd").exists():
        return root
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NoMariaDbError("MariaDB comes from Debian's packages, and there is no apt-get here")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        fetched = subprocess.run(
            ["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, timeout=120
        )
        if fetched.returncode:
            raise NoMariaDbError("apt-get cannot download mariadb-server-core here")
        unpacked = Path(folder) / "root"
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True, timeout=60)
        root.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(root, ignore_errors=True)
        unpacked.rename(root)
    return root


@dataclass
class MariaDb:
    """A running server."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int

    @property
    def url(self) -> str:
        """URL of its database, with the password."""
        return f"mysql+pymysql://datops:{PASSWORD}@127.0.0.1:{self.port}/shop"

    def stop(self) -> None:
        """End it and take its folder away."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)


def start() -> MariaDb:
    """Start a fresh server on a free port, in a folder of its own.

    raises    NoMariaDbError
    """
    root = programs()
    folder = scratch_folder("datops-mariadb-")
    libraries = ":".join(str(path) for path in (root / "usr/lib").glob("*-linux-gnu*"))
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    share = root / "usr/share/mysql"
    options = [
        str(root / "usr/sbin/mariadbd"), "--no-defaults", f"--datadir={folder}/data",
        f"--lc-messages-dir={share}", f"--character-sets-dir={share}/charsets", "--log-warnings=0",
        *(["--user=root"] if os.geteuid() == 0 else []),
    ]  # fmt: skip
    (folder / "data").mkdir()
    tables = ("mysql_system_tables", "mysql_performance_tables", "mysql_system_tables_data")
    script = "\n".join(
        [
            "create database if not exists mysql;",
            "use mysql;",
            *((share / f"{name}.sql").read_text() for name in tables),
            "flush privileges;",
            "create database shop character set utf8mb4;",
            f"create user datops@'127.0.0.1' identified by '{PASSWORD}';",
            "grant all on *.* to datops@'127.0.0.1' with grant option;",
            "",
        ]
    )
    try:
        subprocess.run(
            [*options, "--bootstrap", "--skip-networking"],
            input=script.encode(), env=environment, check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise NoMariaDbError(f"MariaDB does not start here ({type(error).__name__})") from error
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [
            *options, "--bind-address=127.0.0.1", f"--port={port}", f"--socket={folder}/s", "--skip-name-resolve",
            "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=off",
        ],
        env=environment, stdout=log, stderr=log,
    )  # fmt: skip
    log.close()
    server = MariaDb(process, folder, port)
    until = time.monotonic() + _LONGEST_START_S
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.1)
    server.stop()
    raise NoMariaDbError("MariaDB does not answer here")
