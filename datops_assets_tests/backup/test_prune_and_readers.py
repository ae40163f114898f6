"""Retention beside those who read: what a restore, a drill or a look needs stays until it ends, its parents too."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import IO

import pytest

from datops_assets.backup.catalogue import finish_run, list_read, read_lock, remove_lock
from datops_assets.backup.destinations import FolderDestination
from datops_assets.backup.manifest import write_manifest
from datops_assets.backup.restore import Wanted
from datops_assets.backup.server import Server
from datops_assets.components.backups import listing, restoring
from datops_assets.components.backups.document import BackupDocument, read_backup
from datops_assets.components.catalogue import open_catalogue
from datops_assets.errors import LockTakenError
from datops_assets_tests.backup.conftest import Backed, datops

pytestmark = pytest.mark.backup_fault


@pytest.fixture
def keeps_one(document: Path) -> BackupDocument:
    """A document by which only the newest backup stays."""
    document.write_text(document.read_text() + "retention: {last: 1}\n")
    return read_backup(document, document.parent).document


def test_retention_during_a_restore_leaves_what_is_read(
    keeps_one: BackupDocument, backed: Backed, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (datops("run")["backup_id"] for _ in range(2))
    reading, go_on = threading.Event(), threading.Event()
    really_open = FolderDestination.open

    def slow(self: FolderDestination, path: str) -> IO[bytes]:
        if path.endswith(".enc"):
            reading.set()
            go_on.wait(60)
        return really_open(self, path)

    monkeypatch.setattr(FolderDestination, "open", slow)
    outcome: list[object] = []

    def restore() -> None:
        with open_catalogue() as catalogue:
            entry = listing.choose(keeps_one, catalogue, first)
            target = Server(backed.backup.server.parameters).at(f"{backed.backup.server.dbname}_back")
            outcome.append(
                restoring.restore(
                    keeps_one, catalogue, entry, target, Wanted(), onto=None, at=None, apply=True
                )
            )

    thread = threading.Thread(target=restore)
    thread.start()
    assert reading.wait(60)
    assert datops("prune")[0]["reasons"] == ["is being read"]
    assert datops("prune", "--apply") == []
    go_on.set()
    thread.join()
    assert [getattr(one, "findings", None) for one in outcome] == [[]]
    assert [row["backup_id"] for row in datops("prune", "--apply")] == [first]
    assert [row["backup_id"] for row in datops("list", "--at", "local")] == [second]
    with backed.backup.server.at("postgres").connect() as admin:
        admin.execute(f"drop database {backed.backup.server.dbname}_back")


def test_retention_before_a_restore_begins_is_said_and_nothing_is_made(
    keeps_one: BackupDocument, backed: Backed
) -> None:
    datops("run")
    with open_catalogue() as catalogue:
        chosen = listing.choose(keeps_one, catalogue, None)
        datops("run")
        datops("prune", "--apply")
        target = backed.backup.server.at("never_made")
        with pytest.raises(LockTakenError, match="choose another"):
            restoring.restore(keeps_one, catalogue, chosen, target, Wanted(), onto=None, at=None, apply=True)
        assert list_read(catalogue.conn) == set()
    with target.at("postgres").connect() as admin:
        assert admin.execute("select from pg_database where datname = 'never_made'").fetchone() is None
    assert [row["passed"] for row in datops("verify")] == [True, True]


def test_a_reader_of_an_increment_keeps_its_parents(backed: Backed) -> None:
    full = backed.take().manifest
    last = full
    for _ in range(2):
        last = dataclasses.replace(
            last,
            backup_id=f"{int(last.backup_id[:2], 10) + 1:02d}{last.backup_id[2:]}",
            parent=last.backup_id,
        )
        finish_run(backed.warehouse.conn, last, write_manifest(last, backed.backup.keys), ["local"], {})
    with backed.warehouse.connect() as reader, read_lock(reader, last.backup_id):
        assert list_read(backed.warehouse.conn) == {full.backup_id, last.parent, last.backup_id}
        with remove_lock(backed.warehouse.conn, full.backup_id) as alone:
            assert not alone
    with remove_lock(backed.warehouse.conn, full.backup_id) as alone:
        assert alone
        with (
            backed.warehouse.connect() as reader,
            pytest.raises(LockTakenError),
            read_lock(reader, last.backup_id),
        ):
            pass
        assert list_read(backed.warehouse.conn) == {full.backup_id}


def test_a_reader_that_is_killed_holds_nothing_back(backed: Backed) -> None:
    backup_id = backed.take().manifest.backup_id
    reader = backed.warehouse.connect()
    with read_lock(reader, backup_id):
        assert list_read(backed.warehouse.conn) == {backup_id}
        backed.source.execute("select pg_terminate_backend(%s, 10000)", (reader.info.backend_pid,))
        with remove_lock(backed.warehouse.conn, backup_id) as alone:
            assert alone
