"""What a person declares about a stream by queries, and what is asked of its source: values and one interface.

Belongs here: the small interface that a source's reader fits. Does not: readers (ingestion), which the components
hand in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, LiteralString, Protocol, runtime_checkable

import psycopg
from psycopg import sql

from datops_assets.postgres.row_hash import Buckets, Summaries

Compare = Literal["rows", "keys", "never"]


class Column(Protocol):
    """One column of the source's table, as the warehouse is to keep it."""

    @property
    def name(self) -> str:
        """As the source names it."""
        ...

    @property
    def type(self) -> str:
        """PostgreSQL's, without length and precision."""
        ...

    @property
    def sent(self) -> str:
        """The type that its values are written as, before they are kept."""
        ...

    @property
    def printed(self) -> LiteralString | None:
        """How PostgreSQL prints a kept value as the source prints its own, `{}` being the column; None: it cannot."""
        ...


class Look(Protocol):
    """A table at one moment: everything asked of it comes of one snapshot of the source."""

    @property
    def columns(self) -> Sequence[Column]:
        """In the table's order."""
        ...

    @property
    def primary_key(self) -> Sequence[str]:
        """None where the table has none."""
        ...

    @property
    def rows_read(self) -> int:
        """Rows that came from the source so far."""
        ...

    def highest(self) -> str | None:
        """The cursor's highest value; None: no row has one."""
        ...

    def copy_since(self, conn: psycopg.Connection[Any], target: sql.Identifier, watermark: str) -> int:
        """Copy the rows at the watermark or past it, less the lookback, and those without a cursor value."""
        ...

    def copy_rows(self, conn: psycopg.Connection[Any], target: sql.Identifier) -> int:
        """Copy all rows."""
        ...


@runtime_checkable
class HashingLook(Look, Protocol):
    """One whose source computes hashes."""

    def summaries(self, key: Sequence[str], columns: Sequence[str] | None, count: int) -> Summaries:
        """Hash the rows, or where `columns` is None their keys, in `count` buckets of the key."""
        ...

    def copy_buckets(
        self, conn: psycopg.Connection[Any], target: sql.Identifier, key: Sequence[str], buckets: Buckets
    ) -> int:
        """Copy the rows of some buckets."""
        ...


@dataclass(frozen=True)
class QueriedTable:
    """A table that is looked at."""

    name: str
    """Its name in the warehouse, after the stream's."""
    schema: str
    """Where it is in the source; empty: the database's own."""
    table: str
    look: Callable[[], AbstractContextManager[Look]]
    cursor: str | None
    compare: Compare
    """What is compared: whole rows, keys alone (finds deletes and rows that the cursor missed), or nothing."""
    key: tuple[str, ...] = ()
    """Columns that tell a row from all others; none: the source's primary key."""
    history: bool = False
    """Whether each version of its rows that a look saw is kept in silver."""
    rename: tuple[tuple[str, str], ...] = ()
    """Names of columns there, and in silver; the others become snake_case."""
    keeps_deleted: bool = False
    """Whether a deleted row stays in the mirror, marked."""

    @property
    def label(self) -> str:
        """The name people use for it in the source."""
        return f"{self.schema}.{self.table}" if self.schema else self.table


@dataclass(frozen=True)
class QueryStream:
    """What a person declares about one stream by queries."""

    source: str
    tables: tuple[QueriedTable, ...]
    compare_every_s: float = 0.0
    """Between two comparisons of one table; 0: at each look."""
