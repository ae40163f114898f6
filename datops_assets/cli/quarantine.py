"""`datops quarantine`: records that wait, and what becomes of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datops_assets.cli.output import Json, say_json, say_rows
from datops_assets.cli.selection import Config, TableName, stream_of, table_of
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    import psycopg

    from datops_assets.components.streams.document import StreamDocument

app = typer.Typer(
    help="The quarantine: records that silver did not take, with every reason.", no_args_is_help=True
)

_SHOWN = 160
"""Characters of a record that a line shows; `--json` has all."""

Reason = Annotated[str | None, typer.Option(help="Only records with this reason, as `list` prints it.")]


@app.command("list")
def list_reasons(
    table: Annotated[str | None, typer.Argument(metavar="[PIPELINE[.TABLE]]", help="Only these.")] = None,
    as_json: Json = False,
) -> None:
    """Count waiting records by table and reason."""
    from datops_assets import quality
    from datops_assets.components.catalogue import open_catalogue

    source, _, name = (table or "").partition(".")
    with open_catalogue() as catalogue:
        reasons = quality.list_quarantine(catalogue.conn, source or None, name or None)
    rows = [dataclasses.asdict(reason) for reason in reasons]
    say_rows(rows, ["table", "stage", "rows", "since", "reason"], as_json, "the quarantine is empty")


@app.command()
def show(
    table: TableName,
    reason: Reason = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many records.")] = 20,
    as_json: Json = False,
) -> None:
    """Show waiting records as they were delivered, with file, record number and reasons."""
    from datops_assets import quality
    from datops_assets.components.catalogue import open_catalogue

    source, _, name = table.partition(".")
    if not name:
        raise DeclarationError([f"{table!r} is not a table, expected PIPELINE.TABLE such as shop.orders"])
    with open_catalogue() as catalogue:
        records = quality.show_quarantine(catalogue.conn, source, name, reason=reason, limit=limit)
    rows = [dataclasses.asdict(record) for record in records]
    if not as_json:
        rows = [{**row, "load": row["load_id"], "delivered": _delivered(row)} for row in rows]
    say_rows(rows, ["load", "path", "row", "reasons", "delivered"], as_json, "no record waits")


def _delivered(row: Mapping[str, Any]) -> str:
    """One line of what was delivered: JSON, or the text of a damaged record, which has no values."""
    raw: bytes | None = row["raw"]
    if raw is None:
        text = json.dumps(row["record"], ensure_ascii=False)
    else:
        text = raw.decode("utf-8", "backslashreplace").rstrip("\r\n")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


@app.command()
def replay(table: TableName, config: Config = None, as_json: Json = False) -> None:
    """Judge waiting records by the contract as it is now; those that pass move to silver, once."""
    from datops_assets import quality
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.config.settings import read_settings

    stream = stream_of(table, config)
    if stream is not None:
        _replay_mirrored(stream, table, as_json)
        return
    document, name = table_of(read_settings(), table, config)
    spec = document.tables[name]
    if spec.contract is None:
        raise DeclarationError([f"{table} has no contract to judge by; add `contract:` and validate"])
    with open_catalogue() as catalogue:
        replayed = quality.replay_quarantine(
            catalogue.conn,
            source=document.pipeline,
            table=name,
            contract=spec.contract,
            rename=spec.rename,
            disposition=spec.disposition,
        )
    if as_json:
        say_json(dataclasses.asdict(replayed))
    elif replayed.contract_changed:
        typer.echo(
            f"{table}: the contract changed: the whole table was judged again; {replayed.rows_released} record(s)"
            f" moved to silver, {replayed.rows_left_silver} left it, {replayed.rows_waiting} wait"
        )
    else:
        typer.echo(
            f"{table}: {replayed.rows_released} record(s) moved to silver, {replayed.rows_waiting} still wait"
        )


def _replay_mirrored(document: StreamDocument, table: str, as_json: bool) -> None:
    from datops_assets import quality
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.components.streams.silver import judge_mirrored

    name = table.partition(".")[2]
    if document.tables[name].contract is None:
        raise DeclarationError([f"{table} has no contract to judge by; add `contract:` and validate"])
    with open_catalogue() as catalogue:
        before = quality.count_waiting(catalogue.conn, document.stream, name)
        judgement = judge_mirrored(catalogue, document, name, kind="replay")
        waiting = quality.count_waiting(catalogue.conn, document.stream, name)
    if as_json:
        replayed = {"rows_released": max(before - waiting, 0), "rows_waiting": waiting}
        say_json({**replayed, "judgement": dataclasses.asdict(judgement)})
    else:
        typer.echo(f"{table}: {max(before - waiting, 0)} record(s) moved to silver, {waiting} still wait")


@app.command()
def drop(
    table: TableName,
    because: Annotated[str, typer.Option("--because", help="Why these records are left out for good; kept.")],
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Leave waiting records out for good: a rebuild leaves them out too. They stay in bronze."""
    from datops_assets import quality
    from datops_assets.components.catalogue import open_catalogue

    source, _, name = table.partition(".")
    if not name:
        raise DeclarationError([f"{table!r} is not a table, expected PIPELINE.TABLE such as shop.orders"])
    with open_catalogue() as catalogue:
        _require_reason(catalogue.conn, source, name, reason)
        dropped = quality.drop_quarantined(
            catalogue.conn, source=source, table=name, because=because, reason=reason
        )
    if as_json:
        say_json({"table": table, "rows_dropped": dropped})
    else:
        typer.echo(f"{table}: {dropped} record(s) dropped; they stay in bronze")


def _require_reason(conn: psycopg.Connection[Any], source: str, name: str, reason: str | None) -> None:
    """A reason that nothing waits for is a slip of the pen, not a request to do nothing."""
    from datops_assets import quality

    waiting = [one.reason for one in quality.list_quarantine(conn, source, name)]
    if reason is not None and reason not in waiting:
        known = "; ".join(waiting) or "none, nothing waits"
        raise DeclarationError(
            [f"no record of {source}.{name} waits for the reason {reason!r}, expected one of: {known}"]
        )
