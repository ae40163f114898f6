"""A SQLite file: any value may stand in any column, and its hashes are computed in our process."""

from __future__ import annotations

from datops_assets_tests.cdc.query.conftest import Queried


def test_values_of_any_kind_in_one_column_are_told_apart(sqlite: Queried) -> None:
    sqlite.run("create table orders (id integer primary key, value)")
    values = ["1", "1.0", "'1'", "1e300", "null", "''", "x'00ff'", "'é 🜚'", "-0.0", "9223372036854775807"]
    rows = ", ".join(f"({n}, {value})" for n, value in enumerate(values * 30))
    sqlite.run(f"insert into orders values {rows}")
    sqlite.follow()
    sqlite.snapshot()
    assert sqlite.drain().rows_read == {"orders": 0}
    for before, after in (
        ("1.0", "1"),
        ("''", "null"),
        ("x'00ff'", "x'00fe'"),
        ("1e300", "1.0000000001e300"),
    ):
        sqlite.run(f"update orders set value = {after} where id = (select min(id) from orders where value = {before}"
                   f" and typeof(value) = typeof({before}))")  # fmt: skip
        done = sqlite.drain()
        assert (done.changes, done.rows_read["orders"] < 200) == (1, True), before
    there = {str(id_): value for id_, value in sqlite.read("select id, value from orders")}
    here = dict(sqlite.mirror("id, value"))
    assert here.keys() == there.keys()
    assert here["6"] == "\\x00fe"


def test_a_table_of_more_columns_than_a_function_takes_is_read_whole(sqlite: Queried) -> None:
    columns = ", ".join(f"c{n}" for n in range(150))
    sqlite.run(f"create table orders (id integer primary key, {columns})")
    sqlite.run("insert into orders (id, c149) values (1, 'a'), (2, 'b')")
    sqlite.follow()
    sqlite.snapshot()
    sqlite.run("update orders set c149 = 'c' where id = 2")
    done = sqlite.drain()
    assert (done.changes, done.rows_read) == (1, {"orders": 2})


def test_a_writer_goes_on_while_the_table_is_looked_at(sqlite: Queried) -> None:
    sqlite.run("pragma journal_mode = wal; create table orders (id integer primary key, value)")
    sqlite.run("insert into orders values (1, 'a')")
    sqlite.follow()
    sqlite.snapshot()
    with sqlite.stream.tables[0].look() as look:
        sqlite.run("insert into orders values (2, 'meanwhile')")
        assert sum(rows for rows, _ in look.summaries(["id"], None, 4).values()) == 1
    assert sqlite.drain().changes == 1
