"""CSV files into bronze: every value as delivered, damage set aside, nothing half loaded."""

from __future__ import annotations

import csv
import gzip
import io
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from datops_assets.ingestion import CsvOptions
from datops_assets.ingestion.csv_check import NotPlainError, PlainCsvCheck
from datops_assets.ingestion.csv_load import _load
from datops_assets.ingestion.job import LoadJob
from datops_assets_tests.ingestion.conftest import Lab


def test_values_arrive_as_delivered(lab: Lab) -> None:
    """Unquoted empty is NULL, quoted empty is a text; blanks and line ends inside quotes stay."""
    lab.write("a.csv", 'id,name,note\r\n1, a ,"x,y"\r\n2,,""\r\n3,"q\r\nr","say ""hi"""\r\n')
    loaded = lab.load()
    assert (loaded.rows_added, loaded.rows_total) == (3, 3)
    assert lab.rows("_load_id, _row, id, name, note") == [
        (1, 1, "1", " a ", "x,y"),
        (1, 2, "2", None, ""),
        (1, 3, "3", "q\r\nr", 'say "hi"'),
    ]


def test_damaged_records_are_set_aside_with_bytes_and_position(lab: Lab) -> None:
    """The rest loads, and keeps its record numbers."""
    lab.write("a.csv", b'id,name\n1,a\n2,b,c\n3,"x"y\n4,\xff\n5,e\0\n6,f\n')
    result = lab.load().results[0]
    assert (result.state, result.rows, result.damaged_rows) == ("loaded", 2, 4)
    assert lab.rows("_row, id, name") == [(1, "1", "a"), (6, "6", "f")]
    assert lab.damaged() == [
        (2, "3 fields where the header has 2", b"2,b,c", 12),
        (3, "text after a closing quote", b'3,"x"y', 18),
        (4, "bytes that are not utf-8", b"4,\xff", 25),
        (5, "a NUL byte", b"5,e\0", 29),
    ]


# What stands in the file after the header `a,b`, which rows load, and which are set aside.
FAULTS: dict[str, tuple[bytes, list[tuple[Any, ...]], list[tuple[int, str]]]] = {
    "two quotes in unquoted fields": (
        b'1,5" pipe\n2,7" pipe\n',
        [(1, "1", '5" pipe'), (2, "2", '7" pipe')],
        [],
    ),
    "a quoted word inside a field": (b'1,a"b"c\n', [(1, "1", 'a"b"c')], []),
    "a quoted word at the end of a field": (b'1,a"b"\n2,a"x"\n', [(1, "1", 'a"b"'), (2, "2", 'a"x"')], []),
    "a line that ends a COPY": (
        b"1,x\n\\.\n2,y\n",
        [(1, "1", "x"), (3, "2", "y")],
        [(2, "1 fields where the header has 2")],
    ),
    "backslashes": (b"1,\\N\n2,a\\tb\\\\\n", [(1, "1", "\\N"), (2, "2", "a\\tb\\\\")], []),
    "a repeated header": (
        b"1,x\na,b\n2,y\n",
        [(1, "1", "x"), (3, "2", "y")],
        [(2, "the header is repeated")],
    ),
    "merge-conflict markers": (
        b"<<<<<<< HEAD\n1,x\n=======\n1,y\n>>>>>>> branch\n",
        [(2, "1", "x"), (4, "1", "y")],
        [(1, "a merge-conflict marker"), (3, "a merge-conflict marker"), (5, "a merge-conflict marker")],
    ),
    "blank lines": (b"\n1,x\n\n\n2,y\n\n", [(1, "1", "x"), (2, "2", "y")], []),
    "blank lines inside quotes": (b'1,"x\n\n\ny"\n\n2,z\n', [(1, "1", "x\n\n\ny"), (2, "2", "z")], []),
    "mixed line ends": (b"1,x\r\n2,y\n3,z\r\n", [(1, "1", "x"), (2, "2", "y"), (3, "3", "z")], []),
    "a lone carriage return": (b"1,x\ry\n2,z\n", [(2, "2", "z")], [(1, "a lone carriage return")]),
    "a quote that never closes": (
        b'1,"x\n2,y\n3,z\n',
        [(2, "2", "y"), (3, "3", "z")],
        [(1, "a quote is not closed")],
    ),
    "a quote closed lines later by another": (
        b'1,"x\n2,y\n3,"z"\n',
        [(2, "2", "y"), (3, "3", "z")],
        [(1, "text after a closing quote")],
    ),
    "ragged records": (
        b"1\n1,2\n1,2,3\n",
        [(2, "1", "2")],
        [(1, "1 fields where the header has 2"), (3, "3 fields where the header has 2")],
    ),
    "mixed encodings": (
        "1,é\n".encode() + "2,é\n".encode("latin-1"),
        [(1, "1", "é")],
        [(2, "bytes that are not utf-8")],
    ),
    "no line end at the end": (b"1,x\n2,y", [(1, "1", "x"), (2, "2", "y")], []),
    "no line end after a quote": (b'1,x\n2,"y"', [(1, "1", "x"), (2, "2", "y")], []),
    "tabs and percent signs": (b"1,a\tb\n2,%s\n", [(1, "1", "a\tb"), (2, "2", "%s")], []),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_gets_a_clear_answer(lab: Lab, fault: str) -> None:
    """Nothing lost: every record is in bronze or set aside with its reason."""
    content, rows, reasons = FAULTS[fault]
    lab.write("a.csv", b"a,b\n" + content)
    result = lab.load().results[0]
    assert (result.state, result.rows, result.damaged_rows) == ("loaded", len(rows), len(reasons))
    assert lab.rows("_row, a, b") == rows
    assert [(row, reason) for row, reason, *_ in (lab.damaged() if reasons else [])] == reasons


def test_every_byte_of_a_damaged_file_is_somewhere(lab: Lab) -> None:
    """The quarantine's bytes stand in the file at the position it names."""
    content = b"a,b\r\n" + b"".join(fault[0] for fault in FAULTS.values())
    lab.write("a.csv", content)
    lab.load()
    damaged = lab.damaged()
    assert len(damaged) > 5
    assert all(content[position : position + len(raw)] == raw for _, _, raw, position in damaged)


@pytest.mark.parametrize(
    ("content", "options", "rows"),
    [
        ("\ufeffa,b\n1,x\n".encode(), CsvOptions(), [("1", "x")]),
        ('\ufeff"a","b"\n1,x\n'.encode(), CsvOptions(), [("1", "x")]),
        ("a,b\n1,ä€\n".encode("cp1252"), CsvOptions(encoding="cp1252"), [("1", "ä€")]),
        ("a,b\r\n1,ä€\r\n".encode("utf-16"), CsvOptions(encoding="utf-16"), [("1", "ä€")]),
        (b"a;b\n1;x,y\n", CsvOptions(delimiter=";"), [("1", "x,y")]),
        (b"a\tb\n1\tx\n", CsvOptions(delimiter="\t"), [("1", "x")]),
        (b"a|b\n1|x\n", CsvOptions(delimiter="|"), [("1", "x")]),
        (b'a,b\r1,"x\ry"\r', CsvOptions(), [("1", "x\ry")]),
        (b'"a","b"\n"1","x"', CsvOptions(), [("1", "x")]),
    ],
)
def test_ways_to_write_csv(
    lab: Lab, content: bytes, options: CsvOptions, rows: list[tuple[str, str]]
) -> None:
    """Byte order marks, encodings, delimiters, old line ends."""
    lab.write("a.csv", content)
    lab.declare(csv=options)
    assert lab.load().results[0].error is None
    assert lab.rows("a, b") == rows


def test_a_file_without_header_gets_numbered_columns(lab: Lab) -> None:
    """The first record is data."""
    lab.write("a.csv", 'x,"y\nz"\n1,2\n')
    lab.declare(csv=CsvOptions(header=False))
    lab.load()
    assert lab.rows("column_1, column_2") == [("x", "y\nz"), ("1", "2")]


def test_bytes_wrong_in_a_stated_encoding_are_set_aside_as_delivered(lab: Lab) -> None:
    """0x81 is nothing in cp1252; the quarantine holds the byte, not a replacement."""
    lab.write("a.csv", b"a,b\n1,\xe4\n2,\x81\n")
    lab.declare(csv=CsvOptions(encoding="cp1252"))
    lab.load()
    assert lab.rows("a, b") == [("1", "ä")]
    assert lab.damaged() == [(2, "bytes that are not cp1252", b"2,\x81", None)]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b"a,b\n", b"a,b", b"\n\na,b\n\n"])
def test_no_record_is_a_load_of_no_rows(lab: Lab, content: bytes) -> None:
    """Empty, or a header only; the next run finds nothing to do."""
    lab.write("a.csv", content)
    assert [(result.state, result.rows) for result in lab.load().results] == [("loaded", 0)]
    assert lab.load().results == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'a,"b\n1,2\n', "a.csv: the header cannot be read: a quote is not closed"),
        (
            b"a,\xff\n1,2\n",
            "a.csv: the header cannot be read: bytes that are not utf-8; state how it is written,"
            " such as `csv: {encoding: latin-1}` or windows-1252",
        ),
        (b"<<<<<<< HEAD\na,b\n", "a.csv: the header cannot be read: a merge-conflict marker"),
        ("a,b\n".encode("utf-16"), "a.csv is UTF-16; state `csv: {encoding: utf-16}`"),
        (
            gzip.compress(gzip.compress(b"a,b\n", mtime=0), mtime=0),
            "a.csv is packed twice (gzip inside); pack it once",
        ),
        (b"PAR1\0\0", "a.csv holds Parquet data; state `format: parquet`"),
    ],
)
def test_a_container_that_cannot_be_read_is_refused_whole(lab: Lab, content: bytes, sentence: str) -> None:
    """One sentence; the other files load."""
    lab.write("a.csv", content)
    lab.write("b.csv", "a,b\n1,2\n")
    first, second = lab.load().results
    assert (first.state, first.error, second.state) == ("failed", sentence, "loaded")


def test_a_copy_that_is_given_up_prints_no_cell(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """The server fails on a ragged record while the reader gives up further on: psycopg would log its answer."""
    ragged = b"a,b\n1,sesame,3\n" + b"1,2\n" * 500_000 + b'1,open" sesame\n1,\0\n'
    lab.write("a.csv", ragged)
    assert lab.load().results[0].damaged_rows == 2
    assert [record.getMessage() for record in caplog.records if record.name.startswith("psycopg")] == []


def test_gzip_is_unpacked_on_the_way(lab: Lab) -> None:
    """Several members and padding, as log shippers write them; positions count unpacked bytes."""
    packed = gzip.compress(b"a,b\n1,x\n") + gzip.compress(b"2,y\n3,4,5\n") + bytes(512)
    lab.write("a.csv.gz", packed)
    assert lab.load().results[0].rows == 2
    assert lab.damaged()[0][2:] == (b"3,4,5", 12)


@pytest.mark.parametrize("cut", [5, 30, -4])
def test_a_cut_gzip_is_refused_whole_and_tried_again_when_it_changes(lab: Lab, cut: int) -> None:
    """Nothing of it is kept, however much could be read."""
    packed = gzip.compress("".join(f"{n},{n * 7919}\n" for n in range(20000)).encode())
    lab.write("a.csv.gz", packed[:cut])
    lab.declare(csv=CsvOptions(header=False))
    result = lab.load().results[0]
    assert (result.state, result.error) == (
        "failed",
        "a.csv.gz: the gzip data is cut off; deliver the file again",
    )
    assert lab.rows("count(*)", "1") == [(0,)]
    assert lab.load().results == []
    lab.write("a.csv.gz", packed)
    assert lab.load().rows_added == 20000


def test_ten_megabytes_in_one_field(lab: Lab) -> None:
    """Quoted, unquoted, and with line ends inside."""
    big = "x" * (10 << 20)
    lab.write("a.csv", f'a,b\n1,{big}\n2,"{big}"\n3,"{big[: 5 << 20]}\n{big[: 5 << 20]}"\n')
    assert lab.load().results[0].rows == 3
    assert lab.rows("a, length(b)") == [("1", 10 << 20), ("2", 10 << 20), ("3", (10 << 20) + 1)]


def test_a_record_past_the_limit_is_set_aside(lab: Lab) -> None:
    """64 MiB bound the memory; the beginning is kept, position and size tell the rest."""
    size = (64 << 20) + 10
    lab.write("a.csv", b"a\n1\n" + b"x" * size + b"\n3\n")
    assert lab.load().results[0].rows == 2
    assert lab.rows("_row, a") == [(1, "1"), (3, "3")]
    ((row, reason, raw, position),) = lab.damaged()
    assert (row, len(raw), position) == (2, 1 << 20, 4)
    assert reason == f"a record of {size} bytes, the limit is 64 MiB; raw is its beginning"


INJECTION = 'x"; drop table datops.loads; --'


def test_columns_named_like_anything(lab: Lab) -> None:
    """Duplicates, empty names, ours, PostgreSQL's, SQL, percent signs, longer than a name may be."""
    long = "n" * 80
    names = ["a", "a", "", "", "_row", "_load_id", "ctid", "a_2", INJECTION, "%s", long + "1", long + "2"]
    text = io.StringIO()
    csv.writer(text).writerows([names, [str(n) for n in range(len(names))]])
    lab.write("a.csv", text.getvalue())
    loaded = lab.load()
    kept = [column.name for column in loaded.columns]
    assert kept[:10] == [
        "a", "a_2", "column", "column_2", "_row_", "_load_id_", "ctid_", "a_2_2", INJECTION, "%s",
    ]  # fmt: skip
    assert len({name[:63] for name in kept}) == len(names)
    assert lab.values(*kept) == [tuple(str(n) for n in range(len(names)))]
    assert [(c.delivered.name, c.delivered.occurrence) for c in loaded.columns][:2] == [("a", 1), ("a", 2)]


def test_1600_columns_load(lab: Lab) -> None:
    """250 become columns, the rest one json object a row."""
    names = [f"c{n}" for n in range(1600)]
    lab.write(
        "a.csv", ",".join(names) + "\n" + ",".join(f"v{n}" for n in range(1600)) + "\n" + "," * 1599 + "\n"
    )
    loaded = lab.load()
    assert loaded.rows_added == 2
    assert sum(not column.in_more for column in loaded.columns) == 250
    (last, more), (empty, nothing) = lab.rows("c249, _more")
    assert (last, len(more), more["c1599"]) == ("v249", 1350, "v1599")
    assert (empty, nothing["c1599"]) == (None, None)


def test_columns_appear_vanish_move_and_are_renamed(lab: Lab) -> None:
    """Bronze follows by name, and every load says what differs from the one before."""
    lab.declare(rename={"Lat": "latitude"})
    lab.write("1.csv", "id,Lat,gone\n1,2,3\n")
    lab.write("2.csv", "Latitude,id,new\n4,5,6\n")
    results = lab.load().results
    assert [result.differences for result in results] == [
        {},
        {"appeared": ["new"], "vanished": ["gone"], "renamed": {"Lat": "Latitude"}},
    ]
    assert lab.values("id", "Lat", "gone", "Latitude", "new") == [
        ("1", "2", "3", None, None),
        ("5", None, None, "4", "6"),
    ]
    lab.write("3.csv", "id,Latitude,new\n7,8,9\n")
    assert lab.load().results[0].differences == {"moved": ["id", "Latitude"]}


def test_copy_is_believed_only_if_it_counts_what_we_count(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that differs for whatever reason: the file is read record by record instead."""
    finish = PlainCsvCheck.finish

    def one_more(check: PlainCsvCheck) -> bytes:
        rest = finish(check)
        check.records += 1
        return rest

    monkeypatch.setattr(PlainCsvCheck, "finish", one_more)
    lab.write("a.csv", "a,b\n1,x\n2,y\n")
    with pytest.raises(NotPlainError, match="COPY took 2 records of 3"):
        _load(lab.warehouse.conn, lab.job(), careful=False)
    assert lab.load().results[0].rows == 2
    assert lab.rows("a") == [("1",), ("2",)]


def records_of(text: str) -> list[list[str | None]]:
    """Read RFC 4180 text with Python's reader; blank lines are no records."""
    return [list(row) for row in csv.reader(io.StringIO(text, newline="")) if row]


CELLS = st.text(st.sampled_from('ab ,"\n\\.é<=\t'), max_size=6)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=8), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_pythons_writer_writes_arrives(lab: Lab, records: list[list[str]], line_end: str) -> None:
    """Both ways through: COPY of the bytes, and record by record."""
    assume(all(record != ["a", "b", "c"] for record in records))
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows([["a", "b", "c"], *records])
    lab.runs += 1
    lab.declare(name=f"t{lab.runs}", pattern=f"t{lab.runs}.csv")
    lab.write(f"t{lab.runs}.csv", text.getvalue())
    assert lab.load().results[0].damaged_rows == 0
    assert lab.rows("coalesce(a, ''), coalesce(b, ''), coalesce(c, '')") == [
        tuple(record) for record in records
    ]


@given(st.lists(st.sampled_from(["a", "b", ",", '"', '"', "\n", "\n", "\r", "\\.", "é", '""']), max_size=25))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_fast_way_takes_the_careful_way_takes_equally(lab: Lab, parts: list[str]) -> None:
    """Any text at all: where COPY is trusted, both ways give the same rows."""
    lab.runs += 1
    path = lab.write(f"t{lab.runs}.csv", "x,y\n" + "".join(parts))
    ways = []
    for careful in (False, True):
        lab.declare(name=f"t{lab.runs}_{'careful' if careful else 'fast'}", pattern=path.name)
        try:
            ways.append(_rows_by(lab, careful=careful))
        except NotPlainError:
            return
    assert ways[0] == ways[1]


def _rows_by(lab: Lab, *, careful: bool) -> list[tuple[Any, ...]]:
    """Load one way only, and return what is in bronze."""
    job = lab.job()
    _load(lab.warehouse.conn, job, careful=careful)
    assert isinstance(job, LoadJob)
    return lab.rows("_row, x, y")
