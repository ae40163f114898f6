"""Every way of going from page to page brings each record once, in order, with the text it was delivered with."""

from __future__ import annotations

import json

import pytest

from datops_assets.ingestion import rest
from datops_assets_tests.ingestion.rest.conftest import RestLab
from datops_assets_tests.ingestion.rest.server import Asked, Reply

RECORDS = [{"id": number, "name": f"n{number}"} for number in range(1, 6)]
IDS = [1, 2, 3, 4, 5]


def test_one_answer_is_all(lab: RestLab) -> None:
    lab.api.answer = lambda _: RECORDS
    assert lab.load().rows_added == 5
    assert (lab.ids(), lab.api.targets) == (IDS, ["/orders"])


@pytest.mark.parametrize(
    ("pagination", "targets"),
    [
        (
            rest.PageNumber(size_param="limit", size=2),
            [
                "/orders?page=1&limit=2",
                "/orders?page=2&limit=2",
                "/orders?page=3&limit=2",
                "/orders?page=4&limit=2",
            ],
        ),
        (
            rest.PageNumber(size_param="limit", size=2, stop="short"),
            ["/orders?page=1&limit=2", "/orders?page=2&limit=2", "/orders?page=3&limit=2"],
        ),
        (rest.PageNumber(total_path="meta.total"), ["/orders?page=1", "/orders?page=2", "/orders?page=3"]),
        (
            rest.Offset(total_header="X-Total-Count"),
            ["/orders?offset=0", "/orders?offset=2", "/orders?offset=4"],
        ),
        (rest.Offset(), ["/orders?offset=0", "/orders?offset=2", "/orders?offset=4", "/orders?offset=5"]),
    ],
    ids=["until empty", "until short", "total in the body", "total in a header", "offset"],
)
def test_counted_pages(lab: RestLab, pagination: rest.Pagination, targets: list[str]) -> None:
    lab.api.serve(RECORDS)
    lab.declare(records="data", pagination=pagination)
    assert lab.load().failed == []
    assert (lab.ids(), lab.api.targets) == (IDS, targets)


def test_an_api_that_gives_smaller_pages_than_asked_for_loses_nothing(lab: RestLab) -> None:
    def answer(asked: Asked) -> object:
        start = asked.number("offset", 0)
        return RECORDS[start : start + 2]  # whatever `limit` says

    lab.api.answer = answer
    lab.declare(pagination=rest.Offset(size_param="limit", size=100))
    lab.load()
    assert lab.ids() == IDS


@pytest.mark.parametrize("end", [None, "", "missing"])
def test_a_cursor_from_the_body(lab: RestLab, end: str | None) -> None:
    def answer(asked: Asked) -> object:
        start = asked.number("after", 0)
        more = {"next": start + 2} if start + 2 < 5 else {} if end == "missing" else {"next": end}
        return {"meta": more, "items": RECORDS[start : start + 2]}

    lab.api.answer = answer
    lab.declare(records="items", pagination=rest.Cursor(param="after", next="meta.next"))
    lab.load()
    assert (lab.ids(), lab.api.targets) == (IDS, ["/orders", "/orders?after=2", "/orders?after=4"])


def test_a_cursor_that_is_in_the_last_record(lab: RestLab) -> None:
    def answer(asked: Asked) -> object:
        start = asked.number("starting_after", 0)
        return {"data": RECORDS[start : start + 2], "has_more": start + 2 < 5}

    lab.api.answer = answer
    lab.declare(records="data", pagination=rest.Cursor(param="starting_after", last="id", more="has_more"))
    lab.load()
    assert (lab.ids(), len(lab.api.asked)) == (IDS, 3)


def test_a_cursor_in_the_body_of_a_post(lab: RestLab) -> None:
    def answer(asked: Asked) -> object:
        start = json.loads(asked.body).get("cursor", 0)
        return {"next": start + 2 if start + 2 < 5 else None, "items": RECORDS[start : start + 2]}

    lab.api.answer = answer
    lab.declare(
        method="POST",
        body={"q": "all"},
        parameters_in="body",
        records="items",
        pagination=rest.Cursor(next="next"),
    )
    lab.load()
    assert lab.ids() == IDS
    assert [json.loads(asked.body) for asked in lab.api.asked] == [
        {"q": "all"},
        {"q": "all", "cursor": 2},
        {"q": "all", "cursor": 4},
    ]


@pytest.mark.parametrize("absolute", [True, False])
def test_the_header_link(lab: RestLab, absolute: bool) -> None:
    def answer(asked: Asked) -> Reply:
        page = asked.number("p", 1)
        base = lab.api.url if absolute else ""
        link = f'<{base}/orders?p={page + 1}>; rel="next", <{base}/orders?p=9>; rel="last"'
        return Reply(RECORDS[page * 2 - 2 : page * 2], headers={"Link": link} if page < 3 else {})

    lab.api.answer = answer
    lab.declare(pagination=rest.LinkHeader(size_param="per_page", size=2))
    lab.load()
    assert (lab.ids(), lab.api.targets) == (IDS, ["/orders?per_page=2", "/orders?p=2", "/orders?p=3"])


def test_the_next_address_in_the_body(lab: RestLab) -> None:
    def answer(asked: Asked) -> object:
        page = asked.number("p", 1)
        following = f"{lab.api.url}/orders?p={page + 1}" if page < 3 else None
        return {"links": {"next": following}, "value": RECORDS[page * 2 - 2 : page * 2]}

    lab.api.answer = answer
    lab.declare(records="value", pagination=rest.NextUrl(next="links.next"))
    lab.load()
    assert (lab.ids(), lab.api.targets) == (IDS, ["/orders", "/orders?p=2", "/orders?p=3"])


@pytest.mark.parametrize("kind", [rest.PageNumber, rest.Offset])
def test_pages_asked_for_at_once_come_in_order(lab: RestLab, kind: type) -> None:
    records = [{"id": number} for number in range(101)]
    lab.api.serve(records, size=10)
    lab.connect(concurrency=4)
    lab.declare(records="data", pagination=kind(total_path="meta.total"))
    lab.load()
    assert lab.ids() == list(range(101))
    assert len(lab.api.asked) == len(set(lab.api.targets)) == 11


def test_one_record_that_is_no_list(lab: RestLab) -> None:
    lab.api.answer = lambda _: {"result": {"id": 7, "tags": ["a"]}}
    lab.declare(records="result", single=True)
    lab.load()
    assert lab.values("id", "tags") == [(7, ["a"])]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_methods_path_and_parameters(lab: RestLab, method: str) -> None:
    lab.api.answer = lambda _: RECORDS
    lab.declare(
        method=method,
        path="shops/{shop}/orders",
        path_params={"shop": "a/b ?%&"},
        params={"status": ["open", "paid"], "deep": True, "q": "a&b=c"},
        body=None if method == "GET" else {"q": 1},
    )
    lab.load()
    (asked,) = lab.api.asked
    assert asked.target == "/shops/a%2Fb%20%3F%25%26/orders?status=open&status=paid&deep=true&q=a%26b%3Dc"
    assert (asked.method, asked.body) == (method, b"" if method == "GET" else b'{"q":1}')


def test_values_keep_the_text_they_were_delivered_with(lab: RestLab) -> None:
    text = b'[{"id": 1.10,\r\n "big": 123456789012345678901234567890, "e": 1E5, "s": "\\u00e9\\n", "n": [1,\n 2]}]'
    lab.api.answer = lambda _: Reply(raw=text)
    lab.load()
    assert lab.values("id", "big") == [(1.1, 123456789012345678901234567890)]
    raw = lab.warehouse.fetch("select id::text, big::text, e::text, s::text, n::text from bronze.shop_orders")
    assert raw == [("1.10", "1" + "23456789012345678901234567890", "1E5", '"\\u00e9\\n"', "[1,  2]")]


def test_records_that_cannot_be_read_are_set_aside_and_the_rest_loads(lab: RestLab) -> None:
    lab.api.answer = lambda _: Reply(raw=b'[{"id": 1}, {"id": NaN}, 7, {"id": "\xff"}, {"id": 2}]')
    (result,) = lab.load().results
    assert (result.rows, result.damaged_rows) == (2, 3)
    assert lab.ids() == [1, 2]


@pytest.mark.parametrize("body", [b'\xef\xbb\xbf[{"id": "\xc3\xa9"}]', '[{"id": "é"}]'.encode("utf-16")])
def test_other_encodings_of_unicode(lab: RestLab, body: bytes) -> None:
    lab.api.answer = lambda _: Reply(raw=body)
    lab.load()
    assert lab.ids() == ["é"]


def test_a_charset_is_followed(lab: RestLab) -> None:
    headers = {"Content-Type": "application/json; charset=latin-1"}
    lab.api.answer = lambda _: Reply(raw='[{"id": "é"}]'.encode("latin-1"), headers=headers)
    lab.load()
    assert lab.ids() == ["é"]


def test_a_whole_reading_takes_the_place_of_the_last_one(lab: RestLab) -> None:
    lab.declare(disposition="replace")
    lab.api.answer = lambda _: RECORDS
    lab.load()
    assert lab.load().results == []  # the same again changes nothing
    lab.api.answer = lambda _: RECORDS[:2]
    lab.load()
    assert lab.ids() == [1, 2]


def test_a_sample_is_the_first_records(lab: RestLab) -> None:
    from dataclasses import replace

    lab.api.serve(RECORDS)
    table = lab.declare(records="data", pagination=rest.PageNumber())
    with lab.source() as source:
        (unit,) = source.list_units(table)
        with source.open(replace(unit, most_rows=3)) as delivery:
            assert len(b"".join(delivery.chunks()).splitlines()) == 3
    assert len(lab.api.asked) == 2
