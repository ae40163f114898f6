"""What pg_stat_statements counted of each role: rows given by select, and the shapes of its statements.

Optional: where the extension is not there, nothing is known, which is said and never counts as fine. No
text of a statement leaves the server; a shape is its `queryid`.
source    PostgreSQL, "pg_stat_statements"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

_WHERE: LiteralString = """
select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'pg_stat_statements'
"""
# Without this right the view has rows, and no statement in them: it would look as if nobody had read.
_MAY_READ: LiteralString = "select pg_has_role(current_user, 'pg_read_all_stats', 'usage')"
# Comments before the first word are passed over. Rows of `copy … from`, `insert` and their like came in.
_READS: LiteralString = r"^(\s|/\*.*?\*/|--[^\n]*\n|\()*(select|with|table|values|fetch)\y"
_COPIES_OUT: LiteralString = r"^(\s|/\*.*?\*/|--[^\n]*\n)*copy\y.*\yto\s+(stdout|program|['$])"
_COUNTED: LiteralString = """
select r.rolname,
       coalesce(sum(s.rows) filter (where s.query ~* %s or s.query ~* %s), 0)::float8,
       array_agg(distinct s.queryid::text) filter (where s.queryid is not null)
  from {}.pg_stat_statements s join pg_roles r on r.oid = s.userid group by 1
"""


@dataclass(frozen=True)
class Statements:
    """By role, since the extension's statistics began."""

    selected: Mapping[str, float]
    """Rows given by select, or copied out."""
    shapes: Mapping[str, frozenset[str]]


def read_statements(connections: Iterable[psycopg.Connection[Any]]) -> Statements | None:
    """Ask the first database that has the extension; it counts for all of the server.

    returns    None where no database has it, it is not among shared_preload_libraries, or we may not read it
    """
    for conn in connections:
        found = conn.execute(_WHERE).fetchone()
        if found is None or conn.execute(_MAY_READ).fetchone() != (True,):
            continue
        try:
            with conn.transaction():
                rows = conn.execute(
                    sql.SQL(_COUNTED).format(sql.Identifier(found[0])), (_READS, _COPIES_OUT)
                ).fetchall()
        except (psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.InsufficientPrivilege):
            continue
        return Statements(
            {role: rows for role, rows, _ in rows},
            {role: frozenset(shapes or ()) for role, _, shapes in rows},
        )
    return None
