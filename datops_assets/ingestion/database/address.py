"""The address of a source database, and who reads it. Printing one shows no secret."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datops_assets.errors import DeclarationError, SourceRefusedError
from datops_assets.ingestion.database.tables import DatabaseTable
from datops_assets.ingestion.source import Source

if TYPE_CHECKING:  # SQLAlchemy takes 0.2 s to import: paid by the first connection
    from sqlalchemy import URL

    from datops_assets.ingestion.database.looks import Look

_SHAPE = "expected one such as postgresql://user@host:5432/database, with `password_env:` for the password"
_MISSING = {"mysql": "datops[mysql]", "mariadb": "datops[mysql]"}


@dataclass(frozen=True)
class Address:
    """Where a database is, and as whom it is asked."""

    url: URL
    """SQLAlchemy's; with the password, which its text leaves out."""

    @classmethod
    def parse(cls, text: str, password: str | None = None, root: Path | None = None) -> Address:
        """Read a URL.

        password   takes the place of one in the URL
        root       folder that the path of a SQLite file starts from
        raises     DeclarationError: it is none. The URL itself is not repeated
        """
        from sqlalchemy import make_url
        from sqlalchemy.exc import SQLAlchemyError

        try:
            url = make_url(text)
            url.port  # noqa: B018 - a port that is no number is found out here
        except (SQLAlchemyError, ValueError):
            # Not chained: the error repeats the URL.
            raise DeclarationError([f"source.url is not the URL of a database, {_SHAPE}"]) from None
        if password is not None:
            url = url.set(password=password)
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            url = url.set(database=str(((root or Path()) / Path(str(url.database)).expanduser()).resolve()))
        return cls(url)

    @property
    def kind(self) -> str:
        """The database's name: postgresql, mysql, sqlite…"""
        return self.url.get_backend_name()

    @property
    def by_copy(self) -> bool:
        """Whether rows come by PostgreSQL's COPY: unless the URL names a driver of its own."""
        return self.url.drivername in ("postgresql", "postgres", "postgresql+psycopg")

    @property
    def by_wire(self) -> bool:
        """Whether rows come as MySQL sends them: unless the URL names a driver other than ours."""
        return self.url.drivername in ("mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql")

    def libpq_parameters(self) -> dict[str, Any]:
        """How a PostgreSQL is reached, by libpq's names, the URL's own options first. Holds the password."""
        url = self.url
        options = {
            name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()
        }
        known = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
        known["dbname"] = url.database
        return {**options, **{name: value for name, value in known.items() if value}}

    @property
    def shown(self) -> str:
        """For messages: no user, no password."""
        if self.url.host is None:
            return str(self.url.database or self.kind)
        port = f":{self.url.port}" if self.url.port else ""
        return f"{self.url.host}{port}/{self.url.database or ''}"


def open_database(address: Address) -> Source[DatabaseTable]:
    """The source of the tables of one database; it connects when it is asked something.

    raises    SourceRefusedError: the driver is not installed
    """
    if address.by_copy:
        from datops_assets.ingestion.database.postgres import PostgresSource

        return PostgresSource(address)
    if address.by_wire:
        from datops_assets.ingestion.database.mysql import MySqlSource

        return MySqlSource(address)
    from datops_assets.ingestion.database.engine import EngineSource

    return EngineSource(address)


def open_look(address: Address, table: DatabaseTable) -> Look:
    """Look at one table: connects, and begins a snapshot that the look's end closes.

    raises    SourceUnreachableError, SourceRefusedError: nobody answers, or there is no such table or column
    """
    if address.by_copy:
        from datops_assets.ingestion.database.postgres_look import PostgresLook

        return PostgresLook(address, table)
    if address.by_wire:
        from datops_assets.ingestion.database.mysql_look import MySqlLook

        return MySqlLook(address, table)
    from datops_assets.ingestion.database.engine_look import EngineLook, SqliteLook

    return (SqliteLook if address.kind == "sqlite" else EngineLook)(address, table)


def missing_driver(address: Address, error: Exception) -> SourceRefusedError:
    """What to say where Python has no driver for a database."""
    package = _MISSING.get(address.kind)
    advice = f"pip install '{package}'" if package else "install the SQLAlchemy dialect and its driver"
    named: Any = getattr(error, "name", None) or address.url.drivername
    return SourceRefusedError(
        f"no driver for {address.url.drivername} is installed here ({named}); {advice}, then run again"
    )
