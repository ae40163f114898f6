"""Files that change while they are read: nothing of them is kept, the run says so, the next one takes them."""

from __future__ import annotations

import gzip
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datops_assets_tests.bad_input.conftest import Landing, Platform

MANY = 200_000


def grow(file: Path) -> None:
    with file.open("ab") as open_file:
        open_file.write(b"300001,late\n")


def shrink(file: Path) -> None:
    with file.open("r+b") as open_file:
        open_file.truncate(file.stat().st_size // 2)


def replace(file: Path) -> None:
    other = file.with_name(".other")
    other.write_bytes(file.read_bytes())
    other.replace(file)


def rewrite_in_place(file: Path) -> None:
    with file.open("r+b") as open_file:
        open_file.seek(-3, 2)
        open_file.write(b"z")


def load_while(landing: Platform, table: str, file: Path, change: Callable[[Path], None]) -> str:
    """Run, and change the file once its load has opened it and waits for the table."""
    with landing.while_blocked(f"bronze.store_{table}", lambda _: change(file)):
        answer = landing.run(expect=1)
    return answer.problems


@pytest.mark.parametrize("change", [grow, shrink, replace, rewrite_in_place])
def test_a_csv_file_that_changes_is_taken_by_the_next_run(
    orders: Landing, change: Callable[[Path], None]
) -> None:
    orders.run()
    path = orders.deliver("large.csv", "id,note\n" + "".join(f"{n},x\n" for n in range(2000, MANY)))
    file = orders.project / "landing" / path
    said = load_while(orders, "orders", file, change)
    assert f"{path} changed while it was read; nothing of it was kept" in said
    orders.require_accounted("orders", {"orders/good.csv": 2, path: 0})
    orders.run()
    records = file.read_bytes().count(b"\n") - 1
    assert sum(orders.loads("orders")[path][1:3]) in (records, records + 1)
    assert orders.loads("orders")[path][0] == "loaded"


def test_a_file_that_vanishes_is_named_and_the_others_load(orders: Landing) -> None:
    orders.run()
    path = orders.deliver("a.csv", "id,note\n1,x\n")
    last = orders.deliver("b.csv", "id,note\n2,y\n")
    said = load_while(orders, "orders", orders.project / "landing" / path, Path.unlink)
    # The load waits for the table; whether its reader has opened the file by then is a race both words tell truly.
    assert re.search(f"{path} vanished (before|while) it was read; nothing of it was kept", said)
    orders.require_accounted("orders", {"orders/good.csv": 2, path: 0, last: 1})
    assert (2, "y") in orders.silver("orders", "id", "note")
    orders.run()


def test_a_gzip_that_still_grows_is_not_called_broken(orders: Landing) -> None:
    orders.run()
    # Much more than is read ahead of the server.
    lines = b"".join(b"%d,%s\n" % (n, os.urandom(60).hex().encode()) for n in range(2000, MANY))
    whole = gzip.compress(b"id,note\n" + lines, compresslevel=1)
    path = orders.deliver("large.csv.gz", whole[: len(whole) // 2])
    file = orders.project / "landing" / path
    said = load_while(orders, "orders", file, lambda file: file.write_bytes(whole) and None)
    assert f"{path} changed while it was read; nothing of it was kept" in said
    orders.run()
    orders.require_taken(path, rows=MANY - 2000)


def test_a_parquet_file_that_is_replaced_is_taken_by_the_next_run(platform: Platform) -> None:
    platform.declare("payments", "files: payments/*.parquet\ncontract: {columns: {id: {type: bigint}}}")
    file = platform.put("payments/a.parquet", parquet(1))
    platform.run()
    file = platform.put("payments/b.parquet", parquet(50_000))
    said = load_while(platform, "payments", file, lambda file: file.write_bytes(parquet(3)) and None)
    assert "payments/b.parquet changed while it was read; nothing of it was kept" in said
    platform.require_accounted("payments", {"payments/a.parquet": 1, "payments/b.parquet": 0})
    platform.run()
    platform.require_accounted("payments", {"payments/a.parquet": 1, "payments/b.parquet": 3})


def parquet(rows: int) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array(range(rows), pa.int64())}), buffer)
    return buffer.getvalue()


def test_json_lines_that_grow_are_taken_by_the_next_run(events: Landing) -> None:
    events.run()
    path = events.deliver("large.jsonl", "".join(f'{{"id": {n}}}\n' for n in range(2000, 50_000)))
    file = events.project / "landing" / path

    def grow_json(file: Path) -> None:
        with file.open("a") as open_file:
            open_file.write('{"id": 300001}\n')

    # Its lines are read into a temporary table first; a bad one is looked up in the file again.
    with file.open("a") as open_file:
        open_file.write('{"id": }\n')
    said = load_while(events, "events", file, grow_json)
    assert f"{path} changed while it was read; nothing of it was kept" in said
    events.run()
    assert events.loads("events")[path][:3] == ("loaded", 48_001, 1)
