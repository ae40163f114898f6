"""Packed files: what they hold is loaded, whatever packs it; a container that is broken is refused whole."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datops_assets.ingestion import FileSource, FileTable, TextDelivery, Unit
from datops_assets.ingestion.listing import fingerprint
from datops_assets.ingestion.packed import PackedError, Packing, packing_found, unpacked
from datops_assets_tests.ingestion.conftest import Lab

CSV = b"id,note\n" + b"".join(b"%d,note %d\n" % (n, n * 7919) for n in range(20_000))


def zipped(content: bytes, *names: str, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as container:
        for name in names or ("data.csv",):
            container.writestr(name, content)
    return file.getvalue()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKERS: dict[Packing, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": (".gz", gzip.compress),
    "zstd": (".zst", zstd),
    "bz2": (".bz2", bz2.compress),
    "xz": (".xz", lzma.compress),
    "zip": (".zip", zipped),
}
each_packing = pytest.mark.parametrize("packing", PACKERS)
streamed = pytest.mark.parametrize("packing", [name for name in PACKERS if name != "zip"])


def packed(packing: str, content: bytes) -> bytes:
    return PACKERS[packing][1](content)  # type: ignore[index]


def ending(packing: str) -> str:
    return PACKERS[packing][0]  # type: ignore[index]


@each_packing
def test_what_is_packed_is_loaded(lab: Lab, packing: str) -> None:
    """Under the name of its packing, in capitals, and under no such name."""
    content = packed(packing, CSV)
    for name in (f"a.csv{ending(packing)}", f"b.CSV{ending(packing).upper()}", "c.csv"):
        lab.write(name, content)
    assert [(result.error, result.rows) for result in lab.load().results] == [(None, 20_000)] * 3
    assert lab.rows("note", "_load_id, _row")[19_999] == (f"note {19_999 * 7919}",)
    assert lab.load().results == []


@each_packing
def test_json_lines_and_documents_are_unpacked_too(lab: Lab, packing: str) -> None:
    lab.write(f"a.jsonl{ending(packing)}", packed(packing, b'{"id": 1}\n'))
    lab.write(f"b.json{ending(packing)}", packed(packing, b'[{"id": 2}]'))
    assert [result.error for result in lab.load().results] == [None, None]
    assert [str(value) for (value,) in lab.values("id")] == ["1", "2"]


@each_packing
@pytest.mark.parametrize("part", [0.05, 0.5, 0.99])
def test_a_cut_container_is_refused_whole(lab: Lab, packing: str, part: float) -> None:
    """Nothing of it is kept; delivered whole, it loads."""
    whole = packed(packing, CSV)
    name = f"a.csv{ending(packing)}"
    lab.write(name, whole[: int(len(whole) * part)])
    (result,) = lab.load().results
    assert (
        result.error == f"{name}: the {packing} data is cut off{_or_damaged(packing)}; deliver the file again"
    )
    assert (result.state, lab.load().results) == ("failed", [])
    lab.write(name, whole)
    assert lab.load().rows_added == 20_000


def _or_damaged(packing: str) -> str:
    return " or damaged" if packing == "zip" else ""


@each_packing
def test_a_damaged_container_is_refused_whole(lab: Lab, packing: str) -> None:
    """Bytes in its middle are others than they were."""
    raw = bytearray(packed(packing, CSV))
    middle = len(raw) // 2
    raw[middle : middle + 64] = bytes(64)
    name = f"a.csv{ending(packing)}"
    lab.write(name, bytes(raw))
    (result,) = lab.load().results
    assert result.state == "failed"
    assert f"{name}: the {packing} data is " in str(result.error)
    assert lab.rows("count(*)", "1") == [(0,)]


@each_packing
def test_a_file_that_is_not_what_its_name_says_is_refused(lab: Lab, packing: str) -> None:
    lab.write(f"a.csv{ending(packing)}", CSV)
    (result,) = lab.load().results
    assert f"the {packing} data is " in str(result.error)


@each_packing
def test_an_empty_file_holds_no_record(lab: Lab, packing: str) -> None:
    """Of no bytes, and of none inside."""
    lab.write(f"a.csv{ending(packing)}", packed(packing, b""))
    assert [(result.error, result.rows) for result in lab.load().results] == [(None, 0)]


@streamed
def test_members_one_after_the_other_are_one_text(lab: Lab, packing: str) -> None:
    """As `cat a.gz b.gz` makes it."""
    lab.write(f"a.csv{ending(packing)}", packed(packing, CSV) + packed(packing, b"x,y\n"))
    assert lab.load().rows_added == 20_001


@streamed
@settings(max_examples=25, deadline=None)
@given(content=st.binary(max_size=3000), sizes=st.lists(st.integers(1, 400), min_size=1, max_size=5))
def test_cut_anywhere_the_chunks_give_the_same(packing: Packing, content: bytes, sizes: list[int]) -> None:
    raw = packed(packing, content) + packed(packing, content)
    chunks, at, n = [], 0, 0
    while at < len(raw):
        chunks.append(raw[at : at + sizes[n % len(sizes)]])
        at, n = at + len(chunks[-1]), n + 1
    assert b"".join(unpacked(iter(chunks), packing)) == content + content


@each_packing
def test_each_packing_is_told_by_its_first_bytes(packing: Packing) -> None:
    assert packing_found(packed(packing, CSV)[:10]) == packing


@pytest.mark.parametrize("text", [b"", b"BZh9,note\n1,2\n", b"PK,note\n1,2\n", b"id,note\n", b"\x1f"])
def test_a_text_that_begins_like_a_packing_is_a_text(text: bytes) -> None:
    assert packing_found(text[:10]) is None


@streamed
def test_a_bomb_is_unpacked_in_pieces(packing: Packing) -> None:
    """Zeros out of a few kB: never more than a few chunks in memory, and what the format keeps."""
    pieces = 64 if packing == "bz2" else 256
    raw = packed(packing, bytes(pieces << 20))
    tracemalloc.start()
    size = sum(len(chunk) for chunk in unpacked(iter([raw]), packing))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == pieces << 20
    assert peak < 16 << 20


def test_an_xz_that_asks_for_much_memory_is_refused() -> None:
    """Its header names a dictionary of 1 GiB."""
    raw = lzma.compress(CSV, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])
    # The dictionary's size is one byte of the block header; its checksum follows.
    at = raw.index(b"\x21\x01") + 2
    header = bytearray(raw)
    header[at] = 36
    import zlib

    start = 12
    length = (header[start] + 1) * 4
    header[start + length - 4 : start + length] = zlib.crc32(
        bytes(header[start : start + length - 4])
    ).to_bytes(4, "little")
    with pytest.raises(PackedError, match="the xz data is damaged"):
        list(unpacked(iter([bytes(header)]), "xz"))


def test_a_zip_of_several_files_is_refused_until_one_is_named(lab: Lab) -> None:
    """What a Mac adds is no file of the delivery."""
    content = zipped(CSV, "feed/stops.txt", "feed/routes.txt")
    lab.write("feed.csv.zip", content)
    lab.write("mac.csv.zip", zipped(CSV, "a.csv", "__MACOSX/._a.csv", ".DS_Store"))
    feed, mac = lab.load().results
    assert feed.error == (
        "feed.csv.zip: the zip holds 2 files (feed/stops.txt, feed/routes.txt); state which with `member:`"
    )
    assert (mac.error, mac.rows) == (None, 20_000)
    lab.declare(member="*/stops.txt", pattern="feed*")
    assert [(result.error, result.rows) for result in lab.load().results] == [(None, 20_000)]


def test_a_member_that_is_not_there_is_named(lab: Lab) -> None:
    lab.declare(member="*/agency.txt", format="csv")
    lab.write("feed.zip", zipped(CSV, "feed/stops.txt"))
    (result,) = lab.load().results
    assert (
        result.error
        == "feed.zip: `member: */agency.txt` fits 0 files of the zip (feed/stops.txt), expected one"
    )


def test_the_members_ending_names_the_format(lab: Lab) -> None:
    lab.declare(member="orders.csv")
    lab.write("feed.zip", zipped(CSV, "orders.csv", "customers.csv"))
    assert [(result.error, result.rows) for result in lab.load().results] == [(None, 20_000)]


def test_an_encrypted_zip_is_refused(lab: Lab) -> None:
    """The flag says so; nobody asks for a password."""
    raw = bytearray(zipped(CSV))
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    lab.write("a.csv.zip", bytes(raw))
    assert "a.csv.zip: the zip is encrypted" in str(lab.load().results[0].error)


def test_parquet_in_gzip_is_refused_with_the_reason(lab: Lab) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), sink)
    lab.write("a.parquet.gz", gzip.compress(sink.getvalue()))
    assert str(lab.load().results[0].error).startswith("a.parquet.gz is packed, and Parquet is packed inside")


@each_packing
def test_the_hash_is_that_of_the_file_on_disk(tmp_path: Path, packing: str) -> None:
    """Also where it is read only to the half."""
    path = tmp_path / f"a.csv{ending(packing)}"
    path.write_bytes(packed(packing, CSV))
    table = FileTable(source="s", name="t", root=tmp_path, pattern="*")
    unit = Unit(
        path.name, "csv", path.stat().st_size, fingerprint(path.stat()), location=str(path), declared=table
    )
    source = FileSource()
    with source.open(unit) as delivery:
        assert isinstance(delivery, TextDelivery)
        next(delivery.chunks())
        assert delivery.content_hash() == source.hash_content(unit)
