"""Encodings and delimiters that are found out: stated with the load, refused where they cannot be told."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datops_assets.errors import ContainerDamagedError
from datops_assets.ingestion import CsvOptions, FileSource
from datops_assets.ingestion.csv_detect import detect_delimiter, detect_encoding
from datops_assets.ingestion.sampled import Sampled
from datops_assets_tests.ingestion.conftest import Lab

GERMAN = "id;straße;größe\n" + "".join(
    f"{n};Königsallee {n}, Düsseldorf;übergroß für Müller\n" for n in range(50)
)


def declare(lab: Lab) -> None:
    lab.declare(csv=CsvOptions(delimiter="auto", encoding="auto"))


@pytest.mark.parametrize(
    ("encoding", "by"),
    [
        ("utf-8", "valid UTF-8"),
        ("utf-8-sig", "its byte order mark"),
        ("utf-16", "its byte order mark"),
        ("cp1252", "a guess from its letters"),
        ("cp850", "a guess from its letters"),
    ],
)
def test_what_was_found_out_stands_with_the_load(lab: Lab, encoding: str, by: str) -> None:
    """In the result, and in the catalogue."""
    declare(lab)
    lab.write("a.csv", GERMAN.encode(encoding))
    (result,) = lab.load().results
    assert (result.error, result.rows) == (None, 50)
    assert lab.rows('"straße"')[0] == ("Königsallee 0, Düsseldorf",)
    (load,) = lab.loads()
    assert load.read_as == result.read_as
    assert result.read_as["encoding_by"] == by
    assert (result.read_as["delimiter"], result.read_as["delimiter_by"]) == (
        ";",
        "3 fields in each of the first 50 records",
    )


def test_what_is_declared_is_not_found_out(lab: Lab) -> None:
    lab.write("a.csv", "a,b\n1,2\n")
    assert lab.load().results[0].read_as == {}
    assert lab.loads()[0].read_as is None


def test_each_file_may_be_written_in_its_own_way(lab: Lab) -> None:
    declare(lab)
    for name, delimiter in (("a", ","), ("b", ";"), ("c", "\t"), ("d", "|")):
        lab.write(f"{name}.csv", f"x{delimiter}y\n1{delimiter}2\n")
    assert [result.read_as["delimiter"] for result in lab.load().results] == [",", ";", "\t", "|"]
    assert lab.rows("x, y") == [("1", "2")] * 4


def test_bytes_behind_the_sample_that_do_not_fit_are_set_aside(lab: Lab) -> None:
    """What was found out is held to."""
    declare(lab)
    lab.write("a.csv", b"a,b\n" + b"1,2\n" * 50_000 + b"\xe4,2\n")
    (result,) = lab.load().results
    assert (result.rows, result.damaged_rows, result.read_as["encoding"]) == (50_000, 1, "utf-8")


def test_a_text_of_no_encoding_is_refused(lab: Lab) -> None:
    declare(lab)
    lab.write("a.csv", b"a,b\n\0\xff\xfe\x81\x8d,2\n")
    assert "a.csv: its encoding cannot be told; state it" in str(lab.load().results[0].error)


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2\n", ";"),
        ("a;b;c\n1,5;2,5;3\n", ";"),
        ('a|b\n"1|2";3\n', "|"),
        ("a\n1\n", ","),
        ("", ","),
        ("a,b\n1,2\n3,4,5\n", ","),
        ('"a;b",c\n1,2\n', ","),
        ("a,b\n1,2\n3", ","),
    ],
)
def test_a_delimiter_is_told_by_the_first_records(text: str, delimiter: str) -> None:
    """Quoted ones are none; a record that is cut off does not count."""
    assert detect_delimiter(text.encode(), b"\n", "a.csv")[0] == delimiter


@pytest.mark.parametrize("text", ["a,b;c\n1,2;3\n", "a,b;c\n1\n"])
def test_a_delimiter_that_cannot_be_told_is_refused(text: str) -> None:
    with pytest.raises(ContainerDamagedError, match="its delimiter cannot be told"):
        detect_delimiter(text.encode(), b"\n", "a.csv")


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0")), cut=st.integers(0, 3))
def test_utf8_is_never_taken_for_something_else(text: str, cut: int) -> None:
    """Also where the sample ends inside a letter."""
    sample = text.encode()
    if not sample.startswith((codecs.BOM_UTF8, b"\xff\xfe", b"\xfe\xff")):
        assert detect_encoding(sample[: max(len(sample) - cut, 0)], "a.csv")[0] == "utf-8"


def test_a_sample_is_cut_in_the_files_own_encoding(lab: Lab) -> None:
    declare(lab)
    lab.write("a.csv", GERMAN.encode("cp1252"))
    (result,) = lab.load(source=Sampled(FileSource(), lab.table, 7)).results
    assert (result.error, result.rows) == (None, 7)
    assert lab.rows('"größe"')[6] == ("übergroß für Müller",)
