"""Files as a source."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datops_assets.errors import DeclarationError
from datops_assets.ingestion import CsvOptions, FilePartition, FileSource, FileTable
from datops_assets.testing.sources import SourceContract
from datops_assets_tests.ingestion.conftest import Lab


class TestFileSource(SourceContract):
    """CSV, gzip, JSON lines and Parquet side by side keep the promises of a source."""

    @pytest.fixture
    def source(self) -> FileSource:
        """Return a file source."""
        return FileSource()

    @pytest.fixture
    def table(self, tmp_path: Path) -> FileTable:
        """Return a folder with a file of each kind."""
        (tmp_path / "a.csv").write_text("x,y\n1,2\n")
        (tmp_path / "b.jsonl").write_text('{"x": 1}\n')
        pq.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "c.parquet")
        return FileTable(source="shop", name="orders", root=tmp_path, pattern="*")

    @pytest.fixture
    def missing(self, tmp_path: Path) -> FileTable:
        """Return a folder that is not there."""
        return FileTable(source="shop", name="orders", root=tmp_path / "nowhere", pattern="*")


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.csv", b"x,y\n1,2\n", ["x", "y"]),
        ("a.jsonl", b'{"x": 1}\nbroken\n{"y": 2}\n', ["x", "y"]),
        ("a.json", b'[{"x": 1,\n"z": 2}, {"y": 2}]', ["x", "z", "y"]),
    ],
)
def test_a_sketch_names_the_columns_of_the_newest_file(
    tmp_path: Path, name: str, content: bytes, columns: list[str]
) -> None:
    """Of every format; an empty folder has none."""
    table = FileTable(source="shop", name="orders", root=tmp_path, pattern="*")
    assert FileSource().sketch(table) == []
    (tmp_path / name).write_bytes(content)
    assert FileSource().sketch(table) == columns


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "§"])
def test_a_delimiter_is_one_plain_character(delimiter: str) -> None:
    """COPY takes no other."""
    with pytest.raises(DeclarationError, match="one ASCII character"):
        CsvOptions(delimiter=delimiter)


def test_an_encoding_has_to_be_one() -> None:
    """The declaration is refused, not the first file."""
    with pytest.raises(DeclarationError, match="'utf-9' is not an encoding"):
        CsvOptions(encoding="utf-9")


def test_a_file_of_no_format_is_refused_alone(lab: Lab) -> None:
    """A readme among the data stops no table; the sentence says what there is to state."""
    lab.declare(pattern="*")
    lab.write("readme.txt", "hello\n")
    lab.write("a.csv", "x\n1\n")
    data, readme = lab.load().results
    assert (data.state, readme.state, lab.rows("x")) == ("loaded", "refused", [("1",)])
    assert readme.error is not None
    assert readme.error.startswith("readme.txt: its ending names no format; ")
    assert FileSource().sketch(lab.table) == ["x"]
    assert lab.load().results == []


def test_a_file_of_no_format_loads_once_its_format_is_stated(lab: Lab) -> None:
    lab.declare(pattern="*")
    lab.write("a.dat", "x\n1\n")
    lab.load()
    lab.declare(format="csv")
    assert [result.state for result in lab.load().results] == ["loaded"]


@pytest.mark.parametrize(
    ("pattern", "format_", "path", "key"),
    [
        (r"(\d\d-\d\d-\d{4})", "%m-%d-%Y", "03-21-2020.csv", "2020-03-21"),
        (r"y=(?P<x>\d+)/(?P<date>\d+)", "%Y%m%d", "y=1/20260102.csv", "2026-01-02"),
        (r"\d{8}", "%Y%m%d", "x20260102.csv", "2026-01-02"),
        (r"(\d{8})", "%Y%m%d", "x20269999.csv", None),
        (r"(\d{8})", "%Y%m%d", "x.csv", None),
    ],
)
def test_the_day_comes_from_the_path(pattern: str, format_: str, path: str, key: str | None) -> None:
    """A path that names none has none."""
    assert FilePartition(pattern, format_).key_of(path) == key
