"""References of contracts between documents, pipelines and streams alike, are held to before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from datops_assets.components.declarations import read_declared

STREAM = """
stream: erp
team: sales
source: {url: "postgresql://localhost/erp"}
tables:
  orders:
    contract:
      key: [order_id]
      columns: {order_id: {type: bigint}, customer: {type: bigint}}
      rules: [{foreign_key: [customer], references: crm.customers, columns: [id]}]
  notes: {}
"""
PIPELINE = """
pipeline: crm
team: sales
source: {type: files, path: .}
tables:
  customers:
    files: "*.csv"
    format: csv
    load: merge
    contract:
      key: [id]
      columns: {id: {type: bigint}}
"""
BACK = "      rules: [{foreign_key: [id], references: erp.orders, columns: [customer]}]\n"


def problems(folder: Path, **documents: str) -> list[str]:
    """What `datops validate` says of these documents together."""
    paths = []
    for name, text in documents.items():
        file = folder / f"{name}.yaml"
        file.write_text(text)
        paths.append(str(file))
    return validated(paths)


def validated(paths: list[str]) -> list[str]:
    import json

    from typer.testing import CliRunner

    from datops_assets.cli import _app

    answer = CliRunner().invoke(_app(), ["validate", *paths, "--json"])
    assert answer.stdout.startswith("{"), answer.output
    found: list[str] = json.loads(answer.stdout)["problems"]
    return [problem.rpartition("/")[2] for problem in found]


def test_a_stream_refers_to_a_pipeline_and_a_pipeline_to_a_stream(project: Path) -> None:
    assert problems(project, a=STREAM, b=PIPELINE) == []
    alone = STREAM.replace(
        "      rules: [{foreign_key: [customer], references: crm.customers, columns: [id]}]\n", ""
    )
    assert problems(project, a=alone, b=PIPELINE + BACK) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("crm.customers", "crm.clients", "references crm.clients, expected a table with a contract"),
        ("crm.customers", "crn.customers", "references crn.customers, expected a table with a contract"),
        ("crm.customers", "notes", "references notes, expected a table with a contract"),
        ("columns: [id]", "columns: [ident]", "crm.customers has no column ident, expected one of: id"),
    ],
)
def test_a_reference_of_a_stream_that_leads_nowhere_is_named(
    project: Path, old: str, new: str, said: str
) -> None:
    (found,) = problems(project, a=STREAM.replace(old, new), b=PIPELINE)
    assert found.startswith("a.yaml:10: tables.orders.contract.rules.0: ")
    assert found.endswith(said)


def test_a_reference_of_a_stream_alone_needs_the_other_document(project: Path) -> None:
    (found,) = problems(project, a=STREAM)
    assert "references crm.customers, expected a table with a contract" in found


def test_a_column_that_a_streams_contract_lacks_is_named(project: Path) -> None:
    alone = STREAM.replace(
        "      rules: [{foreign_key: [customer], references: crm.customers, columns: [id]}]\n", ""
    )
    (found,) = problems(project, a=alone, b=PIPELINE + BACK.replace("[customer]", "[buyer]"))
    assert found.startswith("b.yaml:13:")
    assert "erp.orders has no column buyer, expected one of: order_id, customer" in found


def test_a_circle_through_two_documents_is_refused(project: Path) -> None:
    (found,) = problems(project, a=STREAM, b=PIPELINE + BACK)
    assert "its rules lead back to itself through" in found


def test_the_projects_streams_are_known_wherever_its_pipelines_are_read(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / "defs"
    for kind, text in (("ChangeStream", STREAM), ("Pipeline", PIPELINE)):
        here = folder / kind
        here.mkdir(parents=True)
        name = "stream" if kind == "ChangeStream" else "pipeline"
        alone = text.replace(
            "      rules: [{foreign_key: [customer], references: crm.customers, columns: [id]}]\n", ""
        )
        (here / f"{name}.yaml").write_text(alone + (BACK if name == "pipeline" else ""))
        (here / "defs.yaml").write_text(f"type: datops_assets.components.{kind}\n")
    monkeypatch.setattr("datops_assets.components.declarations.defs_folder", lambda: folder)
    declared = read_declared(project)
    assert (declared.problems, [one.document.stream for one in declared.streams]) == ([], ["erp"])
