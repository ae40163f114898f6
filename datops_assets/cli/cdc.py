"""`datops cdc`: databases whose changes are followed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datops_assets.cli.output import Json, say_fields, say_json, say_rows, say_table
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    from datops_assets.cdc import ChangeStream
    from datops_assets.components.catalogue import Catalogue
    from datops_assets.components.streams.document import StreamDocument

app = typer.Typer(help="Change data capture: databases whose changes are followed.", no_args_is_help=True)

StreamName = Annotated[
    str | None, typer.Argument(metavar="[STREAM]", help="Name of a stream of the project.")
]
Config = Annotated[Path | None, typer.Option("--config", help="A stream document that is not part of defs/.")]


@app.command()
def preflight(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """Say what stands in the way of following a database, each point with the statement that mends it."""
    from datops_assets.cdc import preflight as look
    from datops_assets.config.settings import read_settings

    document = _document(name, config)
    findings = look(document.parameters(read_settings().project_root), document.change_stream())
    rows = [dataclasses.asdict(finding) for finding in findings]
    say_rows(rows, ["verdict", "what", "found", "mend"], as_json, "nothing was looked at")
    if any(finding.verdict == "stop" for finding in findings):
        raise typer.Exit(1)


@app.command()
def snapshot(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """Copy the tables as they are now, and begin to follow them from there. Refused where they are followed."""
    document = _document(name, config)
    with _opened(document) as (catalogue, stream, parameters):
        from datops_assets.cdc import find_stream

        entry = find_stream(catalogue.conn, stream.source)
        if entry is not None and entry.state == "streaming":
            raise DeclarationError(
                [
                    f"{stream.source} is followed since {entry.snapshot}; to copy all tables anew: datops cdc resync"
                ]
            )
        _take(catalogue, stream, parameters, as_json)


@app.command()
def resync(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """Forget slot, change log and mirror, and copy all tables anew."""
    document = _document(name, config)
    with _opened(document) as (catalogue, stream, parameters):
        _take(catalogue, stream, parameters, as_json)


@app.command()
def drain(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """Bring all changes that were committed by now into bronze and silver; copy tables first that never were."""
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.components.streams.component import follow_once
    from datops_assets.components.streams.silver import bring_to_silver

    document = _document(name, config)
    with open_catalogue() as catalogue:
        done, _, slot = follow_once(catalogue, document)
        bring_to_silver(catalogue, document)
    result = {**dataclasses.asdict(done), "slot": dataclasses.asdict(slot) if slot else None}
    if as_json:
        say_json(result)
        return
    typer.echo(
        f"{document.stream}: {done.changes} change(s) of {done.transactions} transaction(s)"
        f" in {done.seconds:.2f} s, at {done.applied}"
    )
    if done.tables:
        say_table(
            [{"table": table, "changes": count} for table, count in done.tables.items()], ["table", "changes"]
        )


@app.command()
def stream(
    name: StreamName = None,
    config: Config = None,
    every_ms: Annotated[
        int, typer.Option(help="Longest a finished transaction waits for others.", min=1)
    ] = 200,
    report_s: Annotated[
        float, typer.Option(help="How often the assets are told what arrived, in seconds.", min=0.1)
    ] = 60.0,
) -> None:
    """Follow a database on and on, less than a second behind; ends cleanly on SIGTERM or Ctrl-C."""
    import signal
    import threading

    from datops_assets.components.streams.running import follow_for_ever

    document = _document(name, config)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    follow_for_ever(document, stopped, say=typer.echo, every_s=every_ms / 1000, report_s=report_s)


@app.command()
def status(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """Show where a stream is, how far behind, and what its slot holds back in the source."""
    from datops_assets.cdc import find_stream, read_slot
    from datops_assets.cdc.status import lag_seconds
    from datops_assets.components.catalogue import open_catalogue

    document = _document(name, config)
    stream = document.change_stream()
    with open_catalogue() as catalogue:
        entry = find_stream(catalogue.conn, stream.source)
        slot = read_slot(document.parameters(catalogue.settings.project_root), stream, entry)
    fields: dict[str, Any] = {"stream": stream.source, "slot": stream.slot}
    fields["state"] = entry.state if entry else "never started: datops cdc snapshot"
    if entry is not None:
        fields |= {
            "reason": entry.reason, "snapshot": entry.snapshot, "applied": entry.applied,
            "applied_commit_at": entry.applied_commit_at, "changes": entry.changes,
            "lag_seconds": lag_seconds(entry, slot),
        }  # fmt: skip
    if slot is not None:
        fields |= dataclasses.asdict(slot)
    if as_json:
        say_json(fields)
    else:
        say_fields(fields)


@app.command()
def stop(name: StreamName = None, config: Config = None, as_json: Json = False) -> None:
    """End a stream: drop its slot and publication in the source. Bronze keeps what it has."""
    from datops_assets.cdc.snapshot import end_stream

    document = _document(name, config)
    with _opened(document) as (catalogue, stream, parameters):
        end_stream(catalogue.conn, parameters, stream)
    if as_json:
        say_json({"stream": stream.source, "stopped": True})
    else:
        typer.echo(f"{stream.source} is no longer followed; its tables stay in bronze as they are")


def _take(catalogue: Catalogue, stream: ChangeStream, parameters: dict[str, Any], as_json: bool) -> None:
    from datops_assets.cdc import take_snapshot

    taken = take_snapshot(catalogue.conn, catalogue.warehouse.connect, parameters, stream)
    if as_json:
        say_json(dataclasses.asdict(taken))
        return
    typer.echo(f"{stream.source}: {len(taken.rows)} table(s) copied, followed from {taken.lsn} on")
    say_table([{"table": table, "rows": count} for table, count in taken.rows.items()], ["table", "rows"])


@contextmanager
def _opened(document: StreamDocument) -> Iterator[tuple[Catalogue, ChangeStream, dict[str, Any]]]:
    """The warehouse with the stream's lease, and how its source is reached."""
    from datops_assets.cdc import lease
    from datops_assets.components.catalogue import open_catalogue

    stream = document.change_stream()
    with open_catalogue() as catalogue, lease(catalogue.conn, stream.source):
        yield catalogue, stream, document.parameters(catalogue.settings.project_root)


def _document(name: str | None, config: Path | None) -> StreamDocument:
    """The stream that a call means.

    raises    DeclarationError: there is no such stream, or its document is wrong
    """
    from datops_assets.components.declarations import STREAMS
    from datops_assets.config.settings import read_settings

    return STREAMS.read_one(read_settings().project_root, name, config).document
