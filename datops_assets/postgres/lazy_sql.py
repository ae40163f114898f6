"""psycopg.sql, imported when a statement is composed and not before.

Documents and contracts are also read by processes that open no connection: those that load
definitions. A module that such a process imports takes SQL, Literal and their like from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psycopg.sql import SQL, Composable, Identifier, Literal

__all__ = ["SQL", "Composable", "Identifier", "Literal"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module("psycopg.sql"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
