"""ORC and Avro files into bronze: typed values come back equal; what is not whole is refused whole."""

from __future__ import annotations

import datetime as dt
import io
import json
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.orc as orc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datops_assets.errors import SourceRefusedError
from datops_assets.ingestion import FileSource, FileTable
from datops_assets.ingestion.typed_file import driver
from datops_assets.testing.sources import SourceContract
from datops_assets_tests.ingestion.conftest import Lab
from datops_assets_tests.ingestion.test_parquet_load import TEXTS, back_as, bronze_column

UTC = dt.UTC


def avro(
    fields: list[dict[str, Any]], records: list[dict[str, Any]], codec: str = "null", **options: Any
) -> bytes:
    file = io.BytesIO()
    schema = {"type": "record", "name": "r", "fields": fields}
    fastavro.writer(file, fastavro.parse_schema(schema), records, codec=codec, **options)
    return file.getvalue()


def one(kind: Any, values: list[Any], codec: str = "null") -> bytes:
    return avro([{"name": "v", "type": kind}], [{"v": value} for value in values], codec)


def logical(kind: str, what: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": what, **more}


class TestTypedFiles(SourceContract):
    """ORC and Avro keep the promises of a source."""

    @pytest.fixture
    def source(self) -> FileSource:
        return FileSource()

    @pytest.fixture
    def table(self, tmp_path: Path) -> FileTable:
        orc.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "a.orc")
        (tmp_path / "b.avro").write_bytes(one("int", [1, 2]))
        return FileTable(source="shop", name="orders", root=tmp_path, pattern="*")

    @pytest.fixture
    def missing(self, tmp_path: Path) -> FileTable:
        return FileTable(source="shop", name="orders", root=tmp_path / "nowhere", pattern="*")


AVRO_VALUES: list[tuple[Any, str, list[Any], list[Any]]] = [
    ("boolean", "boolean", [True, False], [True, False]),
    ("int", "integer", [-(2**31), 2**31 - 1], [-(2**31), 2**31 - 1]),
    ("long", "bigint", [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
    ("float", "real", [1.5], [1.5]),
    ("double", "double precision", [5e-324, 1.1], [5e-324, 1.1]),
    ("string", "text", ["", "é\t\\N\n"], ["", "é\t\\N\n"]),
    ("bytes", "bytea", [b"", b"\0\xff"], [b"", b"\0\xff"]),
    (["null", "string"], "text", [None, "x"], [None, "x"]),
    (["int", "long", "null"], "bigint", [1, 2**40, None], [1, 2**40, None]),
    (["int", "double"], "double precision", [7, 1.5], [7.0, 1.5]),
    ({"type": "enum", "name": "e", "symbols": ["A", "B"]}, "text", ["A", "B"], ["A", "B"]),
    ({"type": "fixed", "name": "f", "size": 3}, "bytea", [b"abc"], [b"abc"]),
    (
        logical("bytes", "decimal", precision=10, scale=2), "numeric(10,2)",
        [Decimal("-1.10"), Decimal("0.00")], [Decimal("-1.10"), Decimal("0.00")],
    ),
    (
        logical("fixed", "decimal", name="d", size=20, precision=45, scale=10), "numeric(45,10)",
        [Decimal("12345678901234567890123456789012345.1234567890")],
        [Decimal("12345678901234567890123456789012345.1234567890")],
    ),
    (logical("int", "date"), "date", [dt.date(1, 1, 1)], [dt.date(1, 1, 1)]),
    (logical("int", "time-millis"), "time", [dt.time(1, 2, 3, 4000)], [dt.time(1, 2, 3, 4000)]),
    (logical("long", "time-micros"), "time", [dt.time(1, 2, 3, 4)], [dt.time(1, 2, 3, 4)]),
    (
        logical("long", "timestamp-millis"), "timestamptz",
        [dt.datetime(2026, 1, 2, 3, 4, 5, 6000, UTC)], [dt.datetime(2026, 1, 2, 3, 4, 5, 6000, UTC)],
    ),
    (
        logical("long", "timestamp-micros"), "timestamptz",
        [dt.datetime(2026, 1, 2, 3, 4, 5, 6, UTC)], [dt.datetime(2026, 1, 2, 3, 4, 5, 6, UTC)],
    ),
    (
        logical("long", "local-timestamp-millis"), "timestamp",
        [dt.datetime(2026, 1, 2, 3, 4, 5)], [dt.datetime(2026, 1, 2, 3, 4, 5)],
    ),
    (
        logical("long", "local-timestamp-micros"), "timestamp",
        [dt.datetime(2026, 1, 2, 3, 4, 5, 6)], [dt.datetime(2026, 1, 2, 3, 4, 5, 6)],
    ),
    (
        logical("string", "uuid"), "uuid",
        [uuid.UUID(int=7), str(uuid.UUID(int=8))], [uuid.UUID(int=7), uuid.UUID(int=8)],
    ),
    (["null", logical("string", "uuid")], "uuid", [None, uuid.UUID(int=7)], [None, uuid.UUID(int=7)]),
    ({"type": "array", "items": ["null", "int"]}, "json", [[1, None], []], [[1, None], []]),
    ({"type": "map", "values": logical("string", "uuid")}, "json",
     [{"k": uuid.UUID(int=7)}], [{"k": str(uuid.UUID(int=7))}]),
    (
        {"type": "record", "name": "n", "fields": [{"name": "a", "type": logical("int", "date")}]}, "json",
        [{"a": dt.date(2026, 1, 2)}], [{"a": "2026-01-02"}],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "expected", "values", "kept"), AVRO_VALUES, ids=lambda value: str(value)[:40]
)
def test_every_type_of_avro_keeps_its_values(
    lab: Lab, kind: Any, expected: str, values: list[Any], kept: list[Any]
) -> None:
    lab.write("a.avro", one(kind, values))
    loaded = lab.load()
    assert [result.error for result in loaded.results] == [None]
    assert [column.type for column in loaded.columns] == [expected]
    found = [value for (value,) in lab.values("v")]
    assert [bytes(value) if isinstance(value, memoryview) else value for value in found] == kept


def test_a_moment_that_python_cannot_hold_is_kept(lab: Lab) -> None:
    """Past the year 9999, and before the first one."""
    lab.write("a.avro", avro([{"name": "v", "type": "long"}], [{"v": 400_000_000_000_000_000}, {"v": 1}]))
    raw = (lab.folder / "a.avro").read_bytes()
    plain, with_type = (
        b'{"name":"v","type":"long"}',
        b'{"name":"v","type":{"type":"long","logicalType":"timestamp-micros"}}',
    )
    header = json.dumps(
        json.loads(raw[raw.index(b'{"') : raw.index(b"}]") + 2] + b"}"), separators=(",", ":")
    ).encode()
    assert plain in header
    schema = json.loads(header.replace(plain, with_type))
    file = io.BytesIO()
    fastavro.schemaless_writer(
        file,
        {"type": "map", "values": "bytes"},
        {"avro.schema": json.dumps(schema).encode(), "avro.codec": b"null"},
    )
    sync = raw[-16:]
    lab.write("a.avro", b"Obj\x01" + file.getvalue() + sync + raw[raw.index(sync) + 16 :])
    assert [result.error for result in lab.load().results] == [None]
    assert lab.rows("v::text") == [("14645-06-30 15:06:40+00",), ("1970-01-01 00:00:00.000001+00",)]


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard", "bzip2", "xz"])
def test_every_packing_of_avro_is_read(lab: Lab, codec: str) -> None:
    lab.write("a.avro", one("string", [f"value {n}" for n in range(5000)], codec))
    assert [(result.error, result.rows) for result in lab.load().results] == [(None, 5000)]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (["int", "string"], "a.avro has a union of int, string in 'v'; only null beside one type"),
        (
            {"type": "record", "name": "n", "fields": [{"name": "next", "type": ["null", "n"]}]},
            "a.avro has a record that holds itself in 'v' (n), which no column holds",
        ),
        ({"type": "record", "name": "n", "fields": []}, "a.avro has a record without fields in 'v'"),
        (logical("bytes", "decimal", precision=80, scale=2), "a.avro has a decimal of 80 digits in 'v'"),
    ],
)
def test_what_no_column_holds_is_refused_with_the_column(lab: Lab, kind: Any, sentence: str) -> None:
    lab.write("a.avro", avro([{"name": "v", "type": kind}], []))
    (result,) = lab.load().results
    assert str(result.error).startswith(sentence)


def test_avro_that_holds_no_records_is_refused(lab: Lab) -> None:
    file = io.BytesIO()
    fastavro.writer(file, "int", [1, 2])
    lab.write("a.avro", file.getvalue())
    assert "a.avro holds values that are no records" in str(lab.load().results[0].error)


def test_a_uuid_that_is_none_is_damage(lab: Lab) -> None:
    """The file lies about its types."""
    content = one("string", ["no uuid"]).replace(b'"type":"string"', b'"type": "string"')
    schema = {"type": "record", "name": "r", "fields": [{"name": "v", "type": logical("string", "uuid")}]}
    head = io.BytesIO()
    metadata = {"avro.schema": json.dumps(schema).encode(), "avro.codec": b"null"}
    fastavro.schemaless_writer(head, {"type": "map", "values": "bytes"}, metadata)
    sync = content[-16:]
    lab.write("a.avro", b"Obj\x01" + head.getvalue() + sync + content[content.index(sync) + 16 :])
    assert "a.avro is not a whole Avro file (ValueError)" in str(lab.load().results[0].error)


WHOLE = {
    "avro": one("string", [f"value {n}" for n in range(20_000)], "deflate"),
    "orc": None,
}


def whole(ending: str, folder: Path) -> bytes:
    if ending == "avro":
        return WHOLE["avro"] or b""
    path = folder / "whole"
    orc.write_table(pa.table({"v": [f"value {n}" for n in range(20_000)]}), path, compression="zlib")
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.mark.parametrize("ending", ["avro", "orc"])
@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.99])
def test_a_file_cut_short_is_refused_whole(lab: Lab, ending: str, part: float) -> None:
    """Entered as failed; delivered whole, it loads."""
    content = whole(ending, lab.folder)
    lab.write(f"a.{ending}", content[: int(len(content) * part)])
    (result,) = lab.load().results
    noun = {"avro": "Avro", "orc": "ORC"}[ending]
    assert (result.state, f"a.{ending} is not a whole {noun} file (" in str(result.error)) == ("failed", True)
    lab.write(f"a.{ending}", content)
    assert lab.load().rows_added == 20_000


@pytest.mark.parametrize("ending", ["avro", "orc"])
def test_a_damaged_block_is_refused_whole(lab: Lab, ending: str) -> None:
    content = bytearray(whole(ending, lab.folder))
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    lab.write(f"a.{ending}", bytes(content))
    (result,) = lab.load().results
    assert (result.state, lab.rows("count(*)", "1")) == ("failed", [(0,)])


ORC_TYPES = [
    (pa.bool_(), [True, False]),
    (pa.int8(), [-128, 127]),
    (pa.int16(), [-(2**15)]),
    (pa.int32(), [2**31 - 1]),
    (pa.int64(), [-(2**63)]),
    (pa.float32(), [1.5]),
    (pa.float64(), [5e-324]),
    (pa.string(), ["", "é\t\\N\n"]),
    (pa.binary(), [b"", b"\0\xff"]),
    (pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    (pa.decimal128(38, 10), [Decimal("1.1000000000"), Decimal("-0.0000000001")]),
    (pa.struct([("a", pa.int64())]), [{"a": 1}]),
    (pa.list_(pa.string()), [["x", None], []]),
]


@pytest.mark.parametrize(("kind", "values"), ORC_TYPES, ids=lambda value: str(value)[:30])
def test_every_type_of_orc_comes_back_equal(lab: Lab, kind: pa.DataType, values: list[Any]) -> None:
    column = pa.array([*values, None], kind)
    orc.write_table(pa.table({"v": column}), lab.folder / "a.orc")
    assert [result.error for result in lab.load().results] == [None]
    assert back_as(kind, bronze_column(lab, "v")).equals(column)


def test_moments_of_orc_keep_their_nanoseconds(lab: Lab) -> None:
    """As text, for PostgreSQL would round them."""
    moments = pa.array([1_700_000_000_123_456_789, None], pa.int64()).cast(pa.timestamp("ns"))
    zoned = moments.cast(pa.timestamp("ns", "UTC"))
    orc.write_table(pa.table({"v": moments, "z": zoned}), lab.folder / "a.orc")
    lab.load()
    assert lab.rows("v, z")[0] == ("2023-11-14 22:13:20.123456789", "2023-11-14 22:13:20.123456789Z")


def test_a_moment_of_orc_that_arrow_cannot_hold_is_refused(lab: Lab) -> None:
    """It would have to be another one."""
    far = pa.array([dt.datetime(9999, 12, 31)], pa.timestamp("us"))
    orc.write_table(pa.table({"v": far}), lab.folder / "a.orc")
    assert "a.orc holds a timestamp before 1677 or after 2262" in str(lab.load().results[0].error)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.parametrize("ending", ["avro", "orc"])
def test_any_table_comes_back_equal(lab: Lab, ending: str, data: st.DataObject) -> None:
    """Random numbers, texts and decimals, in blocks and stripes of any size."""
    rows = data.draw(st.integers(0, 40))
    draw = {
        "i": (pa.int64(), "long", st.integers(-(2**63), 2**63 - 1)),
        "t": (pa.string(), "string", TEXTS),
        "f": (pa.float64(), "double", st.floats(allow_nan=False)),
        "d": (
            pa.decimal128(38, 10),
            logical("bytes", "decimal", precision=38, scale=10),
            st.decimals(-(10**20), 10**20, places=10),
        ),
    }
    values = {
        name: data.draw(st.lists(st.none() | kind, min_size=rows, max_size=rows))
        for name, (_, _, kind) in draw.items()
    }
    table = pa.table({name: pa.array(values[name], draw[name][0]) for name in draw})
    lab.runs += 1
    lab.declare(name=f"t{lab.runs}")
    path = lab.write(f"{lab.table.name}.{ending}", b"")
    if ending == "orc":
        orc.write_table(table, path, stripe_size=1024)
    else:
        fields = [{"name": name, "type": ["null", kind]} for name, (_, kind, _) in draw.items()]
        size = data.draw(st.integers(1, 4000))
        path.write_bytes(avro(fields, table.to_pylist(), "deflate", sync_interval=size))
    lab.declare(pattern=path.name)
    assert lab.load().rows_added == rows
    for name in draw:
        found = [value for (value,) in lab.values(name)]
        assert found == values[name]


def test_a_driver_that_is_missing_is_one_sentence() -> None:
    with pytest.raises(
        SourceRefusedError, match=r"a\.xyz needs no_such_driver, .*: pip install 'datops\[avro\]'"
    ):
        driver("no_such_driver.part", "avro", "a.xyz")


def test_nothing_heavy_is_imported_for_a_source_of_files() -> None:
    """A library of a format is imported when a file of that format is opened."""
    import subprocess

    heavy = ("pyarrow", "fastavro", "openpyxl", "fsspec", "s3fs", "aiohttp", "paramiko")
    code = (
        "import sys; from datops_assets.ingestion import FileSource; FileSource();"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
