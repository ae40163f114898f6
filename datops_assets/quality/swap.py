"""Putting a newly built silver table in the place of the old one, for its readers in one moment.

The lock that keeps readers out is taken last and asked for with a time limit: a long query of a
reader makes us wait and then give up, it never queues everybody behind us. Grants and views
follow the new table; whatever else depends on the old one is named, and nothing is changed.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composed

from datops_assets.errors import LockTakenError, WarehouseError
from datops_assets.postgres.failpoints import hit
from datops_assets.quality.silver import key_index
from datops_assets.quality.swap_copy import copy_indexes, copy_looks

Connection = psycopg.Connection[Any]

LOCK_TIMEOUT_S = 15
"""Longest wait for readers of the old table; then the judgement rolls back and may be tried again."""
_HOLDING_S = 0.7
"""Longest wait for a lock while holding another one; below PostgreSQL's deadlock_timeout of 1 s."""


def swap_in(conn: Connection, new: str, name: str, *, lock_timeout_s: float | None = None) -> None:
    """Let silver.<new> become silver.<name>. Call it inside the transaction that built it.

    lock_timeout_s  longest wait for readers; None: LOCK_TIMEOUT_S
    raises  LockTakenError: readers kept the old table, or a view on it, for longer
            WarehouseError: something depends on the old table that cannot follow
            In both cases the transaction is to be rolled back; readers saw nothing.
    """
    found = conn.execute("select to_regclass(format('silver.%%I', %s::text))::oid", (name,)).fetchone()
    old = found[0] if found else None
    if old is None:
        _rename(conn, new, name)
        _rename_index(conn, new, name)
        return
    copy_indexes(conn, old, new, name)  # before the lock, because it may take long
    _lock(conn, old, name, LOCK_TIMEOUT_S if lock_timeout_s is None else lock_timeout_s)
    # Read under the lock, so that no grant, index or view of the last moment is lost.
    _refuse_what_cannot_follow(conn, old, name)
    indexes = copy_indexes(conn, old, new, name)
    views = _views(conn, old)
    copy_looks(conn, old, new)
    _copy_grants(conn, old, new)
    retired = f"{name}__old"
    _rename(conn, name, retired)
    _rename(conn, new, name)
    hit("swap.renamed")
    for view in views:
        _recreate(conn, name, *view)
    conn.execute(SQL("drop table {}").format(sql.Identifier("silver", retired)))
    _rename_index(conn, new, name)
    for copy, index in indexes.items():
        conn.execute(
            SQL("alter index {} rename to {}").format(sql.Identifier("silver", copy), sql.Identifier(index))
        )
    hit("swap.done")


def _lock(conn: Connection, old: int, name: str, lock_timeout_s: float) -> None:
    """Keep readers out of the table and of every view on it.

    A reader locks a view, then the table. So do we; and whoever holds one of them waits for the
    next for less than `deadlock_timeout`, gives all back, and waits for that one first.
    """
    deadline = time.monotonic() + lock_timeout_s
    first: Composed | None = None
    while True:
        wanted = [
            *_view_locks(conn, old),
            SQL("lock table {} in access exclusive mode").format(sql.Identifier("silver", name)),
        ]
        wanted.sort(key=lambda statement: statement != first)
        patience = max(deadline - time.monotonic(), 0.001)
        taken = 0
        try:
            with conn.transaction():  # a savepoint: going back to it gives the locks back
                for statement in wanted:
                    _wait_at_most(conn, patience)
                    conn.execute(statement)
                    taken += 1
                    patience = _HOLDING_S / len(wanted)
            return
        except psycopg.errors.InsufficientPrivilege as error:
            raise WarehouseError(
                f"silver.{name} is replaced by a new table, and a view on it belongs to another role"
                f" ({error.diag.message_primary}). Have its owner drop it, run again, and create it anew;"
                " silver is as it was"
            ) from None
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            first = wanted[taken]
            if time.monotonic() >= deadline:
                raise LockTakenError(
                    f"somebody read silver.{name} for longer than {lock_timeout_s:g} s, so the new table"
                    f" could not take its place;"
                    f" silver is as it was, try again"
                ) from error


def _wait_at_most(conn: Connection, seconds: float) -> None:
    limit = sql.Literal(f"{max(round(seconds * 1000), 1)}ms")
    conn.execute(SQL("set local lock_timeout = {}").format(limit))


def _view_locks(conn: Connection, old: int) -> list[Composed]:
    """Statements that lock each view on the table and nothing else; `lock table` would lock all that it reads."""
    owners = (
        "select c.oid::regclass::text, pg_get_userbyid(c.relowner) from pg_class c"
        " where c.oid = any (%s::oid[]) order by 1"
    )
    views = [oid for _, _, _, oid in _views(conn, old)]
    return [
        SQL("alter view {} owner to {}").format(SQL(view), sql.Identifier(owner))
        for view, owner in conn.execute(owners, (views,)).fetchall()
    ]


def _rename(conn: Connection, name: str, to: str) -> None:
    conn.execute(
        SQL("alter table {} rename to {}").format(sql.Identifier("silver", name), sql.Identifier(to))
    )


def _rename_index(conn: Connection, built_as: str, name: str) -> None:
    """Give the key's index of silver.<name> the name that goes with it."""
    found = conn.execute(
        "select 1 from pg_index i join pg_class c on c.oid = i.indexrelid"
        " where i.indrelid = to_regclass(format('silver.%%I', %s::text)) and c.relname = %s",
        (name, key_index(built_as)),
    ).fetchone()
    if found:
        index, to = sql.Identifier("silver", key_index(built_as)), sql.Identifier(key_index(name))
        conn.execute(SQL("alter index {} rename to {}").format(index, to))


_DEPENDENTS = """
select distinct c.oid::regclass::text, c.relkind::text
from pg_depend d
join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
join pg_class c on c.oid = r.ev_class
where d.refclassid = 'pg_class'::regclass and d.refobjid = %s and c.oid <> %s
union
select distinct p.oid::regprocedure::text, 'function'
from pg_depend d join pg_proc p on d.classid = 'pg_proc'::regclass and p.oid = d.objid
where d.refclassid = 'pg_class'::regclass and d.refobjid = %s
union
select c.conrelid::regclass::text || '.' || c.conname, 'foreign key' from pg_constraint c where c.confrelid = %s
union
select t.tgname, 'trigger' from pg_trigger t where t.tgrelid = %s and not t.tgisinternal
union
select p.polname, 'policy' from pg_policy p where p.polrelid = %s
union
select p.pubname, 'publication' from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
where r.prrelid = %s
union
select c.conname, 'constraint' from pg_constraint c where c.conrelid = %s and c.contype in ('c', 'f', 'p', 'u', 'x')
union
select s.stxname, 'statistics' from pg_statistic_ext s where s.stxrelid = %s
"""
_KINDS = {"m": "materialized view"}


def _refuse_what_cannot_follow(conn: Connection, old: int, name: str) -> None:
    others = [(what, kind) for what, kind in conn.execute(_DEPENDENTS, (old,) * 9) if kind != "v"]
    if others:
        named = ", ".join(f"the {_KINDS.get(kind, kind)} {what}" for what, kind in others)
        raise WarehouseError(
            f"silver.{name} is replaced by a new table, and {named} would stay with the old one."
            f" Drop it, run again, and create it anew; silver is as it was"
        )


def _views(conn: Connection, old: int) -> list[tuple[str, list[str] | None, str, int]]:
    """Views that read the table themselves: name, options, definition with every name qualified, oid."""
    # Views on views follow theirs, which keeps its identity. An empty path makes PostgreSQL print full names.
    path = conn.execute("select current_setting('search_path')").fetchone()
    conn.execute("set local search_path = ''")
    rows = conn.execute(
        "select distinct c.oid::regclass::text, c.reloptions, pg_get_viewdef(c.oid), c.oid"
        " from pg_depend d join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass"
        " join pg_class c on c.oid = r.ev_class"
        " where d.refclassid = 'pg_class'::regclass and d.refobjid = %s and c.relkind = 'v'",
        (old,),
    ).fetchall()
    assert path is not None
    conn.execute("select set_config('search_path', %s, true)", path)
    return rows


def _recreate(
    conn: Connection, name: str, view: str, options: list[str] | None, definition: str, _: int
) -> None:
    # Names, options and text come from PostgreSQL's own catalogue, already quoted.
    with_options = f" with ({', '.join(options)})" if options else ""
    try:
        conn.execute(SQL(f"create or replace view {view}{with_options} as {definition}"))
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise LockTakenError(
            f"somebody works on the view {view}; silver.{name} is as it was, try again"
        ) from error
    except psycopg.errors.Error as error:
        raise WarehouseError(
            f"the view {view} does not fit the new columns of silver.{name}; drop or change it, then run again."
            f" Silver is as it was"
        ) from error


_GRANTS = """
select x.privilege_type, x.is_grantable, case when x.grantee = 0 then null else pg_get_userbyid(x.grantee) end,
       a.attname
from (select c.relacl as acl, null::name as attname from pg_class c where c.oid = %(old)s and c.relacl is not null
      union all
      select attacl, attname from pg_attribute
      where attrelid = %(old)s and attacl is not null and not attisdropped) as a,
     lateral aclexplode(a.acl) as x
where x.grantee <> (select relowner from pg_class where oid = %(old)s)
"""


def _copy_grants(conn: Connection, old: int, new: str) -> None:
    table = sql.Identifier("silver", new)
    columns = dict(
        conn.execute(
            "select attname, true from pg_attribute where attrelid ="
            " to_regclass(format('silver.%%I', %s::text)) and attnum > 0",
            (new,),
        ).fetchall()
    )
    for privilege, grantable, role, column in conn.execute(_GRANTS, {"old": old}).fetchall():
        if column is not None and column not in columns:
            continue
        what = (
            SQL(privilege)
            if column is None
            else SQL("{} ({})").format(SQL(privilege), sql.Identifier(column))
        )
        to = SQL("public") if role is None else sql.Identifier(role)
        conn.execute(
            SQL("grant {} on {} to {}{}").format(
                what, table, to, SQL(" with grant option" if grantable else "")
            )
        )
    owner = conn.execute(
        "select pg_get_userbyid(relowner), pg_get_userbyid(relowner) = current_user from pg_class where oid = %s",
        (old,),
    ).fetchone()
    if owner is not None and not owner[1]:
        conn.execute(SQL("alter table {} owner to {}").format(table, sql.Identifier(owner[0])))
