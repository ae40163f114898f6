"""Steps that bring in another table: join, lookup, union."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from datops_assets.transform import expressions
from datops_assets.transform.kinds import common, family, has_no_equality, is_number
from datops_assets.transform.step import ColumnName, Given, Input, Made, Parameters, StepError, Table, at
from datops_assets.transform.syntax import column, columns_of, exp, name, named, number

_LEFT, _RIGHT = "l", "r"
On = list[ColumnName] | dict[ColumnName, ColumnName]


def _pairs(on: On) -> dict[str, str]:
    return on if isinstance(on, dict) else {word: word for word in on}


def _require_pairs(on: On, given: Given, other: Table) -> None:
    for index, (left, right) in enumerate(_pairs(on).items()):
        where = ("on", left if isinstance(on, dict) else index)
        with at(*where):
            expressions.require(left, given.columns)
            expressions.require(right, other.columns)
        kinds = given.columns[left], other.columns[right]
        for kind in kinds:
            if has_no_equality(kind):
                raise StepError(f"{left} is {kind}, which has no equality; derive a text of it before", where)
        if None not in kinds and family(kinds[0]) != family(kinds[1]) and common(kinds) is None:
            raise StepError(
                f"{left} is {kinds[0]} and {right} of the other table is {kinds[1]}; cast one before", where
            )


def _chosen(columns: list[str] | dict[str, str] | None, on: On, other: Table) -> dict[str, str]:
    """The other table's columns and what they are called here; by default all but those that rows are found by."""
    if columns is None:
        return {word: word for word in other.columns if word not in _pairs(on).values()}
    chosen = columns if isinstance(columns, dict) else {word: word for word in columns}
    for index, word in enumerate(chosen):
        with at("columns", word if isinstance(columns, dict) else index):
            expressions.require(word, other.columns)
    return chosen


def _refuse_same_names(chosen: dict[str, str], given: Given) -> None:
    seen = set(given.columns)
    for old, new in chosen.items():
        if new in seen:
            said = f"expected another name, e.g. `columns: {{{old}: other_{old}}}`"
            raise StepError(f"two columns would be called {new}, {said}", ["columns"])
        seen.add(new)


def _matches(on: On) -> exp.Condition:
    conditions = [
        exp.EQ(this=column(left, _LEFT), expression=column(right, _RIGHT))
        for left, right in _pairs(on).items()
    ]
    return exp.and_(*conditions)


def _left(given: Given) -> exp.Table:
    table = given.table.reference.copy()
    table.set("alias", exp.TableAlias(this=name(_LEFT)))
    return table


def _right(other: Table) -> exp.Table:
    table = other.reference.copy()
    table.set("alias", exp.TableAlias(this=name(_RIGHT)))
    return table


class Join(Parameters):
    """Rows beside the rows of another table that match; each match is a row. Null matches nothing."""

    word: ClassVar[str] = "join"
    table: Input = Field(description="A table or a transformation of this document, or `PIPELINE.TABLE`.")
    on: On = Field(min_length=1, description="Columns that are equal on both sides, or `here: there`.")
    how: Literal["left", "inner", "right", "full", "semi", "anti"] = Field(
        "left", description="As in SQL; semi: rows with a match, anti: rows without one."
    )
    columns: list[ColumnName] | dict[ColumnName, ColumnName] | None = Field(
        None,
        description="Columns of the other table, or `there: here`; all but the matching ones by default.",
    )

    def inputs(self) -> list[str]:
        """The other table."""
        return [self.table]

    def apply(self, given: Given) -> Made:
        """`join`, or `exists`."""
        other = given.others[self.table]
        _require_pairs(self.on, given, other)
        if self.how in ("semi", "anti"):
            return self._exists(given, other)
        chosen = _chosen(self.columns, self.on, other)
        _refuse_same_names(chosen, given)
        outputs = [named(self._own(word), word) for word in given.columns]
        outputs += [named(column(old, _RIGHT), new) for old, new in chosen.items()]
        query = exp.Select().select(*outputs).from_(_left(given))
        joined = query.join(_right(other), on=_matches(self.on), join_type=self.how)
        return Made(joined, dict(given.columns) | {new: other.columns[old] for old, new in chosen.items()})

    def _own(self, word: str) -> exp.Expression:
        right = _pairs(self.on).get(word)
        if right is None or self.how in ("left", "inner"):
            return column(word, _LEFT)
        return exp.Coalesce(this=column(word, _LEFT), expressions=[column(right, _RIGHT)])

    def _exists(self, given: Given, other: Table) -> Made:
        if self.columns is not None:
            raise StepError(f"a {self.how} join brings no columns, expected none here", ["columns"])
        matching = exp.Select().select(number(1)).from_(_right(other)).where(_matches(self.on))
        found: exp.Expression = exp.Exists(this=matching)
        condition = found if self.how == "semi" else exp.Not(this=found)
        query = exp.Select().select(*columns_of(given.columns, _LEFT)).from_(_left(given)).where(condition)
        return Made(query, given.columns)


class Lookup(Parameters):
    """Columns of the one row of another table that matches; rows never become more or fewer."""

    word: ClassVar[str] = "lookup"
    table: Input = Field(description="A table or a transformation of this document, or `PIPELINE.TABLE`.")
    on: On = Field(min_length=1, description="Columns that are equal on both sides, or `here: there`.")
    columns: list[ColumnName] | dict[ColumnName, ColumnName] = Field(
        min_length=1, description="Columns of the other table, or `there: here`; null where nothing matches."
    )

    def inputs(self) -> list[str]:
        """The other table."""
        return [self.table]

    def apply(self, given: Given) -> Made:
        """A left join with one row of each key: of several the one whose other columns sort first."""
        other = given.others[self.table]
        _require_pairs(self.on, given, other)
        chosen = _chosen(self.columns, self.on, other)
        _refuse_same_names(chosen, given)
        keys = list(dict.fromkeys(_pairs(self.on).values()))
        there = Given(other, engine=given.engine)
        rest = [
            word for word, kind in other.columns.items() if word not in keys and not has_no_equality(kind)
        ]
        place = exp.Window(
            this=exp.RowNumber(),
            partition_by=list(map(column, keys)),
            order=exp.Order(expressions=there.order(rest or keys)),
        )
        needed = list(dict.fromkeys([*keys, *chosen]))
        placed = there.select(*map(column, needed), named(place, "_place")).subquery("placed")
        first = exp.Select().select(*map(column, needed)).from_(placed)
        first = first.where(exp.EQ(this=column("_place"), expression=number(1)))
        outputs = [
            *columns_of(given.columns, _LEFT),
            *(named(column(old, _RIGHT), new) for old, new in chosen.items()),
        ]
        query = exp.Select().select(*outputs).from_(_left(given))
        right = exp.Subquery(this=first, alias=exp.TableAlias(this=name(_RIGHT)))
        joined = query.join(right, on=_matches(self.on), join_type="left")
        return Made(joined, dict(given.columns) | {new: other.columns[old] for old, new in chosen.items()})


class Union(Parameters):
    """The rows of other tables below these; columns go by name."""

    word: ClassVar[str] = "union"
    tables: list[Input] = Field(min_length=1, description="Tables with the same columns, in whatever order.")
    distinct: bool = Field(False, description="Equal rows once.")

    def inputs(self) -> list[str]:
        """The other tables."""
        return list(self.tables)

    def apply(self, given: Given) -> Made:
        """`union all`."""
        kinds = dict(given.columns)
        query: exp.Query = given.select(*columns_of(given.columns))
        for index, table in enumerate(self.tables):
            other = given.others[table]
            different = sorted(set(other.columns) ^ set(given.columns))
            if different:
                raise StepError(
                    f"{table} has other columns, on one side only: {', '.join(different)}", ["tables", index]
                )
            for word, kind in kinds.items():
                kinds[word] = self._kind(word, kind, other.columns[word], index, table)
            part = exp.Select().select(*columns_of(given.columns)).from_(other.reference.copy())
            query = exp.Union(this=query, expression=part, distinct=self.distinct)
        if self.distinct and (without := [word for word, kind in kinds.items() if has_no_equality(kind)]):
            raise StepError(
                f"{without[0]} is json, which has no equality; derive a text of it before", ["distinct"]
            )
        return Made(query, kinds)

    def _kind(self, word: str, kind: str | None, other: str | None, index: int, table: str) -> str | None:
        if kind is None or other is None or kind == other:
            return kind if other is not None else None
        if family(kind) == family(other) or (is_number(kind) and is_number(other)):
            return common([kind, other])
        raise StepError(f"{word} is {kind}, and {other} in {table}; cast one before", ["tables", index])
