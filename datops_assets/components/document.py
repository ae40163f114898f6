"""The pipeline document: one YAML file a source system, many tables.

Belongs here: the model of the document, reading and checking it, the references between
documents. Does not: files (ingestion), verdicts (quality), assets (pipeline.py).

The same document serves the component, `datops pipeline run --config FILE` and the
JSON schema for editors. The bare form `source_systems: [{name, type, path}]` is turned
into the full form, so that nothing downstream knows two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from datops_assets.components.texts import (
    VARIABLE,
    Asset,
    Cron,
    Day,
    Encoding,
    Glob,
    Marker,
    Name,
    Owner,
    PathTemplate,
    Pool,
    TableName,
    Tags,
    is_name,
)
from datops_assets.components.yaml_source import PARTS_ERROR, YamlSource, read_yaml, validate
from datops_assets.config.settings import expand
from datops_assets.errors import DeclarationError
from datops_assets.postgres.names import LONGEST_NAME_BYTES
from datops_assets.quality import Contract, ForeignKeyRule

if TYPE_CHECKING:
    from datops_assets.ingestion import FileTable

_MOST_COLUMNS = 1500
"""A table of PostgreSQL has at most 1,600, ours among them."""
_LONGEST_AGE_H = 24 * 3650
CONTRACT_CHECK = "contract"
"""Name of the check of all columns together; no rule may have it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilesSource(_Part):
    """Files below one folder."""

    type: Literal["files"]
    path: PathTemplate = Field(
        description="Folder of the files; relative to the project root. ${NAME} is a variable."
    )


class Csv(_Part):
    """How the CSV files of a table are written."""

    delimiter: str = Field(",", min_length=1, max_length=1)
    encoding: Encoding = "utf-8"
    header: bool = Field(True, description="Whether the first record holds the column names.")

    @field_validator("delimiter")
    @classmethod
    def _delimiter(cls, value: str) -> str:
        if not value.isascii() or value in '"\r\n\0':
            raise ValueError("not a delimiter, expected one ASCII character other than a quote or a line end")
        return value


class Landing(_Part):
    """When a file counts as fully delivered, and how many a day should bring."""

    stable_for_s: float = Field(
        0, ge=0, allow_inf_nan=False, description="Seconds since the last change before a file is taken."
    )
    done_marker: Marker | None = Field(
        None,
        description='A file beside it that says "complete"; {name} stands for the file, e.g. `{name}.done`.',
    )
    files_per_day: int | None = Field(None, ge=1, description="Checked on the bronze asset.")


class DailyPartition(_Part):
    """One partition a day, read from the file's path."""

    daily: str = Field(description="Regular expression; group `date`, else the first group, holds the day.")
    format: str = Field("%Y-%m-%d", description="How the day is written there.")
    start: Day = Field(description="First day there is.")

    @field_validator("daily")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression ({error.msg}), expected one with a group") from None
        if not pattern.groups:
            raise ValueError("the regular expression has no group, expected (?P<date>…) around the day")
        return value


class Freshness(_Part):
    """How old the last materialization may be."""

    warn_after_h: float | None = Field(None, gt=0, le=_LONGEST_AGE_H, description="Hours until a warning.")
    fail_after_h: float = Field(gt=0, le=_LONGEST_AGE_H, description="Hours until the table counts as stale.")

    @model_validator(mode="after")
    def _in_order(self) -> Freshness:
        if self.warn_after_h is not None and self.warn_after_h >= self.fail_after_h:
            raise ValueError("warn_after_h is not below fail_after_h, expected a warning before the failure")
        return self


class Retries(_Part):
    """How often a step is tried again after an error that may pass."""

    max: int = Field(2, ge=0, le=20, description="Tries after the first one.")
    delay_s: float = Field(10, gt=0, le=3600, description="Wait before the second try; doubles after that.")


class TableDocument(_Part):
    """One table: which files, how they are read, what silver demands."""

    files: Glob = Field(description="Glob below the source's path, e.g. `orders/*.csv`.")
    format: Literal["csv", "jsonl", "json", "parquet"] | None = Field(
        None, description="Taken from the file's ending where it is not given."
    )
    csv: Csv = Csv()
    records: str | None = Field(None, description="JSON files: dotted path to the array of records.")
    landing: Landing = Landing()
    load: Literal["append", "replace", "merge", "snapshot"] = Field(
        "append", description="What a delivery does to those before it: see [below](#what-load-means)."
    )
    changed_file: Literal["append", "replace", "refuse"] = Field(
        "replace",
        description="What a known path with new content does: see [below](#what-changed_file-means).",
    )
    rename: dict[str, Name] = Field(default_factory=dict, description="Delivered name: contract name.")
    partition: DailyPartition | None = None
    contract: Contract | None = None
    description: str | None = None
    owners: list[Owner] = Field(default_factory=list)
    tags: Tags = Field(default_factory=dict)
    freshness: Freshness | None = None

    @model_validator(mode="after")
    def _key_where_needed(self) -> TableDocument:
        if self.load in ("merge", "snapshot") and not (self.contract and self.contract.key):
            raise ValueError(f"load: {self.load} has no key to go by, expected `contract: {{key: [...]}}`")
        return self

    @model_validator(mode="after")
    def _renamed_to_columns(self) -> TableDocument:
        if self.contract is None:
            return self
        columns = ", ".join(self.contract.columns)
        problems = [
            (("rename", delivered), f"{name} is no column of the contract, expected one of: {columns}")
            for delivered, name in self.rename.items()
            if name not in self.contract.columns
        ]
        if problems:
            sentences = "; ".join(what for _, what in problems)
            raise PydanticCustomError(
                PARTS_ERROR, "{sentences}", {"sentences": sentences, "problems": problems}
            )
        return self

    @field_validator("contract")
    @classmethod
    def _contract(cls, contract: Contract | None) -> Contract | None:
        if contract is None:
            return None
        if len(contract.columns) > _MOST_COLUMNS:
            raise ValueError(f"{len(contract.columns)} columns, expected at most {_MOST_COLUMNS}")
        if any(rule.check_name() == CONTRACT_CHECK for rule in contract.rules):
            raise ValueError(
                f"a rule is called {CONTRACT_CHECK}, expected another name: the columns' check has it"
            )
        return contract


class PipelineDocument(_Part):
    """One source system and its tables."""

    pipeline: TableName = Field(description="Name of the source system; first part of every table's name.")
    team: str = Field(min_length=1, description="Who answers for it.")
    description: str | None = None
    owners: list[Owner] = Field(default_factory=list, description="E-mail addresses, or `team:name`.")
    tags: Tags = Field(default_factory=dict)
    schedule: Cron | None = Field(None, description="Cron line (UTC). The file sensor works without it.")
    sensor: Literal["running", "stopped"] = Field(
        "running", description="Whether new files start runs as soon as the daemon is up."
    )
    source: FilesSource
    after: list[Asset] = Field(
        default_factory=list, description="Assets that have to be there first, e.g. `synthetic/shop`."
    )
    pool: Pool | None = Field(None, description="Dagster pool of the loads; default source_<pipeline>.")
    retries: Retries = Retries()
    freshness: Freshness | None = None
    tables: dict[TableName, TableDocument] = Field(min_length=1)

    @model_validator(mode="after")
    def _short_names(self) -> PipelineDocument:
        for name in self.tables:
            if len(f"{self.pipeline}_{name}") > LONGEST_NAME_BYTES:
                raise ValueError(
                    f"tables.{name}: {self.pipeline}_{name} is too long a name for a table,"
                    f" expected at most {LONGEST_NAME_BYTES} characters"
                )
        return self

    @model_validator(mode="after")
    def _references(self) -> PipelineDocument:
        for name in self.tables:
            if name in self._upstream(name):
                raise ValueError(f"tables.{name}: its foreign keys lead back to itself, expected no cycle")
        return self

    @property
    def has_days(self) -> bool:
        """Whether any table has daily partitions."""
        return any(table.partition for table in self.tables.values())

    def references(self, table: str) -> list[tuple[str, str]]:
        """(source, table) of every silver table that `table`'s foreign keys look into."""
        contract = self.tables[table].contract
        if contract is None:
            return []
        found = []
        for rule in contract.rules:
            if isinstance(rule, ForeignKeyRule):
                source, _, name = rule.references.rpartition(".")
                found.append((source or self.pipeline, name))
        return list(dict.fromkeys(found))

    def _upstream(self, table: str) -> set[str]:
        """Tables of this document that `table` depends on, itself only where there is a cycle."""
        seen: set[str] = set()
        waiting = [name for source, name in self.references(table) if source == self.pipeline]
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self.tables:
                continue
            seen.add(name)
            if name == table:
                break
            waiting += [other for source, other in self.references(name) if source == self.pipeline]
        return seen

    def load_order(self) -> list[str]:
        """Table names, referenced ones first."""
        ordered: list[str] = []
        for name in self.tables:
            for needed in sorted(self._upstream(name), key=lambda other: len(self._upstream(other))):
                if needed not in ordered:
                    ordered.append(needed)
            if name not in ordered:
                ordered.append(name)
        return ordered

    def file_table(self, name: str, project_root: Path) -> FileTable:
        """What ingestion needs to know of one table.

        raises    DeclarationError: a variable of the path is not set
        """
        from datops_assets import ingestion

        table = self.tables[name]
        days = table.partition
        return ingestion.FileTable(
            source=self.pipeline,
            name=name,
            root=resolve_path(self.source.path, project_root),
            pattern=table.files,
            format=table.format,
            csv=ingestion.CsvOptions(**table.csv.model_dump()),
            records=table.records,
            landing=ingestion.Landing(**table.landing.model_dump()),
            disposition=table.load,
            changed_file=table.changed_file,
            partition=ingestion.FilePartition(days.daily, days.format) if days else None,
            rename=table.rename,
        )


class BareSource(_Part):
    """One entry of the bare form."""

    name: TableName
    type: Literal["csv", "jsonl", "json", "parquet"]
    path: PathTemplate


class BareDocument(_Part):
    """The bare form: bronze only, no contract yet."""

    source_systems: list[BareSource] = Field(min_length=1)
    team: str = "unassigned"


@dataclass(frozen=True)
class LoadedDocument:
    """A document that is right in itself, and the file it came from."""

    document: PipelineDocument
    source: YamlSource
    bare: bool = False


def resolve_path(template: str, project_root: Path) -> Path:
    """Fill in ${NAME} and make the path absolute, relative to the project root.

    raises    DeclarationError: a variable is not set, or it is no path (its name, never a value)
    """

    def fill(match: re.Match[str]) -> str:
        value = expand(match.group(1))
        if value is None:
            raise DeclarationError(
                [f"the variable {match.group(1)} is not set; export it or write it into .env"]
            )
        return value

    try:
        return (project_root / Path(VARIABLE.sub(fill, template)).expanduser()).resolve()
    except (RuntimeError, ValueError, OSError):  # ~nobody, a loop of links
        raise DeclarationError([f"{template!r} leads nowhere, expected the path of a folder"]) from None


def read_documents(path: Path, project_root: Path) -> list[LoadedDocument]:
    """Read one file: one pipeline, or one for each entry of the bare form.

    raises    DeclarationError: every problem of the file, as `file:line: what, what was expected`
    """
    source = read_yaml(path, shown_as=_shown(path, project_root))
    if isinstance(source.values, dict) and "source_systems" in source.values:
        return _read_bare(source)
    document = validate(source, PipelineDocument)
    problems = _unset_variables(source, ("source", "path"), document.source.path)
    if problems:
        raise DeclarationError(problems)
    return [LoadedDocument(document, source)]


def check_together(documents: Iterable[LoadedDocument]) -> list[str]:
    """What is wrong between documents: names that collide, references that lead nowhere."""
    problems: list[str] = []
    owner: dict[str, LoadedDocument] = {}
    tables: dict[str, str] = {}
    loaded = list(documents)
    for item in loaded:
        name = item.document.pipeline
        if name in owner:
            problems.append(
                item.source.problem(
                    ["pipeline"], f"also declared in {owner[name].source.file}, expected once"
                )
            )
            continue
        owner[name] = item
        for table in item.document.tables:
            problems += _collision(item, table, tables)
    for item in loaded:
        problems += _dangling(item, owner)
    return problems


def check_beside(aside: Iterable[LoadedDocument], declared: Iterable[LoadedDocument]) -> list[str]:
    """Which names of documents from elsewhere the project's documents already have."""
    known = list(declared)
    pipelines = {item.document.pipeline: item.source.file for item in known}
    tables = {
        f"{item.document.pipeline}_{table}": f"{item.document.pipeline}.{table} of {item.source.file}"
        for item in known
        for table in item.document.tables
    }
    problems: list[str] = []
    for item in aside:
        name = item.document.pipeline
        where = _name_of(item)
        if name in pipelines:
            what = f"{name} is declared in {pipelines[name]}, expected a name of its own"
            problems.append(item.source.problem(where, what))
            continue
        for table in item.document.tables:
            physical = f"{name}_{table}"
            if physical in tables:
                what = f"would share the table {physical} with {tables[physical]}, expected a name of its own"
                problems.append(item.source.problem(["tables", table], what))
    return problems


def _name_of(item: LoadedDocument) -> list[str | int]:
    """Where a document says its pipeline's name."""
    if not item.bare:
        return ["pipeline"]
    names = [system["name"] for system in item.source.values["source_systems"]]
    return ["source_systems", names.index(item.document.pipeline), "name"]


def _collision(item: LoadedDocument, table: str, tables: dict[str, str]) -> list[str]:
    """shop_a.b and shop.a_b would share bronze.shop_a_b."""
    physical = f"{item.document.pipeline}_{table}"
    here = f"{item.document.pipeline}.{table}"
    there = tables.setdefault(physical, here)
    if there == here:
        return []
    return [
        item.source.problem(
            ["tables", table], f"would share the table {physical} with {there}, expected a name of its own"
        )
    ]


def _dangling(item: LoadedDocument, owner: Mapping[str, LoadedDocument]) -> list[str]:
    problems: list[str] = []
    for table, spec in item.document.tables.items():
        for index, rule in enumerate(spec.contract.rules if spec.contract else ()):
            if not isinstance(rule, ForeignKeyRule):
                continue
            source, _, name = rule.references.rpartition(".")
            target = owner.get(source) if source else item
            found = target.document.tables.get(name) if target else None
            said = [f"references {rule.references}, expected a table with a contract"]
            if found is not None and found.contract is not None:
                columns = list(found.contract.columns)
                said = [
                    f"{rule.references} has no column {column}, expected one of: {', '.join(columns)}"
                    for column in rule.columns
                    if column not in columns
                ]
            where: list[str | int] = ["tables", table, "contract", "rules", index]
            problems += [item.source.problem(where, what) for what in said]
    return problems


def _read_bare(source: YamlSource) -> list[LoadedDocument]:
    bare = validate(source, BareDocument)
    problems, documents = [], []
    for index, system in enumerate(bare.source_systems):
        problems += _unset_variables(source, ("source_systems", index, "path"), system.path)
        try:
            documents.append(LoadedDocument(_from_bare(system, bare.team), source, bare=True))
        except ValidationError as error:
            where: list[str | int] = ["source_systems", index, "path"]
            problems += [
                source.problem(where, item["msg"].removeprefix("Value error, ")) for item in error.errors()
            ]
    if problems:
        raise DeclarationError(problems)
    return documents


def _from_bare(system: BareSource, team: str) -> PipelineDocument:
    folder, pattern = _split_pattern(system.path, system.type)
    stem = folder.name if "*" in pattern else pattern.split(".")[0]
    table = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")
    values: dict[str, Any] = {
        "pipeline": system.name,
        "team": team,
        "source": {"type": "files", "path": str(folder)},
        "tables": {table if is_name(table) else system.name: {"files": pattern, "format": system.type}},
    }
    return PipelineDocument.model_validate(values)


def _split_pattern(path: str, ending: str) -> tuple[Path, str]:
    """Part a path where its first wildcard is, else before its file; a folder means its files of that type."""
    parts = Path(path).parts
    wild = next((n for n, part in enumerate(parts) if "*" in part), None)
    if wild is not None:
        return Path(*parts[:wild]), "/".join(parts[wild:])
    if Path(path).suffix == "":
        return Path(path), f"*.{ending}"
    return Path(path).parent, Path(path).name


def _unset_variables(source: YamlSource, path: tuple[str | int, ...], template: str) -> list[str]:
    unset = [name for name in VARIABLE.findall(template) if expand(name) is None]
    return [
        source.problem(path, f"the variable {name} is not set, expected it in the environment or in .env")
        for name in unset
    ]


def _shown(path: Path, project_root: Path) -> str:
    try:
        return str(path.resolve().relative_to(project_root.resolve()))
    except ValueError:
        return str(path)
