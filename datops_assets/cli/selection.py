"""What a command is asked to work on: a pipeline of the project, or a document by path; one table of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datops_assets.errors import DeclarationError, TerminalError

if TYPE_CHECKING:
    from datops_assets.components.document import PipelineDocument
    from datops_assets.components.documents import LoadedDocument
    from datops_assets.components.streams.document import StreamDocument
    from datops_assets.config.settings import Settings

Config = Annotated[
    Path | None, typer.Option("--config", help="A document that is not part of defs/; it is not added to it.")
]
PipelineName = Annotated[str | None, typer.Argument(help="Name of a pipeline: see `datops pipeline list`.")]
TableName = Annotated[str, typer.Argument(metavar="PIPELINE.TABLE", help="A table, e.g. shop.orders.")]


def documents(settings: Settings, name: str | None, config: Path | None) -> list[PipelineDocument]:
    """The documents that NAME or --config means; all of the project where both are missing.

    raises    DeclarationError: a document is wrong, or there is none of that name
    """
    return [loaded.document for loaded in loaded_documents(settings, name, config)]


def loaded_documents(settings: Settings, name: str | None, config: Path | None) -> list[LoadedDocument]:
    """As `documents`, with the files that they come from."""
    from datops_assets.components.declarations import read_aside, read_declared

    root = settings.project_root
    declared = read_aside(root, config) if config else read_declared(root)
    if declared.problems and (config or name is None):
        raise DeclarationError(declared.problems)
    if name is not None:
        return [declared.pipeline(name)]
    if config is not None and not declared.documents:
        raise DeclarationError([f"{config}: declares no pipeline, expected a document or a folder with some"])
    return declared.documents


def require_folder(settings: Settings, loaded: LoadedDocument) -> None:
    """Refuse to run a document whose files cannot be there.

    raises    TerminalError: its folder does not exist
    """
    from datops_assets.components.sources.files import missing_folder

    missing = missing_folder(loaded.document, settings.project_root)
    if missing is not None:
        where = ["source_systems"] if loaded.bare else ["source", "path"]
        raise TerminalError(f"{loaded.source.file}:{loaded.source.line(where)}: {missing}")


def table_of(settings: Settings, table: str, config: Path | None) -> tuple[PipelineDocument, str]:
    """The document and the name of the table that `PIPELINE.TABLE` means.

    raises    DeclarationError: there is no such table
    """
    source, dot, name = table.partition(".")
    if not dot:
        raise DeclarationError([f"{table!r} is not a table, expected PIPELINE.TABLE such as shop.orders"])
    document = documents(settings, source, config)[0]
    if name not in document.tables:
        known = ", ".join(f"{source}.{other}" for other in document.tables)
        raise DeclarationError([f"there is no table {table!r}, expected one of: {known}"])
    return document, name


def stream_of(table: str, config: Path | None) -> StreamDocument | None:
    """The stream that a table is of; None where it is no stream's."""
    from datops_assets.components.declarations import STREAMS
    from datops_assets.config.settings import read_settings

    if config is not None and not STREAMS.is_meant_by(config):
        return None
    known, _ = STREAMS.read_all(read_settings().project_root, [config] if config else [])
    source, _, name = table.partition(".")
    return next(
        (one.document for one in known if one.document.stream == source and name in one.document.tables), None
    )
