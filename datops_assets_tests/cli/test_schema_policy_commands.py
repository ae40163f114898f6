"""A table with `schema: freeze` from the command line: the run that fails, the check, taking the columns."""

from __future__ import annotations

import dagster as dg
import pytest

from datops_assets.components.documents import read_documents
from datops_assets.components.pipeline import pipeline_definitions

CONFIG = ("--config", "pipeline.yaml")


@pytest.fixture
def frozen(shop):
    """The shop with frozen orders, loaded once, and a second file that has one column more."""
    shop.declare("    files: orders/*.csv*\n", "    files: orders/*.csv*\n    schema: freeze\n")
    shop.run()
    shop.put("orders/2.csv", "order_id,customer_id,total,coupon\n20,1,2.00,X\n")
    return shop


def schema_check(shop) -> dg.AssetCheckEvaluation:
    """The check `schema` of one run of the pipeline in this process."""
    (loaded,) = read_documents(shop.folder / "pipeline.yaml", shop.folder)
    job = pipeline_definitions(loaded.document).resolve_job_def("store_pipeline")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "schema"]
    return found


def test_new_columns_fail_the_run_until_somebody_takes_them(frozen):
    frozen.run(expect=1)
    (refused, *_) = frozen.json("load", "list", "store.orders")
    assert refused["differences"] == {"appeared": ["coupon"]}
    assert frozen.json("contract", "accept", "store.orders", *CONFIG) == [
        {"path": "orders/2.csv", "load_id": refused["load_id"], "accepted": {"appeared": ["coupon"]}}
    ]
    frozen.run()
    assert frozen.json("load", "list", "store.orders")[0]["state"] == "loaded"


def test_taking_says_what_was_taken_and_what_comes_next(frozen):
    frozen.run(expect=1)
    said = frozen.datops("contract", "accept", "store.orders", *CONFIG).stdout
    assert said == (
        "orders/2.csv: new: 'coupon'\n"
        "accepted; 1 load(s) come in with the next run: datops pipeline run --config FILE\n"
    )
    again = frozen.datops("contract", "accept", "store.orders", *CONFIG).stdout
    assert again == "store.orders: nothing waits because of its columns\n"


def test_the_check_on_bronze_holds_the_difference(frozen):
    found = schema_check(frozen)
    assert not found.passed
    assert found.metadata["columns_changed"].value == {"orders/2.csv": {"appeared": ["coupon"]}}
    frozen.datops("contract", "accept", "store.orders", *CONFIG)
    assert schema_check(frozen).passed


def test_the_plan_names_the_command_that_lets_it_in(frozen):
    frozen.run(expect=1)
    reasons = [row["why"] for row in frozen.json("pipeline", "plan", *CONFIG)]
    assert any("datops contract accept store.orders" in reason for reason in reasons)


def test_quarantine_needs_a_contract(shop):
    shop.declare("    files: notes/*.jsonl\n", "    files: notes/*.jsonl\n    schema: quarantine\n")
    said = shop.datops("validate", "pipeline.yaml", expect=2).stderr
    assert "schema: quarantine has no columns to go by, expected a `contract:`" in said


def test_quarantine_closes_the_contract(shop):
    shop.declare("    files: orders/*.csv*\n", "    files: orders/*.csv*\n    schema: quarantine\n")
    shop.put("orders/2.csv", "order_id,customer_id,total,coupon\n20,1,2.00,X\n21,1,2.00,\n")
    shop.run()
    reasons = [row["reason"] for row in shop.json("quarantine", "list", "store.orders")]
    assert "coupon: not a column of the contract" in reasons
    tried = shop.json("contract", "test", "store.orders", *CONFIG, expect=1)
    assert {"reason": "coupon: not a column of the contract", "records": 1} in tried["reasons"]


def test_suggest_prints_a_contract_that_can_be_pasted(shop):
    shop.run()
    said = shop.datops("contract", "suggest", "store.customers", *CONFIG).stdout
    assert said.startswith("# From all 2 row(s) of the live loads.\ncontract:\n  key: [customer_id]")
    found = shop.json("contract", "suggest", "store.orders", *CONFIG)
    assert found["contract"]["columns"]["total"] == {"type": "numeric", "required": True}
    assert found["evidence"]["total"]["seen"].startswith("3 value(s)")


def test_nothing_is_suggested_before_the_first_load(shop):
    said = shop.datops("contract", "suggest", "store.notes", *CONFIG, expect=1).stderr
    assert "store.notes: nothing is loaded yet" in said


def test_diff_names_what_a_changed_contract_changes(shop):
    shop.run()
    shop.declare("min: 0}", "min: 6}")
    found = shop.json("contract", "diff", "store.orders", *CONFIG)
    assert [row["what"] for row in found["judged_by"]] == ["column total"]
    assert found["newly_failing"] == {"total: below the minimum": 1}
    said = shop.datops("contract", "diff", "store.orders", *CONFIG).stdout
    assert "3 of 3 row(s) would be set aside" in said
    quick = shop.json("contract", "diff", "store.orders", "--no-judge", *CONFIG)
    assert quick["dry"] is None
