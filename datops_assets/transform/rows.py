"""Steps that look at one row at a time: which columns, which rows, which values."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, RootModel, model_validator

from datops_assets.transform import expressions
from datops_assets.transform.kinds import data_type, has_no_equality, is_number, is_whole, kind_of, read_kind
from datops_assets.transform.step import (
    ColumnName,
    Given,
    KindName,
    Made,
    Order,
    Parameters,
    Step,
    StepError,
    Text,
    at,
    outputs,
)
from datops_assets.transform.syntax import column, columns_of, exp, named, null, number, text


class Select(RootModel[Annotated[list[ColumnName], Field(min_length=1)]], Step):
    """Only these columns, in this order."""

    model_config = ConfigDict(frozen=True)
    word: ClassVar[str] = "select"

    def apply(self, given: Given) -> Made:
        """Project."""
        given.require(self.root)
        for index, word in enumerate(self.root):
            if word in self.root[:index]:
                raise StepError(f"{word} stands twice, expected each column once", [index])
        return Made(given.select(*map(column, self.root)), {word: given.columns[word] for word in self.root})


class Drop(RootModel[Annotated[list[ColumnName], Field(min_length=1)]], Step):
    """All columns but these."""

    model_config = ConfigDict(frozen=True)
    word: ClassVar[str] = "drop"

    def apply(self, given: Given) -> Made:
        """Project."""
        given.require(self.root)
        kept = {word: kind for word, kind in given.columns.items() if word not in self.root}
        if not kept:
            raise StepError("no column is left, expected at least one")
        return Made(given.select(*columns_of(kept)), kept)


class Filter(RootModel[Text], Step):
    """Only the rows for which a condition is true."""

    model_config = ConfigDict(frozen=True)
    word: ClassVar[str] = "filter"

    def apply(self, given: Given) -> Made:
        """`where`."""
        condition = given.expression(self.root)
        kind = kind_of(condition, given.columns)
        if kind not in (None, "boolean"):
            raise StepError(f"is {kind}, expected a condition such as total > 0")
        return Made(given.select(*columns_of(given.columns)).where(condition), given.columns)


class Rename(RootModel[Annotated[dict[ColumnName, ColumnName], Field(min_length=1)]], Step):
    """Other names for columns: `old: new`."""

    model_config = ConfigDict(frozen=True)
    word: ClassVar[str] = "rename"

    def apply(self, given: Given) -> Made:
        """Project under other names."""
        columns: dict[str, str | None] = {}
        for old in self.root:
            with at(old):
                expressions.require(old, given.columns)
        for old, kind in given.columns.items():
            new = self.root.get(old, old)
            if new in columns:
                raise StepError(f"two columns would be called {new}, expected different names", [old])
            columns[new] = kind
        chosen = [named(column(old), self.root.get(old, old)) for old in given.columns]
        return Made(given.select(*chosen), columns)


class Cast(RootModel[Annotated[dict[ColumnName, KindName], Field(min_length=1)]], Step):
    """Other types for columns; a value that the type does not hold stops the run."""

    model_config = ConfigDict(frozen=True)
    word: ClassVar[str] = "cast"

    def apply(self, given: Given) -> Made:
        """`cast`."""
        columns = dict(given.columns)
        for word, kind in self.root.items():
            with at(word):
                expressions.require(word, given.columns)
            columns[word] = read_kind(kind)
        values = {word: self._value(word, given) for word in given.columns}
        return Made(given.select(*outputs(values, lambda _, value: value)), columns)

    def _value(self, word: str, given: Given) -> exp.Expression:
        if word not in self.root:
            return column(word)
        kind, before = read_kind(self.root[word]), given.columns[word]
        value: exp.Expression = column(word)
        if given.engine == "spark" and is_whole(kind) and is_number(before) and not is_whole(before):
            value = exp.Round(this=value)  # PostgreSQL rounds, Spark cuts off
        return exp.Cast(this=value, to=data_type(kind))


class Derive(RootModel[Annotated[dict[ColumnName, Text], Field(min_length=1)]], Step):
    """New columns, or new values of columns: `name: expression`. Each expression sees the row as it came."""

    model_config = ConfigDict(frozen=True)
    word: ClassVar[str] = "derive"

    def apply(self, given: Given) -> Made:
        """Project with expressions."""
        trees = {word: given.expression(said, [word]) for word, said in self.root.items()}
        columns = dict(given.columns) | {word: kind_of(tree, given.columns) for word, tree in trees.items()}
        chosen = outputs(columns, lambda word, _: trees[word] if word in trees else column(word))
        return Made(given.select(*chosen), columns)


class Ends(Parameters):
    """A text of which only the first or the last characters stay; the others become `*`."""

    word: ClassVar[str] = ""
    first: int | None = Field(None, ge=1, le=100)
    last: int | None = Field(None, ge=1, le=100)

    @model_validator(mode="after")
    def _one(self) -> Ends:
        if (self.first is None) == (self.last is None):
            raise ValueError("expected first or last, one of them")
        return self

    def apply(self, given: Given) -> Made:
        """No step of its own."""
        raise NotImplementedError


class Mask(
    RootModel[Annotated[dict[ColumnName, Literal["hash", "redact", "null"] | Ends], Field(min_length=1)]],
    Step,
):
    """Values that nobody should read: `hash` (SHA-256), `redact`, `null`, or only the first or last characters."""

    model_config = ConfigDict(frozen=True)
    word: ClassVar[str] = "mask"

    def apply(self, given: Given) -> Made:
        """Project with the values hidden."""
        columns = dict(given.columns)
        for word, how in self.root.items():
            with at(word):
                expressions.require(word, given.columns)
                if isinstance(how, Ends) and given.columns[word] not in (None, "text"):
                    raise ValueError(f"{word} is {given.columns[word]}, expected a text to keep the ends of")
            columns[word] = given.columns[word] if how == "null" else "text"
        chosen = outputs(columns, lambda word, _: self._value(word, given))
        return Made(given.select(*chosen), columns)

    def _value(self, word: str, given: Given) -> exp.Expression:
        how, value = self.root.get(word), column(word)
        if how is None:
            return value
        as_text = value if given.columns[word] == "text" else exp.cast(value, "text", dialect="postgres")
        if how == "null":
            kind = given.columns[word]
            return exp.Cast(this=null(), to=data_type(kind)) if kind else null()
        if how == "hash":
            return _sha256(as_text, given)
        if how == "redact":
            return exp.Case(ifs=[exp.If(this=value.is_(null()).not_(), true=text("***"))])
        assert isinstance(how, Ends)
        kept = number(how.first or how.last or 1)
        end = (
            exp.Left(this=as_text, expression=kept) if how.first else exp.Right(this=as_text, expression=kept)
        )
        length = exp.Length(this=as_text.copy())
        others = exp.Greatest(this=exp.Sub(this=length, expression=kept.copy()), expressions=[number(0)])
        hidden = exp.Anonymous(this="repeat", expressions=[text("*"), others])
        return exp.DPipe(this=end, expression=hidden) if how.first else exp.DPipe(this=hidden, expression=end)


def _sha256(value: exp.Expression, given: Given) -> exp.Expression:
    """Lower-case hexadecimal SHA-256 of a text's UTF-8 bytes."""
    if given.engine == "spark":
        return exp.SHA2(this=value, length=number(256))
    as_bytes = exp.Anonymous(this="convert_to", expressions=[value, text("UTF8")])
    return exp.Anonymous(
        this="encode", expressions=[exp.Anonymous(this="sha256", expressions=[as_bytes]), text("hex")]
    )


class Sort(Parameters):
    """The first rows by an order (`limit:`), or, as the last step, the order in which rows are written."""

    word: ClassVar[str] = "sort"
    by: list[Order] = Field(
        min_length=1, description="Columns; `-total` is the largest first, nulls are last."
    )
    limit: int | None = Field(
        None, ge=1, description="Only so many rows. Ties are decided by the other columns."
    )

    def apply(self, given: Given) -> Made:
        """`order by`."""
        if self.limit is None and not given.last:
            raise StepError(
                "rows of a table have no order, expected `limit:` here, or `sort` as the last step"
            )
        order = given.order(self.by, ["by"])
        named_ones = {word.removeprefix("-") for word in self.by}
        order += given.order(_sortable(given, named_ones))
        query = given.select(*columns_of(given.columns)).order_by(*order)
        return Made(query.limit(self.limit) if self.limit else query, given.columns)


def _sortable(given: Given, but: set[str]) -> list[str]:
    """The other columns, to decide ties by: so the same rows win each time."""
    return [word for word, kind in given.columns.items() if word not in but and not has_no_equality(kind)]


class Dedupe(Parameters):
    """One row of each key, the first by an order; without a key: equal rows once."""

    word: ClassVar[str] = "dedupe"
    key: list[ColumnName] = Field(default_factory=list, description="Columns; without any all columns count.")
    first_by: list[Order] = Field(
        default_factory=list,
        description="Which row of a key stays, e.g. `-updated_at`. Ties: by the other columns.",
    )

    def apply(self, given: Given) -> Made:
        """`row_number() = 1`, or `distinct`."""
        given.require(self.key, ["key"])
        counted = self.key or list(given.columns)
        for word in counted:
            if has_no_equality(given.columns[word]):
                raise StepError(
                    f"{word} is {given.columns[word]}, which has no equality; name a `key:`",
                    ["key"],
                )
        if not self.key:
            if self.first_by:
                raise StepError("says which row of a key stays, expected `key:` beside it", ["first_by"])
            return Made(given.select(*columns_of(given.columns)).distinct(), given.columns)
        order = given.order(self.first_by, ["first_by"])
        order += given.order(
            _sortable(given, {word.removeprefix("-") for word in self.first_by} | set(self.key))
        )
        place = exp.Window(
            this=exp.RowNumber(),
            partition_by=[column(word) for word in self.key],
            order=exp.Order(expressions=order or given.order(self.key)),
        )
        placed = given.select(*columns_of(given.columns), named(place, "_place"))
        query = exp.Select().select(*columns_of(given.columns)).from_(placed.subquery("placed"))
        return Made(query.where(exp.EQ(this=column("_place"), expression=number(1))), given.columns)


class Split(Parameters):
    """A text at a separator: into columns, or into a row for each part."""

    word: ClassVar[str] = "split"
    column: ColumnName
    by: Text = Field(description="The separator, as it stands in the text.")
    into: list[ColumnName] = Field(
        default_factory=list,
        description="A column for each part from the left; null where there is no such part.",
    )
    rows: ColumnName | None = Field(
        None, description="Column of the parts, a row for each; a null gives no row."
    )

    @model_validator(mode="after")
    def _one(self) -> Split:
        if bool(self.into) == (self.rows is not None):
            raise ValueError("expected into or rows, one of them")
        return self

    def apply(self, given: Given) -> Made:
        """`split_part`, or `unnest`."""
        given.require([self.column], ["column"])
        if given.columns[self.column] not in (None, "text"):
            raise StepError(f"{self.column} is {given.columns[self.column]}, expected a text", ["column"])
        kept = {word: kind for word, kind in given.columns.items() if word not in (*self.into, self.rows)}
        if self.rows is not None:
            return _exploded(given, kept, self.rows, _parts(self.column, self.by, given), "text")
        made = [named(self._part(index), word) for index, word in enumerate(self.into, start=1)]
        return Made(given.select(*columns_of(kept), *made), kept | dict.fromkeys(self.into, "text"))

    def _part(self, index: int) -> exp.Expression:
        part = exp.Anonymous(
            this="split_part", expressions=[column(self.column), text(self.by), number(index)]
        )
        return exp.Nullif(this=part, expression=text(""))


def _parts(word: str, separator: str, given: Given) -> exp.Expression:
    """The list of a text's parts."""
    if given.engine == "spark":  # there the separator is a regular expression
        import re

        value = exp.Nullif(
            this=column(word), expression=text("")
        )  # an empty text has no part, as in PostgreSQL
        return exp.Anonymous(this="split", expressions=[value, text(re.escape(separator)), number(-1)])
    return exp.Anonymous(this="string_to_array", expressions=[column(word), text(separator)])


def _exploded(
    given: Given, kept: dict[str, str | None], word: str, values: exp.Expression, kind: str
) -> Made:
    """A row for each value of a list, the other columns beside it."""
    function = "explode" if given.engine == "spark" else "unnest"
    chosen = named(exp.Anonymous(this=function, expressions=[values]), word)
    return Made(given.select(*columns_of(kept), chosen), kept | {word: kind})


class Flatten(Parameters):
    """A json column: its fields as columns, or a row for each element of its array."""

    word: ClassVar[str] = "flatten"
    column: ColumnName
    fields: dict[ColumnName, str] = Field(
        default_factory=dict,
        description="New column: dotted path, with `: type` behind it if not text.",
    )
    elements: ColumnName | None = Field(
        None, description="Column of the elements, as json; a null or empty array gives no row."
    )

    @model_validator(mode="after")
    def _one(self) -> Flatten:
        if bool(self.fields) == (self.elements is not None):
            raise ValueError("expected fields or elements, one of them")
        for word, said in self.fields.items():
            path, _, kind = said.partition(":")
            if not all(part.strip() for part in path.split(".")):
                raise ValueError(f"{word}: not a path, expected names between dots such as size.width")
            if kind:
                read_kind(kind.strip())
        return self

    def apply(self, given: Given) -> Made:
        """`->>`, or `json_array_elements`."""
        given.require([self.column], ["column"])
        if given.columns[self.column] not in (None, "json"):
            raise StepError(f"{self.column} is {given.columns[self.column]}, expected json", ["column"])
        if self.elements is not None:
            return self._elements(given, self.elements)
        kept = {word: kind for word, kind in given.columns.items() if word not in self.fields}
        kinds: dict[str, str | None] = {}
        chosen = []
        for word, said in self.fields.items():
            path, _, kind = said.partition(":")
            kinds[word] = read_kind(kind.strip()) if kind else "text"
            value = _field(self.column, [part.strip() for part in path.split(".")], given)
            chosen.append(
                named(exp.Cast(this=value, to=data_type(str(kinds[word]))) if kind else value, word)
            )
        return Made(given.select(*columns_of(kept), *chosen), kept | kinds)

    def _elements(self, given: Given, word: str) -> Made:
        kept = {other: kind for other, kind in given.columns.items() if other != word}
        if given.engine == "spark":
            schema = text("array<string>")
            listed = exp.Anonymous(this="from_json", expressions=[column(self.column), schema])
            return _exploded(given, kept, word, listed, "json")
        # A json null, a number, an object: no array, so no rows, and no error either.
        is_array = exp.EQ(
            this=exp.Anonymous(this="json_typeof", expressions=[column(self.column)]),
            expression=text("array"),
        )
        array = exp.Case(ifs=[exp.If(this=is_array, true=column(self.column))])
        chosen = named(exp.Anonymous(this="json_array_elements", expressions=[array]), word)
        return Made(given.select(*columns_of(kept), chosen), kept | {word: "json"})


def _field(word: str, path: list[str], given: Given) -> exp.Expression:
    if given.engine == "spark":
        steps = "".join(f"['{part}']" for part in path)
        return exp.Anonymous(this="get_json_object", expressions=[column(word), text(f"${steps}")])
    return exp.Anonymous(
        this="json_extract_path_text", expressions=[column(word), *(text(part) for part in path)]
    )


__all__ = [
    "Cast",
    "Dedupe",
    "Derive",
    "Drop",
    "Filter",
    "Flatten",
    "Mask",
    "Rename",
    "Select",
    "Sort",
    "Split",
]
