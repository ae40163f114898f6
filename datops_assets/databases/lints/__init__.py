"""Weak points of a database that no session shows: tables without key, views that lend rights, and their like.

Each is a query in a file of its name, which begins by saying why it matters. It gives names, a space, and
what of them is meant; `schemas` are the team's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

UNUSED_DAYS = 30
_ACCEPTED = """
select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where obj_description(c.oid, 'pg_class') like '%datops: no-lint%'
"""


@dataclass(frozen=True)
class Lint:
    """One weak point. `where` names what has it."""

    name: str
    where: str
    why: str


@cache
def queries() -> Mapping[str, tuple[str, str]]:
    """Name: why it matters and what to do, and the query."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.sql")):
        lines = file.read_text(encoding="utf-8").splitlines()
        why = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
        found[file.stem] = (" ".join(why), "\n".join(lines[len(why) :]))
    return found


def lint(
    conn: psycopg.Connection[Any], schemas: tuple[str, ...], *, unused_days: int = UNUSED_DAYS
) -> list[Lint]:
    """Look for weak points in these schemas of the database that the connection is to.

    unused_days    how long an index must have stood idle
    Where somebody has thought about it, the object's comment says `datops: no-lint`.
    """
    about = {"schemas": list(schemas), "unused_days": unused_days}
    found = [
        Lint(name, str(where), why)
        for name, (why, query) in queries().items()
        for (where,) in conn.execute(query.encode(), about)
    ]
    accepted = {row[0] for row in conn.execute(_ACCEPTED)}
    return [one for one in found if one.where.split(" ")[0] not in accepted]
