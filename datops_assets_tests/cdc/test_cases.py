"""Every case of change data capture has a test, or says why not."""

from __future__ import annotations

import pytest

from datops_assets_tests.cdc.cases import CASES, NOT_ALL, NOT_HELD, marks


@pytest.mark.parametrize("number", CASES)
def test_a_case_has_a_test_or_a_reason(number: int) -> None:
    held = marks()[number]
    assert bool(held) != (number in NOT_HELD), f"case {number}: {CASES[number]}"


def test_marks_and_reasons_are_of_cases_there_are() -> None:
    assert list(CASES) == list(range(1, 63))
    assert marks().keys() | NOT_HELD.keys() | NOT_ALL.keys() == CASES.keys()
