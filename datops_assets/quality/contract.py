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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from datops_assets.quality.cleaning import CleanStep
from datops_assets.quality.formats import Format, compile_format
from datops_assets.quality.named_patterns import PATTERNS_VERSION, PatternName
from datops_assets.quality.own_check import OwnCheck
from datops_assets.quality.patterns import Pattern, read_pattern
from datops_assets.quality.types import TABLE_VERSION, NotAValueError, ValueType, value_type

Severity = Literal["warn", "error", "block"]
Scalar = bool | int | float | Decimal | datetime | date | str
Disposition = Literal["append", "replace", "merge", "snapshot"]

COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
RESERVED = frozenset({"_load_id", "_row", "tableoid", "xmin", "xmax", "cmin", "cmax", "ctid"})
_AGGREGATE = re.compile(r"(count|sum|min|max|avg)\((\*|[a-z][a-z0-9_]{0,62})\)")
_DATED = frozenset({"date", "time", "timestamp", "timestamptz"})


@dataclass(frozen=True)
class ColumnSchema:
    """One column of silver, for metadata."""

    name: str
    type: str
    nullable: bool
    description: str | None


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Judged(_Part):
    severity: Severity = Field(
        "error", description="warn counts, error sets rows aside, block rolls the judgement back."
    )
    max_rows: int | None = Field(None, ge=0, description="More failing rows than this fail the check.")
    max_ratio: float | None = Field(
        None, ge=0, le=1, description="A larger share of failing rows fails the check."
    )


class Length(_Part):
    """Bounds of a text's length, in characters."""

    min: int | None = Field(None, ge=0)
    max: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> Length:
        if self.min is None and self.max is None:
            raise ValueError("expected min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        return self


class ColumnRule(_Judged):
    """What one column of silver holds. Bounds and sets are written as values of its type."""

    type: str
    description: str | None = None
    required: bool = Field(False, description="Null is not allowed.")
    min: Scalar | None = None
    max: Scalar | None = None
    in_: list[Scalar] | None = Field(None, alias="in", min_length=1, description="The only values allowed.")
    regex: str | None = Field(None, description="The whole value must match.")
    like: PatternName | None = Field(
        None, description="A pattern by name: `email`, `iban`, `uuid`, …: see [below](#patterns-by-name)."
    )
    length: Length | None = None
    from_: Literal["filename"] | None = Field(
        None, alias="from", description="Taken from the file's path by `pattern`."
    )
    pattern: str | None = Field(
        None, description="Its first group, in the file's path below the source's root, is the value."
    )
    formats: list[str] | None = Field(
        None, min_length=1, description="Accepted forms of a date or time, tried in order."
    )
    timezone: str | None = Field(None, description="IANA name; the zone of text without an offset.")
    clean: list[CleanStep] = Field(default_factory=list, description="Done to the text before it is judged.")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def kind(self) -> ValueType:
        """The type, with this column's time zone."""
        return value_type(self.type, self.timezone)

    @property
    def constant_kind(self) -> ValueType:
        """The type of bounds and set members; a moment without an offset is one in the column's zone, or UTC."""
        return value_type(self.type, self.timezone or "UTC")

    def constant_text(self, value: Scalar) -> str:
        """A bound or set member as text that `constant_kind` takes; of a day, its first moment."""
        return _constant_text(value, self.constant_kind)

    @property
    def compiled_formats(self) -> list[Format]:
        """`formats:`, ready to use."""
        return [compile_format(text, self.kind.family) for text in self.formats or []]

    @property
    def compiled_regex(self) -> Pattern | None:
        """`regex:`, ready to use."""
        return read_pattern(self.regex) if self.regex is not None else None

    @field_validator("type")
    @classmethod
    def _known_type(cls, name: str) -> str:
        return value_type(name).name

    @field_validator("min", "max", "in_")
    @classmethod
    def _of_the_type(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None or "type" not in info.data:
            return value
        kind = value_type(info.data["type"], "UTC")
        for each in value if isinstance(value, list) else [value]:
            _check_scalar(each, kind)
        if info.field_name != "in_" and kind.family in {"json", "bytea", "boolean", "uuid"}:
            raise ValueError(f"{kind.name} values have no order to bound")
        if info.field_name == "in_" and kind.family == "json":
            raise ValueError("json values have no equality to look up")
        return value

    @field_validator("regex", "pattern")
    @classmethod
    def _common_dialect(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is not None:
            read_pattern(text)
            if info.field_name == "pattern" and "(" not in text.replace("(?:", "").replace("\\(", ""):
                raise ValueError("the pattern has no group, expected one around the value, such as (\\d+)")
        return text

    @field_validator("formats")
    @classmethod
    def _dated(cls, formats: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if formats and "type" in info.data:
            family = value_type(info.data["type"]).family
            if family not in _DATED:
                raise ValueError(f"formats are for {', '.join(sorted(_DATED))}, this column is {family}")
            for text in formats:
                compile_format(text, family)
        return formats

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str | None, info: ValidationInfo) -> str | None:
        from zoneinfo import available_timezones

        if name is not None and name not in available_timezones():
            raise ValueError("not a time zone, expected an IANA name such as Europe/Berlin")
        if name is not None and info.data.get("type") not in (None, "timestamptz"):
            raise ValueError("a timezone is for type timestamptz")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> ColumnRule:
        if (self.from_ is None) != (self.pattern is None):
            raise ValueError("`from: filename` and `pattern:` go together")
        only_text = (self.regex, self.length, self.like)
        if any(part is not None for part in only_text) and self.kind.family != "text":
            raise ValueError(f"regex, like and length are for text, this column is {self.type}")
        if self.formats and self.kind.family == "timestamptz" and self.timezone is None:
            without = [text for text in self.formats if "%z" not in text]
            if without:
                raise ValueError(f"the format {without[0]!r} names no offset; add %z or `timezone:`")
        return self


class _NamedRule(_Judged):
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_]{1,80}$", description="Letters, digits and _: the asset check's name."
    )
    description: str | None = None

    def sentence(self) -> str:
        """What the rule says, for people."""
        return self.description or self._says()

    def check_name(self) -> str:
        """The rule's name, or one made of what it says; letters, digits and _ only."""
        return self.name or re.sub(r"[^A-Za-z0-9]+", "_", self._says()).strip("_")[:80]

    def _says(self) -> str:
        raise NotImplementedError


class ExpressionRule(_NamedRule):
    """A condition over one row in SQL. A row fails when it is false; null passes, as in a CHECK constraint."""

    expression: str

    def _says(self) -> str:
        return f"expression {' '.join(self.expression.split())}"

    def reason(self) -> str:
        """What is said of a row that fails."""
        return f"{self.name or self.expression}: is false"


def _parts_error(problems: Sequence[tuple[tuple[str | int, ...], str]]) -> PydanticCustomError:
    sentences = "; ".join(f"{'.'.join(map(str, where))}: {what}" for where, what in problems)
    return PydanticCustomError(
        "contract_parts", "{sentences}", {"sentences": sentences, "problems": problems}
    )


FindCheck = Callable[[str], type[OwnCheck]]


def _no_plugins(name: str) -> type[OwnCheck]:
    raise ValueError(f"there is no check {name!r}, expected one that an installed package brings")


class OwnCheckRule(_NamedRule):
    """A condition over one row that an installed package brings. A row fails when it is false; null passes."""

    check: str = Field(description="Its name: `datops plugins list` shows which there are.")
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="Its parameters.")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    find: ClassVar[FindCheck] = staticmethod(_no_plugins)
    """Looks up a check by its name, or raises ValueError. Set by whoever knows plug-ins."""

    @model_validator(mode="after")
    def _parameters_fit(self) -> OwnCheckRule:
        try:
            found = type(self).find(self.check)
        except ValueError as error:
            raise _parts_error([(("check",), str(error))]) from None
        try:
            found.model_validate(self.with_)
        except ValidationError as error:
            raise _parts_error(
                [
                    (("with", *each["loc"]), each["msg"].removeprefix("Value error, "))
                    for each in error.errors()
                ]
            ) from None
        return self

    @property
    def own(self) -> OwnCheck:
        """The check with its parameters."""
        return type(self).find(self.check).model_validate(self.with_)

    @property
    def expression(self) -> str:
        """The condition as an expression rule would have it."""
        return self.own.expression()

    def reason(self) -> str:
        """What is said of a row that fails."""
        return f"{self.check_name()}: {self.own.reason()}"

    def _says(self) -> str:
        return " ".join([self.check, *(f"{key} {value}" for key, value in self.with_.items())])


class UniqueRule(_NamedRule):
    """No two rows of silver share these values. Rows with a null among them are left alone."""

    unique: list[str] = Field(min_length=1)

    def _says(self) -> str:
        return f"unique {', '.join(self.unique)}"


class ForeignKeyRule(_NamedRule):
    """These values exist in another silver table when the row is judged. A null among them passes."""

    foreign_key: list[str] = Field(min_length=1)
    references: str = Field(description="A table of the same pipeline, or pipeline.table.")
    columns: list[str] = Field(min_length=1, description="Its columns, in the same order.")

    @model_validator(mode="after")
    def _pairs(self) -> ForeignKeyRule:
        if len(self.foreign_key) != len(self.columns):
            raise ValueError("foreign_key and columns differ in length")
        return self

    def their_columns(self) -> list[str]:
        """The columns of the other table that it reads."""
        return list(self.columns)

    def _says(self) -> str:
        return f"foreign_key {', '.join(self.foreign_key)} in {self.references}"


class HoldsRule(_NamedRule):
    """A condition over a row and the one it belongs to in another silver table, whose columns are `table.column`.

    A row fails when it is false; null passes, and so does a row without a match.
    """

    holds: str = Field(description="e.g. `shipped_at >= orders.ordered_at`.")
    references: str = Field(description="A table of the same pipeline, or pipeline.table.")
    match: list[str] = Field(min_length=1, description="Columns of this table that find the other row.")
    columns: list[str] = Field(min_length=1, description="Its columns, in the same order.")

    @model_validator(mode="after")
    def _pairs(self) -> HoldsRule:
        if len(self.match) != len(self.columns):
            raise ValueError("match and columns differ in length")
        return self

    @property
    def prefix(self) -> str:
        """What stands before the other table's columns in the condition."""
        return self.references.rpartition(".")[2]

    def their_columns(self) -> list[str]:
        """The columns of the other table that it reads."""
        from datops_assets.quality.expressions import joined_columns

        return list(dict.fromkeys([*self.columns, *joined_columns(self.holds, self.prefix)]))

    def _says(self) -> str:
        return f"holds {' '.join(self.holds.split())}"


class CompareRule(_NamedRule):
    """An aggregate of this table against one of another silver table, group by group. A check of the whole table."""

    compare: str = Field(description="`sum(amount)`; also count(*), min, max, avg.")
    equals: str = Field(description="The other table's aggregate, e.g. `sum(total)`.")
    references: str = Field(description="A table of the same pipeline, or pipeline.table.")
    by: list[str] = Field(
        default_factory=list, description="Columns that name a group; none: the whole table."
    )
    columns: list[str] = Field(
        default_factory=list, description="The other table's columns for `by`, in order."
    )
    tolerance: Decimal = Field(Decimal(0), ge=0, description="The largest difference that counts as equal.")

    @field_validator("compare", "equals")
    @classmethod
    def _aggregate(cls, text: str) -> str:
        found = _AGGREGATE.fullmatch(text)
        if found is None or (found[2] == "*" and found[1] != "count"):
            raise ValueError("not an aggregate, expected count(*) or sum, min, max, avg, count of one column")
        return text

    @model_validator(mode="after")
    def _pairs(self) -> CompareRule:
        if len(self.by) != len(self.columns):
            raise ValueError("by and columns differ in length")
        return self

    @property
    def ours(self) -> tuple[str, str | None]:
        """Function and column of this table's aggregate; the column is None for count(*)."""
        return _read_aggregate(self.compare)

    @property
    def theirs(self) -> tuple[str, str | None]:
        """The same of the other table's."""
        return _read_aggregate(self.equals)

    def their_columns(self) -> list[str]:
        """The columns of the other table that it reads."""
        column = self.theirs[1]
        return list(dict.fromkeys([*self.columns, *([column] if column else [])]))

    def _says(self) -> str:
        return f"{self.compare} equals {self.equals} of {self.references}"


def _read_aggregate(text: str) -> tuple[str, str | None]:
    found = _AGGREGATE.fullmatch(text)
    assert found is not None
    return found[1], None if found[2] == "*" else found[2]


class FreshnessRule(_NamedRule):
    """The newest value of a column is not older than this when the table is judged, or looked at."""

    freshness: str = Field(description="A column of type date, timestamp (taken as UTC) or timestamptz.")
    max_age_h: float = Field(gt=0, le=24 * 3650, description="Hours; a day counts as lasting until its end.")

    def _says(self) -> str:
        return f"freshness of {self.freshness}"


class Volume(_Part):
    """Bounds of a number of rows: absolute, or around the usual number."""

    min: int | None = Field(None, ge=0)
    max: int | None = Field(None, ge=0)
    within: float | None = Field(
        None,
        gt=0,
        description="At most this share above or below the usual: 0.5 takes 50 to 150 where 100 is.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Volume:
        if self.min is None and self.max is None and self.within is None:
            raise ValueError("expected min, max, within or several of them")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        return self


class VolumeRule(_NamedRule):
    """How many rows each load, or each day, brings. The usual number is the median of those before."""

    volume: Volume
    per: Literal["load", "day"] = Field(
        "load", description="`day`: the load's partition, else the day it was loaded (UTC)."
    )
    history: int = Field(
        10, ge=3, le=1000, description="Loads or days before that say what is usual; 3 at least."
    )

    def _says(self) -> str:
        return f"volume per {self.per}"


class RowCountRule(_NamedRule):
    """How many rows silver (`of: table`) or what is judged now (`of: load`) may hold."""

    row_count: Length
    of: Literal["table", "load"] = "table"

    def _says(self) -> str:
        return f"row_count of the {self.of}"


_RULES = {
    "expression": ExpressionRule,
    "check": OwnCheckRule,
    "unique": UniqueRule,
    "foreign_key": ForeignKeyRule,
    "row_count": RowCountRule,
    "holds": HoldsRule,
    "compare": CompareRule,
    "freshness": FreshnessRule,
    "volume": VolumeRule,
}
RowRule = ExpressionRule | OwnCheckRule
"""Conditions over one row: both have an `expression` and a `reason`."""
ReferringRule = ForeignKeyRule | HoldsRule | CompareRule
"""Rules that look into another silver table, which therefore is judged first."""
TableRule = RowCountRule | CompareRule | FreshnessRule | VolumeRule
"""Checks of the whole table: they set no row aside."""


_BESIDE = "(check)"  # in brackets, as pydantic has what is no key of a document


def _rule_kind(value: Any) -> str | None:
    if isinstance(value, Mapping):
        found = [key for key in _RULES if key in value]
        kind = found[0] if len(found) == 1 else None
    else:
        kind = next((key for key, model in _RULES.items() if isinstance(value, model)), None)
    # What is wrong with `with:` stands beside the key `check:`, not below it.
    return _BESIDE if kind == "check" else kind


Rule = Annotated[
    Annotated[ExpressionRule, Tag("expression")]
    | Annotated[OwnCheckRule, Tag(_BESIDE)]
    | Annotated[UniqueRule, Tag("unique")]
    | Annotated[ForeignKeyRule, Tag("foreign_key")]
    | Annotated[RowCountRule, Tag("row_count")]
    | Annotated[HoldsRule, Tag("holds")]
    | Annotated[CompareRule, Tag("compare")]
    | Annotated[FreshnessRule, Tag("freshness")]
    | Annotated[VolumeRule, Tag("volume")],
    Discriminator(
        _rule_kind,
        custom_error_type="rule_kind",
        custom_error_message=f"not a rule, expected exactly one of: {', '.join(_RULES)}",
    ),
]


class Contract(_Part):
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
            raise _parts_error(problems)
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


def _constant_text(value: Scalar, kind: ValueType) -> str:
    """A bound or set member of a document as the text a file would hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    text = value.isoformat() if isinstance(value, date) else str(value)
    if kind.family in ("timestamp", "timestamptz") and re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return f"{text} 00:00:00"
    return text


def _check_scalar(value: Scalar, kind: ValueType) -> None:
    if isinstance(value, bool) and kind.family != "boolean":
        raise ValueError(
            f"a bare yes, no, on or off is a boolean in YAML, and this column is {kind.name}; put it in quotes"
        )
    try:
        kind.parse(_constant_text(value, kind))
    except NotAValueError:
        raise ValueError(f"not {kind.noun}: not a value of this column's type {kind.name}") from None


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


def _decides(rule: _Judged) -> bool:
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
