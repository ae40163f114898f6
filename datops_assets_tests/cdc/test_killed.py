"""kill -9 at every stage and at random moments under a write load: source and mirror are equal, nothing is doubled."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import psycopg
import pytest

from datops_assets.cdc import Drained, find_stream, lease
from datops_assets.cdc.drain import emit, opened
from datops_assets.cdc.following import Following, Mark
from datops_assets.cdc.replication import Receiver, replication_connection
from datops_assets.errors import LockTakenError, SourceUnreachableError
from datops_assets_tests.cdc.conftest import Followed, mirror_alone

drain_module = importlib.import_module("datops_assets.cdc.drain")
following_module = importlib.import_module("datops_assets.cdc.following")
ROUNDS = 200
TABLES = ("customers", "orders", "events")

# Imports once; each line it is given makes a fork that drains, or takes the snapshot, and may be killed.
WORKER = """
import json, os, sys, time
import psycopg
from datops_assets.cdc import ChangeStream, StreamedTable, drain, lease, take_snapshot
from datops_assets.errors import LockTakenError, SourceUnreachableError
from datops_assets.postgres import failpoints

def work(url, parameters, names, what, failpoint):
    stream = ChangeStream(names["source"], names["slot"], names["publication"],
                          tuple(StreamedTable(**table) for table in names["tables"]))
    if failpoint:
        failpoints.arm(failpoint)
    connect = lambda: psycopg.connect(url, autocommit=True)
    for _ in range(100):
        with connect() as conn:
            try:
                with lease(conn, stream.source):
                    if what == "snapshot":
                        take_snapshot(conn, connect, parameters, stream)
                    else:
                        drain(conn, parameters, stream)
                return
            except LockTakenError:  # the server notices a dead process with the next write to it
                time.sleep(0.02)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            work(**json.loads(line))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def worker() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


def start(worker: subprocess.Popen[str], followed: Followed, what: str = "drain", failpoint: str = "") -> int:
    """Let a process begin; returns its pid."""
    stream = dataclasses.asdict(followed.stream)
    for table in stream["tables"]:
        del table["rename"]
    order = {
        "url": followed.warehouse.url, "parameters": followed.parameters, "names": stream, "what": what,
        "failpoint": failpoint,
    }  # fmt: skip
    worker.stdin.write(json.dumps(order) + "\n")
    worker.stdin.flush()
    return int(worker.stdout.readline())


def was_killed(worker: subprocess.Popen[str]) -> bool:
    """Wait for the process that was started last."""
    status = int(worker.stdout.readline())
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def finish(followed: Followed) -> None:
    """What the next run does once the server has noticed that the last one is dead."""
    for _ in range(200):
        try:
            followed.drain()
            return
        except LockTakenError:
            time.sleep(0.05)
        except Exception as error:
            if "is active for PID" not in str(error):
                raise
            time.sleep(0.05)
    raise AssertionError("the dead process still holds the stream")


@pytest.fixture
def orders(followed: Followed) -> Followed:
    followed.run("create table orders (id int primary key, note text)")
    followed.run("insert into orders select n, 'old' from generate_series(1, 50) n")
    followed.follow("orders")
    return followed


@pytest.mark.cdc_case(41, 42)
@pytest.mark.cdc_kill
@pytest.mark.parametrize("is_logged", [True, False], ids=["logged", "mirror alone"])
@pytest.mark.parametrize(
    "failpoint", ["before_merge", "after_merge", "before_commit", "after_commit", "after_acknowledge"]
)
def test_killed_at_any_step_of_a_drain_each_change_is_applied_once(
    orders: Followed, worker: subprocess.Popen[str], failpoint: str, is_logged: bool
) -> None:
    """Cases 41 to 43, with a log and with the mirror alone."""
    if not is_logged:
        mirror_alone(orders, "orders")
    orders.snapshot()
    orders.run("update orders set note = 'new' where id <= 10; delete from orders where id > 45")
    orders.run("insert into orders values (100, 'new')")
    start(worker, orders, failpoint=failpoint)
    assert was_killed(worker)
    finish(orders)
    orders.require_equal()
    if is_logged:
        assert len(orders.log("orders")) == 16


@pytest.mark.cdc_kill
@pytest.mark.parametrize("failpoint", ["table_copied", "table_renewed", "before_commit"])
def test_killed_while_a_log_begins_it_begins_with_its_copy(
    orders: Followed, worker: subprocess.Popen[str], failpoint: str
) -> None:
    mirror_alone(orders, "orders")
    orders.snapshot()
    orders.run("update orders set note = 'before the log'")
    mirror_alone(orders, logged=["orders"])
    start(worker, orders, failpoint=failpoint)
    assert was_killed(worker)
    orders.run("delete from orders where id > 45")
    finish(orders)
    orders.require_equal()
    assert [op for (op,) in orders.log("orders", "_op::text")] == ["u"] * 50 + ["d"] * 5


@pytest.mark.cdc_case(38)
@pytest.mark.cdc_kill
@pytest.mark.parametrize("failpoint", ["snapshot_begun", "slot_made", "table_copied", "snapshot_entered"])
def test_killed_in_a_snapshot_the_next_one_begins_anew(
    orders: Followed, worker: subprocess.Popen[str], failpoint: str
) -> None:
    """Case 38: nobody takes half a copy for a whole one."""
    start(worker, orders, "snapshot", failpoint)
    assert was_killed(worker)
    orders.run("insert into orders values (100, 'while nobody looked')")
    if failpoint != "snapshot_entered":
        with pytest.raises(Exception, match="has no snapshot yet: datops cdc snapshot erp"):
            finish(orders)
        for _ in range(100):
            try:
                orders.snapshot()
                break
            except Exception as error:
                if not isinstance(error, LockTakenError) and "somebody reads the slot" not in str(error):
                    raise
                time.sleep(0.05)
    finish(orders)
    orders.require_equal()


def _write_for_ever(followed: Followed, seed: int, stopped: threading.Event) -> None:
    """Random transactions over three tables: every kind of change, keys that move, rollbacks, truncates."""
    draws = random.Random(seed)
    with closing(psycopg.connect(**followed.parameters)) as conn:
        while not stopped.is_set():
            for _ in range(draws.randint(1, 5)):
                table, key = draws.choice(TABLES), draws.randint(1, 60)
                kind = draws.random()
                if kind < 0.4:
                    statement = (
                        f"insert into {table} values ({key}, 'v{draws.random()}',"
                        f" repeat('x', {draws.randint(1, 4000)})) on conflict (id) do update set v = excluded.v"
                    )
                elif kind < 0.7:
                    statement = (
                        f"update {table} set v = 'u{draws.random()}' where id between {key} and {key + 5}"
                    )
                elif kind < 0.85:
                    statement = f"delete from {table} where id between {key} and {key + 3}"
                elif kind < 0.98:
                    statement = f"update {table} set id = -id - {draws.randint(1, 10**8)} where id = {key}"
                else:
                    statement = f"truncate {table}"
                with suppress(psycopg.errors.UniqueViolation), conn.transaction():
                    conn.execute(statement)  # type: ignore[call-overload]
            if draws.random() < 0.1:
                conn.rollback()
            else:
                conn.commit()
            time.sleep(0.002)


@pytest.mark.cdc_case(41)
@pytest.mark.cdc_kill
def test_killed_at_random_moments_under_a_write_load(
    followed: Followed, worker: subprocess.Popen[str]
) -> None:
    for table in TABLES:
        followed.run(f"create table {table} (id int primary key, v text, big text)")
        followed.run(f"alter table {table} alter big set storage external")
    followed.follow(*TABLES)
    mirror_alone(followed, "events")
    followed.snapshot()
    seed = int(os.environ.get("DATOPS_TEST_SEED", "7"))
    moments, stopped = random.Random(seed), threading.Event()
    writer = threading.Thread(target=_write_for_ever, args=(followed, seed, stopped), daemon=True)
    writer.start()
    killed = 0
    try:
        for _ in range(ROUNDS):
            pid = start(worker, followed)
            time.sleep(moments.uniform(0.01, 0.25))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed += was_killed(worker)
    finally:
        stopped.set()
        writer.join()
    finish(followed)
    followed.require_equal()
    assert killed > ROUNDS / 4, f"only {killed} of {ROUNDS} rounds were killed half way"
    for table in TABLES[:2]:
        rows, places = followed.warehouse.conn.execute(
            f"select count(*), count(distinct (_commit_lsn, _seq)) from bronze.erp_{table}_changes"
        ).fetchone()
        assert rows == places > 0


class Recording(Receiver):
    """Keeps what it hands out."""

    def batches(self, idle_s: float) -> Iterator[list[bytes]]:
        self.kept: list[bytes] = []
        for batch in super().batches(idle_s):
            self.kept += batch
            yield batch


class Repeating(Receiver):
    """Hands out what another one kept, and has no connection."""

    kept: list[bytes]

    def batches(self, idle_s: float) -> Iterator[list[bytes]]:
        yield self.kept
        yield []


@pytest.mark.cdc_case(43)
@pytest.mark.parametrize("half", [False, True])
def test_what_is_delivered_again_is_not_applied_again(orders: Followed, half: bool) -> None:
    """Case 43: whole transactions, and a batch of which only half was committed, key moves and truncates too."""
    orders.snapshot()
    orders.run("update orders set id = -id where id < 5; insert into orders values (100, 'new')")
    orders.run("truncate orders; insert into orders values (7, 'after')")
    conn = orders.warehouse.conn
    with lease(conn, "erp"), opened(conn, orders.parameters, orders.stream) as (source, entry):
        emit(source, "first")
        orders.run("insert into orders values (200, 'later'); update orders set id = 201 where id = 200")
        emit(source, "second")
        done = Drained()
        with replication_connection(orders.parameters) as wire:
            arguments = (wire, orders.stream.slot, orders.stream.publication, entry.applied_lsn)
            with Recording(*arguments, binary=True) as receiver:
                Following(conn, source, orders.stream, entry, done).follow(
                    receiver, Mark("datops", b"second"), 1e9, lambda _: None, lambda: False
                )
            if half:  # as after a crash behind the first mark: only what follows it is new
                middle = next(n for n, data in enumerate(receiver.kept) if data.endswith(b"first"))
                receiver.kept = receiver.kept[middle - 1 :]
            again = Repeating(*arguments, binary=True)
            again.kept = receiver.kept
            after = find_stream(conn, "erp")
            Following(conn, source, orders.stream, after, done).follow(
                again, Mark("datops", b"second"), 1e9, lambda _: None, lambda: False
            )
    rows, places = conn.execute(
        "select count(*), count(distinct (_commit_lsn, _seq)) from bronze.erp_orders_changes"
    ).fetchone()
    assert rows == places == done.changes == 14
    orders.drain()
    orders.require_equal()


class Breaking(Receiver):
    """Hands out so many messages, one by one, then its connection is gone."""

    left = 0

    def batches(self, idle_s: float) -> Iterator[list[bytes]]:
        for batch in super().batches(idle_s):
            for message in batch:
                if type(self).left == 0:
                    raise SourceUnreachableError("the connection is gone")
                type(self).left -= 1
                yield [message]
            if not batch:
                yield []


@pytest.mark.cdc_case(44, 45)
def test_a_connection_lost_behind_any_message(orders: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one COPY stand at one place in the log; whatever was written of them is written anew, once."""
    orders.snapshot()
    with orders.source.cursor() as cursor, cursor.copy("copy orders from stdin") as copy:
        for number in range(100, 108):
            copy.write_row((number, "copied"))
    orders.run(
        "update orders set id = -id where id < 4; truncate orders; insert into orders values (1, 'after')"
    )
    orders.run(
        "insert into orders select n, 'x' from generate_series(2, 6) n; delete from orders where id = 1"
    )
    monkeypatch.setattr(drain_module, "Receiver", Breaking)
    monkeypatch.setattr(
        following_module, "_BATCH_BYTES", 100
    )  # the log is written in the middle of a transaction
    for left in range(1, 28):  # each message of the three transactions
        Breaking.left = left
        with pytest.raises(SourceUnreachableError, match="the connection is gone"):
            orders.drain()
        orders.require_acknowledged()
    monkeypatch.undo()
    orders.drain()
    orders.require_equal()
    places = [place for (*place,) in orders.log("orders", "_commit_lsn, _seq")]
    assert len(places) == len({tuple(place) for place in places}) == 8 + 3 * 2 + 1 + 1 + 5 + 1


@pytest.mark.cdc_case(50)
def test_a_second_reader_is_refused(orders: Followed) -> None:
    """Case 50."""
    orders.snapshot()
    with (
        closing(orders.warehouse.warehouse.connect()) as other,
        lease(other, "erp"),
        pytest.raises(LockTakenError, match="another process follows erp"),
    ):
        orders.drain()
    orders.drain()
