"""Rows of a driver as record batches: of bounded size, hashed on the way, never bent to a type.

Belongs here: the delivery that all databases without COPY share. Does not: reading rows of one
database (mysql, engine).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa

from datops_assets.errors import SourceRefusedError
from datops_assets.ingestion.database.tables import Reading
from datops_assets.ingestion.source import ArrowDelivery, Reached

BATCH_BYTES = 8 << 20
"""Rows are handed on in batches of about this size."""


class Digest(Protocol):
    """A hash that is being made."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take some more bytes."""
        ...


class RowsDelivery(ArrowDelivery):
    """One reading of a table, inside one snapshot of the database.

    read       yields the rows, and feeds the hash with what is the same however they are cut into batches
    """

    def __init__(
        self,
        reading: Reading,
        schema: pa.Schema,
        read: Callable[[Digest], Iterator[pa.RecordBatch]],
        explained: Callable[[str], AbstractContextManager[None]],
        close: Callable[[], None],
    ) -> None:
        self._reading = reading
        self._schema = schema
        self._read = read
        self._explained = explained
        self._close = close
        self._hash: str | None = None

    def schema(self) -> pa.Schema:
        """Return the columns."""
        return self._schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the order the database gives them."""
        digest = hashlib.sha256(str(self._schema).encode())
        with self._explained(self._reading.path):
            yield from self._read(digest)
        self._hash = digest.hexdigest()

    def content_hash(self) -> str:
        """Return the sha256 of the batches; reads what was not read."""
        if self._hash is None:
            for _ in self.batches():
                pass
        assert self._hash is not None
        return self._hash

    def reached(self) -> Reached:
        """The cursor's highest value when the table was looked at."""
        return Reached(self._reading.upper)

    def close(self) -> None:
        """End the snapshot."""
        self._close()


def not_of_its_type(where: str, column: str, declared: str) -> SourceRefusedError:
    """What to say of a column with a value that its type cannot hold; the value itself is not told."""
    return SourceRefusedError(
        f"{where}: column {column!r} holds a value that is no {declared} (0000-00-00 is no date);"
        f" take the column as text, `as_text: [{column}]`, and the contract judges each value"
    )
