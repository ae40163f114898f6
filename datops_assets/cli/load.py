"""`datops load`: the load catalogue."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from datops_assets.cli.output import Json, say_fields, say_json, say_rows

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


def _next_run(source: str) -> str:
    """The command that runs a pipeline, which may have been loaded from a document outside the project."""
    from datops_assets.components.declarations import read_declared
    from datops_assets.config.settings import read_settings

    declared = read_declared(read_settings().project_root).documents
    named = any(loaded.document.pipeline == source for loaded in declared)
    return f"datops pipeline run {source if named else '--config FILE'}"
