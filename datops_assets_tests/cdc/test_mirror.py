"""The mirror brought to where its log is: the quick way says when it was wrong, and was as if not tried."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datops_assets.cdc.bronze import FollowedTable, create_tables
from datops_assets.cdc.mirror import merge_latest, merge_once_each
from datops_assets.cdc.source import SourceColumn
from datops_assets_tests.conftest import TestWarehouse

TABLE = FollowedTable(
    "erp",
    "orders",
    (SourceColumn("k", "integer", True, True), SourceColumn("v", "integer", False, True)),
)
wishes = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 99)), min_size=1, max_size=10)


@pytest.fixture
def conn(warehouse: TestWarehouse) -> psycopg.Connection[Any]:
    create_tables(warehouse.conn, TABLE)
    return warehouse.conn


def begin_with(conn: psycopg.Connection[Any], rows: dict[int, int], log: list[tuple[str, int, int]]) -> None:
    conn.execute("truncate bronze.erp_orders, bronze.erp_orders_changes")
    for key, value in rows.items():
        conn.execute("insert into bronze.erp_orders values (%s, %s)", (key, value))
    for seq, (op, key, value) in enumerate(log, start=1):
        conn.execute(
            "insert into bronze.erp_orders_changes (_commit_lsn, _seq, _op, k, v) values ('0/10', %s, %s, %s, %s)",
            (seq, op, key, value),
        )


def mirror(conn: psycopg.Connection[Any]) -> dict[int, int]:
    return dict(conn.execute("select k, v from bronze.erp_orders").fetchall())


def as_a_source_would(
    rows: dict[int, int], wished: list[tuple[int, bool, int]]
) -> tuple[Any, dict[int, int]]:
    """Changes that a source could have made, beginning with some rows, and the rows after them."""
    now, log = dict(rows), []
    for key, is_delete, value in wished:
        if key not in now:
            log.append(("i", key, value))
            now[key] = value
        elif is_delete:
            log.append(("d", key, None))
            del now[key]
        else:
            log.append(("u", key, value))
            now[key] = value
    return log, now


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.dictionaries(st.integers(0, 3), st.integers(0, 99)), wished=wishes)
def test_either_way_ends_at_the_source_and_the_quick_one_changes_nothing_where_it_gives_up(
    conn: psycopg.Connection[Any], before: dict[int, int], wished: list[tuple[int, bool, int]]
) -> None:
    log, after = as_a_source_would(before, wished)
    ops = Counter(op for op, _, _ in log)
    begin_with(conn, before, log)

    if merge_once_each(conn, TABLE, (0, 0), ops):
        assert mirror(conn) == after
    else:
        assert mirror(conn) == before
        merge_latest(conn, TABLE, (0, 0))
        assert mirror(conn) == after


@pytest.mark.parametrize(
    ("log", "quick"),
    [
        ([("i", 1, 1), ("u", 1, 2), ("d", 1, None)], True),
        ([("i", 1, 1), ("i", 2, 2), ("u", 7, 3), ("d", 8, None)], True),
        ([("u", 7, 1), ("u", 7, 2)], False),
        ([("d", 7, None), ("i", 7, 2)], False),
        ([("i", 1, 1), ("d", 1, None), ("i", 1, 3)], False),
    ],
    ids=["a life in one batch", "each key once", "updated twice", "made again", "made twice"],
)
def test_each_key_once_is_quick_and_what_is_not_is_noticed(
    conn: psycopg.Connection[Any], log: list[tuple[str, int, int]], quick: bool
) -> None:
    begin_with(conn, {7: 70, 8: 80}, log)
    ops = Counter(op for op, _, _ in log)

    assert merge_once_each(conn, TABLE, (0, 0), ops) is quick


def test_a_row_that_the_mirror_lacks_is_noticed_and_brought(conn: psycopg.Connection[Any]) -> None:
    begin_with(conn, {}, [("u", 5, 50)])

    assert not merge_once_each(conn, TABLE, (0, 0), {"u": 1})
    merge_latest(conn, TABLE, (0, 0))

    assert mirror(conn) == {5: 50}


def test_what_is_before_the_place_is_in_the_mirror_already(conn: psycopg.Connection[Any]) -> None:
    begin_with(conn, {1: 10}, [("i", 1, 10), ("i", 2, 20)])

    assert merge_once_each(conn, TABLE, (0x10, 1), {"i": 1})

    assert mirror(conn) == {1: 10, 2: 20}
