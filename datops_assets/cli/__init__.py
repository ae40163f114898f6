"""The `datops` command. Exit codes: 0 done; 1 ran and failed, or a blocking check failed; 2 the
declaration or the call is wrong; 130 ended by Ctrl-C."""

# Nothing heavy is imported here: a Ctrl-C that comes before main() shows a traceback.
from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # not from typing: its import is the longest of all here
if TYPE_CHECKING:
    import typer

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells give it."""


def _app() -> typer.Typer:
    import typer

    from datops_assets.cli import (
        backup,
        cdc,
        connector,
        contract,
        database,
        demo,
        doctor,
        export,
        generate,
        load,
        pipeline,
        plugins,
        quarantine,
        up,
        validate,
        warehouse,
    )
    from datops_assets.cli.group import SentenceGroup

    app = typer.Typer(
        cls=SentenceGroup,
        name="datops",
        help="A folder of YAML becomes a running data platform on Dagster and PostgreSQL.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command("demo")(demo.demo)
    app.command("up")(up.up)
    app.command("validate")(validate.validate)
    app.command("doctor")(doctor.doctor)
    app.add_typer(pipeline.app, name="pipeline")
    app.add_typer(connector.app, name="connector")
    app.add_typer(plugins.app, name="plugins")
    app.add_typer(export.app, name="export")
    app.add_typer(load.app, name="load")
    app.add_typer(quarantine.app, name="quarantine")
    app.add_typer(contract.app, name="contract")
    app.add_typer(cdc.app, name="cdc")
    app.add_typer(backup.app, name="backup")
    app.add_typer(database.app, name="database")
    app.add_typer(generate.app, name="generate")
    app.add_typer(warehouse.app, name="warehouse")
    app.add_typer(warehouse.db_app, name="db")
    return app


def end_at_once(*_: object) -> None:
    """Take a Ctrl-C while commands are imported and made: nobody is there yet to say it in a sentence."""
    os._exit(INTERRUPTED)


def main() -> None:
    """Entry point of the `datops` command."""
    # A shell starts background commands with SIGINT ignored; that stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
    try:
        _app()()
    except SystemExit as ending:
        if ending.code == INTERRUPTED:
            # What the interrupted run still does in its thread must not go on while Python shuts down.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise
