"""The steps that a document may write: one key each.

Belongs here: which words there are, those of plug-ins among them, and a transformation's inputs.
Does not: what a step does (rows.py, groups.py, tables.py, own.py), the statement (statement.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from datops_assets.transform import groups, own, rows, tables
from datops_assets.transform.step import Step

BUILT_IN: tuple[type[Step], ...] = (
    rows.Select,
    rows.Drop,
    rows.Filter,
    rows.Rename,
    rows.Cast,
    rows.Derive,
    rows.Mask,
    rows.Sort,
    rows.Dedupe,
    groups.Aggregate,
    tables.Join,
    tables.Lookup,
    tables.Union,
    groups.Window,
    groups.Pivot,
    groups.Unpivot,
    rows.Flatten,
    rows.Split,
    own.Sql,
    own.Python,
)
"""Steps that come with datops; a plug-in cannot take their names."""
Find = Callable[[str], type[Step] | None]


class StepDocument(BaseModel):
    """One step: one key, the step's name, with its parameters. Plug-ins add more names."""

    model_config = ConfigDict(extra="allow", frozen=True)

    select: rows.Select | None = Field(None, description=rows.Select.summary())
    drop: rows.Drop | None = Field(None, description=rows.Drop.summary())
    filter: rows.Filter | None = Field(None, description=rows.Filter.summary())
    rename: rows.Rename | None = Field(None, description=rows.Rename.summary())
    cast: rows.Cast | None = Field(None, description=rows.Cast.summary())
    derive: rows.Derive | None = Field(None, description=rows.Derive.summary())
    mask: rows.Mask | None = Field(None, description=rows.Mask.summary())
    sort: rows.Sort | None = Field(None, description=rows.Sort.summary())
    dedupe: rows.Dedupe | None = Field(None, description=rows.Dedupe.summary())
    aggregate: groups.Aggregate | None = Field(None, description=groups.Aggregate.summary())
    join: tables.Join | None = Field(None, description=tables.Join.summary())
    lookup: tables.Lookup | None = Field(None, description=tables.Lookup.summary())
    union: tables.Union | None = Field(None, description=tables.Union.summary())
    window: groups.Window | None = Field(None, description=groups.Window.summary())
    pivot: groups.Pivot | None = Field(None, description=groups.Pivot.summary())
    unpivot: groups.Unpivot | None = Field(None, description=groups.Unpivot.summary())
    flatten: rows.Flatten | None = Field(None, description=rows.Flatten.summary())
    split: rows.Split | None = Field(None, description=rows.Split.summary())
    sql: own.Sql | None = Field(None, description=own.Sql.summary())
    python: own.Python | None = Field(None, description=own.Python.summary())

    find: ClassVar[Find] = staticmethod(lambda word: None)
    """Looks up the step of a plug-in by its name; None: there is none. Set by whoever knows plug-ins."""

    @model_validator(mode="wrap")
    @classmethod
    def _one_key(cls, values: Any, build: Callable[[Any], StepDocument]) -> StepDocument:
        if not isinstance(values, dict):
            return build(values)
        written = [word for word, value in values.items() if value is not None]
        if len(written) != 1:
            raise PydanticCustomError("value_error", "expected one key, the step's name, with its parameters")
        return build(cls._with_plugin(written[0], values))

    @classmethod
    def _with_plugin(cls, word: str, values: dict[str, Any]) -> dict[str, Any]:
        if word in cls.model_fields or isinstance(values[word], Step):
            return values
        found = cls.find(word)
        if found is None:
            import difflib

            known = list(cls.model_fields)
            close = difflib.get_close_matches(word, known, n=1)
            said = (
                f"did you mean `{close[0]}`?"
                if close
                else f"expected one of: {', '.join(known)}, or a plug-in's"
            )
            raise _parts([((word,), f"there is no step of this name, {said}")])
        assert issubclass(found, BaseModel)
        try:
            return {word: found.model_validate(values[word])}
        except ValidationError as error:
            raise _parts(
                [((word, *item["loc"]), item["msg"].removeprefix("Value error, ")) for item in error.errors()]
            ) from None

    @property
    def step(self) -> Step:
        """The step itself."""
        for word in (*type(self).model_fields, *(self.model_extra or {})):
            found = getattr(self, word)
            if found is not None:
                return found
        raise AssertionError("a step has one key")

    @property
    def word(self) -> str:
        """The step's name."""
        return self.step.word

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As it is written: one key."""
        return {word: value for word, value in write(self).items() if value is not None}


def _parts(problems: list[tuple[tuple[Any, ...], str]]) -> PydanticCustomError:
    said = "; ".join(what for _, what in problems)
    return PydanticCustomError("contract_parts", "{sentences}", {"sentences": said, "problems": problems})


def inputs_of(first: str, steps: list[StepDocument]) -> list[str]:
    """Every table that a transformation reads, by the names it gives, each once."""
    return list(dict.fromkeys([first, *(table for step in steps for table in step.step.inputs())]))
