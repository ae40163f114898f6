"""The log of a server that has standbys: received from one, over a promotion, and back to either timeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from datops_assets.backup.log_archive import LogFile, list_log
from datops_assets.components.backups.document import read_backup
from datops_assets.components.backups.log import check_log, receive_log
from datops_assets.components.catalogue import open_catalogue
from datops_assets.config.settings import read_settings
from datops_assets_tests.backup.conftest import KEY, datops
from datops_assets_tests.backup.test_wal import server_of
from datops_assets_tests.cdc.servers import OwnServer, own_server, standby_of
from datops_assets_tests.conftest import TestWarehouse

pytestmark = pytest.mark.backup_fault


@pytest.fixture
def primary() -> Iterator[OwnServer]:
    with own_server(18) as server:
        run(server, "create table t (a int primary key)")
        yield server


@pytest.fixture
def document(
    primary: OwnServer, warehouse: TestWarehouse, project: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("BACKUP_KEY", KEY)
    (project / "backup.yaml").write_text(f"""
backup: whole
team: sales
source: {{url: "postgresql://datops@127.0.0.1:{primary.port}/postgres"}}
encryption: {{key_env: BACKUP_KEY}}
destinations:
  local: {{url: {project / "kept"}}}
physical: {{content: false}}
wal: {{every_s: 0.5}}
""")
    return project / "backup.yaml"


def point_at(document: Path, before: OwnServer, after: OwnServer) -> None:
    document.write_text(document.read_text().replace(f":{before.port}/", f":{after.port}/"))


def run(server: OwnServer, *statements: str) -> None:
    with closing(server.warehouse.connect()) as conn:
        for statement in statements:
            conn.execute(statement)


def rows(server: OwnServer) -> set[int]:
    with closing(server.warehouse.connect()) as conn:
        return {one for (one,) in conn.execute("select a from t")}


def until(holds: Callable[[], bool]) -> None:
    for _ in range(900):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail("it never was so")


@contextmanager
def receiving(document: Path) -> Iterator[list[str]]:
    """A receiver that runs; what it says."""
    stop, said = threading.Event(), list[str]()
    loaded = read_backup(document, document.parent).document

    def receive() -> None:
        with open_catalogue() as catalogue:
            try:
                receive_log(loaded, catalogue, once=False, stop=stop, say=said.append)
            except Exception as error:  # seen by the test
                said.append(f"failed: {error}")

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join()


def kept(document: Path) -> list[LogFile]:
    loaded = read_backup(document, document.parent).document
    (destination,) = loaded.open_destinations(read_settings())
    return list_log(destination, "whole")


def restored(tmp_path: Path, name: str, *target: str) -> set[int]:
    """What a restore to a target holds."""
    folder = tmp_path / name
    assert datops("restore", "--folder", str(folder), *target, "--apply")["findings"] == []
    with server_of(folder, 180000, dbname="postgres") as conn:
        return {one for (one,) in conn.execute("select a from t")}


def test_a_standby_that_is_promoted_while_its_log_is_received_leaves_no_gap(
    document: Path, primary: OwnServer, tmp_path: Path
) -> None:
    datops("wal", "--once")
    datops("run", "--kind", "full")
    with standby_of(primary) as standby:
        run(primary, "insert into t values (1)")
        datops("wal", "--once")
        until(lambda: rows(standby) == {1})
        point_at(document, primary, standby)
        run(primary, "insert into t values (2)")
        with receiving(document) as said:
            until(lambda: rows(standby) == {1, 2})
            until(lambda: log_is_sound(document))
            primary.stop("immediate")
            standby.promote()
            with closing(standby.warehouse.connect()) as conn:
                row = conn.execute("select clock_timestamp()::text").fetchone()
            assert row is not None
            time.sleep(0.1)
            run(standby, "insert into t values (3)", "select pg_switch_wal()", "insert into t values (4)")
            until(
                lambda: any(one.timeline == 2 and not one.partial and one.covered for one in kept(document))
            )
        assert said == []
        assert datops("wal", "--once")["started_anew"] is None
        assert "00000002.history" in {one.segment for one in kept(document)}
        assert {one.timeline for one in kept(document) if one.covered} == {1, 2}
        assert datops("wal", "--status")["findings"] == []
        assert restored(tmp_path, "new") == {1, 2, 3, 4}
        assert restored(tmp_path, "before", "--to-time", row[0]) == {1, 2}


def log_is_sound(document: Path) -> bool:
    """Whether nothing is said against the log: before its slot is made, that is missing."""
    loaded = read_backup(document, document.parent).document
    with open_catalogue() as catalogue:
        return check_log(loaded, catalogue).findings == []


@pytest.mark.slow
def test_what_only_the_old_primary_had_comes_back_on_its_own_timeline(
    document: Path, primary: OwnServer, tmp_path: Path
) -> None:
    """The standby took over without the last rows; the log of the old primary has them."""
    datops("wal", "--once")
    datops("run", "--kind", "full")
    run(primary, "insert into t values (1)")
    with standby_of(primary) as standby:
        until(lambda: rows(standby) == {1})
        standby.stop()
        run(primary, "insert into t values (2)", "select pg_switch_wal()", "insert into t values (3)")
        datops("wal", "--once")
        primary.stop("immediate")
        standby.start()
        standby.promote()
        run(standby, "insert into t values (4)")
        point_at(document, primary, standby)
        assert datops("wal", "--once")["started_anew"] is None
        run(standby, "select pg_switch_wal()", "insert into t values (5)")
        datops("wal", "--once")
        assert datops("wal", "--status")["findings"] == []
    assert restored(tmp_path, "new") == {1, 4, 5}
    assert restored(tmp_path, "old", "--to-timeline", "1") == {1, 2, 3}
    strange = datops("restore", "--folder", "x", "--to-timeline", "7", expect=1)
    assert "timelines kept: 1, 2" in strange["problems"][0]


def test_the_log_of_another_server_is_not_mixed_in(document: Path, primary: OwnServer) -> None:
    datops("run", "--kind", "full")
    datops("wal", "--once")
    before = kept(document)
    with own_server(18) as other:
        point_at(document, primary, other)
        said = str(datops("wal", "--once", expect=1))
        assert "is another server" in said
        assert "another name under `backup:`" in said
        with closing(other.warehouse.connect()) as conn:
            assert conn.execute("select count(*) from pg_replication_slots").fetchone() == (0,)
        point_at(document, other, primary)
    assert kept(document) == before
    assert datops("wal", "--once")["started_anew"] is None


@pytest.mark.slow
def test_a_source_that_is_behind_what_is_kept_is_refused(
    document: Path, primary: OwnServer, tmp_path: Path
) -> None:
    """A copy of the server from before, started as if nothing had been."""
    datops("run", "--kind", "full")
    with standby_of(primary) as copy:
        until(lambda: rows(copy) == set())
        copy.stop()
        run(primary, *(["select pg_switch_wal()", "insert into t values (1)", "delete from t"] * 3))
        datops("wal", "--once")
        (copy.data / "standby.signal").unlink()
        copy.start()
        point_at(document, primary, copy)
        said = str(datops("wal", "--once", expect=1))
        assert "it is behind, or an older copy of the server" in said
