"""`datops cdc`: databases whose changes are followed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datops_assets.cli.output import Json, say_fields, say_json, say_rows, say_table
from datops_assets.errors import DeclarationError, RetryableError, WarehouseError

if TYPE_CHECKING:
    from datops_assets.cdc import Capture, Finding
    from datops_assets.components.catalogue import Catalogue
    from datops_assets.components.streams.document import StreamDocument

app = typer.Typer(help="Change data capture: databases whose changes are followed.", no_args_is_help=True)

StreamName = Annotated[
    str | None, typer.Argument(metavar="[STREAM]", help="Name of a stream of the project.")
]
Config = Annotated[Path | None, typer.Option("--config", help="A stream document that is not part of defs/.")]


@app.command()
def preflight(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """Say what stands in the way of following a database, each point with the statement that mends it.

    Where `deletes:` became another for a stream that runs: what the next drain does to its mirrors.
    """
    from datops_assets.config.settings import read_settings

    document = _document(name, config)
    findings = [*document.engine(read_settings().project_root).preflight(), *_planned_deletes(document)]
    rows = [dataclasses.asdict(finding) for finding in findings]
    say_rows(rows, ["verdict", "what", "found", "mend"], as_json, "nothing was looked at")
    if any(finding.verdict == "stop" for finding in findings):
        raise typer.Exit(1)


@app.command()
def snapshot(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """Copy the tables as they are now, and begin to follow them from there. Refused where they are followed."""
    document = _document(name, config)
    with _opened(document) as (catalogue, engine):
        standing = engine.standing(catalogue.conn)
        if standing.state == "streaming":
            raise DeclarationError(
                [
                    f"{engine.source} is followed since {standing.since}; to copy all tables anew: datops cdc resync"
                ]
            )
        _take(catalogue, engine, as_json)


@app.command()
def resync(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """Forget slot, change log and mirror, and copy all tables anew."""
    document = _document(name, config)
    with _opened(document) as (catalogue, engine):
        _take(catalogue, engine, as_json)


@app.command()
def drain(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """Bring all changes that were committed by now into bronze and silver; copy tables first that never were."""
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.components.streams.component import follow_once, forget_old_changes
    from datops_assets.components.streams.silver import bring_to_silver

    document = _document(name, config)
    with open_catalogue() as catalogue:
        engine = document.engine(catalogue.settings.project_root)
        done, standing = follow_once(catalogue, engine)
        bring_to_silver(catalogue, document)
        gone = forget_old_changes(catalogue, document)
    if as_json:
        say_json(
            {
                **dataclasses.asdict(done),
                "changes_let_go": gone,
                "status": {"state": standing.state, **standing.fields},
            }
        )
        return
    typer.echo(f"{document.stream}: {engine.said(done)}")
    if done.tables:
        say_table(
            [{"table": table, "changes": count} for table, count in done.tables.items()], ["table", "changes"]
        )


@app.command()
def stream(
    name: StreamName = None,
    config: Config = None,
    every_ms: Annotated[
        int | None,
        typer.Option(
            help="Longest wait between two commits; default: 200 by log, `look_every` by queries.", min=1
        ),
    ] = None,
    report_s: Annotated[
        float, typer.Option(help="How often the assets are told what arrived, in seconds.", min=0.1)
    ] = 60.0,
) -> None:
    """Follow a database on and on, by its log less than a second behind; ends cleanly on SIGTERM or Ctrl-C."""
    import signal
    import threading

    from datops_assets.components.streams.running import follow_for_ever

    document = _document(name, config)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    every_s = every_ms / 1000 if every_ms is not None else None
    follow_for_ever(document, stopped, say=typer.echo, every_s=every_s, report_s=report_s)


@app.command()
def status(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """Show where a stream is and how far behind; by log, what its slot holds back in the source."""
    from datops_assets.components.catalogue import open_catalogue

    document = _document(name, config)
    with open_catalogue() as catalogue:
        standing = document.engine(catalogue.settings.project_root).standing(catalogue.conn)
    fields: dict[str, Any] = {
        "stream": document.stream,
        "capture": document.capture,
        "state": standing.state or "never started: datops cdc snapshot",
        "reason": standing.reason,
        **standing.fields,
    }
    if as_json:
        say_json(fields)
        return
    tables = fields.pop("tables", {})
    say_fields(fields)
    if tables:
        rows = [{"table": table, **known} for table, known in tables.items()]
        say_table(rows, list(rows[0]))


@app.command()
def stop(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """End a stream: drop what it has in the source, slot and publication. Bronze keeps what it has."""
    document = _document(name, config)
    with _opened(document) as (catalogue, engine):
        engine.stop(catalogue.conn)
    if as_json:
        say_json({"stream": engine.source, "stopped": True})
    else:
        typer.echo(f"{engine.source} is no longer followed; its tables stay in bronze as they are")


def _planned_deletes(document: StreamDocument) -> list[Finding]:
    """What the next drain does where `deletes:` became another; nothing where the warehouse is away."""
    from datops_assets.cdc.preflight import plan_deletes
    from datops_assets.components.catalogue import open_catalogue

    declared = {name: document.keeps_deleted(name) for name in document.tables}
    with suppress(WarehouseError, RetryableError), open_catalogue() as catalogue:
        return plan_deletes(catalogue.conn, document.stream, declared)
    return []


def _take(catalogue: Catalogue, engine: Capture, as_json: bool) -> None:
    taken = engine.snapshot(catalogue.conn, catalogue.warehouse.connect)
    if as_json:
        say_json(dataclasses.asdict(taken))
        return
    typer.echo(f"{engine.source}: {len(taken.rows)} table(s) copied, followed from {taken.place} on")
    say_table([{"table": table, "rows": count} for table, count in taken.rows.items()], ["table", "rows"])


@contextmanager
def _opened(document: StreamDocument) -> Iterator[tuple[Catalogue, Capture]]:
    """The warehouse with the stream's lease, and what moves the stream."""
    from datops_assets.cdc import lease
    from datops_assets.components.catalogue import open_catalogue

    with open_catalogue() as catalogue, lease(catalogue.conn, document.stream):
        yield catalogue, document.engine(catalogue.settings.project_root)


def _document(name: str | None, config: Path | None) -> StreamDocument:
    """The stream that a call means.

    raises    DeclarationError: there is no such stream, or its document is wrong
    """
    from datops_assets.components.declarations import STREAMS
    from datops_assets.config.settings import read_settings

    return STREAMS.read_one(read_settings().project_root, name, config).document
