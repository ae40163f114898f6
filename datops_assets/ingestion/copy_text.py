"""COPY: how bytes are written so that any value survives its text format, and how they are sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg.sql import Composed

_WRITE_BYTES = 256 << 10
_SPECIAL = re.compile(rb"[\\\n\r\t]")
_ESCAPES = {b"\\": rb"\\", b"\n": rb"\n", b"\r": rb"\r", b"\t": rb"\t"}


def escaped(value: bytes | None) -> bytes:
    """Return a value as COPY reads it back; None is NULL."""
    if value is None:
        return rb"\N"
    if _SPECIAL.search(value) is None:
        return value
    return _SPECIAL.sub(lambda match: _ESCAPES[match.group()], value)


def gathered(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines to parts worth a call: one write per line costs more than making it."""
    parts: list[bytes] = []
    size = 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if size >= _WRITE_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def send_copy(cursor: psycopg.Cursor[Any], statement: Composed, parts: Iterable[bytes]) -> None:
    """Send all parts through COPY, in a transaction of the caller.

    raises     what the server says of them; else what making a part raised, once COPY has ended: the
               caller rolls back. An exception that leaves a COPY makes psycopg log the server's
               answer, and that holds cell values.
    """
    failed: Exception | None = None
    try:
        with cursor.copy(statement) as copy:
            try:
                for part in parts:
                    copy.write(part)
            except Exception as error:
                failed = error
    except psycopg.DataError:
        if failed is None:
            raise
    if failed is not None:
        raise failed
