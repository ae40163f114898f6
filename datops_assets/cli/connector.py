"""`datops connector`: which kinds of sources and destinations there are, and whether a source can be reached."""

from __future__ import annotations

from collections.abc import Container
from typing import Annotated

import typer

from datops_assets.cli.output import Json, say_rows
from datops_assets.cli.selection import Config, documents
from datops_assets.errors import DatopsError, DeclarationError

app = typer.Typer(
    help="Sources and destinations: which kinds there are, whether sources answer.", no_args_is_help=True
)


@app.command("list")
def list_connectors(as_json: Json = False) -> None:
    """Show the kinds of sources and destinations that a document may have, those of plug-ins too."""
    from datops_assets.components import destinations, sources
    from datops_assets.components.plugins import PluginError

    rows = []
    for what, name in [
        *(("source", name) for name in sources.source_kinds()),
        *(("destination", name) for name in destinations.destination_kinds()),
    ]:
        own: Container[str] = sources.BUILT_IN if what == "source" else destinations.BUILT_IN
        try:
            is_source = what == "source"
            kind = sources.source_kind(name) if is_source else destinations.destination_kind(name)
            summary = kind.summary()
        except PluginError as error:
            summary = str(error)
        brought_by = "datops" if name in own else "plug-in"
        rows.append({"what": what, "type": name, "from": brought_by, "summary": summary})
    say_rows(rows, ["what", "type", "from", "summary"], as_json, "there is none")


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
