"""A team's own steps: SQL, and a Python function on a pandas DataFrame."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, field_validator

from datops_assets.transform import expressions
from datops_assets.transform.kinds import Columns, kind_of, read_kind
from datops_assets.transform.step import ColumnName, Given, Input, KindName, Made, Parameters, StepError, Text
from datops_assets.transform.syntax import columns_of, exp

ROWS = "rows"
"""What own SQL calls the rows so far."""
_REFUSED = frozenset(
    "CurrentUser SessionUser CurrentSchema CurrentDatabase CurrentRole CurrentCatalog Rand Randn Uuid "
    "CurrentTimestamp CurrentDate CurrentTime Localtime Localtimestamp CurrentDatetime GenerateSeries "
    "Into Lock Command Placeholder Parameter SessionParameter NextValueFor".split()
)
_ALSO = frozenset(
    "array_length array_position array_to_string btrim cardinality char_length convert_from convert_to decode encode "
    "date_part initcap json_array_elements json_array_elements_text json_array_length json_extract_path "
    "json_extract_path_text json_object_keys json_typeof jsonb_array_elements jsonb_array_elements_text "
    "jsonb_array_length jsonb_extract_path jsonb_extract_path_text jsonb_object_keys jsonb_typeof justify_hours ltrim "
    "make_date mode ntile octet_length percentile_cont percentile_disc power quote_literal regexp_match "
    "regexp_matches regexp_replace regexp_split_to_table repeat reverse rtrim sha256 sign split_part sqrt "
    "string_to_array strpos substr to_char to_date to_number to_timestamp trunc unnest width_bucket".split()
)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")


def _function(value: str) -> str:
    if not _FUNCTION.match(value):
        raise ValueError("not an import path, expected package.module:function")
    return value


class Sql(Parameters):
    """A select of your own. It reads the rows so far as `rows`, and the tables that it states; nothing else."""

    word: ClassVar[str] = "sql"
    select: Text = Field(
        description="One select of PostgreSQL. Without clock, chance, settings and functions that act."
    )
    tables: dict[ColumnName, Input] = Field(
        default_factory=dict,
        description="Other tables that it reads: the name it uses, and which table that is.",
    )

    @field_validator("tables")
    @classmethod
    def _no_rows(cls, value: dict[str, str]) -> dict[str, str]:
        if ROWS in value:
            raise ValueError(f"{ROWS} are the rows so far, expected another name")
        return value

    def inputs(self) -> list[str]:
        """The tables that it states."""
        return list(self.tables.values())

    def apply(self, given: Given) -> Made:
        """The select, on the tables that its names stand for."""
        tree = self._parsed()
        known = {ROWS: given.table} | {word: given.others[table] for word, table in self.tables.items()}
        qualified = self._qualified(tree, {word: table.columns for word, table in known.items()})
        kinds = _outputs(qualified)
        scoped = {cte.alias for cte in qualified.find_all(exp.CTE)}
        for table in list(qualified.find_all(exp.Table)):
            if table.name in scoped:
                continue
            reference = known[table.name].reference.copy()
            reference.set("alias", exp.TableAlias(this=exp.to_identifier(table.alias_or_name, quoted=True)))
            table.replace(reference)
        return Made(qualified, kinds)

    def _parsed(self) -> exp.Query:
        try:
            tree = expressions.parse(self.select)
        except ValueError:
            raise StepError(
                "not a select that PostgreSQL would read, expected one, without a semicolon", ["select"]
            ) from None
        if not isinstance(tree, exp.Query):
            raise StepError("not a select, expected one that only reads", ["select"])
        scoped = {cte.alias for cte in tree.find_all(exp.CTE)}
        for node in tree.walk():
            kind = type(node).__name__
            if isinstance(node, exp.DML | exp.DDL) and not isinstance(node, exp.Query):
                raise StepError("changes something, expected a select that only reads", ["select"])
            if isinstance(node, exp.Table) and (
                node.db
                or node.name not in {ROWS, *self.tables, *scoped}
                or not isinstance(node.this, exp.Identifier)
            ):
                shown = node.name or "a function"
                raise StepError(
                    f"reads {shown}, which is not stated; expected `{ROWS}`, or a name of `tables:`",
                    ["select"],
                )
            unknown = isinstance(node, exp.Anonymous) and node.name.lower() not in _ALSO
            if kind in _REFUSED or unknown or (isinstance(node, exp.Dot) and node.find(exp.Func)):
                shown = node.name or kind
                raise StepError(
                    f"{shown.lower()!r} is not allowed in own SQL: rows depend on the data alone", ["select"]
                )
        return tree

    def _qualified(self, tree: exp.Query, schema: dict[str, Columns]) -> exp.Query:
        from sqlglot.errors import SqlglotError
        from sqlglot.optimizer.qualify import qualify

        shaped: dict[str, object] = {
            table: {word: kind or "unknown" for word, kind in columns.items()}
            for table, columns in schema.items()
        }
        try:
            done = qualify(tree, schema=shaped, dialect="postgres", validate_qualify_columns=True)
        except SqlglotError as error:
            said = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()[0]
            raise StepError(
                f"{said.rstrip('.')}; expected columns of the tables it reads", ["select"]
            ) from None
        return done


def _outputs(query: exp.Query) -> Columns:
    kinds: dict[str, str | None] = {}
    for chosen in query.selects:
        word = chosen.alias_or_name
        if word in kinds or not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", word):
            raise StepError(
                f"a column is called {word or 'nothing'!r}, expected a name of its own: `… as name`",
                ["select"],
            )
        kinds[word] = kind_of(chosen.unalias(), {}) if not chosen.find(exp.Column) else None
    return kinds


class Python(Parameters):
    """A function of yours: it gets a pandas DataFrame and returns one. The last step of a transformation."""

    word: ClassVar[str] = "python"
    function: Annotated[str, AfterValidator(_function)] = Field(description="package.module:function")
    columns: dict[ColumnName, KindName] = Field(min_length=1, description="What it returns: column and type.")
    batch_rows: int = Field(
        50_000, ge=1, le=1_000_000, description="It is called for so many rows at a time, whichever they are."
    )
    whole: bool = Field(False, description="It needs all rows in one call.")
    most_rows: int = Field(
        1_000_000,
        ge=1,
        le=10_000_000,
        description="With `whole`: more rows than this stop the run before the call.",
    )

    def apply(self, given: Given) -> Made:
        """Read what comes in; the function itself is called by the run."""
        if not given.last:
            raise StepError(
                "is not the last step, expected it last; give what follows a transformation of its own"
            )
        return Made(given.select(*columns_of(given.columns)), given.columns)

    def kinds(self) -> dict[str, str]:
        """What it returns, types as PostgreSQL writes them."""
        return {word: read_kind(kind) for word, kind in self.columns.items()}
