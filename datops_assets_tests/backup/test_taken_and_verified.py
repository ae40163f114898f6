"""A backup is taken, listed and held against what was written; damage of any kind is found."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from datops_assets.backup.catalogue import read_lock, running
from datops_assets.backup.destinations import FolderDestination, StoreDestination
from datops_assets.backup.encryption import Keys, new_key, parse_key
from datops_assets.backup.manifest import read_manifest
from datops_assets.errors import BackupError, LockTakenError, SourceRefusedError, TerminalError
from datops_assets_tests.backup.conftest import Backed, datops

STAGES = ["backup.entered", "backup.dumped", "backup.artefact", "backup.packed", "backup.published"]


def test_a_backup_knows_rows_and_content_of_its_own_snapshot(backed: Backed) -> None:
    taken = backed.take()
    tables = taken.manifest.facts["tables"]
    assert {label: held[0] for label, held in tables.items()} == {
        "sales.customers": 500, "sales.orders": 5000, 'public."odd name, with "" and %"': 5, "public.parts_1": 100,
    }  # fmt: skip
    assert set(taken.manifest.facts["toc"]) == set(tables)
    assert backed.look(taken).findings == []
    (entry,) = backed.entries()
    assert (entry.state, entry.destinations, entry.is_good) == ("complete", ["local"], True)
    assert list(backed.backup.staging.iterdir()) == []


def test_rows_written_while_it_runs_are_in_neither_dump_nor_hash(backed: Backed) -> None:
    before = backed.take().manifest.facts["tables"]
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            backed.source.execute(
                "insert into sales.customers select max(id) + 1, 'new' from sales.customers"
            )

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.1)
    taken = backed.take()
    stop.set()
    writer.join()
    rows, content = taken.manifest.facts["tables"]["sales.customers"]
    assert rows > before["sales.customers"][0]
    dumped = backed.backup.staging / "dumped"
    from datops_assets.backup.artefacts import unpack

    member = taken.manifest.facts["toc"]["sales.customers"]
    for artefact in taken.manifest.artefacts:
        place = taken.manifest.place(artefact)
        unpack(
            backed.backup.destinations[0], place, artefact, backed.backup.keys, encrypted=True, into=dumped
        )
    lines = (dumped / member).read_bytes().splitlines()
    assert len([line for line in lines if line and not line.startswith(b"\\.")]) == rows
    assert content != before["sales.customers"][1]


def test_the_order_of_rows_does_not_change_the_content_hash_and_a_value_does(backed: Backed) -> None:
    first = backed.take().manifest.facts["tables"]["sales.orders"]
    backed.source.execute("create table t as select * from sales.orders order by id desc")
    backed.source.execute("truncate sales.orders; insert into sales.orders select * from t; drop table t")
    assert backed.take().manifest.facts["tables"]["sales.orders"] == first
    backed.source.execute("update sales.orders set total = total + 0.01 where id = 17")
    assert backed.take().manifest.facts["tables"]["sales.orders"] != first


def _flip(files: list[Path]) -> None:
    data = bytearray(files[0].read_bytes())
    data[len(data) // 2] ^= 1
    files[0].write_bytes(data)


def _cut(files: list[Path]) -> None:
    files[0].write_bytes(files[0].read_bytes()[:-20])


def _swap(files: list[Path]) -> None:
    other = files[0].with_name("other")
    files[0].rename(other)
    files[1].rename(files[0])
    other.rename(files[1])


def _touch_manifest(files: list[Path]) -> None:
    manifest = files[0].with_name("manifest.json")
    manifest.write_text(manifest.read_text().replace("5000", "5001", 1))


DAMAGE = {
    "a flipped bit": _flip,
    "a cut artefact": _cut,
    "an empty artefact": lambda files: files[0].write_bytes(b""),
    "a missing artefact": lambda files: files[0].unlink(),
    "two swapped artefacts": _swap,
    "an extra file": lambda files: files[0].with_name("extra").write_bytes(b"x"),
    "a changed manifest": _touch_manifest,
    "a cut manifest": lambda files: files[0].with_name("manifest.json").write_text("{"),
    "a missing manifest": lambda files: files[0].with_name("manifest.json").unlink(),
}


@pytest.mark.backup_fault
@pytest.mark.parametrize("quick", [False, True], ids=["whole", "quick"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(backed: Backed, damage: str, quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datops_assets.backup.artefacts.BUNDLE_BYTES", 1 << 17)  # several artefacts
    taken = backed.take()
    assert len(backed.artefacts(taken)) > 1
    assert backed.look(taken, quick=quick).passed
    DAMAGE[damage](backed.artefacts(taken))
    assert not backed.look(taken, quick=quick).passed
    assert backed.look(backed.take(), quick=quick).passed  # the next one is fine


@pytest.mark.backup_fault
def test_a_manifest_forged_without_the_key_is_found(backed: Backed) -> None:
    """Its hash fits, its signature cannot."""
    import hashlib

    from datops_assets.backup.manifest import _canonical

    taken = backed.take()
    file = backed.folder / taken.manifest.folder / "manifest.json"
    values = json.loads(file.read_text())
    signature = values.pop("signature")
    values.pop("whole")
    values["facts"]["tables"]["sales.orders"][0] = 1
    values["whole"] = hashlib.sha256(_canonical(values)).hexdigest()
    file.write_bytes(_canonical(values | {"signature": signature}))
    assert "without the key" in backed.look(taken).findings[0]
    assert "is not the catalogue's" in backed.look(taken, quick=True).findings[0]


@pytest.mark.backup_fault
def test_a_lost_key_is_named_and_a_rotated_one_still_opens(backed: Backed) -> None:
    taken = backed.take()
    with pytest.raises(TerminalError, match=r"TEST_KEY.*not at hand"):
        backed.look(taken, keys=Keys.of(parse_key("NEW", new_key())))
    rotated = Keys.of(parse_key("NEW", new_key()), backed.backup.keys.current)
    assert backed.look(taken, keys=rotated).passed
    assert backed.look(backed.take(keys=rotated), keys=rotated).passed


@pytest.mark.backup_fault
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_at_any_stage_leaves_nothing_that_counts(backed: Backed, stage: str) -> None:
    script = (
        "import json, sys, psycopg\nfrom pathlib import Path\n"
        "from datops_assets.postgres import failpoints\nfrom datops_assets.backup.logical import *\n"
        "from datops_assets.backup.encryption import Keys, parse_key\n"
        "from datops_assets.backup.destinations import FolderDestination\n"
        "from datops_assets.backup.server import Server\n"
        "say = json.load(sys.stdin)\nfailpoints.arm(say['stage'])\n"
        "backup = LogicalBackup('erp', Server(say['server']), [FolderDestination('local', Path(say['folder']))],"
        " Keys.of(parse_key('TEST_KEY', say['key'])), Path(say['staging']))\n"
        "take_logical(psycopg.connect(say['url'], autocommit=True), backup, why='killed')\n"
    )
    key = backed.backup.keys.current
    assert key is not None
    said = {
        "stage": stage, "server": dict(backed.backup.server.parameters), "folder": str(backed.folder),
        "key": base64.b64encode(key.secret).decode(),
        "staging": str(backed.backup.staging), "url": backed.warehouse.url,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(said), text=True, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    # The server notices a dead process with the next write to it.
    for _ in range(100):
        (entry,) = backed.entries()
        if entry.state == "died":
            break
        time.sleep(0.05)
    assert entry.state == "died"
    manifests = list(backed.folder.rglob("manifest.json"))
    assert len(manifests) == (1 if stage == "backup.published" else 0)
    taken = backed.take()
    states = [entry.state for entry in backed.entries()]
    assert states == ["complete" if stage == "backup.published" else "failed", "complete"]
    assert backed.look(taken).passed
    assert list(backed.backup.staging.iterdir()) == []
    kept = [path.name for path in (backed.folder / "erp").iterdir()]
    assert len(kept) == states.count("complete")


@pytest.mark.backup_fault
def test_two_runs_at_once_are_refused(backed: Backed) -> None:
    with backed.warehouse.connect() as other, running(other, "erp"), pytest.raises(LockTakenError):
        backed.take()
    assert backed.entries() == []


@pytest.mark.backup_fault
def test_a_destination_that_fails_leaves_the_others_good(backed: Backed, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a folder should be")
    broken = FolderDestination("broken", tmp_path / "blocked")
    taken = backed.take(destinations=[*backed.backup.destinations, broken])
    assert set(taken.failed) == {"broken"}
    (entry,) = backed.entries()
    assert (entry.state, entry.destinations) == ("complete", ["local"])
    with pytest.raises(BackupError, match="no destination takes the backup"):
        backed.take(destinations=[broken])
    assert [one.state for one in backed.entries()] == ["complete", "failed"]
    assert backed.look(backed.take()).passed


@pytest.mark.backup_fault
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_at_a_destination_fails_loudly(backed: Backed, monkeypatch: pytest.MonkeyPatch) -> None:
    from datops_assets.backup import destinations

    real = os.open

    def full(path: Any, flags: int, mode: int = 0o777) -> int:
        return real("/dev/full", os.O_WRONLY) if str(path).endswith(".part") else real(path, flags, mode)

    monkeypatch.setattr(destinations.os, "open", full)
    with pytest.raises(BackupError, match="No space left"):
        backed.take()
    monkeypatch.undo()
    assert [entry.state for entry in backed.entries()] == ["failed"]
    assert backed.look(backed.take()).passed


@pytest.mark.backup_fault
def test_a_wrong_password_is_one_sentence_without_it(backed: Backed) -> None:
    wrong = dataclasses.replace(
        backed.backup.server, parameters={**backed.backup.server.parameters, "password": "not-this-one"}
    )
    with pytest.raises(SourceRefusedError) as refused:
        backed.take(server=wrong)
    assert "not-this-one" not in str(refused.value)
    assert [entry.state for entry in backed.entries()] == ["failed"]


@pytest.mark.backup_fault
def test_rows_hidden_by_row_security_are_not_silently_left_out(backed: Backed, role: str) -> None:
    backed.source.execute(f"alter table sales.customers enable row level security; "
                          f"grant usage on schema public, sales to {role};"
                          f"grant select on all tables in schema public, sales to {role}")  # fmt: skip
    limited = dataclasses.replace(
        backed.backup.server,
        parameters={**backed.backup.server.parameters, "user": role, "password": "a-secret-of-a-role"},
    )
    with pytest.raises(BackupError):
        backed.take(server=limited)
    assert [entry.state for entry in backed.entries()] == ["failed"]


def test_catalogue_and_destination_rebuild_each_other(document: Path, warehouse: object) -> None:
    taken = datops("run")
    first = datops("list")
    (document.parent / "kept/one/erp" / taken["backup_id"] / "manifest.json").unlink()
    import psycopg

    datops("list", "--rebuild")
    assert datops("verify")[0]["passed"]
    from datops_assets.config.settings import read_settings
    from datops_assets.resources.warehouse import open_warehouse

    with open_warehouse(read_settings()).connect() as conn:
        assert isinstance(conn, psycopg.Connection)
        conn.execute("delete from datops.backup_copies; delete from datops.backups")
    assert datops("list") == []
    assert [one["backup_id"] for one in datops("list", "--at", "second")] == [taken["backup_id"]]
    again = datops("list", "--rebuild")
    ours = ("backup_id", "state", "whole", "stored_bytes", "snapshot_at", "destinations", "who", "why")
    assert {key: again[0][key] for key in ours} == {key: first[0][key] for key in ours}


def test_a_person_takes_lists_and_verifies(document: Path) -> None:
    planned = datops("plan")
    assert (planned["problems"], planned["tables"], planned["encrypted_with"]) == ([], 4, "BACKUP_KEY")
    assert datops("list") == []
    taken = datops("run", "--why", "before the release")
    assert taken["destinations"] == ["local", "second"]
    (entry,) = datops("list")
    assert (entry["why"], entry["good"], entry["verified_at"]) == ("before the release", True, None)
    assert [row["passed"] for row in datops("verify")] == [True, True]
    assert datops("list")[0]["verified_at"] is not None
    artefact = document.parent / "kept/two/erp" / taken["backup_id"] / "00001.tar.zst.enc"
    artefact.write_bytes(artefact.read_bytes()[:-1])
    assert [row["passed"] for row in datops("verify", expect=1)] == [True, False]
    (entry,) = datops("list")
    assert (entry["damaged_at"], entry["good"]) == (["second"], True)
    shutil.rmtree(document.parent / "kept/one/erp")
    datops("verify", "--quick", expect=1)
    assert not datops("list")[0]["good"]


def test_no_secret_reaches_a_file_an_argument_or_the_catalogue(backed: Backed, document: Path) -> None:
    secret = str(backed.backup.server.parameters["password"])
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(process.read_text("utf-8", "replace"))
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    taken = backed.take()
    stop.set()
    watcher.join()
    assert any("pg_dump" in line for line in seen)
    assert not any(secret in line for line in seen)
    text = (backed.folder / taken.manifest.folder / "manifest.json").read_text()
    assert secret not in text
    assert "a-secret-of-a-role" not in text


def test_an_object_store_keeps_backups_too(backed: Backed) -> None:
    store = StoreDestination("store", "memory://backups/here", {})
    backed.backup = dataclasses.replace(backed.backup, destinations=[store])
    taken = backed.take()
    assert backed.look(taken).passed
    assert store.list_folders("erp") == [taken.manifest.backup_id]
    store.remove(taken.manifest.folder)
    assert store.list_folders("erp") == []
    assert not backed.look(taken).passed


def test_without_encryption_the_same_checks_hold(backed: Backed) -> None:
    taken = backed.take(keys=Keys())
    assert backed.look(taken, keys=Keys()).passed
    _flip(backed.artefacts(taken))
    assert not backed.look(taken, keys=Keys()).passed


def test_a_manifest_that_leads_out_of_its_folder_is_refused(backed: Backed) -> None:
    from datops_assets.backup.manifest import write_manifest
    from datops_assets.errors import BackupDamagedError

    manifest = backed.take().manifest
    evil = dataclasses.replace(manifest.artefacts[0], name="../../../etc/passwd")
    text = write_manifest(dataclasses.replace(manifest, artefacts=(evil,)), backed.backup.keys)
    with pytest.raises(BackupDamagedError, match="leads out"):
        read_manifest(text, "here", backed.backup.keys)


def test_a_backup_that_is_read_cannot_be_locked_for_removal(backed: Backed) -> None:
    from datops_assets.backup.catalogue import remove_lock

    with (
        backed.warehouse.connect() as other,
        read_lock(other, "X"),
        remove_lock(backed.warehouse.conn, "X") as alone,
    ):
        assert not alone
    with remove_lock(backed.warehouse.conn, "X") as alone:
        assert alone


def test_the_document_of_the_guide_is_the_example_and_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    from datops_assets.components.backups.document import read_backup

    root = Path(__file__).parents[2]
    for name in ("ERP_USER", "ERP_HOST", "BACKUP_DIR"):
        monkeypatch.setenv(name, "somewhere")
    example = root / "examples/backup/backup.yaml"
    assert example.read_text() in (root / "docs/backup.md").read_text()
    assert read_backup(example, root).document.retention.monthly == 12


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("encryption: {key_env: BACKUP_KEY}", "", "encryption: missing"),
        ("key_env: BACKUP_KEY", 'key_env: "c2VjcmV0/"', "not the name of a variable"),
        ("postgresql://", "mysql://", "only PostgreSQL is backed up"),
        ("postgresql://", "postgresql://x:secret-word@", "a password stands in the URL"),
        ("/two", "/one", "two destinations have the same url"),
        (
            "local: {url:",
            'local: {options: {secret: "x"}, url:',
            "the name of a variable under `options_env:`",
        ),
    ],
)
def test_a_mistake_in_the_document_is_named_with_its_line(
    document: Path, before: str, after: str, said: str
) -> None:
    document.write_text(document.read_text().replace(before, after, 1))
    printed = str(datops("plan", expect=2))
    assert said in printed
    assert "backup.yaml:" in printed
    assert "secret-word" not in printed
