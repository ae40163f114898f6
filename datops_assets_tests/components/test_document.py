"""A document says `file:line: what, what was expected`, for every mistake in one go."""

from __future__ import annotations

from pathlib import Path

import pytest

from datops_assets.components.declarations import read_declared
from datops_assets.components.documents import read_documents
from datops_assets.components.sources.templates import resolve_path
from datops_assets.errors import DeclarationError

GOOD = """\
pipeline: shop
team: commerce
source: {type: files, path: data}
tables:
  orders:
    files: orders/*.csv
    load: merge
    contract:
      key: [order_id]
      columns:
        order_id: {type: bigint, required: true}
        total: {type: "numeric(12,2)", min: 0}
  items:
    files: items/*.csv
    contract:
      columns:
        order_id: {type: bigint}
      rules:
        - {foreign_key: [order_id], references: orders, columns: [order_id]}
"""


def problems(tmp_path: Path, text: str, name: str = "pipeline.yaml") -> list[str]:
    """What reading `text` complains about."""
    (tmp_path / name).write_text(text)
    return read_declared(tmp_path, [tmp_path / name]).problems


def test_a_good_document_has_no_problem(tmp_path):
    assert problems(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("team: commerce\n", "", "pipeline.yaml:1: team: missing, expected a value"),
        (
            "load: merge",
            "laod: merge",
            "pipeline.yaml:7: tables.orders.laod: unknown key, did you mean `load`?",
        ),
        (
            "load: merge",
            "load: upsert",
            "pipeline.yaml:7: tables.orders.load: expected one of: append, replace, merge, snapshot",
        ),
        (
            "type: bigint, required",
            "type: bigitn, required",
            "pipeline.yaml:11: tables.orders.contract.columns.order_id.type: ",
        ),
        ("min: 0", "min: free", "pipeline.yaml:12: tables.orders.contract.columns.total.min: "),
        (
            "key: [order_id]",
            "key: [id]",
            "pipeline.yaml:9: tables.orders.contract.key.0: 'id' is not a column",
        ),
        (
            "references: orders",
            "references: order",
            "pipeline.yaml:19: tables.items.contract.rules.0: references order, expected",
        ),
        (
            "orders, columns: [order_id]",
            "orders, columns: [order_idd]",
            "pipeline.yaml:19: tables.items.contract.rules.0: orders has no column "
            "order_idd, expected one of: order_id, total",
        ),
        (
            "load: merge",
            "load: merge\n    rename: {No.: order_id, Sum: totel}",
            "pipeline.yaml:8: tables.orders.rename.Sum: totel is no column of the "
            "contract, expected one of: order_id, total",
        ),
        ("pipeline: shop", "pipeline: Shop 1", "pipeline.yaml:1: pipeline: not a name, expected lower case"),
        (
            "pipeline: shop",
            "pipeline: shop_",
            "pipeline.yaml:1: pipeline: names with two _ in a row are datops' own",
        ),
        (
            "  items:",
            "  orders__row:",
            "pipeline.yaml:13: tables.orders__row.[key]: names with two _ in a row "
            "are datops' own, expected no `__` and no _ at the end",
        ),
        (
            "type: files",
            "type: ftp",
            "pipeline.yaml:3: source.type: there is no source of this type, expected one of: files",
        ),
        (
            "path: data",
            "path: '${NOT SET}'",
            "pipeline.yaml:3: source.path: not a variable, expected ${NAME}",
        ),
        (
            "path: data",
            "path: '${DATOPS_NO_SUCH}'",
            "pipeline.yaml:3: source.path: the variable DATOPS_NO_SUCH is not set",
        ),
        ("      key: [order_id]\n", "", "pipeline.yaml:5: tables.orders: load: merge has no key to go by"),
        ("team: commerce", "team: commerce\nschedule: daily", "pipeline.yaml:3: schedule: not a cron line"),
        (
            "team: commerce",
            "team: commerce\nteam: other",
            "pipeline.yaml:3: team: the key stands twice, expected once",
        ),
        (
            "team: commerce",
            "team: !!python/name:os.system ''",
            "pipeline.yaml:2: the tag tag:yaml.org,2002:python/name:os.system is not allowed",
        ),
        (
            "path: data",
            "path: ${LANDING}",
            'pipeline.yaml:3: not YAML: ${NAME} without quotes between { and }, expected "${NAME}"',
        ),
        (
            "required: true",
            "required: maybe",
            "pipeline.yaml:11: tables.orders.contract.columns.order_id.required: expected true or false",
        ),
        (
            "min: 0",
            "mni: 0",
            "pipeline.yaml:12: tables.orders.contract.columns.total.mni: unknown key, did you mean `min`?",
        ),
        (
            "columns: [order_id]}",
            "columns: [order_id], sever: warn}",
            "pipeline.yaml:19: tables.items.contract.rules.0.foreign_key.sever: unknown key, did you mean `severity`?",
        ),
        (
            "type: files,",
            "type: files, zzz: 1,",
            "pipeline.yaml:3: source.zzz: unknown key, expected one of: type, path",
        ),
        (
            "key: [order_id]",
            "key: order_id",
            "pipeline.yaml:9: tables.orders.contract.key: expected a list, such as [a, b]",
        ),
        (
            "files: orders/*.csv",
            "files: 5",
            "pipeline.yaml:6: tables.orders.files: expected text; put it in quotes",
        ),
        (
            "load: merge",
            "landing: {stable_for_s: -1}",
            "pipeline.yaml:7: tables.orders.landing.stable_for_s: expected a value greater than or equal to 0",
        ),
        ("team: commerce", "team: [", "pipeline.yaml:4: not YAML: "),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, old, new, said):
    found = problems(tmp_path, GOOD.replace(old, new, 1))
    assert len(found) == 1, found
    assert found[0].startswith(said)


def test_every_mistake_of_every_document_comes_in_one_go(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD.replace("load: merge", "laod: merge").replace("min: 0", "min: x"))
    (tmp_path / "b.yaml").write_text(GOOD.replace("team: commerce\n", ""))
    found = read_declared(tmp_path, [tmp_path / "a.yaml", tmp_path / "b.yaml"]).problems
    assert [line.split(":")[0] for line in found] == ["a.yaml", "a.yaml", "b.yaml"]


def test_no_message_holds_a_value(tmp_path):
    secret = "hunter2-very-secret"
    for old, new in [
        ("path: data", f"path: {{password: {secret}}}"),
        ("min: 0", f"min: {secret}"),
        ("load: merge", f"load: {secret}"),
    ]:
        assert secret not in "\n".join(problems(tmp_path, GOOD.replace(old, new)))


def test_a_template_in_a_document_stays_text(tmp_path):
    """Dagster's own resolver would run it."""
    evil = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    (tmp_path / "p.yaml").write_text(GOOD.replace("team: commerce", f'team: commerce\ndescription: "{evil}"'))
    (loaded,) = read_documents(tmp_path / "p.yaml", tmp_path)
    assert loaded.document.description == evil


def test_two_documents_may_not_share_a_table(tmp_path):
    """shop.eu_orders and shop_eu.orders would both be bronze.shop_eu_orders."""
    (tmp_path / "a.yaml").write_text(
        GOOD.replace("  orders:", "  eu_orders:").replace("references: orders", "references: eu_orders")
    )
    (tmp_path / "b.yaml").write_text(GOOD.replace("pipeline: shop", "pipeline: shop_eu"))
    found = read_declared(tmp_path, [tmp_path / "a.yaml", tmp_path / "b.yaml"]).problems
    assert found == [
        "b.yaml:5: tables.orders: would share the table shop_eu_orders with shop.eu_orders, expected a name of its own"
    ]


def test_the_same_pipeline_twice_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD)
    found = read_declared(tmp_path, [tmp_path / "a.yaml", tmp_path / "b.yaml"]).problems
    assert found == ["b.yaml:1: pipeline: also declared in a.yaml, expected once"]


def test_foreign_keys_in_a_circle_are_refused(tmp_path):
    circle = GOOD.replace(
        '        total: {type: "numeric(12,2)", min: 0}\n',
        '        total: {type: "numeric(12,2)", min: 0}\n'
        "      rules:\n        - {foreign_key: [order_id], references: items, columns: [order_id]}\n",
    )
    assert "its rules lead back to itself" in problems(tmp_path, circle)[0]


def test_referenced_tables_come_first(tmp_path):
    head, orders, items = (
        GOOD.partition("  orders:")[0],
        GOOD[GOOD.index("  orders:") : GOOD.index("  items:")],
        GOOD[GOOD.index("  items:") :],
    )
    (tmp_path / "p.yaml").write_text(head + items + orders)
    (loaded,) = read_documents(tmp_path / "p.yaml", tmp_path)
    assert loaded.document.load_order() == ["orders", "items"]


def test_the_bare_form_declares_bronze_tables(tmp_path):
    (tmp_path / "bare.yaml").write_text(
        "source_systems:\n"
        "  - {name: erp, type: csv, path: data/erp/orders.csv}\n"
        "  - {name: crm, type: jsonl, path: data/crm}\n"
    )
    erp, crm = (loaded.document for loaded in read_documents(tmp_path / "bare.yaml", tmp_path))
    assert (erp.pipeline, erp.source.path, dict(erp.tables)["orders"].files) == (
        "erp",
        "data/erp",
        "orders.csv",
    )
    assert (crm.pipeline, crm.source.path, dict(crm.tables)["crm"].files) == ("crm", "data/crm", "*.jsonl")


def test_a_variable_is_filled_in_and_relative_to_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workspace.yaml").touch()
    monkeypatch.setenv("LANDING", "in/today")
    assert resolve_path("${LANDING}/shop", tmp_path) == tmp_path / "in/today/shop"
    with pytest.raises(DeclarationError, match="NO_SUCH_THING is not set"):
        resolve_path("${NO_SUCH_THING}", tmp_path)


def test_the_documents_of_this_project_are_valid():
    root = Path(__file__).parents[2]
    assert read_declared(root).problems == []
