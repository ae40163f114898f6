"""A step, a plan, and how names and privileges stand in a statement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import LiteralString

from psycopg import sql

from datops_assets.databases.actual import Thing
from datops_assets.databases.secrets import Secret

PUBLIC = ""
VERIFIER = "<SCRAM-SHA-256 verifier>"
_NAMED_BY_TYPES = frozenset({"function", "procedure", "aggregate", "routine"})


@dataclass(frozen=True)
class Step:
    """One statement and its reason."""

    statement: str
    """As it is sent; of a password only the verifier is, which takes this text's last place."""
    why: str
    alone: bool = False
    """PostgreSQL runs it in no transaction: databases are made and dropped so."""
    drops: bool = False
    password: Secret | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Plan:
    """What to do, in order, and what is left as it is until somebody says the word."""

    steps: tuple[Step, ...] = ()
    kept: tuple[str, ...] = ()
    """Sentences: what is there, is not declared, and how to have it gone."""
    cannot: tuple[str, ...] = ()
    """Sentences: what this administrator may not do or see, and what would let it."""


def named(thing: Thing) -> str:
    """An object with its schema; a routine with its argument types."""
    if thing.kind in _NAMED_BY_TYPES:
        # The server wrote it, quoted and with its schema: regprocedure under an empty search_path.
        return thing.more or ""
    parts = (thing.schema, thing.name) if thing.schema else (thing.name,)
    return text("{}", sql.Identifier(*parts))


def grantee_name(grantee: str) -> str:
    """A role, or PUBLIC."""
    return text("{}", identifier(grantee)) if grantee else "public"


def privileges_of(privileges: Iterable[str]) -> str:
    """Privileges as a statement lists them."""
    return ", ".join(sorted(privileges)).lower()


def identifier(name: str) -> sql.Identifier:
    """A name, quoted where it has to be."""
    return sql.Identifier(name)


def text(template: LiteralString, *parts: sql.Composable) -> str:
    """A statement with its names filled in."""
    return sql.SQL(template).format(*parts).as_string(None)
