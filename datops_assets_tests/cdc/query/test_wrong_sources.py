"""Sources that are not as their cursor promises, and tables that change under a stream."""

from __future__ import annotations

import pytest

from datops_assets.errors import LoadRefusedError, SourceRefusedError, SourceUnreachableError
from datops_assets_tests.cdc.query.conftest import Queried, texts

TABLE = "create table orders (id int primary key, note text, at timestamp)"


@pytest.fixture
def orders(postgres: Queried) -> Queried:
    postgres.run(TABLE)
    postgres.run(
        "insert into orders select n, 'a', '2024-01-01'::timestamp + n * interval '1 s' from generate_series(1, 300) n"
    )
    return postgres


def require_equal(queried: Queried) -> None:
    with queried.warehouse.warehouse.connect() as conn:
        here = texts(conn, "bronze.erp_orders")
    there = set(queried.read("select at::text, id::text, note::text from orders"))
    assert here == there


def test_rows_without_a_cursor_value_are_read_at_each_look(orders: Queried) -> None:
    orders.follow(cursor="at", compare="never")
    orders.snapshot()
    orders.run(
        "update orders set at = null, note = 'no time' where id = 7; insert into orders values (900, 'new', null)"
    )
    assert orders.drain().changes == 2
    orders.run("update orders set note = 'again' where id = 900")
    assert orders.drain().changes == 1
    require_equal(orders)


def test_a_row_that_came_late_is_found_within_the_lookback(orders: Queried) -> None:
    orders.follow(cursor="at", lookback="1m", compare="never")
    orders.snapshot()
    orders.run("insert into orders values (901, 'its clock is 50 s behind', '2024-01-01 00:04:10')")
    assert orders.drain().changes == 1
    orders.run("insert into orders values (902, 'its clock is an hour behind', '2023-12-31 23:00:00')")
    assert orders.drain().changes == 0
    orders.follow(cursor="at", lookback="1m", compare="keys")
    assert orders.drain().changes == 1
    require_equal(orders)


def test_a_row_at_the_watermark_itself_is_not_lost(orders: Queried) -> None:
    orders.follow(cursor="at", compare="never")
    orders.snapshot()
    orders.run("insert into orders values (903, 'same second', '2024-01-01 00:05:00')")
    assert orders.drain().changes == 1


def test_a_cursor_that_goes_back_takes_the_watermark_with_it(orders: Queried) -> None:
    orders.follow(cursor="at", compare="never")
    orders.run("insert into orders values (904, 'from the future', '2999-01-01')")
    orders.snapshot()
    orders.run("update orders set at = '2024-01-01 00:06:00' where id = 904")
    assert orders.drain().changes == 0  # it is below the watermark, and nobody compares
    orders.run("update orders set note = 'b', at = '2024-01-01 00:06:01' where id = 3")
    assert orders.drain().changes == 2
    require_equal(orders)


def test_an_endless_cursor_value_is_no_place_to_go_on_from(orders: Queried) -> None:
    orders.follow(cursor="at", compare="never")
    orders.run("update orders set at = 'infinity' where id = 1")
    orders.snapshot()
    orders.run(
        "update orders set note = 'b', at = '2024-01-01 00:07:00' where id = 3;"
        " update orders set note = 'c' where id = 1"
    )
    assert orders.drain().changes == 2


def test_a_change_that_its_cursor_does_not_tell_is_found_by_rows(orders: Queried) -> None:
    orders.follow(cursor="at", compare="keys")
    orders.snapshot()
    orders.run("update orders set note = 'silent' where id = 5")
    assert orders.drain().changes == 0
    orders.follow(cursor="at", compare="rows")
    assert orders.drain().changes == 1
    require_equal(orders)


def test_another_cursor_begins_from_all_rows(orders: Queried) -> None:
    orders.follow(cursor="at", compare="never")
    orders.snapshot()
    orders.run("update orders set note = 'silent' where id = 5")
    orders.follow(cursor="id", compare="never")
    assert orders.drain().rows_read == {"orders": 300}
    require_equal(orders)


def test_comparisons_wait_for_their_time(orders: Queried) -> None:
    orders.follow(cursor="at", compare_every_s=3600.0)
    orders.snapshot()
    orders.run("delete from orders where id = 5")
    assert (orders.drain().changes, orders.drain().compared) == (0, [])
    orders.follow(cursor="at", compare_every_s=0.0)
    assert (orders.drain().changes, orders.drain().compared) == (1, ["orders"])


def test_a_table_emptied_is_a_delete_of_each_row(orders: Queried) -> None:
    orders.follow()
    orders.snapshot()
    orders.run("truncate orders")
    assert orders.drain().changes == 300
    assert {op for op, _ in orders.log()} == {"d"}


def test_a_table_that_is_gone_is_refused_and_its_mirror_stays(orders: Queried) -> None:
    orders.follow()
    orders.snapshot()
    orders.run("drop table orders")
    with pytest.raises(SourceRefusedError, match="there is no table orders"):
        orders.drain()
    assert len(orders.mirror()) == 300


def test_a_new_column_is_filled_and_one_that_left_stays_for_rows_that_do_not_change(orders: Queried) -> None:
    orders.follow(cursor="at")
    orders.snapshot()
    orders.run("alter table orders add status text; update orders set status = 'old' where id < 11")
    done = orders.drain()
    assert (done.columns_added, done.changes) == ({"orders": ["status"]}, 10)
    orders.run("alter table orders drop status; update orders set note = 'b', at = '2025-01-01' where id = 1")
    assert orders.drain().changes == 1
    assert orders.mirror("id, status")[:2] == [(1, None), (2, "old")]


def test_a_column_of_another_type_is_compared_anew(orders: Queried) -> None:
    orders.follow()
    orders.snapshot()
    orders.run("update orders set note = '1'; alter table orders alter note type int using note::int")
    done = orders.drain()
    assert (done.columns_added, done.changes) == ({"orders": ["note"]}, 300)
    require_equal(orders)
    assert {"note", "note_until_2"} <= {
        name
        for (name,) in orders.warehouse.fetch(
            "select attname from pg_attribute where attrelid = 'bronze.erp_orders_changes'::regclass and attnum > 0"
        )
    }


def test_a_column_called_as_one_of_ours_moves_ours(orders: Queried) -> None:
    orders.follow()
    orders.snapshot()
    orders.run("alter table orders add _seq int; update orders set _seq = 5 where id = 1")
    assert orders.drain().changes == 1
    assert orders.warehouse.fetch("select __seq, _seq, __op from bronze.erp_orders_changes") == [(1, 5, "u")]


def test_another_key_needs_a_person(orders: Queried) -> None:
    orders.follow()
    orders.snapshot()
    orders.run(
        "alter table orders drop constraint orders_pkey; alter table orders add primary key (id, note)"
    )
    for _ in range(2):
        with pytest.raises(
            SourceRefusedError, match=r"another key than the one it was copied with.*datops cdc resync erp"
        ):
            orders.drain()
    assert orders.snapshot() == {"orders": 300}
    assert orders.drain().changes == 0


def test_a_key_that_does_not_tell_rows_apart_is_refused_without_its_values(orders: Queried) -> None:
    orders.run(
        "alter table orders drop constraint orders_pkey; insert into orders values (1, 'secret', null)"
    )
    orders.follow()
    with pytest.raises(SourceRefusedError, match=r"has no primary key.*key: \[\.\.\.\]"):
        orders.snapshot()
    orders.follow(key=("id",))
    with pytest.raises(SourceRefusedError, match="does not tell rows apart") as refused:
        orders.snapshot()
    assert "secret" not in str(refused.value)
    orders.run("delete from orders where note = 'secret'")
    orders.snapshot()
    orders.run("insert into orders values (1, 'secret', null)")
    with pytest.raises(SourceRefusedError, match="does not tell rows apart"):
        orders.drain()
    assert len(orders.mirror()) == 300


def test_zeros_and_bytes_that_compare_equal_are_changes_all_the_same(postgres: Queried) -> None:
    postgres.run("create table orders (id numeric primary key, note json, at float8)")
    postgres.run("insert into orders values (1.0, '{}', 0), (2, '[1]', 1)")
    postgres.follow()
    postgres.snapshot()
    postgres.run(
        "update orders set id = 1.00, at = '-0' where id = 1; update orders set note = '[1 ]' where id = 2"
    )
    assert postgres.drain().changes == 2
    require_equal(postgres)
    assert postgres.drain().rows_read == {"orders": 0}


def test_a_view_that_needs_the_mirror_as_it_is_stops_a_new_type_only(orders: Queried) -> None:
    orders.follow()
    orders.snapshot()
    orders.warehouse.conn.execute("create view public.of_mine as select note from bronze.erp_orders")
    orders.run("alter table orders add status int; update orders set status = 1")
    assert orders.drain().changes == 300
    orders.run("alter table orders alter note type int using 1")
    with pytest.raises(LoadRefusedError, match="views stand on it"):
        orders.drain()
    assert len(orders.mirror()) == 300


def test_a_source_that_is_away_is_tried_again(orders: Queried) -> None:
    orders.follow()
    orders.snapshot()
    away = orders.address.url.set(port=1)
    orders.address = type(orders.address)(away)
    orders.follow()
    with pytest.raises(SourceUnreachableError):
        orders.drain()
