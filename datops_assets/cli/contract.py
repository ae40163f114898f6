"""`datops contract`: trying contracts out, and taking the columns that a frozen table refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datops_assets.cli.output import Json, say_json, say_table
from datops_assets.cli.selection import Config, TableName, table_of
from datops_assets.errors import DeclarationError

app = typer.Typer(help="Contracts: what silver demands of a table.", no_args_is_help=True)


@app.callback()
def contract() -> None:
    """Contracts: what silver demands of a table."""


@app.command()
def test(
    table: TableName,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Sample files; default: the newest file of the table.")
    ] = None,
    config: Config = None,
    rows: Annotated[int, typer.Option(min=1, help="At most this many records of each file.")] = 10_000,
    as_json: Json = False,
) -> None:
    """Judge sample files by the contract's row rules, without a warehouse. Exit 1 when a record fails."""
    from datops_assets.components.samples import judge_samples
    from datops_assets.config.settings import read_settings

    settings = read_settings()
    document, name = table_of(settings, table, config)
    if document.tables[name].contract is None:
        raise DeclarationError([f"{table} has no contract to test; add `contract:` and validate"])
    verdict = judge_samples(document, name, settings.project_root, files or [], rows)
    if as_json:
        say_json(verdict.as_dict())
    else:
        warned = f", {verdict.warned} pass with a warning" if verdict.warned else ""
        typer.echo(
            f"{table}: {verdict.records} record(s) of {len(verdict.files)} file(s), {verdict.failing} fail{warned}"
        )
        if verdict.reasons:
            say_table(
                [{"reason": reason, "records": count} for reason, count in verdict.reasons],
                ["reason", "records"],
            )
        for sentence in verdict.not_delivered:
            typer.echo(sentence)
        for sentence in verdict.not_judged:
            typer.echo(f"not judged here: {sentence}")
    if verdict.failing:
        raise typer.Exit(1)


@app.command()
def accept(table: TableName, config: Config = None, as_json: Json = False) -> None:
    """Take the columns that `schema: freeze` refused as the table's own; the next run loads what waits."""
    from datops_assets import ingestion
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.config.settings import read_settings

    document, name = table_of(read_settings(), table, config)
    with open_catalogue() as catalogue:
        taken = ingestion.accept_columns(catalogue.conn, document.pipeline, name)
    if as_json:
        say_json(
            [{"path": load.path, "load_id": load.load_id, "accepted": load.differences} for load in taken]
        )
    elif not taken:
        typer.echo(f"{table}: nothing waits because of its columns")
    else:
        for load in taken:
            typer.echo(f"{load.path}: {ingestion.said_difference(load.differences or {})}")
        run = f"datops pipeline run {'--config FILE' if config else document.pipeline}"
        typer.echo(f"accepted; {len(taken)} load(s) come in with the next run: {run}")
