"""A condition over one row that another package brings, for `rules: [{check: …, with: {…}}]`.

It is a name and parameters for what an `expression:` rule says in a text. So it is judged by the same
SQL and the same Python, and can do nothing that a document could not do itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class OwnCheck(BaseModel, ABC):
    """One condition: a pydantic model of its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    word: ClassVar[str]
    """What a document writes behind `check:`."""

    @abstractmethod
    def expression(self) -> str:
        """Return the condition, as an `expression:` rule has it; a row fails when it is false, null passes.

        Two calls with equal parameters give equal texts: it decides which rows silver holds. A text
        among the parameters is written by `literal`, a column's name as it is.
        """

    def reason(self) -> str:
        """Return what is said of a row that fails: the rest of a sentence about it, never a value."""
        return "is false"

    @classmethod
    def summary(cls) -> str:
        """One line for lists: the first of the class's docstring."""
        return (cls.__doc__ or cls.word).strip().splitlines()[0]


def literal(text: str) -> str:
    """Return a text as a constant of an expression, whatever quotes are in it."""
    return "'" + text.replace("'", "''") + "'"
