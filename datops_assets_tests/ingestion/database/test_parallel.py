"""Tables read by several connections at once: each row once, of one moment, as if by one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
from sqlalchemy import make_url

from datops_assets.ingestion import load_table
from datops_assets.ingestion.database import Address, DatabaseTable, open_database
from datops_assets.ingestion.source import CopyDelivery
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.ingestion.database.conftest import MariaShop, Shop

FILLED = "insert into orders select n, 0, repeat('x', 200) from generate_series(1, 20000) n"
ORDERS = ("create table orders (id int primary key, version int, note text)", FILLED)


def test_all_rows_arrive_once_and_an_unchanged_table_changes_nothing(shop: Shop) -> None:
    """Empty, of one row, and of many blocks; also where there are fewer blocks than connections."""
    shop.declare(parallel=4)
    shop.execute(ORDERS[0])
    assert [result.rows for result in shop.load().results] == [0]
    shop.execute("insert into orders values (0, 0, 'x')")
    assert [result.rows for result in shop.load().results] == [1]
    shop.execute(FILLED)
    assert [result.error for result in shop.load().results] == [None]
    assert shop.rows("count(*), count(distinct id), count(distinct _row), max(_row)", "1") == [(20001,) * 4]
    assert shop.load().results == []
    shop.declare(parallel=1)
    shop.load()
    assert shop.rows("count(*), count(distinct id)", "1") == [(20001, 20001)]


@contextmanager
def writers(shop: Shop) -> Iterator[None]:
    """Two connections that move rows about all the while: each transaction keeps the sum of versions as it is."""
    ended = threading.Event()

    def move(seed: int) -> None:
        with psycopg.connect(shop.conn.info.dsn, password=shop.conn.info.password, autocommit=True) as conn:
            number = seed
            while not ended.is_set():
                number = number * 48271 % 2147483647
                one, other = number % 20000 + 1, number // 20000 % 20000 + 1
                conn.execute(
                    "update orders set version = version + case when id = %(one)s then 1 else 0 end"
                    " - case when id = %(other)s then 1 else 0 end where id in (%(one)s, %(other)s)",
                    {"one": one, "other": other},
                )

    threads = [threading.Thread(target=move, args=(seed,)) for seed in (7, 11)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_under_writers_every_row_is_of_one_moment(shop: Shop) -> None:
    """An updated row lies in another block, and is read once all the same; a transaction is seen whole or not."""
    shop.declare(parallel=3)
    shop.execute(*ORDERS)
    with writers(shop):
        for _ in range(5):
            assert [result.error for result in shop.load().results] == [None]
            assert shop.rows("count(*), count(distinct id), sum(version)", "1") == [(20000, 20000, 0)]


def test_the_first_reading_by_a_cursor_is_shared_and_the_next_ones_are_not(shop: Shop) -> None:
    """Watermark and rows are those of one connection; partitions have blocks too."""
    shop.declare(parallel=3, cursor="id", disposition="append")
    shop.execute(
        "create table orders (id int, note text) partition by range (id)",
        "create table low partition of orders for values from (0) to (100)",
        "create table high partition of orders for values from (100) to (100000)",
        "insert into orders select n, repeat('x', 200) from generate_series(1, 5000) n",
    )
    shop.load()
    shop.execute("insert into orders values (5001, 'new')")
    shop.load()
    assert shop.rows("count(*), count(distinct id)", "1") == [(5001, 5001)]
    assert [(load.rows, load.watermark) for load in shop.loads()] == [(5000, "5000"), (1, "5001")]


def test_opening_it_again_delivers_the_same_bytes(shop: Shop) -> None:
    """Also where the first time it was left half read."""
    shop.declare(parallel=3)
    shop.execute(*ORDERS)
    seen = []
    with shop.source() as source:
        (unit,) = source.list_units(shop.table)
        for _ in range(2):
            with source.open(unit) as delivery:
                assert isinstance(delivery, CopyDelivery)
                types = [type_ for _, type_ in delivery.columns()]
                seen.append((b"".join(delivery.chunks(types)), delivery.content_hash(), delivery.rows()))
        with source.open(unit) as delivery:
            assert isinstance(delivery, CopyDelivery)
            next(delivery.chunks(types))
            assert (delivery.content_hash(), delivery.rows()) == seen[0][1:]
    assert seen[0] == seen[1]


def test_a_view_is_refused_with_what_to_do(shop: Shop) -> None:
    """It has no blocks."""
    shop.declare(parallel=2)
    shop.execute("create view orders as select 1 as id")
    (result,) = shop.load().results
    assert result.error is not None
    assert "leave `parallel:` out" in result.error


def test_one_connection_cut_keeps_nothing(shop: Shop) -> None:
    """The others end with it, and the next run takes all rows once."""
    from datops_assets.testing.sources.proxy import SlowOrCutProxy

    shop.declare(parallel=3)
    shop.execute(*ORDERS)
    url = shop.address.url
    with SlowOrCutProxy((str(url.host), int(url.port or 0)), cut_after=1_000_000) as proxy:
        host, port = proxy.address
        cut = replace(shop, address=Address(url.set(host=host, port=port)))
        (result,) = cut.load().results
        assert result.state == "interrupted"
    assert shop.rows("count(*)", "1") == [(0,)]
    assert [result.rows for result in shop.load().results] == [20000]


def test_a_database_that_cannot_share_a_snapshot_says_so(shop: Shop, tmp_path: object) -> None:
    """SQLite, and whatever is reached through a dialect alone."""
    table = replace(shop.table, parallel=2)
    with open_database(Address.parse(f"sqlite:///{tmp_path}/a.db")) as source:
        said = source.check(table)
    assert (said.ok, "cannot share a snapshot" in said.message) == (False, True)


PEOPLE = DatabaseTable(source="shop", name="people", relation="people", disposition="replace", parallel=3)


def load_people(
    maria: MariaShop, warehouse: TestWarehouse, table: DatabaseTable = PEOPLE
) -> list[str | None]:
    """Run once; returns the errors."""
    with open_database(Address.parse(maria.url)) as source:
        loaded = load_table(warehouse.conn, source, table, batch="b", adbc_url=warehouse.url)
    return [result.error for result in loaded.results]


def people(warehouse: TestWarehouse) -> list[tuple[object, ...]]:
    """Rows, different ids and the sum of versions that are live."""
    return warehouse.fetch(
        "select count(*), count(distinct id), coalesce(sum(version), 0) from bronze.shop_people"
        " join datops.loads on load_id = _load_id where state = 'loaded'"
    )


@contextmanager
def maria_writer(maria: MariaShop) -> Iterator[None]:
    """A connection that moves rows about all the while; each transaction keeps the sum of versions as it is."""
    ended = threading.Event()

    def move() -> None:
        number = 7
        while not ended.is_set():
            number = number * 48271 % 2147483647
            one, other = number % 20000 + 1, number // 20000 % 20000 + 1
            maria.execute(
                f"update people set version = version + if(id = {one}, 1, 0) - if(id = {other}, 1, 0)"
                f" where id in ({one}, {other})"
            )

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_mariadb_is_shared_by_ranges_of_its_key_in_one_snapshot(
    maria: MariaShop, warehouse: TestWarehouse
) -> None:
    """Each row once under writers, an unchanged table changes nothing, and an empty one is a table like any other."""
    maria.execute("create table people (id int primary key, version int, note varchar(99))")
    assert load_people(maria, warehouse) == [None]
    maria.execute("insert into people select seq, 0, repeat('x', 90) from seq_1_to_20000")
    with maria_writer(maria):
        for _ in range(3):
            assert load_people(maria, warehouse) == [None]
            assert people(warehouse) == [(20000, 20000, 0)]
    load_people(maria, warehouse)
    assert load_people(maria, warehouse) == []


def test_what_a_mariadb_cannot_share_is_said(maria: MariaShop, warehouse: TestWarehouse) -> None:
    """No number to divide by, or a user who may not lock for a moment."""
    maria.execute("create table people (id varchar(9) primary key, version int)")
    (error,) = load_people(maria, warehouse)
    assert error is not None
    assert "leave `parallel:` out" in error
    maria.execute("drop table people", "create table people (id int primary key, version int)")
    name = make_url(maria.url).database
    maria.execute(
        f"create user {name}@'127.0.0.1' identified by 'pw'",
        f"grant select on {name}.* to {name}@'127.0.0.1'",
    )
    reader = MariaShop(
        make_url(maria.url).set(username=name, password="pw").render_as_string(hide_password=False)
    )
    (error,) = load_people(reader, warehouse)
    maria.execute(f"drop user {name}@'127.0.0.1'")
    assert error is not None
    assert "grant lock tables" in error
