"""Faults while a backup is taken. Of each: is it loud, does nothing half count, and is the next one fine?"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from datops_assets.backup.catalogue import running
from datops_assets.backup.destinations import FolderDestination, Incoming
from datops_assets.backup.packing import Packer
from datops_assets.backup.server import Server, fitting_programs
from datops_assets.backup.verify import list_at
from datops_assets.components.backups import pruning, taking
from datops_assets.components.backups.document import read_backup
from datops_assets.components.catalogue import open_catalogue
from datops_assets.errors import (
    BackupError,
    DatopsError,
    LockTakenError,
    SourceUnreachableError,
    WarehouseUnreachableError,
)
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets.resources.server_errors import server_errors
from datops_assets_tests.backup.conftest import Backed, datops
from datops_assets_tests.backup.wire import Wire, wire_to

pytestmark = pytest.mark.backup_fault

SHARES = [pytest.param(10, marks=pytest.mark.slow), 50, pytest.param(90, marks=pytest.mark.slow)]
"""Of a hundred: of the bytes that pass, or that are stored."""


def nothing_counts(backed: Backed, *, before: int = 0) -> None:
    """No good backup in the catalogue, none at the destination, nothing in the way."""
    entries = backed.entries()
    assert [entry.is_good for entry in entries].count(True) == before
    assert entries[-1].state in ("failed", "died")
    assert len(list_at(backed.backup.destinations[0], "erp")[0]) == before
    assert not list(backed.backup.staging.glob("*")) or entries[-1].state == "died"


def next_is_fine(backed: Backed, **changes: Any) -> None:
    """The next run takes a good one, says why the last came to nothing, and leaves no litter."""
    taken = backed.take(**changes)
    assert backed.look(taken).findings == []
    *others, last = backed.entries()
    assert last.is_good
    assert all(entry.state == "failed" and entry.reason for entry in others if not entry.is_good)
    folders = {path.name for path in (backed.folder / "erp").iterdir()}
    assert folders == {entry.backup_id for entry in backed.entries() if entry.is_good}
    assert list(backed.backup.staging.iterdir()) == []


@pytest.fixture
def wired(backed: Backed) -> Iterator[tuple[Backed, Wire, int]]:
    """A source behind a door, and how many bytes pass it for one backup."""
    server = backed.backup.server
    with wire_to(str(server.parameters["host"]), int(server.parameters["port"])) as wire:
        through = dataclasses.replace(
            server, parameters={**server.parameters, "host": "127.0.0.1", "port": wire.port}
        )
        backed.backup = dataclasses.replace(backed.backup, server=through)
        backed.source.execute(
            "create table filler as select i, repeat(md5(i::text), 20) as v from generate_series(1, 3000) i"
        )
        backed.take()
        whole = wire.down_bytes + wire.up_bytes
        yield backed, wire, whole


def _kill_pg_dump() -> None:
    for child in psutil.Process().children():
        if child.name() == "pg_dump":
            os.killpg(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("share", SHARES)
def test_pg_dump_killed_at(wired: tuple[Backed, Wire, int], share: int) -> None:
    backed, wire, whole = wired
    # Reading the catalogue before and after makes a share of all traffic; what counts is that pg_dump runs then.
    wire.at(whole * share // 100, _kill_when_it_runs)
    with pytest.raises(DatopsError, match=r"the dump of .* failed"):
        backed.take()
    nothing_counts(backed, before=1)
    next_is_fine(backed)


def _kill_when_it_runs() -> None:
    for _ in range(1000):
        if any(child.name() == "pg_dump" for child in psutil.Process().children()):
            return _kill_pg_dump()
        time.sleep(0.01)
    return None


@pytest.mark.parametrize("share", SHARES)
def test_the_network_to_the_source_cut_at(wired: tuple[Backed, Wire, int], share: int) -> None:
    backed, wire, whole = wired
    wire.at(whole * share // 100, wire.cut)
    with pytest.raises(DatopsError):
        backed.take()
    assert wire.acted
    nothing_counts(backed, before=1)
    next_is_fine(backed)


@pytest.mark.parametrize("share", SHARES)
def test_the_servers_sessions_killed_at(wired: tuple[Backed, Wire, int], share: int) -> None:
    backed, wire, whole = wired

    def kill() -> None:
        backed.source.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )

    wire.at(whole * share // 100, kill)
    with pytest.raises(DatopsError):
        backed.take()
    nothing_counts(backed, before=1)
    next_is_fine(backed)


def test_only_the_session_that_hashes_killed(backed: Backed, monkeypatch: pytest.MonkeyPatch) -> None:
    from datops_assets.backup import facts

    really_hash = facts.hash_table

    def killed(conn: psycopg.Connection[Any], table: facts.Table) -> list[Any]:
        backed.source.execute("select pg_terminate_backend(%s, 10000)", (conn.info.backend_pid,))
        return really_hash(conn, table)

    monkeypatch.setattr(facts, "hash_table", killed)
    with pytest.raises(SourceUnreachableError, match="broke off"):
        backed.take()
    monkeypatch.undo()
    nothing_counts(backed)
    next_is_fine(backed)


@pytest.mark.slow
def test_only_the_session_that_holds_the_snapshot_killed(
    backed: Backed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datops_assets.backup import facts

    really_read, calls = facts.read_sequences, iter(range(100))

    def killed(conn: psycopg.Connection[Any]) -> dict[str, list[Any]]:
        if next(calls) == 1:  # after the dump
            backed.source.execute("select pg_terminate_backend(%s, 10000)", (conn.info.backend_pid,))
        return really_read(conn)

    monkeypatch.setattr(facts, "read_sequences", killed)
    with pytest.raises(SourceUnreachableError):
        backed.take()
    monkeypatch.undo()
    nothing_counts(backed)
    next_is_fine(backed)


def test_the_catalogue_lost_in_the_middle(backed: Backed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run cannot say that it failed; the next one says it of it."""
    really_finish = Packer.finish

    def lost(packer: Packer) -> Any:
        pid = backed.warehouse.conn.info.backend_pid
        backed.source.execute("select pg_terminate_backend(%s, 10000)", (pid,))
        return really_finish(packer)

    monkeypatch.setattr(Packer, "finish", lost)
    with pytest.raises(WarehouseUnreachableError), server_errors("the warehouse"):
        backed.take()
    monkeypatch.undo()
    with closing(backed.warehouse.connect()) as again:
        backed.warehouse = dataclasses.replace(backed.warehouse, conn=again)
        nothing_counts(backed)
        assert backed.entries()[-1].state == "died"
        next_is_fine(backed)


def test_a_table_that_somebody_holds_locked(backed: Backed) -> None:
    with closing(psycopg.connect(backed.source.info.dsn, password=backed.source.info.password)) as other:
        other.execute("lock table sales.orders in access exclusive mode")
        with pytest.raises(DatopsError):
            backed.take(lock_timeout_s=1)
        other.rollback()
    nothing_counts(backed)
    next_is_fine(backed)


@contextmanager
def _program(backed: Backed, tmp_path: Path, script: str) -> Iterator[Path]:
    """A folder of programs in which pg_dump is a script; $REAL is the real one."""
    programs = fitting_programs(backed.source.info.server_version, None)
    folder = tmp_path / "bin"
    folder.mkdir()
    for path in programs.bin.iterdir():
        if path.name != "pg_dump":
            (folder / path.name).symlink_to(path)
    fake = folder / "pg_dump"
    fake.write_text(f"#!/bin/sh\nREAL={programs.bin}/pg_dump\n{script}\n")
    fake.chmod(0o755)
    yield folder


OF_THE_FILE = 'for one in "$@"; do case "$one" in --file=*) F="${one#--file=}";; esac; done\n'
PROGRAMS = {
    "leaves out a table's rows": ('exec "$REAL" "$@" --exclude-table-data=sales.orders', "left out the rows"),
    "writes no list of contents": (f'"$REAL" "$@" || exit\n{OF_THE_FILE}rm "$F/toc.dat"', "cannot be listed"),
    "cuts its list of contents": (
        f'"$REAL" "$@" || exit\n{OF_THE_FILE}head -c 100 "$F/toc.dat" > "$F/t"; mv "$F/t" "$F/toc.dat"',
        "cannot be listed",
    ),
    "says that it has no room": (
        "echo 'pg_dump: error: No space left on device' >&2; exit 1",
        "No space left",
    ),
    "ends without a word": ("exit 3", "ended with 3"),
}


@pytest.mark.parametrize(
    "how",
    [name if name.startswith("leaves") else pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS],
)
def test_a_pg_dump_that(backed: Backed, tmp_path: Path, how: str) -> None:
    script, said = PROGRAMS[how]
    version = f'case "$1" in --version) exec "$REAL" --version;; esac\n{script}'
    with _program(backed, tmp_path, version) as folder, pytest.raises(BackupError, match=said):
        backed.take(pg_bin=folder)
    nothing_counts(backed)
    next_is_fine(backed)


def test_a_server_newer_than_the_programs() -> None:
    with pytest.raises(BackupError, match="set DATOPS_PG_BIN to the bin folder of PostgreSQL 99"):
        fitting_programs(990000, None)


def test_no_room_for_the_dump(backed: Backed, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Full)
    with pytest.raises(BackupError, match=r"bytes free, the dump may need \d+"):
        backed.take()
    monkeypatch.undo()
    nothing_counts(backed)
    next_is_fine(backed)


class Failing(FolderDestination):
    """A folder that refuses from a certain byte on."""

    def __init__(self, root: Path, code: int, after: int) -> None:
        super().__init__("failing", root)
        self.code, self.left = code, after

    def create(self, path: str) -> Incoming:
        if self.left <= 0:
            raise OSError(self.code, os.strerror(self.code))
        return _FailingFile(super().create(path), self)


class _FailingFile(Incoming):
    def __init__(self, inner: Incoming, of: Failing) -> None:
        self.inner, self.of = inner, of

    def write(self, data: bytes, /) -> object:
        self.of.left -= len(data)
        if self.of.left <= 0:
            raise OSError(self.of.code, os.strerror(self.of.code))
        return self.inner.write(data)

    def commit(self) -> None:
        self.inner.commit()

    def abandon(self) -> None:
        self.inner.abandon()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(errno.ENOSPC, id="no room"),
        pytest.param(errno.EROFS, id="read only", marks=pytest.mark.slow),
        pytest.param(errno.EIO, id="I/O error", marks=pytest.mark.slow),
    ],
)
def test_a_destination_with(backed: Backed, tmp_path: Path, code: int, share: int) -> None:
    """Alone it fails the run; beside a good one it is left out, and said."""
    stored = backed.take().manifest.stored_bytes
    there = tmp_path / "failing"
    with pytest.raises(BackupError, match=os.strerror(code)):
        backed.take(destinations=[Failing(there, code, stored * share // 100)])
    assert list_at(FolderDestination("failing", there), "erp")[0] == []
    assert not [path for path in there.rglob("*") if path.is_file()]
    taken = backed.take(
        destinations=[*backed.backup.destinations, Failing(there, code, stored * share // 100)]
    )
    assert os.strerror(code) in taken.failed["failing"]
    assert backed.entries()[-1].destinations == ["local"]
    next_is_fine(backed)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs the right to mount")
def test_a_disk_that_is_really_full(backed: Backed, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True
    ).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        with pytest.raises(BackupError, match=r"No space left|bytes free, expected"):
            backed.take(destinations=[FolderDestination("small", small)])
        assert not [path for path in small.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(small)], check=True)
    nothing_counts(backed)
    next_is_fine(backed)


@pytest.mark.slow
def test_a_clock_that_goes_back_an_hour(backed: Backed, document: Path) -> None:
    """What was taken by the wrong clock stays, pushes nothing out, and hides no newer one."""
    document.write_text(document.read_text() + "retention: {last: 1}\n")
    ahead = datops("run")["backup_id"]
    backed.warehouse.conn.execute(
        "update datops.backups set started_at = started_at + interval '1 h',"
        " snapshot_at = snapshot_at + interval '1 h', finished_at = finished_at + interval '1 h' where backup_id = %s",
        (ahead,),
    )
    now = datops("run")["backup_id"]
    rows = {row["backup_id"]: row for row in datops("prune")}
    assert rows[ahead]["reasons"] == ["its time has not come yet"]
    assert not rows[now]["goes"]
    assert datops("prune", "--apply") == []
    assert [row["passed"] for row in datops("verify", "--all")] == [True] * 4
    again = datops("run")["backup_id"]
    assert {row["backup_id"] for row in datops("prune", "--apply")} == {now}
    assert again in {row["backup_id"] for row in datops("list", "--at", "local")}


def _faketime() -> str | None:
    places = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return next((str(one) for one in places), None)


@pytest.mark.slow
@pytest.mark.skipif(_faketime() is None, reason="libfaketime is not on this machine (Debian: faketime)")
def test_our_own_clock_that_goes_back_an_hour(backed: Backed, document: Path) -> None:
    """The process that takes it thinks it is earlier: its id sorts before the others, its times are the server's."""
    document.write_text(document.read_text() + "retention: {last: 1}\n")
    first = datops("run")["backup_id"]
    code = "from datops_assets.cli import _app; _app()(['backup', 'run', '--config', 'backup.yaml'])"
    environment = {**os.environ, "LD_PRELOAD": str(_faketime()), "FAKETIME": "-1h"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = datops("list")
    (second,) = {row["backup_id"] for row in rows} - {first}
    assert second < first
    assert [row["backup_id"] for row in rows] == [first, second]
    assert datops("drill")["backup_id"] == second
    assert {row["backup_id"] for row in datops("prune", "--apply")} == {first}
    assert [row["passed"] for row in datops("verify", "--all")] == [True, True]
    assert datops("run")["destinations"] == ["local", "second"]


def test_retention_during_a_run(document: Path, backed: Backed) -> None:
    datops("run")
    with open_catalogue() as catalogue, backed.warehouse.connect() as other, running(other, "erp"):
        loaded = read_backup(document, document.parent).document
        with pytest.raises(LockTakenError, match="takes or removes backups of erp"):
            pruning.prune(loaded, catalogue)
    assert [row["passed"] for row in datops("verify")] == [True, True]


def test_two_runs_started_at_the_same_moment(document: Path, backed: Backed) -> None:
    """One takes it, the other says so; nothing is doubled."""
    loaded = read_backup(document, document.parent).document
    outcome: list[Any] = []
    begin = threading.Barrier(2)

    def take() -> None:
        with open_catalogue() as catalogue:
            begin.wait()
            try:
                outcome.append(taking.run(loaded, catalogue, "at once").manifest.backup_id)
            except DatopsError as error:
                outcome.append(error)

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = [one for one in outcome if isinstance(one, str)]
    assert good == [row["backup_id"] for row in datops("list") if row["good"]]
    assert all(isinstance(one, str | LockTakenError) for one in outcome), outcome
    assert len(good) >= 1


HOSTILE = [
    'quote " and \' and `', "semi; drop table victim; --", "new\nline", "carriage\rreturn", "back\\slash \\n",
    "per %s cent %(x)s", "ünïcødé 🐘", "a.b", '"quoted.dot"', "../../etc/passwd", "x" * 63, " leading and trailing ",
    "$(touch pwned) `touch pwned`", "select", "UPPER", "{0} {name}", "\tTab", "-rf", "--help",
    "x\npg_dump: finished item 1 TABLE DATA y",
]  # fmt: skip


@pytest.fixture
def hostile(backed: Backed) -> Backed:
    """Schemas, tables and columns by names that break what is careless; two pairs that a dot makes one."""
    from psycopg import sql

    for number, name in enumerate(HOSTILE):
        ident = sql.Identifier(name)
        backed.source.execute(sql.SQL("create table public.{} ({} int, id serial)").format(ident, ident))
        backed.source.execute(
            sql.SQL("insert into public.{} ({}) select {} from generate_series(1, {})").format(
                ident, ident, number, number + 1
            )
        )
        backed.source.execute(sql.SQL("grant select on public.{} to public").format(ident))
    backed.source.execute('create schema "a.b"; create schema a')
    backed.source.execute(
        'create table "a.b".c as select 1 as x; create table a."b.c" as select 1 as x, 2 as y'
    )
    return backed


def test_hostile_names(hostile: Backed, monkeypatch: pytest.MonkeyPatch) -> None:
    from datops_assets.backup import artefacts, facts
    from datops_assets.backup.restore import Wanted, restore_logical

    monkeypatch.setattr(
        artefacts, "BUNDLE_BYTES", 1
    )  # each file is packed as soon as it is said to be finished
    taken = hostile.take()
    held = taken.manifest.facts
    assert len(held["tables"]) == 4 + len(HOSTILE) + 2
    assert set(held["toc"]) == set(held["tables"])
    assert hostile.look(taken).findings == []
    target = hostile.backup.server.at(f"{hostile.backup.server.dbname}_back")
    destination, keys, staging = hostile.backup.destinations[0], hostile.backup.keys, hostile.backup.staging
    try:
        done = restore_logical(taken.manifest, destination, keys, target, staging)
        assert (done.findings, done.tables) == ([], len(held["tables"]))
        for number, name in enumerate(HOSTILE):
            one = hostile.backup.server.at(f"{hostile.backup.server.dbname}_one")
            label = facts.spell("public", name)
            done = restore_logical(
                taken.manifest, destination, keys, one, staging, wanted=Wanted(table=label)
            )
            assert (done.tables, done.rows, done.findings) == (1, number + 1, [])
            with closing(one.connect()) as conn:
                granted = conn.execute(
                    "select has_table_privilege('public', oid, 'select') from pg_class where relname = %s",
                    (name,),
                ).fetchone()
            assert granted == (True,), name
            with closing(one.at("postgres").connect()) as admin:
                admin.execute(f"drop database {one.dbname}")
    finally:
        with closing(target.at("postgres").connect()) as admin:
            admin.execute(f"drop database if exists {target.dbname} with (force)")
            admin.execute(f"drop database if exists {hostile.backup.server.dbname}_one with (force)")
    assert not Path("pwned").exists()


def test_a_file_said_to_be_finished_that_is_not(backed: Backed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table's name may forge the line that says so: the file is looked at again at the end."""
    from datops_assets.backup import artefacts

    monkeypatch.setattr(artefacts, "BUNDLE_BYTES", 1)
    really_finish = Packer.finish

    def late(packer: Packer) -> Any:
        file = next(iter(sorted(packer._folder.glob("dump/*.dat"))))
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        os.utime(file, (1, 1))
        packer._taken.discard(f"dump/{file.name}")
        packer.ready(f"dump/{file.name}")
        for one in packer._running:
            one.result()
        file.write_bytes(content)
        return really_finish(packer)

    monkeypatch.setattr(Packer, "finish", late)
    taken = backed.take()
    assert backed.look(taken).findings == []
    half = [m for a in taken.manifest.artefacts for m in a.members]
    assert all(m.bytes for m in half)
    monkeypatch.undo()
    clean = {m.name: m.sha256 for a in backed.take().manifest.artefacts for m in a.members}
    assert {m.name: m.sha256 for m in half if m.name[5:6].isdigit()}.items() <= clean.items()


@pytest.mark.slow
def test_ten_thousand_tables(backed: Backed, tmp_path: Path) -> None:
    """A server that cannot lock them all says so; one that can is backed up, with few artefacts."""
    _make_tables(backed.source, 10_000)
    with pytest.raises(BackupError, match="raise its max_locks_per_transaction"):
        backed.take()
    nothing_counts(backed)
    server = EmbeddedServer(tmp_path / "roomy", durable=False)
    (tmp_path / "roomy").mkdir()
    (tmp_path / "roomy/own.conf").write_text("max_locks_per_transaction = 400\n")
    address = server.start()
    try:
        parameters = {
            "host": address.host, "port": address.port, "user": address.user, "password": address.password,
            "dbname": "postgres",
        }  # fmt: skip
        with closing(Server(parameters).connect()) as conn:
            _make_tables(conn, 10_000)
        taken = backed.take(server=Server(parameters))
    finally:
        server.stop()
    assert len(taken.manifest.facts["tables"]) == len(taken.manifest.facts["toc"]) == 10_000
    assert len(taken.manifest.artefacts) < 10
    assert backed.look(taken).findings == []


def _make_tables(conn: psycopg.Connection[Any], many: int) -> None:
    for start in range(0, many, 500):
        conn.execute(
            f"do $$ begin for i in {start}..{start + 499} loop"
            " execute format('create table t%s as select %s as a', i, i); end loop; end $$"
        )
