"""What waits is counted, shown, judged again once, or left out for good."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from datops_assets.quality import (
    drop_quarantined,
    list_quarantine,
    rebuild_table,
    replay_quarantine,
    show_quarantine,
)
from datops_assets_tests.quality.bronze_table import BronzeTable, contract


def sums(highest: int = 9) -> Any:
    return contract(key=["id"], columns={"id": {"type": "integer"}, "n": {"type": "integer", "max": highest}})


@pytest.fixture
def table(warehouse: Any) -> BronzeTable:
    bronze = BronzeTable(warehouse.conn, "sums", ["id", "n"])
    bronze.load(("1", "1"), ("2", "50"), ("3", "x"), ("x", "x"), path="a.csv")
    bronze.judge(sums())
    return bronze


def arguments(highest: int = 9) -> dict[str, Any]:
    return {"source": "shop", "table": "sums", "contract": sums(highest)}


def test_waiting_records_are_counted_by_reason(table: BronzeTable) -> None:
    reasons = [(each.table, each.stage, each.reason, each.rows) for each in list_quarantine(table.conn)]
    assert reasons == [
        ("shop.sums", "silver", "n: not a whole number (integer)", 2),
        ("shop.sums", "silver", "id: not a whole number (integer)", 1),
        ("shop.sums", "silver", "n: above the maximum", 1),
    ]
    assert list_quarantine(table.conn, "shop", "sums") == list_quarantine(table.conn)
    assert list_quarantine(table.conn, "other") == []


def test_waiting_records_are_shown_as_delivered(table: BronzeTable) -> None:
    shown = show_quarantine(table.conn, "shop", "sums", reason="n: above the maximum")
    assert [(each.path, each.row, each.record) for each in shown] == [("a.csv", 2, {"id": "2", "n": "50"})]
    assert len(show_quarantine(table.conn, "shop", "sums", limit=2)) == 2
    assert show_quarantine(table.conn, "shop", "never") == []


def test_a_replay_after_a_changed_contract_moves_what_passes_now_once(table: BronzeTable) -> None:
    first = replay_quarantine(table.conn, **arguments(99))
    second = replay_quarantine(table.conn, **arguments(99))
    assert (first.rows_released, first.rows_waiting, first.judgement.kind) == (1, 2, "replay")
    assert (second.rows_released, second.rows_waiting) == (0, 2)
    assert table.silver("id, n") == [(1, 1), (2, 50)]


def test_a_replay_by_a_changed_contract_counts_what_left_silver(table: BronzeTable) -> None:
    """A stricter contract takes rows out; nobody should have to find that by counting."""
    table.load(("5", "7"), path="b.csv")
    table.judge(sums())
    stricter = replay_quarantine(table.conn, **arguments(5))
    again = replay_quarantine(table.conn, **arguments(5))
    assert (stricter.contract_changed, stricter.rows_released) == (True, 0)
    assert (stricter.rows_left_silver, stricter.rows_waiting) == (1, 4)
    assert (again.contract_changed, again.rows_left_silver) == (False, 0)


def test_what_comes_in_is_counted_even_where_as_much_leaves(table: BronzeTable) -> None:
    other = contract(key=["id"], columns={"id": {"type": "integer"}, "n": {"type": "integer", "min": 9}})
    replayed = replay_quarantine(table.conn, source="shop", table="sums", contract=other)
    assert (replayed.rows_released, replayed.rows_left_silver, replayed.rows_waiting) == (1, 1, 3)


@pytest.mark.parametrize("state", ["superseded", "undone"])
def test_only_records_of_live_loads_wait(table: BronzeTable, state: str) -> None:
    """A corrected file takes its damaged lines away, and brings them back where it is undone itself."""
    table.conn.execute(
        "insert into quarantine.shop_sums (_load_id, _row, stage, reasons, raw) select max(load_id),"
        " 99, 'bronze', '{ragged}', 'x' from datops.loads"
    )
    waiting = list_quarantine(table.conn)
    table.set_state(1, state)
    assert list_quarantine(table.conn) == []
    assert show_quarantine(table.conn, "shop", "sums") == []
    assert drop_quarantined(table.conn, source="shop", table="sums", because="x") == 0
    assert replay_quarantine(table.conn, **arguments()).rows_waiting == 0
    table.set_state(1, "loaded")
    table.judge(sums())
    found = [(one.stage, one.reason, one.rows) for one in list_quarantine(table.conn)]
    assert found == [(one.stage, one.reason, one.rows) for one in waiting]


def test_a_replayed_row_does_not_beat_a_newer_one(table: BronzeTable) -> None:
    table.load(("2", "2"), path="b.csv")
    table.judge(sums())
    replay_quarantine(table.conn, **arguments(99))
    assert table.silver("id, n") == [(1, 1), (2, 2)]


def test_what_waits_on_keeps_its_day(table: BronzeTable) -> None:
    table.conn.execute("update quarantine.shop_sums set quarantined_at = '2020-01-01'")
    replay_quarantine(table.conn, **arguments())
    assert {each.since.year for each in list_quarantine(table.conn)} == {2020}


def test_one_reason_that_is_part_of_another_drops_its_own_records_only(warehouse) -> None:
    table = BronzeTable(warehouse.conn, "people", ["id", "parent_id"])
    table.load((None, "1"), ("2", None))
    rule = {"type": "bigint", "required": True}
    table.judge(contract(columns={"id": rule, "parent_id": rule}))
    dropped = drop_quarantined(
        warehouse.conn, source="shop", table="people", because="test row", reason="id: missing"
    )
    assert dropped == 1
    assert [reasons for _, _, reasons in table.waiting()] == [["parent_id: missing"]]


def test_a_dropped_record_never_comes_back(table: BronzeTable) -> None:
    assert (
        drop_quarantined(
            table.conn,
            source="shop",
            table="sums",
            because="test rows",
            reason="n: not a whole number (integer)",
        )
        == 2
    )
    rebuild_table(table.conn, **arguments())
    assert [row for _, row, _ in table.waiting()] == [2]
    assert table.conn.execute("select row, reason from datops.dropped_records order by row").fetchall() == [
        (3, "test rows"),
        (4, "test rows"),
    ]
    assert table.conn.execute("select count(*) from bronze.shop_sums").fetchone() == (4,)


def test_damaged_records_are_left_to_ingestion(table: BronzeTable) -> None:
    table.conn.execute(
        "insert into quarantine.shop_sums (_load_id, _row, stage, reasons, raw) select max(load_id),"
        " 99, 'bronze', '{ragged}', 'x' from datops.loads"
    )
    rebuild_table(table.conn, **arguments())
    assert ("bronze", "ragged", 1) in [
        (each.stage, each.reason, each.rows) for each in list_quarantine(table.conn)
    ]


def test_two_judgements_of_one_table_wait_for_each_other(table: BronzeTable, warehouse: Any) -> None:
    table.load(*[(str(n), "1") for n in range(100, 200)], path="b.csv")
    states = []

    def judge() -> None:
        with warehouse.connect() as conn:
            other = BronzeTable.__new__(BronzeTable)
            other.conn, other.name = conn, "sums"
            states.append(other.judge(sums()).state)

    threads = [threading.Thread(target=judge) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states) == ["judged", "unchanged", "unchanged"]
    assert len(table.silver("id")) == 101
