"""A stream as a process: how far it is behind, what it tells, how it ends, what it survives."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from datops_assets.cdc import Progress, drain, lease, stream_changes, take_snapshot
from datops_assets.cdc.replication import Receiver, read_fork, replication_connection
from datops_assets.components.streams import running
from datops_assets.errors import DatopsError, LockTakenError, SourceRefusedError, SourceUnreachableError
from datops_assets_tests.cdc.conftest import Followed
from datops_assets_tests.cdc.test_stream_component import datops, document, erp  # noqa: F401

LIMIT_S = 60.0


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.05)


@contextmanager
def streaming(
    followed: Followed, parameters: dict[str, Any] | None = None
) -> Iterator[tuple[list[Progress], list[Exception]]]:
    """The engine in a thread, with a connection of its own."""
    told: list[Progress] = []
    failed: list[Exception] = []
    stopped = threading.Event()

    def work() -> None:
        with closing(followed.warehouse.connect()) as conn:
            try:
                with lease(conn, "erp"):
                    stream_changes(
                        conn, parameters or followed.parameters, followed.stream,
                        stopping=stopped.is_set, report=told.append, every_s=0.05, report_s=0.2,
                    )  # fmt: skip
            except DatopsError as error:
                failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield told, failed
    finally:
        stopped.set()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def count(followed: Followed) -> int:
    return int(followed.warehouse.fetch("select count(*) from bronze.erp_t")[0][0])


@pytest.fixture
def t(followed: Followed) -> Followed:
    followed.run("create table t (id int primary key, v text); insert into t values (1, 'a')")
    followed.follow("t")
    followed.snapshot()
    return followed


@pytest.mark.cdc_case(50, 60)
def test_changes_arrive_while_they_are_made(t: Followed) -> None:
    """Case 60, small: and a drain is refused meanwhile (case 50), and goes on afterwards."""
    with streaming(t) as (told, failed):
        for number in range(2, 12):
            t.run(f"insert into t values ({number}, 'x'); update t set v = 'y' where id = {number - 1}")
            until(lambda number=number: count(t) == number)
        with pytest.raises(LockTakenError):
            t.drain()
        t.run("alter table t add w int default 5; update t set v = 'z' where id = 1")
        until(lambda: any("t" in progress.copied for progress in told))
    assert failed == []
    assert sum(progress.changes for progress in told) == 21
    t.drain()
    t.require_equal()
    assert len(t.log("t")) == 21


@pytest.mark.cdc_case(45)
def test_a_stop_in_the_middle_of_a_transaction_loses_nothing(t: Followed) -> None:
    """Case 45."""
    with streaming(t):
        t.run("insert into t select n, repeat('x', 500) from generate_series(2, 200000) n")
        time.sleep(0.3)
    t.drain()
    t.require_equal()


@pytest.mark.cdc_case(51)
def test_an_idle_database_moves_its_slot(t: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 51."""
    from datops_assets.cdc import streaming as module

    monkeypatch.setattr(module, "_HEARTBEAT_S", 0.2)
    query = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s"

    def slot() -> str:
        return str(t.source.execute(query, (t.stream.slot,)).fetchone())

    with streaming(t):
        before = slot()
        until(lambda: slot() != before)
    t.require_acknowledged()


@pytest.mark.cdc_case(30)
def test_a_running_stream_sees_a_partition_leave(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    from datops_assets.cdc import streaming as module

    monkeypatch.setattr(module, "_LOOK_S", 0.2)
    followed.run("create table t (id int primary key) partition by range (id)")
    followed.run("create table t1 partition of t for values from (0) to (10); insert into t values (1)")
    followed.follow("t")
    followed.snapshot()
    with streaming(followed) as (_, failed):
        followed.run("alter table t detach partition t1")
        until(lambda: count(followed) == 0)
        followed.run("create table t2 partition of t default; insert into t values (2)")
        until(lambda: count(followed) == 1)
    assert failed == []
    followed.drain()
    followed.require_equal()


class Proxy:
    """A loopback door to the source that a test can shut: connections are cut, also at a command of theirs."""

    def __init__(
        self, host: str, port: int, cuts_at: bytes | None = None, delay_s: float | None = None
    ) -> None:
        self._to = (host, port)
        self._cuts_at = cuts_at
        self.delay_s = delay_s
        """How late each piece of 8 KB is handed on; endless: nothing is, and nobody is told."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                one, _ = self._listener.accept()
                other = socket.create_connection(self._to)
                self._ends += [one, other]
                for pair in ((one, other), (other, one)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536 if self.delay_s is None else 8192):
                if self._cuts_at is not None and self._cuts_at in data:
                    break
                if self.delay_s == math.inf:
                    return
                time.sleep(self.delay_s or 0)
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End all connections; new ones are let in."""
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()


@pytest.mark.cdc_case(46)
def test_a_network_that_is_cut_again_and_again(t: Followed) -> None:
    """Case 46: each cut is one sentence that allows another try, and nothing is lost or doubled."""
    proxy = Proxy(t.parameters["host"], int(t.parameters["port"]))
    through = {**t.parameters, "host": "127.0.0.1", "port": proxy.port}
    try:
        for round_ in range(4):
            with streaming(t, through) as (_, failed):
                first = 2 + round_ * 1000
                for number in range(first, first + 100):
                    t.run(f"insert into t values ({number}, 'x')")
                time.sleep(0.1 * round_)
                proxy.cut()
                # Again where there was nothing to cut yet.
                until(lambda failed=failed: bool(failed) or bool(proxy.cut()))
            assert isinstance(failed[0], SourceUnreachableError), failed
    finally:
        proxy.close()
    t.drain()
    t.require_equal()
    assert len(t.log("t")) == 400


@pytest.mark.cdc_case(46)
@pytest.mark.parametrize(
    ("command", "act"),
    [
        (b"START_REPLICATION", lambda t, parameters: drain(t.warehouse.conn, parameters, t.stream)),
        (
            b"CREATE_REPLICATION_SLOT",
            lambda t, parameters: take_snapshot(
                t.warehouse.conn, t.warehouse.warehouse.connect, parameters, t.stream
            ),
        ),
        (b"TIMELINE_HISTORY", lambda _, parameters: fork_through(parameters)),
    ],
    ids=["at the start", "at a new slot", "at the timelines"],
)
def test_a_network_cut_at_a_command_allows_another_try(
    t: Followed, command: bytes, act: Callable[[Followed, dict[str, Any]], object]
) -> None:
    """A lost connection is not taken for a source that refuses, nor for one that lost its log."""
    proxy = Proxy(t.parameters["host"], int(t.parameters["port"]), cuts_at=command)
    try:
        with pytest.raises(SourceUnreachableError, match="closed the connection"):
            act(t, {**t.parameters, "host": "127.0.0.1", "port": proxy.port})
    finally:
        proxy.close()


def fork_through(parameters: dict[str, Any]) -> int:
    with replication_connection(parameters) as conn:
        return read_fork(conn, 1, 1)


@pytest.mark.cdc_case(46)
def test_a_connection_that_is_lost_before_the_slot_is_read_allows_another_try(t: Followed) -> None:
    proxy = Proxy(t.parameters["host"], int(t.parameters["port"]))
    try:
        with replication_connection({**t.parameters, "host": "127.0.0.1", "port": proxy.port}) as conn:
            receiver = Receiver(conn, t.stream.slot, t.stream.publication, 0, binary=True)
            proxy.cut()
            conn.pgconn.exec_(b"IDENTIFY_SYSTEM")  # the end is seen
            with pytest.raises(SourceUnreachableError, match="closed the connection"), receiver:
                pass
    finally:
        proxy.close()


@pytest.mark.cdc_case(46)
def test_a_network_that_is_slow(t: Followed) -> None:
    """Small pieces, each of them late: the same rows, later."""
    proxy = Proxy(t.parameters["host"], int(t.parameters["port"]), delay_s=0.005)
    through = {**t.parameters, "host": "127.0.0.1", "port": proxy.port}
    try:
        t.run("insert into t select n, repeat('x', 200) from generate_series(2, 3000) n")
        with streaming(t, through) as (_, failed):
            until(lambda: count(t) == 3000)
            t.run("delete from t where id > 10; update t set v = 'y'")
            until(lambda: count(t) == 10)
        assert failed == []
    finally:
        proxy.close()
    t.drain()
    t.require_equal()


@pytest.mark.cdc_case(46)
def test_a_network_that_swallows_everything(t: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody closes the connection: silence is noticed by itself, as a sentence that allows another try."""
    from datops_assets.cdc import following, replication

    monkeypatch.setattr(following, "_LONGEST_SILENCE_S", 4.0)
    monkeypatch.setattr(replication, "_STATUS_EVERY_S", 0.4)  # so often is a sign of life asked for
    proxy = Proxy(t.parameters["host"], int(t.parameters["port"]))
    through = {**t.parameters, "host": "127.0.0.1", "port": proxy.port}
    try:
        with streaming(t, through) as (_, failed):
            t.run("insert into t values (2, 'b')")
            until(lambda: count(t) == 2)
            time.sleep(4.5)
            assert failed == []
            proxy.delay_s = math.inf
            t.run("insert into t values (3, 'swallowed')")
            until(lambda: bool(failed))
        assert "not even a sign of life" in str(failed[0])
        assert isinstance(failed[0], SourceUnreachableError)
    finally:
        proxy.close()
    query = (
        "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s and active"
    )
    t.source.execute(query, (t.stream.slot,))
    t.drain()
    t.require_equal()


@pytest.mark.cdc_case(53)
def test_a_warehouse_that_says_no_keeps_what_it_had(t: Followed) -> None:
    """Case 53: a statement_timeout in the merge; the next drain goes on from the same place."""
    t.run("insert into t select n, 'x' from generate_series(2, 2000) n; update t set v = 'u' where id = 1")
    with closing(t.warehouse.connect()) as other:
        other.autocommit = False
        other.execute("select * from bronze.erp_t where id = 1 for update")
        t.warehouse.conn.execute("set statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            t.drain()
        other.rollback()
    t.warehouse.conn.execute("reset statement_timeout")
    assert t.warehouse.conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    t.require_acknowledged()
    t.drain()
    t.require_equal()


def test_without_dagster_home_the_project_says_whose_history_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `datops up` has it: the dagster.yaml of the project."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    (project / "dagster.yaml").write_text(f"local_artifact_storage:\n  module: dagster.core.storage.root\n  class:"
        f" LocalArtifactStorage\n  config: {{base_dir: {tmp_path / 'history'}}}\n")  # fmt: skip
    with running._instance() as instance:
        assert instance.is_ephemeral is False
        assert str(instance.storage_directory()).startswith(str(tmp_path / "history"))


def test_a_process_tells_the_assets_and_ends_when_told(
    erp: Followed,
    project: Any,
) -> None:
    """`datops cdc stream`: the first snapshot, changes, materializations, a clean end."""
    said: list[str] = []
    stopped = threading.Event()
    loaded = document(project)
    with dg.instance_for_test() as instance:
        thread = threading.Thread(
            target=lambda: running.follow_for_ever(
                loaded, stopped, say=said.append, every_s=0.05, report_s=0.2
            ),
            daemon=True,
        )
        thread.start()
        until(lambda: datops("status")["state"] == "streaming")
        erp.run("insert into orders values (2, 'b')")
        key = dg.AssetKey(["bronze", "erp", "orders_changes"])
        until(lambda: instance.get_latest_materialization_event(key) is not None)
        stopped.set()
        thread.join(LIMIT_S)
        event = instance.get_latest_materialization_event(key)
        check = last_check(instance)
    assert not thread.is_alive()
    metadata = event.asset_materialization.metadata
    assert metadata["changes"].value == 1
    assert {"lag_seconds", "lag_bytes", "retained_wal_bytes"} <= metadata.keys()
    assert check.passed
    assert check.metadata["wal_status"].value == "reserved"
    assert any("1 change(s) of 1 transaction(s)" in line for line in said), said
    erp.require_equal()


def last_check(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(dg.AssetKey(["bronze", "erp", "orders"]), "stream")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    return record.event.dagster_event.event_specific_data


@pytest.mark.cdc_case(48)
def test_a_process_that_must_stop_says_so_at_its_check(erp: Followed, project: Any) -> None:
    """The slot is dropped behind its back: it ends with the sentence, and its check has it."""
    loaded = document(project)
    failed: list[Exception] = []

    def work() -> None:
        try:
            running.follow_for_ever(loaded, threading.Event(), say=lambda _: None, every_s=0.05, report_s=0.2)
        except SourceRefusedError as error:
            failed.append(error)

    with dg.instance_for_test() as instance:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        until(lambda: datops("status")["state"] == "streaming")
        ends = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s and active"
        drops = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s"

        def is_dropped() -> bool:
            erp.source.execute(ends, (erp.stream.slot,))
            with suppress(psycopg.errors.ObjectInUse):
                erp.source.execute(drops, (erp.stream.slot,))
                return True
            return False

        until(is_dropped)
        thread.join(LIMIT_S)
        check = last_check(instance)
    assert not thread.is_alive()
    assert not check.passed
    assert "datops cdc resync erp" in check.metadata["reason"].value
    assert str(failed[0]) == check.metadata["reason"].value
