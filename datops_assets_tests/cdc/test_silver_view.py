"""`silver: view`: the mirror under silver's names, whatever becomes of the mirror."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from datops_assets.cdc import renew_view
from datops_assets.components.streams.component import stream_definitions
from datops_assets.errors import LoadRefusedError
from datops_assets_tests.cdc.conftest import Followed
from datops_assets_tests.cdc.test_stream_component import datops, document, erp

__all__ = ["erp"]


def shown(followed: Followed, columns: str = "*") -> list[tuple[Any, ...]]:
    return followed.warehouse.conn.execute(f"select {columns} from silver.erp_orders order by 1").fetchall()


@pytest.fixture
def viewed(followed: Followed) -> Followed:
    """Orders with a column that is not in snake_case, shown in silver."""
    followed.run('create table orders (id int primary key, "Order Note" text)')
    followed.run("insert into orders values (1, 'a')")
    followed.follow("orders")
    followed.snapshot()
    assert renew_view(followed.warehouse.conn, "erp", "orders", {}) == {"id": "integer", "order_note": "text"}
    return followed


def test_a_view_shows_the_mirror_under_silver_names(viewed: Followed) -> None:
    assert shown(viewed, "id, order_note") == [(1, "a")]
    viewed.run("insert into orders values (2, 'b')")
    viewed.drain()
    assert shown(viewed) == [(1, "a"), (2, "b")]


def test_a_new_column_is_shown_by_the_next_step(viewed: Followed) -> None:
    viewed.run("alter table orders add column paid bool; insert into orders values (2, 'b', true)")
    viewed.drain()
    assert shown(viewed) == [(1, "a"), (2, "b")]
    renew_view(viewed.warehouse.conn, "erp", "orders", {})
    assert shown(viewed) == [(1, "a", None), (2, "b", True)]


def test_the_view_and_its_grants_follow_a_mirror_that_is_made_anew(viewed: Followed) -> None:
    conn = viewed.warehouse.conn
    role = f"{viewed.warehouse.warehouse.dbname}_reader"
    conn.execute(f"drop role if exists {role}")
    conn.execute(f"create role {role}")
    try:
        conn.execute(f"grant select on silver.erp_orders to {role} with grant option")
        viewed.run("alter table orders alter column id type text using 'A' || id")
        viewed.run("insert into orders values ('B', 'b')")
        assert viewed.drain().copied == ["orders"]
        assert shown(viewed) == [("A1", "a"), ("B", "b")]
        assert conn.execute(
            "select has_table_privilege(%s, 'silver.erp_orders', 'select with grant option')", (role,)
        ).fetchone() == (True,)
    finally:
        conn.execute(f"drop owned by {role}")
        conn.execute(f"drop role {role}")


def test_a_view_of_somebody_else_on_ours_stops_the_mirror_with_its_name(viewed: Followed) -> None:
    viewed.warehouse.conn.execute("create view public.mine as select * from silver.erp_orders")
    viewed.run("alter table orders alter column id type text")
    with pytest.raises(LoadRefusedError, match="views stand on it"):
        viewed.drain()
    viewed.warehouse.conn.execute("drop view public.mine")
    viewed.drain()
    assert shown(viewed) == [("1", "a")]


def test_two_columns_of_one_name_are_refused(viewed: Followed) -> None:
    viewed.run('alter table orders add column "orderNote" text')
    viewed.drain()
    with pytest.raises(LoadRefusedError, match="'Order Note' and 'orderNote' would both be 'order_note'"):
        renew_view(viewed.warehouse.conn, "erp", "orders", {})
    renew_view(viewed.warehouse.conn, "erp", "orders", {"orderNote": "second_note"})
    assert shown(viewed) == [(1, "a", None)]


def test_a_table_that_has_the_views_name_is_left_alone(followed: Followed) -> None:
    followed.run("create table orders (id int primary key)")
    followed.follow("orders")
    followed.snapshot()
    followed.warehouse.conn.execute(
        "create table silver.erp_orders (a int); insert into silver.erp_orders values (7)"
    )
    with pytest.raises(LoadRefusedError, match="was not made as a view"):
        renew_view(followed.warehouse.conn, "erp", "orders", {})
    assert shown(followed) == [(7,)]


def test_the_document_makes_a_silver_asset(erp: Followed, project: Path) -> None:
    file = project / "stream.yaml"
    file.write_text(file.read_text().replace("orders: {}", "orders: {silver: view, rename: {note: remark}}"))
    with dg.DagsterInstance.ephemeral() as instance:
        job = stream_definitions(document(project)).resolve_job_def("erp_stream")
        result = job.execute_in_process(instance=instance)
        events = {e.asset_key.to_user_string(): e for e in result.get_asset_materialization_events()}
    assert set(events) == {"bronze/erp/orders", "bronze/erp/orders_changes", "silver/erp/orders"}
    schema = events["silver/erp/orders"].materialization.metadata["dagster/column_schema"].value
    assert [column.name for column in schema.columns] == ["id", "remark"]
    erp.run("insert into orders values (2, 'b')")
    datops("drain")
    assert shown(erp, "remark") == [("a",), ("b",)]
