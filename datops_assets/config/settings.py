"""What the environment says: read here, once, and nowhere else in the package.

A variable of the process wins over the same name in `.env` beside `workspace.yaml`.
Only `DATOPS_…` names are settings. Other names (`POSTGRES_HOST`, `COVID_DIR`) are read
when a document refers to them, through `expand` and `read_secret`.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from datops_assets.errors import TerminalError

# libpq fills every parameter that a caller leaves out from these. PGSERVICE even beats an
# empty `service=`, so passing parameters explicitly is not enough: the names must go.
_LIBPQ_WORDS = """
    APPNAME CHANNELBINDING CLIENTENCODING CONNECT_TIMEOUT DATABASE DATESTYLE GEQO GSSDELEGATION
    GSSENCMODE GSSLIB HOST HOSTADDR KRBSRVNAME LOADBALANCEHOSTS LOCALEDIR MAXPROTOCOLVERSION
    MINPROTOCOLVERSION OAUTHDEBUG OPTIONS PASSFILE PASSWORD PORT REALM REQUIREAUTH REQUIREPEER
    REQUIRESSL SERVICE SERVICEFILE SSLCERT SSLCERTMODE SSLCOMPRESSION SSLCRL SSLCRLDIR SSLKEY
    SSLKEYLOGFILE SSLMAXPROTOCOLVERSION SSLMINPROTOCOLVERSION SSLMODE SSLNEGOTIATION SSLROOTCERT
    SSLSNI SYSCONFDIR TARGETSESSIONATTRS TZ USER
"""
LIBPQ_VARIABLES = frozenset("PG" + word for word in _LIBPQ_WORDS.split())


SETTINGS = (
    "DATOPS_HOME",
    "DATOPS_WAREHOUSE_URL",
    "DATOPS_DAGSTER_URL",
    "DATOPS_PG_BIN",
    "DATOPS_PG_PORT",
    "DATOPS_ALERT_ADDRESS",
)
"""Variables that `read_settings` reads."""
_ALSO_OURS = ("DATOPS_TEST_", "DATOPS_DBT_")


class Settings(BaseModel):
    """Where this installation keeps things and what it talks to."""

    model_config = ConfigDict(frozen=True)

    project_root: Path = Field(description="Folder that relative paths of documents start from.")
    home: Path = Field(description="Folder of everything datops makes: server, logs, demo data. DATOPS_HOME.")
    warehouse_url: SecretStr | None = Field(
        None, description="PostgreSQL 16 or later. Unset: our own server under `home`. DATOPS_WAREHOUSE_URL."
    )
    dagster_url: SecretStr | None = Field(
        None, description="Database of Dagster's history. Unset: on our own server. DATOPS_DAGSTER_URL."
    )
    pg_bin: Path | None = Field(
        None, description="Folder with postgres and psql. Unset: those of the wheel. DATOPS_PG_BIN."
    )
    pg_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="TCP port of our own server. Unset: a free one, kept. DATOPS_PG_PORT.",
    )
    alert_address: SecretStr | None = Field(
        None, description="Where alerts go that name no other address; secret. DATOPS_ALERT_ADDRESS."
    )


def read_settings(project_root: Path | None = None) -> Settings:
    """Read the settings of the project that the current folder belongs to.

    project_root  taken as it is; without it `find_project_root()`
    raises        TerminalError: a variable holds something it cannot
    """
    root = (project_root or find_project_root()).resolve()
    values = _read_variables(root)
    home = Path(values.get("DATOPS_HOME") or ".datops").expanduser()
    pg_bin = values.get("DATOPS_PG_BIN")
    return Settings(
        project_root=root,
        home=root / home,
        warehouse_url=_secret(values.get("DATOPS_WAREHOUSE_URL")),
        dagster_url=_secret(values.get("DATOPS_DAGSTER_URL")),
        pg_bin=root / Path(pg_bin).expanduser() if pg_bin else None,
        pg_port=_port(values.get("DATOPS_PG_PORT")),
        alert_address=_secret(values.get("DATOPS_ALERT_ADDRESS")),
    )


def find_project_root(start: Path | None = None) -> Path:
    """The nearest folder from `start` (the current folder) upwards that is a project.

    Without one: DAGSTER_HOME if that is a project, because Dagster starts processes in
    folders of its choice; else `start`.
    """
    here = start or Path.cwd()
    elsewhere = os.environ.get("DAGSTER_HOME")
    for folder in (here, *here.parents, *([Path(elsewhere)] if elsewhere else [])):
        if (folder / "workspace.yaml").is_file() or (folder / "datops_assets").is_dir():
            return folder
    return here


def expand(name: str, project_root: Path | None = None) -> str | None:
    """The value that a document's `${NAME}` stands for; None when it is set nowhere, or empty."""
    return _read_variables(project_root or find_project_root()).get(name) or None


def read_secret(name: str, project_root: Path | None = None) -> SecretStr:
    """The secret that a document refers to by `…_env: NAME`.

    raises  TerminalError: the variable is unset or empty
    """
    value = expand(name, project_root)
    if not value:
        raise TerminalError(f"variable {name} is not set; export it, or add it to .env beside workspace.yaml")
    return SecretStr(value)


def forget_libpq_variables() -> None:
    """Remove PGHOST and its like from this process and from the processes it starts.

    An inherited PGHOST, PGOPTIONS or PGSERVICE would redirect or break a connection
    whose parameters we know.
    """
    for name in LIBPQ_VARIABLES:
        os.environ.pop(name, None)


def inherited_variables() -> list[str]:
    """Names of variables meant for other PostgreSQL programs, which datops does not follow."""
    return sorted(name for name in os.environ if name in LIBPQ_VARIABLES or name.startswith("POSTGRES_"))


def unknown_variables(project_root: Path) -> list[str]:
    """Names in the environment or in .env that begin as ours do and mean nothing."""
    ours = [name for name in _read_variables(project_root) if name.startswith("DATOPS_")]
    return sorted(name for name in ours if name not in SETTINGS and not name.startswith(_ALSO_OURS))


def child_environment(**extra: str) -> dict[str, str]:
    """Environment for a program that we start: ours without libpq's variables, and `extra`."""
    kept = {name: value for name, value in os.environ.items() if name not in LIBPQ_VARIABLES}
    return kept | extra


def _read_variables(root: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    # interpolate=False: a `$` in a password is a `$`.
    in_file = dotenv_values(root / ".env", interpolate=False)
    return {name: value for name, value in in_file.items() if value is not None} | dict(os.environ)


def _secret(value: str | None) -> SecretStr | None:
    return SecretStr(value) if value else None


def _port(value: str | None) -> int | None:
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 65535:
        raise TerminalError("DATOPS_PG_PORT is not a port; set it to a number from 1 to 65535, or unset it")
    return int(value)


def forget_inherited_settings() -> None:
    """Remove every DATOPS_ variable from this process, so that a demo or a test writes where it says."""
    for name in [name for name in os.environ if name.startswith("DATOPS_")]:
        del os.environ[name]
