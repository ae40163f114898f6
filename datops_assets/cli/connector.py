"""`datops connector`: which kinds of sources there are, and whether one can be reached."""

from __future__ import annotations

from typing import Annotated

import typer

from datops_assets.cli.output import Json, say_rows
from datops_assets.cli.selection import Config, documents
from datops_assets.errors import DatopsError, DeclarationError

app = typer.Typer(help="Sources: which kinds there are, whether they answer.", no_args_is_help=True)


@app.command("list")
def list_connectors(as_json: Json = False) -> None:
    """Show the kinds of sources that a document may have, those of plug-ins too."""
    from datops_assets.components.plugins import PluginError
    from datops_assets.components.sources import BUILT_IN, source_kind, source_kinds

    rows = []
    for name in source_kinds():
        try:
            summary = source_kind(name).summary()
        except PluginError as error:
            summary = str(error)
        rows.append({"type": name, "from": "datops" if name in BUILT_IN else "plug-in", "summary": summary})
    say_rows(rows, ["type", "from", "summary"], as_json, "there is none")


@app.command("test")
def test(
    pipeline: Annotated[str | None, typer.Argument(help="Name of a pipeline, or of one table of it.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Say of each table whether it can be read now, and what was found. Exit 1 when one cannot."""
    from datops_assets.components.sources import declared_table, open_source
    from datops_assets.config.settings import read_settings

    if pipeline is None and config is None:
        raise DeclarationError(["which pipeline? expected a name (datops pipeline list) or --config FILE"])
    settings = read_settings()
    name, _, table = (pipeline or "").partition(".")
    rows = []
    for document in documents(settings, name or None, config):
        if table and table not in document.tables:
            known = ", ".join(f"{document.pipeline}.{other}" for other in document.tables)
            raise DeclarationError([f"there is no table {pipeline!r}, expected one of: {known}"])
        with open_source(document, settings.project_root) as source:
            for each in [table] if table else document.tables:
                try:
                    said = source.check(declared_table(document, each, settings.project_root))
                    ok, message = said.ok, said.message
                except DatopsError as error:
                    ok, message = False, str(error)
                rows.append(
                    {
                        "table": f"{document.pipeline}.{each}",
                        "reachable": "yes" if ok else "no",
                        "found": message,
                    }
                )
    say_rows(rows, ["table", "reachable", "found"], as_json, "no table is declared")
    if any(row["reachable"] == "no" for row in rows):
        raise typer.Exit(1)
