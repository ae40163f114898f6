"""`datops load`: the load catalogue."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from datops_assets.cli.output import Json, say_fields, say_json, say_rows
from datops_assets.cli.selection import Config, PipelineName, documents

app = typer.Typer(help="The load catalogue: which file became which rows.", no_args_is_help=True)

LoadId = Annotated[str, typer.Argument(help="Number or ULID of a load: see `datops load list`.")]


@app.command("list")
def list_loads(
    table: Annotated[str | None, typer.Argument(metavar="[PIPELINE[.TABLE]]", help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest loads first, at most this many.")] = 50,
    as_json: Json = False,
) -> None:
    """Show the newest loads with their state."""
    from datops_assets import ingestion
    from datops_assets.components.catalogue import open_catalogue

    source, _, name = (table or "").partition(".")
    with open_catalogue() as catalogue:
        loads = ingestion.list_loads(catalogue.conn, source or None, name or None, limit=limit)
    columns = ["load_id", "source", "table", "path", "state", "rows", "damaged_rows", "started_at", "error"]
    say_rows(
        [dataclasses.asdict(load) for load in loads],
        columns,
        as_json,
        "no loads yet: datops pipeline run NAME",
    )


@app.command()
def show(load: LoadId, as_json: Json = False) -> None:
    """Show one load: file, hash, header, what changed between files, why it failed."""
    from datops_assets import ingestion
    from datops_assets.components.catalogue import open_catalogue

    with open_catalogue() as catalogue:
        found = dataclasses.asdict(ingestion.show_load(catalogue.conn, load))
    if as_json:
        say_json(found)
    else:
        say_fields(found)


@app.command()
def undo(load: LoadId, as_json: Json = False) -> None:
    """Take one load out of silver. Its rows stay in bronze; the file is not loaded again by itself."""
    from datops_assets import ingestion
    from datops_assets.components.catalogue import open_catalogue

    with open_catalogue() as catalogue:
        undone = ingestion.undo_load(catalogue.conn, load)
    if as_json:
        say_json(dataclasses.asdict(undone))
    else:
        typer.echo(
            f"load {load} ({undone.path}) is undone; silver follows with the next run: {_next_run(undone.source)}"
        )


@app.command()
def reload(load: LoadId, as_json: Json = False) -> None:
    """Make an undone or failed file eligible again; the next run loads it."""
    from datops_assets import ingestion
    from datops_assets.components.catalogue import open_catalogue

    with open_catalogue() as catalogue:
        again = ingestion.reload_load(catalogue.conn, load)
    if as_json:
        say_json(dataclasses.asdict(again))
    else:
        typer.echo(
            f"load {load}: {again.path} will be loaded again by the next run: {_next_run(again.source)}"
        )


@app.command()
def prune(
    name: PipelineName = None,
    config: Config = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without it only shown.")] = False,
    as_json: Json = False,
) -> None:
    """Let bronze go of rows that silver no longer needs, as `keep:` of each table says. Each run does so too."""
    from datops_assets.components.bronze import prune as prune_table
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.config.settings import read_settings

    with open_catalogue() as catalogue:
        rows = [
            {"table": f"{document.pipeline}.{table}", **dataclasses.asdict(past)}
            for document in documents(read_settings(), name, config)
            for table in document.tables
            for past in prune_table(catalogue, document, table, apply=apply)
        ]
    columns = ["table", "load_id", "path", "state", "rows"]
    say_rows(rows, columns, as_json, "nothing may go: no table has `keep:`, or all it says is kept")
    if rows and not apply and not as_json:
        typer.echo("rows of these loads may go, those that silver shows stay: datops load prune --apply")


def _next_run(source: str) -> str:
    """The command that runs a pipeline, which may have been loaded from a document outside the project."""
    from datops_assets.components.declarations import read_declared
    from datops_assets.config.settings import read_settings

    declared = read_declared(read_settings().project_root).documents
    named = any(loaded.document.pipeline == source for loaded in declared)
    return f"datops pipeline run {source if named else '--config FILE'}"
