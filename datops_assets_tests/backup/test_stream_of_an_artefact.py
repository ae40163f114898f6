"""What an artefact is made of: blocks that are packed at once stay in order, a tar stream is read entry by entry."""

from __future__ import annotations

import io
import tarfile

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datops_assets.backup import compression
from datops_assets.backup.compression import CompressingWriter
from datops_assets.backup.tar_stream import read_entries


class _Full:
    """A place that takes so many bytes, and then no more."""

    def __init__(self, most_bytes: int) -> None:
        self.taken, self._most_bytes = b"", most_bytes

    def write(self, data: bytes, /) -> None:
        if len(self.taken) + len(data) > self._most_bytes:
            raise OSError(28, "No space left on device")
        self.taken += data


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.binary(max_size=5000), max_size=40), block_bytes=st.integers(1, 4000))
def test_what_was_packed_in_blocks_is_one_stream(pieces: list[bytes], block_bytes: int) -> None:
    before, compression._BLOCK_BYTES = compression._BLOCK_BYTES, block_bytes
    try:
        packed = io.BytesIO()
        writer = CompressingWriter(packed)
        for piece in pieces:
            writer.write(piece)
        writer.close()
    finally:
        compression._BLOCK_BYTES = before
    plain = b"".join(pieces)
    if not packed.getvalue():
        assert not plain
        return
    packed.seek(0)
    with pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd") as unpacked:
        assert unpacked.read() == plain


def test_a_place_that_takes_no_more_ends_the_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_BLOCK_BYTES", 1000)
    place = _Full(100)
    writer = CompressingWriter(place)
    with pytest.raises(OSError, match="No space left"):
        for number in range(1000):
            writer.write(bytes([number % 256]) * 1000)
    writer.abandon()
    assert len(place.taken) <= 100


def _tar(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return made.getvalue()


_FILES = st.dictionaries(
    st.text("abc/é", min_size=1, max_size=300).map(lambda name: "x" + name.rstrip("/")),
    st.binary(max_size=3000),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(files=_FILES, piece_bytes=st.integers(1, 3000))
def test_every_entry_comes_with_its_name_and_content(files: dict[str, bytes], piece_bytes: int) -> None:
    found = {}
    for about, content in read_entries(io.BytesIO(_tar(files))):
        parts = []
        while part := content.read(piece_bytes):
            parts.append(part)
        found[about.name] = b"".join(parts)
    assert found == files


def test_contents_that_nobody_reads_are_passed_over() -> None:
    files = {"one": b"1" * 700, "two": b"2" * 512, "three": b"", "four": b"4"}
    assert [about.name for about, _ in read_entries(io.BytesIO(_tar(files)))] == list(files)


@pytest.mark.backup_fault
@pytest.mark.parametrize("left_bytes", [100, 512, 700, 1500])
def test_a_tar_stream_that_is_cut_is_told_or_gives_less(left_bytes: int) -> None:
    """Whoever reads holds sizes and hashes against a list: less is enough to be found."""
    cut = io.BytesIO(_tar({"one": b"1" * 1000, "two": b"2" * 1000})[:left_bytes])
    whole = 0
    try:
        for about, content in read_entries(cut):
            whole += len(content.read()) == about.size
    except tarfile.TarError:
        pass
    assert whole < 2
