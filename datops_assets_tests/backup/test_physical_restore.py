"""A copied server comes back in a folder, recovered to where its content is known; damage is never combined."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from datops_assets.backup import physical_restore
from datops_assets.backup.drill import Drilled
from datops_assets.backup.physical import plan_physical
from datops_assets.backup.physical_drill import drill_physical
from datops_assets.backup.physical_restore import (
    check_pages,
    moment_of,
    plan_folder,
    read_chain,
    restore_folder,
)
from datops_assets.backup.recovery import RecoveringServer, Target
from datops_assets.backup.runs import Taken
from datops_assets.backup.server import Server
from datops_assets.errors import BackupDamagedError, BackupRefusedError
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets.resources.embedded.programs import find_programs, wheel_folders
from datops_assets_tests.backup.conftest import datops
from datops_assets_tests.backup.physical_server import CONTENT, Copied


def drilled(copied: Copied, taken: Taken) -> Drilled:
    chain = read_chain(copied.backup.destinations, "whole", taken.manifest.backup_id, copied.backup.keys)
    return drill_physical(chain, copied.backup.keys, copied.backup.staging, now=datetime.now(UTC), rpo_s=1.0)


def restored(copied: Copied, taken: Taken, folder: Path) -> Any:
    chain = read_chain(copied.backup.destinations, "whole", taken.manifest.backup_id, copied.backup.keys)
    target = moment_of(chain)
    plan = plan_folder(chain, folder, target, lost="nothing")
    return restore_folder(chain, copied.backup.keys, folder, target, plan=plan)


def test_a_chain_taken_under_load_is_drilled_and_every_row_is_the_one_of_its_moment(copied: Copied) -> None:
    stop = threading.Event()

    def write() -> None:
        with copied.connect() as conn:
            number = 100_000
            while not stop.is_set():
                conn.execute("insert into orders values (%s, 'new')", (number,))
                conn.execute("update orders set note = note || 'x' where id = %s", (number % 2000,))
                number += 1

    writers = [threading.Thread(target=write)]
    writers[0].start()
    try:
        full = copied.take()
        part = copied.take(parent=full)
    finally:
        stop.set()
        writers[0].join()
    assert part.manifest.facts["tables"]["public.orders"] != full.manifest.facts["tables"]["public.orders"]
    for taken in (full, part):
        done = drilled(copied, taken)
        assert (done.findings, done.passed) == ([], True)
        assert done.rto_s is not None
        assert done.rows > taken.manifest.facts["tables"]["public.orders"][0]
    assert list(copied.backup.staging.iterdir()) == []


@pytest.mark.backup_fault
@pytest.mark.slow
def test_a_drill_sees_content_that_is_not_what_was_backed_up(copied: Copied) -> None:
    """The planted fault: what was noted at the moment says otherwise."""
    taken = copied.take()
    (link,) = read_chain(copied.backup.destinations, "whole", taken.manifest.backup_id, copied.backup.keys)
    tables = link.manifest.facts["tables"] | {"public.orders": [2000, "0"]}
    other = dataclasses.replace(link.manifest, facts=link.manifest.facts | {"tables": tables})
    chain = [dataclasses.replace(link, manifest=other)]
    done = drill_physical(chain, copied.backup.keys, copied.backup.staging, now=datetime.now(UTC), rpo_s=1.0)
    assert done.findings == ["table public.orders has other content than the backup"]


@pytest.mark.slow
@pytest.mark.backup_fault
def test_a_parent_damaged_at_the_destination_is_never_combined(copied: Copied, tmp_path: Path) -> None:
    full = copied.take()
    part = copied.take(parent=full)
    file = copied.artefacts(full)[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BackupDamagedError):
        restored(copied, part, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert not list(tmp_path.glob("back.restoring/**/pg_control"))[1:]
    assert not drilled(copied, part).passed
    following = copied.take()
    assert copied.look(following).passed


@pytest.mark.backup_fault
def test_a_parent_damaged_behind_our_hashes_is_found_by_its_pages(
    copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_combinebackup takes it without a word, the server starts: the check of every page is what sees it."""
    with copied.connect() as conn:
        conn.execute(
            "vacuum (freeze) wide"
        )  # else the next read touches its pages, and they come with the child
    full = copied.take()
    part = copied.take(parent=full)
    with copied.connect() as conn:
        (path,) = conn.execute("select pg_relation_filepath('wide')").fetchone() or ("",)
    really_fetch = physical_restore._fetch_one

    def spoil(link: Any, keys: Any, into: Path) -> None:
        really_fetch(link, keys, into)
        if link.manifest.kind == "full":
            file = into / "data" / path
            data = bytearray(file.read_bytes())
            data[4000] ^= 0xFF
            file.write_bytes(data)

    monkeypatch.setattr(physical_restore, "_fetch_one", spoil)
    done = drilled(copied, part)
    assert not done.passed
    assert any("pages are damaged" in finding or "other content" in finding for finding in done.findings), (
        done.findings
    )


@pytest.mark.backup_fault
@pytest.mark.slow
@pytest.mark.parametrize("what", ["manifest.json", "everything"])
def test_a_parent_that_is_gone_is_named(copied: Copied, what: str) -> None:
    full = copied.take()
    part = copied.take(parent=full)
    folder = copied.folder / full.manifest.folder
    shutil.rmtree(folder) if what == "everything" else (folder / what).unlink()
    with pytest.raises(BackupDamagedError, match=full.manifest.backup_id):
        read_chain(copied.backup.destinations, "whole", part.manifest.backup_id, copied.backup.keys)


@pytest.mark.backup_fault
def test_a_restore_never_writes_into_a_folder_that_holds_something(copied: Copied, tmp_path: Path) -> None:
    taken = copied.take()
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    with pytest.raises(BackupRefusedError, match="is not empty"):
        restored(copied, taken, full)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackupRefusedError, match="is no folder"):
        restored(copied, taken, link)
    with copied.connect() as conn:
        (running,) = conn.execute("show data_directory").fetchone() or ("",)
    with pytest.raises(BackupRefusedError, match="a server runs on"):
        restored(copied, taken, Path(running))
    assert [path.name for path in full.iterdir()] == ["mine"]


@pytest.mark.backup_fault
def test_a_disk_without_room_for_a_server_is_said_before_anything_is_fetched(
    copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = copied.take()
    monkeypatch.setattr(physical_restore, "free_bytes", lambda _: 10)
    with pytest.raises(BackupRefusedError, match="the restore needs"):
        restored(copied, taken, tmp_path / "back")
    assert not (tmp_path / "back.restoring").exists()


@pytest.mark.slow
def test_a_restored_folder_starts_with_its_own_settings_and_has_nothing_of_the_recovery(
    copied: Copied, tmp_path: Path
) -> None:
    taken = copied.take()
    done = restored(copied, taken, tmp_path / "back")
    assert done.findings == []
    assert "datops" in done.databases
    names = {path.name for path in (tmp_path / "back").iterdir()}
    assert not names & {"recovery.signal", "standby.signal", "postmaster.pid"}
    assert not (tmp_path / "back.restoring").exists()
    server = RecoveringServer(tmp_path / "again", taken.manifest.server_version, None)
    shutil.copytree(tmp_path / "back", server.data)
    chain = read_chain(copied.backup.destinations, "whole", taken.manifest.backup_id, copied.backup.keys)
    server.wal.mkdir()
    assert check_pages(server, chain) == []
    answering = server.start(Target(), durable=False, superuser="datops", dbname="datops")
    with answering.connect() as conn:
        assert conn.execute("select count(*) from orders").fetchone() == (2000,)
        assert conn.execute("show listen_addresses").fetchone() == ("",)
        assert conn.execute("select inet_server_addr()").fetchone() == (None,)
    server.stop()


@pytest.mark.backup_fault
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["restore.fetched", "restore.recovering", "restore.recovered"])
def test_a_restore_killed_in_the_middle_leaves_no_folder_and_goes_on(
    server_document: Path, stage: str
) -> None:
    datops("run", "--kind", "full")
    script = (
        "from datops_assets.postgres import failpoints; from datops_assets.cli import _app\n"
        f"failpoints.arm({stage!r})\n"
        "_app()(['backup', 'restore', '--folder', 'back', '--apply', '--config', 'backup.yaml'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = EmbeddedServer(server_document.parent / "back.restoring")
    assert left.status().running == (stage == "restore.recovering")
    back = server_document.parent / "back"
    assert not back.exists()
    assert datops("restore", "--folder", "back", "--apply")["findings"] == []
    assert (back / "PG_VERSION").exists()
    assert not back.with_name("back.restoring").exists()
    assert not left.status().running


@pytest.mark.slow
def test_a_person_plans_a_restore_drills_and_restores_a_server(server_document: Path) -> None:
    assert "no good physical backup" in str(datops("restore", "--folder", "back", expect=1))
    taken = datops("run", "--kind", "full")["backup_id"]
    plan = datops("restore", "--folder", "back")
    assert (plan["backups"], plan["problems"]) == ([taken], [])
    assert not (server_document.parent / "back").exists()
    done = datops("drill")
    assert (done["backup_id"], done["findings"]) == (taken, [])
    assert datops("restore", "--folder", "back", "--apply")["findings"] == []
    assert (server_document.parent / "back" / "PG_VERSION").exists()


@pytest.mark.slow
def test_a_server_of_the_older_major_version_is_copied_and_drilled(copied: Copied, tmp_path: Path) -> None:
    """Without incremental backups, and with programs of its own version for the recovery."""
    older = [programs for folder in wheel_folders() if (programs := find_programs(folder)).major == 16]
    if not older:
        pytest.skip("the wheel has no PostgreSQL 16 here")
    embedded = EmbeddedServer(tmp_path / "older", pg_bin=older[0].bin, durable=False)
    at = embedded.start()
    try:
        about = {
            "host": at.host,
            "port": at.port,
            "user": at.user,
            "password": at.password,
            "dbname": "datops",
        }
        backup = dataclasses.replace(copied.backup, server=Server(about))
        with backup.server.connect() as conn:
            conn.execute(CONTENT)
        assert "PostgreSQL 17 or newer" in plan_physical(backup, "incremental").problems[0]
        taken = copied.take(server=backup.server)
        done = drilled(copied, taken)
        assert (done.findings, taken.manifest.server_version // 10000) == ([], 16)
    finally:
        embedded.stop()


@pytest.mark.backup_fault
def test_a_backup_of_a_version_without_programs_is_a_finding_of_its_drill(copied: Copied) -> None:
    taken = copied.take(content=False)
    (link,) = read_chain(copied.backup.destinations, "whole", taken.manifest.backup_id, copied.backup.keys)
    chain = [dataclasses.replace(link, manifest=dataclasses.replace(link.manifest, server_version=990001))]
    done = drill_physical(chain, copied.backup.keys, copied.backup.staging, now=datetime.now(UTC), rpo_s=1.0)
    assert "no PostgreSQL 99 programs found" in done.findings[0]
