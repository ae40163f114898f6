"""Packed texts: gzip, zstd, bz2, xz and zip, unpacked as a stream. Pure but for the member of a zip.

Memory is a chunk of a MiB, however much comes out of it, and what the format itself keeps: at most
128 MiB with zstd, 256 MiB with xz.
"""

from __future__ import annotations

import bz2
import fnmatch
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO, Any, Literal, Protocol

Packing = Literal["gzip", "zstd", "bz2", "xz", "zip"]
ENDINGS: dict[str, Packing] = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz", ".zip": "zip"}
CHUNK_BYTES = 1 << 20
"""Large enough that numpy's calls cost nothing, small enough to stay in the processor's cache."""
LONGEST_MAGIC_BYTES = 10
_MAGIC: dict[Packing, tuple[bytes, ...]] = {
    "gzip": (b"\x1f\x8b",),
    "zstd": (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))),
    # A text may begin with BZh1: what follows there makes it bz2, a block or the end of the stream.
    "bz2": tuple(
        b"BZh%d" % level + part
        for level in range(1, 10)
        for part in (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
    ),
    "xz": (b"\xfd7zXZ\0",),
    "zip": (b"PK\x03\x04", b"PK\x05\x06"),
}
_XZ_MEMORY_BYTES = 256 << 20
_NO_DATA = ("__MACOSX/", ".DS_Store", "Thumbs.db")


class PackedError(Exception):
    """The container cannot be unpacked; the text is the rest of a sentence about it."""


def packing_named(path: str) -> Packing | None:
    """Return the packing that a path's ending names."""
    lower = path.lower()
    return next((packing for ending, packing in ENDINGS.items() if lower.endswith(ending)), None)


def without_packing(path: str) -> str:
    """Return a path without the ending of its packing."""
    named = packing_named(path)
    return path if named is None else path[: path.rindex(".")]


def packing_found(first: bytes) -> Packing | None:
    """Return the packing that the first `LONGEST_MAGIC_BYTES` bytes show."""
    return next((packing for packing, magic in _MAGIC.items() if first.startswith(magic)), None)


def unpacked(raw: Iterator[bytes], packing: Packing) -> Iterator[bytes]:
    """Yield what packed chunks hold, all members of it one after the other, never more than a chunk at once.

    packing    any but zip, whose list of members stands at its end
    raises     PackedError
    """
    if packing == "zstd":
        return _unpacked_zstd(raw)
    return _unpacked_members(raw, packing, *_UNPACKERS[packing])


class _Unpacker(Protocol):
    """What zlib, bz2 and lzma have in common."""

    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's decompressor, which hands back what it did not take, as the other two keep it."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


_UNPACKERS: dict[Packing, tuple[Callable[[], Any], type[Exception]]] = {
    "gzip": (_Gzip, zlib.error),
    "bz2": (bz2.BZ2Decompressor, OSError),
    "xz": (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES), lzma.LZMAError),
}


def _unpacked_members(
    raw: Iterator[bytes], packing: Packing, make: Callable[[], Any], error: type[Exception]
) -> Iterator[bytes]:
    unpacker, begun, packed = make(), False, b""
    while True:
        if unpacker.eof:
            packed = packed or next(raw, b"")
            if not packed:
                return
            packed = packed.lstrip(b"\0")  # tapes and some copiers pad with zeros
            if not packed:
                continue
            unpacker, begun = make(), False
        elif unpacker.needs_input or not begun:
            packed = packed or next(raw, b"")
            if not packed:
                if begun:
                    raise PackedError(f"the {packing} data is cut off")
                return
        begun = True
        try:
            text = unpacker.decompress(packed, CHUNK_BYTES)
        except error:
            raise PackedError(f"the {packing} data is damaged") from None
        packed = unpacker.unused_data if unpacker.eof else b""
        if text:
            yield text


def _unpacked_zstd(raw: Iterator[bytes]) -> Iterator[bytes]:
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.PythonFile(_Readable(raw), mode="r"), "zstd") as stream:
            while text := stream.read(CHUNK_BYTES):
                yield text
    except OSError as error:
        how = "cut off" if "Truncated" in str(error) else "damaged"
        raise PackedError(f"the zstd data is {how}") from None


class _Readable:
    """Chunks as a file that is read from its beginning."""

    closed = False

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._ahead = b""

    def read(self, size: int) -> bytes:
        while len(self._ahead) < size and (chunk := next(self._chunks, b"")):
            self._ahead += chunk
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        return taken

    def close(self) -> None:
        """Leave it to whoever made the chunks."""


def zip_member(file: IO[bytes], wanted: str | None) -> Iterator[bytes]:
    """Yield what the one member of a zip holds.

    file       seekable
    wanted     glob of the member's name; None: it has only one
    raises     PackedError: damaged, encrypted, no such member or several
    """
    try:
        with zipfile.ZipFile(file) as container, container.open(_one_member(container, wanted)) as member:
            while text := member.read(CHUNK_BYTES):
                yield text
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        how = "cut off" if isinstance(error, EOFError) else "cut off or damaged"
        raise PackedError(f"the zip data is {how}") from None
    except NotImplementedError:
        raise PackedError("the zip is packed in a way that is not read here; pack it with deflate") from None


def _one_member(container: zipfile.ZipFile, wanted: str | None) -> zipfile.ZipInfo:
    members = [
        info
        for info in container.infolist()
        if not info.is_dir()
        and not info.filename.startswith(_NO_DATA)
        and not info.filename.endswith(_NO_DATA)
    ]
    found = [info for info in members if wanted is None or fnmatch.fnmatchcase(info.filename, wanted)]
    if len(found) != 1:
        names = ", ".join(info.filename for info in members[:5]) + (", …" if len(members) > 5 else "")
        if not members:
            raise PackedError("the zip holds no file")
        if wanted is None:
            raise PackedError(f"the zip holds {len(members)} files ({names}); state which with `member:`")
        raise PackedError(f"`member: {wanted}` fits {len(found)} files of the zip ({names}), expected one")
    if found[0].flag_bits & 1:
        raise PackedError("the zip is encrypted, which is not read here; take its password off")
    return found[0]


def at_least(chunks: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes of chunks, `size` of them or more where there are as many, and all of it again."""
    gathered = b""
    while len(gathered) < size and (chunk := next(chunks, b"")):
        gathered += chunk
    return gathered, chain([gathered] if gathered else [], chunks)
