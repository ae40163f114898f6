"""Weak points of a database that no session shows: tables without key, views that lend rights, and their like."""

# ruff: noqa: E501, S608 - each query is a constant, put together of constants
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

_MINE: LiteralString = "n.nspname = any(%(schemas)s)"
_LINTS: dict[str, tuple[str, LiteralString]] = {
    "no_primary_key": (
        "a table without primary key: rows cannot be told apart, and change data capture needs one",
        "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'p') and not c.relispartition and "
        + _MINE
        + " and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)",
    ),
    "unindexed_foreign_key": (
        "a foreign key without index: each delete there reads this table whole",
        "select n.nspname || '.' || c.relname || ' ' || k.conname from pg_constraint k join pg_class c on c.oid = k.conrelid"
        " join pg_namespace n on n.oid = c.relnamespace where k.contype = 'f' and "
        + _MINE
        + " and not exists (select from pg_index i where i.indrelid = k.conrelid and i.indpred is null"
        " and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)",
    ),
    "definer_view": (
        "a view with its owner's rights: who may read the view needs none on its tables"
        " (alter view … set (security_invoker = true))",
        "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind = 'v' and "
        + _MINE
        + " and not coalesce((select option_value::bool from pg_options_to_table(c.reloptions)"
        " where option_name = 'security_invoker'), false)",
    ),
    "definer_search_path": (
        "a function with its owner's rights and the caller's search_path: the caller chooses what it runs"
        " (alter function … set search_path = …)",
        "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.prosecdef and "
        + _MINE
        + " and not exists (select from unnest(p.proconfig) s where s like 'search_path=%%')",
    ),
    "duplicate_index": (
        "two indexes of the same columns: one of them only costs",
        "select n.nspname || '.' || c.relname || ' ' || string_agg(i.indexrelid::regclass::text, ', ' order by i.indexrelid)"
        " from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace where "
        + _MINE
        + " group by n.nspname, c.relname, i.indrelid, i.indkey, i.indclass, i.indcollation, i.indoption,"
        " pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid) having count(*) > 1",
    ),
    "policy_off": (
        "row security has policies and is not switched on",
        "select distinct n.nspname || '.' || c.relname from pg_policy o join pg_class c on c.oid = o.polrelid"
        " join pg_namespace n on n.oid = c.relnamespace where not c.relrowsecurity and " + _MINE,
    ),
    "policy_for_all": (
        "a policy that lets everybody see every row",
        "select n.nspname || '.' || c.relname || ' ' || o.polname from pg_policy o join pg_class c on c.oid = o.polrelid"
        " join pg_namespace n on n.oid = c.relnamespace where o.polpermissive and o.polroles = '{0}'"
        " and pg_get_expr(o.polqual, o.polrelid) = 'true' and " + _MINE,
    ),
    "invalid_index": (
        "an index that a failed `create index concurrently` left: it costs and is never used",
        "select i.indexrelid::regclass::text from pg_index i join pg_class c on c.oid = i.indrelid"
        " join pg_namespace n on n.oid = c.relnamespace where not i.indisvalid and " + _MINE,
    ),
    "open_database": (
        "other databases of the server that PUBLIC may connect to",
        "select d.datname from pg_database d where d.datallowconn and not d.datistemplate"
        " and d.datname <> current_database() and cardinality(%(schemas)s::text[]) >= 0"
        " and has_database_privilege('public', d.oid, 'connect')",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Lint:
    """One weak point. `where` names what has it."""

    name: str
    where: str
    why: str


def lint(conn: psycopg.Connection[Any], schemas: tuple[str, ...]) -> list[Lint]:
    """Look for weak points in these schemas of the database that the connection is to.

    Where somebody has thought about it, the object's comment says `datops: no-lint`.
    """
    found = [
        Lint(name, str(where), why)
        for name, (why, query) in _LINTS.items()
        for (where,) in conn.execute(query, {"schemas": list(schemas)})
    ]
    accepted = {
        row[0]
        for row in conn.execute(
            "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where obj_description(c.oid, 'pg_class') like '%datops: no-lint%'"
        )
    }
    return [one for one in found if one.where.split(" ")[0] not in accepted]
