"""The one query that turns delivered rows into judged ones. Builds SQL, opens nothing.

    bronze → `r`: delivered text, cleaned → `t`: typed values → row checks

`offset 0` keeps the planner from merging two levels, so that each value is read, cleaned and
cast once a row. The server does the work in one pass; nothing is kept between the levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import LiteralString

from psycopg import sql
from psycopg.sql import SQL, Composable, Composed

from datops_assets.postgres.names import contract_name
from datops_assets.quality import formats
from datops_assets.quality.cleaning import clean_sql
from datops_assets.quality.column_rule import ColumnRule
from datops_assets.quality.delivered import BronzeColumn, Delivered
from datops_assets.quality.judged import Subject
from datops_assets.quality.patterns import read_pattern
from datops_assets.quality.row_checks import NOT_IN_CONTRACT, RowCheck, raw, row_checks, unreadable

# Delivered as exactly this, a value needs no judgement of its type.
_SAME = {
    "bigint": {"bigint", "integer", "smallint"},
    "integer": {"integer", "smallint"},
    "smallint": {"smallint"},
    "numeric": {"numeric", "bigint", "integer", "smallint"},
    "boolean": {"boolean"},
    "date": {"date"},
    "time": {"time without time zone"},
    "timestamp": {"timestamp without time zone"},
    "timestamptz": {"timestamp with time zone"},
    "uuid": {"uuid"},
    "bytea": {"bytea"},
}
# What PostgreSQL's types hold beyond the table of types: NaN, infinity, years past 9999 or before 0001, 24:00.
_HELD: dict[str, LiteralString] = {
    "numeric": "{} not in ('NaN', 'Infinity', '-Infinity')",
    "date": "{} between '0001-01-01'::date and '9999-12-31'::date",
    "time": "{} < '24:00'::time",
    "timestamp": "{0} >= '0001-01-01'::timestamp and {0} < '10000-01-01'::timestamp",
    "timestamptz": "{0} >= '0001-01-01Z'::timestamptz and {0} < '10000-01-01Z'::timestamptz",
}


@dataclass(frozen=True)
class RowQuery:
    """Judges rows of bronze by the row rules of a contract."""

    subject: Subject
    delivered: Delivered
    leave_out_dropped: bool = False

    @cached_property
    def made_of(self) -> dict[str, list[BronzeColumn]]:
        """The delivered columns of each contract column."""
        return self.delivered.made_of(self.subject.contract, self.subject.rename)

    @cached_property
    def checks(self) -> list[RowCheck]:
        """The row checks, in the order of the contract."""
        columns = self.subject.contract.columns.items()
        checks = row_checks(
            self.subject.contract, frozenset(name for name, rule in columns if self._decoded(name, rule))
        )
        return checks + self._unknown_checks() if self.subject.contract.closed else checks

    def _unknown_checks(self) -> list[RowCheck]:
        """For each delivered column that a closed contract does not know: no row has a value in it."""
        wanted = {column.name for columns in self.made_of.values() for column in columns}
        known = {*self.subject.contract.columns, *self.subject.contract.ignore}
        rename = self.subject.rename
        ignored = [c for c in self.delivered.columns if contract_name(c.delivered, rename) in known]
        allowed = wanted | {column.name for column in ignored}
        checks = []
        for position, name in enumerate(self.delivered.physical):
            if name in allowed:
                continue
            value = _carried(position)
            if name == "_more":
                listed = [column.delivered for column in ignored if column.in_more]
                fails = SQL(
                    "exists (select from json_each({}) as e where e.key <> all ({}::text[])"
                    " and json_typeof(e.value) <> 'null')"
                ).format(value, sql.Literal(listed))
            elif self.delivered.types[name] in ("json", "jsonb"):
                fails = SQL("json_typeof(({})::json) <> 'null'").format(value)
            else:
                fails = SQL("{} is not null").format(value)
            reason = f"{name}: {NOT_IN_CONTRACT}"
            checks.append(RowCheck(f"{name}.unknown", name, "error", reason, fails))
        return checks

    @property
    def columns(self) -> list[str]:
        """The columns of silver that the contract names."""
        return list(self.subject.contract.columns)

    def typed_columns(self) -> Composable:
        """Output for `select`: all columns of silver, precision and scale included."""
        outputs: list[Composable] = []
        for name, rule in self.subject.contract.columns.items():
            # `case` forgets precision and scale, which `create table as` takes from the query.
            with_scale = SQL("{0}::{1} as {0}").format(sql.Identifier(name), rule.kind.postgres)
            outputs.append(with_scale if "(" in rule.kind.name else sql.Identifier(name))
        return SQL(", ").join([*outputs, SQL("_load_id"), SQL("_row")])

    def refused(self) -> Composable:
        """A condition: some rule sets this row aside."""
        failing = [SQL("({})").format(check.fails) for check in self.checks if check.refuses]
        return SQL("({}) is true").format(SQL(" or ").join(failing)) if failing else SQL("false")

    def cleaned(self) -> dict[str, Composable]:
        """For each column with `clean:` a condition: the text was changed by it."""
        columns = enumerate(self.subject.contract.columns.items())
        return {
            name: SQL("{} is distinct from {}").format(_uncleaned(position), raw(position))
            for position, (name, rule) in columns
            if rule.clean
        }

    def count_cleaned(self, loads: Sequence[int], scope: Composable | None) -> Composed:
        """One number for each of `cleaned()`: the texts that were changed."""
        counts = SQL(", ").join(
            SQL("count(*) filter (where {})").format(changed) for changed in self.cleaned().values()
        )
        return SQL("select {} from ({}) as r").format(counts, self._delivered(loads, scope))

    def reasons(self) -> Composable:
        """All reasons of a refused row, as text[]; those of warnings too."""
        cases = [
            SQL("case when {} then {} end").format(check.fails, sql.Literal(check.reason))
            for check in self.checks
        ]
        return SQL("array_remove(array[{}]::text[], null)").format(SQL(", ").join(cases))

    def record(self) -> Composable:
        """The delivered values as one json object, named as in bronze."""
        fields = SQL(", ").join(
            SQL("{} as {}").format(_carried(position), sql.Identifier(name))
            for position, name in enumerate(self.delivered.physical)
        )
        return SQL("(select row_to_json(d.*) from (select {}) as d)").format(fields)

    def select(
        self,
        outputs: Composable,
        loads: Sequence[int],
        *,
        where: Composable | None = None,
        scope: Composable | None = None,
    ) -> Composed:
        """Judge the rows of some loads.

        outputs   over `_load_id`, `_row`, typed columns by name and `record()`
        where     over the same
        scope     a condition on bronze (b) that narrows what is read
        """
        return SQL("select {} from ({}) as t{}").format(
            outputs, self._typed(loads, scope), SQL(" where {}").format(where) if where else SQL("")
        )

    def count(self, loads: Sequence[int], scope: Composable | None = None) -> Composed:
        """Count the rows that `select` would judge, without judging them."""
        return SQL("select count(*) from {} as b where {}").format(
            self.subject.bronze, SQL(" and ").join(self._conditions(loads, scope))
        )

    def places(self, loads: Sequence[int], scope: Composable) -> Composed:
        """Load and row of some rows, without judging them."""
        return SQL("select b._load_id, b._row from {} as b where {}").format(
            self.subject.bronze, SQL(" and ").join(self._conditions(loads, scope))
        )

    def _decoded(self, name: str, rule: ColumnRule) -> list[BronzeColumn]:
        """Delivered JSON whose text is taken out of it; a json column takes it as it is."""
        if rule.kind.name == "json":
            return []
        return [column for column in self.made_of[name] if column.may_be_unreadable]

    def _typed(self, loads: Sequence[int], scope: Composable | None) -> Composable:
        outputs: list[Composable] = [SQL("r.*")]
        for position, (name, rule) in enumerate(self.subject.contract.columns.items()):
            outputs.append(
                SQL("{} as {}").format(self._typed_value(position, name, rule), sql.Identifier(name))
            )
        return SQL("select {} from ({}) as r offset 0").format(
            SQL(", ").join(outputs), self._delivered(loads, scope)
        )

    def _typed_value(self, position: int, name: str, rule: ColumnRule) -> Composable:
        direct = self._direct(name, rule)
        if direct is not None:
            return SQL("case when {} is not null then {} end").format(raw(position), direct)
        return _from_path(position) if rule.from_ else _judged(position, rule)

    def _direct(self, name: str, rule: ColumnRule) -> Composable | None:
        """The value itself, where bronze already holds the type; None where text must be judged."""
        if rule.from_ or rule.formats or rule.clean or not self.made_of[name]:
            return None
        accepted = _SAME.get(rule.kind.name, set())
        if rule.kind.name == "json":
            known = all((column.is_json or column.is_array) for column in self.made_of[name])
        else:
            known = all(column.type in accepted for column in self.made_of[name])
        if not known or any(column.in_more for column in self.made_of[name]):
            return None
        values: list[Composable] = [
            _carried(self.delivered.physical.index(column.name)) for column in self.made_of[name]
        ]
        if rule.kind.name == "json":
            values = [SQL("to_json({})").format(value) for value in values]
        value = SQL("coalesce({})::{}").format(SQL(", ").join(values), rule.kind.postgres)
        held = _HELD.get(rule.kind.name)
        return SQL("case when {} then {} end").format(SQL(held).format(value), value) if held else value

    def _delivered(self, loads: Sequence[int], scope: Composable | None) -> Composable:
        outputs: list[Composable] = [SQL("b._load_id, b._row")]
        outputs += [
            SQL("b.{} as {}").format(sql.Identifier(name), _carried(position))
            for position, name in enumerate(self.delivered.physical)
        ]
        rules = self.subject.contract.columns.items()
        for position, (name, rule) in enumerate(rules):
            text = self._text(position, name, rule)
            cleaned = text if rule.from_ else clean_sql(text, rule.clean)
            outputs.append(SQL("{} as {}").format(cleaned, raw(position)))
            if rule.from_:
                outputs.append(SQL("l.{}").format(_from_path(position)))
            if rule.clean:
                outputs.append(SQL("{} as {}").format(text, _uncleaned(position)))
            broken = [_unreadable(column) for column in self._decoded(name, rule)]
            if broken:
                outputs.append(SQL("({}) as {}").format(SQL(" or ").join(broken), unreadable(position)))
        return SQL("select {} from {} as b{} where {}{}").format(
            SQL(", ").join(outputs),
            self.subject.bronze,
            self._files(loads),
            SQL(" and ").join(self._conditions(loads, scope)),
            SQL(" offset 0") if self._reads_more_than_text() else SQL(""),
        )

    def _files(self, loads: Sequence[int]) -> Composable:
        """What a file's path says, read and judged once a file, not once a row."""
        columns = [each for each in enumerate(self.subject.contract.columns.values()) if each[1].from_]
        if not columns:
            return SQL("")
        texts = [
            SQL("{} as {}").format(
                clean_sql(
                    SQL("substring(path from {})").format(sql.Literal(_file_pattern(rule))), rule.clean
                ),
                raw(position),
            )
            for position, rule in columns
        ]
        values = [
            SQL("{} as {}").format(_judged(position, rule), _from_path(position))
            for position, rule in columns
        ]
        return SQL(
            " join (select p.*, {} from (select load_id, {} from datops.loads"
            " where load_id = any ({}::bigint[]) offset 0) as p offset 0) as l on l.load_id = b._load_id"
        ).format(SQL(", ").join(values), SQL(", ").join(texts), sql.Literal(list(loads)))

    def _conditions(self, loads: Sequence[int], scope: Composable | None) -> list[Composable]:
        conditions: list[Composable] = [
            SQL("b._load_id = any ({}::bigint[])").format(sql.Literal(list(loads)))
        ]
        if scope is not None:
            conditions.append(scope)
        if self.leave_out_dropped:
            conditions.append(
                SQL(
                    "not exists (select from datops.dropped_records as d where d.load_id ="
                    " b._load_id and d.row = b._row)"
                )
            )
        return conditions

    def _reads_more_than_text(self) -> bool:
        plain = all(
            not rule.clean
            and not rule.from_
            and len(self.made_of[name]) < 2
            and not any(c.is_json or c.is_array for c in self.made_of[name])
            for name, rule in self.subject.contract.columns.items()
        )
        return not plain

    def _text(self, position: int, name: str, rule: ColumnRule) -> Composable:
        """The delivered text, before `clean:`."""
        if rule.from_:
            return SQL("l.{}").format(raw(position))
        values = [
            _json_text(column, rule) if column.is_json else plain_text(column, rule)
            for column in self.made_of[name]
        ]
        if not values:
            return SQL("null::text")
        return values[0] if len(values) == 1 else SQL("coalesce({})").format(SQL(", ").join(values))


def _file_pattern(rule: ColumnRule) -> str:
    assert rule.pattern is not None
    return read_pattern(rule.pattern).postgres_search


def _judged(position: int, rule: ColumnRule) -> Composable:
    """The typed value of a column's text; NULL where it is none."""
    if rule.formats:
        return formats.typed_sql(raw(position), rule.kind, rule.compiled_formats, rule.timezone)
    return rule.kind.to_sql(raw(position))


def _from_path(position: int) -> sql.Identifier:
    return sql.Identifier(f"_v{position}")


def _uncleaned(position: int) -> sql.Identifier:
    return sql.Identifier(f"_d{position}")


def _carried(position: int) -> sql.Identifier:
    return sql.Identifier(f"_b{position}")


def plain_text(column: BronzeColumn, rule: ColumnRule) -> Composable:
    """The text of a value that was not delivered as JSON, in a query where bronze is called b."""
    if column.is_array and rule.kind.name == "json":
        return SQL("to_json({})::text").format(column.value)
    if column.type == "bytea":
        return SQL("'\\x' || encode({}, 'hex')").format(column.value)  # a role may print bytes in another way
    if column.type.startswith("numeric"):
        # A later delivery may give bronze a larger scale; 1 must not become 1.00 by it.
        return SQL("trim_scale({})::text").format(column.value)
    return column.value if column.type == "text" else SQL("{}::text").format(column.value)


def _json_text(column: BronzeColumn, rule: ColumnRule) -> Composable:
    """The text of a JSON scalar, or the JSON text itself for a json column; NULL for JSON's null."""
    if rule.kind.name == "json":
        return SQL("case when not {} then ({})::text end").format(column.is_json_null, column.value)
    text = SQL("({}) #>> '{{}}'").format(column.value)
    if not column.may_be_unreadable:
        return text
    return SQL("case when {} then null else {} end").format(_unreadable(column), text)


def _unreadable(column: BronzeColumn) -> Composable:
    # Only text with an escape can hold one that jsonb, which decodes, refuses.
    return SQL(
        "coalesce(strpos(({0})::text, '\\u') > 0 and not pg_input_is_valid(({0})::text, 'jsonb'), false)"
    ).format(column.value)
