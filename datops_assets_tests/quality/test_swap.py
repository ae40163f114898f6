"""A rebuilt table takes silver's place in one moment; grants and views follow."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from datops_assets.errors import LockTakenError, WarehouseError
from datops_assets.quality import plan_judgement, rebuild_table
from datops_assets.quality import swap as swapping
from datops_assets_tests.quality.bronze_table import BronzeTable, contract

SMALL = {"id": {"type": "integer"}, "n": {"type": "integer"}}


@pytest.fixture
def items(warehouse: Any) -> BronzeTable:
    bronze = BronzeTable(warehouse.conn, "items", ["id", "n"])
    bronze.load(("1", "1"), ("2", "2"))
    bronze.judge(contract(key=["id"], columns=SMALL))
    return bronze


def rebuild(items: BronzeTable, **parts: Any) -> Any:
    return rebuild_table(
        items.conn, source="shop", table="items", contract=contract(key=["id"], columns=SMALL | parts)
    )


def test_views_read_the_new_table_and_keep_their_options(items: BronzeTable) -> None:
    items.conn.execute(
        "create view gold.sums with (security_barrier) as select n, count(*) as items from silver.shop_items group by n"
    )
    items.conn.execute("create view gold.top as select * from gold.sums where items > 1")
    items.load(("3", "2"))
    rebuild(items, extra={"type": "text"})
    assert items.conn.execute("select * from gold.top").fetchall() == [(2, 2)]
    assert items.conn.execute(
        "select reloptions from pg_class where oid = 'gold.sums'::regclass"
    ).fetchone() == (["security_barrier=true"],)


def test_grants_survive(items: BronzeTable) -> None:
    items.conn.execute("drop role if exists analyst_q; create role analyst_q")
    items.conn.execute(
        "grant select on silver.shop_items to datops_reader; grant update (n) on silver.shop_items to analyst_q"
    )
    rebuild(items)
    granted = items.conn.execute(
        "select has_table_privilege('datops_reader', 'silver.shop_items', 'select'),"
        " has_column_privilege('analyst_q', 'silver.shop_items', 'n', 'update'),"
        " has_column_privilege('analyst_q', 'silver.shop_items', 'id', 'update')"
    ).fetchone()
    items.conn.execute("drop owned by analyst_q; drop role analyst_q")
    assert granted == (True, True, False)


def test_what_cannot_follow_is_named_and_silver_stays(items: BronzeTable) -> None:
    items.conn.execute("create materialized view gold.frozen as select * from silver.shop_items")
    items.load(("3", "2"))
    with pytest.raises(
        WarehouseError, match=r"the materialized view gold.frozen would stay with the old one"
    ):
        rebuild(items)
    assert items.silver("id") == [(1,), (2,)]


def test_a_view_on_a_column_that_leaves_is_named_and_silver_stays(items: BronzeTable) -> None:
    items.conn.execute("create view gold.ns as select n from silver.shop_items")
    without = contract(key=["id"], columns={"id": SMALL["id"]})
    with pytest.raises(
        WarehouseError, match=r"the view gold.ns does not fit the new columns of silver.shop_items"
    ):
        items.judge(without)
    assert items.silver("id, n") == [(1, 1), (2, 2)]


def test_a_long_reader_makes_the_swap_give_up_in_time(
    items: BronzeTable, warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swapping, "LOCK_TIMEOUT_S", 0.2)
    with warehouse.connect() as reader, reader.transaction():
        reader.execute("select * from silver.shop_items")
        with pytest.raises(LockTakenError, match=r"somebody read silver.shop_items"):
            rebuild(items)
    assert items.conn.execute("show lock_timeout").fetchone() == ("0",)
    assert rebuild(items).state == "judged"


def test_the_index_keeps_its_name_through_swaps(items: BronzeTable) -> None:
    for _ in range(2):
        rebuild(items)
    names = items.conn.execute(
        "select indexname, tablename from pg_indexes where schemaname = 'silver'"
    ).fetchall()
    assert names == [("shop_items__key", "shop_items")]


def test_a_table_named_like_an_index_of_another_stays(items: BronzeTable) -> None:
    other = BronzeTable(items.conn, "items_key", ["id"])
    other.load(("7",))
    other.judge(contract(columns={"id": {"type": "integer"}}))
    for _ in range(2):
        rebuild(items)
    assert other.silver("id") == [(7,)]
    pkey = BronzeTable(items.conn, "items_pkey", ["id"])
    pkey.load(("x",))
    pkey.judge(contract(columns={"id": {"type": "integer"}}))
    assert len(pkey.waiting()) == 1


def test_indexes_comments_and_row_security_survive(items: BronzeTable) -> None:
    items.conn.execute(
        'create index "by N" on silver.shop_items (n desc) where n > 0;'
        "create unique index once on silver.shop_items (n, id);"
        "comment on table silver.shop_items is 'ours'; comment on column silver.shop_items.n is 'a % of it';"
        "alter table silver.shop_items enable row level security"
    )
    indexes = "select indexdef from pg_indexes where schemaname = 'silver' order by 1"
    before = items.conn.execute(indexes).fetchall()
    for _ in range(2):
        rebuild(items)
    assert items.conn.execute(indexes).fetchall() == before
    assert items.conn.execute(
        "select obj_description(oid, 'pg_class'), col_description(oid, 2), relrowsecurity from pg_class"
        " where oid = 'silver.shop_items'::regclass"
    ).fetchone() == ("ours", "a % of it", True)


@pytest.mark.parametrize(
    ("made", "named"),
    [
        ("create policy mine on silver.shop_items using (true)", "the policy mine"),
        ("create publication out for table silver.shop_items", "the publication out"),
        ("alter table silver.shop_items add constraint small check (n < 9)", "the constraint small"),
        ("create statistics pair on id, n from silver.shop_items", "the statistics pair"),
    ],
)
def test_what_would_be_lost_is_named_and_silver_stays(items: BronzeTable, made: str, named: str) -> None:
    items.conn.execute(made)
    with pytest.raises(WarehouseError, match=f"{named} would stay with the old one"):
        rebuild(items)


def test_an_index_that_does_not_fit_is_named_and_silver_stays(items: BronzeTable) -> None:
    items.conn.execute("create index by_n on silver.shop_items (n)")
    with pytest.raises(WarehouseError, match=r"the index by_n does not fit .* drop it, then run again"):
        items.judge(contract(key=["id"], columns={"id": SMALL["id"]}))
    assert items.silver("id, n") == [(1, 1), (2, 2)]


def test_readers_of_a_view_and_the_swap_never_lock_each_other_out(
    items: BronzeTable, warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader locks the view, then the table; whoever goes the other way makes a deadlock."""
    items.conn.execute("create view gold.v as select * from silver.shop_items")
    monkeypatch.setattr(swapping, "hit", lambda _: time.sleep(0.1))
    errors: list[str] = []
    over = threading.Event()

    def read() -> None:
        with warehouse.connect() as reader:
            while not over.is_set():
                try:
                    reader.execute(
                        "select count(*) from gold.v join silver.shop_items i using (id)"
                    ).fetchall()
                except psycopg.Error as error:
                    errors.append(type(error).__name__)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    states = [rebuild(items).state for _ in range(5)]
    over.set()
    for reader in readers:
        reader.join()
    assert (states, errors) == (["judged"] * 5, [])


def test_a_reader_who_holds_the_view_and_wants_the_table_goes_first(
    items: BronzeTable, warehouse: Any
) -> None:
    items.conn.execute("create view gold.v as select * from silver.shop_items")
    with warehouse.connect() as reader, ThreadPoolExecutor(1) as thread:
        with reader.transaction():
            reader.execute("select * from gold.v")
            swap = thread.submit(rebuild, items)
            time.sleep(1.5)
            assert reader.execute("select count(*) from gold.v, silver.shop_items").fetchone() == (4,)
        assert swap.result().state == "judged"


def test_a_plan_tells_what_would_break_readers(items: BronzeTable) -> None:
    changed = contract(key=["id"], columns={"id": {"type": "bigint"}, "new": {"type": "text"}})
    plan = plan_judgement(items.conn, "shop", "items", changed)
    assert (plan.what, plan.why) == ("rebuild", "the contract changed")
    assert [(c.name, c.what, c.declared, c.actual) for c in plan.columns] == [
        ("id", "widen", "bigint", "integer"), ("new", "add", "text", None), ("n", "remove", None, "integer"),
    ]  # fmt: skip


DIE = """
import sys, psycopg
from datops_assets.postgres.failpoints import arm
from datops_assets.quality import Contract, judge_table
url, place, document = sys.argv[1:]
with psycopg.connect(url, autocommit=True) as conn:
    arm(place)
    judge_table(conn, source="shop", table="items", contract=Contract.model_validate_json(document))
"""


PLACES = [("judge.inserted", True), ("judge.merged", True), ("judge.recorded", True)]
PLACES += [
    (place, False)
    for place in ("judge.inserted", "judge.merged", "swap.renamed", "swap.done", "judge.recorded")
]


@pytest.mark.parametrize(("place", "load"), PLACES)
def test_a_judgement_killed_anywhere_leaves_silver_whole_and_the_next_completes_it(
    items: BronzeTable, warehouse: Any, place: str, load: bool
) -> None:
    items.load(("2", "20"), ("3", "x"))
    judged_by = contract(key=["id"], columns=SMALL | ({} if load else {"extra": {"type": "text"}}))
    document = judged_by.model_dump_json(by_alias=True, exclude_defaults=True)
    died = subprocess.run(
        [sys.executable, "-c", DIE, warehouse.url, place, document], check=False, timeout=60
    )
    assert died.returncode == -signal.SIGKILL
    assert (items.silver("id, n"), items.waiting()) == ([(1, 1), (2, 2)], [])
    items.judge(judged_by)
    assert items.silver("id, n") == [(1, 1), (2, 20)]
    assert len(items.waiting()) == 1
    assert items.conn.execute("select count(*) from pg_tables where schemaname = 'silver'").fetchone() == (1,)
