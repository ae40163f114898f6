"""PostgreSQL tables into bronze: every type as it is, whole or by a cursor, nothing twice."""

from __future__ import annotations

from typing import Any

import pytest

from datops_assets.errors import SourceRefusedError, SourceUnreachableError
from datops_assets.ingestion import reload_load, undo_load
from datops_assets.ingestion.database import Address, Lookback, open_database
from datops_assets_tests.ingestion.database.conftest import Shop

# Type as declared, a value that is easily bent, the type in bronze.
VALUES: list[tuple[str, str, str]] = [
    ("smallint", "-32768", "smallint"),
    ("bigint", "9223372036854775807", "bigint"),
    ("numeric", "123456789012345678901234567890.12345678901234567890", "numeric"),
    ("numeric(12,4)", "1.5000", "numeric"),
    ("numeric", "'NaN'", "numeric"),
    ("real", "0.1", "real"),
    ("double precision", "'-Infinity'", "double precision"),
    ("money", "1234.56", "numeric"),
    ("text", "E'tab\\t\\\\ \"quote\" \\u00e4\\U0001F600'", "text"),
    ("varchar(20)", "''", "text"),
    ("char(4)", "'ab'", "text"),
    ("bytea", r"'\x00ff5c'", "bytea"),
    ("boolean", "true", "boolean"),
    ("date", "'infinity'", "date"),
    ("date", "'0044-03-15 BC'", "date"),
    ("time(3)", "'24:00'", "time without time zone"),
    ("timetz", "'12:00:00.123456+05:30'", "time with time zone"),
    ("timestamp", "'2026-01-31 23:59:59.999999'", "timestamp without time zone"),
    ("timestamptz", "'2026-01-31 23:59:59.999999+09'", "timestamp with time zone"),
    ("interval", "'1 year 2 days 03:04:05.678901'", "interval"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "uuid"),
    ("json", """'{"a": 1, "a": 2}'""", "json"),
    ("jsonb", """'{"b": [1, null, 1.10]}'""", "jsonb"),
    ("inet", "'192.168.0.1/24'", "inet"),
    ("cidr", "'2001:db8::/32'", "cidr"),
    ("macaddr8", "'08:00:2b:01:02:03:04:05'", "macaddr8"),
    ("bit(3)", "B'101'", "bit varying"),
    ("integer[]", "'{{1,2},{3,null}}'", "integer[]"),
    ("varchar(5)[]", """'{"a,b",null,""}'""", "text[]"),
    ("numeric(5,2)[]", "'{1.50}'", "numeric[]"),
    ("int4range", "'[1,5)'", "int4range"),
    ("tstzmultirange", "'{[2026-01-01,2026-02-01)}'", "tstzmultirange"),
    ("point", "'(1.5,2)'", "point"),
    ("pg_lsn", "'16/B374D848'", "pg_lsn"),
    ("jsonpath", "'$.a[*]'", "text"),
    ("tsvector", "'a:1 b:2'", "text"),
    ("mood", "'so so'", "text"),
    ("mood[]", """'{"so so",happy}'""", "text[]"),
    ("positive", "7", "integer"),
    ("tags", "'{a,b}'", "text[]"),
    ("pair", "'(1,x)'", "text"),
    ("oid", "4000000000", "text"),
]


def test_every_type_arrives_as_it_is(shop: Shop) -> None:
    """The text that PostgreSQL prints of a value is the same on both sides, and so is a null."""
    shop.execute(
        "create type mood as enum ('so so', 'happy')",
        "create domain positive as integer check (value > 0)",
        "create domain tags as varchar(9)[]",
        "create type pair as (a int, b text)",
        "create table orders (" + ", ".join(f"c{n} {type_}" for n, (type_, _, _) in enumerate(VALUES)) + ")",
        "insert into orders values (" + ", ".join(f"{value}" for _, value, _ in VALUES) + ")",
        "insert into orders default values",
    )
    assert shop.load().failed == []
    columns = [f"c{n}" for n in range(len(VALUES))]
    assert shop.types() == {f"c{n}": type_ for n, (_, _, type_) in enumerate(VALUES)}
    printed = ", ".join(
        f"{name}::numeric::text" if type_ == "money" else f"{name}::text"
        for name, (type_, _, _) in zip(columns, VALUES, strict=True)
    )
    there = shop.conn.execute(f"select {printed} from orders").fetchall()  # type: ignore[call-overload]
    assert shop.rows(", ".join(f"{name}::text" for name in columns)) == there
    assert shop.rows("_row", "1") == [(1,), (2,)]


def test_a_table_that_did_not_change_changes_nothing(shop: Shop) -> None:
    """It is read again, found to be the same, and no load is entered."""
    shop.execute("create table orders (id int)", "insert into orders select generate_series(1, 1000)")
    shop.load()
    assert (shop.load().results, len(shop.loads())) == ([], 1)


def test_a_changed_table_takes_the_place_of_the_one_before(shop: Shop) -> None:
    """A vanished row is gone, and the old rows stay in bronze."""
    shop.execute("create table orders (id int)", "insert into orders values (1), (2)")
    shop.load()
    shop.execute("delete from orders where id = 1", "insert into orders values (3)")
    shop.load()
    assert shop.rows("id") == [(2,), (3,)]
    assert shop.warehouse.fetch("select count(*) from bronze.shop_orders") == [(4,)]


def test_an_emptied_table_does_not_take_the_place_of_records(shop: Shop) -> None:
    """A table somebody truncated by accident must not empty silver."""
    shop.execute("create table orders (id int)", "insert into orders values (1)")
    shop.load()
    shop.execute("truncate orders")
    (result,) = shop.load().results
    assert (result.state, shop.rows("id")) == ("refused", [(1,)])
    assert result.error is not None
    assert "is empty at the source" in result.error
    assert "declare `allow_empty: true` for shop.orders" in result.error


def test_an_emptied_table_takes_the_place_of_records_where_that_is_declared(shop: Shop) -> None:
    """Also after it was refused, once, and what it holds later is taken again."""
    shop.execute("create table orders (id int)", "insert into orders values (1)")
    shop.load()
    shop.execute("truncate orders")
    shop.load()
    shop.declare(allow_empty=True)
    assert [result.state for result in shop.load().results] == ["loaded"]
    assert shop.rows("id") == []
    assert shop.load().results == []
    shop.execute("insert into orders values (2)")
    shop.load()
    assert shop.rows("id") == [(2,)]


CURSORS: list[tuple[str, list[str]]] = [
    (
        "timestamptz",
        ["2026-01-01 00:00:00.000001+00", "2026-01-01 00:00:00.000002+00", "2026-03-29 01:30:00+00"],
    ),
    ("timestamp", ["2026-01-01 00:00:00.999999", "2026-01-01 00:00:01", "10000-01-01 00:00:00"]),
    ("date", ["0044-03-15 BC", "2026-01-01", "2026-01-02"]),
    ("integer", ["-5", "9", "10"]),
    ("bigint", ["9223372036854775805", "9223372036854775806", "9223372036854775807"]),
    ("numeric", ["1.0000000000000000000001", "1.0000000000000000000002", "2"]),
    ("text", ["01J", '01K\'s \\ "%s"', "01L"]),
    (
        "uuid",
        [f"0195{n}eeb-9c0b-7ef8-bb6d-6bb9bd380a11" for n in (1, 2, 3)],
    ),
]


@pytest.mark.parametrize(("type_", "values"), CURSORS, ids=[type_ for type_, _ in CURSORS])
def test_by_a_cursor_each_row_is_read_once(shop: Shop, type_: str, values: list[str]) -> None:
    """The watermark is written down exactly, whatever the cursor's type."""
    shop.declare(cursor="at", disposition="append")
    shop.execute(f"create table orders (at {type_})")
    for value in values:
        shop.conn.execute("insert into orders values (%s)", (value,))
        assert [result.rows for result in shop.load().results] == [1]
        assert shop.load().results == []
    assert shop.rows("at::text") == [(value,) for value in values]
    assert [load.watermark for load in shop.loads()] == values


def test_the_first_reading_takes_rows_without_a_cursor_value_too(shop: Shop) -> None:
    """And those at infinity, which is no place to go on from."""
    shop.declare(cursor="at", disposition="append")
    shop.execute(
        "create table orders (id int, at timestamptz)",
        "insert into orders values (1, null), (2, 'infinity'), (3, '-infinity'), (4, '2026-01-01Z')",
    )
    shop.load()
    shop.execute("insert into orders values (5, '2026-01-02Z')")
    shop.load()
    assert shop.rows("id") == [(1,), (2,), (3,), (4,), (5,)]


def test_rows_that_no_later_reading_brings_are_counted(shop: Shop) -> None:
    """Without a cursor value, or with one at infinity; of a table that is read whole there are none."""
    shop.declare(cursor="at", disposition="append")
    shop.execute(
        "create table orders (id int, at timestamptz)", "insert into orders values (1, '2026-01-01Z')"
    )
    assert shop.load().left_out == 0
    shop.execute("insert into orders values (2, null), (3, 'infinity')")
    loaded = shop.load()
    assert (loaded.left_out, loaded.rows_added) == (2, 0)
    with shop.source() as source:
        assert "2 of them have no value in the cursor 'at'" in source.check(shop.table).message
    shop.declare(cursor=None, disposition="replace")
    assert shop.load().left_out == 0


def test_a_lookback_brings_what_came_late(shop: Shop) -> None:
    """A row committed after the reading, with an older time, comes with the next one; and only then."""
    shop.declare(cursor="at", disposition="merge", lookback=Lookback.parse("1h"))
    shop.execute(
        "create table orders (id int, at timestamptz)",
        "insert into orders values (1, '2026-01-01 08:00Z'), (2, '2026-01-01 12:00Z')",
    )
    shop.load()
    shop.load()  # looks back once, and from then on knows the range
    assert shop.load().results == []
    shop.execute("insert into orders values (3, '2026-01-01 11:30Z'), (4, '2026-01-01 10:30Z')")
    shop.load()
    ids = [row[0] for row in shop.rows("distinct id", "1")]
    assert ids == [1, 2, 3]  # the fourth came too late for this lookback
    assert shop.load().results == []


def test_deleted_rows_do_not_move_the_watermark_back(shop: Shop) -> None:
    """Else what stands between would be read twice."""
    shop.declare(cursor="id", disposition="append")
    shop.execute("create table orders (id int)", "insert into orders values (1), (5)")
    shop.load()
    shop.execute("delete from orders where id = 5")
    assert shop.load().results == []
    shop.execute("insert into orders values (6)")
    shop.load()
    assert shop.rows("id") == [(1,), (5,), (6,)]


def test_an_undone_load_is_read_again_from_its_place(shop: Shop) -> None:
    """`load undo` takes its rows away, `load reload` reads again from the watermark before it."""
    shop.declare(cursor="id", disposition="append")
    shop.execute("create table orders (id int)", "insert into orders values (1)")
    shop.load()
    for number in (2, 3):
        shop.execute(f"insert into orders values ({number})")
        shop.load()
    undo_load(shop.warehouse.conn, shop.loads()[1].ulid)
    assert shop.rows("id") == [(1,), (3,)]
    reload_load(shop.warehouse.conn, shop.loads()[1].ulid)
    shop.load()
    assert shop.rows("id") == [(1,), (2,), (3,)]


def test_past_250_columns_the_rest_is_one_json_object(shop: Shop) -> None:
    """With names as they are there, numbers exact, nulls kept."""
    names = [f"c{n}" for n in range(300)]
    shop.execute(
        "create table orders (" + ", ".join(f'"{name}" numeric(30,20)' for name in names) + ")",
        "insert into orders (c0, c299) values (1, 1.23456789012345678901)",
    )
    assert shop.load().failed == []
    assert shop.rows("c0, _more ->> 'c299', json_typeof(_more -> 'c298'), _more ->> 'c250'") == [
        (1, "1.23456789012345678901", "null", None)
    ]


def test_a_column_that_grew_is_followed(shop: Shop) -> None:
    """Integer became bigint, and a column was added: the next reading brings both."""
    shop.declare(cursor="id", disposition="append")
    shop.execute("create table orders (id int)", "insert into orders values (1)")
    shop.load()
    shop.execute(
        "alter table orders alter id type bigint, add note text",
        "insert into orders values (3000000000, 'x')",
    )
    assert shop.load().failed == []
    assert shop.rows("id, note") == [(1, None), (3000000000, "x")]
    shop.execute("alter table orders alter id type numeric", "insert into orders values (3000000000.5, 'y')")
    shop.load()
    shop.execute(
        "delete from orders where id <> trunc(id)", "alter table orders alter id type bigint",
        "insert into orders values (3000000001, 'z')",
    )  # fmt: skip
    assert shop.load().failed == []  # a narrower column is sent as what bronze has
    assert shop.types()["id"] == "numeric"


def test_a_column_taken_as_text_is_what_the_database_prints(shop: Shop) -> None:
    """For types that a contract has no word for."""
    shop.declare(as_text=("span",))
    shop.execute("create table orders (span interval)", "insert into orders values ('1 mon 02:00')")
    shop.load()
    assert (shop.rows("span"), shop.types()) == ([("1 mon 02:00:00",)], {"span": "text"})


def test_only_some_columns(shop: Shop) -> None:
    """A secret column never leaves the source."""
    shop.declare(exclude=("secret",))
    shop.execute("create table orders (id int, secret text)", "insert into orders values (1, 'x')")
    shop.load()
    assert shop.types() == {"id": "integer"}


def test_names_that_look_like_sql_are_names(shop: Shop) -> None:
    """Of tables, schemas and columns."""
    shop.execute(
        'create schema "My ""Schema"""',
        'create table "My ""Schema"""."or%sders; --" ("a""b%s" int, "Ünïcode" text)',
        'insert into "My ""Schema"""."or%sders; --" values (1, \'x\')',
    )
    shop.declare(schema='My "Schema"', relation="or%sders; --")
    assert shop.load().failed == []
    assert shop.rows('"a""b%s", "Ünïcode"'.replace("%", "%%")) == [(1, "x")]


def test_views_partitions_and_foreign_owners_can_be_read(shop: Shop) -> None:
    """Whatever can be selected from."""
    shop.execute(
        "create table parts (id int) partition by range (id)",
        "create table parts_1 partition of parts for values from (0) to (10)",
        "insert into parts values (1), (2)",
        "create materialized view orders as select id from parts",
    )
    shop.load()
    shop.declare(relation="parts", name="parts")
    shop.load()
    assert shop.rows("id") == [(1,), (2,)]


def test_what_a_role_sets_for_itself_changes_nothing(shop: Shop) -> None:
    """A time zone, a style of dates, a timeout: values and hash are the same."""
    shop.declare(as_text=("at",))
    shop.execute("create table orders (at timestamptz)", "insert into orders values ('2026-01-01 12:00Z')")
    shop.load()
    name = shop.conn.info.dbname
    for setting in ("timezone = 'Asia/Tokyo'", "datestyle = 'German'", "statement_timeout = '1ms'"):
        shop.execute(f"alter database {name} set {setting}")
    assert shop.load().results == []


def test_rows_that_change_while_they_are_read_are_of_one_moment(shop: Shop) -> None:
    """A reading sees one snapshot: what is committed meanwhile comes with the next one."""
    shop.execute("create table orders (id int, note text)")
    shop.execute("insert into orders select n, repeat('x', 100) from generate_series(1, 20000) n")
    with shop.source() as source:
        (unit,) = source.list_units(shop.table)
        with source.open(unit) as delivery:
            types = [type_ for _, type_ in delivery.columns()]  # type: ignore[attr-defined]
            chunks = delivery.chunks(types)  # type: ignore[attr-defined]
            first = next(chunks)
            shop.execute("update orders set note = 'changed'", "delete from orders where id > 10000")
            rest = b"".join(chunks)
            assert delivery.rows() == 20000  # type: ignore[attr-defined]
    assert b"changed" not in first + rest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": "wrong-secret"}, "refuses the user or the password"),
        ({"username": "nobody_here"}, "refuses the user or the password"),
        ({"database": "nowhere"}, "no database"),
        ({"port": 1}, "cannot be read right now"),
    ],
)
def test_who_is_not_let_in_is_told_in_one_sentence(shop: Shop, change: dict[str, Any], words: str) -> None:
    """Without the password, whatever it is; `check` says the same and does not raise."""
    address = Address(shop.address.url.set(**change))
    with open_database(address) as source:
        said = source.check(shop.table)
        with pytest.raises((SourceRefusedError, SourceUnreachableError)) as raised:
            source.list_units(shop.table)
    assert not said.ok
    assert str(raised.value) == said.message
    assert words in said.message
    assert "\n" not in said.message
    secret = str(shop.address.url.password)
    assert not any(part in said.message for part in (secret, "wrong-secret"))


def test_what_may_not_be_read_is_refused_alone(shop: Shop) -> None:
    """No grant, no table, no column: a sentence that names it and the next step."""
    shop.execute("create table orders (id int)")
    with shop.source() as source:
        assert "no table missing" in source.check(shop.declare(relation="missing")).message
        shop.declare(relation="orders", cursor="at")
        assert "no column 'at', expected some of: id" in source.check(shop.table).message


def test_an_address_shows_no_secret() -> None:
    """Neither printed nor in messages."""
    address = Address.parse("postgresql://me@shop.example:6543/db", "hunter2")
    assert "hunter2" not in f"{address} {address!r} {address.shown}"
    assert address.shown == "shop.example:6543/db"


def test_an_expired_password_waits_for_a_person(shop: Shop) -> None:
    """As a wrong one: the server does not tell them apart."""
    shop.execute("create table orders (id int)", "drop role if exists datops_expired")
    shop.execute("create role datops_expired login password 'exp1red-pw' valid until '2020-01-01'")
    url = shop.address.url.set(username="datops_expired", password="exp1red-pw")
    with open_database(Address(url)) as source:
        said = source.check(shop.table)
        with pytest.raises(SourceRefusedError):
            source.list_units(shop.table)
    shop.execute("drop role datops_expired")
    assert not said.ok
    assert "refuses the user or the password" in said.message
    assert "exp1red-pw" not in said.message
