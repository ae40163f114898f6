"""MariaDB tables into bronze: every value as it is, whatever MySQL itself would print."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
from sqlalchemy import make_url

from datops_assets.errors import SourceRefusedError
from datops_assets.ingestion import load_table
from datops_assets.ingestion.database import Address, DatabaseTable, Lookback, open_database
from datops_assets.ingestion.database.mysql_rows import columns_of, read_rows
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.ingestion.database.conftest import MariaShop

ORDERS = DatabaseTable(source="shop", name="orders", relation="orders", disposition="replace")

# Type as declared, a value that is easily bent, bronze's type and the text PostgreSQL prints of it.
VALUES: list[tuple[str, str, str, str]] = [
    ("tinyint(1)", "-3", "smallint", "-3"),
    ("tinyint unsigned", "255", "smallint", "255"),
    ("smallint unsigned", "65535", "integer", "65535"),
    ("mediumint", "-8388608", "integer", "-8388608"),
    ("int unsigned", "4294967295", "bigint", "4294967295"),
    ("bigint unsigned", "18446744073709551615", "numeric(20,0)", "18446744073709551615"),
    ("decimal(65,30)", "'12345678901234567890123456789012345.000000000000000000000000000001'",
     "numeric(65,30)", "12345678901234567890123456789012345.000000000000000000000000000001"),
    ("decimal(5,2)", "1.50", "numeric(5,2)", "1.50"),
    ("float", "0.123456789", "real", "0.12345679"),
    ("double", "0.1", "double precision", "0.1"),
    ("bit(9)", "b'100000001'", "numeric(20,0)", "257"),
    ("year", "2026", "smallint", "2026"),
    ("char(4)", "'ab'", "text", "ab"),
    ("varchar(20)", "'\U0001F600 \\\\ \\t '", "text", "\U0001F600 \\ \t "),
    ("longtext", "repeat('x', 70000)", "text", "x" * 70000),
    ("enum('so so', 'happy')", "'so so'", "text", "so so"),
    ("set('a', 'b')", "'a,b'", "text", "a,b"),
    ("varbinary(9)", "x'00ff5c'", "bytea", r"\x00ff5c"),
    ("blob", "repeat(x'fe', 300)", "bytea", r"\x" + "fe" * 300),
    ("date", "'9999-12-31'", "date", "9999-12-31"),
    ("datetime(6)", "'2026-01-31 23:59:59.999999'", "timestamp without time zone", "2026-01-31 23:59:59.999999"),
    ("timestamp(3) null", "'2026-01-31 23:59:59.123'", "timestamp with time zone", "2026-01-31 22:59:59.123+00"),
    ("time(6)", "'-838:59:58.999999'", "text", "-838:59:58.999999"),
    ("json", """'{"a": 1, "a": 2.10}'""", "text", '{"a": 1, "a": 2.10}'),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "text", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
]  # fmt: skip


def load(warehouse: TestWarehouse, url: str, table: DatabaseTable = ORDERS) -> list[str | None]:
    """Run once; returns the errors."""
    with open_database(Address.parse(url)) as source:
        loaded = load_table(warehouse.conn, source, table, batch="b", adbc_url=warehouse.url)
    return [result.error for result in loaded.results]


def test_every_type_arrives_as_it_is(maria: MariaShop, warehouse: TestWarehouse) -> None:
    """And so does a null of each."""
    maria.execute(
        "set time_zone = '+01:00'",
        "create table orders (" + ", ".join(f"c{n} {kind}" for n, (kind, *_) in enumerate(VALUES)) + ")",
        "insert into orders values (" + ", ".join(value for _, value, _, _ in VALUES) + ")",
        "insert into orders (c0) values (null)",
    )
    assert load(warehouse, maria.url) == [None]
    types = dict(
        warehouse.fetch(
            "select attname::text, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = 'bronze.shop_orders'::regclass and attnum > 2"
        )
    )
    assert types == {f"c{n}": bronze for n, (_, _, bronze, _) in enumerate(VALUES)}
    printed = ", ".join(f"c{n}::text" for n in range(len(VALUES)))
    values, nulls = warehouse.fetch(f"select {printed} from bronze.shop_orders order by _row")
    assert list(values) == [text for *_, text in VALUES]
    assert set(nulls) == {None}
    assert load(warehouse, maria.url) == []  # unchanged


def test_a_zero_date_is_said_and_can_be_taken_as_text(maria: MariaShop, warehouse: TestWarehouse) -> None:
    """MySQL keeps days that are none; the sentence names the column and the way out, and no value."""
    maria.execute(
        "set sql_mode = ''",
        "create table orders (id int, day date)",
        "insert into orders values (1, '2026-01-31'), (2, '0000-00-00'), (3, '2026-02-31')",
    )
    (error,) = load(warehouse, maria.url)
    assert error is not None
    assert "column 'day' holds a value that is no date" in error
    assert "as_text: [day]" in error
    assert load(warehouse, maria.url, replace(ORDERS, as_text=("day",))) == [None]
    days = warehouse.fetch("select day from bronze.shop_orders order by _row")
    assert days == [("2026-01-31",), ("0000-00-00",), ("0000-00-00",)]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("datetime(6)", ["2026-01-01 00:00:00.000001", "2026-01-01 00:00:00.000002"]),
        ("timestamp(6)", ["2026-01-01 00:00:00.999999", "2026-01-01 00:00:01.000000"]),
        ("bigint unsigned", ["9", "10", "18446744073709551615"]),
        ("decimal(40,20)", ["1.00000000000000000001", "1.00000000000000000002"]),
        ("varchar(20)", ["a'b", "b\\%s"]),
    ],
)
def test_by_a_cursor_each_row_is_read_once(
    maria: MariaShop, warehouse: TestWarehouse, kind: str, values: list[str]
) -> None:
    """The watermark is written down exactly, whatever the cursor's type."""
    table = replace(ORDERS, cursor="at", disposition="append")
    maria.execute(f"create table orders (at {kind} null)", "insert into orders values (null)")
    for value in values:
        quoted = value.replace("'", "''").replace("\\", "\\\\")
        maria.execute(f"insert into orders values ('{quoted}')")
        assert load(warehouse, maria.url, table) == [None]
        assert load(warehouse, maria.url, table) == []
    rows = warehouse.fetch("select count(*), count(distinct at::text) from bronze.shop_orders")
    assert rows == [(len(values) + 1, len(values))]
    with open_database(Address.parse(maria.url)) as source:
        assert source.count_left_out(table) == 1


def test_a_lookback_brings_what_came_late(maria: MariaShop, warehouse: TestWarehouse) -> None:
    """Once."""
    table = replace(ORDERS, cursor="at", disposition="merge", lookback=Lookback.parse("1h"))
    maria.execute(
        "create table orders (id int, at datetime)", "insert into orders values (1, '2026-01-01 12:00')"
    )
    load(warehouse, maria.url, table)
    load(warehouse, maria.url, table)
    assert load(warehouse, maria.url, table) == []
    maria.execute("insert into orders values (2, '2026-01-01 11:30'), (3, '2026-01-01 10:30')")
    assert load(warehouse, maria.url, table) == [None]
    assert warehouse.fetch("select distinct id from bronze.shop_orders order by 1") == [(1,), (2,)]


def packet(payload: bytes, number: int = 0) -> bytes:
    """A packet of MySQL's protocol."""
    return len(payload).to_bytes(3, "little") + bytes([number % 256]) + payload


def row(*values: bytes | None) -> bytes:
    """A row of texts as the server sends it."""
    parts = []
    for value in values:
        if value is None:
            parts.append(b"\xfb")
            continue
        size = len(value)
        width, mark = (0, b"") if size < 251 else (2, b"\xfc") if size < 1 << 16 else (3, b"\xfd")
        parts.append(mark + size.to_bytes(width or 1, "little") + value)
    return b"".join(parts)


@pytest.mark.parametrize("step", [1, 7, 1 << 18])
def test_rows_are_the_same_however_the_network_cuts_them(step: int) -> None:
    """One byte at a time too."""
    lengths = (0, 1, 11, 12, 13, 250, 251, 70_000 if step > 1 else 300)
    rows = [(b"x" * n, None if n % 2 else b"y" * (n % 20), str(n).encode()) for n in lengths]
    wire = b"".join(packet(row(*values)) for values in rows) + packet(b"\xfe\0\0\x02\0")

    def arriving() -> Iterator[bytes]:
        for at in range(0, len(wire), step):
            yield wire[at : at + step]

    parts = arriving()
    found = [columns_of(rows, 3) for rows in read_rows(lambda _: next(parts, b""), 1000)]
    columns = [pa.chunked_array(arrays).to_pylist() for arrays in zip(*found, strict=True)]
    assert list(zip(*columns, strict=True)) == rows


def test_a_row_of_more_than_sixteen_megabytes() -> None:
    """It takes several packets, the last of which may be empty."""
    values = (b"a" * 0xFFFFFF, b"b" * 0xFFFFFF)
    whole = row(*values)
    pieces = [whole[at : at + 0xFFFFFF] for at in range(0, len(whole) + 1, 0xFFFFFF)]
    wire = packet(row(b"1", b"2")) + b"".join(map(packet, pieces)) + packet(b"\xfe\0\0\x02\0")
    parts = iter([wire[:100], wire[100:]])
    found = [columns_of(rows, 2) for rows in read_rows(lambda _: next(parts, b""), 1 << 20)]
    assert [[array.to_pylist() for array in arrays] for arrays in found] == [
        [[b"1"], [b"2"]],
        [[values[0]], [values[1]]],
    ]


@pytest.mark.slow
def test_every_type_arrives_as_it_is_from_a_mysql(mysql_shop: MariaShop, warehouse: TestWarehouse) -> None:
    """By one connection and by two; 5.5 has no fractions of a second, no json and no uuid."""
    cases = [(kind.partition("(")[0] if "time" in kind else kind, *rest) for kind, *rest in VALUES]
    cases = [case for case in cases if case[0] not in ("json", "uuid", "datetime", "timestamp", "time")]
    mysql_shop.execute(
        "create table orders (id int primary key, "
        + ", ".join(f"c{n} {kind}" for n, (kind, *_) in enumerate(cases))
        + ")",
        *(
            f"insert into orders values ({number}, " + ", ".join(value for _, value, *_ in cases) + ")"
            for number in (1, 2, 3)
        ),
    )
    printed = ", ".join(f"c{n}::text" for n in range(len(cases)))
    for connections in (1, 2):
        table = replace(ORDERS, name=f"orders{connections}", parallel=connections)
        assert load(warehouse, mysql_shop.url, table) == [None]
        rows = warehouse.fetch(f"select {printed} from bronze.shop_orders{connections}")
        assert rows == [tuple(text for *_, text in cases)] * 3
        assert load(warehouse, mysql_shop.url, table) == []


def test_an_expired_password_waits_for_a_person(maria: MariaShop, warehouse: TestWarehouse) -> None:
    """One sentence, no secret, and nothing is tried again."""
    maria.execute("create table orders (id int)", "create user old@'127.0.0.1' identified by 'exp1red-pw'")
    maria.execute("grant select on *.* to old@'127.0.0.1'", "alter user old@'127.0.0.1' password expire")
    url = make_url(maria.url).set(username="old", password="exp1red-pw")
    with open_database(Address.parse(url.render_as_string(hide_password=False))) as source:
        said = source.check(ORDERS)
        with pytest.raises(SourceRefusedError):
            source.list_units(ORDERS)
    maria.execute("drop user old@'127.0.0.1'")
    assert not said.ok
    assert "refuses the user or the password" in said.message
    assert "exp1red-pw" not in said.message
