"""`datops warehouse` and `datops db`: the server behind everything, and the catalogue in it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datops_assets.cli.output import Json, say_json
from datops_assets.config.settings import Settings, child_environment, read_settings

if TYPE_CHECKING:
    from datops_assets.resources.warehouse import Warehouse

app = typer.Typer(help="The PostgreSQL server of this project.", no_args_is_help=True)
db_app = typer.Typer(help="The catalogue in the warehouse.", no_args_is_help=True)

_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@app.command()
def start(as_json: Json = False) -> None:
    """Start the server; nothing happens when it runs. Every command that needs it does this by itself."""
    from datops_assets.resources.warehouse import open_warehouse

    settings = read_settings()
    warehouse = open_warehouse(settings)
    if as_json:
        say_json(_describe(settings, warehouse))
    elif warehouse.embedded:
        typer.echo(
            f"PostgreSQL {_version(warehouse)} runs at {warehouse.address}, data under {settings.home}"
        )
    else:
        typer.echo(f"PostgreSQL {_version(warehouse)} answers at {warehouse.address} (DATOPS_WAREHOUSE_URL)")


@app.command()
def stop(as_json: Json = False) -> None:
    """Stop the server that datops started. A server named by DATOPS_WAREHOUSE_URL is left alone."""
    from datops_assets.resources.warehouse import embedded_server

    settings = read_settings()
    stopped = embedded_server(settings).stop()
    if as_json:
        say_json({"stopped": stopped})
        return
    said = f"our own server under {settings.home} " + ("is stopped" if stopped else "was not running")
    if settings.warehouse_url is not None:
        said += "; DATOPS_WAREHOUSE_URL names another one, which was left alone"
    typer.echo(said)


@app.command()
def status(as_json: Json = False) -> None:
    """Say whether the server runs, where, and on what data. Exit code 1 when it does not."""
    from datops_assets.resources.warehouse import embedded_server, open_warehouse

    settings = read_settings()
    running = settings.warehouse_url is not None or embedded_server(settings).status().running
    found = _describe(settings, open_warehouse(settings) if running else None)
    if as_json:
        say_json(found)
    else:
        for name, value in found.items():
            typer.echo(f"{name.replace('_', ' '):12} {'-' if value is None else value}")
        if not running:
            typer.echo("start it: datops warehouse start")
    raise typer.Exit(0 if running else 1)


@app.command(context_settings=_PASS_ON)
def psql(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[-- PSQL ARGUMENTS]")] = None,
) -> None:
    """Open psql on the warehouse; what follows `--` goes to psql."""
    import os

    from datops_assets.resources.embedded.programs import find_programs
    from datops_assets.resources.warehouse import open_warehouse

    settings = read_settings()
    program = find_programs(settings.pg_bin).path("psql")
    # The password travels in the environment of this one program: arguments are everybody's to read.
    environment = child_environment(**open_warehouse(settings).libpq_environment())
    os.execve(program, [program, *(arguments or [])], environment)


@app.command()
def url(as_json: Json = False) -> None:
    """Print the URL for other tools, password included."""
    from datops_assets.resources.warehouse import open_warehouse

    warehouse = open_warehouse(read_settings())
    if as_json:
        say_json({"url": warehouse.url, **warehouse.parameters()})
    else:
        typer.echo(warehouse.url)


@app.command()
def upgrade(as_json: Json = False) -> None:
    """Move the data of our own server to the newer PostgreSQL that datops brings."""
    from datops_assets.resources.embedded import upgrade_server
    from datops_assets.resources.warehouse import embedded_server

    server = embedded_server(read_settings())
    kept = upgrade_server(server)
    if as_json:
        say_json({"upgraded": kept is not None, "major": server.data_major(), "old_data": kept})
    elif kept is None:
        typer.echo("nothing to upgrade")
    else:
        typer.echo(f"the data is PostgreSQL {server.data_major()} now; delete {kept} once you are content")


@db_app.command("upgrade")
def upgrade_catalogue(as_json: Json = False) -> None:
    """Bring the catalogue to the version this datops needs. Safe to run twice, or twice at once."""
    from datops_assets.postgres.migrations import upgrade as apply
    from datops_assets.resources.warehouse import open_warehouse

    warehouse = open_warehouse(read_settings())
    with warehouse.connect() as conn:
        applied = apply(conn, grant=True)
    if as_json:
        say_json({"applied": applied})
    else:
        typer.echo("\n".join(f"applied {name}" for name in applied) or "the catalogue is up to date")


def _describe(settings: Settings, warehouse: Warehouse | None) -> dict[str, Any]:
    from datops_assets.resources.warehouse import embedded_server

    if warehouse is not None and not warehouse.embedded:
        return {"running": True, "server": _version(warehouse), "address": warehouse.address, "own": False}
    own = dataclasses.asdict(embedded_server(settings).status())
    started = own.pop("started_at")
    return {
        **{name: own.pop(name) for name in ("running", "pid", "port")},
        "server": _version(warehouse) if warehouse else own["major"],
        "started_at": datetime.fromtimestamp(started, UTC).isoformat() if started else None,
        "data": own["data"],
        "log": own["log"],
        "own": True,
    }


def _version(warehouse: Warehouse) -> str:
    return f"{warehouse.server_version // 10000}.{warehouse.server_version % 10000}"
