"""The stream document: one YAML file a database that is followed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from datops_assets.components.document import JudgedTable, Part
from datops_assets.components.sources.database import DatabaseSource, address_of
from datops_assets.components.sources.templates import unset_problems
from datops_assets.components.texts import Owner, TableName
from datops_assets.components.yaml_source import YamlSource, read_yaml, shown_path, validate
from datops_assets.errors import DeclarationError
from datops_assets.postgres.names import warehouse_name
from datops_assets.quality import RowCountRule, VolumeRule

if TYPE_CHECKING:
    from datops_assets.cdc import Capture, ChangeStream
    from datops_assets.cdc.query import QueriedTable
    from datops_assets.components.documents import LoadedDocument

STREAM_TYPE = "datops_assets.components.ChangeStream"


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"^[1-9][0-9]{0,5}[smhd]$"
_LOOKBACK = r"^[1-9][0-9]{0,8}[smhd]?$"
_OF_QUERIES = ("look_every", "compare_every")
_OF_QUERIED_TABLES = ("cursor", "lookback", "compare", "key", "exclude", "as_text")


class StreamSource(DatabaseSource):
    """The database that is followed. By `capture: log` a PostgreSQL whose role may replicate."""

    type: Literal["database"] = "database"


class KeptChanges(Part):
    """How long the log of a table's changes is kept: what is older, and read by silver and history, goes."""

    days: int = Field(
        ge=0,
        le=36_500,
        description="Changes of the last so many days; 0: no log is written, there is the mirror alone.",
    )


class StreamTable(JudgedTable):
    """One table that is followed."""

    table: str | None = Field(
        None, description="Its name there, `schema.name` or `name`; default: as it is called here."
    )
    silver: Literal["view"] | None = Field(None, description="`view`: silver shows the mirror as it is.")
    deletes: Literal["hard", "soft"] | None = Field(
        None, description="As of the stream, for this table alone; default: the stream's."
    )
    history: bool = Field(False, description="Whether silver keeps each version that a row had (SCD2).")
    keep: KeptChanges | None = Field(
        None, description="How long the log of its changes is kept; none: for ever."
    )
    cursor: str | None = Field(
        None, description="Column that grows with every change; by `capture: query` only."
    )
    lookback: str | None = Field(
        None,
        pattern=_LOOKBACK,
        description="Read again this far below what was reached, for rows that came late: `10m`, or steps of a number.",
    )
    compare: Literal["rows", "keys", "never"] | None = Field(
        None,
        description="What is compared with the source: `keys` finds deletes, `rows` changes too; default: `keys` with"
        " a cursor, `rows` without.",
    )
    key: list[str] = Field(
        default_factory=list, description="Columns that tell its rows apart; default: the primary key."
    )
    exclude: list[str] = Field(default_factory=list, description="Leave these columns out.")
    as_text: list[str] = Field(
        default_factory=list, description="Take these as the text the database prints, whatever their type."
    )

    @property
    def is_logged(self) -> bool:
        """Whether its changes are kept beside its mirror."""
        return self.keep is None or self.keep.days > 0

    @model_validator(mode="after")
    def _reads_a_log(self) -> StreamTable:
        if self.is_logged:
            return self
        if self.history:
            raise ValueError("keep: {days: 0} writes no log to tell a history from, expected 1 day or more")
        if self.contract is not None:
            raise ValueError(
                "keep: {days: 0} writes no log that says which keys to judge, expected 1 day or more, or `silver: view`"
            )
        return self

    @model_validator(mode="after")
    def _silver_is_one_thing(self) -> StreamTable:
        if self.silver is not None and self.contract is not None:
            raise ValueError("silver: view shows the mirror as it is, expected it or a `contract:`")
        if self.contract is not None and not self.contract.key:
            raise ValueError("contract: it has no key, expected `key: [...]`, the source's")
        for rule in self.contract.rules if self.contract else ():
            if isinstance(rule, VolumeRule) or (isinstance(rule, RowCountRule) and rule.of == "load"):
                raise ValueError(
                    f"rule {rule.check_name()} counts deliveries, and a mirror has none, expected others"
                )
        return self

    @model_validator(mode="after")
    def _cursor_is_there(self) -> StreamTable:
        if self.cursor is None and self.lookback is not None:
            raise ValueError("lookback goes back from a cursor, expected `cursor:` beside it")
        if self.cursor is None and self.compare in ("never", "keys"):
            raise ValueError(
                f"compare: {self.compare} finds no changed row without a cursor, expected `cursor:` or `compare: rows`"
            )
        return self


class StreamLimits(Part):
    """From where on the stream's check fails, though it goes on. Left out: never."""

    lag: str | None = Field(
        None, pattern=_DURATION, description="Longest that a change may wait: `30s`, `10m`, `1h`."
    )
    lag_mb: int | None = Field(
        None, ge=1, description="Log in the source that is not here yet; by `capture: log` only."
    )
    retained_mb: int | None = Field(
        None, ge=1, description="Log that the slot may hold back in the source; by `capture: log` only."
    )

    def exceeded(self, figures: Mapping[str, float]) -> list[str]:
        """Say which limits are passed, a sentence each.

        figures    of a stream's standing: lag_seconds, lag_bytes, retained_wal_bytes; what is not known passes none
        """
        lag_s, lag_mb = figures.get("lag_seconds", 0.0), figures.get("lag_bytes", 0) / 1e6
        retained_mb = figures.get("retained_wal_bytes", 0) / 1e6
        said = []
        if self.lag is not None and lag_s > _seconds(self.lag):
            said.append(f"{lag_s:.0f} s behind, expected at most {self.lag} (limits.lag)")
        if self.lag_mb is not None and lag_mb > self.lag_mb:
            said.append(f"{lag_mb:.0f} MB behind, expected at most {self.lag_mb} (limits.lag_mb)")
        if self.retained_mb is not None and retained_mb > self.retained_mb:
            said.append(
                f"the slot holds back {retained_mb:.0f} MB, expected at most {self.retained_mb} (limits.retained_mb)"
            )
        return said


class StreamDocument(Part):
    """One database whose changes are followed."""

    stream: TableName = Field(description="Name of the source system; first part of every table's name.")
    team: str = Field(min_length=1, description="Who answers for it.")
    description: str | None = None
    owners: list[Owner] = Field(default_factory=list, description="E-mail addresses, or `team:name`.")
    source: StreamSource
    capture: Literal["log", "query"] = Field(
        "log", description="`log`: follow PostgreSQL's log; `query`: look at the tables of any database."
    )
    look_every: str = Field(
        "5m", pattern=_DURATION, description="By `capture: query`: how often the tables are looked at."
    )
    compare_every: str | None = Field(
        None,
        pattern=_DURATION,
        description="By `capture: query`: how often they are compared; default: at each look.",
    )
    slot: str | None = Field(
        None, pattern=r"^[a-z0-9_]{1,63}$", description="Replication slot; default datops_<stream>."
    )
    publication: str | None = Field(None, min_length=1, max_length=63, description="Default datops_<stream>.")
    deletes: Literal["hard", "soft"] = Field(
        "hard",
        description="`hard`: a deleted row leaves the mirror; `soft`: it stays, marked when and by which change.",
    )
    sensor: Literal["running", "stopped"] = Field("running", description="Whether changes start runs.")
    limits: StreamLimits = Field(
        default_factory=StreamLimits, description="From where on the check `stream` fails."
    )
    tables: dict[TableName, StreamTable] = Field(min_length=1)

    @model_validator(mode="after")
    def _goes_with_capture(self) -> StreamDocument:
        if self.capture == "query":
            for name in ("lag_mb", "retained_mb"):
                if getattr(self.limits, name) is not None:
                    raise ValueError(
                        f"limits.{name} is of `capture: log`, expected `limits: {{lag: …}}` alone"
                    )
            for name in ("slot", "publication"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is of `capture: log`, expected it to be left out")
            if frozen := [name for name, table in self.tables.items() if table.schema_policy == "freeze"]:
                raise ValueError(
                    f"tables.{frozen[0]}.schema: freeze is of `capture: log`, expected evolve or quarantine"
                )
            if alone := [name for name, table in self.tables.items() if not table.is_logged]:
                raise ValueError(
                    f"tables.{alone[0]}.keep: {{days: 0}} is of `capture: log`, expected 1 day or more: what two looks"
                    " differ by is told by their log"
                )
            return self
        if not self.source.url.startswith(("postgresql://", "postgres://", "${")):
            raise ValueError(
                "only PostgreSQL's log can be followed, expected a URL such as postgresql://user@host/db,"
                " or `capture: query`"
            )
        of_queries = [name for name in _OF_QUERIES if name in self.model_fields_set]
        for table, declared in self.tables.items():
            of_queries += [
                f"tables.{table}.{n}" for n in _OF_QUERIED_TABLES if n in declared.model_fields_set
            ]
        if of_queries:
            raise ValueError(f"{', '.join(of_queries)}: expected `capture: query` beside it")
        return self

    @field_validator("tables")
    @classmethod
    def _logs_have_names_of_their_own(cls, tables: dict[str, StreamTable]) -> dict[str, StreamTable]:
        for name, table in tables.items():
            if f"{name}_changes" in tables:
                raise ValueError(
                    f"{name}_changes is how the log of {name} is called, expected another name for that table"
                )
            if table.history and f"{name}_history" in tables:
                raise ValueError(
                    f"{name}_history is how the history of {name} is called, expected another name for that table"
                )
        return tables

    @model_validator(mode="after")
    def _no_cycle(self) -> StreamDocument:
        try:
            self.silver_order()
        except CycleError as error:
            raise ValueError(
                f"tables.{error.args[1][0]}: its rules lead back to itself, expected no cycle"
            ) from None
        return self

    def silver_order(self) -> list[str]:
        """Table names, those that contracts look into first."""
        needed = {
            name: [other for source, other in table.references(self.stream) if source == self.stream]
            for name, table in self.tables.items()
        }
        return [name for name in TopologicalSorter(needed).static_order() if name in self.tables]

    def bronze_names(self) -> dict[str, str]:
        """What the stream writes in bronze, and the table of the document that it is of."""
        return {
            warehouse_name(self.stream, name): table
            for table in self.tables
            for name in (table, f"{table}_changes")
        }

    def assets_of(self, name: str) -> list[str]:
        """What a table has in bronze: its mirror, and the log of its changes where one is kept."""
        return [name, f"{name}_changes"] if self.tables[name].is_logged else [name]

    def change_stream(self) -> ChangeStream:
        """What the engine needs to know."""
        from datops_assets.cdc import ChangeStream, StreamedTable

        return ChangeStream(
            self.stream,
            self.slot or f"datops_{self.stream}",
            self.publication or f"datops_{self.stream}",
            tuple(
                StreamedTable(
                    name,
                    *self._where(name),
                    table.history,
                    tuple(sorted(table.rename.items())),
                    table.schema_policy == "freeze",
                    table.is_logged,
                    self.keeps_deleted(name),
                )
                for name, table in self.tables.items()
            ),
        )

    def engine(self, project_root: Path) -> Capture:
        """What moves the stream.

        raises    DeclarationError, TerminalError: a variable is not set
        """
        if self.capture == "log":
            from datops_assets.cdc import LogCapture

            return LogCapture(self.parameters(project_root), self.change_stream())
        from datops_assets.cdc.query import QueryCapture, QueryStream

        tables = tuple(self._queried(name, project_root) for name in self.tables)
        compare_every_s = _seconds(self.compare_every) if self.compare_every else 0.0
        return QueryCapture(QueryStream(self.stream, tables, compare_every_s), _seconds(self.look_every))

    def _queried(self, name: str, project_root: Path) -> QueriedTable:
        from datops_assets.cdc.query import QueriedTable
        from datops_assets.ingestion.database import DatabaseTable, Lookback, open_look

        table = self.tables[name]
        schema, dot, relation = (table.table or name).rpartition(".")
        declared = DatabaseTable(
            source=self.stream,
            name=name,
            schema=schema if dot else self.source.schema_,
            relation=relation,
            disposition="merge",
            cursor=table.cursor,
            lookback=Lookback.parse(table.lookback) if table.lookback else None,
            exclude=tuple(table.exclude),
            as_text=tuple(table.as_text),
        )
        address = address_of(self.source, project_root)
        return QueriedTable(
            name,
            declared.schema or "",
            relation,
            lambda: open_look(address, declared),
            table.cursor,
            table.compare or ("keys" if table.cursor else "rows"),
            tuple(table.key),
            table.history,
            tuple(sorted(table.rename.items())),
            self.keeps_deleted(name),
        )

    def keeps_deleted(self, name: str) -> bool:
        """Whether deleted rows of a table stay in its mirror, marked."""
        return (self.tables[name].deletes or self.deletes) == "soft"

    def _where(self, name: str) -> tuple[str, str]:
        schema, dot, table = (self.tables[name].table or name).rpartition(".")
        return (schema if dot else self.source.schema_ or "public", table)

    def parameters(self, project_root: Path) -> dict[str, Any]:
        """How the source is reached, by libpq's names. Holds the password.

        raises    DeclarationError, TerminalError: a variable is not set
        """
        return {"application_name": "datops", **address_of(self.source, project_root).libpq_parameters()}


def _seconds(duration: str) -> float:
    return float(int(duration[:-1]) * _SECONDS[duration[-1]])


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
