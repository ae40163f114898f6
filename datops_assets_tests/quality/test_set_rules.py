"""Rules that look beyond one row, thresholds, dispositions, and the score."""

from __future__ import annotations

from typing import Any

import pytest

from datops_assets.errors import DeclarationError
from datops_assets.quality import CheckResult, JudgementBlockedError, quality_score, replay_quarantine
from datops_assets.quality.judged import threshold_kept
from datops_assets_tests.quality.bronze_table import BronzeTable, contract

CUSTOMERS = contract(key=["id"], columns={"id": {"type": "integer"}})


def orders(severity: str) -> Any:
    rule = {"foreign_key": ["customer"], "references": "customers", "columns": ["id"], "severity": severity}
    return contract(
        key=["id"], columns={"id": {"type": "integer"}, "customer": {"type": "integer"}}, rules=[rule]
    )


@pytest.fixture
def shop(warehouse: Any) -> tuple[BronzeTable, BronzeTable]:
    customers = BronzeTable(warehouse.conn, "customers", ["id"])
    customers.load(("1",))
    customers.judge(CUSTOMERS)
    table = BronzeTable(warehouse.conn, "orders", ["id", "customer"])
    table.load(("10", "1"), ("11", "2"), ("12", None))
    return customers, table


def test_an_orphan_waits_until_its_parent_came_and_is_replayed(shop: tuple[BronzeTable, BronzeTable]) -> None:
    customers, table = shop
    judgement = table.judge(orders("error"))
    assert table.silver("id") == [(10,), (12,)]
    assert judgement.reasons == {"customer: not in customers": 1}
    customers.load(("2",))
    customers.judge(CUSTOMERS)
    arguments = {"source": "shop", "table": "orders", "contract": orders("error")}
    first = replay_quarantine(table.conn, **arguments)
    second = replay_quarantine(table.conn, **arguments)
    assert (first.rows_released, first.rows_waiting, second.rows_released) == (1, 0, 0)
    assert table.silver("id") == [(10,), (11,), (12,)]


def test_an_orphan_that_only_warns_passes_and_is_counted(shop: tuple[BronzeTable, BronzeTable]) -> None:
    judgement = shop[1].judge(orders("warn"))
    assert shop[1].silver("id") == [(10,), (11,), (12,)]
    assert [(c.name, c.rows_failed, c.passed) for c in judgement.checks if c.rows_failed] == [
        ("foreign_key_customer_in_customers", 1, False)
    ]


def test_a_reference_without_silver_is_a_sentence(shop: tuple[BronzeTable, BronzeTable]) -> None:
    _, table = shop
    table.conn.execute("drop table silver.shop_customers")
    with pytest.raises(
        DeclarationError, match="refers to customers, which has no silver yet; judge it first"
    ):
        table.judge(orders("error"))


def test_unique_values_belong_to_the_first_that_had_them(warehouse: Any) -> None:
    bronze = BronzeTable(warehouse.conn, "refs", ["id", "ref"])
    refs = contract(
        key=["id"], columns={"id": {"type": "integer"}, "ref": {"type": "text"}}, rules=[{"unique": ["ref"]}]
    )
    first = bronze.load(("1", "a"), ("2", "a"), ("3", None), ("4", None))
    bronze.judge(refs)
    second = bronze.load(("1", "a"), ("5", "a"), ("6", "b"))
    bronze.judge(refs)
    assert bronze.silver("id, ref") == [(3, None), (4, None), (1, "a"), (6, "b")]
    assert bronze.waiting() == [
        (first, 2, ["ref: another row has the same"]),
        (second, 2, ["ref: another row has the same"]),
    ]


def test_a_unique_rule_that_warns_counts_in_silver(warehouse: Any) -> None:
    bronze = BronzeTable(warehouse.conn, "refs", ["id", "ref"])
    refs = contract(
        key=["id"],
        columns={"id": {"type": "integer"}, "ref": {"type": "text"}},
        rules=[{"unique": ["ref"], "severity": "warn", "max_rows": 1}],
    )
    bronze.load(("1", "a"), ("2", "a"))
    first = bronze.judge(refs)
    bronze.load(("3", "a"))
    second = bronze.judge(refs)
    assert [
        (c.rows_judged, c.rows_failed, c.passed)
        for j in (first, second)
        for c in j.checks
        if c.name == "unique_ref"
    ] == [(2, 1, True), (3, 2, False)]


def test_a_blocking_row_count_keeps_an_empty_delivery_out(warehouse: Any) -> None:
    bronze = BronzeTable(warehouse.conn, "rates", ["id"])
    rates = contract(
        key=["id"],
        columns={"id": {"type": "integer"}},
        rules=[{"row_count": {"min": 2}, "severity": "block"}],
    )
    old = bronze.load(("1",), ("2",))
    bronze.judge(rates, disposition="replace")
    bronze.set_state(old, "superseded")
    bronze.load(("3",))
    said = "row_count_of_the_table: silver would hold 1 rows, expected at least 2"
    with pytest.raises(JudgementBlockedError, match=said):
        bronze.judge(rates, disposition="replace")
    assert bronze.silver("id") == [(1,), (2,)]


@pytest.mark.parametrize("disposition", ["replace", "snapshot"])
def test_silver_holds_the_passing_rows_of_the_newest_delivery(warehouse: Any, disposition: str) -> None:
    """Also where it refuses a record: key 2 is not what was delivered, so it is not there."""
    bronze = BronzeTable(warehouse.conn, "items", ["id", "n"])
    items = contract(key=["id"], columns={"id": {"type": "integer"}, "n": {"type": "integer"}})
    old = bronze.load(("1", "1"), ("2", "1"), ("3", "1"))
    bronze.judge(items, disposition=disposition)
    bronze.set_state(old, "superseded")
    bronze.load(("1", "2"), ("2", "bad"), ("4", "2"))
    judgement = bronze.judge(items, disposition=disposition)
    assert bronze.silver("id, n") == [(1, 2), (4, 2)]
    assert (judgement.rows_deleted, judgement.rows_total) == (2, 2)


def test_of_a_renewed_file_only_keys_that_left_count_as_deleted(warehouse: Any) -> None:
    """The other file of the delivery stays as it is."""
    bronze = BronzeTable(warehouse.conn, "items", ["id", "n"])
    items = contract(key=["id"], columns={"id": {"type": "integer"}, "n": {"type": "integer"}})
    old = bronze.load(("1", "1"), ("2", "1"), path="a.csv")
    bronze.load(("3", "1"), path="b.csv")
    bronze.judge(items, disposition="snapshot")
    bronze.set_state(old, "superseded")
    bronze.load(("1", "2"), ("4", "2"), path="a.csv")
    judgement = bronze.judge(items, disposition="snapshot")
    assert bronze.silver("id, n") == [(3, 1), (1, 2), (4, 2)]
    assert (judgement.rows_inserted, judgement.rows_updated, judgement.rows_deleted) == (1, 1, 1)


@pytest.mark.parametrize(
    ("max_rows", "max_ratio", "kept"),
    [
        (None, None, False),
        (2, None, True),
        (1, None, False),
        (None, 0.02, True),
        (None, 0.01, False),
        (1, 0.5, False),
    ],
)
def test_a_threshold_says_how_many_may_fail(
    max_rows: int | None, max_ratio: float | None, kept: bool
) -> None:
    assert threshold_kept(2, 100, max_rows, max_ratio) is kept


def test_within_its_threshold_a_blocking_rule_sets_rows_aside(warehouse: Any) -> None:
    bronze = BronzeTable(warehouse.conn, "sums", ["n"])
    sums = contract(columns={"n": {"type": "integer", "severity": "block", "max_ratio": 0.5}})
    bronze.load(("1",), ("x",))
    assert bronze.judge(sums).rows_quarantined == 1
    bronze.load(("1",), ("x",), ("y",))
    with pytest.raises(JudgementBlockedError):
        bronze.judge(sums)


def test_the_score_weighs_checks_by_severity() -> None:
    def check(severity: Any, failed: int) -> CheckResult:
        return CheckResult("c", None, severity, 10, failed, failed == 0)

    assert quality_score([check("warn", 0), check("error", 0)]) == 100
    assert quality_score([check("warn", 10), check("error", 0)]) == 75
    assert quality_score([check("warn", 0), check("error", 5), check("block", 0)]) == round(
        100 * (1 + 1.5 + 5) / 9, 4
    )
    assert quality_score([]) is None
