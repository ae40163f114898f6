"""`datops database`: databases of teams, declared and guarded."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datops_assets.cli.output import Json, say_fields, say_json, say_rows

if TYPE_CHECKING:
    from datops_assets.components.databases.document import TeamDatabaseDocument
    from datops_assets.databases import Plan, Step

app = typer.Typer(help="Databases of teams: declared, applied, guarded.", no_args_is_help=True)

DatabaseName = Annotated[
    str | None, typer.Argument(metavar="[DATABASE]", help="Name of a declared database.")
]
Config = Annotated[Path | None, typer.Option("--config", help="A document that is not part of defs/.")]
AllowDrop = Annotated[
    list[str] | None, typer.Option(help="Drop this role of ours that no document names any more.")
]
Adopt = Annotated[
    list[str] | None, typer.Option(help="Take over this role, schema or database that datops did not make.")
]


@app.command()
def plan(
    name: DatabaseName = None,
    config: Config = None,
    allow_drop: AllowDrop = None,
    adopt: Adopt = None,
    as_json: Json = False,
) -> None:
    """Show each statement that would bring the server to what the document declares; changes nothing."""
    found = _plan(name, config, allow_drop or [], adopt or [])
    own = _document(name, config)[0].own_thresholds()
    if as_json:
        say_json({**_planned(found), "thresholds": own})
        return
    _say_steps(found.steps, "nothing to do")
    _say_kept(found)
    for key, (value, usual) in own.items():
        typer.echo(f"-- the watch takes {key} {value} here, in the place of {usual}")


@app.command()
def apply(
    name: DatabaseName = None,
    config: Config = None,
    allow_drop: AllowDrop = None,
    adopt: Adopt = None,
    as_json: Json = False,
) -> None:
    """Bring the server to what the document declares; passwords are made and kept, never printed."""
    from datops_assets.databases import apply as apply_all

    document, root = _document(name, config)
    store = document.store(root)
    done = apply_all(
        document.connect(root), document.desired(), store, datetime.now(UTC),
        allow_drop=allow_drop or [], adopt=adopt or [],
    )  # fmt: skip
    where = {
        login: store.where(document.name, login) for login, one in document.logins.items() if not one.absent
    }
    if document.absent:
        where = {}
    if as_json:
        say_json(
            {"applied": [_shown(step) for step in done.done], "left": _planned(done.left), "secrets": where}
        )
    else:
        _say_steps(done.done, "nothing to do")
        _say_kept(done.left)
        if where:
            say_fields({f"password of {login}": place for login, place in where.items()})
    if done.left.steps:
        if not as_json:
            typer.echo("somebody changed it meanwhile; still to do:", err=True)
            _say_steps(done.left.steps, "")
        raise typer.Exit(1)


@app.command()
def drift(name: DatabaseName = None, config: Config = None, as_json: Json = False) -> None:
    """Say whether the server has what the document declares; exit code 1 where it has not."""
    found = _plan(name, config, [], [])
    if as_json:
        say_json({"drifted": bool(found.steps), **_planned(found)})
    else:
        _say_steps(found.steps, "no drift")
        _say_kept(found)
    if found.steps:
        raise typer.Exit(1)


@app.command()
def rotate(
    name: DatabaseName = None,
    login: Annotated[str, typer.Option(help="The login.")] = ...,  # type: ignore[assignment]
    config: Config = None,
    grace_h: Annotated[float, typer.Option(help="Hours that the password before stays good.")] = 24,
    hurry: Annotated[
        bool, typer.Option("--hurry", help="Also where the last rotation's grace is not over.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Give a login its next password without downtime: its two roles take turns."""
    from datops_assets.databases import rotate as rotate_one

    document, root = _document(name, config)
    store = document.store(root)
    grace = timedelta(hours=grace_h)
    secret = rotate_one(
        document.connect(root), document.desired(), store, login, datetime.now(UTC), grace, hurry=hurry
    )
    fields = {
        "user": secret.user,
        "password": store.where(document.name, login),
        "before": secret.previous_until,
    }
    if as_json:
        say_json(fields)
    else:
        say_fields({**fields, "before": f"good until {secret.previous_until}"})


def _plan(name: str | None, config: Path | None, allow_drop: list[str], adopt: list[str]) -> Plan:
    from datops_assets.databases import read_plan

    document, root = _document(name, config)
    connect, store = document.connect(root), document.store(root)
    return read_plan(connect, document.desired(), store, allow_drop=allow_drop, adopt=adopt)


def _planned(found: Plan) -> dict[str, Any]:
    return {
        "steps": [_shown(step) for step in found.steps], "kept": list(found.kept), "cannot": list(found.cannot),
    }  # fmt: skip


def _shown(step: Step) -> dict[str, Any]:
    return {"statement": step.statement, "why": step.why, "drops": step.drops}


def _say_steps(steps: tuple[Step, ...], nothing: str) -> None:
    for step in steps:
        typer.echo(f"{step.statement};  -- {step.why}")
    if not steps:
        typer.echo(nothing)


def _say_kept(found: Plan) -> None:
    for line in (*found.kept, *found.cannot):
        typer.echo(f"-- {line}")


def _document(name: str | None, config: Path | None) -> tuple[TeamDatabaseDocument, Path]:
    """The database that a call means, and the project's root.

    raises    DeclarationError: there is no such database, or its document is wrong
    """
    from datops_assets.components.declarations import TEAM_DATABASES
    from datops_assets.config.settings import read_settings

    root = read_settings().project_root
    return TEAM_DATABASES.read_one(root, name, config).document, root


@app.command()
def watch(
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    interval_s: Annotated[float, typer.Option(min=1, help="Seconds between two looks.")] = 10,
    as_json: Json = False,
) -> None:
    """Hold the declared limits and look for trouble on every server that a document names; Ctrl-C ends it."""
    import time

    from datops_assets.components.databases.watching import look_at_all

    while True:
        for server, seen in look_at_all().items():
            facts = {
                "server": server,
                "interventions": [
                    {
                        "role": one.session.role,
                        "pid": one.session.pid,
                        "action": one.action,
                        "reason": one.reason,
                    }
                    for one in seen.interventions
                ],
                "new": [dataclasses.asdict(one) for one in seen.changes.new],
                "resolved": [dataclasses.asdict(one) for one in seen.changes.resolved],
                "skipped": [*seen.skipped, *seen.without],
            }
            if as_json:
                say_json(facts)
                continue
            for one in seen.interventions:
                typer.echo(f"{one.action}: {one.session.role} ({one.session.pid}): {one.reason}")
            for finding in seen.changes.new:
                typer.echo(f"{finding.severity}: {finding.kind}: {finding.summary}")
            for finding in seen.changes.resolved:
                typer.echo(f"resolved: {finding.kind}: {finding.summary}")
            for part in (*seen.skipped, *seen.without) if once else ():
                typer.echo(f"skipped: {part}")
        if once:
            return
        time.sleep(interval_s)


@app.command()
def findings(
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    as_json: Json = False,
) -> None:
    """List what the watch has found and is not over."""
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.databases import KINDS

    columns = [
        "finding_id", "severity", "kind", "subject", "team", "first_seen", "last_seen", "resolved_at", "summary",
    ]  # fmt: skip
    with open_catalogue() as catalogue:
        found = catalogue.conn.execute(
            "select finding_id, severity, kind, subject, team, first_seen, last_seen, resolved_at, summary"
            " from datops.findings where %s or resolved_at is null order by finding_id desc limit 200",
            (everything,),
        ).fetchall()
    rows = [
        {**dict(zip(columns, row, strict=True)), "next": KINDS[row[2]].next_step if row[2] in KINDS else ""}
        for row in found
    ]
    say_rows(rows, [*columns, "next"], as_json, "nothing was found")


@app.command("lint")
def lint_database(name: DatabaseName = None, config: Config = None, as_json: Json = False) -> None:
    """Look for weak points in a team's database; exit code 1 where there are any."""
    from contextlib import closing

    from datops_assets.databases import lint

    document, root = _document(name, config)
    desired = document.desired()
    with closing(document.connect(root)(desired.database)) as conn:
        found = lint(conn, desired.schemas)
    say_rows(
        [dataclasses.asdict(one) for one in found],
        ["name", "where", "why"],
        as_json,
        "no weak point was found",
    )
    if found:
        raise typer.Exit(1)
