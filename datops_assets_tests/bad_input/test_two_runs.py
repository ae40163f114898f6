"""Two runs at the same moment, in processes of their own: every record once, whoever takes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.bad_input.conftest import RUN, Landing
from datops_assets_tests.conftest import TestWarehouse

FILES, ROWS = 20, 300


@pytest.fixture
def untouched(orders: Landing, server: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[Landing]:
    """As orders, in a database without even a catalogue."""
    with server.connect() as admin:
        admin.execute("create database two_runs template template0")
        here = server.at("two_runs")
        monkeypatch.setenv("DATOPS_WAREHOUSE_URL", here.url)
        with here.connect() as conn:
            yield Landing(orders.project, TestWarehouse(here, conn), orders.tables, "orders")
        admin.execute("drop database two_runs with (force)")


def test_two_first_runs_make_one_catalogue_and_take_every_record_once(untouched: Landing) -> None:
    paths = []
    for number in range(FILES):
        lines = "".join(f"{number * 1000 + n},x\n" for n in range(ROWS)) + "damaged\n"
        paths.append(untouched.deliver(f"{number}.csv", "id,note\n" + lines))
    processes = [untouched.start(*RUN), untouched.start(*RUN)]
    answers = [untouched.finish(process) for process in processes]
    assert sum(answer.table("orders")["files_loaded"] for answer in answers) == FILES + 1
    untouched.require_accounted("orders", {"orders/good.csv": 2, **dict.fromkeys(paths, ROWS + 1)})
    assert untouched.warehouse.fetch("select count(*), count(distinct id) from silver.store_orders") == [
        (6000, 6000)
    ]
    assert untouched.run().table("orders")["rows_added"] == 0
