"""Documents of files: reading them, and holding them against each other.

The bare form `source_systems: [{name, type, path}]` is turned into the full form here, so that
nothing downstream knows two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from datops_assets.components.document import Part, PipelineDocument
from datops_assets.components.plugins import PluginError
from datops_assets.components.references import check_references
from datops_assets.components.sources import BUILT_IN, document_model, source_kinds
from datops_assets.components.sources.templates import unset_problems
from datops_assets.components.texts import PathTemplate, TableName, is_name
from datops_assets.components.transform_statements import problems_of
from datops_assets.components.yaml_source import YamlSource, read_yaml, shown_path, validate
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    from datops_assets.components.streams.document import LoadedStream


class BareSource(Part):
    """One entry of the bare form."""

    name: TableName
    type: Literal["csv", "jsonl", "json", "parquet"]
    path: PathTemplate


class BareDocument(Part):
    """The bare form: bronze only, no contract yet."""

    source_systems: list[BareSource] = Field(min_length=1)
    team: str = "unassigned"


@dataclass(frozen=True)
class LoadedDocument:
    """A document that is right in itself, and the file it came from."""

    document: PipelineDocument
    source: YamlSource
    bare: bool = False


def read_documents(path: Path, project_root: Path) -> list[LoadedDocument]:
    """Read one file: one pipeline, or one for each entry of the bare form.

    raises    DeclarationError: every problem of the file, as `file:line: what, what was expected`
    """
    return documents_of(read_yaml(path, shown_as=shown_path(path, project_root)))


def documents_of(source: YamlSource) -> list[LoadedDocument]:
    """The documents of a parsed file, wherever its text came from. Raises DeclarationError."""
    if isinstance(source.values, dict) and "source_systems" in source.values:
        return _read_bare(source)
    document = validate(source, _model_of(source))
    problems = [
        problem
        for key in document.source.templated
        for problem in unset_problems(source, ("source", key), getattr(document.source, key) or "")
    ]
    if problems:
        raise DeclarationError(problems)
    return [LoadedDocument(document, source)]


def _model_of(source: YamlSource) -> type[PipelineDocument]:
    """The model for the document's kind of source.

    raises    DeclarationError: no such kind is installed
    """
    part = source.values.get("source") if isinstance(source.values, dict) else None
    name = part.get("type") if isinstance(part, dict) else None
    if not isinstance(name, str):
        return document_model(next(iter(BUILT_IN)))  # which says what is missing
    if name not in (known := source_kinds()):
        raise DeclarationError(
            [
                source.problem(
                    ["source", "type"],
                    f"there is no source of this type, expected one of: {', '.join(known)}"
                    " (a plug-in brings more: `datops plugins list`)",
                )
            ]
        )
    try:
        return document_model(name)
    except PluginError as error:
        raise DeclarationError([source.problem(["source", "type"], str(error))]) from error


def check_together(documents: Iterable[LoadedDocument], streams: Sequence[LoadedStream] = ()) -> list[str]:
    """What is wrong between documents: names that collide, references that lead nowhere.

    streams   whose contracts refer to the documents', and the other way round
    """
    problems: list[str] = []
    owner: dict[str, LoadedDocument] = {}
    tables: dict[str, str] = {}
    loaded = list(documents)
    for item in loaded:
        name = item.document.pipeline
        if name in owner:
            problems.append(
                item.source.problem(
                    ["pipeline"], f"also declared in {owner[name].source.file}, expected once"
                )
            )
            continue
        owner[name] = item
        for table in item.document.tables:
            problems += _collision(item, ["tables", table], tables)
        for name in item.document.transforms:
            problems += _collision(item, ["transforms", name], tables)
    by_name = {name: known.document for name, known in owner.items()}
    problems += check_references(loaded, streams)
    for item in loaded:
        problems += [item.source.problem(*found) for found in problems_of(item.document, by_name)]
    return problems


def check_beside(aside: Iterable[LoadedDocument], declared: Iterable[LoadedDocument]) -> list[str]:
    """Which names of documents from elsewhere the project's documents already have."""
    known = list(declared)
    pipelines = {item.document.pipeline: item.source.file for item in known}
    tables = {
        f"{item.document.pipeline}_{table}": f"{item.document.pipeline}.{table} of {item.source.file}"
        for item in known
        for _, table in _named(item)
    }
    problems: list[str] = []
    for item in aside:
        name = item.document.pipeline
        where = _name_of(item)
        if name in pipelines:
            what = f"{name} is declared in {pipelines[name]}, expected a name of its own"
            problems.append(item.source.problem(where, what))
            continue
        for kind, table in _named(item):
            physical = f"{name}_{table}"
            if physical in tables:
                what = f"would share the table {physical} with {tables[physical]}, expected a name of its own"
                problems.append(item.source.problem([kind, table], what))
    return problems


def _named(item: LoadedDocument) -> list[tuple[str, str]]:
    """Everything of a document that has a table in silver or bronze, and under which key it stands."""
    return [("tables", name) for name in item.document.tables] + [
        ("transforms", name) for name in item.document.transforms
    ]


def _name_of(item: LoadedDocument) -> list[str | int]:
    """Where a document says its pipeline's name."""
    if not item.bare:
        return ["pipeline"]
    names = [system["name"] for system in item.source.values["source_systems"]]
    return ["source_systems", names.index(item.document.pipeline), "name"]


def _collision(item: LoadedDocument, where: list[str | int], tables: dict[str, str]) -> list[str]:
    """shop_a.b and shop.a_b would share bronze.shop_a_b."""
    table = where[-1]
    physical = f"{item.document.pipeline}_{table}"
    here = f"{item.document.pipeline}.{table}"
    there = tables.setdefault(physical, here)
    if there == here:
        return []
    return [
        item.source.problem(
            where, f"would share the table {physical} with {there}, expected a name of its own"
        )
    ]


def _read_bare(source: YamlSource) -> list[LoadedDocument]:
    bare = validate(source, BareDocument)
    problems, documents = [], []
    for index, system in enumerate(bare.source_systems):
        problems += unset_problems(source, ("source_systems", index, "path"), system.path)
        try:
            documents.append(LoadedDocument(_from_bare(system, bare.team), source, bare=True))
        except ValidationError as error:
            where: list[str | int] = ["source_systems", index, "path"]
            problems += [
                source.problem(where, item["msg"].removeprefix("Value error, ")) for item in error.errors()
            ]
    if problems:
        raise DeclarationError(problems)
    return documents


def _from_bare(system: BareSource, team: str) -> PipelineDocument:
    folder, pattern = _split_pattern(system.path, system.type)
    stem = folder.name if "*" in pattern else pattern.split(".")[0]
    table = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")
    values: dict[str, Any] = {
        "pipeline": system.name,
        "team": team,
        "source": {"type": "files", "path": str(folder)},
        "tables": {table if is_name(table) else system.name: {"files": pattern, "format": system.type}},
    }
    return document_model("files").model_validate(values)


def _split_pattern(path: str, ending: str) -> tuple[Path, str]:
    """Part a path where its first wildcard is, else before its file; a folder means its files of that type."""
    parts = Path(path).parts
    wild = next((n for n, part in enumerate(parts) if "*" in part), None)
    if wild is not None:
        return Path(*parts[:wild]), "/".join(parts[wild:])
    if Path(path).suffix == "":
        return Path(path), f"*.{ending}"
    return Path(path).parent, Path(path).name
