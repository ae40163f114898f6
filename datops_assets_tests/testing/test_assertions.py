"""What a team's own tests can use: the assertions, and the fixtures in a project of their own."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pytest

from datops_assets.testing import assert_contract, assert_rows_equal
from datops_assets_tests.docs.markdown import PROJECT, list_blocks

CONTRACT = {
    "columns": {
        "id": {"type": "bigint", "required": True},
        "day": {"type": "date"},
        "paid": {"type": "boolean"},
        "total": {"type": "numeric(6,2)", "min": 0},
    }
}
GOOD = [{"id": 1, "day": date(2026, 1, 2), "paid": True, "total": Decimal("1.50")}, {"id": 2, "total": None}]


@pytest.mark.parametrize("shape", [list, pa.Table.from_pylist], ids=["rows", "arrow"])
def test_rows_that_keep_the_contract_pass(shape):
    assert_contract(shape(GOOD), CONTRACT)


def test_a_frame_of_pandas_passes_with_its_own_kinds_of_null():
    frame = pd.DataFrame(
        {"id": [1, 2], "total": [1.5, float("nan")], "paid": pd.array([True, None], "boolean")}
    )
    assert_contract(frame, CONTRACT)


def test_reasons_are_counted_and_rows_named_without_a_value():
    with pytest.raises(AssertionError) as found:
        assert_contract([{"id": 1}, {"id": "secret", "total": -5}, {"total": -1}], CONTRACT)
    assert str(found.value).splitlines() == [
        "2 of 3 row(s) would be set aside:",
        "  total: below the minimum: 2 (row 1, 2)",
        "  id: missing: 1 (row 2)",
        "  id: not a whole number (bigint): 1 (row 1)",
    ]


ROWS = [{"id": 1, "total": 1.0}, {"id": 2, "total": 2.0}]


def test_equal_rows_are_equal():
    assert_rows_equal(ROWS, list(ROWS))
    assert_rows_equal(ROWS[::-1], ROWS, key="id")
    assert_rows_equal(ROWS[::-1], ROWS, ignore_order=True)
    assert_rows_equal(pd.DataFrame(ROWS), pa.Table.from_pylist(ROWS))
    assert_rows_equal(
        [{"id": 1, "total": Decimal("1.004")}], [{"id": 1, "total": 1}], key="id", tolerance=0.005
    )
    assert_rows_equal([{"id": 1, "other": 5}], [{"id": 1, "other": 6}], columns=["id"])
    assert_rows_equal([{"id": 1.004}, {"id": 3}], [{"id": 3}, {"id": 1}], ignore_order=True, tolerance=0.01)


@pytest.mark.parametrize(
    ("actual", "options", "lines"),
    [
        (
            [{"id": 1, "total": 9.0}, {"id": 3, "total": 2.0}],
            {"key": "id"},
            ["id=1: total is 9.0, expected 1.0", "missing: id=2", "unexpected: id=3"],
        ),
        (
            ROWS[::-1],
            {"columns": ["id"]},
            ["row 0: id is 2, expected 1", "row 1: id is 1, expected 2"],
        ),
        (ROWS[:1], {"ignore_order": True}, ["missing: {'id': 2, 'total': 2.0}"]),
        ([*ROWS, ROWS[0]], {"ignore_order": True}, ["unexpected: {'id': 1, 'total': 1.0}"]),
        ([{"id": 1}, ROWS[1]], {"key": ["id"]}, ["id=1: total is missing, expected 1.0"]),
        ([*ROWS, {"id": 7}], {}, ["unexpected: row 2: {'id': 7}"]),
    ],
)  # fmt: skip
def test_differences_are_named(actual, options, lines):
    with pytest.raises(AssertionError) as found:
        assert_rows_equal(actual, ROWS, **options)
    assert [line.strip() for line in str(found.value).splitlines()[1:]] == lines


def test_only_ten_differences_are_shown():
    with pytest.raises(AssertionError, match="and 90 more"):
        assert_rows_equal([{"id": n} for n in range(100)], [{"id": n + 1} for n in range(100)])


def test_a_key_that_is_none_is_said():
    with pytest.raises(ValueError, match="the actual rows have id"):
        assert_rows_equal([{"id": 1}, {"id": 1}], [{"id": 1}], key="id")


def test_the_project_of_the_page_passes_its_own_tests(tmp_path):
    for block in list_blocks(PROJECT / "docs" / "testing.md"):
        if block.title:
            (tmp_path / block.title).write_text(block.text)
    (tmp_path / "test_shop.py").write_text(
        "def test_the_shop_is_there(datops_shop):\n    assert list(datops_shop.rglob('*.csv*'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", tmp_path],
        cwd=tmp_path, capture_output=True, text=True, timeout=280,
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
