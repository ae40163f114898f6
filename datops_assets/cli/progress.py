"""How far a run is, on stderr: a bar on a terminal, a line for each finished step in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnStep = Callable[[str, bool], None]
"""Takes the name of a step, and whether it is over."""


@contextmanager
def steps_shown(title: str, steps: int, *, as_json: bool) -> Iterator[OnStep | None]:
    """Show the steps of one run as they begin and end; nothing where JSON was asked for.

    steps    how many there will be, for the bar
    """
    if as_json:
        yield None
    elif sys.stderr.isatty():
        with _bar(title, steps) as on_step:
            yield on_step
    else:
        yield _lines()


@contextmanager
def _bar(title: str, steps: int) -> Iterator[OnStep]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(title), total=steps)

        def on_step(step: str, over: bool) -> None:
            progress.update(task, advance=int(over), description=escape(_label(step)))

        yield on_step


def _lines() -> OnStep:
    started: dict[str, float] = {}

    def on_step(step: str, over: bool) -> None:
        now = time.monotonic()
        began = started.setdefault(step, now)
        if over:
            sys.stderr.write(f"{_label(step)}: {now - began:.1f} s\n")

    return on_step


def _label(step: str) -> str:
    """bronze__shop__orders is bronze/shop/orders to people."""
    return step.replace("__", "/")
