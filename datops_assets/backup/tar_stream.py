"""Read a tar stream entry by entry: `tarfile` reads the headers, the contents pass without its copying them about.

Its own mode for streams costs as much CPU as zstd does, as it cuts its buffer anew for each read.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from datops_assets.backup.encryption import Reader, read_fully

_PIECE_BYTES = 1 << 17


class EntryContent:
    """The bytes of one entry; good until the next entry is asked for."""

    def __init__(self, stream: _Forward, size: int) -> None:
        self._stream, self._left = stream, size

    def read(self, size: int = -1, /) -> bytes:
        """At most this many bytes, all that are left for -1; none at the end."""
        data = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def read_entries(source: Reader) -> Iterator[tuple[tarfile.TarInfo, EntryContent]]:
    """Every entry with its content, in order; what is not read of a content is passed over.

    raises    tarfile.TarError: it is no tar stream, or is cut off
    """
    stream = _Forward(source)
    with tarfile.TarFile(fileobj=stream, mode="r") as tar:  # type: ignore[arg-type]
        for about in tar:
            yield about, EntryContent(stream, about.size if about.isreg() else 0)


class _Forward:
    """A stream that says where it is, and goes forward to where it is sent."""

    name = ""

    def __init__(self, source: Reader) -> None:
        self._source, self._at = source, 0

    def read(self, size: int, /) -> bytes:
        data = read_fully(self._source, size) if size else b""
        self._at += len(data)
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, to: int, /) -> int:
        if to < self._at:
            raise tarfile.StreamError("a stream is not read backwards")
        while self._at < to and self.read(min(to - self._at, _PIECE_BYTES)):
            pass
        return self._at
