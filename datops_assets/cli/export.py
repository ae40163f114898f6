"""`datops export`: tables of gold and silver to files, databases and APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datops_assets.cli.output import Json, say_json, say_table

app = typer.Typer(help="Exports: tables that go to files, databases and APIs.", no_args_is_help=True)


@app.command()
def run(
    config: Annotated[Path, typer.Option("--config", help="The export document.")],
    as_json: Json = False,
) -> None:
    """Deliver every table of an export document. Exit 1 when one was not delivered."""
    from datops_assets.components.export import run_export
    from datops_assets.components.export_document import read_export
    from datops_assets.config.settings import read_settings

    document = read_export(config)
    rows, problems = run_export(document, read_settings().project_root)
    if as_json:
        say_json({"export": document.export, "tables": rows, "problems": problems})
    else:
        if rows:
            say_table(rows, ["table", "rows", "changed", "delivered_to"])
        for problem in problems:
            typer.echo(f"failed: {problem}", err=True)
    if problems:
        raise typer.Exit(1)
