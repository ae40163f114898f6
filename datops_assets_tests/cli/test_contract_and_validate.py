"""`datops contract test` and `datops validate`: what can be known without a warehouse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from datops_assets.components.declarations import defs_folder
from datops_assets.components.editor_schema import editor_schema
from datops_assets.components.yaml_source import read_yaml

CONFIG = ("--config", "pipeline.yaml")


@pytest.fixture(autouse=True)
def no_warehouse(monkeypatch, shop):
    """Neither command may ask one."""
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", "postgresql://datops:hunter2@127.0.0.1:1/datops")


def test_contract_test_judges_the_newest_file(shop):
    shop.put("orders/2.csv", "order_id,customer_id,total\n20,1,-2\n21,1\n22,1,3\n")
    found = shop.json("contract", "test", "store.orders", *CONFIG, expect=1)
    assert (found["table"], found["files"]) == ("store.orders", ["orders/2.csv"])
    assert (found["records"], found["failing"]) == (3, 2)
    assert found["reasons"] == [
        {"reason": "2 fields where the header has 3", "records": 1},
        {"reason": "total: below the minimum", "records": 1},
    ]
    assert found["not_judged"] == ["known_customer: looks beyond one row"]


def test_contract_test_is_content_with_a_good_file(shop):
    said = shop.datops("contract", "test", "store.customers", *CONFIG).stdout
    assert said == "store.customers: 2 record(s) of 1 file(s), 0 fail\n"


def test_contract_test_counts_warnings_apart(shop):
    shop.declare("max_ratio: 0.5, severity: block", "severity: warn")
    shop.put("customers/2.csv", "customer_id,country\n3,XX\n4,DE\n")
    said = shop.datops("contract", "test", "store.customers", *CONFIG).stdout
    assert said.startswith("store.customers: 2 record(s) of 1 file(s), 0 fail, 1 pass with a warning\n")


def test_contract_test_takes_files_by_name(shop):
    sample = shop.put("elsewhere.csv", "order_id,customer_id,total\nx,1,1\n")
    said = shop.datops("contract", "test", "store.orders", str(sample), *CONFIG, expect=1).stdout
    assert "1 record(s) of 1 file(s), 1 fail" in said
    assert "order_id: not a whole number (bigint)" in said
    assert "not judged here: known_customer: looks beyond one row" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("store.notes",), "store.notes has no contract to test"),
        (("store.orders", "nowhere.csv"), "there is no file nowhere.csv"),
        (("store.nobody",), "there is no table 'store.nobody'"),
    ],
)
def test_contract_test_wants_a_contract_and_a_file(shop, arguments, said):
    assert said in shop.datops("contract", "test", *arguments, *CONFIG, expect=2).stderr


def test_contract_test_of_a_broken_file_is_one_sentence(shop):
    shop.put("orders/2.csv.gz", b"no gzip")
    said = shop.datops("contract", "test", "store.orders", *CONFIG, expect=1).stderr
    assert said.startswith("datops: orders/2.csv.gz: the gzip data is damaged")


def test_validate_finds_a_good_document_good(shop):
    assert shop.datops("validate", "pipeline.yaml").stdout == "1 pipeline(s) with 3 table(s) are valid\n"
    found = shop.json("validate", "pipeline.yaml")
    assert (found["valid"], found["problems"], found["pipelines"]) == (True, [], ["store"])
    assert "shop" in shop.json("validate")["pipelines"]


def test_validate_says_every_problem_of_every_document_by_line(shop):
    shop.declare("load: merge", "load: upsert")
    (shop.folder / "other.yaml").write_text(
        "pipeline: x\nsource: {type: files, path: .}\ntables: {a: {files: '*.csv', csvv: {}}}\n"
    )
    (shop.folder / "broken.yaml").write_text("pipeline: [\n")
    documents = ("pipeline.yaml", "other.yaml", "broken.yaml", "missing.yaml")
    said = shop.datops("validate", *documents, expect=2).stderr.splitlines()
    assert [line.split(": ")[0] for line in said[:4]] == [
        "pipeline.yaml:8",
        "pipeline.yaml:16",
        "other.yaml:1",
        "other.yaml:3",
    ]
    assert [line.split(":")[0] for line in said[4:]] == ["broken.yaml", "missing.yaml"]
    found = shop.json("validate", *documents, expect=2)
    assert (found["valid"], found["problems"]) == (False, said)


@pytest.mark.parametrize("glob", ["/etc/*.csv", "../other/*.csv", "a/../../b.csv", "..", "~/x.csv"])
def test_validate_refuses_files_outside_the_folder(shop, glob):
    shop.declare("files: orders/*.csv*", f"files: '{glob}'")
    said = shop.datops("validate", "pipeline.yaml", expect=2).stderr
    assert said == (
        "pipeline.yaml:15: tables.orders.files: leads out of the source's folder, "
        "expected a glob below it such as `orders/*.csv`\n"
    )


def test_validate_takes_dots_in_a_file_name(shop):
    shop.declare("files: orders/*.csv*", "files: 'orders/v1..2/*.csv'")
    shop.datops("validate", "pipeline.yaml")


def test_validate_repeats_no_value(shop):
    shop.declare("path: landing", "path: '${secret=hunter2}', password: hunter2")
    said = shop.datops("validate", "pipeline.yaml", expect=2).output
    assert "hunter2" not in said.replace("${secret=hunter2}", "")


def test_validate_writes_the_schema_for_editors(shop):
    shop.datops("validate", "pipeline.yaml", "--schema", "schema.json")
    schema = json.loads((shop.folder / "schema.json").read_text())
    assert "files" in schema["$defs"]["FileTableDocument"]["properties"]
    Draft202012Validator.check_schema(schema)
    assert wrong(schema, shop.folder / "pipeline.yaml") == []


EXAMPLES = Path(__file__).parents[2] / "examples"
OF_PLUGINS = {EXAMPLES / "plugin/pipeline.yaml", EXAMPLES / "plugin/export.yaml"}


@pytest.mark.parametrize(
    "file",
    sorted({*EXAMPLES.rglob("*.yaml"), *defs_folder().rglob("*.yaml")} - OF_PLUGINS),
    ids=lambda file: file.parent.name + "-" + file.stem,
)
def test_the_editors_schema_knows_every_document(file):
    assert wrong(editor_schema(), file) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("stream: erp\nteam: a\nsource: {url: postgresql://h/d}\ntables: {o: {histroy: true}}\n", ["tables", "o"]),
        ("pipeline: erp\nteam: a\nsource: {type: files, path: a, shape: b}\ntables: {o: {files: '*'}}\n", ["source"]),
        ("export: out\nteam: a\ndestination: {type: fiels}\ntables: {}\n", ["destination", "type"]),
        ("backup: erp\nteam: a\n", []),
        ("database: erp\nteam: a\nconnections: many\n", ["connections"]),
        ("streem: erp\n", []),
    ],
)  # fmt: skip
def test_the_editors_schema_says_where_a_document_is_wrong(tmp_path, text, where):
    file = tmp_path / "document.yaml"
    file.write_text(text)
    assert where in wrong(editor_schema(), file)


def wrong(schema, file):
    """The places of a file at which an editor would underline."""
    values = json.loads(json.dumps(read_yaml(file).values, default=str))
    return [list(error.absolute_path) for error in Draft202012Validator(schema).iter_errors(values)]


@pytest.mark.parametrize(
    "command",
    [
        ("pipeline", "list"),
        ("pipeline", "plan"),
        ("pipeline", "run"),
        ("pipeline", "run", "shop"),
        ("pipeline", "run", "--sample", "1", "--into", "trial"),
        ("pipeline", "status"),
        ("pipeline", "drift"),
        ("pipeline", "rebuild", "shop.orders"),
        ("contract", "test", "shop.orders"),
        ("quarantine", "replay", "shop.orders"),
    ],
    ids=" ".join,
)
def test_a_document_aside_may_not_have_the_name_of_a_declared_pipeline(shop, command):
    """Both would write the same tables."""
    shop.declare("pipeline: store", "pipeline: shop")
    said = shop.datops(*command, *CONFIG, expect=2).stderr
    declared = defs_folder() / "sources/shop/pipeline.yaml"
    assert said == f"pipeline.yaml:1: pipeline: shop is declared in {declared}, expected a name of its own\n"


def test_a_document_aside_may_not_share_a_table_with_a_declared_pipeline(shop):
    shop.declare("pipeline: store", "pipeline: shop_order")
    shop.declare("  notes:", "  items:")
    said = shop.datops("pipeline", "list", *CONFIG, expect=2).stderr
    assert said.startswith(
        "pipeline.yaml:25: tables.items: would share the table shop_order_items with shop.order_items of "
    )


def test_the_very_file_that_declares_a_pipeline_is_no_collision(shop):
    declared = str(defs_folder() / "sources/shop/pipeline.yaml")
    assert [row["pipeline"] for row in shop.json("pipeline", "list", "--config", declared)] == ["shop"]


def test_the_bare_form_may_not_have_the_name_of_a_declared_pipeline(shop):
    (shop.folder / "bare.yaml").write_text(
        "source_systems:\n  - {name: hr, type: csv, path: hr}\n  - {name: shop, type: csv, path: shop}\n"
    )
    said = shop.datops("pipeline", "list", "--config", "bare.yaml", expect=2).stderr
    assert said.startswith("bare.yaml:3: source_systems.1.name: shop is declared in ")


@pytest.mark.parametrize("command", [("validate", "landing"), ("pipeline", "run", "--config", "landing")])
def test_a_folder_without_documents_is_not_valid(shop, command):
    said = shop.datops(*command, expect=2).stderr
    assert said.startswith("no pipeline document below landing, expected the path of one")


def test_a_folder_is_read_by_its_declarations(shop):
    (shop.folder / "defs.yaml").write_text("type: datops_assets.components.Pipeline\n")
    assert shop.json("validate", ".")["pipelines"] == ["store"]


def test_an_empty_variable_counts_as_not_set(shop, monkeypatch):
    monkeypatch.setenv("NO_SUCH", "")
    shop.declare("path: landing", "path: '${NO_SUCH}/landing'")
    said = shop.datops("validate", "pipeline.yaml", expect=2).stderr
    assert said.startswith("pipeline.yaml:3: source.path: the variable NO_SUCH is not set")


TESTED = """\
    tests:
      - {name: a good one, given: {order_id: 1, total: 2}, expect: passes}
      - {name: no money back, given: {order_id: 1, total: -2}, expect: ["total: below the minimum"]}
  notes:
"""


def test_contract_test_runs_the_tests_beside_the_contract(shop):
    shop.declare("  notes:\n", TESTED)
    said = shop.datops("contract", "test", "store.orders", *CONFIG).stdout
    assert said == "store.orders: 2 of 2 test(s) hold\n"
    assert shop.json("validate", "pipeline.yaml", "--tests")["valid"]


def test_a_test_that_does_not_hold_is_named_with_its_line(shop):
    shop.declare("  notes:\n", TESTED.replace("total: -2", "total: 2"))
    said = shop.datops("contract", "test", "store.orders", *CONFIG, expect=1).stdout
    assert "1 of 2 test(s) hold\nno money back: lacks the reason total: below the minimum\n" in said
    assert shop.json("validate", "pipeline.yaml")["valid"]
    said = shop.datops("validate", "pipeline.yaml", "--tests", expect=2).stderr
    assert said.startswith("pipeline.yaml:27: tables.orders.tests.1: no money back: lacks the reason")


def test_tests_need_a_contract(shop):
    shop.declare(
        "    files: notes/*.jsonl\n", "    files: notes/*.jsonl\n" + TESTED.removesuffix("  notes:\n")
    )
    assert "tests: there is nothing to test" in shop.datops("validate", "pipeline.yaml", expect=2).stderr
