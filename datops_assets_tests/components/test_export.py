"""Export documents: what is refused, what an asset is and shows, the command, the component."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from datops_assets.cli import _app
from datops_assets.components.export import export_definitions
from datops_assets.components.export_document import read_export
from datops_assets.errors import DeclarationError

EXPORT = """\
export: reports
team: commerce
tags: {domain: sales}
retries: {max: 0}
destination: {type: files, path: out}
tables:
  sales:
    from: gold/sales
    file: sales.csv
    order_by: [id]
  orders:
    from: silver/shop/orders
    columns: [id]
    file: orders.parquet
"""


@pytest.fixture
def document(project, warehouse):
    """Two tables that are there."""
    warehouse.conn.execute("create table gold.sales as select 1 as id, 'DE' as country")
    warehouse.conn.execute("create table silver.shop_orders as select 1 as id, 2 as _load_id, 3 as _row")
    (project / "export.yaml").write_text(EXPORT)
    return read_export(project / "export.yaml")


def test_each_table_is_an_asset_behind_the_one_it_delivers(document):
    graph = export_definitions(document).resolve_asset_graph()
    node = graph.get(dg.AssetKey(["export", "reports", "orders"]))
    assert node.parent_keys == {dg.AssetKey(["silver", "shop", "orders"])}
    assert node.tags["domain"] == "sales"
    assert node.owners == ["team:commerce"]


def test_the_command_delivers_and_says_what_did_not_arrive(document, project, warehouse):
    answer = CliRunner().invoke(_app(), ["export", "run", "--config", "export.yaml", "--json"])
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    assert {(row["table"], row["rows"]) for row in said["tables"]} == {("sales", 1), ("orders", 1)}
    assert (project / "out" / "sales.csv").read_text() == "id,country\n1,DE\n"
    warehouse.conn.execute("drop table gold.sales")
    (listed,) = [
        row
        for row in json.loads(
            CliRunner().invoke(_app(), ["export", "list", "--config", "export.yaml", "--json"]).stdout
        )
        if row["table"] == "orders"
    ]
    assert listed == {
        "export": "reports", "table": "orders", "from": "silver/shop/orders", "to": "files: out",
        "when": "when its table changed", "arrives": "exactly once", "team": "commerce",
    }  # fmt: skip
    again = CliRunner().invoke(_app(), ["export", "run", "--config", "export.yaml"])
    assert again.exit_code == 1
    assert "gold.sales is not in the warehouse; run what makes it first" in again.output
    assert (project / "out" / "sales.csv").read_text() == "id,country\n1,DE\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "from: gold/sales",
            "from: bronze/shop/sales",
            "export.yaml:8: tables.sales.from: not a table that",
        ),
        ("file: sales.csv", "file: ../sales.csv", "leads out of the destination"),
        ("file: sales.csv", "file: sales.txt", "ending names no format"),
        ("type: files", "type: fax", "export.yaml:5: destination.type: there is no destination of this type"),
        ("path: out", 'path: "${NOT_SET_AT_ALL}"', "the variable NOT_SET_AT_ALL is not set"),
        ("    order_by", "    orderby", "unknown key, did you mean `order_by`?"),
    ],
    ids=lambda value: value.strip()[:30],
)
def test_a_mistake_is_said_with_its_line(project, old, new, said):
    assert old in EXPORT
    (project / "export.yaml").write_text(EXPORT.replace(old, new))
    with pytest.raises(DeclarationError) as refused:
        read_export(project / "export.yaml", "export.yaml")
    assert any(said in problem for problem in refused.value.problems), refused.value.problems


def test_secrets_do_not_stand_in_a_document(project):
    (project / "export.yaml").write_text(
        "export: r\nteam: x\ndestination: {type: database, url: 'postgresql://u:hunter2@h/d'}\n"
        "tables: {a: {from: gold/a, table: a, mode: merge}}\n"
    )
    with pytest.raises(DeclarationError) as refused:
        read_export(project / "export.yaml")
    said = " ".join(refused.value.problems)
    assert "password_env" in said
    assert "no key to go by" in said
    assert "hunter2" not in said


def test_the_component_reads_the_document_beside_it(document, project):
    from datops_assets.components import Export

    class Context:
        """What the component asks of Dagster's own context: where it is, and where the project is."""

        path = project
        project_root = project

    made = Export(document="export.yaml").build_defs(Context())
    assert {job.name for job in made.jobs} == {"reports_export"}


def test_validate_reads_export_documents_too(document):
    answer = CliRunner().invoke(_app(), ["validate", "export.yaml"])
    assert answer.exit_code == 0, answer.output
    assert "1 export(s) are valid" in answer.output
    Path("export.yaml").write_text(EXPORT + "    colums: [id]\n")
    refused = CliRunner().invoke(_app(), ["validate", "export.yaml"])
    assert refused.exit_code == 2
    assert "export.yaml:15: tables.orders.colums: unknown key, did you mean `columns`?" in refused.output
