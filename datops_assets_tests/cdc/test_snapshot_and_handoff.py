"""From the snapshot to the stream: nothing missing, nothing twice, whoever writes meanwhile."""

from __future__ import annotations

import random
import threading
from contextlib import closing, suppress
from typing import Any

import psycopg
import pytest

from datops_assets.cdc import snapshot as snapshot_module
from datops_assets.errors import SourceRefusedError, SourceUnreachableError
from datops_assets_tests.cdc.conftest import Followed


@pytest.mark.cdc_case(34)
def test_writers_throughout_the_snapshot(followed: Followed) -> None:
    """Case 34: in every table, every kind of change."""
    tables = [f"t{number}" for number in range(6)]
    for table in tables:
        followed.run(f"create table {table} (id int primary key, v text)")
        followed.run(f"insert into {table} select n, repeat('x', 200) from generate_series(1, 3000) n")
    followed.follow(*tables)
    stopped = threading.Event()

    def write() -> None:
        draws = random.Random(3)
        with closing(psycopg.connect(**followed.parameters, autocommit=True)) as conn:
            while not stopped.is_set():
                table, key = draws.choice(tables), draws.randint(1, 3000)
                statement = draws.choice(
                    [
                        f"update {table} set v = 'u{key}' where id between {key} and {key + 20}",
                        f"delete from {table} where id = {key}",
                        f"insert into {table} values ({key + 10_000}, 'new')",
                        f"update {table} set id = -id where id = {key}",
                    ]
                )
                with suppress(psycopg.errors.UniqueViolation):
                    conn.execute(statement)  # type: ignore[call-overload]

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        followed.snapshot()
        for _ in range(5):
            followed.drain()
    finally:
        stopped.set()
        writer.join()
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(35)
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_transaction_open_before_the_slot_was_made(followed: Followed, ends: str) -> None:
    """Case 35: it is in the snapshot or in the stream, never in both, never in neither."""
    followed.run("create table t (id int primary key, v text); insert into t values (1, 'a')")
    followed.follow("t")
    with closing(psycopg.connect(**followed.parameters)) as other:
        other.execute("insert into t values (2, 'open'); update t set v = 'open' where id = 1")
        taken: list[object] = []
        snapshot = threading.Thread(target=lambda: taken.append(followed.snapshot()), daemon=True)
        snapshot.start()
        snapshot.join(1)
        assert snapshot.is_alive(), "the source makes a slot once all open transactions have ended"
        other.execute("insert into t values (3, 'during')")
        getattr(other, ends)()
    snapshot.join(60)
    assert len(taken) == 1
    followed.run("insert into t values (4, 'after')")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(37)
def test_all_tables_are_copied_as_of_one_moment(followed: Followed) -> None:
    """Money moves between tables all the time; before any drain the mirrors hold as much of it as there is."""
    tables = [f"t{number}" for number in range(6)]
    for table in tables:
        followed.run(f"create table {table} (id int primary key, money int, filler text)")
        followed.run(f"insert into {table} select n, 10, repeat('x', 400) from generate_series(1, 3000) n")
    followed.follow(*tables)
    stopped = threading.Event()

    def move() -> None:
        draws = random.Random(5)
        with closing(psycopg.connect(**followed.parameters, autocommit=True)) as conn:
            while not stopped.is_set():
                one, other = draws.sample(tables, 2)
                conn.execute(
                    f"update {one} set money = money - 3 where id = {draws.randint(1, 3000)};"
                    f" update {other} set money = money + 3 where id = {draws.randint(1, 3000)}"
                )

    writer = threading.Thread(target=move, daemon=True)
    writer.start()
    try:
        for _ in range(3):
            followed.snapshot()
            total = " + ".join(f"(select sum(money) from bronze.erp_{table})" for table in tables)
            assert followed.warehouse.fetch(f"select {total}") == [(6 * 3000 * 10,)]
    finally:
        stopped.set()
        writer.join()
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(36)
@pytest.mark.parametrize(
    ("statement", "ends"),
    [
        pytest.param("vacuum full t", SourceUnreachableError, marks=pytest.mark.slow),
        ("alter table t alter n type int using n * 2", SourceUnreachableError),
        ("truncate t", SourceUnreachableError),
        pytest.param("delete from t where id > 100", None, marks=pytest.mark.slow),
        ("insert into t select n, 1 from generate_series(10000, 20000) n", None),
    ],
)
def test_what_happens_between_the_slot_and_the_copy(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, statement: str, ends: type[Exception] | None
) -> None:
    """A table that was written anew looks empty to the slot's snapshot: the copy is refused, and taken again."""
    followed.run(
        "create table t (id int primary key, n int); insert into t select n, n from generate_series(1, 3000) n"
    )
    followed.follow("t")
    made = snapshot_module.create_slot

    def make(*arguments: Any, **more: Any) -> Any:
        slot = made(*arguments, **more)
        followed.run(statement)
        return slot

    monkeypatch.setattr(snapshot_module, "create_slot", make)
    if ends is not None:
        with pytest.raises(ends, match=r"public\.t was written anew"):
            followed.snapshot()
        monkeypatch.undo()
    followed.snapshot()
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(36)
@pytest.mark.parametrize("rows", [0, 1])
def test_small_tables(followed: Followed, rows: int) -> None:
    """Case 36."""
    followed.run(f"create table t (id int primary key); insert into t select generate_series(1, {rows})")
    followed.follow("t")
    assert followed.snapshot().rows == {"t": rows}
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(40)
def test_a_table_that_was_dropped_and_made_again(followed: Followed) -> None:
    """Case 40: the new one is another table, which the publication does not have."""
    followed.run("create table t (id int primary key, v text); insert into t values (1, 'a')")
    followed.follow("t")
    followed.snapshot()
    followed.run(
        "drop table t; create table t (id int primary key, v text); insert into t values (1, 'other')"
    )
    with pytest.raises(
        SourceRefusedError, match=r"public\.t is not the table that was copied.*datops cdc resync erp"
    ):
        followed.drain()
    followed.snapshot()
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(46)
def test_a_walsender_that_is_ended_costs_a_try(followed: Followed) -> None:
    """Case 46."""
    followed.run("create table t (id int primary key, v text)")
    followed.follow("t")
    followed.snapshot()
    followed.run("insert into t select n, repeat('x', 1000) from generate_series(1, 60000) n")
    ended = threading.Event()

    def end() -> None:
        query = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s and active"
        with closing(psycopg.connect(**followed.parameters, autocommit=True)) as conn:
            for _ in range(2000):
                if conn.execute(query, (followed.stream.slot,)).fetchone():
                    break
        ended.set()

    threading.Thread(target=end, daemon=True).start()
    with pytest.raises((SourceUnreachableError, SourceRefusedError)):
        followed.drain()
    assert ended.wait(30)
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(49)
def test_a_slot_that_somebody_else_read(followed: Followed) -> None:
    """Case 49."""
    followed.run("create table t (id int primary key); insert into t values (1)")
    followed.follow("t")
    followed.snapshot()
    followed.run("insert into t values (2)")
    followed.source.execute(
        "select pg_replication_slot_advance(%s, pg_current_wal_lsn())", (followed.stream.slot,)
    )
    with pytest.raises(SourceRefusedError, match=r"somebody else read the slot.*datops cdc resync erp"):
        followed.drain()
