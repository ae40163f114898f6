"""Parquet files into bronze: typed values come back equal, whatever the type."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datops_assets.ingestion.parquet_file import ParquetDelivery
from datops_assets.ingestion.source import Unit
from datops_assets.postgres.widening import wider
from datops_assets_tests.ingestion.conftest import Lab

UTC = dt.UTC
SAMPLES: list[tuple[pa.DataType, str, list[Any]]] = [
    (pa.bool_(), "boolean", [True, False]),
    (pa.int8(), "smallint", [-128, 127]),
    (pa.uint8(), "smallint", [0, 255]),
    (pa.int16(), "smallint", [-(2**15), 2**15 - 1]),
    (pa.uint16(), "integer", [0, 65535]),
    (pa.int32(), "integer", [-(2**31), 2**31 - 1]),
    (pa.uint32(), "bigint", [0, 2**32 - 1]),
    (pa.int64(), "bigint", [-(2**63), 2**63 - 1]),
    (pa.uint64(), "numeric(20,0)", [0, 2**64 - 1]),
    (pa.float16(), "real", [1.5, float("inf")]),
    (pa.float32(), "real", [1.100000023841858, float("-inf")]),
    (pa.float64(), "double precision", [1.1, 5e-324, -0.0]),
    (pa.string(), "text", ["", "é\t\\N\n", "x" * 5000]),
    (pa.large_string(), "text", ["", "a"]),
    (pa.binary(), "bytea", [b"", b"\0\xff"]),
    (pa.large_binary(), "bytea", [b"", b"\0"]),
    (pa.binary(3), "bytea", [b"abc", b"\0\0\0"]),
    (pa.date32(), "date", [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    (pa.date64(), "date", [dt.date(2026, 2, 3)]),
    (pa.time32("s"), "time", [dt.time(1, 2, 3)]),
    (pa.time32("ms"), "time", [dt.time(1, 2, 3, 4000)]),
    (pa.time64("us"), "time", [dt.time(23, 59, 59, 999999)]),
    (pa.timestamp("s"), "timestamp", [dt.datetime(2026, 1, 2, 3, 4, 5)]),
    (pa.timestamp("ms"), "timestamp", [dt.datetime(1, 1, 1), dt.datetime(2026, 1, 2, 3, 4, 5, 6000)]),
    (pa.timestamp("us"), "timestamp", [dt.datetime(9999, 12, 31, 23, 59, 59, 999999)]),
    (pa.timestamp("us", "UTC"), "timestamptz", [dt.datetime(2026, 1, 2, 3, 4, 5, 6, UTC)]),
    (pa.timestamp("us", "Europe/Berlin"), "timestamptz", [dt.datetime(2026, 7, 2, 3, 4, 5, 6, UTC)]),
    (pa.timestamp("ns"), "text", [1_700_000_000_123_456_789, -1]),
    (pa.timestamp("ns", "Europe/Berlin"), "text", [1_700_000_000_123_456_789, -1]),
    (pa.time64("ns"), "text", [3_600_000_000_001]),
    (pa.duration("s"), "interval", [dt.timedelta(days=-3)]),
    (pa.duration("us"), "interval", [dt.timedelta(days=3, microseconds=-5)]),
    (pa.duration("ns"), "text", [-1, 1_500_000_000, -1_500_000_001]),
    (pa.decimal128(5, 2), "numeric(5,2)", [Decimal("1.10"), Decimal("0.00"), Decimal("-999.99")]),
    (pa.decimal128(38, 10), "numeric(38,10)", [Decimal("1.1000000000"), Decimal("0E-10")]),
    (pa.decimal256(60, 20), "numeric(60,20)", [Decimal("123456789012345678901234567890.10000000000000000000")]),
    (pa.decimal32(7, 2), "numeric(7,2)", [Decimal("1.10")]),
    (pa.decimal64(15, 0), "numeric(15,0)", [Decimal("10000")]),
    (pa.dictionary(pa.int8(), pa.string()), "text", ["a", "b", "a"]),
    (pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]), "json", [{"a": 1, "b": ["x", None]}]),
    (pa.list_(pa.float64()), "json", [[1.5, None], []]),
    (pa.map_(pa.string(), pa.int32()), "json", [[("k", 1), ("l", None)], []]),
]  # fmt: skip


def column_of(kind: pa.DataType, values: list[Any]) -> pa.Array:
    """Build a column; nanoseconds are given as numbers, Python has no such times."""
    numbers = pa.types.is_temporal(kind) and isinstance(values[0], int)
    return pa.array([*values, None], pa.int64()).view(kind) if numbers else pa.array([*values, None], kind)


def text_of(kind: pa.DataType, value: Any) -> Any:
    """Return what a nanosecond value looks like in bronze, by another way than the code under test."""
    if value is None:
        return None
    sign, size = ("-", -value) if value < 0 else ("", value)
    if pa.types.is_duration(kind):
        return f"{sign}{size // 10**9}.{size % 10**9:09} seconds"
    seconds, rest = divmod(value, 10**9)
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)
    if pa.types.is_time(kind):
        return f"{moment:%H:%M:%S}.{rest:09}"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{rest:09}{'Z' if kind.tz else ''}"


def bronze_column(lab: Lab, name: str) -> pa.Array:
    """Read a bronze column back as Arrow."""
    with adbc.connect(lab.warehouse.url) as conn, conn.cursor() as cursor:
        cursor.execute(f'select "{name}" from bronze.shop_orders order by _load_id, _row')
        return cursor.fetch_arrow_table().column(0).combine_chunks()


def back_as(kind: pa.DataType, column: pa.Array) -> pa.Array:
    """Turn what PostgreSQL gives back into the delivered type."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage  # numeric and json come as text
    if pa.types.is_nested(kind):
        values = [None if text is None else json.loads(text) for text in column.to_pylist()]
        return pa.array(
            [list(v.items()) if isinstance(v, dict) and pa.types.is_map(kind) else v for v in values], kind
        )
    if pa.types.is_duration(kind):
        nanoseconds = [
            None if v is None else v.nanoseconds + v.days * 86_400_000_000_000 for v in column.to_pylist()
        ]
        return pa.array(nanoseconds, pa.int64()).view(pa.duration("ns")).cast(kind)
    if pa.types.is_float16(kind):
        return pa.array(column.to_pylist(), kind)
    if pa.types.is_decimal(kind) or kind == pa.uint64():
        return pa.array([None if v is None else Decimal(v) for v in column.to_pylist()], kind)
    return (
        column.cast(kind.value_type).dictionary_encode()
        if pa.types.is_dictionary(kind)
        else column.cast(kind)
    )


@pytest.mark.parametrize(("kind", "expected", "values"), SAMPLES, ids=lambda value: str(value)[:30])
def test_every_type_comes_back_equal(lab: Lab, kind: pa.DataType, expected: str, values: list[Any]) -> None:
    """Parquet → bronze → Arrow, extremes and nulls included."""
    column = column_of(kind, values)
    pq.write_table(pa.table({"v": column}), lab.folder / "a.parquet", store_schema=True)
    delivered = pq.read_table(lab.folder / "a.parquet").column(0).combine_chunks()
    loaded = lab.load()
    assert [result.error for result in loaded.results] == [None]
    assert [c.type for c in loaded.columns] == [expected]
    found = bronze_column(lab, "v")
    if expected == "text" and not pa.types.is_dictionary(kind) and pa.types.is_temporal(kind):
        assert found.to_pylist() == [text_of(kind, value) for value in [*values, None]]
    elif pa.types.is_dictionary(kind):
        assert found.to_pylist() == delivered.to_pylist()
    else:
        assert back_as(delivered.type, found).equals(delivered)


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_table_comes_back_equal(lab: Lab, data: st.DataObject) -> None:
    """Random integers, texts, decimals and moments, in row groups of any size."""
    rows = data.draw(st.integers(0, 30))
    columns = {
        "i": pa.array(data.draw(_column(st.integers(-(2**63), 2**63 - 1), rows)), pa.int64()),
        "u": pa.array(data.draw(_column(st.integers(0, 2**64 - 1), rows)), pa.uint64()),
        "t": pa.array(data.draw(_column(TEXTS, rows)), pa.string()),
        "d": pa.array(data.draw(_column(st.decimals(-(10**20), 10**20, places=10), rows)), pa.decimal128(38, 10)),
        "m": pa.array(data.draw(_column(st.datetimes(), rows)), pa.timestamp("us")),
        "f": pa.array(data.draw(_column(st.floats(allow_nan=False), rows)), pa.float64()),
    }  # fmt: skip
    lab.runs += 1
    lab.declare(name=f"t{lab.runs}")
    path = lab.write(f"{lab.table.name}.parquet", b"")
    pq.write_table(pa.table(columns), path, row_group_size=data.draw(st.integers(1, 31)))
    lab.declare(pattern=path.name)
    assert lab.load().rows_added == rows
    for name, column in columns.items():
        with adbc.connect(lab.warehouse.url) as conn, conn.cursor() as cursor:
            cursor.execute(f'select "{name}" from bronze.shop_{lab.table.name} order by _row')
            found = cursor.fetch_arrow_table().column(0).combine_chunks()
        assert back_as(column.type, found).equals(column)


def _column(values: st.SearchStrategy[Any], rows: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | values, min_size=rows, max_size=rows)


def test_a_value_postgres_cannot_hold_sets_its_record_aside(lab: Lab) -> None:
    """A NUL in a text, a moment before 4713 BC; the rest loads and keeps its numbers."""
    old = pa.array([0, 0, -(2**62), 0], pa.int64()).view(pa.timestamp("us"))
    pq.write_table(pa.table({"v": ["a", "b\0", "c", "d"], "t": old}), lab.folder / "a.parquet")
    result = lab.load().results[0]
    assert (result.state, result.rows, result.damaged_rows) == ("loaded", 2, 2)
    assert lab.rows("_row, v") == [(1, "a"), (4, "d")]
    assert [(row, json.loads(raw)["v"]) for row, _, raw, _ in lab.damaged()] == [(2, "b\0"), (3, "c")]


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_file_cut_short_is_refused_whole(lab: Lab, part: float) -> None:
    """Entered as failed; delivered whole, it loads."""
    pq.write_table(pa.table({"v": list(range(10000))}), lab.folder / "a.parquet")
    whole = (lab.folder / "a.parquet").read_bytes()
    lab.write("a.parquet", whole[: int(len(whole) * part)])
    result = lab.load().results[0]
    assert result.state == "failed"
    assert "a.parquet is not a whole Parquet file" in str(result.error)
    assert lab.load().results == []
    lab.write("a.parquet", whole)
    assert lab.load().rows_added == 10000


def test_a_damaged_page_is_refused_whole(lab: Lab) -> None:
    """The footer is fine, the data is not; what was read before is not kept."""
    values = [f"value {n}" for n in range(200_000)]
    path = lab.folder / "a.parquet"
    pq.write_table(
        pa.table({"v": values}), path, row_group_size=50_000, write_page_checksum=True, compression="zstd"
    )
    raw = bytearray(path.read_bytes())
    middle = len(raw) * 3 // 4
    raw[middle : middle + 2000] = bytes(2000)
    lab.write("a.parquet", bytes(raw))
    result = lab.load().results[0]
    assert (result.state, lab.rows("count(*)", "1")) == ("failed", [(0,)])


def test_types_widen_where_no_value_changes(lab: Lab) -> None:
    """int32 then int64, decimal(5,2) then decimal(7,4), and narrower ones after that."""
    for name, whole, money in (
        ("a", pa.int32(), (5, 2)),
        ("b", pa.int64(), (7, 4)),
        ("c", pa.int16(), (3, 1)),
    ):
        table = pa.table({"i": pa.array([1], whole), "m": pa.array([Decimal("1.5")], pa.decimal128(*money))})
        pq.write_table(table, lab.folder / f"{name}.parquet")
    loaded = lab.load()
    assert [result.error for result in loaded.results] == [None] * 3
    assert [(column.name, column.type) for column in loaded.columns] == [
        ("i", "bigint"),
        ("m", "numeric(7,4)"),
    ]
    assert lab.rows("i, m") == [(1, Decimal("1.5000"))] * 3


def test_a_type_that_cannot_widen_is_refused_with_a_sentence(lab: Lab) -> None:
    """Truth values where numbers were: nothing changes in bronze."""
    pq.write_table(pa.table({"v": [1]}), lab.folder / "a.parquet")
    pq.write_table(pa.table({"v": [True]}), lab.folder / "b.parquet")
    first, second = lab.load().results
    assert (first.state, second.state) == ("loaded", "refused")
    assert "column 'v' is boolean, in bronze it is bigint" in str(second.error)
    assert lab.rows("v") == [(1,)]


def test_a_column_without_any_value_waits_for_its_type(lab: Lab) -> None:
    """Empty columns of pandas have the type null."""
    pq.write_table(pa.table({"i": [1], "v": pa.nulls(1)}), lab.folder / "a.parquet")
    pq.write_table(pa.table({"i": [2], "v": [3]}), lab.folder / "b.parquet")
    pq.write_table(pa.table({"i": [3], "v": pa.nulls(1)}), lab.folder / "c.parquet")
    assert [result.error for result in lab.load().results] == [None] * 3
    assert lab.rows("i, v") == [(1, None), (2, 3), (3, None)]


def test_past_250_columns_the_rest_goes_into_one(lab: Lab) -> None:
    """And names that look like SQL stay names."""
    names = [f'c{n}"; drop table datops.loads; --' for n in range(300)]
    pq.write_table(pa.table({name: [n] for n, name in enumerate(names)}), lab.folder / "a.parquet")
    assert lab.load().results[0].error is None
    (more,) = lab.rows("_more")[0]
    assert len(more) == 50
    assert more[names[299]] == 299


@pytest.mark.parametrize(
    ("held", "delivered", "expected"),
    [
        ("smallint", "bigint", "bigint"),
        ("bigint", "smallint", "bigint"),
        ("bigint", "numeric(20,0)", "numeric(20,0)"),
        ("numeric(5,2)", "integer", "numeric(12,2)"),
        ("real", "double precision", None),
        ("double precision", "real", None),
        ("integer", "double precision", "double precision"),
        ("bigint", "double precision", None),
        ("integer", "real", None),
        ("text", "bigint", None),
        ("date", "timestamp", None),
        ("timestamp", "timestamptz", None),
        ("numeric(76,0)", "numeric(76,38)", None),
    ],
)
def test_what_may_widen(held: str, delivered: str, expected: str | None) -> None:
    """The whole table, by its edges."""
    assert wider(held, delivered) == expected


@pytest.mark.parametrize("as_dictionary", [False, True])
@pytest.mark.parametrize("short_first", [0, 5000])
def test_a_small_file_of_large_repeated_values_is_read_in_small_batches(
    tmp_path: Path, as_dictionary: bool, short_first: int
) -> None:
    """The footer counts a value once, however many rows have it: 7 kB became a batch of 1.3 GB."""
    values = pa.array(["s"] * short_first + ["x" * 20_000] * 5000)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": values.dictionary_encode() if as_dictionary else values}), path)
    delivery = ParquetDelivery(Unit("a.parquet", "parquet", path.stat().st_size, "", location=str(path)))
    rows = largest = 0
    for batch in delivery.batches():
        rows += batch.num_rows
        column = batch.column(0)
        unpacked = column.cast(pa.string()) if as_dictionary else column
        largest = max(largest, unpacked.nbytes)
    assert rows == short_first + 5000
    assert largest < 64 << 20


def test_rows_that_are_small_are_read_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": range(200_000)}), path)
    delivery = ParquetDelivery(Unit("a.parquet", "parquet", path.stat().st_size, "", location=str(path)))
    assert [batch.num_rows for batch in delivery.batches()] == [65536, 65536, 65536, 3392]
