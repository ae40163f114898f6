"""`datops generate`: synthetic data for demos, tests and benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datops_assets.cli.output import Json, is_terminal, say_json, say_table

if TYPE_CHECKING:
    from datops_assets.synthetic import Generated

app = typer.Typer(
    help="Synthetic data: the same seed gives the same bytes, faults are labelled.", no_args_is_help=True
)

# A pipe gets one line for so many days.
_DAYS_A_LINE = 30


@app.callback()
def _generate() -> None:
    """Synthetic data: the same seed gives the same bytes, faults are labelled."""


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("expected a day such as 2026-01-01") from None


@app.command()
def shop(
    out: Annotated[Path, typer.Option(help="Folder the files go to; made where it is missing.")],
    seed: Annotated[int, typer.Option(help="Everything follows from it.")] = 7,
    days: Annotated[
        int, typer.Option(min=1, help="How many days; more days leave earlier files alone.")
    ] = 90,
    scale: Annotated[float, typer.Option(help="1 is 2,000 customers and about 150 orders a day.")] = 1.0,
    start: Annotated[
        date | None,
        typer.Option(parser=_day, metavar="YYYY-MM-DD", help="The first day.", show_default="2026-01-01"),
    ] = None,
    faults: Annotated[
        Path | None, typer.Option(help="YAML that says which faults to inject; see the tutorial.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace the files of another shop in that folder.")] = False,
    as_json: Json = False,
) -> None:
    """Generate a web shop: customers, products, orders, items, payments and web events, by day."""
    from datops_assets import synthetic

    plan = synthetic.ShopPlan(
        seed=seed,
        days=days,
        scale=scale,
        start=start or synthetic.ShopPlan.start,
        faults=synthetic.read_faults(faults) if faults else (),
    )
    with _progress(days, silent=as_json) as on_day:
        generated = synthetic.generate_shop(plan, out, force=force, on_day=on_day)
    if as_json:
        say_json(
            {
                **dataclasses.asdict(generated),
                "files": len(generated.files),
                "written": len(generated.written),
            }
        )
    else:
        _say(generated)


def _say(generated: Generated) -> None:
    say_table(
        [
            {"table": table, "rows": rows, "faults": sum(generated.labels.get(table, {}).values())}
            for table, rows in generated.rows.items()
        ],
        ["table", "rows", "faults"],
    )
    same = len(generated.files) - len(generated.written)
    typer.echo(f"{len(generated.written)} files written to {generated.out}, {same} were there already")
    if generated.labels:
        typer.echo(f"every fault is listed in {generated.out / 'faults.jsonl'}")


@contextmanager
def _progress(days: int, *, silent: bool) -> Iterator[Callable[[date], None] | None]:
    """A bar on a terminal, now and then a line in a pipe, nothing where JSON is wanted."""
    if silent:
        yield None
    elif is_terminal():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("generating", total=days)
            yield lambda today: progress.update(task, advance=1, description=str(today))
    else:
        done: list[date] = []

        def say(today: date) -> None:
            done.append(today)
            if len(done) % _DAYS_A_LINE == 0:
                typer.echo(f"{today}: {len(done)} of {days} days", err=True)

        yield say
