"""What people have put on a silver table themselves, and the table that takes its place must have too.

Belongs here: indexes, comments, row security's switch. Grants and views, and refusing what
cannot follow, are swap's.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL

from datops_assets.errors import WarehouseError
from datops_assets.quality.silver import key_index

Connection = psycopg.Connection[Any]

_INDEXES = """
select c.relname, pg_get_indexdef(c.oid),
       format('INDEX %%I ON silver.%%I USING ', c.relname, %(name)s::text),
       format('INDEX %%I ON silver.%%I USING ', '__copy_' || c.oid, %(new)s::text),
       '__copy_' || c.oid, to_regclass(format('silver.%%I', '__copy_' || c.oid)) is not null
from pg_index i join pg_class c on c.oid = i.indexrelid
where i.indrelid = %(old)s and c.relname <> %(key)s
  and not exists (select from pg_constraint k where k.conindid = c.oid and k.conrelid = i.indrelid)
order by c.oid
"""
_LOOKS = """
select relrowsecurity, relforcerowsecurity, obj_description(oid, 'pg_class') from pg_class where oid = %s
"""
_COMMENTS = """
select a.attname, col_description(a.attrelid, a.attnum)
from pg_attribute a
join pg_attribute n on n.attrelid = to_regclass(format('silver.%%I', %s::text)) and n.attname = a.attname
where a.attrelid = %s and not a.attisdropped
  and col_description(a.attrelid, a.attnum) is not null and col_description(n.attrelid, n.attnum) is null
"""


def copy_indexes(conn: Connection, old: int, new: str, name: str) -> dict[str, str]:
    """Build every index of the old table that the new one lacks, the key's own left out.

    old, name  the table in place
    returns    the copies' names, and the name each is to have once the old one is gone
    raises     WarehouseError: an index does not fit the new table
    """
    values = {"old": old, "name": name, "new": new, "key": key_index(name)}
    copies: dict[str, str] = {}
    for index, definition, head, copy_head, copy, is_there in conn.execute(_INDEXES, values).fetchall():
        copies[copy] = index
        if is_there:
            continue
        try:
            # The text is PostgreSQL's own, already quoted; only the two names in its head are others.
            conn.execute(SQL(definition.replace(head, copy_head, 1)))
        except psycopg.errors.Error as error:
            if isinstance(error, psycopg.OperationalError):
                raise
            raise WarehouseError(
                f"the index {index} does not fit the new table of silver.{name} (SQLSTATE {error.sqlstate});"
                " drop it, then run again. Silver is as it was"
            ) from None
    return copies


def copy_looks(conn: Connection, old: int, new: str) -> None:
    """Give the new table the old one's comments, where the contract has none, and its row security."""
    table = sql.Identifier("silver", new)
    row = conn.execute(_LOOKS, (old,)).fetchone()
    assert row is not None
    secured, forced, comment = row
    if secured:
        conn.execute(SQL("alter table {} enable row level security").format(table))
    if forced:
        conn.execute(SQL("alter table {} force row level security").format(table))
    if comment:
        conn.execute(SQL("comment on table {} is {}").format(table, sql.Literal(comment)))
    for column, said in conn.execute(_COMMENTS, (new, old)).fetchall():
        place = SQL("{}.{}").format(table, sql.Identifier(column))
        conn.execute(SQL("comment on column {} is {}").format(place, sql.Literal(said)))
