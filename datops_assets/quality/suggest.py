"""A first contract for a table that has none, written from a profile: what every row looked at would pass.

Belongs here: what of a profile becomes a rule, and with which words. Does not: looking (profile).
What would only be true of the rows there are (the greatest amount so far) is a comment, not a rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg

from datops_assets.quality.profile import MOST_ROWS, ColumnProfile, TableProfile, profile_table

_SURE_OF = 3
"""With n values and no exception, at most 3/n of all are exceptions: that is so in 95 of 100 cases."""
_LONGEST_SHOWN = 40
_SHOWN_TYPES = frozenset(
    {"smallint", "integer", "bigint", "numeric", "double", "date", "timestamp", "timestamptz"}
)


@dataclass(frozen=True)
class SuggestedColumn:
    """One column: `required` when no value was null; `evidence` is what was counted, in words."""

    name: str
    type: str
    required: bool
    rule: Mapping[str, Any]
    confidence: float
    evidence: str

    def as_yaml(self) -> str:
        """The column's line, its evidence as a comment."""
        parts = ", ".join(f"{key}: {_yaml(value)}" for key, value in self.rule.items())
        return f"{self.name}: {{{parts}}}  # {self.evidence}"


@dataclass(frozen=True)
class SuggestedContract:
    """What the rows looked at would pass. `key` is empty where no columns name one row."""

    profile: TableProfile

    @property
    def rows(self) -> int:
        """Rows looked at."""
        return self.profile.rows

    @property
    def key(self) -> list[str]:
        """The best key found."""
        return list(self.profile.keys[0]) if self.profile.keys else []

    @cached_property
    def columns(self) -> list[SuggestedColumn]:
        """One for each delivered column."""
        return [_column(column) for column in self.profile.columns]

    @property
    def rules(self) -> list[dict[str, Any]]:
        """Foreign keys without an exception, and other columns that are unique."""
        return [
            {"foreign_key": [found.column], "references": found.references, "columns": [found.key]}
            for found in self.profile.foreign_keys
            if found.missing == 0
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the contract, and the evidence by column."""
        contract: dict[str, Any] = {"columns": {column.name: dict(column.rule) for column in self.columns}}
        if self.key:
            contract = {"key": self.key, **contract}
        if self.rules:
            contract["rules"] = self.rules
        evidence = {
            column.name: {"confidence": column.confidence, "seen": column.evidence} for column in self.columns
        }
        looked = {"rows": self.rows, "rows_total": self.profile.rows_total, "every": self.profile.every}
        return {"contract": contract, "evidence": evidence, **looked}

    def as_yaml(self) -> str:
        """The `contract:` part of a document, ready to paste below a table."""
        lines = [f"# {self._looked_at()}", "contract:"]
        if self.key:
            others = "; ".join(", ".join(key) for key in self.profile.keys[1:4])
            also = f"; so are: {others}" if others else ""
            lines.append(f"  key: [{', '.join(self.key)}]  # unique within each load{also}")
        lines.append("  columns:")
        lines += [f"    {column.as_yaml()}" for column in self.columns]
        if self.rules:
            lines.append("  rules:")
            lines += [
                f"    - {{foreign_key: [{r['foreign_key'][0]}], references: {r['references']},"
                f" columns: [{r['columns'][0]}]}}"
                for r in self.rules
            ]
        for found in self.profile.foreign_keys:
            if found.missing:
                alike = f"{found.column} looks like {found.references}.{found.key}"
                lines.append(f"  # {alike}; {found.missing:,} row(s) have no match")
        return "\n".join(lines)

    def _looked_at(self) -> str:
        profile = self.profile
        if profile.every == 1:
            return f"From all {profile.rows:,} row(s) of the live loads."
        share = f"about one of {profile.every}"
        return f"From {profile.rows:,} of {profile.rows_total:,} rows ({share}); the others may hold what these do not."


def suggest_contract(
    conn: psycopg.Connection[Any],
    source: str,
    table: str,
    *,
    rename: Mapping[str, str] | None = None,
    rows: int = MOST_ROWS,
) -> SuggestedContract | None:
    """Look at the rows of bronze; None where nothing was loaded yet.

    rows      at most about this many rows are looked at; the suggestion says how many there were
    promise   every row looked at passes the suggestion; nothing is written
    """
    profile = profile_table(conn, source, table, rename=rename, rows=rows)
    return None if profile is None else SuggestedContract(profile)


def _column(column: ColumnProfile) -> SuggestedColumn:
    guess = column.guess
    required = column.nulls == 0 and column.values > 0
    rule: dict[str, Any] = {"type": guess.type}
    if required:
        rule["required"] = True
    if guess.formats:
        rule["formats"] = list(guess.formats)
    if column.members is not None and guess.like is None:
        rule["in"] = sorted(column.members)
    elif guess.like is not None:
        rule["like"] = guess.like
    elif guess.regex is not None:
        rule["regex"] = guess.regex
    if _is_number(guess.type) and column.least is not None and not column.least.startswith("-"):
        rule["min"] = 0
    confidence = max(0.0, 1 - _SURE_OF / column.values) if column.values else 0.0
    return SuggestedColumn(
        column.name, guess.type, required, rule, round(confidence, 4), _evidence(column, confidence)
    )


def _is_number(type_: str) -> bool:
    return type_.startswith("numeric") or type_ in ("smallint", "integer", "bigint", "double")


def _evidence(column: ColumnProfile, confidence: float) -> str:
    if not column.values:
        return "no value yet"
    words = [f"{column.values:,} value(s)"]
    if column.nulls:
        words.append(f"{column.nulls:,} null")
    if column.distinct:
        words.append(f"about {column.distinct:,.0f} different")
    shown = column.least is not None and (_is_number(column.guess.type) or column.guess.type in _SHOWN_TYPES)
    if shown and len(f"{column.least}{column.most}") <= 2 * _LONGEST_SHOWN:
        words.append(f"{column.least} to {column.most}")
    words += [f"all but {missed:,} are {what}" for what, missed in column.missed.items()]
    if column.unsure:
        words.append(f"these fit alike, choose one: {' or '.join(column.unsure)}")
    words.append(f"confidence {int(confidence * 10_000) / 100:g} %")
    return ", ".join(words)


def _yaml(value: object) -> str:
    """A value inside a flow mapping."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, str) and not (
        value.isidentifier() and value.isascii() and value.lower() not in _WORDS
    ):
        return '"' + "".join(map(_quoted, value)) + '"'
    return str(value)


def _quoted(character: str) -> str:
    """A character inside YAML's double quotes; what does not print is written by its number."""
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


_WORDS = frozenset("y n yes no on off true false null none".split())
"""What YAML would take for something else than a text."""
