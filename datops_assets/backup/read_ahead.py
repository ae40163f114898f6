"""Read a stream ahead in a thread, some pieces and no more: who writes into the pipe need not wait while we pack."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

_PIECE_BYTES = 1 << 20
_PIECES = 16


class _Ahead:
    """What was read, for whoever asks."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(_PIECES)
        self._left = memoryview(b"")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def read(self, size: int, /) -> bytes:
        """This many bytes; fewer only at the end. Raises what reading raised."""
        parts: list[Any] = []
        while size > 0:
            if not self._left:
                piece = self._pieces.get()
                if isinstance(piece, BaseException):
                    self._pieces.put(piece)  # whoever asks again hears the same
                    raise piece
                if not piece:
                    self._pieces.put(piece)
                    break
                self._left = memoryview(piece)
            part = self._left[:size]
            self._left = self._left[len(part) :]
            parts.append(part)
            size -= len(part)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Let go of the source; what was read of it is forgotten."""
        self._ended.set()
        while self._thread.is_alive():
            try:  # the thread may wait for room
                self._pieces.get(timeout=0.05)
            except queue.Empty:
                # It may wait for the source, which is closed by its owner.
                break

    def _fill(self) -> None:
        try:
            while not self._ended.is_set():
                piece = self._source.read(_PIECE_BYTES)
                self._pieces.put(piece)
                if not piece:
                    break
        except (OSError, ValueError) as error:
            self._pieces.put(error)


@contextmanager
def read_ahead(source: IO[bytes]) -> Iterator[Any]:
    """A reader that is at most 16 MB ahead of whoever reads it."""
    ahead = _Ahead(source)
    try:
        yield ahead
    finally:
        ahead.close()
