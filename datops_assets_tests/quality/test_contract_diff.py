"""What a changed contract would change, asked without writing."""

from __future__ import annotations

import pytest

from datops_assets.quality.contract_diff import Difference, diff_contract, judge_dry
from datops_assets.quality.judged import Subject
from datops_assets_tests.quality.bronze_table import BronzeTable, contract

BEFORE = {"id": {"type": "bigint"}, "total": {"type": "numeric"}}


@pytest.fixture
def orders(warehouse):
    table = BronzeTable(warehouse.conn, "orders", ["id", "total", "Coupon"])
    table.load(("1", "5", "A"), ("2", "-5", "A"), ("x", "7", None))
    table.judge(contract(key=["id"], columns=BEFORE))
    return table


def subject(**parts) -> Subject:
    return Subject("shop", "orders", contract(**parts))


def test_the_same_contract_changes_nothing(warehouse, orders):
    found = diff_contract(warehouse.conn, subject(key=["id"], columns=BEFORE))
    assert found.judged_by == ()
    assert found.newly_failing == {}
    assert (found.dry.rows, found.dry.failing) == (3, 1)
    assert found.delivered == (Difference("delivered 'Coupon'", None, "text"),)


def test_what_is_declared_otherwise_is_named(warehouse, orders):
    now = {"id": {"type": "bigint"}, "total": {"type": "numeric", "min": 0}, "paid_at": {"type": "date"}}
    found = diff_contract(
        warehouse.conn, subject(columns=now, rules=[{"name": "r", "unique": ["total"]}]), judge=False
    )
    assert [(d.what, d.declared, d.found) for d in found.judged_by] == [
        ("column total", "type: numeric, min: 0", "type: numeric"),
        ("column paid_at", "type: date", None),
        ("rule r", "name: r, unique: total", None),
        ("key", None, "id"),
    ]
    assert found.delivered[0] == Difference("column paid_at", "date", None)
    assert found.dry is None


def test_rows_that_would_newly_fail_are_counted_and_silver_is_as_it_was(warehouse, orders):
    now = {**BEFORE, "total": {"type": "numeric", "min": 0}}
    rules = [{"name": "once", "unique": ["coupon"]}]
    found = diff_contract(
        warehouse.conn, subject(key=["id"], columns={**now, "coupon": {"type": "text"}}, rules=rules)
    )
    assert found.newly_failing == {"total: below the minimum": 1}
    assert len(orders.silver()) == 2
    assert len(orders.waiting()) == 1


@pytest.mark.parametrize("key", [["id"], []])
def test_a_dry_judgement_says_what_a_real_one_would(warehouse, key):
    table = BronzeTable(warehouse.conn, "orders", ["id", "ref", "parent"])
    table.load(("1", "a", "1"), ("2", "a", "9"), ("3", "b", "1"), ("3", "b", None), ("z", "c", "1"))
    parents = BronzeTable(warehouse.conn, "parents", ["id"])
    parents.load(("1",))
    parents.judge(contract(key=["id"], columns={"id": {"type": "bigint"}}))
    rules = contract(
        key=key,
        columns={"id": {"type": "bigint"}, "ref": {"type": "text"}, "parent": {"type": "bigint"}},
        rules=[
            {"unique": ["ref"]},
            {"foreign_key": ["parent"], "references": "parents", "columns": ["id"]},
        ],
    )
    dry = judge_dry(warehouse.conn, Subject("shop", "orders", rules))
    real = table.judge(rules)
    assert (dry.rows, dry.failing, dry.reasons) == (real.rows_judged, real.rows_quarantined, real.reasons)


def test_a_rule_that_cannot_be_asked_is_said(warehouse, orders):
    rule = {"foreign_key": ["id"], "references": "nobody", "columns": ["id"]}
    found = judge_dry(warehouse.conn, subject(columns=BEFORE, rules=[rule]))
    assert "refers to nobody, which has no silver yet" in found.not_judged[0]
