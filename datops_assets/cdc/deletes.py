"""What a table's `deletes:` asks of its mirror: marks that come and go with the document, and outlive a copy.

Belongs here: the mirror between two batches. Does not: the columns of the marks (marks.py), who sets them
(marked.py and query/compare.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.cdc.bronze import LOCK_TIMEOUT, identifiers, key_of
from datops_assets.cdc.marks import By, Marks, add_marks, drop_marks, marked_mirrors, marks_of, own_columns
from datops_assets.cdc.view import show_live_rows
from datops_assets.errors import LoadRefusedError
from datops_assets.postgres.identifiers import bronze_table, warehouse_name
from datops_assets.postgres.widening import wider

_KEPT = sql.Identifier("pg_temp", "datops_kept")


def keep_as_declared(
    conn: psycopg.Connection[Any], source: str, declared: Mapping[str, bool], by: By
) -> dict[str, int]:
    """Let the mirrors of a stream keep deleted rows or not, as the document has it now.

    declared   per table whether its deletes are soft
    returns    marked rows that left, per table whose deletes became hard
    raises     LoadRefusedError: views stand on the marks of a table; those before it are as declared
    """
    marked, left = marked_mirrors(conn), {}
    for name, soft in declared.items():
        if soft != (warehouse_name(source, name) in marked):
            with conn.transaction():
                if rows := follow_declared(conn, source, name, soft=soft, by=by):
                    left[name] = rows
    return left


def follow_declared(conn: psycopg.Connection[Any], source: str, name: str, *, soft: bool, by: By) -> int:
    """Let a mirror keep deleted rows or not, as the document has it now, in the caller's transaction.

    returns    marked rows that left, because deletes became hard
    raises     LoadRefusedError: views stand on the marks
    """
    mirror = bronze_table(source, name)
    marks = marks_of(conn, mirror)
    if not own_columns(conn, mirror) or soft == (marks is not None and marks.by == by):
        return 0
    conn.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
    left = 0
    if marks is not None:  # those of the other way of following say nothing here
        show_live_rows(conn, source, name, None)
        try:
            with conn.transaction():
                left = drop_marks(conn, mirror, marks)
        except psycopg.errors.DependentObjectsStillExist:
            raise LoadRefusedError(
                f"{mirror.as_string(conn)} is to lose its marks of deleted rows, and views stand on them; drop those,"
                f" or declare `deletes: soft` again, then: datops cdc drain {source}"
            ) from None
    if soft:
        show_live_rows(conn, source, name, add_marks(conn, mirror, by))
    return left


@contextmanager
def deleted_kept(
    conn: psycopg.Connection[Any], source: str, name: str, *, soft: bool, by: By, place: str
) -> Iterator[None]:
    """Make and fill a mirror anew inside this, in the caller's transaction: the rows that it lacks then stay, marked.

    place      of the log, or the look, that the copy shows
    """
    mirror = bronze_table(source, name)
    follow_declared(conn, source, name, soft=soft, by=by)
    before = own_columns(conn, mirror) if soft else {}
    was = marks_of(conn, mirror)
    if before:
        conn.execute("drop table if exists pg_temp.datops_kept")
        conn.execute(sql.SQL("create temp table datops_kept on commit drop as table {}").format(mirror))
    yield
    follow_declared(conn, source, name, soft=soft, by=by)
    if before:
        assert was is not None
        _bring_back(conn, mirror, before, was, place)
        conn.execute(sql.SQL("drop table {}").format(_KEPT))


def _bring_back(
    conn: psycopg.Connection[Any], mirror: sql.Identifier, before: dict[str, str], was: Marks, place: str
) -> None:
    """Put the rows back that the mirror had and the copy has not."""
    marks, now = marks_of(conn, mirror), own_columns(conn, mirror)
    assert marks is not None
    taken = _taken(before, now, place)
    key = sorted(key_of(conn, mirror))
    if any(name not in taken for name in key):
        return  # no row of before has the key of now
    keys = sql.SQL(", ").join(taken[name] for name in key)
    missing = sql.SQL("{} k where row({}) is not null and not exists (select from {} m where {})").format(
        _KEPT,
        keys,
        mirror,
        sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(sql.Identifier("m", name), taken[name]) for name in key
        ),
    )
    conn.execute(sql.SQL("analyze {}").format(_KEPT))
    if conn.execute(sql.SQL("select from {} limit 1").format(missing)).fetchone() is None:
        return
    for target, kind in zip(taken, before.values(), strict=True):
        if target not in now:
            added = sql.SQL("alter table {} add column {} {}").format(
                mirror, sql.Identifier(target), sql.SQL(kind)
            )
            conn.execute(added)
    at, by, seq = (sql.Identifier("k", name) for name in was.names)
    conn.execute(
        sql.SQL(
            "insert into {mirror} ({targets}, {marks}) select distinct on ({keys}) {values},"
            " coalesce({at}, statement_timestamp()), coalesce({by}, {place}), {seq} from {missing}"
            " order by {keys}, {at} desc nulls first"
        ).format(
            mirror=mirror,
            targets=identifiers([*taken]),
            marks=sql.SQL(", ").join(marks.columns),
            keys=keys,
            values=sql.SQL(", ").join(taken.values()),
            at=at,
            by=by,
            seq=seq,
            place=sql.Literal(place),
            missing=missing,
        )
    )


def _taken(before: Mapping[str, str], now: Mapping[str, str], place: str) -> dict[str, sql.Composable]:
    """The columns that keep what the mirror had, in its order, and the values as they are kept. Pure.

    One that left the source stays, one whose type does not hold its values gets another name beside the new one.
    """
    taken: dict[str, sql.Composable] = {}
    for name, kind in before.items():
        held, value = now.get(name, kind), sql.Identifier("k", name)
        if held == kind:
            taken[name] = value
        elif held == "text" or wider(kind, held) == held:
            taken[name] = sql.SQL("{}::{}").format(value, sql.SQL(held))
        else:
            aside = f"{name.encode()[:40].decode(errors='ignore')}_until_{place.replace('/', '_').lower()}"
            taken[aside] = value
    return taken
