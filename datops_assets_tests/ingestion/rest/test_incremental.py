"""Only what is new: the watermark, chunks that are done for good, and going on after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from datops_assets.ingestion import reload_load, rest, undo_load
from datops_assets.ingestion.rest.incremental import earlier
from datops_assets_tests.ingestion.rest.conftest import RestLab
from datops_assets_tests.ingestion.rest.server import Asked, Reply

# The process that dies in the middle of a long reading: chunks of two pages of one record.
READER = """
import sys
import psycopg
from datops_assets.ingestion import load_table, rest

url, api_url = sys.argv[1:]
table = rest.RestTable(
    source="shop", name="orders", path="orders", records="items", pagination=rest.Cursor(next="next"),
    incremental=rest.Incremental("since", "at"), limits=rest.ChunkLimits(pages=2),
)
api = rest.Api(url=api_url, allow_private=True)
with psycopg.connect(url, autocommit=True) as conn, rest.RestSource(api) as source:
    load_table(conn, source, table, batch="killed")
"""


def serve_changes(lab: RestLab, records: list[dict[str, Any]], size: int = 2) -> None:
    """Answer with the records from `since` on, in pages by cursor."""

    def answer(asked: Asked) -> object:
        found = [record for record in records if str(record["at"]) >= asked.params.get("since", "")]
        start = asked.number("cursor", 0)
        more = start + size < len(found)
        return {"items": found[start : start + size], "next": start + size if more else None}

    lab.api.answer = answer
    lab.declare(
        records="items", pagination=rest.Cursor(next="next"), incremental=rest.Incremental("since", "at")
    )


def day(number: int) -> str:
    return f"2026-01-{number:02}T00:00:00Z"


def test_a_run_asks_for_what_is_new_and_loads_nothing_twice(lab: RestLab) -> None:
    records = [{"id": number, "at": day(number)} for number in (1, 3, 2)]
    serve_changes(lab, records)
    assert lab.load().rows_added == 3
    assert lab.load().rows_added == 0  # the record of the last moment comes again, and is known
    assert lab.api.targets[-1] == "/orders?since=2026-01-03T00%3A00%3A00Z"
    records += [{"id": 4, "at": day(3)}, {"id": 5, "at": day(9)}]
    assert lab.load().rows_added == 2
    assert lab.load().results[-1].rows == 0
    assert lab.load().results == []
    assert lab.ids() == [1, 3, 2, 4, 5]


def test_a_record_that_changed_at_the_edge_comes_again(lab: RestLab) -> None:
    records = [{"id": 1, "at": day(1), "paid": False}]
    serve_changes(lab, records)
    lab.load()
    records[0]["paid"] = True
    assert lab.load().rows_added == 1
    assert lab.values("id", "paid") == [(1, False), (1, True)]


def test_the_lookback_catches_what_was_late(lab: RestLab) -> None:
    records = [{"id": 1, "at": day(5)}, {"id": 2, "at": day(9)}]
    serve_changes(lab, records)
    lab.declare(incremental=rest.Incremental("since", "at", lookback=5 * 86400))
    lab.load()
    records.append({"id": 3, "at": day(6)})
    lab.load()
    assert lab.api.targets[-2].startswith("/orders?since=2026-01-04T00%3A00%3A00Z")
    assert lab.ids() == [1, 2, 3]


def test_the_first_run_may_begin_later(lab: RestLab) -> None:
    serve_changes(lab, [{"id": number, "at": day(number)} for number in (1, 5)])
    lab.declare(incremental=rest.Incremental("since", "at", start=day(4)))
    lab.load()
    assert lab.ids() == [5]


@pytest.mark.parametrize(
    ("values", "highest"),
    [
        ([9, 10, 2], 10),
        (["9", "10"], "10"),
        ([1.5, 2], 2),
        (["2026-01-01T12:00:00+05:00", "2026-01-01T08:00:00Z"], "2026-01-01T08:00:00Z"),
        (["2026-01-02", "2026-01-10"], "2026-01-10"),
        (["b", "a"], "b"),
        ([123456789012345678901, 123456789012345678900], 123456789012345678901),
        ([5, None, ""], 5),
    ],
)
def test_the_highest_value_is_found_by_its_kind(lab: RestLab, values: list[Any], highest: Any) -> None:
    lab.api.answer = lambda _: [{"id": 1, "m": {"at": value}} for value in values]
    lab.declare(incremental=rest.Incremental("since", "m.at"))
    lab.load()
    assert json.loads(lab.loads()[-1].watermark or "")["high"] == highest


@pytest.mark.parametrize(
    ("value", "by", "expected"),
    [
        ("2026-03-01T00:00:00Z", 3600, "2026-02-28T23:00:00Z"),
        ("2026-03-01T00:00:00+02:00", 60, "2026-02-28T23:59:00+02:00"),
        ("2026-03-01 00:00:00.5", 1, "2026-02-28 23:59:59.500000"),
        ("2026-03-01", 86400, "2026-02-28"),
        (100, 7, 93),
        ("100", 7, "93"),
        (1.5, 0.5, 1),
        ("abc", 7, "abc"),
    ],
)
def test_what_lies_before_a_value_is_written_the_same_way(value: Any, by: float, expected: Any) -> None:
    assert earlier(value, by) == expected


def test_values_of_different_kinds_are_refused(lab: RestLab) -> None:
    lab.api.answer = lambda _: [{"id": 1, "at": 5}, {"id": 2, "at": "later"}]
    lab.declare(incremental=rest.Incremental("since", "at"))
    assert "are of different kinds" in str(lab.refused().error)


def test_a_field_that_no_record_has_is_refused(lab: RestLab) -> None:
    lab.api.answer = lambda _: [{"id": 1}]
    lab.declare(incremental=rest.Incremental("since", "at"))
    assert "no record of the page has a text or a number at 'at'" in str(lab.refused().error)


def test_the_value_goes_into_the_body_as_it_is(lab: RestLab) -> None:
    lab.api.answer = lambda _: [{"id": 7}]
    lab.declare(
        method="POST",
        body={},
        parameters_in="body",
        incremental=rest.Incremental("filter_from", "id", start=0),
    )
    lab.load()
    lab.load()
    assert [json.loads(asked.body) for asked in lab.api.asked] == [{"filter_from": 0}, {"filter_from": 7}]


def test_a_long_reading_is_done_in_chunks(lab: RestLab) -> None:
    serve_changes(lab, [{"id": number, "at": day(1)} for number in range(1, 12)])
    lab.declare(limits=rest.ChunkLimits(pages=2))
    loaded = lab.load()
    assert [result.rows for result in loaded.results] == [4, 4, 3]
    assert lab.ids() == list(range(1, 12))


def test_killed_in_the_middle_the_next_run_goes_on_where_the_last_chunk_ended(lab: RestLab) -> None:
    """The process is shot while the ninth page is on its way: four chunks are done, nothing is asked for twice."""
    serve_changes(lab, [{"id": number, "at": day(number)} for number in range(1, 13)], size=1)
    honest = lab.api.answer
    processes: list[subprocess.Popen[bytes]] = []

    def deadly(asked: Asked) -> object:
        if asked.number("cursor", 0) == 9:
            processes[0].kill()
        return honest(asked)

    lab.api.answer = deadly
    processes.append(subprocess.Popen([sys.executable, "-c", READER, lab.warehouse.url, lab.api.url]))
    assert processes[0].wait(60) == -signal.SIGKILL
    assert lab.ids() == [1, 2, 3, 4, 5, 6, 7, 8]
    lab.api.answer = honest
    del lab.api.asked[:]
    lab.declare(limits=rest.ChunkLimits(pages=2))
    assert lab.load().failed == []
    assert lab.ids() == list(range(1, 13))
    assert lab.api.targets == [f"/orders?cursor={cursor}" for cursor in (8, 9, 10, 11)]
    assert lab.load().rows_added == 0


def test_an_api_that_fails_in_the_middle_keeps_the_chunks_before_it(lab: RestLab) -> None:
    serve_changes(lab, [{"id": number, "at": day(number)} for number in range(1, 9)], size=1)
    honest = lab.api.answer
    lab.api.answer = lambda asked: Reply(status=500) if asked.number("cursor", 0) == 5 else honest(asked)
    lab.declare(limits=rest.ChunkLimits(pages=2))
    assert "status 500" in str(lab.refused().error)
    assert lab.ids() == [1, 2, 3, 4]
    lab.api.answer = honest
    lab.load()
    assert lab.ids() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_is_undone_and_reloaded_is_read_again_from_there(lab: RestLab) -> None:
    records = [{"id": 1, "at": day(1)}]
    serve_changes(lab, records)
    lab.load()
    records.append({"id": 2, "at": day(2)})
    lab.load()
    first = lab.loads()[0].ulid
    undo_load(lab.warehouse.conn, first)
    reload_load(lab.warehouse.conn, first)
    lab.load()
    assert lab.ids() == [1, 2]
    assert lab.api.targets[-1] == "/orders"


def test_many_records_of_one_moment_stay_bounded_in_the_catalogue(lab: RestLab) -> None:
    lab.api.answer = lambda _: [{"id": number, "at": 1} for number in range(5000)]
    lab.declare(incremental=rest.Incremental("since", "at"))
    lab.load()
    assert len(lab.loads()[-1].watermark or "") < 20_000
