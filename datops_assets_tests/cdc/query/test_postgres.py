"""A PostgreSQL that is asked: by a cursor, by its keys, by hashes of its rows."""

from __future__ import annotations

from datops_assets_tests.cdc.query.conftest import Queried

ORDERS = "create table orders (id int primary key, note text, at timestamptz default now())"


def test_news_come_by_the_cursor_and_the_log_says_what_they_are(postgres: Queried) -> None:
    postgres.run(f"{ORDERS}; insert into orders values (1, 'a'), (2, 'b')")
    postgres.follow(cursor="at", lookback="10m", compare="never")
    assert postgres.snapshot() == {"orders": 2}
    postgres.run("insert into orders values (3, 'c'); update orders set note = 'B', at = now() where id = 2")
    done = postgres.drain()
    assert (done.changes, done.tables, done.applied) == (2, {"orders": 2}, "look 2")
    assert postgres.mirror("id, note") == [(1, "a"), (2, "B"), (3, "c")]
    assert set(postgres.log("_op, id, note, _look")) == {("u", 2, "B", 2), ("i", 3, "c", 2)}
    assert postgres.drain().changes == 0


def test_deletes_and_changed_keys_are_found_by_comparing_keys(postgres: Queried) -> None:
    postgres.run(f"{ORDERS}; insert into orders select n, 'note ' || n from generate_series(1, 5000) n")
    postgres.run("update orders set at = at - id * interval '1 second'")
    postgres.follow(cursor="at")
    postgres.snapshot()
    postgres.run("delete from orders where id in (17, 4000); update orders set id = 6000 where id = 3")
    done = postgres.drain()
    assert sorted(postgres.log()) == [("d", 3), ("d", 17), ("d", 4000), ("i", 6000)]
    assert done.rows_read["orders"] < 1000
    assert postgres.log("_op, note")[0] == ("d", "note 3")
    assert len(postgres.mirror()) == 4998


def test_rows_without_a_cursor_are_compared_where_they_are(postgres: Queried) -> None:
    postgres.run(f"{ORDERS}; insert into orders select n, 'note ' || n from generate_series(1, 5000) n")
    postgres.follow()
    postgres.snapshot()
    postgres.run("update orders set note = 'changed' where id in (5, 500); delete from orders where id = 9")
    done = postgres.drain()
    assert sorted(postgres.log("_op, id, note")) == [
        ("d", 9, "note 9"), ("u", 5, "changed"), ("u", 500, "changed"),
    ]  # fmt: skip
    assert 0 < done.rows_read["orders"] < 1000
    assert postgres.drain().rows_read == {"orders": 0}
