"""Unit tests of a contract: what holds, and what is said where it does not."""

from __future__ import annotations

from datetime import date

import pytest

from datops_assets.quality import ContractTest, run_contract_tests
from datops_assets_tests.quality.bronze_table import contract

RULES = contract(
    key=["id"],
    columns={
        "id": {"type": "bigint", "required": True},
        "day": {"type": "date"},
        "paid": {"type": "boolean"},
        "note": {"type": "text", "in": ["ok"], "severity": "warn"},
        "source": {"type": "text", "from": "filename", "pattern": "([a-z]+)/"},
    },
    rules=[{"name": "known", "foreign_key": ["id"], "references": "other", "columns": ["id"]}],
)


def problems(given, expect, **more) -> list[str]:
    test = ContractTest.model_validate({"name": "t", "given": given, "expect": expect, **more})
    (result,) = run_contract_tests(RULES, [test], {"No.": "id"})
    return list(result.problems)


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        ({"id": 1, "day": date(2026, 1, 2), "paid": True}, "passes"),
        ({"No.": 1}, "passes"),
        ({"id": 1, "note": "bad"}, "passes"),
        ({"id": 1, "note": "bad"}, ["note: not in the allowed set"]),
        ({"id": "x", "day": "2026-02-30"}, ["day: not a date", "id: not a whole number (bigint)"]),
        ([{"id": None}, {"day": "2026-01-01"}], ["id: missing"]),
    ],
)
def test_a_test_that_holds_has_no_problem(given, expect):
    assert problems(given, expect) == []


@pytest.mark.parametrize(
    ("given", "expect", "said"),
    [
        ({"id": "x"}, "passes", "is set aside (id: not a whole number (bigint)), expected to pass"),
        ({"id": 1}, ["id: missing"], "lacks the reason id: missing"),
        ({"day": "x"}, ["id: missing"], "also has the reason day: not a date"),
        ([{"id": 1}, {}], "passes", "row 2: is set aside (id: missing), expected to pass"),
        ({"idd": 1, "id": 1}, "passes", "'idd' becomes no column of the contract, expected one of: id, day,"),
        ({"id": 1}, ["known: not in other"], "(known can only be judged in the warehouse)"),
        ({"id": 1}, [], "passes, and no reason is expected; write `expect: passes`"),
        ([], "passes", "no row is given"),
    ],
)  # fmt: skip
def test_one_that_does_not_says_why(given, expect, said):
    assert any(said in problem for problem in problems(given, expect)), problems(given, expect)


def test_the_path_is_part_of_what_is_given():
    strict = contract(
        columns={"source": {**RULES.columns["source"].model_dump(by_alias=True), "in": ["erp"]}}
    )
    test = {"name": "t", "given": {}, "path": "erp/1.csv", "expect": "passes"}
    assert run_contract_tests(strict, [ContractTest.model_validate(test)])[0].holds
    other = ContractTest.model_validate({**test, "path": "crm/1.csv"})
    assert not run_contract_tests(strict, [other])[0].holds
