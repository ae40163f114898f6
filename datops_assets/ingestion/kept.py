"""Portions of a reading that takes long: kept in the warehouse as they come, so that a kill loses one of them.

Belongs here: keeping them, handing them out again, letting go of them. What a portion is, and whether
the reading can go on behind it, is the source's affair. They are gone in the transaction that enters
the load they become (catalogue.py), so none of them is ever read into two loads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

LONGEST_H = 12
"""Older portions are not gone on from: what one reading brings should be of one time."""
FORGET: LiteralString = "delete from datops.kept_portions where table_id = %(table_id)s"
_LAST: LiteralString = """
select max(part), (array_agg(place order by part desc))[1]
  from datops.kept_portions where table_id = %(table_id)s and question = %(question)s
having max(kept_at) > clock_timestamp() - make_interval(hours => %(hours)s) and count(*) = max(part)
"""


@dataclass(frozen=True)
class KeptPortions:
    """Those of one table. Connections are its own, for the load's may be in the middle of a transaction."""

    parameters: dict[str, Any]
    """Of the warehouse, as `psycopg.connect` takes them."""
    table_id: int

    @classmethod
    def beside(cls, conn: psycopg.Connection[Any], table_id: int) -> KeptPortions:
        """Those in the warehouse that a connection leads to."""
        password = {"password": conn.info.password} if conn.info.password else {}
        return cls({**conn.info.get_parameters(), **password}, table_id)

    def last(self, question: str) -> tuple[int, str] | None:
        """Return how many portions there are, and where the reading goes on; None: it begins."""
        with self._connect() as conn:
            values = {"table_id": self.table_id, "question": question, "hours": LONGEST_H}
            return conn.execute(_LAST, values).fetchone()

    def lines(self, parts: int) -> Iterator[bytes]:
        """Yield what the first so many portions hold, in order."""
        with self._connect() as conn:
            for part in range(1, parts + 1):
                row = conn.execute(
                    "select lines from datops.kept_portions where table_id = %s and part = %s",
                    (self.table_id, part),
                    binary=True,
                ).fetchone()
                assert row is not None, "the table's lock is held, so nobody takes it away"
                yield bytes(row[0])

    def keep(self, part: int, question: str, place: str, lines: bytes) -> None:
        """Keep a portion together with the place after it; the first one takes the place of all there were."""
        with self._connect() as conn, conn.transaction():
            if part == 1:
                conn.execute(FORGET, {"table_id": self.table_id})
            conn.execute(
                "insert into datops.kept_portions (table_id, part, question, place, lines) values (%s, %s, %s, %s, %b)",
                (self.table_id, part, question, place, lines),
            )

    def forget(self) -> None:
        """Let go of all of them."""
        with self._connect() as conn:
            conn.execute(FORGET, {"table_id": self.table_id})

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.parameters, autocommit=True)
