"""Our small Parquet writer is read by a real reader, values and types."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datops_assets.synthetic.parquet import parquet_file
from datops_assets.synthetic.tables import Column

COLUMNS = (Column("id", "int"), Column("amount", "money"), Column("at", "time"), Column("näme", "text"))
NAMES = [column.name for column in COLUMNS]
# No lone surrogates: they have no UTF-8.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.integers(-999_999_999_999, 999_999_999_999),
        st.none() | st.integers(-62_135_596_800, 253_402_300_799),
        st.none() | TEXTS,
    ),
    max_size=40,
)


def written(rows: list[tuple]) -> pa.Table:
    values = [[row[position] for row in rows] for position in range(len(COLUMNS))]
    table = pq.read_table(io.BytesIO(parquet_file(NAMES, COLUMNS, values)))
    table.validate(full=True)
    return table


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_what_is_written_is_what_is_read(rows):
    table = written(rows)
    assert table.schema == pa.schema(
        [
            ("id", pa.int64()),
            ("amount", pa.decimal128(12, 2)),
            ("at", pa.timestamp("us", "UTC")),
            ("näme", pa.string()),
        ]
    )
    seconds = table.column("at").cast(pa.int64()).to_pylist()
    assert table.column("id").to_pylist() == [row[0] for row in rows]
    assert table.column("amount").to_pylist() == [
        None if row[1] is None else Decimal(row[1]).scaleb(-2) for row in rows
    ]
    assert [None if value is None else value // 1_000_000 for value in seconds] == [row[2] for row in rows]
    assert table.column("näme").to_pylist() == [row[3] for row in rows]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1_000, 70_000])
def test_any_number_of_rows_can_be_read(count):
    at = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    table = written([(number, number, at, str(number)) for number in range(count)])
    assert table.num_rows == count
    assert table.column("id").to_pylist() == list(range(count))


def test_many_columns_can_be_read():
    """From 15 on, Thrift writes the length of a list in another way."""
    columns = [Column(f"column_{number}", "int") for number in range(20)]
    data = parquet_file([column.name for column in columns], columns, [[number] for number in range(20)])
    assert list(pq.read_table(io.BytesIO(data)).to_pylist()[0].values()) == list(range(20))
