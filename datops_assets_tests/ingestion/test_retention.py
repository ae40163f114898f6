"""Bronze lets go of what silver no longer needs, and of nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from datops_assets.errors import LoadRefusedError
from datops_assets.ingestion import Keep, plan_prune, prune_loads, undo_load
from datops_assets.quality import Contract, judge_table, rebuild_table
from datops_assets_tests.ingestion.database.conftest import Shop, shop, shop_db

__all__ = ["shop", "shop_db"]

ORDERS = Contract.model_validate(
    {
        "key": ["id"],
        "columns": {"id": {"type": "integer"}, "total": {"type": "integer", "min": 0}},
    }
)


def judge(shop: Shop, judged: Callable[..., Any] = judge_table) -> None:
    """Let silver read what is new."""
    judged(
        shop.warehouse.conn,
        source="shop",
        table="orders",
        contract=ORDERS,
        disposition=shop.table.disposition,
    )


def night(shop: Shop, *rows: tuple[int, int]) -> None:
    """The table holds these rows, is read whole, and silver reads it."""
    shop.execute("create table if not exists orders (id int, total int)", "truncate orders")
    for row in rows:
        shop.conn.execute("insert into orders values (%s, %s)", row)
    assert shop.load().failed == []
    judge(shop)


def kept(shop: Shop) -> list[tuple[Any, ...]]:
    """The load and the id of each row in bronze."""
    return shop.warehouse.fetch("select _load_id, id from bronze.shop_orders order by 1, _row")


def silver(shop: Shop) -> list[tuple[Any, ...]]:
    """The rows of silver."""
    return shop.warehouse.fetch("select id, total from silver.shop_orders order by 1")


def prune(shop: Shop, **keep: int) -> list[tuple[int, int]]:
    """Prune; returns each load that was looked at, with the rows that went."""
    planned = plan_prune(shop.warehouse.conn, shop.table, Keep(**keep))
    pruned = prune_loads(shop.warehouse.conn, shop.table, Keep(**keep))
    assert [load.load_id for load in planned] == [load.load_id for load in pruned]
    return [(load.load_id, load.rows) for load in pruned]


def test_copies_that_gave_way_leave_but_for_the_newest(shop: Shop) -> None:
    """Live rows stay; the catalogue keeps the entries and says how many rows went; once."""
    for number in range(1, 5):
        night(shop, (number, 0), (number + 1, 0))
    assert prune(shop, loads=1) == [(1, 2), (2, 2)]
    assert [load for load, _ in kept(shop)] == [3, 3, 4, 4]
    entries = shop.loads()
    assert [(load.state, load.rows, load.pruned_rows) for load in entries[:2]] == [("superseded", 2, 2)] * 2
    assert entries[0].pruned_at is not None
    assert prune(shop, loads=1) == []
    assert prune(shop, days=1) == []  # all of them are of today


def test_what_silver_has_not_read_the_successor_of_stays(shop: Shop) -> None:
    """It still shows the rows of the old copy."""
    night(shop, (1, 0))
    shop.execute("update orders set total = 1")
    shop.load()
    assert prune(shop, loads=0) == []
    judge(shop)
    assert prune(shop, loads=0) == [(1, 1)]


def test_an_undo_says_that_what_it_would_bring_back_is_gone(shop: Shop) -> None:
    """And one that still finds it works."""
    for number in (1, 2, 3):
        night(shop, (1, number))
    prune(shop, loads=1)
    undo_load(shop.warehouse.conn, "3")
    judge(shop)
    assert silver(shop) == [(1, 2)]
    with pytest.raises(LoadRefusedError, match="bronze has let go since"):
        undo_load(shop.warehouse.conn, "2")
    assert shop.loads()[1].state == "loaded"


def test_of_merged_copies_only_overtaken_rows_leave(shop: Shop) -> None:
    """A row that was deleted at the source, one that waits, and one that a person dropped stay; silver too."""
    shop.declare(disposition="merge")
    night(shop, (1, 10), (2, 20), (3, -1), (4, -2))
    shop.warehouse.conn.execute(
        "insert into datops.dropped_records (table_id, load_id, row, reason) values (1, 1, 4, 'x')"
    )
    shop.warehouse.conn.execute("delete from quarantine.shop_orders where _row = 4")
    night(shop, (1, 11))
    night(shop, (1, 12), (5, 50))
    before = silver(shop)
    assert before == [(1, 12), (2, 20), (5, 50)]
    assert prune(shop, loads=0) == [(1, 1), (2, 1)]
    assert kept(shop) == [(1, 2), (1, 3), (1, 4), (3, 1), (3, 5)]
    judge(shop, rebuild_table)
    assert silver(shop) == before
    assert shop.warehouse.fetch("select _row from quarantine.shop_orders") == [(3,)]


_KILLED = """
import sys
import psycopg
from datops_assets.ingestion import Keep, prune_loads
from datops_assets.ingestion.database import DatabaseTable
from datops_assets.postgres import failpoints
failpoints.arm("before_prune_commit")
table = DatabaseTable(source="shop", name="orders", relation="orders", disposition="replace")
with psycopg.connect(sys.argv[1], autocommit=True) as conn:
    prune_loads(conn, table, Keep(loads=0))
"""


def test_killed_in_the_middle_nothing_went(shop: Shop) -> None:
    """Rows and the catalogue's note go in one transaction."""
    for number in (1, 2):
        night(shop, (1, number))
    ended = subprocess.run([sys.executable, "-c", _KILLED, shop.warehouse.url], timeout=60, check=False)
    assert ended.returncode == -9
    assert len(kept(shop)) == 2
    assert shop.loads()[0].pruned_at is None
    assert prune(shop, loads=0) == [(1, 1)]
