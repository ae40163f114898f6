"""Files that are broken as a whole, or hold nothing: refused whole and named, or taken as what they are."""

from __future__ import annotations

import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq

from datops_assets_tests.bad_input.conftest import CANARY, Landing, Platform

PACKED = gzip.compress(b"id,note\n" + b"".join(b"%d,%s\n" % (n, CANARY.encode()) for n in range(5000)))


def test_a_broken_gzip_is_refused_whole(orders: Landing) -> None:
    cut, damaged = (
        "the gzip data is cut off; deliver the file again",
        "the gzip data is damaged; deliver the file again",
    )
    cases = {
        "half": (PACKED[: len(PACKED) // 2], cut),
        "last_byte": (PACKED[:-1], cut),
        "checksum": (PACKED[:-8] + bytes(8), damaged),
        "middle": (PACKED[:200] + bytes(8) + PACKED[208:], damaged),
        "text_behind": (PACKED + b"not gzip", damaged),
        "not_packed": (b"id,note\n1,a\n", damaged),
    }
    sentences = {orders.deliver(f"{name}.csv.gz", content): said for name, (content, said) in cases.items()}
    orders.require_all_refused(orders.run(expect=1), sentences)


def test_a_mended_gzip_is_loaded_by_the_next_run(orders: Landing) -> None:
    path = orders.deliver("mended.csv.gz", PACKED[:-9])
    orders.run(expect=1)
    orders.run()
    orders.deliver("mended.csv.gz", gzip.compress(b"id,note\n1,x\n"))
    orders.run()
    orders.require_taken(path, rows=1)


def test_a_gzip_of_two_members_is_one_text_wherever_the_first_one_ends(orders: Landing) -> None:
    path = orders.deliver("two.csv.gz", gzip.compress(b"id,no") + gzip.compress(b"te\n1,x\n2,y\n"))
    orders.run()
    orders.require_taken(path, rows=2)


def test_zeros_behind_a_gzip_are_padding(orders: Landing) -> None:
    path = orders.deliver("padded.csv.gz", gzip.compress(b"id,note\n1,x\n") + bytes(512))
    orders.run()
    orders.require_taken(path, rows=1)


def test_a_file_without_a_record_is_a_load_of_no_rows(orders: Landing) -> None:
    contents = {
        "empty.csv": b"",
        "empty.csv.gz": b"",
        "packed.csv.gz": gzip.compress(b""),
        "blank.csv": b"\n\r\n\n",
        "bom.csv": b"\xef\xbb\xbf",
        "header.csv": b"id,note\n",
        "header_without_end.csv": b"id,note",
    }
    paths = [orders.deliver(name, content) for name, content in contents.items()]
    orders.run()
    orders.require_all_taken(dict.fromkeys(paths, 0))
    assert orders.run().table("orders")["files_loaded"] == 0


def test_gzip_data_under_another_name_is_gzip_all_the_same(orders: Landing) -> None:
    path = orders.deliver("packed.csv", gzip.compress(b"id,note\n1,x\n"))
    orders.run()
    orders.require_taken(path, rows=1)


def test_a_zip_archive_that_is_none_is_refused(orders: Landing) -> None:
    path = orders.deliver("archive.csv", b"PK\x03\x04" + bytes(range(256)) * 4)
    orders.require_refused(orders.run(expect=1), path, "the zip data is cut off or damaged")


def payments(rows: int = 3) -> bytes:
    """A Parquet file."""
    buffer = io.BytesIO()
    table = pa.table({"id": pa.array(range(1, rows + 1), pa.int64()), "note": [CANARY] * rows})
    pq.write_table(table, buffer)
    return buffer.getvalue()


def test_a_broken_parquet_file_is_refused_whole(platform: Platform) -> None:
    platform.declare("payments", "files: payments/*.parquet\ncontract: {columns: {id: {type: bigint}}}")
    whole, larger = payments(), payments(5000)
    broken = {
        "half": larger[: len(larger) // 2],
        "last_byte": whole[:-1],
        "page": whole[:40] + bytes(20) + whole[60:],
        "magic_only": b"PAR1",
        "empty": b"",
        "csv": b"id,note\n1,a\n",
    }
    platform.put("payments/good.parquet", whole)
    for name, content in broken.items():
        platform.put(f"payments/{name}.parquet", content)
    answer = platform.run(expect=1)
    for path in (f"payments/{name}.parquet" for name in broken):
        state, _, _, error = platform.loads("payments")[path]
        assert (state, error.startswith(f"{path} is not a whole Parquet file")) == ("failed", True)
        assert "deliver it again" in error
        assert error in answer.problems
    delivered = {f"payments/{name}.parquet": 0 for name in broken}
    platform.require_accounted("payments", {"payments/good.parquet": 3, **delivered})
    assert platform.silver("payments", "id") == [(1,), (2,), (3,)]
