"""The log of changes lets go of what is old, and only of what everybody who reads it has read."""

from __future__ import annotations

from pathlib import Path

import pytest

from datops_assets.cdc import forget_changes, log_retention, tell_history
from datops_assets_tests.cdc.conftest import Followed
from datops_assets_tests.cdc.test_silver_contract import judge
from datops_assets_tests.cdc.test_stream_component import datops, erp

__all__ = ["erp"]

ALL_OLD = "update bronze.erp_t_changes set _committed_at = now() - interval '40 days'"


@pytest.fixture
def t(followed: Followed) -> Followed:
    """A table with a row, copied."""
    followed.run("create table t (id int primary key, amount text); insert into t values (1, '1')")
    followed.follow("t")
    followed.snapshot()
    return followed


def forget(followed: Followed, days: int = 30) -> int:
    return forget_changes(followed.warehouse.conn, "erp", "t", days)


def grow(followed: Followed, value: str) -> None:
    followed.run(f"update t set amount = '{value}'; insert into t select n, '1' from generate_series(2, 4) n"
                 " on conflict do nothing")  # fmt: skip
    followed.drain()


def test_what_is_old_goes_and_what_is_younger_stays(t: Followed) -> None:
    grow(t, "2")
    t.warehouse.conn.execute(ALL_OLD)
    grow(t, "3")
    young = t.log("t")[4:]

    assert (forget(t), t.log("t")) == (4, young)
    assert forget(t) == 0
    t.require_equal()
    grow(t, "4")
    t.require_equal()


def test_a_long_log_goes_piece_by_piece(t: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_retention, "_AT_ONCE", 2)
    grow(t, "2")
    t.warehouse.conn.execute(ALL_OLD)
    assert (forget(t), t.log("t")) == (4, [])


def test_a_history_is_told_first(t: Followed) -> None:
    tell_history(t.warehouse.conn, "erp", "t", {})
    grow(t, "2")
    t.warehouse.conn.execute(ALL_OLD)
    assert forget(t) == 0
    tell_history(t.warehouse.conn, "erp", "t", {})
    assert forget(t) == 4
    query = "select amount from silver.erp_t_history where id = 1 order by _from_lsn"
    assert t.warehouse.conn.execute(query).fetchall() == [("1",), ("2",)]


def test_silver_judges_first(t: Followed) -> None:
    judge(t)
    grow(t, "2")
    t.warehouse.conn.execute(ALL_OLD)
    assert forget(t) == 0
    assert judge(t).rows_judged == 4
    assert forget(t) == 4
    grow(t, "3")
    assert judge(t).rows_judged == 4
    assert t.warehouse.conn.execute("select distinct amount::text from silver.erp_t").fetchall() == [
        ("3.00",)
    ]


def test_a_drain_lets_go_as_declared(erp: Followed, project: Path) -> None:
    file = project / "stream.yaml"
    file.write_text(file.read_text().replace("orders: {}", "orders: {keep: {days: 30}}"))
    datops("snapshot")
    erp.run("insert into orders select n from generate_series(10, 12) n")
    assert datops("drain")["changes_let_go"] == {"orders": 0}
    conn = erp.warehouse.conn
    conn.execute("update bronze.erp_orders_changes set _committed_at = now() - interval '31 days'")
    assert datops("drain")["changes_let_go"] == {"orders": 3}
    assert erp.log("orders") == []
