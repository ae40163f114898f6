"""`datops validate`: every error of every document in one go, and the schema for editors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datops_assets.cli.output import Json, say_json
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    from datops_assets.components.declarations import Kind
    from datops_assets.components.documents import LoadedDocument
    from datops_assets.components.streams.document import LoadedStream


def validate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Documents or folders; default: all of the project.")
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="Also write the JSON schema of all documents here, for editors.")
    ] = None,
    tests: Annotated[bool, typer.Option("--tests", help="Also run the contracts' unit tests.")] = False,
    as_json: Json = False,
) -> None:
    """Check documents without touching a warehouse or a file they name."""
    from datops_assets.components.editor_schema import editor_schema

    if schema is not None:
        schema.write_text(json.dumps(editor_schema(), indent=2) + "\n", encoding="utf-8")
    pipelines, others, problems = _read(paths or [])
    if tests:
        problems += _failed_tests([*pipelines, *others["stream"]])
    kinds = _other_kinds()
    if as_json:
        say_json(
            {
                "valid": not problems,
                "problems": problems,
                "pipelines": [loaded.document.pipeline for loaded in pipelines],
                **{f"{noun}s": [kind.name_of(one) for one in others[noun]] for noun, kind in kinds.items()},
            }
        )
        raise typer.Exit(2 if problems else 0)
    if problems:
        raise DeclarationError(problems)
    if pipelines or not any(others.values()):
        tables = sum(len(loaded.document.tables) for loaded in pipelines)
        typer.echo(f"{len(pipelines)} pipeline(s) with {tables} table(s) are valid")
    for noun, found in others.items():
        if found:
            typer.echo(f"{len(found)} {noun}(s) are valid")


def _other_kinds() -> dict[str, Kind[Any]]:
    """Every kind of document beside pipelines, by its noun."""
    from datops_assets.components.declarations import BACKUPS, EXPORTS, STREAMS, TEAM_DATABASES

    return {kind.noun: kind for kind in (STREAMS, TEAM_DATABASES, BACKUPS, EXPORTS)}


def _read(given: list[Path]) -> tuple[list[LoadedDocument], dict[str, list[Any]], list[str]]:
    """Read the documents at some paths, or all of the project: pipelines, the others by noun, what is wrong."""
    from datops_assets.components.declarations import Declared, read_declared
    from datops_assets.components.references import check_references
    from datops_assets.components.streams.document import check_streams
    from datops_assets.config.settings import read_settings

    root, kinds = read_settings().project_root, _other_kinds()
    meant = {noun: [path for path in given if kind.is_meant_by(path)] for noun, kind in kinds.items()}
    of_pipelines = [path for path in given if all(path not in paths for paths in meant.values())]
    folders = [path for path in given if path.is_dir()]
    others: dict[str, list[Any]] = {}
    of_others: list[str] = []
    for noun, kind in kinds.items():
        wanted = [*folders, *meant[noun]]
        others[noun], problems = kind.read_all(root, wanted) if wanted or not given else ([], [])
        of_others += problems
    if of_pipelines or not given:
        declared = read_declared(root, of_pipelines, others["stream"])
    else:
        declared = Declared([], check_references([], others["stream"]))
    between = check_streams(others["stream"], declared.documents)
    return declared.documents, others, [*declared.problems, *of_others, *between]


def _failed_tests(documents: Sequence[LoadedDocument | LoadedStream]) -> list[str]:
    """A line for each problem of each test that does not hold."""
    from datops_assets.quality import run_contract_tests

    problems = []
    for loaded in documents:
        for name, table in loaded.document.tables.items():
            if table.contract is None:
                continue
            for place, result in enumerate(run_contract_tests(table.contract, table.tests, table.rename)):
                where: list[str | int] = ["tables", name, "tests", place]
                problems += [
                    loaded.source.problem(where, f"{result.name}: {what}") for what in result.problems
                ]
    return problems
