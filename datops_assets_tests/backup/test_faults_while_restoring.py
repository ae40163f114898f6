"""Faults while a backup is read back. Of each: is it loud, is what was there still there, does the next try work?"""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from datops_assets.backup.artefacts import Artefact, Member
from datops_assets.backup.destinations import FolderDestination
from datops_assets.backup.drill import drill
from datops_assets.backup.encryption import EncryptingWriter, Keys, new_key, parse_key
from datops_assets.backup.logical import LogicalBackup, take_logical
from datops_assets.backup.packing import Packer
from datops_assets.backup.restore import Wanted, _swap, fetch, plan_restore, read_content, restore_logical
from datops_assets.backup.runs import Taken
from datops_assets.backup.server import Server
from datops_assets.errors import (
    BackupDamagedError,
    BackupError,
    BackupRefusedError,
    DatopsError,
    TerminalError,
)
from datops_assets_tests.backup.conftest import Backed, datops
from datops_assets_tests.backup.wire import wire_to
from datops_assets_tests.conftest import TestWarehouse

pytestmark = pytest.mark.backup_fault

SHARES = [pytest.param(10, marks=pytest.mark.slow), 50, pytest.param(90, marks=pytest.mark.slow)]


def restore(backed: Backed, taken: Taken, target: Server, **more: Any) -> Any:
    destination = more.pop("destination", backed.backup.destinations[0])
    keys = more.pop("keys", backed.backup.keys)
    return restore_logical(taken.manifest, destination, keys, target, backed.backup.staging, **more)


def is_there(target: Server) -> bool:
    with closing(target.at("postgres").connect()) as admin:
        found = admin.execute("select from pg_database where datname = %s", (target.dbname,)).fetchone()
    return found is not None


def next_is_fine(backed: Backed, taken: Taken, target: Server) -> None:
    assert not is_there(target)
    assert restore(backed, taken, target).findings == []
    assert read_content(target, 2) == taken.manifest.facts["tables"]
    assert not list(backed.backup.staging.iterdir())


@pytest.mark.parametrize("stage", [pytest.param("restore.fetched", marks=pytest.mark.slow), "restore.loaded"])
def test_a_restore_killed_at(document: Path, backed: Backed, target: Server, stage: str) -> None:
    """It goes on with what was fetched, and the name is given to a whole database only."""
    datops("run")
    command = ["backup", "restore", "--config", "backup.yaml", "--database", target.dbname, "--apply"]
    script = (
        "import sys; from datops_assets.postgres import failpoints; from datops_assets.cli import _app\n"
        f"failpoints.arm({stage!r})\n_app()({command!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not is_there(target)
    # Nothing is fetched again: the copies are gone, the manifests still stand.
    for artefact in (document.parent / "kept").rglob("*.enc"):
        artefact.unlink()
    assert datops("restore", "--database", target.dbname, "--apply")["findings"] == []
    assert not list((document.parent / ".datops/backup").iterdir())


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    "how", ["the network cut", pytest.param("the sessions killed", marks=pytest.mark.slow)]
)
def test_while_the_target_is_filled(backed: Backed, target: Server, how: str, share: int) -> None:
    taken = backed.take()
    with wire_to(str(target.parameters["host"]), int(target.parameters["port"])) as wire:
        through = dataclasses.replace(
            target, parameters={**target.parameters, "host": "127.0.0.1", "port": wire.port}
        )
        whole = through.at(f"{target.dbname}_measured")
        restore(backed, taken, whole)

        def kill() -> None:
            backed.source.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname like %s",
                (f"{target.dbname}%restoring",),
            )

        passed = wire.down_bytes + wire.up_bytes
        wire.at(passed * share // 100, wire.cut if how == "the network cut" else kill)
        if how == "the network cut":
            with pytest.raises((DatopsError, OSError)):
                restore(backed, taken, through)
        else:
            try:
                restore(backed, taken, through)
            except DatopsError:
                pass
            else:  # nobody was there to be killed at that byte
                with closing(target.at("postgres").connect()) as admin:
                    admin.execute(f"drop database {target.dbname} with (force)")
        assert wire.acted
    next_is_fine(backed, taken, target)


def test_damage_at_the_first_destination_is_said_and_the_second_serves(
    document: Path, backed: Backed, target: Server
) -> None:
    taken = datops("run")["backup_id"]
    artefact = document.parent / "kept/one/erp" / taken / "00001.tar.zst.enc"
    artefact.write_bytes(artefact.read_bytes()[:-30])
    said = str(datops("restore", "--database", target.dbname, "--apply", expect=1))
    assert "was changed, cut off" in said or "bytes, expected" in said
    assert not is_there(target)
    assert datops("restore", "--database", target.dbname, "--at", "second", "--apply")["findings"] == []
    # Once a look has found the damage, nobody needs to say where it is not.
    datops("verify", expect=1)
    assert datops("drill")["passed"]


def test_a_lost_key(document: Path, backed: Backed, target: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    datops("run")
    monkeypatch.setenv("BACKUP_KEY", new_key())
    for command in (["drill"], ["verify"], ["restore", "--database", target.dbname, "--apply"]):
        assert "not at hand" in str(datops(*command, expect=1))
    assert not is_there(target)
    (entry,) = datops("list")
    assert (entry["drill_passed"], entry["verified_at"], entry["damaged_at"]) == (None, None, [])
    assert [row["passed"] for row in datops("verify", "--quick")] == [True, True]


def test_a_key_of_the_same_name_and_another_content(backed: Backed, target: Server) -> None:
    taken = backed.take()
    other = Keys.of(parse_key("TEST_KEY", new_key()))
    with pytest.raises(TerminalError, match="not at hand"):
        restore(backed, taken, target, keys=other)
    next_is_fine(backed, taken, target)


def test_a_target_that_is_older_than_the_backup(backed: Backed, target: Server) -> None:
    taken = backed.take()
    newer = dataclasses.replace(taken.manifest, server_version=990001)
    with pytest.raises(BackupRefusedError, match=r"is PostgreSQL \d+, the backup is of 99"):
        restore(backed, dataclasses.replace(taken, manifest=newer), target)
    next_is_fine(backed, taken, target)


def test_the_source_by_another_name_of_its_host(backed: Backed) -> None:
    """A name of a host proves nothing; the server's own identifier does."""
    taken = backed.take()
    alias = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}[str(backed.backup.server.parameters["host"])]
    same = dataclasses.replace(
        backed.backup.server, parameters={**backed.backup.server.parameters, "host": alias}
    )
    with pytest.raises(BackupRefusedError, match="is the source itself"):
        restore(backed, taken, same)
    assert backed.source.execute("select count(*) from sales.orders").fetchone() == (5000,)


def test_a_table_whose_type_the_database_lacks_leaves_nothing(backed: Backed, target: Server) -> None:
    taken = backed.take()
    with closing(target.at("postgres").connect()) as admin:
        admin.execute(f"create database {target.dbname}")
    with closing(target.connect()) as conn:
        conn.execute("create schema sales; create table kept (a int)")
    with pytest.raises(BackupError, match="nothing of it was kept"):
        restore(backed, taken, target, wanted=Wanted(schema="sales"))
    assert set(read_content(target, 1)) == {"public.kept"}


def test_the_database_that_others_are_looked_for_from_is_replaced_too(
    whole_server: Server, warehouse: TestWarehouse, tmp_path: Path
) -> None:
    source = whole_server.at("postgres")
    backup = LogicalBackup(
        "own", source, [FolderDestination("local", tmp_path / "kept")], Keys.of(parse_key("K", new_key())),
        tmp_path / "staging",
    )  # fmt: skip
    with closing(source.connect()) as conn:
        conn.execute("create table of_postgres as select 1 as a")
    taken = take_logical(warehouse.conn, backup, why="test")
    with closing(source.connect()) as conn:
        conn.execute("drop table of_postgres")
    done = restore_logical(
        taken.manifest, backup.destinations[0], backup.keys, source, backup.staging, onto=source.address
    )
    assert done.findings == []
    with closing(source.connect()) as conn:
        assert conn.execute("select a from of_postgres").fetchone() == (1,)
        conn.execute("drop table of_postgres")
        (aside,) = conn.execute(
            "select datname from pg_database where datname like 'postgres\\_\\_before%'"
        ).fetchall()
        conn.execute(f"drop database {aside[0]}")


def test_a_name_is_given_from_one_database_to_the_other_at_once_or_not(
    backed: Backed, target: Server
) -> None:
    """Half of it done would leave nobody a database of that name."""
    filled = f"{target.dbname}_filled"
    with closing(target.at("postgres").connect()) as admin:
        admin.execute(f"create database {target.dbname}")
        admin.execute(f"create database {filled}")
        with closing(target.at(filled).connect()), pytest.raises(BackupRefusedError, match="sessions use"):
            _swap(admin, filled, target.dbname)
    assert is_there(target)


@pytest.mark.slow
def test_sessions_that_use_the_database_to_be_replaced(backed: Backed, target: Server) -> None:
    taken = backed.take()
    restore(backed, taken, target)
    with closing(target.connect()) as busy:
        busy.execute("create table written_later (a int)")
        with pytest.raises(BackupRefusedError, match="sessions use the database"):
            restore(backed, taken, target, onto=target.address)
        assert busy.execute("select count(*) from written_later").fetchone() == (0,)
    assert restore(backed, taken, target, onto=target.address).findings == []


def _link(tar: tarfile.TarFile) -> None:
    about = tarfile.TarInfo("dump/toc.dat")
    about.type, about.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar.addfile(about)


def _hard_link(tar: tarfile.TarFile) -> None:
    about = tarfile.TarInfo("dump/toc.dat")
    about.type, about.linkname = tarfile.LNKTYPE, "/etc/passwd"
    tar.addfile(about)


def _outside(tar: tarfile.TarFile) -> None:
    about = tarfile.TarInfo("../../outside")
    about.size = 3
    tar.addfile(about, io.BytesIO(b"out"))


def _absolute(tar: tarfile.TarFile) -> None:
    about = tarfile.TarInfo("/tmp/outside")
    about.size = 3
    tar.addfile(about, io.BytesIO(b"out"))


def _device(tar: tarfile.TarFile) -> None:
    about = tarfile.TarInfo("dump/toc.dat")
    about.type, about.devmajor, about.devminor = tarfile.CHRTYPE, 1, 3
    tar.addfile(about)


def _twice(tar: tarfile.TarFile) -> None:
    for content in (b"abc", b"xyz"):
        about = tarfile.TarInfo("dump/toc.dat")
        about.size = 3
        tar.addfile(about, io.BytesIO(content))


def _longer(tar: tarfile.TarFile) -> None:
    about = tarfile.TarInfo("dump/toc.dat")
    about.size = 1 << 20
    tar.addfile(about, io.BytesIO(b"a" * (1 << 20)))


@pytest.mark.parametrize("evil", [_link, _hard_link, _outside, _absolute, _device, _twice, _longer])
def test_an_archive_that_holds_what_it_should_not(
    tmp_path: Path, evil: Callable[[tarfile.TarFile], None]
) -> None:
    """By somebody who has the key: still nothing is written outside, and no link is followed."""
    import hashlib

    import pyarrow as pa

    from datops_assets.backup.artefacts import unpack

    keys = Keys.of(parse_key("K", new_key()))
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        evil(tar)
    stored = io.BytesIO()
    assert keys.current is not None
    encrypting = EncryptingWriter(stored, keys.current, "erp/X/00001")
    encrypting.write(pa.Codec("zstd").compress(plain.getvalue(), asbytes=True))
    encrypting.close()
    (tmp_path / "kept/erp/X").mkdir(parents=True)
    (tmp_path / "kept/erp/X/00001").write_bytes(stored.getvalue())
    artefact = Artefact(
        "00001", hashlib.sha256(stored.getvalue()).hexdigest(), len(stored.getvalue()),
        (Member("dump/toc.dat", hashlib.sha256(b"abc").hexdigest(), 3),),
    )  # fmt: skip
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BackupDamagedError):
        unpack(
            FolderDestination("local", tmp_path / "kept"),
            "erp/X/00001",
            artefact,
            keys,
            encrypted=True,
            into=into,
        )
    assert not (tmp_path / "outside").exists()
    assert not [
        path for path in into.rglob("*") if path.is_symlink() or (path.is_file() and path.stat().st_size > 3)
    ]


@pytest.mark.slow
def test_rows_lost_between_the_dump_and_its_packing_fail_the_drill(
    backed: Backed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every hash of the artefacts is right, for the file was wrong before it was hashed: rows and content tell."""
    really_finish = Packer.finish

    def spoil(packer: Packer) -> Any:
        file = max(packer._folder.glob("dump/*.dat"), key=lambda path: path.stat().st_size)
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines[1:]))
        return really_finish(packer)

    monkeypatch.setattr(Packer, "finish", spoil)
    taken = backed.take()
    assert backed.look(taken).passed
    done = _drilled(backed, taken)
    assert not done.passed
    assert any("rows, the backup had" in finding for finding in done.findings)


def test_a_byte_changed_before_it_was_packed_fails_the_drill(
    backed: Backed, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_finish = Packer.finish

    def spoil(packer: Packer) -> Any:
        for file in packer._folder.glob("dump/*.dat"):
            file.write_bytes(file.read_bytes().replace(b"name 250\t", b"name 25O\t"))
        return really_finish(packer)

    monkeypatch.setattr(Packer, "finish", spoil)
    taken = backed.take()
    assert backed.look(taken).passed
    assert _drilled(backed, taken).findings == ["table sales.customers has other content than the backup"]


def _drilled(backed: Backed, taken: Taken) -> Any:
    return drill(
        taken.manifest, backed.backup.destinations[0], backed.backup.keys, backed.backup.staging,
        now=taken.manifest.finished_at, next_finished_at=None,
    )  # fmt: skip


def test_a_drill_without_room_blames_no_backup(
    document: Path, backed: Backed, monkeypatch: pytest.MonkeyPatch
) -> None:
    datops("run")

    class Full:
        free = 1 << 20

    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: Full)
        assert "a drill of" in str(datops("drill", expect=1))
    assert datops("list")[0]["drill_passed"] is None


@pytest.mark.slow
def test_a_drill_asks_the_source_for_nothing(
    document: Path, backed: Backed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is gone, and so is its password: the drill's server cannot be the source."""
    datops("run")
    monkeypatch.setenv("ERP_PASSWORD", "lost")
    text = document.read_text()
    port = str(backed.backup.server.parameters["port"])
    document.write_text(text.replace(f":{port}/", ":1/"))
    assert datops("drill")["passed"]


@contextmanager
def _small(folder: Path, size: str) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs the right to mount")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_while_it_is_fetched(backed: Backed, target: Server, tmp_path: Path) -> None:
    taken = backed.take()
    with _small(tmp_path / "small", "256k") as small:
        plan = plan_restore(taken.manifest, backed.backup.destinations[0], target, small, Wanted(), None)
        assert "bytes free, unpacking needs" in plan.problems[0]
        with pytest.raises(OSError, match="No space left"):
            fetch(taken.manifest, backed.backup.destinations[0], backed.backup.keys, small / "x", Wanted())
        # What is there under its own name is right; the rest has none.
        known = {member.name: member.bytes for one in taken.manifest.artefacts for member in one.members}
        for path in (small / "x").rglob("*"):
            if path.is_file() and path.suffix != ".part":
                assert path.stat().st_size == known[path.relative_to(small / "x").as_posix()]
    next_is_fine(backed, taken, target)


class Vanishing(FolderDestination):
    """A folder in which a file goes while it is read."""

    def open(self, path: str) -> IO[bytes]:
        file = super().open(path)
        if path.endswith(".enc"):
            (self.root / path).unlink()
        return file


def test_a_destination_that_loses_files_while_it_is_read(
    backed: Backed, target: Server, tmp_path: Path
) -> None:
    """Whoever has a file open reads it to its end; the next look misses it."""
    taken = backed.take()
    vanishing = Vanishing("local", backed.folder)
    assert restore(backed, taken, target, destination=vanishing).findings == []
    assert not backed.look(taken).passed
    with closing(target.at("postgres").connect()) as admin:
        admin.execute(f"drop database {target.dbname}")
    with pytest.raises(BackupDamagedError, match="is missing"):
        restore(backed, taken, target)
    assert not is_there(target)
