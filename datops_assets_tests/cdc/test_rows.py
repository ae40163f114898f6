"""What happens to rows: the cases of inserts, updates, deletes, moved keys and values left out."""

from __future__ import annotations

import pytest

from datops_assets_tests.cdc.conftest import Followed


def test_a_snapshot_then_the_stream_without_a_gap(followed: Followed) -> None:
    followed.run("create table orders (id int primary key, note text, amount numeric)")
    followed.run("insert into orders select n, 'note ' || n, n * 1.10 from generate_series(1, 1000) n")
    followed.follow("orders")
    assert followed.snapshot().rows == {"orders": 1000}
    followed.require_equal()
    followed.run("insert into orders values (2000, 'new', 1.10); update orders set note = 'x' where id = 1")
    followed.run("delete from orders where id = 2")
    done = followed.drain()
    assert (done.changes, done.tables) == (3, {"orders": 3})
    followed.require_equal()
    assert [op for (op,) in followed.log("orders", "_op::text")] == ["i", "u", "d"]
    assert followed.drain().changes == 0


@pytest.mark.cdc_case(14)
def test_changes_of_one_key_in_one_transaction(followed: Followed) -> None:
    followed.run("create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')")
    followed.follow("t")
    followed.snapshot()
    followed.run(
        "begin; insert into t values (3, 'x'); update t set v = 'y' where id = 3; delete from t where id = 3;"
        " update t set v = 'c' where id = 1; delete from t where id = 1; delete from t where id = 2;"
        " insert into t values (2, 'again'); commit"
    )
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(15)
def test_a_key_that_changes_leaves_nothing_behind(followed: Followed) -> None:
    followed.run("create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')")
    followed.follow("t")
    followed.snapshot()
    followed.run(
        "begin; update t set id = -1 where id = 1; update t set id = 1 where id = 2;"
        " update t set id = 2 where id = -1; commit"
    )
    followed.run("update t set id = 7 where id = 1")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(17)
def test_values_left_out_of_an_update_are_kept(followed: Followed) -> None:
    followed.run("create table t (id int primary key, big text, other text, n int)")
    followed.run("alter table t alter big set storage external, alter other set storage external")
    followed.run(
        "insert into t select n, repeat('x' || n, 3000), repeat('y' || n, 3000), 0 from generate_series(1, 5) n"
    )
    followed.follow("t")
    followed.snapshot()
    followed.run("update t set n = 1")
    followed.drain()
    followed.require_equal()
    followed.run(
        "begin; update t set n = 2 where id = 1; update t set big = repeat('z', 9000) where id = 1;"
        " update t set n = 3 where id = 1; update t set other = repeat('w', 9000) where id = 1;"
        " update t set n = 4 where id = 1; commit"
    )
    followed.run("begin; update t set id = 20 where id = 2; update t set n = 9 where id = 20; commit")
    followed.run(
        "begin; delete from t where id = 3; insert into t values (3, repeat('q', 9000), null, 1);"
        " update t set n = 5 where id = 3; commit"
    )
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(20)
def test_truncate_keeps_its_place_among_the_rows(followed: Followed) -> None:
    followed.run(
        "create table t (id int primary key, v text);"
        " insert into t select n, 'a' from generate_series(1, 9) n"
    )
    followed.follow("t")
    followed.snapshot()
    followed.run(
        "begin; insert into t values (100, 'gone'); truncate t; insert into t values (1, 'new'); commit"
    )
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(55)
def test_a_new_column_is_followed(followed: Followed) -> None:
    followed.run("create table t (id int primary key, v text); insert into t values (1, 'a')")
    followed.follow("t")
    followed.snapshot()
    followed.run(
        "insert into t values (2, 'b'); alter table t add w numeric; insert into t values (3, 'c', 1.50);"
        " update t set w = 2 where id = 1"
    )
    assert followed.drain().columns_added == {"t": ["w"]}
    followed.require_equal()
