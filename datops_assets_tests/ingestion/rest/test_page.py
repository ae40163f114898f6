"""An answer is taken apart in one pass: the same values as Python's own reading, and each record's own text."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datops_assets.errors import ContainerDamagedError
from datops_assets.ingestion.rest.page import CutOffError, Page, read_page

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def read(text: str | bytes, records: str | None = None, *, single: bool = False) -> Page:
    body = text.encode() if isinstance(text, str) else text
    return read_page(body, httpx.Headers(), httpx.URL("http://x/"), records=records, single=single)


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, max_size=5), VALUES, st.sampled_from([None, 1, 3]), st.booleans())
def test_it_reads_what_python_reads(
    records: list[Any], other: Any, indent: int | None, ascii_only: bool
) -> None:
    document = {"before": other, "data": {"n": 1, "items": records}, "after": other}
    page = read(json.dumps(document, indent=indent, ensure_ascii=ascii_only), "data.items")
    assert (page.document, page.records) == (document, records)
    assert [json.loads(raw) for raw in page.raws] == records
    assert not any(b"\n" in raw for raw in page.raws)


@pytest.mark.parametrize(
    "text",
    [
        '{"data": [1, 2', '{"data": [1 2]}', '{"data": [1,]}', '{"data" [1]}', '{data: [1]}', '{"data": [1]} x',
        '{"data": [1]', '{"data": }', '{"data": [1], }', "", '{"data": ["a\nb"]}', '{"data": ["a',
    ],
)  # fmt: skip
def test_what_is_no_json_is_not_taken(text: str) -> None:
    with pytest.raises(CutOffError, match=r"line \d+, column \d+"):
        read(text, "data")


@pytest.mark.parametrize(
    ("text", "raws"),
    [
        ('{"data": [1], "data": [2, 3]}', [b"2", b"3"]),
        ('{"d\\u0061ta": [ 1 ,\t{"a":1.10}\r\n]}', [b"1", b'{"a":1.10}']),
        ('{"data": null}', []),
        ('{"data": []}', []),
        ("\ufeff" + '{"data": [-0.0]}', [b"-0.0"]),
        ('{"data": [' + "9" * 5000 + "]}", [b"9" * 5000]),
    ],
)
def test_odd_ones(text: str, raws: list[bytes]) -> None:
    assert read(text, "data").raws == raws


def test_one_record() -> None:
    assert read('{"a": {"b": {"n": 1.0} } }', "a.b", single=True).raws == [b'{"n": 1.0}']
    assert read(' {"n": 1.0}\n', single=True).raws == [b'{"n": 1.0}']


@pytest.mark.parametrize(
    ("text", "records", "said"),
    [
        ("[1]", "data", "nothing at 'data' in the answer, which is a list"),
        ("{}", "data", "which is an object without members"),
        ('{"data": {"a": 1}}', "data", "found an object with 'a'"),
        ('{"data": 5}', "data.items", "nothing at 'data.items'"),
        ('{"data": 5}', None, "found an object with 'data'; write `records:`"),
    ],
)
def test_records_that_are_elsewhere(text: str, records: str | None, said: str) -> None:
    with pytest.raises(ContainerDamagedError) as raised:
        read(text, records)
    assert said in str(raised.value)
