"""What a judgement does to silver, the quarantine and the catalogue."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from datops_assets.quality import JudgementBlockedError
from datops_assets_tests.quality.bronze_table import BronzeTable, contract

ORDERS = contract(
    key=["order_id"],
    latest_by="updated_at",
    columns={
        "order_id": {"type": "bigint", "required": True, "min": 1},
        "status": {"type": "text", "in": ["open", "paid"]},
        "total": {"type": "numeric(12,2)"},
        "updated_at": {"type": "timestamptz"},
    },
)


@pytest.fixture
def orders(warehouse: Any) -> BronzeTable:
    return BronzeTable(warehouse.conn, "orders", ["order_id", "status", "total", "updated_at"])


def test_good_rows_reach_silver_typed(orders: BronzeTable) -> None:
    orders.load(("1", "open", "1.50", "2024-01-01T00:00:00Z"), ("2", None, None, None))
    judgement = orders.judge(ORDERS)
    assert (judgement.state, judgement.rows_judged, judgement.rows_passed, judgement.rows_inserted) == (
        "judged",
        2,
        2,
        2,
    )
    assert orders.silver("order_id, status, total") == [(1, "open", Decimal("1.50")), (2, None, None)]


def test_a_refused_row_carries_all_its_reasons_and_no_value(orders: BronzeTable) -> None:
    load = orders.load(
        ("1", "lost", "abc", "2024-01-01T00:00:00Z"), ("2", "open", "1", "2024-01-01T00:00:00Z")
    )
    judgement = orders.judge(ORDERS)
    assert orders.waiting() == [
        (load, 1, ["status: not in the allowed set", "total: not a number that numeric(12,2) holds exactly"])
    ]
    assert (judgement.rows_quarantined, orders.silver("order_id")) == (1, [(2,)])
    assert judgement.reasons == {
        "status: not in the allowed set": 1,
        "total: not a number that numeric(12,2) holds exactly": 1,
    }


def test_the_quarantine_keeps_the_delivered_record(orders: BronzeTable) -> None:
    orders.load(("x", "open", "1", None))
    orders.judge(ORDERS)
    assert orders.conn.execute("select record from quarantine.shop_orders").fetchone() == (
        {"order_id": "x", "status": "open", "total": "1", "updated_at": None},
    )


def test_the_greatest_latest_by_wins_and_a_null_one_loses(orders: BronzeTable) -> None:
    orders.load(
        ("1", "paid", "2", "2024-01-02T00:00:00Z"),
        ("1", "open", "1", "2024-01-01T00:00:00Z"),
        ("1", "open", "3", None),
    )
    orders.judge(ORDERS)
    assert orders.silver("status, total") == [("paid", Decimal(2))]


def test_a_late_arrival_does_not_replace_a_newer_row(orders: BronzeTable) -> None:
    orders.load(("1", "paid", "2", "2024-01-02T00:00:00Z"))
    orders.judge(ORDERS)
    orders.load(("1", "open", "1", "2024-01-01T00:00:00Z"), ("2", "open", "1", None))
    judgement = orders.judge(ORDERS)
    assert orders.silver("order_id, status") == [(1, "paid"), (2, "open")]
    assert (judgement.rows_inserted, judgement.rows_updated) == (1, 0)


def test_nothing_new_changes_nothing(orders: BronzeTable) -> None:
    orders.load(("1", "open", "1", None))
    orders.judge(ORDERS)
    assert orders.judge(ORDERS).state == "unchanged"
    assert orders.conn.execute("select count(*) from datops.judgements").fetchone() == (1,)


def test_an_undone_load_leaves_and_the_runner_up_comes_back(orders: BronzeTable) -> None:
    first = orders.load(("1", "open", "1", "2024-01-01T00:00:00Z"))
    second = orders.load(
        ("1", "paid", "2", "2024-01-02T00:00:00Z"), ("2", "open", "x", None), ("3", "open", "1", None)
    )
    orders.judge(ORDERS)
    orders.set_state(second, "undone")
    judgement = orders.judge(ORDERS)
    assert orders.silver("order_id, status, _load_id") == [(1, "open", first)]
    assert orders.waiting() == []
    assert (judgement.rows_deleted, judgement.rows_inserted) == (2, 1)


def test_a_changed_contract_judges_everything_again(orders: BronzeTable) -> None:
    orders.load(("1", "lost", "1", None), ("2", "open", "1", None))
    orders.judge(ORDERS)
    wider = ORDERS.model_copy(
        update={
            "columns": {**ORDERS.columns, "status": ORDERS.columns["status"].model_copy(update={"in_": None})}
        }
    )
    judgement = orders.judge(wider)
    assert (judgement.kind, judgement.why) == ("rebuild", "the contract changed")
    assert orders.silver("order_id") == [(1,), (2,)]
    assert orders.waiting() == []


def test_a_blocking_check_leaves_silver_as_it_was(orders: BronzeTable) -> None:
    strict = contract(key=["order_id"], columns={"order_id": {"type": "bigint", "severity": "block"}})
    orders.load(("1",))
    orders.judge(strict)
    orders.load(("x",), ("2",))
    with pytest.raises(JudgementBlockedError, match=r"order_id.type fails in 1 of 2 rows") as blocked:
        orders.judge(strict)
    assert orders.silver("order_id") == [(1,)]
    assert orders.waiting() == []
    assert blocked.value.judgement.state == "blocked"
    assert orders.conn.execute(
        "select state, rows_judged from datops.judgements order by judgement_id"
    ).fetchall() == [("judged", 1), ("blocked", 2)]
    assert orders.conn.execute(
        "select check_name, rows_failed, passed from datops.check_results where not passed"
    ).fetchall() == [("order_id.type", 1, False)]


def test_a_warning_counts_and_lets_the_row_pass(orders: BronzeTable) -> None:
    lenient = contract(
        columns={
            "order_id": {"type": "bigint"},
            "status": {"type": "text", "in": ["open"], "severity": "warn"},
        }
    )
    orders.load(("1", "lost"), ("2", "open"))
    judgement = orders.judge(lenient)
    assert orders.silver("order_id") == [(1,), (2,)]
    check = next(each for each in judgement.checks if each.name == "status.in")
    assert (check.rows_failed, check.passed, check.severity) == (1, False, "warn")


def test_a_blocked_judgement_says_why_and_where_to_look(warehouse: Any) -> None:
    """Its rows are rolled back, so the quarantine has none of them to show."""
    bronze = BronzeTable(warehouse.conn, "fees", ["Member No.", "fee"])
    fees = contract(
        columns={
            "member_id": {"type": "integer", "required": True},
            "fee": {"type": "integer", "max": 9, "severity": "block"},
        }
    )
    bronze.load(("1", "10"), ("2", "11"), ("3", "x"))
    with pytest.raises(JudgementBlockedError) as blocked:
        bronze.judge(fees)
    said = str(blocked.value)
    assert said.startswith(
        "shop.fees: fee.type fails in 1 of 3 rows; fee.max fails in 2 of 3 rows. Silver is as it was."
    )
    assert "no delivered column is `member_id`; the files have: Member No., fee; see `rename:`" in said
    most = "Most rows: member_id: missing (3), fee: above the maximum (2), fee: not a whole number (integer) (1)."
    assert most in said
    assert "datops contract test shop.fees" in said
    assert "quarantine list" not in said


def test_a_column_that_is_there_but_empty_is_not_called_missing(warehouse: Any) -> None:
    bronze = BronzeTable(warehouse.conn, "fees", ["fee"])
    bronze.load((None,))
    judgement = bronze.judge(contract(columns={"fee": {"type": "integer", "required": True}}))
    assert [check.said for check in judgement.checks] == [None, None]
