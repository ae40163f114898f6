"""The rules of one column: what its values must be.

Belongs here: what a document may say of a column. Does not: rules over several columns or the table
(contract_rules.py), how a verdict is reached (row_checks.py).
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from datops_assets.quality.cleaning import CleanStep
from datops_assets.quality.contract_parts import Judged, Length, Scalar
from datops_assets.quality.formats import Format, compile_format
from datops_assets.quality.named_patterns import PatternName
from datops_assets.quality.patterns import Pattern, read_pattern
from datops_assets.quality.types import NotAValueError, ValueType, value_type

_DATED = frozenset({"date", "time", "timestamp", "timestamptz"})


class ColumnRule(Judged):
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
