"""The bronze table as others find it: its rows of one load without a look at all the others."""

from __future__ import annotations

from datops_assets.ingestion import FileSource, plan_load
from datops_assets_tests.ingestion.conftest import Lab


def pages_read(lab: Lab, load_id: int) -> int:
    lab.warehouse.conn.execute("set enable_seqscan = off")  # a table this small is read whole otherwise
    query = f"select * from bronze.shop_orders as b where b._load_id = any ('{{{load_id}}}'::bigint[])"
    ((plan,),) = lab.warehouse.fetch(f"explain (analyze, buffers, format json) {query}")
    return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]


def test_the_rows_of_one_load_are_found_without_reading_the_others(lab: Lab) -> None:
    """A new row beside millions costs what it costs alone; nothing may wait for a vacuum."""
    lab.write("1.csv", "a,b\n" + "".join(f"{n},{'x' * 80}\n" for n in range(30_000)))
    lab.load()
    lab.write("2.csv", "a,b\n1,y\n")
    ((last,),) = [[result.load_id for result in lab.load().results]]
    ((pages,),) = lab.warehouse.fetch("select pg_relation_size('bronze.shop_orders') / 8192")
    assert pages > 400
    assert pages_read(lab, last) < 60


def test_a_plan_writes_nothing_not_even_the_tables_name(lab: Lab) -> None:
    lab.write("1.csv", "a\n1\n")
    lab.warehouse.conn.execute("set default_transaction_read_only = on")
    assert [planned.action for planned in plan_load(lab.warehouse.conn, FileSource(), lab.table)] == ["load"]
    assert lab.warehouse.fetch("select count(*) from datops.tables") == [(0,)]
