"""`datops demo`: from nothing to gold, on a server of its own."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datops_assets.cli.output import Json, say_json, say_table
from datops_assets.errors import TerminalError

if TYPE_CHECKING:
    from datops_assets.components.project_run import ProjectRun
    from datops_assets.config.settings import Settings

SEED = 7


def demo(
    days: Annotated[int, typer.Option(min=1, help="Days of shop data.")] = 30,
    scale: Annotated[float, typer.Option(help="Size of the shop; 1 is about 150 orders a day.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Generate a shop with faults in it, load, judge and build everything, and sum it up."""
    from datops_assets.components.project_run import run_project
    from datops_assets.config.settings import forget_inherited_settings, read_settings
    from datops_assets.definitions import defs

    forget_inherited_settings()
    settings = read_settings()
    if settings.warehouse_url is not None or settings.dagster_url is not None:
        raise TerminalError(
            "the demo writes only to a server of its own, but .env names another; run it on a fresh clone"
        )
    started = time.monotonic()
    timings: dict[str, float] = {}
    _timed(timings, "start the warehouse", lambda: _start(as_json), as_json)
    _timed(timings, "generate the shop", lambda: _generate(settings, days, scale), as_json)
    run = _timed(timings, "load, judge, build", lambda: run_project(defs(), settings.project_root), as_json)
    timings["all"] = round(time.monotonic() - started, 1)
    _say(run, timings, as_json)
    if not run.success:
        raise typer.Exit(1)


def _timed(timings: dict[str, float], what: str, work: Any, as_json: bool) -> Any:
    if not as_json:
        typer.echo(f"{what} …")
    started = time.monotonic()
    result = work()
    timings[what] = round(time.monotonic() - started, 1)
    return result


def _start(as_json: bool) -> None:
    from datops_assets.components.catalogue import open_catalogue

    with open_catalogue() as catalogue:
        if not as_json:
            typer.echo(f"  PostgreSQL on port {catalogue.warehouse.port}")


def _generate(settings: Settings, days: int, scale: float) -> None:
    from datops_assets.synthetic import DEMO_FAULTS, ShopPlan, generate_shop, read_faults

    plan = ShopPlan(seed=SEED, days=days, scale=scale, faults=read_faults(DEMO_FAULTS))
    generate_shop(plan, settings.home / "landing" / "shop")


def _say(run: ProjectRun, timings: dict[str, float], as_json: bool) -> None:
    if as_json:
        say_json({**dataclasses.asdict(run), "seconds": timings})
        return
    typer.echo("")
    say_table([dataclasses.asdict(layer) for layer in run.layers], ["layer", "tables", "rows"])
    typer.echo("")
    tables = [dataclasses.asdict(table) for table in run.tables]
    say_table(tables, ["table", "bronze_rows", "silver_rows", "quarantined", "score"])
    if run.reasons:
        typer.echo("\nquarantined, by reason")
        say_table([dataclasses.asdict(reason) for reason in run.reasons], ["table", "reason", "rows"])
    typer.echo(
        f"\nchecks: {run.checks_passed} passed, {len(run.checks_warned)} warned, {len(run.checks_failed)} failed"
        " (the shop's faults are put in on purpose, to be found)"
    )
    for check in run.checks_warned:
        typer.echo(f"  warned: {check}")
    for check in run.checks_failed:
        typer.echo(f"  failed: {check}")
    for problem in run.problems:
        typer.echo(f"  {problem}", err=True)
    typer.echo("seconds: " + ", ".join(f"{what} {seconds:.1f}" for what, seconds in timings.items()))
    typer.echo("next: `make up` shows it in the web UI; `datops quarantine list`; `datops warehouse psql`")
