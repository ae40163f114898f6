"""A table of a million rows: what a look costs, and that memory does not grow with the table."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from datops_assets_tests.cdc.query.conftest import Queried

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROWS = 1_000_000
MOST_RSS_BYTES = 300 << 20
SERIES = {
    "postgres": f"select n as n from generate_series(1, {ROWS}) n",
    "maria": f"select seq as n from seq_1_to_{ROWS}",
    "sqlite": f"with recursive s(n) as (select 1 union all select n + 1 from s where n < {ROWS}) select n from s",
}


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print how long it took, and hold how much this process grew meanwhile."""
    process, ended = psutil.Process(), threading.Event()
    before = highest = process.memory_info().rss

    def watch() -> None:
        nonlocal highest
        while not ended.wait(0.02):
            highest = max(highest, process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.monotonic()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    print(f"{what}: {time.monotonic() - began:.1f} s, {(highest - before) >> 20} MB more")
    assert highest - before < MOST_RSS_BYTES


@pytest.mark.parametrize("kind", SERIES)
@pytest.mark.parametrize("compare", ["keys", "rows"])
def test_a_hundred_deletes_of_a_million_rows(request: pytest.FixtureRequest, kind: str, compare: str) -> None:
    source: Queried = request.getfixturevalue(kind)
    source.run("create table orders (id integer primary key, name varchar(40), note varchar(80), at bigint)")
    text = (
        "'name of ' || n, 'a note of the order ' || n"
        if kind != "maria"
        else "concat('name of ', n), concat('a note of the order ', n)"
    )
    source.run(f"insert into orders select n, {text}, n from ({SERIES[kind]}) s")
    source.follow(cursor="at" if compare == "keys" else None, compare=compare)
    with measured(f"{kind}: snapshot"):
        assert source.snapshot() == {"orders": ROWS}
    with measured(f"{kind}: nothing changed, {compare} compared"):
        assert source.drain().changes == 0
    source.run("delete from orders where id % 10000 = 7")
    with measured(f"{kind}: 100 deletes, {compare} compared"):
        done = source.drain()
    print(f"{kind}: {done.rows_read} rows read")
    assert done.changes == 100
    assert done.rows_read["orders"] < 20_000
