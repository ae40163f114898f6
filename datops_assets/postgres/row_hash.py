"""One hash of a row that any database can compute, so that two of them find where they differ without sending rows.

Belongs here: what is hashed, said once, and PostgreSQL's expression for it. Other databases' expressions stand
with their readers (ingestion/database) and must give the same numbers.

A row is written as one text: of each value its length in bytes of UTF-8, a colon and the value, or `N` for null.
So no two rows have the same text. `md5` of the key's text says the bucket a row is in (its first 32 bits, modulo
the number of buckets), `md5` of the row's text gives 64 bits, and a bucket's hash is the xor of its rows': what two
databases disagree on stays unseen once in 2^64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

Summaries = dict[int, tuple[int, int | None]]
"""Of each bucket with rows: how many, and their hash; None where it could not be computed."""

_ALL_BITS = (1 << 64) - 1


@dataclass(frozen=True)
class Buckets:
    """Some of the buckets that the keys of a table fall into."""

    count: int
    """How many there are in all."""
    numbers: tuple[int, ...]


def row_text(texts: Sequence[sql.Composable]) -> sql.Composable:
    """PostgreSQL's expression for the text of a row, out of those for the texts of its values."""
    return sql.SQL(" || ").join(
        sql.SQL("coalesce(octet_length({0}) || ':' || {0}, 'N')").format(text) for text in texts
    )


def is_in(key: Sequence[sql.Composable], buckets: Buckets) -> sql.Composable:
    """PostgreSQL's condition for the rows of some buckets.

    key        expressions for the texts of the key's values
    """
    numbers = sql.SQL(", ").join(map(sql.Literal, buckets.numbers))
    bucket = sql.SQL("('x' || left(md5({}), 8))::bit(32)::bigint % {}").format(row_text(key), buckets.count)
    return sql.SQL("{} in ({})").format(bucket, numbers)


def summaries_query(
    relation: sql.Composable, key: Sequence[sql.Composable], row: Sequence[sql.Composable] | None, count: int
) -> sql.Composed:
    """PostgreSQL's query for the buckets of a table: number, rows, hash.

    row        expressions for the texts of all values; None: only the keys are hashed
    """
    # The offset keeps PostgreSQL from computing each md5 twice.
    hashed = sql.SQL("md5({})").format(row_text(row)) if row is not None else sql.SQL("null::text")
    return sql.SQL(
        "select ('x' || left(k, 8))::bit(32)::bigint % {count} as bucket, count(*),"
        " bit_xor(('x' || left(coalesce(r, k), 16))::bit(64)::bigint)"
        " from (select md5({key}) as k, {hashed} as r from {relation} offset 0) h group by 1"
    ).format(count=count, key=row_text(key), hashed=hashed, relation=relation)


def summary(rows: int, hashed: int | None) -> tuple[int, int | None]:
    """A bucket's summary, whether its database counts with signed numbers or not."""
    return rows, None if hashed is None else hashed & _ALL_BITS


def hash_of(values: Sequence[bytes | None]) -> bytes:
    """The md5 of a row's text, in Python: for a database that has none."""
    parts = [b"N" if value is None else b"%d:%s" % (len(value), value) for value in values]
    return hashlib.md5(b"".join(parts), usedforsecurity=False).digest()


def differing(theirs: Summaries, ours: Summaries) -> list[int]:
    """The buckets in which two databases do not hold the same."""
    return sorted(
        number
        for number in theirs.keys() | ours.keys()
        if theirs.get(number) != ours.get(number) or theirs[number][1] is None
    )
