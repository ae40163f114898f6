"""The documents of the project: which there are, and what is wrong with them, all in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from datops_assets.components.backups.document import BACKUP_TYPE, read_backup
from datops_assets.components.databases.document import (
    TEAM_DATABASE_TYPE,
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

DocumentT = TypeVar("DocumentT")


@dataclass(frozen=True)
class Declared:
    """Every document that could be read, and every problem found on the way."""

    documents: list[LoadedDocument]
    problems: list[str]
    streams: Sequence[LoadedStream] = ()
    """Those that the documents were held against."""

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


def read_declared(
    project_root: Path, paths: Sequence[Path] = (), streams: Sequence[LoadedStream] | None = None
) -> Declared:
    """Read the documents at `paths`: files or folders; by default all of the code location.

    In a folder the documents are those that a `defs.yaml` of type Pipeline names.

    streams   to hold the documents against; None: where all of the code location is read, its own. What is wrong with
              one of those by itself is said by whoever asks for streams
    """
    if streams is None:
        streams = () if paths else STREAMS.read_all(project_root)[0]
    documents: list[LoadedDocument] = []
    problems: list[str] = []
    for file in _files(paths or [defs_folder()], problems, required=bool(paths)):
        try:
            documents += read_documents(file, project_root)
        except DeclarationError as error:
            problems += error.problems
    problems += check_together(documents, streams)
    return Declared(documents, problems, streams)


@dataclass(frozen=True)
class Kind(Generic[DocumentT]):
    """One kind of document beside pipelines: how it is told, found, read and called."""

    noun: str
    key: str
    """The key at the top that only this kind has; it holds the document's name."""
    type: str
    """What a `defs.yaml` says of it."""
    file: str
    """The document's name beside that `defs.yaml`, where it says none."""
    read: Callable[[Path, Path], DocumentT]
    """Reads a file of a project; raises DeclarationError."""
    name_of: Callable[[DocumentT], str]
    together: Callable[[list[DocumentT]], list[str]]
    """What is wrong between several of them."""

    def is_meant_by(self, path: Path) -> bool:
        """Whether a file looks like one; what cannot be read is for the reader of pipelines to say."""
        with suppress(DeclarationError):
            values = read_yaml(path).values if path.is_file() else None
            return isinstance(values, dict) and self.key in values
        return False

    def read_all(self, project_root: Path, paths: Sequence[Path] = ()) -> tuple[list[DocumentT], list[str]]:
        """Read the documents at `paths`, files or folders, and say what is wrong with them.

        By default all of the code location; in a folder those that a `defs.yaml` of this type names.
        """
        found: list[DocumentT] = []
        problems: list[str] = []
        for file in _files(paths or [defs_folder()], problems, self.type, self.file):
            try:
                found.append(self.read(file, project_root))
            except DeclarationError as error:
                problems += error.problems
        return found, problems + self.together(found)

    def read_one(self, project_root: Path, name: str | None, config: Path | None) -> DocumentT:
        """Read the one that a call means: by its name in the project, or by its file.

        raises    DeclarationError: there is no such one, there are several, or a document is wrong
        """
        known, problems = self.read_all(project_root, [config] if config else [])
        if problems:
            raise DeclarationError(problems)
        found = [one for one in known if name in (None, self.name_of(one))]
        if len(found) == 1:
            return found[0]
        if not known:
            raise DeclarationError([f"the project declares no {self.noun}, expected --config FILE"])
        names = ", ".join(map(self.name_of, known))
        said = f"there is no {self.noun} {name!r}" if name else f"which {self.noun}?"
        raise DeclarationError([f"{said}, expected one of: {names}, or --config FILE"])


def _read_export(file: Path, project_root: Path) -> ExportDocument:
    shown = str(file.relative_to(project_root)) if file.is_relative_to(project_root) else str(file)
    return read_export(file, shown)


def _nothing(_: Sequence[object]) -> list[str]:
    return []


STREAMS = Kind(
    "stream", "stream", STREAM_TYPE, "stream.yaml", read_stream, lambda one: one.document.stream, _nothing
)
TEAM_DATABASES = Kind(
    "database", "database", TEAM_DATABASE_TYPE, "database.yaml", read_team_database,
    lambda one: one.document.name, check_names,
)  # fmt: skip
BACKUPS = Kind(
    "backup", "backup", BACKUP_TYPE, "backup.yaml", read_backup, lambda one: one.document.backup, _nothing
)
EXPORTS = Kind("export", "export", EXPORT_TYPE, "export.yaml", _read_export, lambda one: one.export, _nothing)


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
