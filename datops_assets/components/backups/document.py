"""The backup document: one YAML file a database that is backed up."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from datops_assets.components.document import Part
from datops_assets.components.sources.database import DatabaseSource, address_of
from datops_assets.components.sources.templates import fill_in, resolve_path, unset_problems
from datops_assets.components.texts import Cron, Owner, PathTemplate, TableName
from datops_assets.components.yaml_source import YamlSource, read_yaml, shown_path, validate
from datops_assets.config.settings import Settings, read_secret
from datops_assets.errors import BackupRefusedError, DeclarationError

if TYPE_CHECKING:
    from datops_assets.backup.destinations import Destination
    from datops_assets.backup.encryption import Keys
    from datops_assets.backup.logical import LogicalBackup
    from datops_assets.backup.physical import PhysicalBackup
    from datops_assets.backup.retention import Retention
    from datops_assets.backup.server import Server
    from datops_assets.backup.wal import LogStream

BACKUP_TYPE = "datops_assets.components.DatabaseBackup"
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_H = 24 * 3650
OWN = {"warehouse": "the warehouse, our catalogue in it", "dagster": "Dagster's own history"}
"""Databases of the platform itself, by the word that stands for them under `source:`."""


def _variable_name(value: str) -> str:
    if not _VARIABLE_NAME.fullmatch(value):
        # Not repeated: somebody may have put the secret itself here.
        raise ValueError("not the name of a variable, expected one such as BACKUP_KEY_2026")
    return value


VariableName = Annotated[str, AfterValidator(_variable_name)]


class BackupSource(DatabaseSource):
    """The database that is backed up; its role needs to read everything."""

    type: Literal["database"] = "database"


class BackupDestination(Part):
    """One place that keeps the backups."""

    url: PathTemplate = Field(
        description="A folder, or any URL that fsspec opens: `s3://bucket/path`, `gs://…`, `abfs://…`, `sftp://…`."
        " ${NAME} is a variable."
    )
    options: dict[str, str | int | bool] = Field(
        default_factory=dict, description="What the driver takes besides, such as `endpoint_url`; no secrets."
    )
    options_env: dict[str, VariableName] = Field(
        default_factory=dict, description="The same, by the variable that holds it: `secret: S3_SECRET`."
    )

    @field_validator("options")
    @classmethod
    def _no_secret(cls, value: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        for name in value:
            if re.search(r"secret|password|token|passphrase|account_key|^key$", name, re.IGNORECASE):
                raise ValueError(f"{name} is a secret, expected the name of a variable under `options_env:`")
        return value


class Encryption(Part):
    """The key that artefacts are encrypted with (AES-256-GCM)."""

    key_env: VariableName = Field(description="Variable that holds the key: `datops backup key` makes one.")
    former: list[VariableName] = Field(
        default_factory=list, description="Variables with keys that older backups still need."
    )


class Logical(Part):
    """pg_dump of the database, and its roles."""

    schedule: Cron | None = Field(None, description="Cron line (UTC).")
    jobs: int = Field(2, ge=1, le=64, description="Connections that dump, and as many that hash.")
    role_passwords: bool = Field(
        False, description="Whether roles come with their password hashes; needs a superuser."
    )


class Physical(Part):
    """pg_basebackup of the whole server, and what changed since."""

    schedule: Cron | None = Field(None, description="Cron line (UTC) of full backups.")
    incremental: Cron | None = Field(
        None, description="Cron line (UTC) of incremental ones; PostgreSQL 17 or newer with summarize_wal."
    )
    content: bool = Field(
        True,
        description="Whether every table of the database is hashed at the backup's moment: one full read of it.",
    )


class Wal(Part):
    """The log between backups, received as it is written: what a restore to a point in time needs."""

    every_s: float = Field(
        10,
        gt=0,
        le=3600,
        description="Seconds after which what was written is kept, though its segment is not full.",
    )
    schedule: Cron | None = Field(
        None,
        description="Cron line (UTC) of runs that keep what is there; not beside a process `datops backup wal`.",
    )


class RetentionDocument(Part):
    """Which backups stay. One that any rule keeps stays."""

    last: int = Field(7, ge=1, description="The newest so many.")
    days: int | None = Field(None, ge=1, description="All that are younger than so many days.")
    daily: int = Field(0, ge=0, description="The newest of each of so many days that have one (UTC).")
    weekly: int = Field(0, ge=0, description="The newest of each of so many weeks.")
    monthly: int = Field(0, ge=0, description="The newest of each of so many months.")
    yearly: int = Field(0, ge=0, description="The newest of each of so many years.")


class Promise(Part):
    """What the checks hold the backups against."""

    age_h: float = Field(26, gt=0, le=_LONGEST_H, description="Hours since the last good one's snapshot.")
    verified_h: float = Field(
        24 * 8, gt=0, le=_LONGEST_H, description="Hours since one was read to the last byte."
    )
    wal_s: float = Field(300, gt=0, description="Seconds that the log at the destinations may be behind.")
    drilled_h: float = Field(24 * 32, gt=0, le=_LONGEST_H, description="Hours since a restore proved one.")


class Drill(Part):
    """When restores are tried."""

    schedule: Cron | None = Field(None, description="Cron line (UTC).")


class BackupDocument(Part):
    """One database and its backups."""

    backup: TableName = Field(description="Name of the backups; a folder of this name holds them.")
    team: str = Field(min_length=1, description="Who answers for it.")
    description: str | None = None
    owners: list[Owner] = Field(default_factory=list, description="E-mail addresses, or `team:name`.")
    source: BackupSource | Literal["warehouse", "dagster"] = Field(
        description="The database; `warehouse` or `dagster` stand for the platform's own."
    )
    logical: Logical = Logical()
    physical: Physical | None = Field(None, description="Without it there are no physical backups.")
    wal: Wal | None = Field(None, description="Without it the log is not received.")
    encryption: Encryption | Literal["none"] = Field(description="`none` has to be said.")
    destinations: dict[TableName, BackupDestination] = Field(min_length=1)
    retention: RetentionDocument = RetentionDocument()
    promise: Promise = Promise()
    drill: Drill = Drill()

    @field_validator("source")
    @classmethod
    def _postgres(cls, source: BackupSource | str) -> BackupSource | str:
        if isinstance(source, BackupSource) and not source.url.startswith(
            ("postgresql://", "postgres://", "${")
        ):
            raise ValueError("only PostgreSQL is backed up, expected a URL such as postgresql://user@host/db")
        return source

    @model_validator(mode="after")
    def _destinations_differ(self) -> BackupDocument:
        urls = [destination.url.rstrip("/") for destination in self.destinations.values()]
        if len(set(urls)) < len(urls):
            raise ValueError("two destinations have the same url, expected different places")
        return self

    def templates(self) -> list[tuple[tuple[str, ...], str]]:
        """Every text in which ${NAME} stands for a variable, and where it is."""
        found = [(("destinations", name, "url"), one.url) for name, one in self.destinations.items()]
        return [
            *found,
            *([(("source", "url"), self.source.url)] if isinstance(self.source, BackupSource) else []),
        ]

    def server(self, settings: Settings) -> Server:
        """How the database is reached.

        raises    DeclarationError, TerminalError: a variable is not set
        """
        from datops_assets.backup.server import Server
        from datops_assets.resources.warehouse import open_dagster_database, open_warehouse

        if self.source == "warehouse":
            return Server(open_warehouse(settings).parameters())
        if self.source == "dagster":
            return Server(open_dagster_database(settings).parameters())
        assert isinstance(self.source, BackupSource)
        return server_of(self.source, settings.project_root)

    def open_destinations(self, settings: Settings) -> list[Destination]:
        """The destinations in their order; nothing is asked of them.

        raises    DeclarationError, TerminalError: a variable is not set, or a driver is not installed
        """
        return [self._open(name, one, settings) for name, one in self.destinations.items()]

    def _open(self, name: str, one: BackupDestination, settings: Settings) -> Destination:
        from datops_assets.backup.destinations import FolderDestination, StoreDestination

        url = fill_in(one.url)
        if "://" not in url or url.startswith("file://"):
            return FolderDestination(
                name, resolve_path(one.url.removeprefix("file://"), settings.project_root)
            )
        secrets = {key: read_secret(env).get_secret_value() for key, env in one.options_env.items()}
        options = {**one.options, **secrets}
        if not url.startswith(("sftp://", "ssh://")):
            return StoreDestination(name, url, options)
        try:
            from datops_assets.backup.sftp import SftpDestination
        except ImportError:
            raise BackupRefusedError(
                f"the destination {name} begins with sftp://; install its driver: the extra sftp"
            ) from None
        return SftpDestination(name, url, options)

    def keys(self) -> Keys:
        """The keys by their names.

        raises    TerminalError: a variable is not set, or holds no key
        """
        from datops_assets.backup.encryption import Keys, parse_key

        if self.encryption == "none":
            return Keys()
        assert isinstance(self.encryption, Encryption)
        names = [self.encryption.key_env, *self.encryption.former]
        return Keys.of(*(parse_key(name, read_secret(name).get_secret_value()) for name in names))

    def retained(self) -> Retention:
        """What the engine needs to know of the retention."""
        from datops_assets.backup.retention import Retention

        return Retention(**self.retention.model_dump())

    def logical_backup(self, settings: Settings) -> LogicalBackup:
        """What the engine needs to know."""
        from datops_assets.backup.logical import LogicalBackup

        return LogicalBackup(**self._shared(settings), role_passwords=self.logical.role_passwords)

    def physical_backup(self, settings: Settings) -> PhysicalBackup:
        """What the engine needs to know of physical backups.

        raises    DeclarationError: the document declares none
        """
        from datops_assets.backup.physical import PhysicalBackup

        if self.physical is None:
            raise DeclarationError(
                [f"{self.backup} declares no physical backups, expected `physical: {{}}` in its document"]
            )
        return PhysicalBackup(**self._shared(settings), content=self.physical.content)

    def _shared(self, settings: Settings) -> dict[str, Any]:
        """What backups of every kind are declared with."""
        return {
            "name": self.backup, "server": self.server(settings), "destinations": self.open_destinations(settings),
            "keys": self.keys(), "staging": staging_of(settings), "pg_bin": settings.pg_bin, "jobs": self.logical.jobs,
        }  # fmt: skip

    def log_stream(self, settings: Settings) -> LogStream:
        """What the engine needs to know of the log.

        raises    DeclarationError: the document declares none
        """
        from datops_assets.backup.wal import LogStream

        if self.wal is None:
            raise DeclarationError(
                [f"{self.backup} does not receive the log, expected `wal: {{}}` in its document"]
            )
        return LogStream(
            name=self.backup, server=self.server(settings), destinations=self.open_destinations(settings),
            keys=self.keys(), staging=staging_of(settings), pg_bin=settings.pg_bin, every_s=self.wal.every_s,
        )  # fmt: skip


def staging_of(settings: Settings) -> Path:
    """The folder in which dumps and restores are written on their way."""
    return settings.home / "backup"


def server_of(source: DatabaseSource, project_root: Path) -> Server:
    """How a database is reached that a document, or a call, names."""
    from datops_assets.backup.server import Server

    return Server(address_of(source, project_root).libpq_parameters())


@dataclass(frozen=True)
class LoadedBackup:
    """A document that is right in itself, and the file it came from."""

    document: BackupDocument
    source: YamlSource


def read_backup(path: Path, project_root: Path) -> LoadedBackup:
    """Read one file.

    raises    DeclarationError: every problem of the file, as `file:line: what, what was expected`
    """
    source = read_yaml(path, shown_as=shown_path(path, project_root))
    document = validate(source, BackupDocument)
    problems = [
        problem
        for where, template in document.templates()
        for problem in unset_problems(source, where, template)
    ]
    if problems:
        raise DeclarationError(problems)
    return LoadedBackup(document, source)
