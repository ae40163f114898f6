"""MySQL's rows as they come over the wire, many at a time: no Python object is made of a value.

A row is a packet: 3 bytes of length, 1 of sequence, then each value as text with its length before it
(MySQL, "Text Resultset Row"). Where packets begin takes a loop; the values of a column are then
found for all rows at once and become an Arrow view into the received bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_HEADER = 4
_WHOLE_PACKET = 0xFFFFFF
"""A packet of this length goes on in the next one."""
_NULL, _TWO, _THREE, _EIGHT = 0xFB, 0xFC, 0xFD, 0xFE
_INLINE = 12
"""An Arrow view holds so many bytes itself; of a longer value its first four, and where it lies."""
_RECEIVED_BYTES = 1 << 18
_SLACK = bytes(16)


class ServerSaidError(Exception):
    """The server ended the rows with an error packet."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(str(code))


@dataclass(frozen=True)
class Rows:
    """Some rows: the bytes they lie in, and where each begins."""

    data: bytes
    begins: list[int]
    end: int

    @property
    def raw(self) -> memoryview:
        """The rows as they were sent: the same however the network cut them."""
        return memoryview(self.data)[max(self.begins[0] - _HEADER, 0) : self.end]


def read_rows(receive: Callable[[int], bytes], block_bytes: int) -> Iterator[Rows]:
    """Yield the rows of a result, those of about `block_bytes` together.

    receive    returns at most so many bytes; none: the connection is over
    raises     ServerSaidError, ConnectionError: it ended in the middle
    """
    data, at = bytearray(), 0
    begins: list[int] = []
    while True:
        # Looked at after each part: past the end of the rows there is nothing to wait for.
        at, ending = _packets(data, at, begins)
        if begins and (ending or at >= block_bytes):
            yield Rows(bytes(data[:at]), begins, at)
        if ending == "end":
            return
        if ending == "giant":
            row, data = _giant(data[at:], receive)
            yield Rows(row, [0], len(row))
        elif at >= block_bytes:
            data = data[at:]
        else:
            part = receive(_RECEIVED_BYTES)
            if not part:
                raise ConnectionError
            data += part
            continue
        begins, at = [], 0


def _packets(data: bytearray, at: int, begins: list[int]) -> tuple[int, str]:
    """Note where whole rows begin, from a place on.

    returns    the place of the first that is not whole, and whether the rows `end` there or a `giant` follows
    """
    add = begins.append
    size = len(data)
    while at + _HEADER < size:
        length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
        following = at + _HEADER + length
        first = data[at + _HEADER]
        if length == _WHOLE_PACKET:
            return at, "giant"
        if following > size:
            break
        if first == 0xFF:
            raise ServerSaidError(data[at + 5] | data[at + 6] << 8)
        if first == _EIGHT and length < 9:
            return at, "end"
        add(at + _HEADER)
        at = following
    return at, ""


def _giant(buffer: bytearray, receive: Callable[[int], bytes]) -> tuple[bytes, bytearray]:
    """Put a row together that takes more than one packet; returns it, and what follows."""
    row = bytearray()
    while True:
        while len(buffer) < _HEADER or len(buffer) < _HEADER + int.from_bytes(buffer[:3], "little"):
            part = receive(_RECEIVED_BYTES)
            if not part:
                raise ConnectionError
            buffer += part
        length = int.from_bytes(buffer[:3], "little")
        row += buffer[_HEADER : _HEADER + length]
        del buffer[: _HEADER + length]
        if length < _WHOLE_PACKET:
            return bytes(row), buffer


def columns_of(rows: Rows, count: int) -> list[pa.Array]:
    """Return the values of each column as an Arrow binary view."""
    data = np.frombuffer(rows.data + _SLACK, dtype=np.uint8)
    body = pa.py_buffer(data)
    at = np.asarray(rows.begins, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(data, _INLINE)
    arrays = []
    for _ in range(count):
        start, length, is_null = _lengths(data, at)
        arrays.append(_views(body, data, windows, start, length, is_null))
        at = start + length
    return arrays


Numbers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


def _lengths(data: Bytes, at: Numbers) -> tuple[Numbers, Numbers, npt.NDArray[np.bool_]]:
    first = data[at]
    length = first.astype(np.int64)
    start = at + 1
    is_null = first == _NULL
    if is_null.any():
        length[is_null] = 0
    if (first > _NULL).any():
        for mark, width in ((_TWO, 2), (_THREE, 3), (_EIGHT, 8)):
            rows = np.flatnonzero(first == mark)
            if len(rows):
                places = at[rows]
                length[rows] = sum(data[places + 1 + n].astype(np.int64) << (8 * n) for n in range(width))
                start[rows] += width
    return start, length, is_null


def _views(
    body: pa.Buffer,
    data: Bytes,
    windows: npt.NDArray[np.uint8],
    start: Numbers,
    length: Numbers,
    is_null: npt.NDArray[np.bool_],
) -> pa.Array:
    rows = len(start)
    views = np.zeros((rows, 16), dtype=np.uint8)
    views[:, :4] = length.astype("<i4").view(np.uint8).reshape(rows, 4)
    inline = windows[start]
    inline[np.arange(_INLINE) >= length[:, None]] = 0
    views[:, 4:] = inline
    outside = np.flatnonzero(length > _INLINE)
    if len(outside):
        views[outside, 8:12] = 0  # the number of the buffer
        views[outside, 12:] = start[outside].astype("<i4").view(np.uint8).reshape(len(outside), 4)
    validity = None
    if is_null.any():
        validity = pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    return pa.Array.from_buffers(pa.binary_view(), rows, [validity, pa.py_buffer(views), body])
