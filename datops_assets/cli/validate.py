"""`datops validate`: every error of every document in one go, and the schema for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datops_assets.cli.output import Json, say_json
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    from datops_assets.components.documents import LoadedDocument


def validate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Documents or folders; default: all of the project.")
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="Also write the JSON schema of a pipeline document here, for editors.")
    ] = None,
    tests: Annotated[bool, typer.Option("--tests", help="Also run the contracts' unit tests.")] = False,
    as_json: Json = False,
) -> None:
    """Check documents without touching a warehouse or a file they name."""
    from datops_assets.components.declarations import (
        Declared,
        is_backup,
        is_export,
        is_stream,
        is_team_database,
        read_backups,
        read_declared,
        read_exports,
        read_streams,
        read_team_databases,
    )
    from datops_assets.components.sources import document_schema
    from datops_assets.components.streams.document import check_streams
    from datops_assets.config.settings import read_settings

    if schema is not None:
        schema.write_text(json.dumps(document_schema(), indent=2) + "\n", encoding="utf-8")
    root = read_settings().project_root
    given = paths or []
    of_streams = [path for path in given if path.is_file() and is_stream(path)]
    of_databases = [path for path in given if path.is_file() and is_team_database(path)]
    of_backups = [path for path in given if path.is_file() and is_backup(path)]
    of_exports = [path for path in given if path.is_file() and is_export(path)]
    others = of_streams + of_databases + of_backups + of_exports
    of_pipelines = [path for path in given if path not in others]
    declared = read_declared(root, of_pipelines) if of_pipelines or not given else Declared([], [])
    folders = [path for path in given if path.is_dir()]
    streams, problems = (
        read_streams(root, folders + of_streams) if folders + of_streams or not given else ([], [])
    )
    declared.problems.extend(problems)
    declared.problems.extend(check_streams(streams, declared.documents))
    databases, problems = (
        read_team_databases(root, folders + of_databases) if folders + of_databases or not given else ([], [])
    )
    declared.problems.extend(problems)
    backups, problems = (
        read_backups(root, folders + of_backups) if folders + of_backups or not given else ([], [])
    )
    declared.problems.extend(problems)
    exports, problems = (
        read_exports(root, folders + of_exports) if folders + of_exports or not given else ([], [])
    )
    declared.problems.extend(problems)
    problems = [*declared.problems, *(_failed_tests(declared.documents) if tests else [])]
    if as_json:
        say_json(
            {
                "valid": not problems,
                "problems": problems,
                "pipelines": [loaded.document.pipeline for loaded in declared.documents],
                "streams": [loaded.document.stream for loaded in streams],
                "databases": [loaded.document.name for loaded in databases],
                "backups": [loaded.document.backup for loaded in backups],
                "exports": [document.export for document in exports],
            }
        )
    if problems:
        if as_json:
            raise typer.Exit(2)
        raise DeclarationError(problems)
    if not as_json:
        tables = sum(len(loaded.document.tables) for loaded in declared.documents)
        typer.echo(f"{len(declared.documents)} pipeline(s) with {tables} table(s) are valid")
        if streams:
            followed = sum(len(loaded.document.tables) for loaded in streams)
            typer.echo(f"{len(streams)} stream(s) with {followed} table(s) are valid")
        if databases:
            typer.echo(f"{len(databases)} database(s) are valid")
        if backups:
            typer.echo(f"{len(backups)} backup(s) are valid")
        if exports:
            typer.echo(f"{len(exports)} export(s) are valid")


def _failed_tests(documents: list[LoadedDocument]) -> list[str]:
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
