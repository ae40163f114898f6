"""Rules that look into another table, and checks of the whole table: aggregates, freshness, volume."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from datops_assets.errors import DeclarationError
from datops_assets.quality import JudgementBlockedError, replay_quarantine
from datops_assets_tests.quality.bronze_table import BronzeTable, contract

ORDERS = contract(
    key=["order_id"],
    columns={"order_id": {"type": "bigint"}, "total": {"type": "numeric(12,2)"}, "ordered_at": {"type": "timestamptz"}},
)  # fmt: skip
LINES = {
    "order_id": {"type": "bigint"},
    "amount": {"type": "numeric(12,2)"},
    "shipped_at": {"type": "timestamptz"},
}


@pytest.fixture
def orders(warehouse):
    table = BronzeTable(warehouse.conn, "orders", ["order_id", "total", "ordered_at"])
    table.load(("1", "10.00", "2026-01-02T00:00:00Z"), ("2", "5.00", "2026-01-02T00:00:00Z"))
    table.judge(ORDERS)
    return table


@pytest.fixture
def lines(warehouse):
    return BronzeTable(warehouse.conn, "lines", ["order_id", "amount", "shipped_at"])


def with_rule(**rule) -> object:
    return contract(columns=LINES, rules=[rule])


SHIPPED_LATER = {
    "name": "shipped_later",
    "holds": "shipped_at >= orders.ordered_at",
    "references": "orders",
    "match": ["order_id"],
    "columns": ["order_id"],
}


def test_a_condition_over_two_tables_sets_rows_aside(orders, lines):
    lines.load(
        ("1", "1", "2026-01-03T00:00:00Z"),
        ("1", "1", "2026-01-01T00:00:00Z"),
        ("9", "1", "2026-01-01T00:00:00Z"),
        ("2", "1", None),
    )
    judgement = lines.judge(with_rule(**SHIPPED_LATER))
    assert lines.silver("order_id") == [(1,), (9,), (2,)]
    assert judgement.reasons == {"shipped_later: is false with orders": 1}


def test_what_it_refused_comes_in_when_the_other_row_changed(orders, lines, warehouse):
    lines.load(("1", "1", "2026-01-01T00:00:00Z"))
    rules = with_rule(**SHIPPED_LATER)
    lines.judge(rules)
    orders.load(("1", "10.00", "2026-01-01T00:00:00Z"), path="b.csv")
    orders.judge(ORDERS)
    assert replay_quarantine(warehouse.conn, source="shop", table="lines", contract=rules).rows_released == 1


def test_one_that_warns_is_counted(orders, lines):
    lines.load(("1", "1", "2026-01-01T00:00:00Z"))
    (check,) = [
        c
        for c in lines.judge(with_rule(**SHIPPED_LATER, severity="warn")).checks
        if c.name == "shipped_later"
    ]
    assert (check.rows_failed, check.passed) == (1, False)
    assert lines.silver("order_id") == [(1,)]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            {**SHIPPED_LATER, "holds": "amount > 0"},
            "names no column of the other table, expected orders.column",
        ),
        ({**SHIPPED_LATER, "holds": "amount > others.total"}, "names no column of the other table"),
        ({**SHIPPED_LATER, "holds": "amount > now() and orders.total > 0"}, "is not allowed"),
        ({**SHIPPED_LATER, "match": ["nobody"]}, "'nobody' is not a column of this contract"),
        ({**SHIPPED_LATER, "match": ["order_id", "amount"]}, "match and columns differ in length"),
        ({"compare": "median(amount)", "equals": "sum(total)", "references": "orders"}, "not an aggregate"),
        ({"compare": "sum(*)", "equals": "sum(total)", "references": "orders"}, "not an aggregate"),
        (
            {"compare": "sum(price)", "equals": "sum(total)", "references": "orders"},
            "'price' is not a column",
        ),
        ({"freshness": "amount", "max_age_h": 1}, "expected a date or a moment"),
        ({"volume": {}}, "expected min, max, within"),
    ],
)
def test_mistakes_are_named(rule, said):
    with pytest.raises(ValueError, match=said):
        with_rule(**rule)


def test_a_column_that_the_other_silver_lacks_is_named(orders, lines):
    lines.load(("1", "1", None))
    with pytest.raises(DeclarationError, match=r"shipped_later: 'orders\.paid_at' is not a column"):
        lines.judge(with_rule(**{**SHIPPED_LATER, "holds": "shipped_at > orders.paid_at"}))


ADDS_UP = {
    "name": "lines_add_up",
    "compare": "sum(amount)",
    "by": ["order_id"],
    "references": "orders",
    "columns": ["order_id"],
    "equals": "sum(total)",
}


def check(judgement, name):
    (found,) = [each for each in judgement.checks if each.name == name]
    return found


def test_sums_by_group_are_compared_both_ways(orders, lines):
    lines.load(("1", "4.00", None), ("1", "6.00", None), ("3", "1.00", None))
    found = check(lines.judge(with_rule(**ADDS_UP)), "lines_add_up")
    assert (found.rows_judged, found.rows_failed, found.passed) == (3, 2, False)
    assert found.said == "sum(amount) is not sum(total) of orders in 2 of 3 group(s)"
    assert len(lines.silver()) == 3


def test_a_tolerance_takes_rounding(orders, lines):
    lines.load(("1", "9.99", None), ("2", "5.00", None))
    assert not check(lines.judge(with_rule(**ADDS_UP)), "lines_add_up").passed
    assert check(lines.judge(with_rule(**ADDS_UP, tolerance="0.01")), "lines_add_up").passed


def test_a_comparison_is_made_anew_when_only_the_other_table_changed(orders, lines):
    lines.load(("1", "10.00", None), ("2", "6.00", None))
    rules = with_rule(**ADDS_UP)
    assert not check(lines.judge(rules), "lines_add_up").passed
    orders.load(("2", "6.00", None), path="b.csv")
    orders.judge(ORDERS)
    again = lines.judge(rules)
    assert again.state == "unchanged"
    assert check(again, "lines_add_up").passed


def test_totals_are_compared_without_groups(orders, lines):
    lines.load(("1", "1", None), ("2", "1", None))
    rule = {"name": "as_many", "compare": "count(*)", "equals": "count(order_id)", "references": "orders"}
    assert check(lines.judge(with_rule(**rule)), "as_many").passed


def test_a_comparison_that_blocks_leaves_silver_as_it_was(orders, lines):
    lines.load(("1", "1", None))
    with pytest.raises(JudgementBlockedError, match="lines_add_up: sum"):
        lines.judge(with_rule(**ADDS_UP, severity="block"))


def test_the_newest_value_may_not_be_too_old_also_when_nothing_is_new(lines):
    now = datetime.now(UTC)
    lines.load(("1", "1", (now - timedelta(hours=2)).isoformat()))
    fresh = {"name": "fresh", "freshness": "shipped_at"}
    assert check(lines.judge(with_rule(**fresh, max_age_h=3)), "fresh").passed
    later = lines.judge(with_rule(**fresh, max_age_h=1))
    assert later.state == "unchanged"
    assert check(later, "fresh").said == "2.0 h since the newest shipped_at, expected at most 1 h"


def test_no_value_is_not_fresh(lines):
    lines.load(("1", "1", None))
    found = check(lines.judge(with_rule(name="fresh", freshness="shipped_at", max_age_h=9)), "fresh")
    assert found.said == "no value of shipped_at, expected at most 9 h"


def test_a_day_is_fresh_until_its_end(warehouse):
    table = BronzeTable(warehouse.conn, "days", ["day"])
    table.load(((datetime.now(UTC) - timedelta(days=1)).date().isoformat(),))
    rules = contract(
        columns={"day": {"type": "date"}}, rules=[{"name": "fresh", "freshness": "day", "max_age_h": 24}]
    )
    assert check(table.judge(rules), "fresh").passed


def rows(count: int) -> list[tuple[str, str, None]]:
    return [("1", "1", None)] * count


def test_a_load_far_from_the_usual_is_noticed(lines):
    rules = with_rule(name="usual", volume={"within": 0.5})
    for number, size in enumerate([10, 12, 11]):
        lines.load(*rows(size), path=f"{number}.csv")
        assert check(lines.judge(rules), "usual").passed
    lines.load(*rows(3), path="small.csv")
    found = check(lines.judge(rules), "usual")
    assert found.said == "small.csv: 3 rows, expected usual are 11 (within 0.5: 5.5 to 16.5)"


def test_bounds_hold_from_the_first_load_on(lines):
    lines.load(*rows(3))
    lines.load(*rows(7), path="b.csv")
    found = check(lines.judge(with_rule(name="size", volume={"min": 2, "max": 5})), "size")
    assert (found.rows_judged, found.rows_failed) == (2, 1)
    assert found.said == "b.csv: 7 rows, expected at least 2 and at most 5"


def test_days_add_their_loads_up(lines):
    rules = with_rule(name="daily", volume={"within": 0.2}, per="day")
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        for part in "ab":
            lines.load(*rows(5), path=f"{day}{part}", partition=day)
    lines.load(*rows(5), path="late", partition="2026-01-04")
    found = check(lines.judge(rules), "daily")
    assert found.said == "2026-01-04: 5 rows, expected usual are 10 (within 0.2: 8 to 12)"
    lines.load(*rows(5), path="rest", partition="2026-01-04")
    assert check(lines.judge(rules), "daily").passed


def test_checks_of_the_table_are_no_new_version():
    plain = contract(columns=LINES)
    for rule in (ADDS_UP, {"freshness": "shipped_at", "max_age_h": 1}, {"volume": {"min": 1}}):
        assert with_rule(**rule).version() == plain.version()
    assert with_rule(**SHIPPED_LATER).version() != plain.version()
