"""History (SCD2) by queries: as of any look it is what that look saw."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datops_assets.cdc import Told, forget_changes, tell_history
from datops_assets.errors import LoadRefusedError
from datops_assets.postgres import failpoints
from datops_assets_tests.cdc.query.conftest import Queried

Rows = dict[int, str]


def keep(queried: Queried, **more: str) -> None:
    """Declare the history of the table `orders`."""
    queried.follow(**more)
    tables = tuple(replace(one, history=True) for one in queried.stream.tables)
    queried.stream = replace(queried.stream, tables=tables)


def tell(queried: Queried, most: int = 1000) -> Told:
    return tell_history(queried.warehouse.conn, "erp", "orders", {}, most=most)


def looks(queried: Queried) -> int:
    (number,) = queried.warehouse.fetch("select looks from datops.streams")[0]
    return int(number)


def as_of(queried: Queried, look: int) -> Rows:
    rows = queried.warehouse.fetch(
        "select id, note from silver.erp_orders_history where _from_look <= %s and (_to_look is null or _to_look > %s)",
        look, look,
    )  # fmt: skip
    assert len(rows) == len({id_ for id_, _ in rows})
    return {int(id_): note for id_, note in rows}


def versions(queried: Queried, columns: str) -> list[tuple[object, ...]]:
    return queried.warehouse.fetch(f"select {columns} from silver.erp_orders_history order by _from_look, id")


def test_each_look_that_saw_another_row_begins_a_version(source: Queried) -> None:
    source.run("create table orders (id int primary key, note varchar(20))")
    source.run("insert into orders values (1, 'a'), (2, 'b')")
    keep(source)
    source.snapshot()
    first = looks(source)
    source.run("update orders set note = 'never seen' where id = 1")
    source.run("update orders set note = 'c' where id = 1")
    source.run("delete from orders where id = 2")
    source.drain()
    second = looks(source)
    source.run("insert into orders values (2, 'again')")
    source.drain()
    done = tell(source)
    assert (done.changes, done.begun, done.ended) == (3, 2, 2)
    assert as_of(source, first) == {1: "a", 2: "b"}
    assert as_of(source, second) == {1: "c"}
    assert as_of(source, looks(source)) == {1: "c", 2: "again"}
    assert versions(source, "note, _op::text, _is_current") == [
        ("a", "s", False), ("b", "s", False), ("c", "u", True), ("again", "i", True),
    ]  # fmt: skip
    (seen,) = source.warehouse.fetch(
        "select bool_and(h._valid_from = l._seen_at) from silver.erp_orders_history h"
        " join bronze.erp_orders_changes l on l._look = h._from_look and l.id = h.id"
    )[0]
    assert seen
    done = tell(source)
    assert (done.changes, done.told) == (0, str(looks(source)))


def test_changes_that_a_history_has_not_read_are_kept(postgres: Queried) -> None:
    postgres.run("create table orders (id int primary key, note text); insert into orders values (1, 'a')")
    keep(postgres)
    postgres.snapshot()
    postgres.run("update orders set note = 'b'")
    postgres.drain()
    conn = postgres.warehouse.conn
    conn.execute("update bronze.erp_orders_changes set _seen_at = now() - interval '9 days'")
    assert forget_changes(conn, "erp", "orders", 1) == 0
    tell(postgres)
    assert forget_changes(conn, "erp", "orders", 1) == 1
    assert versions(postgres, "note") == [("a",), ("b",)]


def test_a_history_that_was_asked_for_later_begins_with_the_mirror(postgres: Queried) -> None:
    postgres.run("create table orders (id int primary key, note text); insert into orders values (1, 'a')")
    postgres.follow()
    postgres.snapshot()
    postgres.run("update orders set note = 'b'")
    postgres.drain()
    keep(postgres)
    assert tell(postgres).begun == 1
    postgres.run("update orders set note = 'c'")
    postgres.drain()
    tell(postgres)
    assert versions(postgres, "note, _op::text, _is_current") == [("b", "s", False), ("c", "u", True)]


def test_columns_that_change_are_followed(postgres: Queried) -> None:
    postgres.run("create table orders (id int primary key, note text, n text)")
    postgres.run("insert into orders values (1, 'a', '7'), (2, 'b', '8')")
    keep(postgres)
    postgres.snapshot()
    postgres.run("alter table orders alter n type int using n::int; alter table orders add column more text")
    postgres.run("update orders set more = 'x' where id = 1")
    postgres.drain()
    tell(postgres)
    current = postgres.warehouse.fetch(
        "select id, n, more from silver.erp_orders_history where _is_current order by id"
    )
    assert current == [(1, 7, "x"), (2, 8, None)]


def test_a_history_that_was_told_of_a_log_is_not_gone_on_with(postgres: Queried) -> None:
    postgres.run("create table orders (id int primary key, note text); insert into orders values (1, 'a')")
    keep(postgres)
    postgres.snapshot()
    conn = postgres.warehouse.conn
    conn.execute("alter table silver.erp_orders_history rename _from_look to _from_lsn")
    with pytest.raises(LoadRefusedError, match="told of another kind of capture"):
        tell(postgres)
    conn.execute("alter table silver.erp_orders_history rename to erp_orders_history_until_now")
    assert tell(postgres).begun == 1
    assert as_of(postgres, looks(postgres)) == {1: "a"}


def kill_at(
    failpoint: str, hits: int, queried: Queried, work: Callable[[psycopg.Connection], object]
) -> None:
    """Let a fork work until it comes by, and dies."""
    pid = os.fork()
    if pid == 0:
        try:
            failpoints.arm(failpoint, hits)
            with closing(psycopg.connect(queried.warehouse.url, autocommit=True)) as conn:
                work(conn)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"never came by {failpoint}"


@pytest.mark.cdc_kill
@pytest.mark.parametrize(
    ("failpoint", "hits"),
    [("history_written", 1), ("history_told", 2), ("history_committed", 1), ("history_committed", 2)],
)
def test_a_killed_telling_goes_on_from_its_look(postgres: Queried, failpoint: str, hits: int) -> None:
    postgres.run(
        "create table orders (id int primary key, note text); insert into orders values (1, 'a'), (2, 'b')"
    )
    keep(postgres)
    postgres.snapshot()
    known = {looks(postgres): {1: "a", 2: "b"}}
    for statement, rows in (
        ("update orders set note = 'c' where id = 1", {1: "c", 2: "b"}),
        ("delete from orders where id = 2", {1: "c"}),
        ("insert into orders values (2, 'd')", {1: "c", 2: "d"}),
    ):
        postgres.run(statement)
        postgres.drain()
        known[looks(postgres)] = rows
    kill_at(failpoint, hits, postgres, lambda conn: tell_history(conn, "erp", "orders", {}, most=1))
    tell(postgres, most=1)
    assert {look: as_of(postgres, look) for look in known} == known
    assert len(versions(postgres, "id")) == 4


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "put", "delete"]), st.integers(1, 3)),
        st.tuples(st.sampled_from(["look", "look", "tell", "resync", "clear"]), st.just(0)),
    ),
    min_size=5,
    max_size=20,
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, most=st.sampled_from([1, 1000]))
def test_as_of_any_look_the_history_is_what_that_look_saw(
    sqlite: Queried, steps: list[tuple[str, int]], most: int
) -> None:
    """However changes, looks, copies and tellings come one after the other."""
    conn = sqlite.warehouse.conn
    sqlite.run("drop table if exists orders; create table orders (id integer primary key, note text)")
    conn.execute("drop table if exists silver.erp_orders_history, silver.erp_orders_history__copy")
    keep(sqlite)
    sqlite.snapshot()
    there: Rows = {}
    known = {looks(sqlite): dict(there)}
    for number, (step, key) in enumerate([*steps, ("look", 0)]):
        if step == "put":
            there[key] = f"v{number}"
            sqlite.run(f"insert or replace into orders values ({key}, 'v{number}')")
        elif step == "delete":
            there.pop(key, None)
            sqlite.run(f"delete from orders where id = {key}")
        elif step == "clear":
            there.clear()
            sqlite.run("delete from orders")
        elif step == "tell":
            tell(sqlite, most)
        else:
            (sqlite.drain if step == "look" else sqlite.snapshot)()
            known[looks(sqlite)] = dict(there)
    tell(sqlite, most)
    assert {look: as_of(sqlite, look) for look in known} == known
