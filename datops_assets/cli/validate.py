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
    from datops_assets.components.declarations import (
        BACKUPS,
        EXPORTS,
        STREAMS,
        TEAM_DATABASES,
        Declared,
        read_declared,
    )
    from datops_assets.components.editor_schema import editor_schema
    from datops_assets.components.references import check_references
    from datops_assets.components.streams.document import check_streams
    from datops_assets.config.settings import read_settings

    if schema is not None:
        schema.write_text(json.dumps(editor_schema(), indent=2) + "\n", encoding="utf-8")
    root = read_settings().project_root
    given = paths or []
    kinds: dict[str, Kind[Any]] = {
        "streams": STREAMS,
        "databases": TEAM_DATABASES,
        "backups": BACKUPS,
        "exports": EXPORTS,
    }
    meant = {name: [path for path in given if kind.is_meant_by(path)] for name, kind in kinds.items()}
    others = [path for paths in meant.values() for path in paths]
    of_pipelines = [path for path in given if path not in others]
    folders = [path for path in given if path.is_dir()]
    found: dict[str, list[Any]] = {}
    of_others: list[str] = []
    for name, kind in kinds.items():
        wanted = [*folders, *meant[name]]
        found[name], problems = kind.read_all(root, wanted) if wanted or not given else ([], [])
        of_others += problems
    if of_pipelines or not given:
        declared = read_declared(root, of_pipelines, found["streams"])
    else:
        declared = Declared([], check_references([], found["streams"]))
    declared.problems.extend(of_others)
    declared.problems.extend(check_streams(found["streams"], declared.documents))
    problems = [
        *declared.problems,
        *(_failed_tests([*declared.documents, *found["streams"]]) if tests else []),
    ]
    if as_json:
        say_json(
            {
                "valid": not problems,
                "problems": problems,
                "pipelines": [loaded.document.pipeline for loaded in declared.documents],
                **{name: [kind.name_of(one) for one in found[name]] for name, kind in kinds.items()},
            }
        )
    if problems:
        if as_json:
            raise typer.Exit(2)
        raise DeclarationError(problems)
    if not as_json:
        if declared.documents or not any(found.values()):
            tables = sum(len(loaded.document.tables) for loaded in declared.documents)
            typer.echo(f"{len(declared.documents)} pipeline(s) with {tables} table(s) are valid")
        for name, kind in kinds.items():
            if found[name]:
                typer.echo(f"{len(found[name])} {kind.noun}(s) are valid")


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
