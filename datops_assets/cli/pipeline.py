"""`datops pipeline`: list, create, plan, run, status, rebuild, drift, sql."""

from __future__ import annotations

import dataclasses
import enum
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datops_assets.cli.output import Json, say_json, say_rows, say_table
from datops_assets.cli.progress import steps_shown
from datops_assets.cli.selection import (
    Config,
    PipelineName,
    TableName,
    documents,
    loaded_documents,
    require_folder,
    table_of,
)
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    from datops_assets.components.document import PipelineDocument
    from datops_assets.components.runner import PipelineRun


class Engine(enum.StrEnum):
    """Whose SQL a statement is written in."""

    POSTGRES = "postgres"
    SPARK = "spark"


app = typer.Typer(help="Pipelines: what is declared, what a run would do, run it.", no_args_is_help=True)


@app.command("list")
def list_pipelines(config: Config = None, as_json: Json = False) -> None:
    """Show the pipelines of the project."""
    from datops_assets.config.settings import read_settings

    rows = [
        {
            "pipeline": document.pipeline,
            "team": document.team,
            "tables": len(document.tables),
            "with_contract": sum(table.contract is not None for table in document.tables.values()),
            "source": document.source.shown,
            "schedule": document.schedule,
        }
        for document in documents(read_settings(), None, config)
    ]
    say_rows(
        rows,
        list(rows[0]) if rows else [],
        as_json,
        "no pipeline is declared; copy datops_assets/defs/sources/shop",
    )


@app.command()
def create(
    config: Annotated[
        Path | None, typer.Option("--config", help="A document to check and to add to the project.")
    ] = None,
    from_url: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="A database to make a document of; no password."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the pipeline; default: the database's.")] = None,
    password_env: Annotated[
        str | None, typer.Option(help="Variable that holds the database's password.")
    ] = None,
    schema: Annotated[str | None, typer.Option(help="Only tables of this schema.")] = None,
    include: Annotated[str | None, typer.Option(help="Only tables like this: `sales.*`, `order*`.")] = None,
    team: Annotated[str, typer.Option(help="Who answers for it.")] = "unassigned",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; default: datops_assets/defs/sources/NAME.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a document to the project, or make one of a database's tables. Overwrites nothing."""
    from datops_assets.components import scaffold
    from datops_assets.config.settings import read_settings

    if (config is None) == (from_url is None):
        raise DeclarationError(["expected one of --config FILE and --from URL"])
    settings = read_settings()
    if from_url is not None:
        pipeline, document = scaffold.from_database(
            from_url, settings.project_root, name=name, password_env=password_env, schema=schema,
            include=include, team=team,
        )  # fmt: skip
    else:
        (loaded,) = loaded_documents(settings, None, config)
        assert config is not None
        pipeline, document = loaded.document.pipeline, config.read_text(encoding="utf-8")
    folder = out or settings.project_root / "datops_assets" / "defs" / "sources" / pipeline
    written = [str(path) for path in scaffold.write(folder, document)]
    if as_json:
        say_json({"pipeline": pipeline, "written": written})
        return
    for path in written:
        typer.echo(f"wrote {path}")
    typer.echo(f"next: datops validate, then datops pipeline run --config {folder / scaffold.FILE}")


@app.command()
def plan(name: PipelineName = None, config: Config = None, as_json: Json = False) -> None:
    """Show what a run would load and judge, and why; writes nothing."""
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.components.plans import plan_pipeline
    from datops_assets.config.settings import read_settings

    settings = read_settings()
    chosen = documents(settings, name, config)
    with open_catalogue() as catalogue:
        rows = [row for document in chosen for row in plan_pipeline(catalogue, document)]
    say_rows(rows, ["table", "step", "what", "count", "why"], as_json, "nothing to do")


@app.command()
def run(
    name: PipelineName = None,
    config: Config = None,
    table: Annotated[
        list[str] | None, typer.Option("--table", help="Only this table; may be repeated.")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Only this day, e.g. 2026-01-31.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Try out the first N rows of each file; needs --into.")
    ] = None,
    into: Annotated[
        str | None, typer.Option(help="Schema for the try-out; bronze and silver stay as they are.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Load what is new and judge it. Exit 1 when a file was refused, a step failed or a check blocked."""
    from datops_assets.config.settings import read_settings

    if (sample is None) != (into is None):
        raise DeclarationError(["--sample and --into belong together, e.g. --sample 100 --into try_out"])
    if sample is not None and partition is not None:
        raise DeclarationError(
            ["--partition does not go with --sample: a try-out takes the first rows of every file"]
        )
    settings = read_settings()
    if name is None and config is None:
        raise DeclarationError(["which pipeline? expected a name (datops pipeline list) or --config FILE"])
    chosen = loaded_documents(settings, name, config)
    for loaded in chosen:
        require_folder(settings, loaded)
    runs = [
        _run_one(loaded.document, settings.project_root, table or [], partition, sample, into, as_json)
        for loaded in chosen
    ]
    if as_json:
        shown = [dataclasses.asdict(one) for one in runs]
        say_json(shown[0] if len(shown) == 1 else {"runs": shown})
    if not all(one.success for one in runs):
        raise typer.Exit(1)


def _run_one(
    document: PipelineDocument,
    root: Path,
    tables: list[str],
    partition: str | None,
    sample: int | None,
    into: str | None,
    as_json: bool,
) -> PipelineRun:
    from datops_assets.components.runner import run_pipeline

    started = time.monotonic()
    with steps_shown(document.pipeline, _count_steps(document, tables), as_json=as_json) as on_step:
        if sample is not None and into is not None:
            from datops_assets.components.try_out import try_out

            result = try_out(document, root, tables=tables, rows=sample, schema=into, on_step=on_step)
        else:
            result = run_pipeline(document, root, tables=tables, partition=partition, on_step=on_step)
    result = dataclasses.replace(result, seconds=round(time.monotonic() - started, 3))
    if not as_json:
        say_run(result)
        if sample is None:
            _say_suggestions(document, result)
    return result


def _say_suggestions(document: PipelineDocument, result: PipelineRun) -> None:
    """For each table that was loaded but has no contract: a first one to paste."""
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.quality.suggest import suggest_contract

    bare = [
        table.table
        for table in result.tables
        if table.rows_added and document.tables[table.table].contract is None
    ]
    if not bare:
        return
    with open_catalogue() as catalogue:
        for name in bare:
            suggestion = suggest_contract(catalogue.conn, document.pipeline, name)
            if suggestion is not None:
                typer.echo(
                    f"\n{document.pipeline}.{name} has no contract, so it has no silver. "
                    f"{suggestion.rows} row(s) would pass this one:"
                )
                typer.echo(textwrap.indent(suggestion.as_yaml(), "    "))


def _count_steps(document: PipelineDocument, tables: list[str]) -> int:
    """A load a table, a judgement where there is a contract, and the check of all files."""
    chosen = [table for name, table in document.tables.items() if not tables or name in tables]
    from datops_assets.components.transform_statements import downstream

    made = downstream(document, tables or document.tables)
    return len(chosen) + sum(table.contract is not None for table in chosen) + 1 + len(made)


def say_run(result: PipelineRun) -> None:
    """Print what a run did: a line a table, then what went wrong."""
    rows: list[dict[str, Any]] = [dataclasses.asdict(table) for table in result.tables]
    say_table(
        rows,
        [
            "table",
            "files_loaded",
            "rows_added",
            "damaged_records",
            "rows_judged",
            "rows_passed",
            "rows_quarantined",
            "score",
        ],
    )
    for table in result.tables:
        for check in table.failed_checks:
            verdict = "warned" if check["severity"] == "warn" else "failed"
            typer.echo(
                f"{verdict}: {result.pipeline}.{table.table}: {check['check']}: "
                f"{check['rows_failed']} of {check['rows_judged']} rows"
            )
    for made in result.transforms:
        typer.echo(f"built: {result.pipeline}.{made.table}: {made.rows} rows in {made.seconds:.1f} s")
    for note in result.notes:
        typer.echo(note)
    for problem in result.problems:
        typer.echo(f"failed: {problem}", err=True)
    state = "done" if result.success else "failed"
    typer.echo(f"{result.pipeline}: {state} in {result.seconds:.1f} s (run {result.run_id})")


@app.command()
def status(name: PipelineName = None, config: Config = None, as_json: Json = False) -> None:
    """Show every table's last load and judgement, its quarantine and its score."""
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.components.plans import pipeline_status
    from datops_assets.config.settings import read_settings

    chosen = documents(read_settings(), name, config)
    with open_catalogue() as catalogue:
        rows = [row for document in chosen for row in pipeline_status(catalogue, document)]
    columns = [
        "table",
        "state",
        "last_load",
        "bronze_rows",
        "silver_rows",
        "quarantined",
        "score",
        "refused_files",
    ]
    say_rows(rows, columns, as_json, "no pipeline is declared")
    if not as_json:
        scores = {row["table"].partition(".")[0]: row["pipeline_score"] for row in rows}
        for pipeline, score in scores.items():
            if score is not None:
                typer.echo(f"{pipeline}: score {score:.2f}")


@app.command()
def rebuild(table: TableName, config: Config = None, as_json: Json = False) -> None:
    """Judge a table again from bronze and swap silver in one transaction."""
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.components.silver import judge_documented
    from datops_assets.config.settings import read_settings

    document, name = table_of(read_settings(), table, config)
    if document.tables[name].contract is None:
        raise DeclarationError(
            [f"{table} has no contract, so it has no silver; add `contract:` and validate"]
        )
    with open_catalogue() as catalogue:
        judgement = judge_documented(catalogue, document, name, rebuild=True)
    if as_json:
        say_json(dataclasses.asdict(judgement))
    else:
        typer.echo(
            f"{table}: {judgement.rows_judged} rows judged, {judgement.rows_passed} passed, "
            f"{judgement.rows_quarantined} in quarantine"
        )


@app.command()
def drift(name: PipelineName = None, config: Config = None, as_json: Json = False) -> None:
    """Show where tables differ from what is declared. Exit 1 when something does."""
    from datops_assets.components.catalogue import open_catalogue
    from datops_assets.components.plans import pipeline_drift
    from datops_assets.config.settings import read_settings

    chosen = documents(read_settings(), name, config)
    with open_catalogue() as catalogue:
        rows = [row for document in chosen for row in pipeline_drift(catalogue, document)]
    say_rows(rows, ["table", "what", "declared", "actual", "next_step"], as_json, "no drift")
    if rows:
        raise typer.Exit(1)


@app.command()
def sql(
    name: Annotated[
        str | None, typer.Argument(metavar="[PIPELINE[.NAME]]", help="A pipeline, or one transformation.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="Whose SQL.")] = Engine.POSTGRES,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Print the statements that transformations run, made from the documents alone."""
    from datops_assets.components.declarations import read_declared
    from datops_assets.components.transform_statements import declared_statement, transform_order
    from datops_assets.config.settings import read_settings

    settings = read_settings()
    pipeline, _, wanted = (name or "").partition(".")
    chosen = documents(settings, pipeline or None, config)
    declared = [loaded.document for loaded in read_declared(settings.project_root).documents]
    known = {document.pipeline: document for document in (*declared, *chosen)}
    rows = [
        {
            "transform": f"{document.pipeline}.{made}",
            "engine": engine.value,
            "sql": declared_statement(document, made, known, engine.value).text(pretty=True),
        }
        for document in chosen
        for made in transform_order(document)
        if wanted in ("", made)
    ]
    if wanted and not rows:
        names = ", ".join(f"{pipeline}.{made}" for made in chosen[0].transforms) or "none is declared"
        raise DeclarationError([f"there is no transformation {name!r}, expected one of: {names}"])
    if as_json:
        say_json(rows)
    elif not rows:
        typer.echo("no transformation is declared; docs/transformations.md shows how")
    for row in rows if not as_json else ():
        typer.echo(f"-- {row['transform']}\n{row['sql']};\n")
