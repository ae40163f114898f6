"""`datops backup`: databases that are backed up, and restores that prove it."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from datops_assets.cli.output import Json, say_fields, say_json, say_rows, say_table
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    from datops_assets.backup.catalogue import BackupEntry
    from datops_assets.backup.physical_restore import FolderPlan, FolderRestored
    from datops_assets.backup.restore import Restored, RestorePlan
    from datops_assets.components.backups.document import BackupDocument

app = typer.Typer(help="Backups: taken, verified, restored, drilled.", no_args_is_help=True)

Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of the backups in the document.")]
Config = Annotated[Path | None, typer.Option("--config", help="A backup document that is not part of defs/.")]
BackupId = Annotated[
    str | None, typer.Option("--backup", help="Id of one backup; default: the newest good one.")
]
KindOf = Annotated[
    Literal["logical", "full", "incremental"],
    typer.Option("--kind", help="One database as a dump, the whole server, or what changed in it since."),
]
At = Annotated[str | None, typer.Option("--at", help="Only the copy at this destination.")]


@app.command()
def plan(name: Name = None, kind: KindOf = "logical", config: Config = None, as_json: Json = False) -> None:
    """Say what a run would do and what stands in its way. Changes nothing."""
    from datops_assets.components.backups.taking import plan_run
    from datops_assets.components.catalogue import open_catalogue

    document = _document(name, config)
    with open_catalogue() as catalogue:
        planned = plan_run(document, catalogue, kind)
    fields = dataclasses.asdict(planned)
    if as_json:
        say_json(fields)
    else:
        shown = fields | {"destinations": [f"{key}: {value}" for key, value in planned.destinations.items()]}
        say_fields(
            shown
            | {"encrypted_with": planned.encrypted_with or "nothing", "problems": planned.problems or "none"}
        )
    if planned.problems:
        raise typer.Exit(1)


@app.command()
def run(
    name: Name = None,
    why: Annotated[str, typer.Option(help="Why this backup is taken, for the catalogue.")] = "by hand",
    kind: KindOf = "logical",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Take a backup now."""
    from datops_assets.components.backups.taking import run as take
    from datops_assets.components.catalogue import open_catalogue

    document = _document(name, config)
    with open_catalogue() as catalogue:
        taken = take(document, catalogue, why, kind)
    manifest = taken.manifest
    result: dict[str, Any] = {
        "backup_id": manifest.backup_id, "name": manifest.name, "kind": manifest.kind,
        "snapshot_at": manifest.snapshot_at, "seconds": manifest.seconds, "stored_bytes": manifest.stored_bytes,
        "plain_bytes": manifest.plain_bytes, "tables": len(manifest.facts.get("tables", {})),
        "destinations": sorted(set(document.destinations) - set(taken.failed)), "failed": taken.failed,
    }  # fmt: skip
    if as_json:
        say_json(result)
    else:
        typer.echo(
            f"{manifest.name} {manifest.backup_id}: {result['tables']} table(s), {manifest.plain_bytes} bytes as"
            f" {manifest.stored_bytes} in {manifest.seconds:.1f} s, at {', '.join(result['destinations'])}"
        )
    for destination, reason in taken.failed.items():
        typer.echo(f"datops: the destination {destination} does not have it: {reason}", err=True)
    if taken.failed:
        raise typer.Exit(1)


@app.command("list")
def list_(
    name: Name = None,
    at: At = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="First enter what stands at the destinations and the catalogue forgot."
        ),
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show the backups; with --at those that stand at a destination, whatever the catalogue says."""
    from datops_assets.components.backups import listing, verifying
    from datops_assets.components.catalogue import open_catalogue

    document = _document(name, config)
    if at is not None:
        _list_at(document, at, as_json)
        return
    with open_catalogue() as catalogue:
        if rebuild:
            entered, problems = verifying.rebuild(document, catalogue)
            for problem in problems:
                typer.echo(f"datops: {problem}", err=True)
            typer.echo(f"{len(entered)} backup(s) entered that the catalogue did not have", err=True)
        found = [_row(entry) for entry in listing.entries(document, catalogue)]
    columns = ["backup_id", "kind", "state", "snapshot_at", "seconds", "stored_bytes", "verified_at", "drilled_at",
               "drill_passed", "destinations"]  # fmt: skip
    say_rows(found, columns, as_json, f"{document.backup} has no backups; take one: datops backup run")


@app.command()
def verify(
    name: Name = None,
    backup: BackupId = None,
    at: At = None,
    every: Annotated[
        bool, typer.Option("--all", help="All backups that should be good, and the log.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only hash the stored bytes: needs no key.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Read backups to the last byte and hold them against what was written."""
    from datops_assets.components.backups import listing, verifying
    from datops_assets.components.catalogue import open_catalogue

    document = _document(name, config)
    with open_catalogue() as catalogue:
        chosen = [listing.choose(document, catalogue, backup)]
        if every:
            chosen = [entry for entry in listing.entries(document, catalogue) if entry.state == "complete"]
        results = [
            found
            for entry in chosen
            for found in verifying.verify_copies(document, catalogue, entry, at=at, quick=quick)
        ]
        if every and not quick:
            results += verifying.verify_log(document, catalogue, at)
    rows = [dataclasses.asdict(found) | {"passed": found.passed} for found in results]
    if as_json:
        say_json(rows)
    else:
        shown = [row | {"findings": row["findings"] or "none"} for row in rows]
        say_table(shown, ["backup_id", "destination", "artefacts", "bytes", "seconds", "passed", "findings"])
    if not results or not all(found.passed for found in results):
        raise typer.Exit(1)


@app.command()
def restore(
    name: Name = None,
    database: Annotated[str, typer.Option(help="Database to restore into; made where there is none.")] = "",
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder for the whole server, of a physical backup; not there, or empty."),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="URL of another server; default: the server that was backed up.")
    ] = None,
    password_env: Annotated[str | None, typer.Option(help="Variable with the password for --to.")] = None,
    schema: Annotated[str | None, typer.Option(help="Only this schema's tables.")] = None,
    table: Annotated[str | None, typer.Option(help="Only this table, as schema.table.")] = None,
    backup: BackupId = None,
    at: At = None,
    without_catalogue: Annotated[
        bool,
        typer.Option("--without-catalogue", help="From what stands at --at; the warehouse is not asked."),
    ] = False,
    onto: Annotated[
        str | None,
        typer.Option(help="host:port/database that may be replaced, typed out; it is moved aside."),
    ] = None,
    to_time: Annotated[
        str | None, typer.Option(help="With --folder: to this time; without a zone it is UTC.")
    ] = None,
    to_lsn: Annotated[str | None, typer.Option(help="With --folder: to this place in the log.")] = None,
    to_name: Annotated[str | None, typer.Option(help="With --folder: to this named restore point.")] = None,
    to_timeline: Annotated[
        int | None,
        typer.Option(help="With --folder: on this timeline of the log; default: the newest."),
    ] = None,
    tablespace: Annotated[
        list[str] | None,
        typer.Option(
            help="With --folder: NAME=/FOLDER, where a tablespace goes; default: inside the folder."
        ),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this the plan is shown.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what a restore would do; with --apply do it and hold the outcome against the backup."""
    document = _document(name, config)
    if folder is not None:
        if database or to or schema or table or onto:
            raise DeclarationError(["--folder restores a whole server, expected no --database beside it"])
        if without_catalogue:
            raise DeclarationError(
                [
                    "--folder asks the catalogue; where that is lost, expected first, on an empty warehouse:"
                    " datops backup list --rebuild"
                ]
            )
        target = (to_time, to_lsn, to_name, to_timeline)
        fields = dataclasses.asdict(
            _into_folder(document, folder, target, tablespace or [], backup, at, apply)
        )
    else:
        if to_time or to_lsn or to_name or to_timeline:
            raise DeclarationError(["a point in time is of a whole server, expected --folder beside it"])
        if not database:
            raise DeclarationError(["restore into what? expected --database NAME, or --folder PATH"])
        if schema and table:
            raise DeclarationError(["--schema and --table stand side by side, expected one of them"])
        place = _Place(database, to, password_env, onto)
        take = _into_database_without_catalogue if without_catalogue else _into_database
        fields = dataclasses.asdict(take(document, place, (schema, table), backup, at, apply))
    _say_restore(fields, apply, as_json)


def _into_folder(
    document: BackupDocument, folder: Path, target: tuple[str | None, str | None, str | None, int | None],
    tablespaces: list[str], backup: str | None, at: str | None, apply: bool,
) -> FolderPlan | FolderRestored:  # fmt: skip
    from datops_assets.backup.tablespaces import read_places
    from datops_assets.components.backups.folder import restore_folder, target_from
    from datops_assets.components.catalogue import open_catalogue

    point, places = target_from(*target), read_places(tablespaces)
    with open_catalogue() as catalogue:
        return restore_folder(
            document, catalogue, folder.absolute(), point, backup_id=backup, at=at, apply=apply, places=places
        )


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a database goes, as a call says it."""

    database: str
    to: str | None
    password_env: str | None
    onto: str | None


def _into_database(
    document: BackupDocument, place: _Place, part: tuple[str | None, str | None], backup: str | None,
    at: str | None, apply: bool,
) -> RestorePlan | Restored:  # fmt: skip
    from datops_assets.backup.restore import Wanted
    from datops_assets.components.backups import listing, restoring
    from datops_assets.components.catalogue import open_catalogue

    with open_catalogue() as catalogue:
        server = restoring.target_of(document, catalogue.settings, place.to, place.password_env)
        entry = listing.choose(document, catalogue, backup, listing.LOGICAL)
        return restoring.restore(
            document, catalogue, entry, server.at(place.database), Wanted(*part), onto=place.onto, at=at, apply=apply
        )  # fmt: skip


def _into_database_without_catalogue(
    document: BackupDocument, place: _Place, part: tuple[str | None, str | None], backup: str | None,
    at: str | None, apply: bool,
) -> RestorePlan | Restored:  # fmt: skip
    from datops_assets.backup.restore import Wanted
    from datops_assets.components.backups import restoring
    from datops_assets.config.settings import read_settings

    if at is None or at not in document.destinations:
        known = ", ".join(document.destinations)
        raise DeclarationError(
            [f"--without-catalogue takes one destination, expected --at with one of: {known}"]
        )
    settings = read_settings()
    server = restoring.target_of(document, settings, place.to, place.password_env)
    return restoring.restore_without_catalogue(
        document, settings, backup, server.at(place.database), Wanted(*part), onto=place.onto, at=at, apply=apply
    )  # fmt: skip


def _say_restore(fields: dict[str, Any], apply: bool, as_json: bool) -> None:
    if as_json:
        say_json(fields)
    else:
        say_fields({key: value if value not in ([], {}) else "none" for key, value in fields.items()})
    if fields.get("problems") or fields.get("findings"):
        raise typer.Exit(1)
    if not apply and not as_json:
        typer.echo("nothing was changed; to do it: --apply")


@app.command()
def wal(
    name: Name = None,
    once: Annotated[bool, typer.Option("--once", help="Keep what is written by now, and end.")] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Only say where the log is, and hold it against its promise.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Receive the log as it is written, until interrupted: for restores to a point in time."""
    from datops_assets.components.backups.log import check_log, receive_log
    from datops_assets.components.catalogue import open_catalogue

    document = _document(name, config)
    findings: list[str] = []
    with open_catalogue() as catalogue, _until_interrupted() as stop:
        if status:
            checked = check_log(document, catalogue)
            findings = checked.findings
            fields = dataclasses.asdict(checked.state) | {"findings": findings}
        else:
            fields = dataclasses.asdict(
                receive_log(document, catalogue, once=once, stop=stop, say=_say_aside)
            )
    if as_json:
        say_json(fields)
    else:
        say_fields({key: "none" if value in ([], {}, None) else value for key, value in fields.items()})
    if findings or fields.get("started_anew") or fields.get("failed"):
        raise typer.Exit(1)


def _say_aside(what: str) -> None:
    typer.echo(f"datops: {what}", err=True)


@contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    """Set when we are asked to end: what was received is kept before we do."""
    stop = threading.Event()
    former = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@app.command()
def drill(
    name: Name = None, backup: BackupId = None, at: At = None, config: Config = None, as_json: Json = False
) -> None:
    """Restore a backup on a server of its own and compare; default: the one whose turn it is."""
    from datops_assets.components.backups import listing, proving
    from datops_assets.components.catalogue import open_catalogue

    document = _document(name, config)
    with open_catalogue() as catalogue:
        entry = listing.choose(document, catalogue, backup) if backup else proving.turn(document, catalogue)
        done = proving.proof(document, catalogue, entry, at)
    fields = dataclasses.asdict(done) | {"passed": done.passed}
    if as_json:
        say_json(fields)
    else:
        say_fields(fields | {"findings": done.findings or "none"})
    if not done.passed:
        raise typer.Exit(1)


@app.command()
def prune(
    name: Name = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this the plan is shown.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show which backups retention lets go; with --apply remove them."""
    from datops_assets.components.backups import pruning
    from datops_assets.components.catalogue import open_catalogue

    document = _document(name, config)
    with open_catalogue() as catalogue:
        found = pruning.prune(document, catalogue) if apply else pruning.plan_prune(document, catalogue)
    rows = [dataclasses.asdict(one) for one in found]
    say_rows(rows, ["backup_id", "snapshot_at", "stored_bytes", "goes", "reasons"], as_json, "no backup goes")
    if not apply and not as_json and any(one.goes for one in found):
        typer.echo("nothing was changed; to do it: --apply")


@app.command()
def key(as_json: Json = False) -> None:
    """Make a key for a variable that `encryption.key_env` names. Keep it elsewhere, too: without it no restore."""
    from datops_assets.backup.encryption import new_key

    made = new_key()
    if as_json:
        say_json({"key": made})
    else:
        typer.echo(made)


def _list_at(document: BackupDocument, at: str, as_json: bool) -> None:
    """What a destination has; asks no catalogue, for the day it is lost."""
    from datops_assets.backup.verify import list_at
    from datops_assets.config.settings import read_settings

    if at not in document.destinations:
        raise DeclarationError(
            [
                f"{document.backup} has no destination {at!r}, expected one of: {', '.join(document.destinations)}"
            ]
        )
    destination = next(one for one in document.open_destinations(read_settings()) if one.name == at)
    found, problems = list_at(destination, document.backup)
    rows = [
        {
            "backup_id": one.backup_id, "kind": one.kind, "database": one.database, "snapshot_at": one.snapshot_at,
            "seconds": one.seconds, "stored_bytes": one.stored_bytes, "parent": one.parent, "key_id": one.key_id,
        }
        for one in found
    ]  # fmt: skip
    for problem in problems:
        typer.echo(f"datops: {problem}", err=True)
    columns = ["backup_id", "kind", "snapshot_at", "seconds", "stored_bytes", "database"]
    say_rows(rows, columns, as_json, f"nothing stands at {destination.shown}")
    if problems:
        raise typer.Exit(1)


def _row(entry: BackupEntry) -> dict[str, Any]:
    return dataclasses.asdict(entry) | {"seconds": entry.seconds, "good": entry.is_good}


def _document(name: str | None, config: Path | None) -> BackupDocument:
    """The document that a call means.

    raises    DeclarationError: there is no such one, or it is wrong
    """
    from datops_assets.components.declarations import BACKUPS
    from datops_assets.config.settings import read_settings

    return BACKUPS.read_one(read_settings().project_root, name, config).document
