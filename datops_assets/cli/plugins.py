"""`datops plugins`: what other installed packages add."""

from __future__ import annotations

import typer

from datops_assets.cli.output import Json, say_rows

app = typer.Typer(help="Plug-ins: what other installed packages add.", no_args_is_help=True)


@app.command("list")
def list_plugins(as_json: Json = False) -> None:
    """Show every plug-in, the package it comes from, and why one does not load."""
    from datops_assets.components.plugins import list_plugins

    rows = [
        {
            "group": found.group,
            "name": found.name,
            "package": found.package,
            "state": found.problem or f"ok: {found.summary}",
        }
        for found in list_plugins()
    ]
    say_rows(
        rows,
        ["group", "name", "package", "state"],
        as_json,
        "no package brings plug-ins; docs/plugins.md shows how to write one",
    )
