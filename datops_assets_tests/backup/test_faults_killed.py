"""Processes killed with SIGKILL at 10, 50 and 90 % of a run, a restore and a drill: ours, the programs', the server's.

Of each: does nothing half count, is the next one fine, and does it go on with what is there where that is promised?
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from datops_assets.backup.server import Server
from datops_assets.backup.wal_segments import missing_segments, start_of
from datops_assets_tests.backup.conftest import Backed, datops
from datops_assets_tests.backup.physical_server import Copied
from datops_assets_tests.backup.test_wal import drop_slot, files, next_segment, stream, stream_of
from datops_assets_tests.backup.wire import Wire, wire_to
from datops_assets_tests.ingestion.stores.servers import HOST, Sftp, sftp_server

__all__ = ["stream"]
pytestmark = pytest.mark.backup_fault

SHARES = [pytest.param(10, marks=pytest.mark.slow), 50, pytest.param(90, marks=pytest.mark.slow)]
SLOW_SHARES = [pytest.param(share, marks=pytest.mark.slow) for share in (10, 50, 90)]


@dataclass
class Killing:
    """A command in a process of its own, and what passes the wire while it runs."""

    wire: Wire
    process: subprocess.Popen[bytes] | None = None

    def measure(self, *command: str) -> int:
        """Bytes that pass while a command runs to its end."""
        self.wire.at(1 << 60, lambda: None)
        assert self.run(*command) == 0
        return self.wire.down_bytes + self.wire.up_bytes

    def run(self, *command: str) -> int:
        arguments = ["backup", *command, "--config", "backup.yaml"]
        code = f"from datops_assets.cli import _app; _app()({arguments!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return self.process.wait(280)

    def ours(self) -> None:
        assert self.process is not None
        self.process.kill()

    def child(self, name: str) -> Callable[[], None]:
        """Kill the program that it runs."""

        def kill() -> None:
            assert self.process is not None
            for _ in range(1000):
                found = [one for one in psutil.Process(self.process.pid).children(True) if one.name() == name]
                if found:
                    for one in found:
                        with suppress(psutil.NoSuchProcess):
                            one.kill()
                    return
                time.sleep(0.01)

        return kill


def backend_of(server: Server, kind: str) -> Callable[[], None]:
    """Kill a session of the server's as the kernel would: all others end, and it recovers."""

    def kill() -> None:
        with server.connect() as conn:
            for _ in range(1000):
                found = conn.execute(
                    "select pid from pg_stat_activity where backend_type = %s and pid <> pg_backend_pid()",
                    (kind,),
                ).fetchall()
                if found:
                    os.kill(_outside(found[0][0]), signal.SIGKILL)
                    return
                time.sleep(0.01)

    return kill


def _outside(pid: int) -> int:
    assert psutil.Process(pid).name() == "postgres"
    return pid


def wait_for(server: Server) -> None:
    """Until it has recovered."""
    for _ in range(600):
        with suppress(Exception), server.connect() as conn:
            conn.execute("select 1")
            return
        time.sleep(0.1)
    pytest.fail("the server does not come back")


def nothing_half(folder: Path, name: str, good: int) -> None:
    """Good backups are as many as before, in the catalogue and at the destination."""
    rows = datops("list")
    assert [row["good"] for row in rows].count(True) == good
    assert rows[-1]["state"] in ("failed", "died")
    at = datops("list", "--at", "local")
    assert len(at) == good


def next_is_fine(folder: Path, name: str, *options: str) -> None:
    datops("run", *options)
    assert all(row["passed"] for row in datops("verify"))
    good = {row["backup_id"] for row in datops("list") if row["good"]}
    assert {path.name for path in (folder / name).iterdir()} == good
    assert list(Path(".datops/backup").iterdir()) == []


@pytest.fixture
def whole(server_document: Path, copied: Copied) -> Iterator[Killing]:
    """A server that is copied through a wire."""
    about = copied.backup.server.parameters
    with copied.connect() as conn:
        conn.execute("create table filler as select i, md5(i::text) as v from generate_series(1, 20000) i")
    with wire_to(str(about["host"]), int(about["port"])) as wire:
        text = server_document.read_text().replace(f":{about['port']}/", f":{wire.port}/")
        server_document.write_text(text)
        yield Killing(wire)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("who", ["ours", "backend", pytest.param("pg_basebackup", marks=pytest.mark.slow)])
def test_while_a_server_is_copied(
    whole: Killing, server_document: Path, copied: Copied, who: str, share: int
) -> None:
    kill = {
        "ours": whole.ours,
        "pg_basebackup": whole.child("pg_basebackup"),
        "backend": backend_of(copied.backup.server, "walsender"),
    }[who]
    passed = whole.measure("run", "--kind", "full")
    whole.wire.at(passed * share // 100, kill)
    ended = whole.run("run", "--kind", "full")
    assert whole.wire.acted
    if ended == 0:  # what passes last are the hashes of tables: pg_basebackup had done its work
        assert (who, share) == ("pg_basebackup", 90)
        return
    assert ended == (-signal.SIGKILL if who == "ours" else 1)
    wait_for(copied.backup.server)
    kept = server_document.parent / "kept"
    nothing_half(kept, "whole", 1)
    next_is_fine(kept, "whole", "--kind", "full")
    with copied.connect() as conn:  # what held the log for the copy went with it
        assert conn.execute("select count(*) from pg_replication_slots").fetchone() == (0,)


@pytest.fixture
def dumped(document: Path, backed: Backed) -> Iterator[Killing]:
    """A database that is dumped, and restored beside itself, through a wire."""
    about = backed.backup.server.parameters
    with wire_to(str(about["host"]), int(about["port"])) as wire:
        document.write_text(document.read_text().replace(f":{about['port']}/", f":{wire.port}/"))
        yield Killing(wire)


@pytest.mark.parametrize("share", SLOW_SHARES)
def test_our_process_while_a_database_is_dumped(dumped: Killing, document: Path, share: int) -> None:
    passed = dumped.measure("run")
    dumped.wire.at(passed * share // 100, dumped.ours)
    assert dumped.run("run") == -signal.SIGKILL
    kept = document.parent / "kept/one"
    nothing_half(kept, "erp", 1)
    next_is_fine(kept, "erp")


@pytest.mark.parametrize("share", SLOW_SHARES)
@pytest.mark.parametrize("who", ["ours", "pg_restore"])
def test_while_a_database_is_restored(
    dumped: Killing, backed: Backed, target: Server, who: str, share: int
) -> None:
    datops("run")
    command = ("restore", "--database", target.dbname, "--apply")
    passed = dumped.measure(*command)
    with closing(target.at("postgres").connect()) as admin:
        admin.execute(f"drop database {target.dbname}")
        dumped.wire.at(passed * share // 100, dumped.ours if who == "ours" else dumped.child("pg_restore"))
        ended = dumped.run(*command)
        named = admin.execute("select 1 from pg_database where datname = %s", (target.dbname,)).fetchone()
        if ended == 0:  # at that byte pg_restore had done its work
            assert (who, share) == ("pg_restore", 90)
            admin.execute(f"drop database {target.dbname}")
        else:
            assert ended == (-signal.SIGKILL if who == "ours" else 1)
            assert named is None
    assert datops(*command)["findings"] == []
    assert list(Path(".datops/backup").iterdir()) == []


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sftp]:
    pytest.importorskip("paramiko", reason="needs the extra sftp")
    with sftp_server(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.fixture
def distant(sftp: Sftp, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Killing]:
    """A destination behind a wire."""
    monkeypatch.setenv("SFTP_PASSWORD", sftp.password)
    (sftp.folder / tmp_path.name).mkdir()
    with wire_to(HOST, sftp.port) as wire:
        known = sftp.known_hosts.read_text().replace(f":{sftp.port} ", f":{wire.port} ")
        (project / "known_hosts").write_text(known)
        yield Killing(wire)


def move_there(document: Path, distant: Killing, tmp_path: Path) -> None:
    """The only destination is the one behind the wire."""
    url = f"sftp://ada@{HOST}:{distant.wire.port}/files/{tmp_path.name}"
    options = "{known_hosts: known_hosts, look_for_keys: false, allow_agent: false}"
    there = f'  local: {{url: "{url}", options: {options}, options_env: {{password: SFTP_PASSWORD}}}}\n'
    lines = document.read_text().splitlines(keepends=True)
    document.write_text(
        "".join(there if "  local:" in line else line for line in lines if "  second:" not in line)
    )


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("kind", ["logical", pytest.param("full", marks=pytest.mark.slow)])
def test_our_process_while_a_drill_reads(
    distant: Killing, kind: str, share: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """It says nothing of the backup, and the next one clears away what it left."""
    move_there(
        request.getfixturevalue("document" if kind == "logical" else "server_document"), distant, tmp_path
    )
    datops("run", "--kind", kind)
    datops("drill")
    before = datops("list")[0]["drilled_at"]
    passed = datops("list")[0]["stored_bytes"]  # each byte passes once, some twice: they are asked for ahead
    distant.wire.at(passed * share // 100, distant.ours)
    assert distant.run("drill") == -signal.SIGKILL
    assert datops("list")[0]["drilled_at"] == before
    assert datops("drill")["passed"]
    assert datops("list")[0]["drilled_at"] > before
    assert list(Path(".datops/backup").iterdir()) == []


@pytest.mark.parametrize("share", SLOW_SHARES)
def test_our_process_while_a_server_is_fetched(
    distant: Killing, server_document: Path, share: int, tmp_path: Path
) -> None:
    """There is no folder of that name; what was fetched whole is not fetched again."""
    move_there(server_document, distant, tmp_path)
    datops("run", "--kind", "full")
    passed = datops("list")[0]["stored_bytes"]
    distant.wire.at(passed * share // 100, distant.ours)
    assert distant.run("restore", "--folder", "back", "--apply") == -signal.SIGKILL
    assert not Path("back").exists()
    distant.wire.at(1 << 60, lambda: None)
    assert datops("restore", "--folder", "back", "--apply")["findings"] == []
    assert not Path("back.restoring").exists()


@pytest.mark.parametrize("who", ["pg_receivewal", pytest.param("backend", marks=pytest.mark.slow)])
def test_while_the_log_is_received(server_document: Path, copied: Copied, tmp_path: Path, who: str) -> None:
    server_document.write_text(server_document.read_text() + "wal: {every_s: 0.5}\n")
    datops("wal", "--once")
    receiving = subprocess.Popen(
        [
            sys.executable, "-c",
            "from datops_assets.cli import _app; _app()(['backup', 'wal', '--config', 'backup.yaml'])",
        ],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        killing = Killing(Wire(HOST, 1), receiving)
        killing.wire.close()
        (
            killing.child("pg_receivewal")
            if who == "pg_receivewal"
            else backend_of(copied.backup.server, "walsender")
        )()
        said = receiving.communicate(timeout=120)[1].decode()
    finally:
        receiving.kill()
    assert receiving.returncode == 1
    assert "broke" in said
    wait_for(copied.backup.server)
    next_segment(copied)
    next_segment(copied)
    assert datops("wal", "--once")["started_anew"] is None
    names = [one.segment for one in files(stream_of(copied))]
    assert missing_segments(names, 1, start_of(names[0]), start_of(names[-1])) == []
    drop_slot(copied)
