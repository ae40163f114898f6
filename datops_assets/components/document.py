"""The pipeline document: one YAML file a source system, many tables.

Belongs here: the model of the document, whatever its source is. Does not: what a kind of source
adds to it (sources/), reading files and holding them against each other (documents.py), files
(ingestion), verdicts (quality), assets (pipeline.py).

The same document serves the component, `datops pipeline run --config FILE` and the
JSON schema for editors.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from datops_assets.components.contract_checks import Contract
from datops_assets.components.texts import Asset, Cron, Day, Name, Owner, Pool, TableName, Tags
from datops_assets.components.transform_steps import StepDocument
from datops_assets.components.yaml_source import PARTS_ERROR
from datops_assets.postgres.names import LONGEST_NAME_BYTES
from datops_assets.quality import ContractTest, ReferringRule
from datops_assets.quality.contract import Disposition
from datops_assets.transform import Input

_MOST_COLUMNS = 1500
"""A table of PostgreSQL has at most 1,600, ours among them."""
_LONGEST_AGE_H = 24 * 3650
CONTRACT_CHECK = "contract"
"""Name of the check of all columns together; no rule may have it."""


class Part(BaseModel):
    """A part of a document: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSettings(Part):
    """Where the rows come from. Each kind of source has keys of its own, given below under its name."""

    type: str = Field(description="Kind of source: `datops plugins list` shows which there are.")
    templated: ClassVar[tuple[str, ...]] = ()
    """Keys in which ${NAME} stands for a variable."""

    @property
    def shown(self) -> str:
        """Say where it is, for people; no secret."""
        raise NotImplementedError


class DailyPartition(Part):
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


class Freshness(Part):
    """How old the last materialization may be."""

    warn_after_h: float | None = Field(None, gt=0, le=_LONGEST_AGE_H, description="Hours until a warning.")
    fail_after_h: float = Field(gt=0, le=_LONGEST_AGE_H, description="Hours until the table counts as stale.")

    @model_validator(mode="after")
    def _in_order(self) -> Freshness:
        if self.warn_after_h is not None and self.warn_after_h >= self.fail_after_h:
            raise ValueError("warn_after_h is not below fail_after_h, expected a warning before the failure")
        return self


class Retries(Part):
    """How often a step is tried again after an error that may pass."""

    max: int = Field(2, ge=0, le=20, description="Tries after the first one.")
    delay_s: float = Field(10, gt=0, le=3600, description="Wait before the second try; doubles after that.")


class JudgedTable(Part):
    """What silver demands of one table, wherever its rows come from."""

    rename: dict[str, Name] = Field(default_factory=dict, description="Delivered name: contract name.")
    schema_policy: Literal["evolve", "freeze", "quarantine"] = Field(
        "evolve",
        alias="schema",
        description="What columns other than the known ones do: see [below](#what-schema-means).",
    )
    contract: Contract | None = None
    tests: list[ContractTest] = Field(
        default_factory=list, description="Unit tests of the contract: `datops contract test` runs them."
    )
    description: str | None = None
    owners: list[Owner] = Field(default_factory=list)
    tags: Tags = Field(default_factory=dict)
    freshness: Freshness | None = None

    @model_validator(mode="after")
    def _known_columns(self) -> JudgedTable:
        if self.schema_policy == "quarantine" and self.contract is None:
            raise ValueError("schema: quarantine has no columns to go by, expected a `contract:`")
        if self.tests and self.contract is None:
            raise ValueError("tests: there is nothing to test, expected a `contract:`")
        return self

    @model_validator(mode="after")
    def _renamed_to_columns(self) -> JudgedTable:
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
    def _contract(cls, contract: Contract | None, info: ValidationInfo) -> Contract | None:
        if contract is None:
            return None
        if info.data.get("schema_policy") == "quarantine":
            contract = contract.model_copy(update={"closed": True})
        if len(contract.columns) > _MOST_COLUMNS:
            raise ValueError(f"{len(contract.columns)} columns, expected at most {_MOST_COLUMNS}")
        if any(rule.check_name() == CONTRACT_CHECK for rule in contract.rules):
            raise ValueError(
                f"a rule is called {CONTRACT_CHECK}, expected another name: the columns' check has it"
            )
        return contract

    def references(self, source: str) -> list[tuple[str, str]]:
        """(source, table) of every silver table that the contract's rules look into; `source` is this table's."""
        found = []
        for rule in self.contract.rules if self.contract else ():
            if isinstance(rule, ReferringRule):
                other, _, name = rule.references.rpartition(".")
                found.append((other or source, name))
        return list(dict.fromkeys(found))


class Keep(Part):
    """How long bronze keeps rows that silver no longer needs: see [below](#what-keep-means)."""

    loads: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="This many loads that gave way; of merged ones, besides the newest.",
    )
    days: int | None = Field(None, ge=1, le=36_500, description="Loads of the last so many days.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Keep:
        if (self.loads is None) == (self.days is None):
            raise ValueError("expected either loads or days")
        return self


class TableDocument(JudgedTable):
    """One table: what of the source it is, what silver demands. Each kind of source adds its own keys."""

    load: Disposition = Field(
        "append", description="What a delivery does to those before it: see [below](#what-load-means)."
    )
    allow_empty: bool = Field(
        False,
        description="With `load: replace` or `snapshot`: a delivery without a record may take the place of records."
        " Otherwise it is refused.",
    )
    keep: Keep | None = Field(
        None, description="How long bronze keeps rows that silver no longer needs; none: for ever."
    )

    @property
    def delivered_as(self) -> str:
        """Say what of the source it is, for people: a pattern, a table, a path."""
        raise NotImplementedError

    @property
    def technology(self) -> str:
        """Name what it comes as, for the asset's icon: csv, postgres, rest."""
        raise NotImplementedError

    @property
    def days(self) -> DailyPartition | None:
        """Its daily partitions; None where what it delivers belongs to no day."""
        return None

    @property
    def disposition(self) -> Disposition:
        """What a delivery does to those before it, where the document leaves it open too."""
        return self.load

    @model_validator(mode="after")
    def _key_where_needed(self) -> TableDocument:
        if self.load in ("merge", "snapshot") and not (self.contract and self.contract.key):
            raise ValueError(f"load: {self.load} has no key to go by, expected `contract: {{key: [...]}}`")
        return self

    @model_validator(mode="after")
    def _empty_where_whole(self) -> TableDocument:
        if self.allow_empty and self.disposition not in ("replace", "snapshot"):
            raise ValueError(
                f"allow_empty: nothing gives way under load: {self.disposition}, expected replace or snapshot"
            )
        return self


class TransformDocument(Part):
    """One table that is made of others: `silver.<pipeline>_<name>`, built anew by each run."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: Input = Field(
        alias="from",
        description="Table with a contract, or transformation, of this document; or `PIPELINE.TABLE` of another.",
    )
    steps: list[StepDocument] = Field(min_length=1, description="Done one after the other.")
    description: str | None = None
    owners: list[Owner] = Field(default_factory=list)
    tags: Tags = Field(default_factory=dict)
    freshness: Freshness | None = None


class PipelineDocument(Part):
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
    source: SourceSettings
    after: list[Asset] = Field(
        default_factory=list, description="Assets that have to be there first, e.g. `synthetic/shop`."
    )
    pool: Pool | None = Field(None, description="Dagster pool of the loads; default source_<pipeline>.")
    retries: Retries = Retries()
    freshness: Freshness | None = None
    tables: dict[TableName, TableDocument] = Field(min_length=1)
    transforms: dict[TableName, TransformDocument] = Field(
        default_factory=dict,
        description="Tables made of silver tables: see [transformations](../transformations.md).",
    )

    @model_validator(mode="after")
    def _short_names(self) -> PipelineDocument:
        for name in (*self.tables, *self.transforms):
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
                raise ValueError(f"tables.{name}: its rules lead back to itself, expected no cycle")
        return self

    @model_validator(mode="after")
    def _transforms(self) -> PipelineDocument:
        if self.transforms:
            from datops_assets.components.transform_statements import problems_of

            problems = problems_of(self)
            if problems:
                sentences = "; ".join(what for _, what in problems)
                raise PydanticCustomError(
                    PARTS_ERROR, "{sentences}", {"sentences": sentences, "problems": problems}
                )
        return self

    @property
    def has_days(self) -> bool:
        """Whether any table has daily partitions."""
        return any(table.days for table in self.tables.values())

    def references(self, table: str) -> list[tuple[str, str]]:
        """(source, table) of every silver table that `table`'s rules look into."""
        return self.tables[table].references(self.pipeline)

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
