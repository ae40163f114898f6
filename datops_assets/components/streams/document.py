"""The stream document: one YAML file a database that is followed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from datops_assets.components.document import Part
from datops_assets.components.sources.database import DatabaseSource, address_of
from datops_assets.components.sources.templates import unset_problems
from datops_assets.components.texts import Name, Owner, TableName, Tags
from datops_assets.components.yaml_source import YamlSource, read_yaml, shown_path, validate
from datops_assets.errors import DeclarationError
from datops_assets.postgres.names import warehouse_name

if TYPE_CHECKING:
    from datops_assets.cdc import ChangeStream
    from datops_assets.components.documents import LoadedDocument

STREAM_TYPE = "datops_assets.components.ChangeStream"


class StreamSource(DatabaseSource):
    """The database that is followed; its role needs the right to replicate."""

    type: Literal["database"] = "database"


class StreamTable(Part):
    """One table that is followed."""

    table: str | None = Field(
        None, description="Its name there, `schema.name` or `name`; default: as it is called here."
    )
    silver: Literal["view"] | None = Field(None, description="`view`: silver shows the mirror as it is.")
    rename: dict[str, Name] = Field(
        default_factory=dict, description="Column there: its name in silver; default: in snake_case."
    )
    description: str | None = None
    owners: list[Owner] = Field(default_factory=list, description="E-mail addresses, or `team:name`.")
    tags: Tags = Field(default_factory=dict)


class StreamDocument(Part):
    """One database whose changes are followed."""

    stream: TableName = Field(description="Name of the source system; first part of every table's name.")
    team: str = Field(min_length=1, description="Who answers for it.")
    description: str | None = None
    owners: list[Owner] = Field(default_factory=list, description="E-mail addresses, or `team:name`.")
    source: StreamSource
    slot: str | None = Field(
        None, pattern=r"^[a-z0-9_]{1,63}$", description="Replication slot; default datops_<stream>."
    )
    publication: str | None = Field(None, min_length=1, max_length=63, description="Default datops_<stream>.")
    sensor: Literal["running", "stopped"] = Field("running", description="Whether changes start runs.")
    tables: dict[TableName, StreamTable] = Field(min_length=1)

    @field_validator("source")
    @classmethod
    def _postgres(cls, source: StreamSource) -> StreamSource:
        if not source.url.startswith(("postgresql://", "postgres://", "${")):
            raise ValueError(
                "only PostgreSQL's log can be followed, expected a URL such as postgresql://user@host/db"
            )
        return source

    @field_validator("tables")
    @classmethod
    def _logs_have_names_of_their_own(cls, tables: dict[str, StreamTable]) -> dict[str, StreamTable]:
        for name in tables:
            if f"{name}_changes" in tables:
                raise ValueError(
                    f"{name}_changes is how the log of {name} is called, expected another name for that table"
                )
        return tables

    def bronze_names(self) -> dict[str, str]:
        """What the stream writes in bronze, and the table of the document that it is of."""
        return {
            warehouse_name(self.stream, name): table
            for table in self.tables
            for name in (table, f"{table}_changes")
        }

    def change_stream(self) -> ChangeStream:
        """What the engine needs to know."""
        from datops_assets.cdc import ChangeStream, StreamedTable

        return ChangeStream(
            self.stream,
            self.slot or f"datops_{self.stream}",
            self.publication or f"datops_{self.stream}",
            tuple(StreamedTable(name, *self._where(name)) for name in self.tables),
        )

    def _where(self, name: str) -> tuple[str, str]:
        schema, dot, table = (self.tables[name].table or name).rpartition(".")
        return (schema if dot else self.source.schema_ or "public", table)

    def parameters(self, project_root: Path) -> dict[str, Any]:
        """How the source is reached, by libpq's names. Holds the password.

        raises    DeclarationError, TerminalError: a variable is not set
        """
        return {"application_name": "datops", **address_of(self.source, project_root).libpq_parameters()}


@dataclass(frozen=True)
class LoadedStream:
    """A document that is right in itself, and the file it came from."""

    document: StreamDocument
    source: YamlSource


def check_streams(streams: Iterable[LoadedStream], pipelines: Iterable[LoadedDocument]) -> list[str]:
    """What is wrong between streams, and between them and what pipelines write into bronze."""
    known = {
        warehouse_name(loaded.document.pipeline, table): loaded.source.file
        for loaded in pipelines
        for table in loaded.document.tables
    }
    problems = []
    for loaded in streams:
        for name, table in loaded.document.bronze_names().items():
            if name in known:
                problems.append(
                    loaded.source.problem(
                        ["tables", table],
                        f"bronze.{name} is also what {known[name]} writes, expected one of them to have another name",
                    )
                )
        known |= dict.fromkeys(loaded.document.bronze_names(), loaded.source.file)
    return problems


def read_stream(path: Path, project_root: Path) -> LoadedStream:
    """Read one file.

    raises    DeclarationError: every problem of the file, as `file:line: what, what was expected`
    """
    source = read_yaml(path, shown_as=shown_path(path, project_root))
    document = validate(source, StreamDocument)
    problems = unset_problems(source, ["source", "url"], document.source.url)
    if problems:
        raise DeclarationError(problems)
    return LoadedStream(document, source)
