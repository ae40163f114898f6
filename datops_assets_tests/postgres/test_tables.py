"""Names, numbers and the lock of one table."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from datops_assets.errors import LockTakenError, WarehouseError
from datops_assets.postgres.identifiers import bronze_table, quarantine_table, silver_table, warehouse_name
from datops_assets.postgres.quarantine_table import ensure_quarantine_table
from datops_assets.postgres.tables import lock_table, table_id
from datops_assets.postgres.ulid import encode_ulid, new_ulid


def test_a_table_keeps_its_number(warehouse):
    first = table_id(warehouse.conn, "shop", "orders")
    assert table_id(warehouse.conn, "shop", "orders") == first
    assert table_id(warehouse.conn, "shop", "customers") != first


def test_processes_that_meet_a_table_at_once_agree_on_its_number(warehouse):
    def number(_):
        with warehouse.connect() as conn:
            return table_id(conn, "shop", "orders")

    with ThreadPoolExecutor(6) as threads:
        assert len(set(threads.map(number, range(12)))) == 1


def test_the_lock_of_a_table_keeps_others_out_until_it_is_given_back(warehouse):
    with warehouse.connect() as other:
        with lock_table(warehouse.conn, "shop", "orders"):
            sentence = r"another run works on shop\.orders and did not finish in 0\.1 s"
            with (
                pytest.raises(LockTakenError, match=sentence),
                lock_table(other, "shop", "orders", wait_s=0.1),
            ):
                pass
            with lock_table(other, "shop", "customers", wait_s=0.1):
                pass
        with lock_table(other, "shop", "orders", wait_s=0.1):
            pass
        assert other.execute("show lock_timeout").fetchone() == ("0",)


def test_who_holds_the_lock_may_take_it_again(warehouse):
    with warehouse.connect() as other, lock_table(warehouse.conn, "shop", "orders"):
        with lock_table(warehouse.conn, "shop", "orders", wait_s=0.1):
            pass
        with pytest.raises(LockTakenError), lock_table(other, "shop", "orders", wait_s=0.1):
            pass


def test_a_failure_under_the_lock_gives_it_back(warehouse):
    with pytest.raises(ZeroDivisionError), lock_table(warehouse.conn, "shop", "orders"):
        raise ZeroDivisionError
    with pytest.raises(psycopg.errors.UndefinedTable), lock_table(warehouse.conn, "shop", "orders"):
        warehouse.conn.execute("select * from nothing_here")
    with warehouse.connect() as other, lock_table(other, "shop", "orders", wait_s=0.1):
        pass


def test_a_killed_holder_holds_nothing_and_says_why_it_failed(warehouse):
    holder = warehouse.connect()
    with holder, pytest.raises(psycopg.errors.AdminShutdown), lock_table(holder, "shop", "orders"):
        warehouse.fetch("select pg_terminate_backend(%s, 5000)", holder.info.backend_pid)
        with lock_table(warehouse.conn, "shop", "orders", wait_s=5):
            pass
        holder.execute("select 1")


def test_a_connection_lost_under_the_lock_does_not_hide_what_went_wrong(warehouse):
    holder = warehouse.connect()
    with pytest.raises(ZeroDivisionError), lock_table(holder, "shop", "orders"):
        warehouse.fetch("select pg_terminate_backend(%s, 5000)", holder.info.backend_pid)
        raise ZeroDivisionError
    holder.close()


def test_a_waiter_gets_the_lock_when_it_is_free(warehouse):
    order = []

    def wait():
        with warehouse.connect() as conn, lock_table(conn, "shop", "orders"):
            order.append("waiter")

    with lock_table(warehouse.conn, "shop", "orders"):
        waiter = threading.Thread(target=wait)
        waiter.start()
        waiter.join(0.2)
        order.append("holder")
    waiter.join(10)
    assert order == ["holder", "waiter"]


def test_the_quarantine_takes_damaged_and_refused_records(warehouse):
    def enter(columns, *values):
        given = ", ".join(["%s"] * len(values))
        warehouse.conn.execute(f"insert into quarantine.shop_orders ({columns}) values ({given})", values)

    for _ in range(2):
        ensure_quarantine_table(warehouse.conn, "shop", "orders")
    twice = '{"a": "1", "a": "2"}'
    enter("_load_id, _row, stage, reasons, raw, position", 1, 1, "bronze", ["ragged"], b"a\0b", 17)
    enter("_load_id, _row, stage, reasons, record", 1, 2, "silver", ["type"], twice)
    with pytest.raises(psycopg.errors.UniqueViolation):
        enter("_load_id, _row, stage, reasons", 1, 2, "silver", ["type"])
    with pytest.raises(psycopg.errors.CheckViolation):
        enter("_load_id, _row, stage, reasons", 1, 3, "gold", ["type"])
    assert warehouse.fetch("select record::text from quarantine.shop_orders where _row = 2") == [(twice,)]


def test_names_are_quoted_whatever_they_hold(warehouse):
    evil = 'x"; drop schema bronze cascade; --'
    assert (
        bronze_table("shop", evil).as_string(warehouse.conn)
        == '"bronze"."shop_x""; drop schema bronze cascade; --"'
    )
    assert silver_table("shop", "orders").as_string(None) == '"silver"."shop_orders"'
    assert quarantine_table("shop", "orders").as_string(None) == '"quarantine"."shop_orders"'


def test_a_name_that_postgresql_would_cut_is_refused():
    assert warehouse_name("s" * 26, "t" * 26) == "s" * 26 + "_" + "t" * 26
    with pytest.raises(WarehouseError, match=r"longer than 53 bytes; shorten"):
        warehouse_name("s" * 27, "t" * 26)
    with pytest.raises(WarehouseError):
        warehouse_name("ü" * 20, "é" * 20)


def test_ulids_sort_by_time_and_do_not_repeat():
    assert encode_ulid(0, 0) == "0" * 26
    assert encode_ulid(2**48 - 1, 2**80 - 1) == "7" + "Z" * 25
    assert encode_ulid(1469918176385, 0)[:10] == "01ARYZ6S41"  # the example of the specification
    assert encode_ulid(1, 2**80 - 1) < encode_ulid(2, 0)
    assert len({new_ulid() for _ in range(1000)}) == 1000
