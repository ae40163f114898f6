"""The view that shows a mirror in silver: the columns under silver's names, the values as they are.

Rows that the source has no more, kept with marks, are not shown.

Belongs here: making it, and letting it follow when the mirror changes. Does not: judging rows (quality).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.cdc.marks import Marks, marks_of
from datops_assets.errors import LoadRefusedError
from datops_assets.postgres.identifiers import bronze_table, silver_table, warehouse_name
from datops_assets.postgres.names import contract_name

_OURS = "shows a mirror; made by datops"
_FIND: LiteralString = """
select c.oid, obj_description(c.oid, 'pg_class') = %s from pg_class c
 where c.oid = to_regclass(format('silver.%%I', %s::text))
"""
_COLUMNS: LiteralString = """
select a.attname, format_type(a.atttypid, a.atttypmod) from pg_attribute a
 where a.attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text)) and a.attnum > 0 and not a.attisdropped
 order by a.attnum
"""
_GRANTS: LiteralString = """
select x.privilege_type, x.is_grantable, case when x.grantee = 0 then null else pg_get_userbyid(x.grantee) end
  from pg_class c, aclexplode(c.relacl) as x where c.oid = %s and x.grantee <> c.relowner
"""


def renew_view(
    conn: psycopg.Connection[Any], source: str, name: str, rename: Mapping[str, str]
) -> dict[str, str]:
    """Let silver.<source>_<name> show the mirror as it is now; returns its columns and their types.

    rename     the mirror's name of a column: silver's; the others become snake_case
    raises     LoadRefusedError: two columns would have one name, something else has the view's name, or
               views on it keep it from following the mirror. All is as before
    """
    columns = _columns(conn, "bronze", source, name)
    named = silver_names(f"{source}.{name}", columns, rename)
    with conn.transaction():
        _refuse_what_is_not_ours(conn, source, name)
        try:
            with conn.transaction():
                _create(conn, source, name, named, marks_of(conn, bronze_table(source, name)))
        except psycopg.errors.InvalidTableDefinition:  # not only more columns at the end
            with _made_again(conn, source, name):
                _create(conn, source, name, named, marks_of(conn, bronze_table(source, name)))
    return {shown: columns[column] for column, shown in named.items()}


@contextmanager
def view_follows(conn: psycopg.Connection[Any], source: str, name: str) -> Iterator[None]:
    """Take our view, if there is one, out of the way of a mirror that is made anew in the caller's transaction.

    Afterwards it shows the new one, under the names it gave; for its readers it was never away.
    """
    found = conn.execute(_FIND, (_OURS, warehouse_name(source, name))).fetchone()
    if found is None or not found[1]:
        yield
        return
    rename = _shown_as(conn, source, name)
    with _made_again(conn, source, name):
        yield
        columns = _columns(conn, "bronze", source, name)
        named = silver_names(f"{source}.{name}", columns, rename)
        _create(conn, source, name, named, marks_of(conn, bronze_table(source, name)))


def show_live_rows(conn: psycopg.Connection[Any], source: str, name: str, marks: Marks | None) -> None:
    """Let our view, if there is one, leave out what is marked by `marks`, in the caller's transaction."""
    found = conn.execute(_FIND, (_OURS, warehouse_name(source, name))).fetchone()
    if found is not None and found[1]:
        _create(conn, source, name, _shown_as(conn, source, name), marks)


def _shown_as(conn: psycopg.Connection[Any], source: str, name: str) -> dict[str, str]:
    """The mirror's columns that our view shows, and under which names."""
    # The view has the mirror's columns in the mirror's order, all that were there when it was made.
    return dict(
        zip(_columns(conn, "bronze", source, name), _columns(conn, "silver", source, name), strict=False)
    )


def _columns(conn: psycopg.Connection[Any], schema: str, source: str, name: str) -> dict[str, str]:
    """The columns of the mirror without our marks, or of the view, and their types."""
    held = dict(conn.execute(_COLUMNS, (schema, warehouse_name(source, name))).fetchall())
    marks = marks_of(conn, bronze_table(source, name)) if schema == "bronze" else None
    return {column: kind for column, kind in held.items() if marks is None or column not in marks.names}


def silver_names(label: str, columns: Collection[str], rename: Mapping[str, str]) -> dict[str, str]:
    """Silver's name of each column of a mirror. Pure.

    raises     LoadRefusedError: two columns would have one name
    """
    named: dict[str, str] = {}
    for column in columns:
        shown = contract_name(column, rename) or column
        twin = next((other for other, taken in named.items() if taken == shown), None)
        if twin is not None:
            raise LoadRefusedError(
                f"{label}: the columns {twin!r} and {column!r} would both be {shown!r} in silver;"
                " give one of them another name by `rename:`"
            )
        named[column] = shown
    return named


def _create(
    conn: psycopg.Connection[Any], source: str, name: str, named: Mapping[str, str], marks: Marks | None
) -> None:
    view = silver_table(source, name)
    shown = sql.SQL(", ").join(
        sql.SQL("m.{} as {}").format(sql.Identifier(column), sql.Identifier(as_))
        for column, as_ in named.items()
    )
    conn.execute(
        sql.SQL("create or replace view {} as select {} from {} as m{}").format(
            view,
            shown,
            bronze_table(source, name),
            sql.SQL(" where {}").format(marks.live("m")) if marks is not None else sql.SQL(""),
        )
    )
    conn.execute(sql.SQL("comment on view {} is {}").format(view, sql.Literal(_OURS)))


@contextmanager
def _made_again(conn: psycopg.Connection[Any], source: str, name: str) -> Iterator[None]:
    """Drop the view, let the caller make it, and give it back to whoever could read it."""
    view = silver_table(source, name)
    found = conn.execute(_FIND, (_OURS, warehouse_name(source, name))).fetchone()
    grants = conn.execute(_GRANTS, (found[0],)).fetchall() if found else []
    _drop(conn, source, name)
    yield
    for privilege, grantable, role in grants:
        conn.execute(
            sql.SQL("grant {} on {} to {}{}").format(
                sql.SQL(privilege),
                view,
                sql.SQL("public") if role is None else sql.Identifier(role),
                sql.SQL(" with grant option" if grantable else ""),
            )
        )


def _drop(conn: psycopg.Connection[Any], source: str, name: str) -> None:
    view = silver_table(source, name)
    try:
        with conn.transaction():
            conn.execute(sql.SQL("drop view if exists {}").format(view))
    except psycopg.errors.DependentObjectsStillExist:
        raise LoadRefusedError(
            f"{view.as_string(conn)} is to be made anew, for the columns of the source are others, and views stand"
            f" on it; drop those, then try again: datops cdc drain {source}"
        ) from None


def _refuse_what_is_not_ours(conn: psycopg.Connection[Any], source: str, name: str) -> None:
    found = conn.execute(_FIND, (_OURS, warehouse_name(source, name))).fetchone()
    if found is not None and not found[1]:
        raise LoadRefusedError(
            f"silver.{warehouse_name(source, name)} is there and was not made as a view on the mirror;"
            f" drop it, or take `silver: view` from the stream's document"
        )
