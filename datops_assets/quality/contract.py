"""The contract of one table: a value, checked when it is read. No connection, no SQL.

Belongs here: what a document may say, what of it counts as a version. Does not: how a
verdict is reached (row_checks, set_rules, judging).

Rules over several parts of a contract (a key that is no column) are found together and
raised as one error of type `contract_parts`, whose `ctx["problems"]` holds
`(location, sentence)` pairs, so that the reader of the document can name every line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
    model_validator,
)

from datops_assets.quality.column_rule import ColumnRule
from datops_assets.quality.contract_parts import Judged, Part, parts_error
from datops_assets.quality.contract_rules import (
    CompareRule,
    ForeignKeyRule,
    FreshnessRule,
    HoldsRule,
    OwnCheckRule,
    RowRule,
    Rule,
    TableRule,
    UniqueRule,
)
from datops_assets.quality.named_patterns import PATTERNS_VERSION
from datops_assets.quality.types import TABLE_VERSION, ValueType

Disposition = Literal["append", "replace", "merge", "snapshot"]

COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
RESERVED = frozenset({"_load_id", "_row", "tableoid", "xmin", "xmax", "cmin", "cmax", "ctid"})


@dataclass(frozen=True)
class ColumnSchema:
    """One column of silver, for metadata."""

    name: str
    type: str
    nullable: bool
    description: str | None


class Contract(Part):
    """What silver promises about one table."""

    description: str | None = None
    key: list[str] = Field(
        default_factory=list, description="Columns that name one row; without a key all rows are kept."
    )
    latest_by: str | None = Field(
        None, description="Of several rows with one key the greatest wins, nulls last; ties by load order."
    )
    on_null_key: Literal["keep", "quarantine"] = Field(
        "quarantine", description="What happens to rows with a null in the key."
    )
    columns: dict[str, ColumnRule] = Field(min_length=1)
    rules: list[Rule] = Field(default_factory=list)
    closed: bool = Field(
        False,
        description="A row with a value in a column not named here is set aside; `schema: quarantine` sets it.",
    )
    ignore: list[str] = Field(
        default_factory=list,
        description="Delivered columns, by contract name, that are known and not wanted in silver.",
    )
    pandera: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$",
        description="A team's own schema, as package.module:Name; row-wise checks only.",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Contract:
        problems = list(_problems(self))
        if problems:
            raise parts_error(problems)
        return self

    def version(self, *, rename: Mapping[str, str] | None = None) -> str:
        """A short hash of what decides which rows and values silver holds.

        Descriptions, thresholds, and rules that only warn are left out: changing them
        needs no second look at rows already judged.
        """
        deciding = {
            "types": TABLE_VERSION,
            "key": self.key,
            "latest_by": self.latest_by,
            "on_null_key": self.on_null_key if self.key else None,
            "columns": {name: _deciding(rule) for name, rule in sorted(self.columns.items())},
            "rules": sorted(
                json.dumps(_deciding(rule), sort_keys=True, default=str)
                for rule in self.rules
                if _decides(rule)
            ),
            "pandera": self.pandera,
            "rename": dict(sorted((rename or {}).items())),
        }
        if any(rule.like is not None and rule.severity != "warn" for rule in self.columns.values()):
            deciding["patterns"] = PATTERNS_VERSION
        if self.closed:
            deciding["closed"] = sorted(self.ignore)
        return hashlib.sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def kinds(self) -> dict[str, ValueType]:
        """The type of each column."""
        return {name: column.kind for name, column in self.columns.items()}

    def columns_can_block(self) -> bool:
        """Whether a column's rule may roll a judgement back."""
        return any(rule.severity == "block" for rule in self.columns.values())

    def column_schema(self) -> list[ColumnSchema]:
        """The columns of silver as people see them."""
        return [
            ColumnSchema(name, rule.kind.name, self._nullable(name, rule), rule.description)
            for name, rule in self.columns.items()
        ]

    def _nullable(self, name: str, rule: ColumnRule) -> bool:
        refused_in_key = name in self.key and self.on_null_key == "quarantine"
        return not (refused_in_key or (rule.required and rule.severity != "warn"))


def _deciding(part: BaseModel) -> dict[str, Any]:
    content = part.model_dump(
        mode="json", exclude={"description", "max_rows", "max_ratio", "name"}, exclude_defaults=True
    )
    if isinstance(part, ColumnRule) and part.severity == "warn":
        for only_counted in ("required", "min", "max", "in_", "regex", "like", "length"):
            content.pop(only_counted, None)
    if isinstance(part, OwnCheckRule):
        content["expression"] = part.expression  # another version of the package may say another one
    # error and block refuse the same rows.
    content.pop("severity", None)
    return content


def _decides(rule: Judged) -> bool:
    return rule.severity != "warn" and not isinstance(rule, TableRule)


def _problems(contract: Contract) -> Any:
    columns = contract.columns
    for name in columns:
        if not COLUMN_NAME.fullmatch(name) or name in RESERVED:
            yield (
                ("columns", name),
                "not a column name, expected snake_case of at most 63 characters that datops does not use itself",
            )
    for position, name in enumerate(contract.key):
        if name not in columns:
            yield ("key", position), f"{name!r} is not a column of this contract"
        elif columns[name].kind.family == "json":
            yield ("key", position), f"{name!r} is json, which has no equality"
    for position, name in enumerate(contract.ignore):
        if name in columns:
            yield (
                ("ignore", position),
                f"{name!r} is a column of this contract, expected one that it does not name",
            )
    if len(set(contract.key)) < len(contract.key):
        yield ("key",), "names a column twice"
    yield from _latest_by_problems(contract)
    yield from _rule_problems(contract)


def _latest_by_problems(contract: Contract) -> Any:
    name = contract.latest_by
    if name is None:
        return
    if not contract.key:
        yield ("latest_by",), "means nothing without a key"
    if name not in contract.columns:
        yield ("latest_by",), f"{name!r} is not a column of this contract"
    elif contract.columns[name].kind.family in {"json", "bytea", "boolean"}:
        yield (
            ("latest_by",),
            f"{name!r} is {contract.columns[name].kind.family}, which says nothing about later",
        )


_CHECK_NAMES = frozenset({"contract", "pandera"})
"""Checks of a table that are no rule of it: all columns together, and a team's own schema."""


def _rule_problems(contract: Contract) -> Any:
    seen: set[str] = set()
    for position, rule in enumerate(contract.rules):
        where = ("rules", position)
        if rule.check_name() in _CHECK_NAMES:
            yield where, f"{rule.check_name()!r} is the name of a check of datops, expected another name"
        if rule.check_name() in seen:
            yield where, f"a second rule is called {rule.check_name()!r}; give it a name"
        seen.add(rule.check_name())
        for name in _own_columns(rule):
            if name not in contract.columns:
                yield where, f"{name!r} is not a column of this contract"
            elif contract.columns[name].kind.family == "json":
                yield where, f"{name!r} is json, which has no equality"
        if isinstance(rule, RowRule):
            from datops_assets.quality.expressions import read_expression

            try:
                read_expression(rule.expression, contract.kinds)
            except ValueError as error:
                yield where, str(error)
        elif isinstance(rule, HoldsRule):
            from datops_assets.quality.expressions import check_joined

            try:
                check_joined(rule.holds, contract.kinds, rule.prefix)
            except ValueError as error:
                yield where, str(error)
        elif isinstance(rule, FreshnessRule):
            column = contract.columns.get(rule.freshness)
            if column is not None and column.kind.family not in {"date", "timestamp", "timestamptz"}:
                yield where, f"{rule.freshness!r} is {column.type}, expected a date or a moment"


def _own_columns(rule: Rule) -> list[str]:
    """The columns of this table that a rule names."""
    if isinstance(rule, UniqueRule):
        return rule.unique
    if isinstance(rule, ForeignKeyRule):
        return rule.foreign_key
    if isinstance(rule, HoldsRule):
        return rule.match
    if isinstance(rule, FreshnessRule):
        return [rule.freshness]
    if isinstance(rule, CompareRule):
        return [*rule.by, *(name for name in (rule.ours[1],) if name is not None)]
    return []
