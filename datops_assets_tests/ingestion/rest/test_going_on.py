"""A whole reading that was cut off: the next run goes on behind the last portion that was kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from datops_assets.ingestion import rest
from datops_assets_tests.ingestion.rest.conftest import RestLab
from datops_assets_tests.ingestion.rest.server import Asked, Reply

PAGES = 12
PAGINATIONS: dict[str, rest.Pagination] = {
    "page": rest.PageNumber(),
    "offset": rest.Offset(),
    "offset, with a total": rest.Offset(total_path="total"),
    "cursor": rest.Cursor(next="next"),
    "next_url": rest.NextUrl("next_url"),
    "link": rest.LinkHeader(),
}
# The process that dies: portions of two pages of one record.
READER = """
import sys
import psycopg
from datops_assets.ingestion import load_table, rest
from datops_assets_tests.ingestion.rest.test_going_on import PAGINATIONS

url, api_url, pagination, load = sys.argv[1:]
table = rest.RestTable(
    source="shop", name="orders", path="orders", records="items", pagination=PAGINATIONS[pagination],
    disposition=load, portions=rest.ChunkLimits(pages=2),
)
api = rest.Api(url=api_url, allow_private=True)
with psycopg.connect(url, autocommit=True) as conn, rest.RestSource(api) as source:
    load_table(conn, source, table, batch="killed")
"""


def place_of(asked: Asked) -> int:
    """The record that a request asks for, whatever way it asks."""
    if "page" in asked.params:
        return asked.number("page", 1) - 1
    return asked.number("offset", asked.number("cursor", asked.number("at", 0)))


def serve(lab: RestLab, count: int = PAGES, note: str = "") -> Callable[[Asked], Any]:
    """Answer with one record a page, and every kind of way to the next one."""

    def answer(asked: Asked) -> Any:
        at = place_of(asked)
        following = at + 1 if at + 1 < count else None
        url = f"{lab.api.url}/orders?at={following}" if following else None
        return Reply(
            {
                "items": [{"id": at + 1, "note": note}] if at < count else [],
                "next": following,
                "next_url": url,
                "total": count,
            },
            headers={"Link": f'<{url}>; rel="next"'} if url else {},
        )

    lab.api.answer = answer
    lab.declare(records="items", disposition="replace", portions=rest.ChunkLimits(pages=2))
    return answer


def kill_at(lab: RestLab, place: int, pagination: str, load: str = "replace") -> None:
    """Read in a process of its own, which is shot when it asks for a place."""
    honest = lab.api.answer
    processes: list[subprocess.Popen[bytes]] = []

    def deadly(asked: Asked) -> Any:
        if place_of(asked) == place:
            processes[0].kill()
        return honest(asked)

    lab.api.answer = deadly
    processes.append(
        subprocess.Popen([sys.executable, "-c", READER, lab.warehouse.url, lab.api.url, pagination, load])
    )
    assert processes[0].wait(60) == -signal.SIGKILL
    lab.api.answer = honest
    lab.declare(pagination=PAGINATIONS[pagination])
    del lab.api.asked[:]


def kept(lab: RestLab) -> int:
    ((count,),) = lab.warehouse.fetch("select count(*) from datops.kept_portions")
    return count


def asked_for(lab: RestLab) -> list[int]:
    return [place_of(asked) for asked in lab.api.asked]


@pytest.mark.parametrize(
    "pagination",
    [
        pytest.param(name, marks=[] if name in ("page", "cursor") else [pytest.mark.slow])
        for name in PAGINATIONS
    ],
)
def test_killed_in_the_middle_the_next_run_asks_for_what_is_missing_only(
    lab: RestLab, pagination: str
) -> None:
    """The process is shot while the eighth page is on its way: three portions are kept, silver sees nothing of them."""
    serve(lab)
    kill_at(lab, 7, pagination)
    assert (kept(lab), [load.state for load in lab.loads()]) == (3, ["loading"])
    assert lab.load().failed == []
    assert lab.ids() == list(range(1, PAGES + 1))
    last = [PAGES] if pagination in ("page", "offset") else []  # the empty page that says it is the last
    assert asked_for(lab) == [*range(6, PAGES), *last]
    assert (kept(lab), [load.state for load in lab.loads()]) == (0, ["interrupted", "loaded"])
    assert lab.load().rows_added == 0
    assert asked_for(lab)[-PAGES - len(last) :][0] == 0


def test_a_table_that_is_appended_to_goes_on_as_well(lab: RestLab) -> None:
    serve(lab)
    kill_at(lab, 7, "cursor", "append")
    lab.declare(disposition="append")
    lab.load()
    assert lab.ids() == list(range(1, PAGES + 1))
    assert asked_for(lab) == list(range(6, PAGES))


@pytest.mark.slow
def test_killed_again_and_again_it_comes_to_its_end(lab: RestLab) -> None:
    serve(lab)
    for place in (3, 6, 9):
        kill_at(lab, place, "cursor")
    assert lab.load().failed == []
    assert (lab.ids(), asked_for(lab)) == (list(range(1, PAGES + 1)), [8, 9, 10, 11])


def test_what_was_gone_on_with_and_is_what_was_there_changes_nothing(lab: RestLab) -> None:
    serve(lab)
    lab.declare(pagination=PAGINATIONS["cursor"])
    lab.load()
    kill_at(lab, 7, "cursor")
    assert lab.load().rows_added == 0
    assert (kept(lab), lab.ids()) == (0, list(range(1, PAGES + 1)))


def test_an_api_that_has_forgotten_the_place_is_read_from_its_beginning(lab: RestLab) -> None:
    serve(lab, note="old")
    kill_at(lab, 7, "cursor")
    honest = serve(lab, note="new")

    def forgetful(asked: Asked) -> Any:
        return Reply(status=410) if lab.api.asked == [asked] else honest(asked)

    lab.api.answer = forgetful
    assert lab.load().failed == []
    assert lab.values("id", "note") == [(number, "new") for number in range(1, PAGES + 1)]
    assert asked_for(lab) == [6, *range(PAGES)]


def test_credentials_that_expired_meanwhile_lose_nothing_of_it(lab: RestLab) -> None:
    honest = serve(lab)
    kill_at(lab, 7, "cursor")
    lab.api.answer = lambda _: Reply(status=401)
    assert "status 401" in str(lab.refused().error)
    assert kept(lab) == 3
    lab.api.answer = honest
    del lab.api.asked[:]
    lab.load()
    assert (lab.ids(), asked_for(lab)[0]) == (list(range(1, PAGES + 1)), 6)


@pytest.mark.parametrize("change", ["old", "other parameters", "another address"])
def test_a_reading_of_another_time_or_another_question_begins_anew(lab: RestLab, change: str) -> None:
    serve(lab)
    kill_at(lab, 7, "cursor")
    if change == "old":
        lab.warehouse.conn.execute("update datops.kept_portions set kept_at = kept_at - interval '13 hours'")
    elif change == "other parameters":
        lab.declare(params={"country": "DE"})
    else:
        lab.declared = replace(lab.declared, url=f"{lab.api.url}/")
    assert lab.load().failed == []
    assert (asked_for(lab)[0], kept(lab), lab.ids()) == (0, 0, list(range(1, PAGES + 1)))


def test_what_became_less_meanwhile_is_thrown_away_and_read_anew(lab: RestLab) -> None:
    serve(lab)
    kill_at(lab, 7, "offset, with a total")
    serve(lab, count=9)
    assert "became less" in str(lab.refused().error)
    assert kept(lab) == 0
    assert lab.load().failed == []
    assert lab.ids() == list(range(1, 10))


def test_a_short_reading_keeps_nothing_and_a_try_out_neither(lab: RestLab) -> None:
    serve(lab)
    lab.declare(pagination=PAGINATIONS["cursor"], portions=rest.ChunkLimits())
    seen: list[int] = []
    honest = lab.api.answer

    def watched(asked: Asked) -> Any:
        seen.append(kept(lab))
        return honest(asked)

    lab.api.answer = watched
    lab.load()
    assert set(seen) == {0}


def test_no_transaction_of_the_warehouse_waits_for_an_api(lab: RestLab) -> None:
    honest = serve(lab)
    lab.declare(pagination=PAGINATIONS["cursor"])
    waiting: list[Any] = []
    open_ones = (
        "select count(*) from pg_stat_activity where datname = current_database() and xact_start is not null"
        " and backend_type = 'client backend' and pid <> pg_backend_pid()"
    )
    with lab.warehouse.connect() as aside:

        def watched(asked: Asked) -> Any:
            waiting.append(aside.execute(open_ones).fetchone())
            return honest(asked)

        lab.api.answer = watched
        lab.load()
    assert set(waiting) == {(0,)}


def test_no_secret_is_kept_with_a_place(lab: RestLab) -> None:
    """An API that writes our key into the next page's address: the address is kept without it."""
    serve(lab)
    honest = lab.api.answer

    def leaking(asked: Asked) -> Any:
        reply = honest(asked)
        body = json.loads(json.dumps(reply.body))
        if body["next_url"]:
            body["next_url"] += "&key=s3cret-key"
        if place_of(asked) == 7:
            return Reply(status=400)
        return Reply(body)

    lab.api.answer = leaking
    lab.connect(credentials=rest.ApiKey("key", lambda: "s3cret-key", "query"))
    lab.declare(pagination=PAGINATIONS["next_url"])
    assert "status 400" in str(lab.refused().error)
    places = lab.warehouse.fetch("select place from datops.kept_portions")
    assert len(places) == 3
    assert not any("s3cret" in place for (place,) in places)
