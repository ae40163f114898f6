"""How long the log of a table's changes is kept: what is old, and read by all who read it, may go.

Belongs here: which rows may go, and letting them go. Does not: how long is declared (components/streams).

Who reads a log has its place in the catalogue: a history (stream_histories), and silver that is judged by the keys
that changed (mirror_judgements). The mirror itself needs no log: it is merged in the transaction that writes it.
"""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.cdc.bronze import columns_of, prefix_of
from datops_assets.postgres.identifiers import bronze_table
from datops_assets.postgres.lsn import parse_lsn

_AT_ONCE = 50_000
"""Rows in one transaction: a stream that follows meanwhile waits for none of them."""
_READ_TO: LiteralString = """
select h.told_lsn::text, j.place
  from datops.tables t left join datops.stream_histories h using (table_id)
  left join datops.mirror_judgements j using (table_id)
 where t.source = %s and t.name = %s
"""
_OLDEST: LiteralString = """
delete from {log} where ctid = any (array(
  select found.ctid from (select ctid, {at} as at from {log} where {read} order by {place}, {seq} limit {most}) found
   where found.at < now() - {days} * interval '1 day'))
"""


def forget_changes(conn: psycopg.Connection[Any], source: str, name: str, days: int) -> int:
    """Let a table's log go of the changes that are older than `days`, and read.

    conn       autocommit
    returns    how many went; 0 where there is no log
    promise    a change goes whole, the oldest first, and never before a history and silver have read it; killed in the
               middle, what went is gone, and the next call goes on
    """
    log = bronze_table(source, name + "_changes")
    held = columns_of(conn, log)
    prefix = prefix_of(conn, log)
    if prefix is None:
        return 0
    by_log = f"{prefix}commit_lsn" in held
    parts: dict[str, sql.Composable] = {
        "log": log,
        "place": sql.Identifier(f"{prefix}commit_lsn" if by_log else f"{prefix}look"),
        "at": sql.Identifier(f"{prefix}committed_at" if by_log else f"{prefix}seen_at"),
        "seq": sql.Identifier(f"{prefix}seq"),
        "read": sql.SQL("true"),
        "most": sql.Literal(_AT_ONCE),
        "days": sql.Literal(days),
    }
    parts["read"] = _read_by_all(conn, source, name, parts["place"], by_log=by_log)
    statement, gone = sql.SQL(_OLDEST).format(**parts), 0
    while True:
        went = conn.execute(statement).rowcount
        gone += went
        if went < _AT_ONCE:
            return gone


def _read_by_all(
    conn: psycopg.Connection[Any], source: str, name: str, place: sql.Composable, *, by_log: bool
) -> sql.Composable:
    """The condition for changes that nobody has still to read."""
    told, judged = conn.execute(_READ_TO, (source, name)).fetchone() or (None, None)
    reached = judged.rpartition(" ")[2] if judged and not judged.endswith(" None") else None
    if by_log:
        bounds = [
            sql.SQL("{} < {}::pg_lsn").format(place, sql.Literal(lsn))
            for lsn in (told, reached)
            if lsn is not None
        ]
    else:
        bounds = [sql.SQL("{} <= {}").format(place, sql.Literal(int(reached)))] if reached else []
        if told is not None:
            bounds.append(sql.SQL("{} < {}").format(place, sql.Literal(parse_lsn(told))))  # kept as an LSN
    return sql.SQL(" and ").join(bounds) if bounds else sql.SQL("true")
