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


@pytest.mark.cdc_case(14)
@pytest.mark.parametrize("drains", [False, True], ids=["in one batch", "across batches"])
@pytest.mark.parametrize(
    "steps",
    [
        ["insert into t values (9, 'i')", "update t set v = 'u' where id = 9", "delete from t where id = 9"],
        ["update t set v = 'u' where id = 1", "delete from t where id = 1"],
        ["delete from t where id = 1", "insert into t values (1, 'again')"],
        [
            "delete from t where id = 1",
            "insert into t values (1, 'again')",
            "update t set v = 'u' where id = 1",
        ],
        ["insert into t values (9, 'i')", "delete from t where id = 9", "insert into t values (9, 'j')"],
    ],
)
def test_every_order_of_changes_of_one_key(followed: Followed, steps: list[str], drains: bool) -> None:
    followed.run("create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')")
    followed.follow("t")
    followed.snapshot()
    for step in steps:
        followed.run(step)
        if drains:
            followed.drain()
            followed.require_equal()
    followed.drain()
    followed.require_equal()
    assert len(followed.log("t")) == len(steps)


LARGE = {
    "text": "repeat({}::text, 3000)",
    "jsonb": "jsonb_build_object('k', repeat({}::text, 3000))",
    "json": "json_build_object('k', repeat({}::text, 3000))",
    "bytea": "decode(repeat('0' || {}, 3000), 'hex')",
    "numeric": "repeat({}::text, 6000)::numeric",
    "int[]": "array_fill({}, array[3000])",
    "text[]": "array_fill({}::text, array[3000])",
    "numeric[]": "array_fill({}::numeric, array[3000])",
    "timestamptz[]": "array_fill('2026-01-0{}'::timestamptz, array[3000])",
    "uuid[]": "array_fill('00000000-0000-0000-0000-00000000000{}'::uuid, array[900])",
    "jsonb[]": "array_fill(to_jsonb({}), array[3000])",
    "int4multirange": ("(select range_agg(int4range(n * 10, n * 10 + {})) from generate_series(1, 900) n)"),
    "tsvector": "to_tsvector('simple', (select string_agg('w' || n || {}, ' ') from generate_series(1, 900) n))",
}


@pytest.mark.cdc_case(17)
@pytest.mark.parametrize("identity", ["default", pytest.param("full", marks=pytest.mark.slow)])
def test_large_values_of_every_type_in_every_order(followed: Followed, identity: str) -> None:
    """Left out once and twice, before and after they change, of a key that moves, in one batch and across."""
    columns = [f"c{number}" for number in range(len(LARGE))]
    typed = ", ".join(map(" ".join, zip(columns, LARGE, strict=True)))
    followed.run(f"create table t (id int primary key, n int, {typed})")
    followed.run("; ".join(f"alter table t alter {column} set storage external" for column in columns))
    followed.run(f"alter table t replica identity {identity}")

    def values(digit: int) -> list[str]:
        return [large.format(digit) for large in LARGE.values()]

    for key in range(1, 9):
        followed.run(f"insert into t select {key}, 0, {', '.join(values(key))}")
    followed.follow("t")
    followed.snapshot()
    changed = ", ".join(f"{column} = {value}" for column, value in zip(columns, values(9), strict=True))
    nulls = ", ".join(f"{column} = null" for column in columns)
    followed.run("update t set n = 1 where id = 1")  # another column
    followed.run("begin; update t set n = 1 where id = 2; update t set n = 2 where id = 2; commit")  # twice
    followed.run(f"begin; update t set {changed} where id = 3; update t set n = 2 where id = 3; commit")
    followed.run(f"begin; update t set n = 1 where id = 4; update t set {changed} where id = 4; commit")
    followed.run("update t set id = 50 where id = 5; update t set n = 9 where id = 50")  # the key moves
    followed.run("begin; update t set id = -id where id in (6, 7); update t set id = 6 where id = -7; commit")
    followed.run(f"update t set {nulls} where id = 8; update t set n = 3 where id = 8")
    followed.drain()
    followed.require_equal()
    followed.run(f"update t set n = 7; update t set {columns[0]} = 'small' where id = 1; update t set n = 8")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(15, 39)
@pytest.mark.parametrize(
    ("kind", "one", "same"),
    [
        ("numeric", "1.0", "1.00"),
        pytest.param("double precision", "'0'", "'-0'", marks=pytest.mark.slow),
        pytest.param("interval", "'1 day'", "'24 hours'", marks=pytest.mark.slow),
        ("jsonb", "'[1.0]'", "'[1.00]'"),
        pytest.param("numeric[]", "'{1.0}'", "'{1.00}'", marks=pytest.mark.slow),
        pytest.param("numrange", "'[1.0,2)'", "'[1.00,2)'", marks=pytest.mark.slow),
    ],
)
def test_a_key_written_another_way(followed: Followed, kind: str, one: str, same: str) -> None:
    """Equal for the key, and not to the byte: the mirror has it as the source has it now."""
    followed.run(f"create table t (id {kind} primary key, v text); insert into t values ({one}, 'a')")
    followed.follow("t")
    followed.snapshot()
    followed.run(f"update t set id = {same}")
    followed.drain()
    followed.require_equal()
    followed.run(f"begin; update t set id = {one}, v = 'b'; update t set id = {same}, v = 'c'; commit")
    followed.drain()
    followed.require_equal()
    followed.run(f"delete from t; insert into t values ({one}, 'd')")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(20)
def test_restart_identity_and_order_among_tables(followed: Followed) -> None:
    followed.run("create table a (id int generated always as identity primary key, v text)")
    followed.run("create table b (id serial primary key, a int references a)")
    followed.run(
        "insert into a (v) select 'x' from generate_series(1, 5); insert into b (a) select generate_series(1, 5)"
    )
    followed.follow("a", "b")
    followed.snapshot()
    followed.run(
        "begin; insert into a (v) values ('six'); truncate b, a restart identity; insert into a (v) values ('one');"
        " insert into b (a) values (1); truncate b restart identity; insert into b (a) values (1); commit"
    )
    followed.drain()
    followed.require_equal()
    assert followed.warehouse.fetch("select id, v from bronze.erp_a") == [(1, "one")]
    assert [op for (op,) in followed.log("b", "_op::text")] == ["t", "i", "t", "i"]
