"""Rows of a look against the mirror: what differs goes into the log, and from there into the mirror.

Belongs here: the statements of the warehouse. Does not: which rows are looked at, and when (looking).
Values are compared as the bytes that PostgreSQL keeps (`*<>`), so 1.10 is not 1.1 and a type without `=` compares too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, LiteralString

import psycopg
from psycopg import sql

from datops_assets.cdc.bronze import identifiers
from datops_assets.cdc.marks import live_rows
from datops_assets.cdc.query.tables import ComparedTable
from datops_assets.errors import SourceRefusedError
from datops_assets.postgres.row_hash import Buckets, Summaries, is_in, summaries_query, summary

_SESSION: LiteralString = """
set local timezone = 'UTC'; set local datestyle = 'ISO, YMD'; set local intervalstyle = 'postgres';
set local extra_float_digits = 1; set local bytea_output = 'hex'; set local idle_in_transaction_session_timeout = 0
"""
_GONE: LiteralString = (
    "insert into {log} ({meta}, {names})"
    " select {look}, {since} + row_number() over (), 'd', {seen_at}, {of_mirror} from {mirror} m"
    " where {within} and {live} and not exists (select from {stage} s where {same})"
)
_TWINS: LiteralString = "select from {stage} group by {key} having count(*) > 1 limit 1"
_COME: LiteralString = (
    "insert into {log} ({meta}, {names})"
    " select {look}, {since} + row_number() over (), case when m.{first} is null then 'i' else 'u' end, {seen_at},"
    " {of_stage} from {stage} s left join {mirror} m on {same} and {live}"
    " where m.{first} is null or (row({of_stage})::record) *<> (row({of_mirror})::record)"
)
_DELETE: LiteralString = (
    "delete from {mirror} m using {log} s"
    " where s.{look_column} = {look} and s.{seq} > {since} and s.{op} = 'd' and {same}"
)
_MARK: LiteralString = (
    "update {mirror} m set {marked} from {log} s"
    " where s.{look_column} = {look} and s.{seq} > {since} and s.{op} = 'd' and {same}"
)
_MERGE: LiteralString = (
    "insert into {mirror} ({names}) select {names} from {log}"
    " where {look_column} = {look} and {seq} > {since} and {op} in ('i', 'u')"
    " on conflict ({key}) do update set {assigned}"
)


@dataclass(frozen=True)
class Place:
    """Where the changes of a look stand in the log."""

    look: int
    seen_at: datetime


def set_session(conn: psycopg.Connection[Any]) -> None:
    """Until the transaction ends, print values as the readers' sessions do, and let it wait for the source."""
    conn.execute(_SESSION)


def mirror_summaries(
    conn: psycopg.Connection[Any], table: ComparedTable, names: list[str] | None, count: int
) -> Summaries:
    """The hashes of the mirror's rows, or of their keys; every column has a text that both sides print."""
    key, row = table.texts(table.key), table.texts(names) if names is not None else None
    assert key is not None
    query = summaries_query(live_rows(conn, table.mirror) + sql.SQL(" as m"), key, row, count)
    return {number: summary(rows, hashed) for number, rows, hashed in conn.execute(query)}


def count_rows(conn: psycopg.Connection[Any], table: ComparedTable) -> int:
    """Rows of the mirror that live. Counted: statistics of a table that just grew would lead to far too few buckets."""
    row = conn.execute(
        sql.SQL("select count(*) from {} as m").format(live_rows(conn, table.mirror))
    ).fetchone()
    assert row is not None
    return int(row[0])


def apply_stage(
    conn: psycopg.Connection[Any],
    table: ComparedTable,
    stage: sql.Identifier,
    place: Place,
    since: int,
    complete: Buckets | Literal["everything", "nothing"],
) -> int:
    """Enter what differs between staged rows and the mirror, and bring the mirror to it; in the caller's transaction.

    since      changes of this look that are in the log already
    complete   of what the stage holds every row that the source has: a row of it that is not staged is gone
    returns    changes
    raises     SourceRefusedError: two staged rows have one key, or a key is null
    """
    parts = _parts(table, stage, place, since)
    conn.execute(sql.SQL("analyze {}").format(stage))
    if conn.execute(sql.SQL(_TWINS).format(**parts)).fetchone() is not None:
        raise _not_a_key(table)
    changes = 0
    if complete != "nothing":
        parts["within"] = sql.SQL("true") if complete == "everything" else _within(table, complete)
        changes += conn.execute(sql.SQL(_GONE).format(**parts)).rowcount
    after_gone = {**parts, "since": sql.Literal(since + changes)}
    changes += conn.execute(sql.SQL(_COME).format(**after_gone)).rowcount
    if changes == 0:
        return 0
    try:
        conn.execute(sql.SQL(_DELETE if table.marks is None else _MARK).format(**parts))
        conn.execute(sql.SQL(_MERGE).format(**parts))
    except psycopg.errors.NotNullViolation:
        raise _not_a_key(table) from None
    return changes


def fill_mirror(conn: psycopg.Connection[Any], table: ComparedTable, stage: sql.Identifier) -> int:
    """Write the first copy into the empty mirror; nothing of it is a change."""
    names = identifiers(table.names)
    try:
        copied = conn.execute(
            sql.SQL("insert into {} ({}) select {} from {}").format(table.mirror, names, names, stage)
        ).rowcount
    except (psycopg.errors.UniqueViolation, psycopg.errors.NotNullViolation):
        raise _not_a_key(table) from None
    conn.execute(sql.SQL("analyze {}").format(table.mirror))
    return copied


def _not_a_key(table: ComparedTable) -> SourceRefusedError:
    # Not chained: the server's text holds the key's values.
    return SourceRefusedError(
        f"{table.source}_{table.name}: the key ({', '.join(table.key)}) does not tell rows apart: two have the same,"
        " or one has none; name other columns in `key:`, or mend the source"
    )


def _within(table: ComparedTable, buckets: Buckets) -> sql.Composable:
    texts = table.texts(table.key)
    assert texts is not None
    return is_in(texts, buckets)


def _parts(
    table: ComparedTable, stage: sql.Identifier, place: Place, since: int
) -> dict[str, sql.Composable]:
    meta = table.meta
    marks = table.marks
    assigned = [
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
        for name in [*table.names, *table.left, *(marks.names if marks is not None else ())]
    ]
    by = [sql.SQL("s.{}").format(meta[name]) for name in ("seen_at", "look", "seq")]
    return {
        "mirror": table.mirror,
        "log": table.changes,
        "stage": stage,
        "meta": sql.SQL(", ").join(meta.values()),
        "names": identifiers(table.names),
        "of_mirror": sql.SQL(", ").join(sql.Identifier("m", name) for name in table.names),
        "of_stage": sql.SQL(", ").join(sql.Identifier("s", name) for name in table.names),
        "same": sql.SQL(" and ").join(
            sql.SQL("m.{0} = s.{0}").format(sql.Identifier(name)) for name in table.key
        ),
        "first": sql.Identifier(table.key[0]),
        "key": identifiers(table.key),
        "look": sql.Literal(place.look),
        "seen_at": sql.Literal(place.seen_at),
        "since": sql.Literal(since),
        "look_column": meta["look"],
        "seq": meta["seq"],
        "op": meta["op"],
        "assigned": sql.SQL(", ").join(assigned),
        "live": marks.live("m") if marks is not None else sql.SQL("true"),
        "marked": marks.set_to(*by) if marks is not None else sql.SQL(""),
    }
