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


def test_a_table_that_just_grew_is_compared_in_as_many_buckets_as_it_needs(postgres: Queried) -> None:
    postgres.run(ORDERS)
    postgres.follow()
    postgres.snapshot()
    postgres.run("insert into orders select n, 'note' from generate_series(1, 5000) n")
    assert postgres.drain().changes == 5000
    postgres.run("delete from orders where id = 77")
    done = postgres.drain()
    assert (done.changes, done.rows_read["orders"] < 1000) == (1, True)


TYPES = {
    "boolean": "true",
    "bigint": "-9223372036854775808",
    "numeric": "1.10",
    "numeric(20,4)": "'NaN'",
    "real": "0.1",
    "float8": "1e-300",
    "double precision": "'-Infinity'",
    "money": "12.5",
    "char(5)": "'a'",
    "text": "E'1:x;N\\n\\\\'",
    "bytea": "'\\x00ff'",
    "date": "'infinity'",
    "time": "'24:00'",
    "timetz": "'12:00+02'",
    "timestamp": "'4713-01-01 00:00:00 BC'",
    "timestamptz": "'2024-02-29 12:00:00.000001+05'",
    "interval": "'1 year -2 days 3:04:05.6'",
    "json": """'{"b": 1,  "a": 1e400}'""",
    "jsonb": """'{"b": 1,  "a": 1.10}'""",
    "uuid": "'123e4567-e89b-12d3-a456-426655440000'",
    "inet": "'10.0.0.1/8'",
    "bit(3)": "'101'",
    "varbit": "'1'",
    "point": "'(1.5,-0)'",
    "int4range": "'[1,5)'",
    "tstzrange": "'[2024-01-01 00:00+01,)'",
    "int[]": "'[2:3]={1,NULL}'",
    "text[]": """array['a,b', '"', null, 'NULL']""",
    "tsvector": "'a b'",
    "mood": "'sad'",
    "mood[]": "'{sad,NULL}'",
    "short": "'x'",
}


def test_values_of_each_type_are_hashed_alike_whatever_the_servers_settings(postgres: Queried) -> None:
    postgres.run("create type mood as enum ('sad', 'glad'); create domain short as varchar(3)")
    columns = ", ".join(f"c{n} {type_}" for n, type_ in enumerate(TYPES))
    postgres.run(f"create table orders (id int primary key, {columns})")
    postgres.run(f"insert into orders values (1, {', '.join(TYPES.values())}); insert into orders values (2)")
    (name,) = postgres.read("select current_database()")[0]
    for setting in ("datestyle = 'SQL, DMY'", "intervalstyle = 'iso_8601'", "timezone = 'Asia/Tokyo'"):
        postgres.run(f"alter database {name} set {setting}")
    postgres.warehouse.conn.execute(
        "set intervalstyle = 'iso_8601'; set bytea_output = 'escape'; set extra_float_digits = 0;"
        " set timezone = 'Asia/Tokyo'"
    )
    postgres.follow()
    postgres.snapshot()
    assert postgres.drain().rows_read == {"orders": 0}
    postgres.run("update orders set id = 3 where id = 1")
    assert postgres.drain().changes == 2
