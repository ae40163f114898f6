"""The documents of the project: which there are, and what is wrong with them, all in one go."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datops_assets.components.backups.document import BACKUP_TYPE, LoadedBackup, read_backup
from datops_assets.components.databases.document import (
    TEAM_DATABASE_TYPE,
    LoadedTeamDatabase,
    check_names,
    read_team_database,
)
from datops_assets.components.documents import (
    LoadedDocument,
    check_beside,
    check_together,
    read_documents,
)
from datops_assets.components.export_document import ExportDocument, read_export
from datops_assets.components.streams.document import STREAM_TYPE, LoadedStream, read_stream
from datops_assets.components.yaml_source import read_yaml
from datops_assets.errors import DeclarationError

PIPELINE_TYPE = "datops_assets.components.Pipeline"
EXPORT_TYPE = "datops_assets.components.Export"


@dataclass(frozen=True)
class Declared:
    """Every document that could be read, and every problem found on the way."""

    documents: list[LoadedDocument]
    problems: list[str]

    def pipeline(self, name: str) -> LoadedDocument:
        """The document of one source system.

        raises    DeclarationError: there is none of that name, or it is wrong
        """
        for loaded in self.documents:
            if loaded.document.pipeline == name:
                return loaded
        if self.problems:
            raise DeclarationError(self.problems)
        known = ", ".join(sorted(loaded.document.pipeline for loaded in self.documents)) or "none"
        raise DeclarationError(
            [f"there is no pipeline {name!r}, expected one of: {known} (see `datops pipeline list`)"]
        )


def defs_folder() -> Path:
    """The folder of the code location's instances."""
    return Path(__file__).parent.parent / "defs"


def read_declared(project_root: Path, paths: Sequence[Path] = ()) -> Declared:
    """Read the documents at `paths`: files or folders; by default all of the code location.

    In a folder the documents are those that a `defs.yaml` of type Pipeline names.
    """
    documents: list[LoadedDocument] = []
    problems: list[str] = []
    for file in _files(paths or [defs_folder()], problems, required=bool(paths)):
        try:
            documents += read_documents(file, project_root)
        except DeclarationError as error:
            problems += error.problems
    problems += check_together(documents)
    return Declared(documents, problems)


def read_streams(project_root: Path, paths: Sequence[Path] = ()) -> tuple[list[LoadedStream], list[str]]:
    """Read the stream documents at `paths`, files or folders, and say what is wrong with them.

    By default all of the code location; in a folder those that a `defs.yaml` of type ChangeStream names.
    """
    streams: list[LoadedStream] = []
    problems: list[str] = []
    for file in _files(paths or [defs_folder()], problems, STREAM_TYPE, "stream.yaml"):
        try:
            streams.append(read_stream(file, project_root))
        except DeclarationError as error:
            problems += error.problems
    return streams, problems


def read_team_databases(
    project_root: Path, paths: Sequence[Path] = ()
) -> tuple[list[LoadedTeamDatabase], list[str]]:
    """Read the documents of team databases at `paths`, files or folders, and say what is wrong with them.

    By default all of the code location; in a folder those that a `defs.yaml` of type TeamDatabase names.
    """
    databases: list[LoadedTeamDatabase] = []
    problems: list[str] = []
    for file in _files(paths or [defs_folder()], problems, TEAM_DATABASE_TYPE, "database.yaml"):
        try:
            databases.append(read_team_database(file, project_root))
        except DeclarationError as error:
            problems += error.problems
    return databases, problems + check_names(databases)


def is_team_database(path: Path) -> bool:
    """Whether a file looks like the document of a team's database; as `is_stream`."""
    with suppress(DeclarationError):
        values = read_yaml(path).values
        return isinstance(values, dict) and "database" in values
    return False


def read_exports(project_root: Path, paths: Sequence[Path] = ()) -> tuple[list[ExportDocument], list[str]]:
    """Read the export documents at `paths`, files or folders, and say what is wrong with them."""
    exports: list[ExportDocument] = []
    problems: list[str] = []
    for file in _files(paths or [defs_folder()], problems, EXPORT_TYPE, "export.yaml"):
        shown = str(file.relative_to(project_root)) if file.is_relative_to(project_root) else str(file)
        try:
            exports.append(read_export(file, shown))
        except DeclarationError as error:
            problems += error.problems
    return exports, problems


def is_export(path: Path) -> bool:
    """Whether a file looks like an export document; as `is_stream`."""
    with suppress(DeclarationError):
        values = read_yaml(path).values
        return isinstance(values, dict) and "export" in values
    return False


def read_backups(project_root: Path, paths: Sequence[Path] = ()) -> tuple[list[LoadedBackup], list[str]]:
    """Read the backup documents at `paths`, files or folders, and say what is wrong with them."""
    backups: list[LoadedBackup] = []
    problems: list[str] = []
    for file in _files(paths or [defs_folder()], problems, BACKUP_TYPE, "backup.yaml"):
        try:
            backups.append(read_backup(file, project_root))
        except DeclarationError as error:
            problems += error.problems
    return backups, problems


def is_backup(path: Path) -> bool:
    """Whether a file looks like a backup document."""
    with suppress(DeclarationError):
        values = read_yaml(path).values
        return isinstance(values, dict) and "backup" in values
    return False


def is_stream(path: Path) -> bool:
    """Whether a file looks like a stream document; what cannot be read is for the reader of pipelines to say."""
    with suppress(DeclarationError):
        values = read_yaml(path).values
        return isinstance(values, dict) and "stream" in values
    return False


def read_aside(project_root: Path, path: Path) -> Declared:
    """Read a document that is not part of the project, and hold its names against the project's.

    The tables of both are in the same warehouse, so a name that the project declares is refused;
    not when `path` is the very file that declares it.
    """
    aside = read_declared(project_root, [path])
    return Declared(
        aside.documents, aside.problems + check_aside(project_root, aside.documents, _files([path], []))
    )


def check_aside(
    project_root: Path, documents: Sequence[LoadedDocument], files: Sequence[Path] = ()
) -> list[str]:
    """What of documents that are not part of the project collides with it.

    files     where they come from, so that the project's own is not held against itself
    """
    own = {file.resolve() for file in files}
    declared: list[LoadedDocument] = []
    for file in _files([defs_folder()], []):
        if file.resolve() not in own:
            with suppress(DeclarationError):  # said by whoever asks for the project
                declared += read_documents(file, project_root)
    return check_beside(documents, declared)


def _files(
    paths: Sequence[Path],
    problems: list[str],
    type_: str = PIPELINE_TYPE,
    document: str = "pipeline.yaml",
    *,
    required: bool = False,
) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found, known = [], len(problems)
            for declaration in sorted(path.rglob("defs.yaml")):
                found += _named_by(declaration, problems, type_, document)
            if required and not found and len(problems) == known:
                problems.append(
                    f"no pipeline document below {path}, expected the path of one, "
                    f"or a defs.yaml of type {PIPELINE_TYPE}"
                )
            files += found
        else:
            files.append(path)
    return files


def _named_by(declaration: Path, problems: list[str], type_: str, document: str) -> list[Path]:
    try:
        values: Any = read_yaml(declaration).values
    except DeclarationError as error:
        problems += error.problems
        return []
    if not isinstance(values, dict) or values.get("type") != type_:
        return []
    attributes = values.get("attributes") or {}
    return [declaration.parent / str(attributes.get("document", document))]
