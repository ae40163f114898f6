"""A pipeline built in Python is the YAML document, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datops_assets.components.documents import read_documents
from datops_assets.components.sources import BUILT_IN
from datops_assets.components.sources.files import FileTableDocument
from datops_assets.errors import DeclarationError
from datops_assets.ingestion.tables import SchemaPolicy as Policies
from datops_assets.pipelines import (
    ConnectorType,
    DataSource,
    FileFormat,
    LoadMode,
    Pipeline,
    SchemaPolicy,
    Severity,
    Task,
    Transformation,
)
from datops_assets.quality.contract import Disposition
from datops_assets.quality.contract_parts import Severity as Severities

PROJECT = Path(__file__).parents[2]
DOCUMENTS = [
    PROJECT / "datops_assets" / "defs" / "sources" / "shop" / "pipeline.yaml",
    *sorted((PROJECT / "examples").glob("*.yaml")),
    PROJECT / "examples" / "covid" / "pipeline.yaml",
]

NAMES = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
# What YAML could take for something else: numbers, dates, booleans, quotes, several lines, other scripts.
TEXTS = st.one_of(
    st.sampled_from(
        ["yes", "null", "1e3", "2026-01-01", "~", "a: b", "#x", " x ", "a\nb", "é—ß", "'q' \"r\"", "0x1f"]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
)
COLUMNS = st.lists(
    st.tuples(NAMES, st.sampled_from(["text", "bigint", "numeric(12,2)", "date"])),
    min_size=1,
    max_size=4,
    unique_by=lambda c: c[0],
)


@st.composite
def pipelines(draw: Any) -> Pipeline:
    """Any tables with contracts, and transformations of them."""
    built = Pipeline(draw(NAMES), team=draw(TEXTS), description=draw(TEXTS), schedule="0 5 * * *")
    built.read_from(DataSource(ConnectorType.FILES, path="landing"))
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    for name in names:
        task = Task(name, files=f"{name}/*.csv", load=draw(st.sampled_from(LoadMode)))
        columns = draw(COLUMNS)
        for column, kind in columns:
            task.column(column, kind, required=draw(st.booleans()), description=draw(TEXTS))
        built.add(task.key(columns[0][0]))
        if draw(st.booleans()):
            made = Transformation(f"made_{name}", of=name, description=draw(TEXTS))
            built.add(made.filter(f"{columns[0][0]} is not null").select(columns[0][0]))
    return built


@settings(max_examples=15, deadline=None)
@given(built=pipelines())
def test_what_is_built_is_what_its_yaml_says(built, tmp_path_factory):
    file = tmp_path_factory.mktemp("built") / "pipeline.yaml"
    file.write_text(built.to_yaml(), encoding="utf-8")
    again = Pipeline.from_yaml(file)
    assert again == built
    assert again.to_yaml() == built.to_yaml()
    (loaded,) = read_documents(file, file.parent)
    assert loaded.document == built.document
    parts = Pipeline(
        built.name,
        team=built.values["team"],
        description=built.values["description"],
        schedule="0 5 * * *",
        source=built.source,
    )
    assert parts.add(*built.tasks, *built.transformations) == built


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_document_of_the_project_goes_to_python_and_back(file, monkeypatch, tmp_path):
    for name in ("SIMPLE_DIR", "COVID_DIR", "SHOP_DB_URL", "ETL_DIR", "ETL_OUT"):
        monkeypatch.setenv(name, "postgresql://x@y/z" if name.endswith("URL") else str(tmp_path))
    pipeline = Pipeline.from_yaml(file)
    (loaded,) = read_documents(file, PROJECT)
    assert pipeline.document == loaded.document
    (tmp_path / "again.yaml").write_text(pipeline.to_yaml(), encoding="utf-8")
    assert Pipeline.from_yaml(tmp_path / "again.yaml") == pipeline


def test_a_mistake_is_said_with_the_line_of_the_yaml_that_it_makes(project):
    built = Pipeline("store", team="x", source=DataSource("files", path="landing"))
    built.add(
        Task("orders", files="*.csv").column("id", "bigint"),
        Transformation("big", of="orders").filter("totl > 1"),
    )
    (problem,) = built.validate()
    line, _, said = problem.removeprefix("store.yaml:").partition(": ")
    assert "filter" in built.to_yaml().splitlines()[int(line) - 1]
    assert said == "transforms.big.steps.0.filter: there is no column 'totl' here, expected one of: id"
    with pytest.raises(DeclarationError):
        built.run()


def test_a_name_that_the_project_declares_is_refused(project):
    built = Pipeline("shop", team="x", source=DataSource("files", path="landing"))
    built.add(Task("orders", files="*.csv"))
    assert "expected a name of its own" in " ".join(built.validate())


def test_the_short_form_has_no_pipeline_in_python(tmp_path):
    (tmp_path / "a.yaml").write_text("source_systems: [{name: a, type: csv, path: x}]\n")
    with pytest.raises(DeclarationError, match="not a pipeline document"):
        Pipeline.from_yaml(tmp_path / "a.yaml")


def test_the_enumerations_hold_exactly_the_words_of_the_document():
    assert set(ConnectorType) == set(BUILT_IN)
    assert set(LoadMode) == set(get_args(Disposition))
    assert set(SchemaPolicy) == set(get_args(Policies))
    assert set(Severity) == set(get_args(Severities))
    formats = FileTableDocument.model_json_schema()["properties"]["format"]["anyOf"][0]["enum"]
    assert set(FileFormat) == set(formats)
