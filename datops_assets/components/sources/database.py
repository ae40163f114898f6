"""Databases as a kind of source: the keys of the document, and what ingestion makes of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from datops_assets.components.document import PipelineDocument, SourceSettings, TableDocument
from datops_assets.components.sources.kind import SourceKind
from datops_assets.components.sources.templates import fill_in
from datops_assets.components.texts import PathTemplate
from datops_assets.config.settings import forget_libpq_variables, read_secret
from datops_assets.quality.contract import Disposition

if TYPE_CHECKING:
    from datops_assets.ingestion import Source
    from datops_assets.ingestion.database import Address, DatabaseTable

_WITH_PASSWORD = re.compile(r"^[^/]*://[^/?#]*:[^/?#]*@|[?&](password|sslpassword|passwd)=", re.IGNORECASE)
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOOKBACK = re.compile(r"[1-9][0-9]{0,8}[smhd]?")


class DatabaseSource(SourceSettings):
    """One database of another system."""

    model_config = ConfigDict(populate_by_name=True)
    templated: ClassVar[tuple[str, ...]] = ("url",)
    type: Literal["database"]
    url: PathTemplate = Field(
        description="`postgresql://user@host:5432/database`, `mysql+pymysql://…`, `sqlite:///file.db` or another"
        " installed SQLAlchemy dialect. ${NAME} is a variable."
    )
    password_env: str | None = Field(None, description="Variable that holds the password.")
    schema_: str | None = Field(
        None, alias="schema", description="Schema of tables that name none; default: the database's own."
    )

    @property
    def shown(self) -> str:
        """The URL as it is written: it holds no password."""
        return self.url

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if _WITH_PASSWORD.search(value):
            raise ValueError("a password stands in the URL, expected `password_env: NAME` beside `url:`")
        if "://" not in value and not value.startswith("${"):
            raise ValueError("not a URL, expected one such as postgresql://user@host:5432/database")
        return value

    @field_validator("password_env")
    @classmethod
    def _password_env(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE_NAME.fullmatch(value):
            # Not repeated: somebody may have put the password itself here.
            raise ValueError("not the name of a variable, expected one such as SHOP_DB_PASSWORD")
        return value


class DatabaseTableDocument(TableDocument):
    """One table: which of the database it is, where reading goes on, what silver demands."""

    table: str = Field(min_length=1, description="Its name there, `schema.name` or `name`; a view will do.")
    cursor: str | None = Field(
        None, description="Column that only grows: only rows past the last load are read."
    )
    lookback: str | None = Field(
        None,
        description="Begin again this far below the last load, for rows that came late: `1h`, or steps of a number."
        " Needs a key.",
    )
    columns: list[str] = Field(default_factory=list, description="Read only these.")
    exclude: list[str] = Field(default_factory=list, description="Read all but these.")
    as_text: list[str] = Field(
        default_factory=list, description="Take these as the text the database prints, whatever their type."
    )
    parallel: int = Field(
        1,
        ge=1,
        le=16,
        description="Connections that read a whole table, or the first reading by a cursor, at once in one snapshot:"
        " PostgreSQL, MySQL, MariaDB.",
    )

    @property
    def delivered_as(self) -> str:
        """The table."""
        return self.table

    @property
    def technology(self) -> str:
        """A table is a table."""
        return "sql"

    @property
    def disposition(self) -> Disposition:
        """Where the document leaves it open: a whole table replaces, a range is merged by its key."""
        if "load" in self.model_fields_set:
            return self.load
        if self.cursor is None:
            return "replace"
        return "merge" if self.contract and self.contract.key else "append"

    @model_validator(mode="after")
    def _goes_together(self) -> DatabaseTableDocument:
        if self.cursor is None and "load" in self.model_fields_set and self.load == "append":
            raise ValueError(
                "load: append would add the whole table each time, expected a `cursor:` beside it"
            )
        if self.cursor is not None and self.disposition in ("replace", "snapshot"):
            raise ValueError(
                f"load: {self.load} takes all rows at once, and with `cursor:` only new ones are read,"
                " expected merge or append"
            )
        if self.columns and self.exclude:
            raise ValueError("columns and exclude stand side by side, expected one of them")
        return self

    @model_validator(mode="after")
    def _lookback_can_work(self) -> DatabaseTableDocument:
        if self.lookback is None:
            return self
        if not _LOOKBACK.fullmatch(self.lookback):
            raise ValueError("lookback: expected 30m, 1h, 2d, or a number of steps")
        if self.cursor is None or self.disposition != "merge":
            raise ValueError(
                "lookback brings rows again, expected `cursor:` and `contract: {key: [...]}` to tell them by"
            )
        return self


class DatabaseKind(SourceKind[DatabaseSource, DatabaseTableDocument]):
    """Tables of a database: PostgreSQL, MySQL, MariaDB, SQLite, any other SQLAlchemy dialect."""

    settings = DatabaseSource
    table = DatabaseTableDocument
    watched = "rows"

    def declare(self, document: PipelineDocument, name: str, project_root: Path) -> DatabaseTable:
        """Say which table, and from where on."""
        from datops_assets.ingestion.database import DatabaseTable, Lookback

        source, table = self.parts(document, name)
        schema, dot, relation = table.table.partition(".")
        return DatabaseTable(
            source=document.pipeline,
            name=name,
            schema=schema if dot else source.schema_,
            relation=relation if dot else table.table,
            cursor=table.cursor,
            lookback=Lookback.parse(table.lookback) if table.lookback else None,
            columns=tuple(table.columns),
            exclude=tuple(table.exclude),
            as_text=tuple(table.as_text),
            parallel=table.parallel,
            disposition=table.disposition,
            rename=table.rename,
        )

    def open(self, document: PipelineDocument, project_root: Path) -> Source[DatabaseTable]:
        """Connects when something is asked of it."""
        from datops_assets.ingestion.database import open_database

        assert isinstance(document.source, DatabaseSource)
        return open_database(address_of(document.source, project_root))


def address_of(source: DatabaseSource, project_root: Path) -> Address:
    """The address with what the variables hold.

    raises    DeclarationError, TerminalError: a variable is not set
    """
    from datops_assets.ingestion.database import Address

    forget_libpq_variables()
    password = read_secret(source.password_env).get_secret_value() if source.password_env else None
    return Address.parse(fill_in(source.url), password, project_root)
