"""Is this CSV plain enough for COPY? A vectorised look at the bytes on their way to the server. Pure.

COPY joins `1,5" pipe,3` with the line after it, turns `a"b"c` into `abc`, and up to PostgreSQL 17
stops at a line `\\.` without an error. So its bytes pass here first; whatever is not plain goes
record by record instead (csv_records).
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from datops_assets.ingestion.line_buffer import MAX_RECORD_BYTES

CONFLICT_MARKER = re.compile(rb"(?:<{7}|>{7}|\|{7})(?: [^\r\n]*)?|={7}")
"""A whole line left behind by an unresolved merge."""
_CONFLICT_LINE = re.compile(rb"(?m)^(?:(?:<{7}|>{7}|\|{7})(?: [^\r\n]*)?|={7})\r?$")
_MARKER_BYTES = (b"<", b">", b"=", b"|")
_END_OF_COPY_LINE = re.compile(rb"(?m)^\\\.\r?$")
_QUOTE, _LF, _CR = 34, 10, 13


class NotPlainError(Exception):
    """These bytes are not for COPY; read them record by record."""


class PlainCsvCheck:
    """Looks at every byte after the header and counts the records, independently of COPY.

    Feed chunks cut anywhere; send what comes back. Windows end at a line end, so that every
    quote has both neighbours at hand and nothing is split between two windows.
    """

    def __init__(self, delimiter: bytes, header: bytes | None, *, crlf: bool) -> None:
        self.records = 0
        self._newline = b"\r\n" if crlf else b"\n"
        self._crlf = crlf
        self._header = None if header is None else header + self._newline
        self._tail = b""
        self._inside = 0
        self._open_bytes = 0
        self._may_precede = _lookup(delimiter + b'\n"')
        self._may_follow = _lookup(delimiter + b'\r\n"')

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes, return those that may go to COPY now.

        raises     NotPlainError
        """
        data = self._tail + chunk if self._tail else chunk
        cut = data.rfind(b"\n") + 1
        self._tail = data[cut:]
        # A window is longer than a chunk only by the line that was open before it.
        if max(len(self._tail), cut) > MAX_RECORD_BYTES:
            raise NotPlainError("a record is longer than 64 MiB")
        return self._window(data[:cut]) if cut else b""

    def finish(self) -> bytes:
        """Return the last bytes; a last record without a line end gets one.

        raises     NotPlainError
        """
        last, self._tail = self._tail, b""
        checked = self._window(last + self._newline) if last else b""
        if self._inside:
            raise NotPlainError("a quote is not closed")
        return checked

    def _window(self, window: bytes) -> bytes:
        if b"\0" in window:
            raise NotPlainError("a NUL byte")
        # One byte is looked for with memchr, at 40 GB/s; several cost 30 times as much.
        if b"\\" in window and _END_OF_COPY_LINE.search(window):
            raise NotPlainError("a line that ends a COPY")
        if any(byte in window and byte * 7 in window for byte in _MARKER_BYTES) and _CONFLICT_LINE.search(
            window
        ):
            raise NotPlainError("a merge-conflict marker")
        if self._header is not None and (window.startswith(self._header) or b"\n" + self._header in window):
            raise NotPlainError("the header is repeated")
        if b'"' in window:
            return self._quoted(window)
        return self._between_quotes(window) if self._inside else self._unquoted(window)

    def _unquoted(self, window: bytes) -> bytes:
        bytes_ = np.frombuffer(window, np.uint8)
        is_end = bytes_ == _LF
        if self._crlf or b"\r" in window:
            is_return = bytes_ == _CR
            if not self._crlf or is_return[-1] or is_end[0] or (is_return[:-1] != is_end[1:]).any():
                raise NotPlainError("mixed line ends")
        width = len(self._newline)
        if is_end[width - 1] or (is_end[width:] & is_end[:-width]).any():
            return self._without_blank_lines(window, np.flatnonzero(is_end))
        self.records += int(np.count_nonzero(is_end))
        return window

    def _between_quotes(self, window: bytes) -> bytes:
        self._open_bytes += len(window)
        if self._open_bytes > MAX_RECORD_BYTES:
            raise NotPlainError("a record is longer than 64 MiB")
        return window

    def _quoted(self, window: bytes) -> bytes:
        bytes_ = np.frombuffer(window, np.uint8)
        quotes = np.flatnonzero(bytes_ == _QUOTE)
        # Counted over the file, even quotes open and odd ones close; "" closes and opens again.
        # Index -1 is the window's last byte, a line end: right for a quote that comes first.
        if not self._may_precede[bytes_[quotes[self._inside :: 2] - 1]].all():
            raise NotPlainError("a quote inside an unquoted field")
        if not self._may_follow[bytes_[quotes[1 - self._inside :: 2] + 1]].all():
            raise NotPlainError("text after a closing quote")
        ends = self._outside(np.flatnonzero(bytes_ == _LF), quotes)
        if b"\r" in window or self._crlf:
            self._require_one_line_end(bytes_, quotes, ends)
        started_inside, self._inside = self._inside, (self._inside + len(quotes)) & 1
        self._measure(ends, len(window))
        return self._without_blank_lines(window, ends, started_inside=bool(started_inside))

    def _outside(self, positions: npt.NDArray[np.intp], quotes: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        return positions[(np.searchsorted(quotes, positions) + self._inside) & 1 == 0]

    def _require_one_line_end(
        self, bytes_: npt.NDArray[np.uint8], quotes: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]
    ) -> None:
        returns = self._outside(np.flatnonzero(bytes_ == _CR), quotes)
        if not self._crlf:
            if len(returns):
                raise NotPlainError("mixed line ends")
        elif len(returns) != len(ends) or (returns + 1 != ends).any():
            raise NotPlainError("mixed line ends")

    def _measure(self, ends: npt.NDArray[np.intp], length: int) -> None:
        if len(ends) == 0:
            self._open_bytes += length
        else:
            self._open_bytes += int(ends[0])
        if self._open_bytes > MAX_RECORD_BYTES:
            raise NotPlainError("a record is longer than 64 MiB")
        if len(ends):
            self._open_bytes = length - int(ends[-1]) - 1

    def _without_blank_lines(
        self, window: bytes, ends: npt.NDArray[np.intp], *, started_inside: bool = False
    ) -> bytes:
        """Count the records; COPY takes a blank line for a record, so it must not see one."""
        lengths = np.diff(ends, prepend=-1)
        blank = lengths == len(self._newline)
        if started_inside and len(blank):
            blank[0] = False
        self.records += len(ends) - int(blank.sum())
        if not blank.any():
            return window
        at = ends[blank]
        dropped = np.concatenate([at, at - 1]) if self._crlf else at
        return np.delete(np.frombuffer(window, np.uint8), dropped).tobytes()


def _lookup(accepted: bytes) -> npt.NDArray[np.bool_]:
    table = np.zeros(256, dtype=np.bool_)
    table[list(accepted)] = True
    return table
