"""Excel workbooks into bronze: what each cell stores, as text."""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datops_assets.ingestion import ExcelOptions, FileSource, FileTable
from datops_assets.testing.sources import SourceContract
from datops_assets_tests.ingestion.conftest import Lab


def workbook(*sheets: tuple[str, list[list[Any]]]) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    for n, (name, rows) in enumerate(sheets):
        sheet = book.active if n == 0 else book.create_sheet()
        assert sheet is not None
        sheet.title = name
        for row in rows:
            sheet.append(row)
    return book


def content(book: openpyxl.Workbook) -> bytes:
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def changed(book: bytes, part: str, old: bytes, new: bytes) -> bytes:
    """Change one file inside a workbook: what openpyxl does not write."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as before, zipfile.ZipFile(file, "w") as after:
        for info in before.infolist():
            data = before.read(info)
            if info.filename == part:
                assert old in data
                data = data.replace(old, new)
            after.writestr(info, data)
    return file.getvalue()


class TestWorkbooks(SourceContract):
    """Workbooks keep the promises of a source."""

    @pytest.fixture
    def source(self) -> FileSource:
        return FileSource()

    @pytest.fixture
    def table(self, tmp_path: Path) -> FileTable:
        for name in ("a.xlsx", "b.xlsx"):
            (tmp_path / name).write_bytes(content(workbook(("S", [["x", "y"], [1, name]]))))
        return FileTable(source="shop", name="orders", root=tmp_path, pattern="*")

    @pytest.fixture
    def missing(self, tmp_path: Path) -> FileTable:
        return FileTable(source="shop", name="orders", root=tmp_path / "nowhere", pattern="*")


VALUES: list[tuple[Any, str | None]] = [
    (1, "1"),
    (-0.1, "-0.1"),
    (1e300, "1e+300"),
    (3.0, "3"),
    (123456789012345.0, "123456789012345"),
    ("007", "007"),
    (" padded ", " padded "),
    ('a "quoted", one\nin two lines', 'a "quoted", one\nin two lines'),
    ("", None),
    (None, None),
    (True, "true"),
    (False, "false"),
    (dt.date(2026, 1, 2), "2026-01-02"),
    (dt.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02 03:04:05"),
    (dt.datetime(2026, 1, 2), "2026-01-02 00:00:00"),
    (dt.time(1, 2, 3), "01:02:03"),
    (dt.timedelta(hours=30, minutes=5), "30:05:00"),
    ("#N/A", "#N/A"),
    ("=1/0", None),
]


@pytest.mark.parametrize(("value", "kept"), VALUES, ids=lambda value: repr(value)[:30])
def test_a_cell_keeps_what_it_stores(lab: Lab, value: Any, kept: str | None) -> None:
    """Dates as dates, errors as the words Excel shows; a formula without a stored result is empty."""
    lab.write("a.xlsx", content(workbook(("S", [["k", "v"], ["key", value]]))))
    loaded = lab.load()
    assert [result.error for result in loaded.results] == [None]
    assert lab.rows("k, v") == [("key", kept)]


def test_a_formula_is_its_stored_result(lab: Lab) -> None:
    """An error is one, too."""
    book = content(workbook(("S", [["k", "v", "w"], ["key", "=1+1", "=1/0"]])))
    part = "xl/worksheets/sheet1.xml"
    book = changed(book, part, b"<f>1+1</f><v />", b"<f>1+1</f><v>2</v>")
    book = changed(book, part, b'<c r="C2"><f>1/0</f><v />', b'<c r="C2" t="e"><f>1/0</f><v>#DIV/0!</v>')
    lab.write("a.xlsx", book)
    lab.load()
    assert lab.rows("v, w") == [("2", "#DIV/0!")]


def test_dates_of_a_mac_count_from_1904(lab: Lab) -> None:
    book = workbook(("S", [["v"], [dt.date(2026, 1, 2)]]))
    book.epoch = openpyxl.utils.datetime.CALENDAR_MAC_1904
    lab.write("a.xlsx", content(book))
    lab.load()
    assert lab.rows("v") == [("2026-01-02",)]


def test_rows_keep_their_numbers_of_cells(lab: Lab) -> None:
    """Short ones end in NULL, empty ones are none, one with a value behind the header is set aside."""
    rows = [["a", "b"], [1], [None, None], [None, 2], [3, 4, 5], [6, 7, None]]
    lab.write("a.xlsx", content(workbook(("S", rows))))
    (result,) = lab.load().results
    assert (result.error, result.rows, result.damaged_rows) == (None, 3, 1)
    assert lab.rows("_row, a, b") == [(1, "1", None), (2, None, "2"), (4, "6", "7")]
    assert lab.damaged()[0][:3] == (3, "3 fields where the header has 2", b"3,4,5")


def test_the_sheet_goes_by_name_and_the_header_by_row(lab: Lab) -> None:
    book = content(workbook(("Notes", [["read me"]]), ("Data", [["Report"], [], ["a"], [1]])))
    lab.write("a.xlsx", book)
    assert lab.load().results[0].error == (
        "a.xlsx has 2 sheets (Notes, Data); state which with `excel: {sheet: …}`"
    )
    lab.declare(excel=ExcelOptions(sheet="Dat"))
    assert lab.load().results[0].error == "a.xlsx has no sheet 'Dat', it has: Notes, Data"
    lab.declare(excel=ExcelOptions(sheet="Data", header_row=3))
    assert lab.load().results[0].error is None
    assert lab.rows("a") == [("1",)]


def test_a_hidden_sheet_does_not_count(lab: Lab) -> None:
    book = workbook(("Data", [["a"], [1]]), ("Lists", [["x"]]))
    book["Lists"].sheet_state = "hidden"
    lab.write("a.xlsx", content(book))
    assert lab.load().rows_added == 1


def test_a_sheet_that_states_too_small_a_size_is_read_whole(lab: Lab) -> None:
    """Some programs write one cell there."""
    book = content(workbook(("S", [["a", "b"], [1, 2], [3, 4]])))
    lab.write("a.xlsx", changed(book, "xl/worksheets/sheet1.xml", b'ref="A1:B3"', b'ref="A1"'))
    lab.load()
    assert lab.rows("a, b") == [("1", "2"), ("3", "4")]


def test_an_empty_sheet_has_no_record(lab: Lab) -> None:
    lab.write("a.xlsx", content(workbook(("S", []))))
    lab.write("b.xlsx", content(workbook(("S", [["a", "b"]]))))
    assert [(result.error, result.rows) for result in lab.load().results] == [(None, 0), (None, 0)]


@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_a_workbook_cut_short_is_refused_whole(lab: Lab, part: float) -> None:
    whole = content(workbook(("S", [["a"], *([n] for n in range(2000))])))
    lab.write("a.xlsx", whole[: int(len(whole) * part)])
    (result,) = lab.load().results
    assert (result.state, lab.rows("count(*)", "1")) == ("failed", [(0,)])
    assert "a.xlsx is not a whole Excel workbook (.xlsx) (" in str(result.error)
    lab.write("a.xlsx", whole)
    assert lab.load().rows_added == 2000


def test_a_sheet_that_breaks_in_its_middle_is_refused_whole(lab: Lab) -> None:
    book = content(workbook(("S", [["a"], *([n] for n in range(2000))])))
    lab.write("a.xlsx", changed(book, "xl/worksheets/sheet1.xml", b'<row r="1500">', b"<row <"))
    (result,) = lab.load().results
    assert (result.state, lab.rows("count(*)", "1")) == ("failed", [(0,)])


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"),
    min_size=1,
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.integers(-(10**14), 10**14), TEXTS, st.integers(-(10**9), 10**9).map(lambda n: n / 64)),
        max_size=20,
    )
)
def test_any_table_comes_back_equal(lab: Lab, rows: list[tuple[int, str, float]]) -> None:
    lab.runs += 1
    lab.declare(name=f"t{lab.runs}", pattern=f"t{lab.runs}.xlsx")
    texts = [text for _, text, _ in rows if not text.startswith("=")]
    rows = [row for row in rows if row[1] in texts]
    lab.write(lab.table.pattern, content(workbook(("S", [["i", "t", "f"], *map(list, rows)]))))
    assert lab.load().rows_added == len(rows)
    found = [(int(i), text, float(f)) for i, text, f in lab.values("i", "t", "f")]
    assert found == rows
