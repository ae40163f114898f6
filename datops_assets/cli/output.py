"""How every command answers: aligned lines for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

import typer

from datops_assets.telemetry.printable import one_line

JSON_WANTED = "datops.json"
"""Key in the call's context: whether --json was typed."""


def _noted(ctx: typer.Context, wanted: bool) -> bool:
    ctx.meta[JSON_WANTED] = wanted
    return wanted


Json = Annotated[
    bool, typer.Option("--json", callback=_noted, help="Print one JSON document instead of lines.")
]


def say_json(data: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(data, default=_plain, indent=2, ensure_ascii=False))


def say_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool, nothing: str) -> None:
    """Print rows as an aligned table, or as a JSON array; `nothing` where there are none.

    columns    those a person needs; JSON holds all
    """
    if as_json:
        say_json(list(rows))
    elif not rows:
        typer.echo(nothing)
    else:
        say_table(rows, columns)


def say_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows aligned, numbers to the right; cells cut at 60 characters, but for the last column's."""
    # What stands last is what people copy, such as a reason or the next command.
    cells = [
        [*(_cell(row.get(column)) for column in columns[:-1]), _cell(row.get(columns[-1]), most=1000)]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    typer.echo(
        "  ".join(
            name.replace("_", " ").ljust(width) for name, width in zip(columns, widths, strict=True)
        ).rstrip()
    )
    for row, line in zip(rows, cells, strict=True):
        typer.echo(
            "  ".join(
                _aligned(row.get(c), text, w) for c, text, w in zip(columns, line, widths, strict=True)
            ).rstrip()
        )


def say_fields(fields: Mapping[str, Any]) -> None:
    """Print one thing: a line for each of its fields, uncut."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        typer.echo(f"{name.replace('_', ' '):{width}}  {_cell(value, most=10_000)}")


def is_terminal() -> bool:
    """Whether a person watches; progress bars only then."""
    return sys.stderr.isatty()


def _aligned(value: Any, text: str, width: int) -> str:
    return text.rjust(width) if isinstance(value, (int, float, Decimal)) else text.ljust(width)


def _cell(value: Any, most: int = 60) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    text = one_line(_text(value).replace("\n", " "))
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return json.dumps(value, default=_plain, ensure_ascii=False)
    return str(_plain(value)) if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)
