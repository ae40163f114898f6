"""A window that moves over a text line by line, in bounded memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator

MAX_RECORD_BYTES = 64 << 20
"""A longer record is damage: nobody writes one on purpose, and it bounds the memory."""
OVERSIZE_SAMPLE_BYTES = 1 << 20
"""How much of an oversized record is kept as raw bytes; the file and the position give the rest."""


class LineBuffer:
    """The part of a text that is being looked at.

    chunks     bytes cut anywhere
    newline    the byte that ends a line
    position   offset of the first byte in the uncompressed file
    """

    def __init__(self, chunks: Iterator[bytes], newline: bytes = b"\n", position: int = 0) -> None:
        self.text = b""
        self.at = 0
        """Where the current record begins."""
        self.ended = False
        """Whether all chunks are in."""
        self._chunks = chunks
        self._newline = newline
        self._base = position

    @property
    def position(self) -> int:
        """Offset of the current record in the uncompressed file."""
        return self._base + self.at

    def step_to(self, at: int) -> int:
        """Go to the next record; returns the position of the one left behind."""
        position, self.at = self.position, min(at, len(self.text))
        return position

    def fill(self) -> bool:
        """Read more, dropping what is done; doubles, so that a long record is not scanned often."""
        parts, wanted = [self.text[self.at :]], max(len(self.text) - self.at, 1)
        self._base, self.at = self.position, 0
        while wanted > 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.ended = True
                break
            parts.append(chunk)
            wanted -= len(chunk)
        self.text = b"".join(parts)
        return len(parts) > 1

    def line_end(self) -> int | None:
        """Return where the current line ends, len(text) for a last one without an end; None: no line is left."""
        while True:
            end = self.text.find(self._newline, self.at)
            if end >= 0:
                return end
            if self.is_oversized(len(self.text)) or self.ended or not self.fill():
                return len(self.text) if self.at < len(self.text) else None

    def is_oversized(self, end: int) -> bool:
        """Return whether a record from here to `end` is too long."""
        return end - self.at > MAX_RECORD_BYTES

    def rest(self) -> tuple[bytes, Iterator[bytes]]:
        """Return the bytes read ahead, and the chunks not read yet."""
        return self.text[self.at :], self._chunks

    def pass_oversized(self) -> tuple[bytes, int, str]:
        """Step over a line that is too long; returns its beginning, its position and what to say of it."""
        sample, position, size = self.text[self.at : self.at + OVERSIZE_SAMPLE_BYTES], self.position, 0
        while (end := self.text.find(self._newline, self.at)) < 0 and not self.ended:
            size += len(self.text) - self.at
            self.at = len(self.text)
            self.fill()
        stop = len(self.text) if end < 0 else end
        size += stop - self.at
        self.step_to(stop + 1)
        return sample, position, f"a record of {size} bytes, the limit is 64 MiB; raw is its beginning"
