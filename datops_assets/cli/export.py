"""`datops export`: tables of gold and silver to files, databases and APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datops_assets.cli.output import Json, say_json, say_rows, say_table
from datops_assets.errors import DeclarationError

app = typer.Typer(help="Exports: tables that go to files, databases and APIs.", no_args_is_help=True)
Config = Annotated[Path | None, typer.Option("--config", help="An export document beside the project's.")]


@app.command("list")
def list_(config: Config = None, as_json: Json = False) -> None:
    """Show the declared exports: which table goes where, when, and how often it arrives."""
    from datops_assets.components.declarations import EXPORTS
    from datops_assets.components.destinations import destination_kind
    from datops_assets.config.settings import read_settings

    found, problems = EXPORTS.read_all(read_settings().project_root, [config] if config else [])
    if problems:
        raise DeclarationError(problems)
    rows = [
        {
            "export": document.export,
            "table": name,
            "from": table.from_,
            "to": f"{document.destination.type}: {document.destination.shown}",
            "when": document.schedule or "when its table changed",
            "arrives": destination_kind(document.destination.type).arrives,
            "team": document.team,
        }
        for document in found
        for name, table in document.tables.items()
    ]
    columns = ["export", "table", "from", "to", "when", "arrives", "team"]
    say_rows(rows, columns, as_json, "no export is declared; docs/exports.md shows how")


@app.command()
def run(
    name: Annotated[
        str | None, typer.Argument(metavar="[EXPORT]", help="Name of an export of the project.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Deliver every table of an export. Exit 1 when one was not delivered."""
    from datops_assets.components.declarations import EXPORTS
    from datops_assets.components.export import run_export
    from datops_assets.config.settings import read_settings

    root = read_settings().project_root
    document = EXPORTS.read_one(root, name, config)
    rows, problems = run_export(document, root)
    if as_json:
        say_json({"export": document.export, "tables": rows, "problems": problems})
    else:
        if rows:
            say_table(rows, ["table", "rows", "changed", "delivered_to"])
        for problem in problems:
            typer.echo(f"failed: {problem}", err=True)
    if problems:
        raise typer.Exit(1)
