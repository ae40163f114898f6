"""What was changed by hand in a bronze table, found before a load begins, with the way back.

The catalogue remembers which columns and rows are there; a load that trusted it would fail file by
file, or fill a new table while silver still counts on the old one.
"""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.errors import WarehouseError
from datops_assets.ingestion.bronze import BronzeTable

_MISSING: LiteralString = """
select c.name, c.type from datops.columns c
 where c.table_id = %(table_id)s and not c.in_more
   and not exists (select from pg_attribute a
                    where a.attrelid = to_regclass(%(table)s) and a.attname = c.name and not a.attisdropped)
 order by c.position
"""
_LIVE: LiteralString = """
select count(*) from datops.loads where table_id = %s and state in ('loaded', 'staged') and rows > 0
"""


def require_as_left(conn: psycopg.Connection[Any], bronze: BronzeTable) -> None:
    """Hold a bronze table against what the catalogue says of it. Call under the table's lock.

    raises     WarehouseError: the table, or a column of it, is gone; nothing was changed
    promise    a table whose loads were all undone may be dropped: its columns are forgotten with it
    """
    values = {"table_id": bronze.table_id, "table": bronze.name.as_string(conn)}
    missing = conn.execute(_MISSING, values).fetchall()
    if not missing:
        return
    shown = f"{bronze.schema}.{bronze.relation}"
    columns = [
        sql.SQL("add column {} {}").format(sql.Identifier(name), sql.SQL(type_)) for name, type_ in missing
    ]
    alter = sql.SQL("alter table {} {}").format(bronze.name, sql.SQL(", ").join(columns))
    if conn.execute("select to_regclass(%(table)s)", values).fetchone() != (None,):
        raise WarehouseError(
            f"{shown} lacks {len(missing)} column(s) that it had, so nothing was loaded;"
            f" put them back, empty: {alter.as_string(conn)}"
        )
    live = conn.execute(_LIVE, (bronze.table_id,)).fetchone()
    if live is not None and live[0] > 0:
        raise WarehouseError(
            f"{shown} is gone, with the rows of {live[0]} load(s), so nothing was loaded; restore it from a backup,"
            f" or load its files again: datops load undo, then datops load reload, of each in `datops load list`"
        )
    conn.execute("delete from datops.columns where table_id = %s", (bronze.table_id,))
