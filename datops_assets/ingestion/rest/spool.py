"""What a reading brought, on disk: opening it again delivers the same bytes, whatever the API says by then."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator

from datops_assets.ingestion.source import Reached, TextDelivery

_CHUNK_BYTES = 1 << 20
_IN_MEMORY_BYTES = 8 << 20
Write = Callable[[bytes], None]


class Spool:
    """The lines of one reading, read on first demand and kept until they are let go of."""

    def __init__(self, read: Callable[[Write], Reached]) -> None:
        self._read = read
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 closed by close()
        self._digest = hashlib.sha256()
        self._reached: Reached | None = None

    def reached(self) -> Reached:
        """Return how far it reaches, reading all of it first.

        All of it, before the first byte is handed on: a transaction of the warehouse must not wait for
        an API, perhaps for hours. A reading that fails leaves nothing; the next demand reads anew.
        """
        if self._reached is None:
            self._file.seek(0)
            self._file.truncate()
            self._digest = hashlib.sha256()
            self._reached = self._read(self._write)
        return self._reached

    def content_hash(self) -> str:
        """Return the sha256 of all lines."""
        self.reached()
        return self._digest.hexdigest()

    def chunks(self) -> Iterator[bytes]:
        """Yield the lines, about a MiB at a time, from the beginning."""
        self.reached()
        at = 0
        while True:
            self._file.seek(at)
            chunk = self._file.read(_CHUNK_BYTES)
            if not chunk:
                return
            at += len(chunk)
            yield chunk

    def close(self) -> None:
        """Let go of it; the file is gone then."""
        self._file.close()

    def _write(self, lines: bytes) -> None:
        self._digest.update(lines)
        self._file.write(lines)


class SpooledLines(TextDelivery):
    """One pass over a spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def chunks(self) -> Iterator[bytes]:
        """Yield the lines."""
        return self._spool.chunks()

    def content_hash(self) -> str:
        """Return the hash of all lines, read or not."""
        return self._spool.content_hash()

    def reached(self) -> Reached:
        """Return where the next reading goes on."""
        return self._spool.reached()

    def close(self) -> None:
        """Leave the spool for the next opening."""
