"""How a pipeline stands, in numbers."""

from __future__ import annotations

import pytest

from datops_assets.components.plans import pipeline_score


def test_the_score_of_a_pipeline_weighs_tables_by_their_rows():
    rows = [
        {"score": 100.0, "bronze_rows": 3},
        {"score": 60.0, "bronze_rows": 1},
        {"score": None, "bronze_rows": 1000},
    ]
    assert pipeline_score(rows) == pytest.approx(90.0)


def test_a_pipeline_that_was_never_judged_has_no_score():
    assert pipeline_score([{"score": None, "bronze_rows": 5}]) is None
