"""Databases in documents: what a run of one shows and says."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from datops_assets.components.bronze import prune
from datops_assets.components.catalogue import open_catalogue
from datops_assets.components.runner import PipelineRun, run_pipeline
from datops_assets.errors import DeclarationError
from datops_assets_tests.components.conftest import Landing

HEAD = """
pipeline: shop
team: commerce
source: {type: database, url: 'sqlite:///shop.db'}
tables:
  orders:
    table: orders
"""


@pytest.fixture
def shop(landing: Landing, project: Path) -> Landing:
    """A project with a database of two orders beside it."""
    change(
        landing, "create table orders (id integer, at text)", "insert into orders values (1, 'a'), (2, 'b')"
    )
    return landing


def change(shop: Landing, *statements: str) -> None:
    """Change the source."""
    with sqlite3.connect(shop.project / "shop.db") as conn:
        for statement in statements:
            conn.execute(statement)
    conn.close()


def run(shop: Landing, table: str) -> PipelineRun:
    """Run once, with these keys of the table."""
    return run_pipeline(shop.declare(HEAD + table), shop.project)


def test_rows_without_a_cursor_value_are_counted_and_said(shop: Landing) -> None:
    """They come with the first load and with no later one, also where a run finds nothing new."""
    assert run(shop, "    cursor: at\n").notes == []
    change(shop, "insert into orders values (3, null)")
    result = run(shop, "    cursor: at\n")
    assert (result.success, result.tables[0].rows_added) == (True, 0)
    (note,) = result.notes
    assert note.startswith("shop.orders: 1 row(s) at the source have no value in the cursor")


def test_an_emptied_table_empties_silver_only_where_that_is_declared(shop: Landing) -> None:
    """Refused at first, with the key to declare; then bronze and silver follow the table."""
    whole = "    contract: {key: [id], columns: {id: {type: integer}}}\n"
    assert run(shop, whole).tables[0].silver_rows == 2
    change(shop, "delete from orders")
    refused = run(shop, whole)
    assert not refused.success
    assert "declare `allow_empty: true` for shop.orders" in " ".join(refused.problems)
    emptied = run(shop, whole + "    allow_empty: true\n")
    assert (emptied.success, emptied.tables[0].silver_rows) == (True, 0)


def test_empty_is_allowed_only_where_something_would_give_way(shop: Landing) -> None:
    """With a cursor nothing does."""
    with pytest.raises(DeclarationError, match="nothing gives way under load: append"):
        shop.declare(HEAD + "    cursor: at\n    allow_empty: true\n")


def test_bronze_keeps_as_many_copies_as_declared(shop: Landing) -> None:
    """Each run lets go of the oldest once silver has read the newest; a wrong `keep` is said."""
    table = "    contract: {key: [id], columns: {id: {type: integer}}}\n    keep: {loads: 1}\n"
    for number in range(3, 7):
        assert run(shop, table).success
        change(shop, f"insert into orders values ({number}, 'x')")
    with open_catalogue(shop.project) as catalogue:
        found = catalogue.conn.execute(
            "select distinct _load_id from bronze.shop_orders order by 1"
        ).fetchall()
        assert found == [(3,), (4,)]
        fewer = shop.declare(HEAD + table.replace("loads: 1", "loads: 0"))
        assert [past.load_id for past in prune(catalogue, fewer, "orders", apply=False)] == [3]
        assert [past.load_id for past in prune(catalogue, fewer, "orders")] == [3]
    with pytest.raises(DeclarationError, match="expected either loads or days"):
        shop.declare(HEAD + "    keep: {}\n")
