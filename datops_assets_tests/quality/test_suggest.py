"""The contract that datops proposes for a table without one."""

from __future__ import annotations

import pytest
import yaml

from datops_assets.ingestion import FileSource, FileTable, load_table
from datops_assets.quality import Contract
from datops_assets.quality.suggest import suggest_contract


def suggested(warehouse, tmp_path, name: str, content: str):
    """Load one file and ask for its contract."""
    (tmp_path / name).write_text(content)
    table = FileTable(source="erp", name="orders", root=tmp_path, pattern=name)
    load_table(warehouse.conn, FileSource(), table, batch="1")
    return suggest_contract(warehouse.conn, "erp", "orders")


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (["1", "2"], "bigint"),
        (["1", "2.50"], "numeric"),
        (["007", "008"], "text"),
        (["0", "1"], "bigint"),
        (["true", "no"], "boolean"),
        (["2026-01-31", "2026-02-01"], "date"),
        (["2026-01-31T10:00:00Z", "2026-01-31 10:00:00+02"], "timestamptz"),
        (["2026-01-31T10:00:00"], "timestamp"),
        (["3ce10d69-d839-40e4-895b-fd824914f530"], "uuid"),
        (["1", "n/a"], "text"),
    ],
)
def test_the_narrowest_type_that_holds_every_value_is_proposed(warehouse, tmp_path, values, type_):
    found = suggested(warehouse, tmp_path, "a.csv", "\n".join(["Some Value", *values]) + "\n")
    assert [(column.name, column.type) for column in found.columns] == [("some_value", type_)]


def test_a_column_with_a_null_is_not_required_and_a_unique_id_is_the_key(warehouse, tmp_path):
    found = suggested(warehouse, tmp_path, "a.csv", "group_id,order_id,note\n1,1,x\n1,2,\n")
    assert found.key == ["order_id"]
    assert {column.name: column.required for column in found.columns} == {
        "group_id": True,
        "order_id": True,
        "note": False,
    }


def test_json_values_are_looked_into(warehouse, tmp_path):
    found = suggested(
        warehouse, tmp_path, "a.jsonl", '{"id": 1, "at": "2026-01-31", "more": {"a": 1}, "gone": null}\n'
    )
    assert {column.name: column.type for column in found.columns} == {
        "id": "bigint",
        "at": "date",
        "more": "json",
        "gone": "text",
    }


def test_the_proposal_is_a_contract_that_can_be_pasted(warehouse, tmp_path):
    found = suggested(warehouse, tmp_path, "a.csv", "order_id,total\n1,2.50\n2,3\n")
    contract = Contract.model_validate(yaml.safe_load(found.as_yaml())["contract"])
    assert contract.key == ["order_id"]
    assert contract.columns["total"].required


def test_nothing_is_proposed_before_the_first_load(warehouse):
    assert suggest_contract(warehouse.conn, "erp", "orders") is None
