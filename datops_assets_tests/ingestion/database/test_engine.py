"""SQLite, and any database by SQLAlchemy: values as they are, whatever a column is declared to be."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from datops_assets.ingestion import load_table
from datops_assets.ingestion.database import Address, DatabaseTable, open_database
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.ingestion.database.conftest import Shop

ORDERS = DatabaseTable(source="shop", name="orders", relation="orders", disposition="replace")


def load(warehouse: TestWarehouse, url: str, table: DatabaseTable = ORDERS) -> list[str | None]:
    """Run once; returns the errors."""
    with open_database(Address.parse(url)) as source:
        loaded = load_table(warehouse.conn, source, table, batch="b", adbc_url=warehouse.url)
    return [result.error for result in loaded.results]


def test_sqlite_values_arrive_whatever_their_column_says(tmp_path: Path, warehouse: TestWarehouse) -> None:
    """Its columns bind no type, so each value comes as text that shows all of it."""
    with sqlite3.connect(tmp_path / "a.db") as conn:
        conn.execute("create table orders (id integer, amount real, note text, raw blob)")
        conn.executemany(
            "insert into orders values (?, ?, ?, ?)",
            [
                (9223372036854775807, 0.1, "ä\U0001f600", b"\x00\xff"),
                ("not a number", "1,5", 7, "text"),
                (1.5, 2**60, b"\xff", None),
            ],
        )
    url = f"sqlite:///{tmp_path}/a.db"
    assert load(warehouse, url) == [None]
    assert warehouse.fetch("select id, amount, note, raw from bronze.shop_orders order by _row") == [
        ("9223372036854775807", "0.1", "ä\U0001f600", r"\x00ff"),
        ("not a number", "1,5", "7", "text"),
        ("1.5", "1.152921504606847e+18", r"\xff", None),
    ]
    assert load(warehouse, url) == []
    conn.close()


def test_sqlite_text_that_is_no_utf8_is_set_aside(tmp_path: Path, warehouse: TestWarehouse) -> None:
    """The rest loads."""
    with sqlite3.connect(tmp_path / "a.db") as conn:
        conn.execute("create table orders (id integer, note text)")
        conn.execute("insert into orders values (1, cast(x'ff41' as text)), (2, 'b')")
    assert load(warehouse, f"sqlite:///{tmp_path}/a.db") == [None]
    assert warehouse.fetch("select id from bronze.shop_orders") == [("2",)]
    assert warehouse.fetch("select _row from quarantine.shop_orders") == [(1,)]
    conn.close()


def test_sqlite_by_a_cursor(tmp_path: Path, warehouse: TestWarehouse) -> None:
    """Numbers are compared as numbers, also from 9 to 10."""
    table = replace(ORDERS, cursor="id", disposition="append")
    conn = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    conn.execute("create table orders (id integer)")
    for number in (1, 9, 10):
        conn.execute("insert into orders values (?)", (number,))
        assert load(warehouse, f"sqlite:///{tmp_path}/a.db", table) == [None]
        assert load(warehouse, f"sqlite:///{tmp_path}/a.db", table) == []
    assert warehouse.fetch("select id from bronze.shop_orders order by _load_id") == [("1",), ("9",), ("10",)]
    conn.close()


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    """A wrong path is a sentence."""
    with open_database(Address.parse(f"sqlite:///{tmp_path}/nowhere.db")) as source:
        assert "there is no file" in source.check(ORDERS).message
    assert not (tmp_path / "nowhere.db").exists()


@pytest.mark.parametrize("url", ["oracle+cx_oracle://me@host/db", "nonsense://me@host/db"])
def test_a_driver_that_is_not_installed_is_a_sentence(url: str) -> None:
    """With what to install."""
    with open_database(Address.parse(url)) as source:
        said = source.check(ORDERS)
    assert (said.ok, "no driver for" in said.message) == (False, True)


def test_any_dialect_keeps_the_types_it_tells(shop: Shop) -> None:
    """PostgreSQL by another driver gives what COPY gives, for the types that SQLAlchemy tells apart."""
    shop.execute(
        "create table orders (id bigint, amount numeric(30,20), ratio double precision, ok boolean, day date,"
        " at timestamp, moment timestamptz, note text, raw bytea, doc jsonb, span interval, tags text[])",
        "insert into orders values (1, 1.00000000000000000001, 0.1, true, '2026-01-31', '2026-01-31 12:00:00.000001',"
        " '2026-01-31 12:00:00.000001+05', 'x', '\\x00ff', '{\"a\": [1]}', '1 day 02:03', '{a,b}')",
        "insert into orders default values",
    )
    columns = "id, amount, ratio, ok, day, at, moment, note, raw"
    shop.load()
    straight = shop.rows(columns, "_row")
    url = shop.address.url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
    other = replace(shop.table, name="others")
    assert load(shop.warehouse, url, other) == [None]
    assert shop.warehouse.fetch(f"select {columns} from bronze.shop_others order by _row") == straight
    again = replace(shop.table, name="by_cursor", cursor="moment", disposition="append")
    assert (load(shop.warehouse, url, again), load(shop.warehouse, url, again)) == ([None], [])
