"""The document of a team's database: one YAML file for each team, environment and database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from datops_assets.components.document import Part
from datops_assets.components.sources.database import DatabaseSource
from datops_assets.components.sources.templates import fill_in, unset_problems
from datops_assets.components.texts import Cron, Owner, TableName, Tags
from datops_assets.components.yaml_source import YamlSource, read_yaml, shown_path, validate
from datops_assets.config.settings import expand, read_secret, read_settings
from datops_assets.errors import DeclarationError

if TYPE_CHECKING:
    import psycopg

    from datops_assets.databases import Connect, SecretStore, TeamDatabase
    from datops_assets.resources.warehouse import Warehouse

TEAM_DATABASE_TYPE = "datops_assets.components.TeamDatabase"
_LONGEST_NAME = 36
"""With `_<login>_a` behind it PostgreSQL's 63 are not passed."""
_LONGEST_LOGIN = 20
_SYSTEM = ("pg_", "information_schema")


def _login_name(value: str) -> str:
    if len(value) > _LONGEST_LOGIN:
        raise ValueError(f"the name of a login is too long, expected at most {_LONGEST_LOGIN} characters")
    if value in ("owner", "writer", "reader"):
        raise ValueError("a role of the database has this name, expected another")
    return value


def _schema_name(value: str) -> str:
    if value.startswith(_SYSTEM):
        raise ValueError("a schema of PostgreSQL itself, expected a name that does not begin with pg_")
    return value


LoginName = Annotated[TableName, AfterValidator(_login_name)]
SchemaName = Annotated[TableName, AfterValidator(_schema_name)]
Seconds = Annotated[int, Field(ge=0, le=7 * 86400)]
Count = Annotated[int, Field(ge=1, le=10**12)]
_OTHER_UNITS = {
    "temp_mb": ("temp_bytes", 1024**2), "temp_critical_mb": ("temp_critical_bytes", 1024**2),
    "growth_mb": ("growth_bytes", 1024**2), "learning_days": ("learning_s", 86400),
}  # fmt: skip
"""Key of the document: the name in `Thresholds`, and how many of its unit one of ours is."""
_PAIRS = (
    ("statement_warning_s", "statement_critical_s"), ("in_transaction_warning_s", "in_transaction_critical_s"),
    ("lock_wait_warning_s", "lock_wait_critical_s"), ("copied_rows", "copied_rows_critical"),
    ("selected_rows", "selected_rows_critical"), ("temp_mb", "temp_critical_mb"),
)  # fmt: skip


class LimitsDocument(Part):
    """What one session may take; 0 for no limit. Left out: as the database says, then as below."""

    statement_s: Seconds | None = Field(None, description="Longest statement. Default 300.")
    lock_s: Seconds | None = Field(None, description="Longest wait for a lock. Default 30.")
    idle_in_transaction_s: Seconds | None = Field(
        None, description="Longest pause inside a transaction. Default 60."
    )
    idle_session_s: Seconds | None = Field(
        None, description="Longest pause between statements. Default 3600."
    )
    transaction_s: Seconds | None = Field(
        None, description="Longest transaction (PostgreSQL 17 up; the watchdog holds it before). Default 900."
    )
    temp_file_mb: int | None = Field(
        None, ge=0, le=10_000_000, description="Most disk for sorts and hashes of one session. Default 1024."
    )


class ThresholdsDocument(Part):
    """From where on the watch says something about this database and its logins. Left out: as below."""

    statement_warning_s: Seconds | None = Field(None, description="Age of a statement. Default 1800.")
    statement_critical_s: Seconds | None = Field(None, description="The same, critical. Default 3600.")
    in_transaction_warning_s: Seconds | None = Field(
        None, description="Pause inside a transaction. Default 300."
    )
    in_transaction_critical_s: Seconds | None = Field(None, description="The same, critical. Default 1800.")
    lock_wait_warning_s: Seconds | None = Field(None, description="Wait for a lock. Default 120.")
    lock_wait_critical_s: Seconds | None = Field(None, description="The same, critical. Default 900.")
    failed_logins: Count | None = Field(None, description="Of one login, one after the other. Default 10.")
    denied: Count | None = Field(None, description="Statements refused between two looks. Default 20.")
    mass_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Of a table's rows, deleted or written over between two looks. Default 0.5.",
    )
    mass_rows: Count | None = Field(None, description="Tables with fewer rows may come and go. Default 1000.")
    copied_rows: Count | None = Field(
        None, description="Copied out by one session; below, nothing is unusual. Default 100000."
    )
    copied_rows_critical: Count | None = Field(
        None, description="The same, critical while a login's habits are not known. Default 1000000."
    )
    selected_rows: Count | None = Field(
        None, description="Given to a login by select between two looks. Default 100000."
    )
    selected_rows_critical: Count | None = Field(
        None, description="The same, critical where it is unusual too. Default 1000000."
    )
    read_rows_per_s: Count | None = Field(
        None, description="Read in the database; below, nothing is unusual. Default 100000."
    )
    transactions_per_s: Count | None = Field(None, description="The same of transactions. Default 500.")
    connections_floor: Count | None = Field(
        None, description="Connections of a login; below, nothing is unusual. Default 10."
    )
    temp_mb: Count | None = Field(None, description="Temporary files of a statement. Default 1024.")
    temp_critical_mb: Count | None = Field(None, description="The same, critical. Default 10240.")
    growth_mb: Count | None = Field(
        None, description="By which the database grows in an hour; below, nothing is unusual. Default 1024."
    )
    learning_days: float | None = Field(
        None,
        ge=1,
        le=90,
        description="Before a login was watched for so long, nothing of it is unusual. Default 7.",
    )
    deviations: float | None = Field(
        None,
        ge=1,
        le=100,
        description="Mean distances above the mean from which on it is unusual. Default 6.",
    )

    @model_validator(mode="after")
    def _critical_above_warning(self) -> ThresholdsDocument:
        for mild, grave in _PAIRS:
            low, high = (getattr(self, key) or usual_threshold(key) for key in (mild, grave))
            if low > high:
                raise ValueError(
                    f"{mild} ({low}) is above {grave} ({high}), expected the critical one to be larger; give both"
                )
        return self

    def named(self) -> dict[str, float]:
        """What was said, by the names and in the units of `Thresholds`."""
        found = {}
        for key, value in self.model_dump(exclude_none=True).items():
            name, unit = _OTHER_UNITS.get(key, (key, 1))
            found[name] = value * unit
        return found


def usual_threshold(key: str) -> float:
    """What the watch takes where a document says nothing, in the unit of the document's key."""
    from datops_assets.databases import Thresholds

    name, unit = _OTHER_UNITS.get(key, (key, 1))
    value = getattr(Thresholds(), name) / unit
    return int(value) if value == int(value) else value


class LoginDocument(Part):
    """One way in: of a program, or of a person."""

    access: Literal["owner", "writer", "reader"] = Field(
        description="`owner` makes and changes tables, `writer` reads and changes rows, `reader` reads."
    )
    connections: int = Field(5, ge=1, le=10_000, description="Most connections at once.")
    limits: LimitsDocument = LimitsDocument()
    expires: date | None = Field(None, description="Last day (UTC) on which it is let in.")
    rotate_after_days: int | None = Field(
        None, ge=1, le=3650, description="The check `passwords` warns when the password is older."
    )
    password_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Variable that holds the password. Left out: datops makes it and keeps it in a file.",
    )
    exports: bool = Field(
        False, description="It may copy whole tables out: a program for exports or dumps. No finding then."
    )
    absent: bool = Field(
        False, description="`true` removes the login; leaving it out of the document does not."
    )


class ServerDocument(DatabaseSource):
    """The server, and the administrator who makes the roles there."""

    type: Literal["database"] = "database"


class TeamDatabaseDocument(Part):
    """One database of a team."""

    database: TableName = Field(description="Its name; roles and logins begin with it.")
    team: str = Field(min_length=1, description="Who answers for it.")
    environment: TableName | None = Field(
        None, description="Behind the name: `sales` in `test` is `sales_test`."
    )
    description: str | None = None
    owners: list[Owner] = Field(default_factory=list, description="E-mail addresses, or `team:name`.")
    tags: Tags = Field(default_factory=dict)
    server: ServerDocument | None = Field(None, description="Default: the server of the warehouse.")
    inside: str | None = Field(
        None, min_length=1, max_length=63, description="Database of others in which to have schemas only."
    )
    schemas: list[SchemaName] = Field(
        default_factory=list, description="Default: `main`, and with `inside` one of the database's name."
    )
    connections: int = Field(50, ge=1, le=100_000, description="Most connections of all logins together.")
    limits: LimitsDocument = LimitsDocument()
    thresholds: ThresholdsDocument = ThresholdsDocument()
    logins: dict[LoginName, LoginDocument] = Field(default_factory=dict)
    schedule: Cron | None = Field(None, description="Cron line (UTC) of the checks.")
    absent: bool = Field(False, description="`true` removes database, roles and passwords.")

    @field_validator("server")
    @classmethod
    def _postgres(cls, server: ServerDocument | None) -> ServerDocument | None:
        if server is not None and not server.url.startswith(("postgresql://", "postgres://", "${")):
            raise ValueError(
                "not a PostgreSQL server, expected a URL such as postgresql://admin@host/postgres"
            )
        return server

    @model_validator(mode="after")
    def _short_enough(self) -> TeamDatabaseDocument:
        if len(self.name) > _LONGEST_NAME:
            raise ValueError(f"{self.name} is too long, expected at most {_LONGEST_NAME} characters")
        names = [f"{self.name}_{login}_{turn}" for login in self.logins for turn in ("a", "b")]
        taken = {f"{self.name}_{access}" for access in ("owner", "writer", "reader")}
        if len(set(names)) != len(names) or taken & set(names):
            raise ValueError("two logins make roles of one name, expected names that stay apart")
        return self

    @property
    def name(self) -> str:
        """Of the database, and the beginning of its roles' names."""
        return f"{self.database}_{self.environment}" if self.environment else self.database

    def desired(self) -> TeamDatabase:
        """What the domain plans by."""
        from datops_assets.databases import Limits, Login, TeamDatabase

        def limits(login: LoginDocument) -> Limits:
            said = {**self.limits.model_dump(exclude_none=True), **login.limits.model_dump(exclude_none=True)}
            return Limits(**{key: value or None for key, value in said.items()})

        logins = tuple(
            Login(
                name,
                login.access,
                login.connections,
                limits(login),
                datetime.combine(login.expires, time.max, UTC).replace(microsecond=0)
                if login.expires
                else None,
                login.absent,
                login.exports,
            )
            for name, login in self.logins.items()
        )
        return TeamDatabase(
            name=self.name,
            database=self.inside or self.name,
            schemas=tuple(self.schemas) or ((self.name,) if self.inside else ("main",)),
            logins=logins,
            whole=self.inside is None,
            connections=self.connections,
            absent=self.absent,
            team=self.team,
            thresholds=self.thresholds.named(),
        )

    def own_thresholds(self) -> dict[str, tuple[float, float]]:
        """The thresholds that the document gives, each beside the usual one."""
        said = self.thresholds.model_dump(exclude_none=True)
        return {key: (value, usual_threshold(key)) for key, value in said.items()}

    def administrator(self, project_root: Path) -> Warehouse:
        """The server, as its administrator; started where it is our own. Holds the password.

        raises    DeclarationError, TerminalError: a variable is not set; WarehouseError: nobody lets us in
        """
        return open_server(self.server, project_root)

    def connect(self, project_root: Path) -> Connect:
        """Opens connections as administrator."""
        server = self.administrator(project_root)

        def connect(dbname: str | None) -> psycopg.Connection:
            return (server.at(dbname) if dbname else server).connect()

        return connect

    def store(self, project_root: Path) -> SecretStore:
        """Where the passwords are."""
        from datops_assets.databases import FileStore, StoreOfEach, VariableStore

        desired = self.desired()
        variables = {
            (self.name, login.name): (variable, desired.pair(login)[0])
            for login in desired.logins
            if (variable := self.logins[login.name].password_env)
        }
        others = VariableStore(variables, lambda name: expand(name, project_root))
        folder = read_settings(project_root).home / "secrets" / "databases"
        return StoreOfEach(FileStore(folder), dict.fromkeys(variables, others))


def open_server(server: ServerDocument | None, project_root: Path) -> Warehouse:
    """The server a document names, else the warehouse's; as `TeamDatabaseDocument.administrator`."""
    from dataclasses import replace

    from datops_assets.resources.warehouse import check_version, open_warehouse, parse_url

    if server is None:
        return open_warehouse(read_settings(project_root))
    parsed = parse_url(fill_in(server.url), "server.url")
    if server.password_env:
        secret = read_secret(server.password_env, project_root).get_secret_value()
        parsed = replace(parsed, password=secret)
    return check_version(parsed)


@dataclass(frozen=True)
class LoadedTeamDatabase:
    """A document that is right in itself, and the file it came from."""

    document: TeamDatabaseDocument
    source: YamlSource


def read_team_database(path: Path, project_root: Path) -> LoadedTeamDatabase:
    """Read one file.

    raises    DeclarationError: every problem of the file, as `file:line: what, what was expected`
    """
    source = read_yaml(path, shown_as=shown_path(path, project_root))
    document = validate(source, TeamDatabaseDocument)
    problems = unset_problems(source, ["server", "url"], document.server.url) if document.server else []
    if problems:
        raise DeclarationError(problems)
    return LoadedTeamDatabase(document, source)


def check_names(databases: list[LoadedTeamDatabase]) -> list[str]:
    """Two documents of one name on one server would undo each other."""
    seen: dict[tuple[str, str], LoadedTeamDatabase] = {}
    problems = []
    for loaded in databases:
        where = loaded.document.server.url if loaded.document.server else ""
        first = seen.setdefault((where, loaded.document.name), loaded)
        if first is not loaded:
            what = f"{first.source.file} declares {loaded.document.name} too, expected one document for each"
            problems.append(loaded.source.problem(["database"], what))
    return problems
