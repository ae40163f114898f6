"""`datops contract`: trying contracts out, and taking the columns that a frozen table refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datops_assets.cli.output import Json, say_json, say_rows, say_table
from datops_assets.cli.selection import Config, TableName, stream_of, table_of
from datops_assets.errors import DeclarationError, TerminalError

if TYPE_CHECKING:
    from datops_assets.components.document import TableDocument

app = typer.Typer(help="Contracts: what silver demands of a table.", no_args_is_help=True)


@app.callback()
def contract() -> None:
    """Contracts: what silver demands of a table."""


@app.command()
def test(
    table: TableName,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Sample files; default: the newest file of the table.")
    ] = None,
    config: Config = None,
    rows: Annotated[int, typer.Option(min=1, help="At most this many records of each file.")] = 10_000,
    as_json: Json = False,
) -> None:
    """Run the unit tests of a contract (`tests:`), or judge sample files by its row rules; no warehouse is needed.

    Where the table has tests and no files are named, only the tests run. Exit 1 when a test or a record fails.
    """
    from datops_assets.components.samples import judge_samples
    from datops_assets.config.settings import read_settings

    settings = read_settings()
    document, name = table_of(settings, table, config)
    if document.tables[name].contract is None:
        raise DeclarationError([f"{table} has no contract to test; add `contract:` and validate"])
    if document.tables[name].tests and not files:
        _say_tests(table, document.tables[name], as_json)
        return
    verdict = judge_samples(document, name, settings.project_root, files or [], rows)
    if as_json:
        say_json(verdict.as_dict())
    else:
        warned = f", {verdict.warned} pass with a warning" if verdict.warned else ""
        typer.echo(
            f"{table}: {verdict.records} record(s) of {len(verdict.files)} file(s), {verdict.failing} fail{warned}"
        )
        if verdict.reasons:
            say_table(
                [{"reason": reason, "records": count} for reason, count in verdict.reasons],
                ["reason", "records"],
            )
        for sentence in verdict.not_delivered:
            typer.echo(sentence)
        for sentence in verdict.not_judged:
            typer.echo(f"not judged here: {sentence}")
    if verdict.failing:
        raise typer.Exit(1)


def _say_tests(label: str, table: TableDocument, as_json: bool) -> None:
    """Run a table's tests and say how they went. Exit 1 when one does not hold."""
    from datops_assets.quality import run_contract_tests

    assert table.contract is not None
    results = run_contract_tests(table.contract, table.tests, table.rename)
    failed = [result for result in results if not result.holds]
    if as_json:
        tests = [
            {"name": result.name, "holds": result.holds, "problems": result.problems} for result in results
        ]
        say_json({"table": label, "tests": tests})
    else:
        typer.echo(f"{label}: {len(results) - len(failed)} of {len(results)} test(s) hold")
        for result in failed:
            for problem in result.problems:
                typer.echo(f"{result.name}: {problem}")
    if failed:
        raise typer.Exit(1)


@app.command()
def suggest(
    table: TableName,
    config: Config = None,
    rows: Annotated[int, typer.Option(min=1, help="At most about this many rows are looked at.")] = 100_000,
    as_json: Json = False,
) -> None:
    """Write a contract that what is loaded passes: types, keys, sets, patterns, each with its evidence."""
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.config.settings import read_settings
    from datops_assets.quality.suggest import suggest_contract

    document, name = table_of(read_settings(), table, config)
    with open_catalogue() as catalogue:
        found = suggest_contract(
            catalogue.conn, document.pipeline, name, rename=document.tables[name].rename, rows=rows
        )
    if found is None:
        raise TerminalError(
            f"{table}: nothing is loaded yet, so there is nothing to look at; run the pipeline first"
        )
    if as_json:
        say_json({"table": table, **found.as_dict()})
    else:
        typer.echo(found.as_yaml())


@app.command()
def diff(
    table: TableName,
    config: Config = None,
    judge: Annotated[
        bool, typer.Option("--judge/--no-judge", help="Also judge what is loaded, keeping nothing of it.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Hold the declared contract against the one silver was judged by, and against what is delivered now."""
    import dataclasses

    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.config.settings import read_settings
    from datops_assets.quality.contract_diff import diff_contract
    from datops_assets.quality.judged import Subject

    document, name = table_of(read_settings(), table, config)
    spec = document.tables[name]
    if spec.contract is None:
        raise DeclarationError([f"{table} has no contract to compare; see: datops contract suggest {table}"])
    subject = Subject(document.pipeline, name, spec.contract, spec.rename, spec.disposition)
    with open_catalogue() as catalogue:
        found = diff_contract(catalogue.conn, subject, judge=judge)
    if as_json:
        say_json({**dataclasses.asdict(found), "newly_failing": found.newly_failing})
        return
    for rows, nothing, head in (
        (found.judged_by, "silver was judged by this contract, or not yet", "judged_by"),
        (found.delivered, "the deliveries have the contract's columns, and no others", "delivered"),
    ):
        named = [{"what": row.what, "declared": row.declared, head: row.found} for row in rows]
        say_rows(named, ["what", "declared", head], False, nothing)
    if found.dry is not None:
        typer.echo(f"{found.dry.failing} of {found.dry.rows} row(s) would be set aside")
        say_rows(
            [{"reason": reason, "more_rows": rows} for reason, rows in found.newly_failing.items()],
            ["reason", "more_rows"],
            False,
            "no row would newly fail",
        )
        for sentence in found.dry.not_judged:
            typer.echo(f"not judged: {sentence}")


@app.command()
def accept(table: TableName, config: Config = None, as_json: Json = False) -> None:
    """Take the columns that `schema: freeze` refused as the table's own; the next run loads what waits."""
    from datops_assets import ingestion
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.config.settings import read_settings

    stream = stream_of(table, config)
    if stream is not None:
        _accept_mirrored(stream.stream, table, as_json)
        return
    document, name = table_of(read_settings(), table, config)
    with open_catalogue() as catalogue:
        taken = ingestion.accept_columns(catalogue.conn, document.pipeline, name)
    if as_json:
        say_json(
            [{"path": load.path, "load_id": load.load_id, "accepted": load.differences} for load in taken]
        )
    elif not taken:
        typer.echo(f"{table}: nothing waits because of its columns")
    else:
        for load in taken:
            typer.echo(f"{load.path}: {ingestion.said_difference(load.differences or {})}")
        run = f"datops pipeline run {'--config FILE' if config else document.pipeline}"
        typer.echo(f"accepted; {len(taken)} load(s) come in with the next run: {run}")


def _accept_mirrored(stream: str, table: str, as_json: bool) -> None:
    """The same for a table of a stream, whose mirror waits."""
    from datops_assets import ingestion
    from datops_assets.cdc.schema import accept_table
    from datops_assets.components.catalogue import open_catalogue

    with open_catalogue() as catalogue:
        taken = accept_table(catalogue.conn, stream, table.partition(".")[2])
    if as_json:
        say_json({"table": table, "accepted": taken})
    elif taken is None:
        typer.echo(f"{table}: nothing waits because of its columns")
    else:
        typer.echo(f"{table}: {ingestion.said_difference(dict(taken))}")
        typer.echo(f"accepted; the next drain copies it anew: datops cdc drain {stream}")
