"""Kinds of destinations: what each adds to an export document, and how it is opened.

A plug-in registers a subclass of DestinationKind under the entry point group `datops.destinations`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, get_args

from pydantic import Field, field_validator, model_validator

from datops_assets.components.document import Freshness, Part
from datops_assets.components.plugins import PluginError, find_plugin, installed_plugins
from datops_assets.components.sources.templates import fill_in, resolve_path
from datops_assets.components.texts import Owner, PathTemplate, Tags
from datops_assets.config.settings import read_secret

if TYPE_CHECKING:
    from datops_assets.destinations import Destination

GROUP = "datops.destinations"
_WITH_PASSWORD = re.compile(r"^[^/]*://[^/?#]*:[^/?#]*@")
_ASSET = re.compile(r"(gold/[a-z][a-z0-9_]*|silver/[a-z][a-z0-9_]*/[a-z][a-z0-9_]*)\Z")
SettingsT = TypeVar("SettingsT", bound="DestinationSettings")
TargetT = TypeVar("TargetT", bound="ExportedTable")


class DestinationSettings(Part):
    """Where the rows go. Each kind of destination has keys of its own."""

    type: str = Field(description="Kind of destination: `datops connector list` shows which there are.")
    templated: ClassVar[tuple[str, ...]] = ()

    @property
    def shown(self) -> str:
        """Say where it is, for people; no secret."""
        raise NotImplementedError


class ExportedTable(Part):
    """One table that goes out. Each kind of destination adds its own keys."""

    from_: str = Field(alias="from", description="The asset: `gold/<model>` or `silver/<pipeline>/<table>`.")
    columns: list[str] = Field(default_factory=list, description="Only these, in this order; all by default.")
    description: str | None = None
    owners: list[Owner] = Field(default_factory=list)
    tags: Tags = Field(default_factory=dict)
    freshness: Freshness | None = None

    @field_validator("from_")
    @classmethod
    def _asset(cls, value: str) -> str:
        if not _ASSET.match(value):
            raise ValueError(
                "not a table that can go out, expected gold/<model> or silver/<pipeline>/<table>"
            )
        return value

    @property
    def relation(self) -> tuple[str, str]:
        """Schema and name in the warehouse."""
        layer, *names = self.from_.split("/")
        return layer, "_".join(names)


class DestinationKind(ABC, Generic[SettingsT, TargetT]):
    """One word after `destination: {type: …}`. Loading definitions uses the models only."""

    settings: type[SettingsT]
    table: type[TargetT]
    technology: ClassVar[str]
    """For the asset's icon."""
    arrives: ClassVar[Literal["exactly once", "at least once"]] = "at least once"
    """What a delivery that is tried again after a crash leaves there."""

    @classmethod
    def name(cls) -> str:
        """The word a document uses."""
        (word,) = get_args(cls.settings.model_fields["type"].annotation)
        return str(word)

    @classmethod
    def summary(cls) -> str:
        """One line for lists: the first of the class's docstring."""
        return (cls.__doc__ or cls.name()).strip().splitlines()[0]

    @abstractmethod
    def open(self, settings: SettingsT, export: str, project_root: Path) -> Destination[Any]:
        """Make the destination; connections open when something is delivered.

        raises    DeclarationError, TerminalError: a variable is not set
        """

    @abstractmethod
    def target(self, name: str, table: TargetT, settings: SettingsT) -> Any:
        """What the destination needs to know of one table."""


class FilesDestination(DestinationSettings):
    """Files in one folder, or behind one URL."""

    type: Literal["files"]
    templated: ClassVar[tuple[str, ...]] = ("path",)
    path: PathTemplate = Field(
        description="Folder, relative to the project root, or a URL such as s3://bucket/reports. ${NAME} is a variable."
    )

    @property
    def shown(self) -> str:
        """As it is written."""
        return self.path


class ExportedFile(ExportedTable):
    """A table as one file."""

    file: str = Field(min_length=1, description="Its name below the destination's path.")
    format: Literal["csv", "jsonl", "parquet", "orc"] | None = Field(
        None, description="By the file's ending."
    )
    order_by: list[str] = Field(
        default_factory=list,
        description="Columns; with an order that leaves no ties equal rows give equal bytes.",
    )

    @model_validator(mode="after")
    def _format_known(self) -> ExportedFile:
        path = PurePosixPath(self.file)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise ValueError("file leads out of the destination, expected a name below its path")
        if self.format is None and path.suffix not in (".csv", ".jsonl", ".parquet", ".orc"):
            raise ValueError(
                "the file's ending names no format, expected .csv, .jsonl, .parquet, .orc, or `format:`"
            )
        return self


class FilesKind(DestinationKind[FilesDestination, ExportedFile]):
    """Files: CSV, JSON lines, Parquet, ORC; each written whole, then renamed."""

    settings = FilesDestination
    table = ExportedFile
    technology = "file"
    arrives = "exactly once"

    def open(self, settings: FilesDestination, export: str, project_root: Path) -> Destination[Any]:
        """A folder of this machine, or a URL."""
        from datops_assets.destinations import FileDestination

        if "://" in (url := fill_in(settings.path)):
            return FileDestination(url)
        return FileDestination(resolve_path(settings.path, project_root))

    def target(self, name: str, table: ExportedFile, settings: FilesDestination) -> Any:
        """Which file."""
        from datops_assets.destinations import FileTarget

        return FileTarget(table.file, table.format or PurePosixPath(table.file).suffix[1:])  # type: ignore[arg-type]


class DatabaseSettings(DestinationSettings):
    """One database of another system."""

    type: Literal["database"]
    templated: ClassVar[tuple[str, ...]] = ("url",)
    url: PathTemplate = Field(description="SQLAlchemy's URL, e.g. postgresql://writer@host:5432/reports.")
    password_env: str | None = Field(None, description="Variable that holds the password.")

    @field_validator("url")
    @classmethod
    def _no_password(cls, value: str) -> str:
        if _WITH_PASSWORD.search(value):
            raise ValueError("a password stands in the URL, expected `password_env: NAME` beside `url:`")
        return value

    @property
    def shown(self) -> str:
        """The URL as it is written: it holds no password."""
        return self.url


class ExportedRows(ExportedTable):
    """A table as a table there."""

    table: str = Field(min_length=1, max_length=50, description="Its name there; made where it is missing.")
    schema_: str | None = Field(None, alias="schema", description="Its schema there.")
    mode: Literal["replace", "merge"] = Field(
        "replace", description="replace: it holds just these rows; merge: rows of a known key are renewed."
    )
    key: list[str] = Field(default_factory=list, description="Columns that name one row; merge needs them.")

    @model_validator(mode="after")
    def _key_where_needed(self) -> ExportedRows:
        if self.mode == "merge" and not self.key:
            raise ValueError("mode: merge has no key to go by, expected `key: [...]`")
        return self


class DatabaseKind(DestinationKind[DatabaseSettings, ExportedRows]):
    """Databases: rows and a marker in one transaction, so each delivery arrives exactly once."""

    settings = DatabaseSettings
    table = ExportedRows
    technology = "sql"
    arrives = "exactly once"

    def open(self, settings: DatabaseSettings, export: str, project_root: Path) -> Destination[Any]:
        """An engine without connections yet."""
        from datops_assets.destinations import DatabaseDestination

        secret = read_secret(settings.password_env, project_root) if settings.password_env else None
        return DatabaseDestination(
            fill_in(settings.url), export, secret.get_secret_value() if secret else None
        )

    def target(self, name: str, table: ExportedRows, settings: DatabaseSettings) -> Any:
        """Which table."""
        from datops_assets.destinations import DatabaseTarget

        return DatabaseTarget(table.table, table.mode, tuple(table.key), table.schema_)


class RestSettings(DestinationSettings):
    """One HTTP API that takes JSON arrays."""

    type: Literal["rest"]
    templated: ClassVar[tuple[str, ...]] = ("url",)
    url: PathTemplate = Field(description="What the tables' paths are added to.")
    token_env: str | None = Field(
        None, description="Variable with a token, sent as `Authorization: Bearer …`."
    )
    headers: dict[str, str] = Field(default_factory=dict, description="Sent with each request; no secrets.")

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if _WITH_PASSWORD.search(value):
            raise ValueError("a password stands in the URL, expected `token_env: NAME` beside `url:`")
        if not value.startswith(("http://", "https://", "${")):
            raise ValueError("not a URL, expected one such as https://api.example.com/v1")
        return value

    @property
    def shown(self) -> str:
        """The URL as it is written."""
        return self.url


class ExportedBatches(ExportedTable):
    """A table as requests."""

    path: str = Field("", description="Added to the URL, e.g. /customers.")
    method: Literal["POST", "PUT"] = "POST"
    batch_rows: int = Field(500, ge=1, le=10_000, description="Rows of one request.")


class RestKind(DestinationKind[RestSettings, ExportedBatches]):
    """APIs: batches of rows as JSON with idempotency keys; at least once."""

    settings = RestSettings
    table = ExportedBatches
    technology = "rest"

    def open(self, settings: RestSettings, export: str, project_root: Path) -> Destination[Any]:
        """A client without connections yet."""
        from datops_assets.destinations import RestDestination

        headers = dict(settings.headers)
        if settings.token_env:
            headers["authorization"] = (
                f"Bearer {read_secret(settings.token_env, project_root).get_secret_value()}"
            )
        return RestDestination(headers)

    def target(self, name: str, table: ExportedBatches, settings: RestSettings) -> Any:
        """Which endpoint."""
        from datops_assets.destinations import RestTarget

        url = fill_in(settings.url).rstrip("/") + (f"/{table.path.lstrip('/')}" if table.path else "")
        return RestTarget(url, table.method, table.batch_rows)


BUILT_IN: dict[str, type[DestinationKind[Any, Any]]] = {
    kind.name(): kind for kind in (FilesKind, DatabaseKind, RestKind)
}
"""Kinds that come with datops; a plug-in cannot take their names."""


def destination_kinds() -> list[str]:
    """Every name that `destination: {type: …}` may have here, those of plug-ins last."""
    return [*BUILT_IN, *(plugin.name for plugin in installed_plugins(GROUP) if plugin.name not in BUILT_IN)]


@cache
def destination_kind(name: str) -> DestinationKind[Any, Any]:
    """The kind of that name.

    raises    PluginError: no installed package has it, or its package cannot be imported
    """
    found = BUILT_IN.get(name) or find_plugin(GROUP, name)
    if not (isinstance(found, type) and issubclass(found, DestinationKind) and found.name() == name):
        raise PluginError(
            f"the plug-in {name!r} of {GROUP} is no DestinationKind called {name!r}; tell its author"
        )
    return found()
