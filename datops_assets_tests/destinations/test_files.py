"""Files: whole or as they were, equal bytes for equal rows, every value as it stood."""

from __future__ import annotations

import csv
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import fsspec
import pyarrow.parquet as pq
import pytest

from datops_assets.destinations import FileDestination, FileTarget, open_rows
from datops_assets.destinations.rows import TableMissingError

RELATION = ("gold", "sales")


def write(conn, folder, file: str, marker: str = "1"):
    """Deliver gold.sales, in order."""
    with open_rows(conn, RELATION, order_by=["id"]) as rows:
        return FileDestination(folder).deliver(rows, FileTarget(file, file.rpartition(".")[2]), marker)


def test_csv_tells_an_empty_text_from_none(sales, tmp_path):
    assert write(sales, tmp_path, "out/sales.csv").rows == 4
    text = (tmp_path / "out" / "sales.csv").read_text()
    assert text.splitlines()[0] == "id,country,total,sold_on,sold_at,doc,ok"
    assert '2,"",-0.01,,,,f' in text
    rows = list(csv.reader(text.splitlines(keepends=True)))
    assert rows[3][1] == 'a,"b"\nc'


def test_json_lines_hold_every_row(sales, tmp_path):
    assert write(sales, tmp_path, "sales.jsonl").rows == 4
    rows = [json.loads(line) for line in (tmp_path / "sales.jsonl").read_text().splitlines()]
    assert rows[0] == {"id": 1, "country": "DE", "total": 10.5, "sold_on": "2026-01-05",
                       "sold_at": "2026-01-05T10:00:00.123456+00:00", "doc": {"a": [1, None]}, "ok": True}  # fmt: skip
    assert (rows[1]["country"], rows[3]["country"]) == ("", None)


def test_parquet_keeps_types_and_values(sales, tmp_path):
    write(sales, tmp_path, "sales.parquet")
    table = pq.read_table(tmp_path / "sales.parquet")
    assert [str(field.type) for field in table.schema] == [
        "int64", "string", "decimal128(12, 2)", "date32[day]", "timestamp[us, tz=UTC]", "string", "bool",
    ]  # fmt: skip
    first, last = table.to_pylist()[0], table.to_pylist()[3]
    assert first["total"] == Decimal("10.50")
    assert first["sold_at"] == datetime(2026, 1, 5, 10, 0, 0, 123456, tzinfo=UTC)
    assert (last["sold_on"], last["doc"]) == (date(1, 1, 1), '"é"')


@pytest.mark.parametrize("file", ["sales.csv", "sales.jsonl", "sales.parquet", "sales.orc"])
def test_equal_rows_give_equal_bytes_and_the_file_is_left_alone(sales, tmp_path, file):
    assert write(sales, tmp_path, file).changed
    before = (tmp_path / file).stat().st_mtime_ns
    sales.execute("update gold.sales set country = country")  # other places on disk
    assert not write(sales, tmp_path, file, "2").changed
    assert (tmp_path / file).stat().st_mtime_ns == before
    sales.execute("delete from gold.sales where id = 2")
    assert write(sales, tmp_path, file, "3").changed


@pytest.mark.parametrize("file", ["none.csv", "none.jsonl", "none.parquet", "none.orc"])
def test_no_rows_make_a_file_without_rows(sales, tmp_path, file):
    sales.execute("truncate gold.sales")
    assert write(sales, tmp_path, file).rows == 0
    assert (tmp_path / file).is_file()


def test_a_url_goes_by_its_driver(sales):
    place = "memory://reports"
    assert write(sales, place, "2026/sales.csv").rows == 4
    with fsspec.open(f"{place}/2026/sales.csv", "rb") as file:
        assert file.read().count(b"\n") == 6


def test_rows_are_those_of_one_moment(sales, warehouse, tmp_path):
    with open_rows(sales, RELATION) as rows:
        first = len(list(rows.json_lines()))
        with warehouse.connect() as other:
            other.execute("delete from gold.sales")
        assert (len(list(rows.json_lines())), rows.count()) == (first, 4)


def test_a_table_or_column_that_is_not_there_is_one_sentence(sales):
    with (
        pytest.raises(TableMissingError, match=r"gold\.none is not in the warehouse"),
        open_rows(sales, ("gold", "none")),
    ):
        pass
    with (
        pytest.raises(TableMissingError, match="no column totl"),
        open_rows(sales, RELATION, columns=["totl"]),
    ):
        pass


EXPORT = """\
export: reports
team: x
destination: {type: files, path: out}
tables:
  sales: {from: gold/sales, file: sales.csv, order_by: [id]}
"""


@pytest.mark.parametrize("failpoint", ["export.written", "export.renamed"])
def test_kill_9_leaves_the_old_file_or_the_new_one(sales, project, deliver_by_process, failpoint):
    deliver = deliver_by_process
    assert deliver(EXPORT) == "4 True"
    file = project / "out" / "sales.csv"
    before = file.read_bytes()
    sales.execute("delete from gold.sales where id > 1")
    deliver(EXPORT, marker="run-2", failpoint=failpoint)
    assert (file.read_bytes() == before) == (failpoint == "export.written")
    deliver(EXPORT, marker="run-2")
    assert file.read_text().count("\n") == 2
    assert [path.name for path in file.parent.iterdir()] == ["sales.csv"]
