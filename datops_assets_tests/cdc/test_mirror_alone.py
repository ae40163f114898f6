"""A table that keeps no log of its changes: the mirror alone, exact all the same, and a log that ends and begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from datops_assets.cdc import tell_history
from datops_assets.components.streams.component import stream_definitions
from datops_assets.components.streams.document import StreamTable
from datops_assets.errors import LoadRefusedError
from datops_assets_tests.cdc.conftest import Followed, mirror_alone
from datops_assets_tests.cdc.test_silver_contract import judge
from datops_assets_tests.cdc.test_stream_component import datops, document, erp

__all__ = ["erp"]


@pytest.fixture
def t(followed: Followed) -> Followed:
    """A table with large values that updates leave out, copied; its changes are not kept."""
    followed.run("create table t (id int primary key, amount text, big text)")
    followed.run("alter table t alter big set storage external")
    followed.run("insert into t select n, '1', repeat('x', 3000) from generate_series(1, 20) n")
    followed.follow("t")
    mirror_alone(followed, "t")
    followed.snapshot()
    return followed


def has_log(followed: Followed) -> bool:
    query = "select to_regclass('bronze.erp_t_changes') is not null"
    return followed.warehouse.conn.execute(query).fetchone() == (True,)


def grow(followed: Followed, value: str) -> None:
    followed.run(f"update t set amount = '{value}'; insert into t select max(id) + 1, '1' from t")
    followed.drain()


def test_the_mirror_is_the_source_and_nothing_else_is_written(t: Followed) -> None:
    t.run(
        "update t set amount = '2' where id < 9; update t set id = -id where id < 5; delete from t where id > 15"
    )
    t.run("truncate t; insert into t select n, 'a', repeat('y', 3000) from generate_series(1, 9) n")
    t.run(
        "update t set id = 100 + id, amount = 'b' where id < 5; update t set amount = 'c'; delete from t where id = 9"
    )
    done = t.drain()

    assert done.tables["t"] == 8 + 2 * 4 + 5 + 1 + 9 + 2 * 4 + 9 + 1
    t.require_equal()
    assert not has_log(t)
    assert t.warehouse.conn.execute("select count(*) from datops.stream_columns").fetchone() == (0,)
    held = t.warehouse.conn.execute("select count(*) from pg_temp.erp_t_changes").fetchone()
    assert held == (0,), "what is merged is let go"
    grow(t, "3")
    t.require_equal()


def test_one_transaction_larger_than_what_is_held_at_once(
    t: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datops_assets.cdc.following._WRITE_BYTES", 2000)
    t.run(
        "insert into t select n, 'a' from generate_series(21, 200) n; update t set amount = 'b' where id > 100;"
        " update t set id = -id where id < 9; insert into t select n, 'c' from generate_series(201, 300) n"
    )
    t.drain()
    t.require_equal()


def test_inserts_go_straight_into_the_mirror_and_what_comes_after_them_finds_them(
    t: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = []
    monkeypatch.setattr("datops_assets.cdc.mirror.merge_once_each", lambda *_: staged.append(1))
    t.run(
        "insert into t select n, 'a', case n % 3 when 0 then repeat('x', 3000) end from generate_series(21, 99) n"
    )
    assert (t.drain().changes, staged) == (79, [])
    t.require_equal()
    monkeypatch.undo()
    monkeypatch.setattr("datops_assets.cdc.following._WRITE_BYTES", 2000)
    t.run(
        "insert into t select n, 'b' from generate_series(100, 199) n; update t set amount = 'c' where id > 150;"
        " delete from t where id < 170; insert into t select n, 'd' from generate_series(1, 120) n"
    )
    t.drain()
    t.require_equal()


def test_messages_that_libpq_hands_out_are_the_same(t: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """As over TLS: the socket's bytes are not for us."""
    monkeypatch.setattr("datops_assets.cdc.copy_both._first_byte", lambda _: b"N")
    t.run(
        "insert into t select n, repeat('a', n * 20) from generate_series(21, 2000) n; delete from t where id < 9"
    )
    assert t.drain().changes == 1980 + 8
    t.require_equal()


def test_a_key_that_is_in_the_mirror_already_is_brought_the_other_way(t: Followed) -> None:
    """The mirror becomes what the source says, also where somebody wrote into it."""
    t.warehouse.conn.execute("insert into bronze.erp_t values (30, 'not of the source')")
    t.run("insert into t select n, 'a' from generate_series(21, 99) n")
    t.drain()
    t.require_equal()


@pytest.mark.cdc_case(55)
def test_columns_that_come_go_and_change_their_type(t: Followed) -> None:
    t.run("alter table t add note text; insert into t values (21, 'a', 'b', 'c')")
    t.drain()
    t.require_equal()
    t.run("insert into t values (22, '5', 'b', 'c'); alter table t alter amount type bigint using 7")
    t.run("insert into t values (23, 8, 'b', 'c'); alter table t drop big; insert into t values (24, 9, 'd')")
    t.drain()
    rows = t.warehouse.conn.execute("select id, amount, note from bronze.erp_t order by id").fetchall()
    assert rows == t.source.execute("select id, amount, note from t order by id").fetchall()


def test_a_log_that_ends_and_begins_again(t: Followed) -> None:
    """A log with a gap would be taken for a whole one: it begins with a copy."""
    mirror_alone(t, logged=["t"])
    assert t.drain().copied == ["t"]
    grow(t, "2")
    assert len(t.log("t")) == 21
    t.run("insert into t values (50, 'before')")
    mirror_alone(t, "t")
    assert t.drain().copied == []
    assert not has_log(t)
    t.require_equal()
    t.run("insert into t values (51, 'between')")
    t.drain()
    mirror_alone(t, logged=["t"])
    t.run("insert into t values (52, 'after')")
    t.drain()
    grow(t, "3")
    t.require_equal()
    assert [key for op, key in t.log("t", "_op::text, id") if op == "i"] == [52, 53]


def test_a_log_on_which_views_stand_does_not_end(t: Followed) -> None:
    mirror_alone(t, logged=["t"])
    t.drain()
    t.warehouse.conn.execute("create view public.of_the_log as select * from bronze.erp_t_changes")
    mirror_alone(t, "t")
    with pytest.raises(LoadRefusedError, match="views stand on it; drop those, then try again"):
        t.drain()
    assert has_log(t)
    t.warehouse.conn.execute("drop view public.of_the_log")
    t.drain()
    assert not has_log(t)


def test_silver_and_history_miss_nothing_of_the_time_without_a_log(t: Followed) -> None:
    mirror_alone(t, logged=["t"])
    t.drain()
    t.run("alter table t drop big")
    t.drain()
    judge(t)
    tell_history(t.warehouse.conn, "erp", "t", {})
    mirror_alone(t, "t")
    t.drain()
    t.run("update t set amount = '7' where id = 1; delete from t where id = 2")
    t.drain()
    mirror_alone(t, logged=["t"])
    t.drain()
    tell_history(t.warehouse.conn, "erp", "t", {})
    judge(t)
    conn = t.warehouse.conn
    assert conn.execute("select amount::int from silver.erp_t where id = 1").fetchone() == (7,)
    current = conn.execute(
        "select id, amount from silver.erp_t_history where _is_current order by id"
    ).fetchall()
    assert current == t.source.execute("select id, amount from t order by id").fetchall()


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"history": True}, "writes no log to tell a history from, expected 1 day or more"),
        (
            {"contract": {"key": ["id"], "columns": {"id": {"type": "bigint"}}}},
            "writes no log that says which keys to judge, expected 1 day or more, or `silver: view`",
        ),
    ],
    ids=["history", "contract"],
)
def test_what_reads_a_log_needs_one(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("`", ".")):
        StreamTable.model_validate({"keep": {"days": 0}, **declared})


def test_the_mirror_alone_as_a_user_has_it(erp: Followed, project: Path) -> None:
    file = project / "stream.yaml"
    file.write_text(file.read_text().replace("orders: {}", "orders: {keep: {days: 0}, silver: view}"))
    definitions = stream_definitions(document(project))
    keys = {key.to_user_string() for key in definitions.resolve_all_asset_keys()}
    assert keys == {"bronze/erp/orders", "silver/erp/orders"}
    with dg.DagsterInstance.ephemeral() as instance:
        assert definitions.resolve_job_def("erp_stream").execute_in_process(instance=instance).success
    erp.run("insert into orders values (2, 'b')")
    assert datops("drain")["changes"] == 1
    erp.require_equal()
    shown = erp.warehouse.conn.execute("select id from silver.erp_orders order by id").fetchall()
    assert shown == [(1,), (2,)]
