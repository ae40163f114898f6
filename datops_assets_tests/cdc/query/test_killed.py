"""kill -9 at every stage of a look: the next one goes on, mirror and source are equal, nothing is in the log twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest

from datops_assets.cdc import lease
from datops_assets.cdc.query import drain, take_snapshot
from datops_assets.errors import LockTakenError
from datops_assets.postgres import failpoints
from datops_assets_tests.cdc.query.conftest import Queried, texts

pytestmark = pytest.mark.cdc_kill

SNAPSHOT = ["snapshot_begun", "table_read", "before_commit", "table_copied", "snapshot_entered"]
LOOK = ["table_read", "compared", "applied", "before_commit", "table_looked_at"]


@pytest.fixture
def orders(postgres: Queried) -> Queried:
    postgres.run("create table orders (id int primary key, note text, at bigint)")
    postgres.run("insert into orders select n, 'note ' || n, n from generate_series(1, 500) n")
    postgres.follow(cursor="at", compare="rows")
    return postgres


def killed_at(
    failpoint: str, hits: int, queried: Queried, work: Callable[[psycopg.Connection], object]
) -> bool:
    """Let a fork work until it comes by; returns whether it did."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            failpoints.arm(failpoint, hits)
            with closing(psycopg.connect(queried.warehouse.url, autocommit=True)) as conn, lease(conn, "erp"):
                work(conn)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def once_free(work: Callable[[], object]) -> None:
    """Work as soon as the server has noticed that the one who held the lease is dead."""
    for _ in range(300):
        try:
            work()
            return
        except LockTakenError:
            pass
    raise AssertionError("the dead process still holds the stream")


def require_equal(queried: Queried) -> None:
    conn = queried.warehouse.conn
    there = set(queried.read("select at::text, id::text, note from orders"))
    assert texts(conn, "bronze.erp_orders") == there
    assert not conn.execute("select from pg_class where relname like 'look\\_%'").fetchall()


@pytest.mark.parametrize("failpoint", SNAPSHOT)
def test_a_snapshot_that_was_killed_begins_anew(orders: Queried, failpoint: str) -> None:
    connect = orders.warehouse.warehouse.connect
    assert killed_at(failpoint, 1, orders, lambda conn: take_snapshot(conn, connect, orders.stream))
    once_free(orders.snapshot)
    require_equal(orders)
    assert orders.log() == []
    orders.run("delete from orders where id = 1")
    assert orders.drain().changes == 1


@pytest.mark.parametrize(
    ("failpoint", "hits"), [*((name, 1) for name in LOOK), ("table_read", 2), ("applied", 2)]
)
def test_a_look_that_was_killed_leaves_all_or_nothing(orders: Queried, failpoint: str, hits: int) -> None:
    connect = orders.warehouse.warehouse.connect
    orders.snapshot()
    orders.run(
        "update orders set note = 'new', at = 1000 where id in (3, 4); delete from orders where id = 5"
    )
    orders.run(
        "insert into orders values (600, 'come', 1001); update orders set note = 'silent' where id = 9"
    )
    assert killed_at(failpoint, hits, orders, lambda conn: drain(conn, connect, orders.stream))
    before = orders.log()
    assert before == [] or failpoint == "table_looked_at"
    once_free(orders.drain)
    require_equal(orders)
    assert sorted(orders.log()) == [("d", 5), ("i", 600), ("u", 3), ("u", 4), ("u", 9)]
    assert orders.drain().changes == 0


def test_two_do_not_look_at_once(orders: Queried) -> None:
    orders.snapshot()
    with (
        closing(psycopg.connect(orders.warehouse.url, autocommit=True)) as conn,
        lease(conn, "erp"),
        pytest.raises(LockTakenError, match="another process follows erp"),
    ):
        orders.drain()


@pytest.mark.slow
def test_looks_killed_at_random_moments_under_a_write_load_lose_and_double_nothing(orders: Queried) -> None:
    chance = random.Random(20261124)
    connect = orders.warehouse.warehouse.connect
    orders.snapshot()
    before = {id_: (id_, note, at) for id_, note, at in orders.mirror("id, note, at")}
    killed = 0
    for round_ in range(100):
        for _ in range(chance.randrange(6)):
            key = chance.randrange(1, 700)
            orders.run(
                chance.choice(
                    [
                        f"delete from orders where id = {key}",
                        f"update orders set note = 'round {round_}' where id = {key}",
                        f"insert into orders values ({key}, 'new', {1000 + round_}) on conflict do nothing",
                    ]
                )
            )
        pid = os.fork()
        if pid == 0:
            try:
                with (
                    closing(psycopg.connect(orders.warehouse.url, autocommit=True)) as conn,
                    lease(conn, "erp"),
                ):
                    drain(conn, connect, orders.stream)
            finally:
                os._exit(0)
        time.sleep(chance.random() * 0.3)
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    once_free(orders.drain)
    require_equal(orders)
    assert killed > 10
    for op, *values in orders.log("_op, id, note, at"):
        row = tuple(values)
        assert (row[0] in before) == (op != "i")
        if op == "d":
            assert before.pop(row[0]) == row
        else:
            before[row[0]] = row
    assert sorted(before.values()) == orders.mirror("id, note, at")
