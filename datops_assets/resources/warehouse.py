"""Open the warehouse: the server that DATOPS_WAREHOUSE_URL names, or our own.

Every failure becomes one sentence with the next command. No message, repr or chained
cause holds the password.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from datops_assets.config.settings import Settings, forget_libpq_variables
from datops_assets.errors import WarehouseError
from datops_assets.resources.server_errors import server_errors

if TYPE_CHECKING:  # psycopg takes 0.1 s to import: paid by the first connection
    import psycopg

    from datops_assets.resources.embedded import EmbeddedServer

OLDEST_MAJOR = 16  # pg_input_is_valid, which contracts render to
_CONNECT_TIMEOUT_S = 10
_URL_SHAPE = "write postgresql://user:password@host:5432/database"
_OWN_FIELDS = ("host", "port", "user", "password", "dbname")
_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}


@dataclass(frozen=True)
class Warehouse:
    """One database and the way in. Printing it shows no secret."""

    host: str
    port: int
    user: str
    dbname: str
    password: str | None = field(repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    embedded: bool = False
    server_version: int = 0

    @property
    def url(self) -> str:
        """URL for libpq, ADBC and JDBC-like tools. Holds the password."""
        return self._url("postgresql")

    @property
    def sqlalchemy_url(self) -> str:
        """URL for SQLAlchemy and Dagster. Holds the password."""
        # Without a driver SQLAlchemy 2.1 takes psycopg 3, on which Dagster's NOTIFY fails.
        return self._url("postgresql+psycopg2")

    @property
    def address(self) -> str:
        """Where it is, for messages: no user, no password."""
        return f"{self.host}:{self.port}/{self.dbname}"

    def parameters(self) -> dict[str, str | int]:
        """Connection parameters by libpq's names. Holds the password."""
        known: dict[str, str | int] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "dbname": self.dbname,
        }
        secret = {"password": self.password} if self.password else {}
        return {"connect_timeout": _CONNECT_TIMEOUT_S, **self.options, **known, **secret}

    def libpq_environment(self) -> dict[str, str]:
        """Variables for a program that speaks libpq (psql, pg_dump): secrets stay out of its arguments."""
        return {
            _VARIABLES.get(name, "PG" + name.upper().replace("_", "")): str(value)
            for name, value in self.parameters().items()
        } | {"PGTZ": "UTC", "PGAPPNAME": "datops"}

    def connect(self, **parameters: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a connection: autocommit, TimeZone UTC, days as ISO writes them.

        raises  WarehouseUnreachableError: nobody answers there, or all places are taken
                WarehouseError: the server refuses us
        """
        import psycopg

        forget_libpq_variables()
        wanted = {
            "application_name": "datops",
            "client_encoding": "UTF8",
            "autocommit": True,
            **self.parameters(),
            **parameters,
        }
        with server_errors(self.address):
            conn = psycopg.connect(**wanted)
            # Asked of what the server reported at login, so our own server costs no round trip.
            reported = conn.info.parameter_status
            wanted_style = (reported("DateStyle") or "").startswith("ISO") and (
                reported("IntervalStyle") == "postgres"
            )
            if reported("TimeZone") != "UTC" or not wanted_style:
                conn.execute(
                    "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'"
                )
                if not conn.autocommit:
                    conn.commit()
        return conn

    def at(self, dbname: str) -> Warehouse:
        """Another database of the same server."""
        return replace(self, dbname=dbname)

    def _url(self, scheme: str) -> str:
        rest = dict(self.options)
        if self.host.startswith("/"):  # a folder with a Unix socket
            rest["host"], place = self.host, ""
        else:
            place = f"[{self.host}]" if ":" in self.host else self.host
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        query = "?" + urlencode(rest, quote_via=quote) if rest else ""
        user, dbname = quote(self.user, safe=""), quote(self.dbname, safe="")
        return f"{scheme}://{user}{secret}@{place}:{self.port}/{dbname}{query}"


def open_warehouse(settings: Settings) -> Warehouse:
    """The warehouse of these settings; our own server is started where no URL is set.

    raises  WarehouseUnreachableError, WarehouseError: see `Warehouse.connect`; also when
            the server is older than PostgreSQL 16
    """
    if settings.warehouse_url is None:
        warehouse = _embedded(settings, "datops")
    else:
        warehouse = parse_url(settings.warehouse_url.get_secret_value(), "DATOPS_WAREHOUSE_URL")
    return check_version(warehouse)


def open_dagster_database(settings: Settings) -> Warehouse:
    """The database of Dagster's own history; on our own server where no URL is set."""
    if settings.dagster_url is None:
        return _embedded(settings, "dagster")
    return parse_url(settings.dagster_url.get_secret_value(), "DATOPS_DAGSTER_URL")


def embedded_server(settings: Settings) -> EmbeddedServer:
    """Our own server of this project, started or not."""
    from datops_assets.resources.embedded import EmbeddedServer

    return EmbeddedServer(settings.home / "postgres", pg_bin=settings.pg_bin, port=settings.pg_port)


def parse_url(url: str, variable: str) -> Warehouse:
    """Read a PostgreSQL URL.

    variable  where it came from, for the message
    raises    WarehouseError: it is none. The URL itself is not repeated
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    forget_libpq_variables()
    scheme, _, rest = url.partition("://")
    plain = f"postgresql://{rest}" if scheme.startswith("postgresql+") else url
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(plain).items() if value is not None}
        port = int(found.get("port", "5432"))
    except (psycopg.Error, ValueError):
        # Not chained: libpq repeats the part it stumbles over, which may be the password.
        raise WarehouseError(f"{variable} is not a PostgreSQL URL; {_URL_SHAPE}") from None
    missing = [name for name in ("host", "user", "dbname") if not found.get(name)]
    if missing:
        raise WarehouseError(f"{variable} names no {' and no '.join(missing)}; {_URL_SHAPE}")
    return Warehouse(
        host=found["host"],
        port=port,
        user=found["user"],
        dbname=found["dbname"],
        password=found.get("password"),
        options={name: value for name, value in found.items() if name not in _OWN_FIELDS},
    )


def check_version(warehouse: Warehouse) -> Warehouse:
    """Connect once and note the server's version.

    raises  WarehouseError: it is older than PostgreSQL 16
    """
    with warehouse.connect() as conn:
        version = conn.info.server_version
    require_version(version, warehouse.address)
    return replace(warehouse, server_version=version)


def require_version(version: int, where: str) -> None:
    """Refuse a server that lacks what contracts need. `version` as PostgreSQL counts it: 160014."""
    if version // 10000 < OLDEST_MAJOR:
        raise WarehouseError(
            f"the warehouse at {where} is PostgreSQL {version // 10000}, datops needs {OLDEST_MAJOR} up; "
            "upgrade it, or unset DATOPS_WAREHOUSE_URL to use the server that comes with datops"
        )


def _embedded(settings: Settings, dbname: str) -> Warehouse:
    address = embedded_server(settings).start()
    return Warehouse(
        host=address.host,
        port=address.port,
        user=address.user,
        dbname=dbname,
        password=address.password,
        embedded=True,
    )
