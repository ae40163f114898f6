"""A team's own pandera schema is one more rule, judged row by row."""

from __future__ import annotations

from typing import Any

import pytest

from datops_assets.errors import DeclarationError
from datops_assets_tests.quality.bronze_table import BronzeTable, contract

HERE = "datops_assets_tests.quality.own_schemas"


@pytest.fixture
def notes(warehouse: Any, monkeypatch: pytest.MonkeyPatch) -> BronzeTable:
    monkeypatch.setattr("datops_assets.quality.own_schema.BATCH_ROWS", 2)
    bronze = BronzeTable(warehouse.conn, "notes", ["id", "note"])
    bronze.load(("1", "no"), ("3", "no"), ("x", "no"), ("7", "no"), ("-1", "yes"))
    return bronze


def with_schema(name: str) -> Any:
    return contract(
        key=["id"], columns={"id": {"type": "bigint"}, "note": {"type": "text"}}, pandera=f"{HERE}:{name}"
    )


def test_its_failures_become_reasons(notes: BronzeTable) -> None:
    judgement = notes.judge(with_schema("SMALL"))
    assert notes.silver("id") == [(1,), (-1,)]
    assert [reasons for _, _, reasons in notes.waiting()] == [
        ["id: not_three (pandera)"], ["id: not a whole number (bigint)"], ["id: less_than(5) (pandera)"],
    ]  # fmt: skip
    assert [(c.rows_failed, c.passed) for c in judgement.checks if c.name == "pandera"] == [(2, False)]


def test_a_model_is_a_schema_too(notes: BronzeTable) -> None:
    notes.judge(with_schema("Orders"))
    assert notes.silver("id") == [(1,), (3,), (7,)]
    assert notes.waiting()[-1][2] == ["id: greater_than(0) (pandera)", "note: str_startswith('n') (pandera)"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("UNIQUE", "needs the whole table (unique id)"),
        (
            "MEAN",
            "needs the whole table (check mean on id; one that looks at one row says element_wise=True)",
        ),
        ("MISFIT", "does not fit the contract"),
        ("NOTHING", "cannot be imported (AttributeError)"),
        ("HERE", "cannot be imported"),
    ],
)
def test_a_schema_that_cannot_judge_rows_is_a_sentence(notes: BronzeTable, name: str, sentence: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        notes.judge(with_schema(name))
    assert sentence in str(refused.value)
    assert notes.conn.execute("select to_regclass('silver.shop_notes')").fetchone() == (None,)
