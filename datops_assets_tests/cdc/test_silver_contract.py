"""A contract on a mirror: silver is the rows that pass, however they changed, at the cost of those that did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from datops_assets.cdc import FollowedMirror
from datops_assets.cli import _app
from datops_assets.components.streams.component import stream_definitions
from datops_assets.errors import DeclarationError, LoadRefusedError
from datops_assets.quality import (
    Contract,
    Judgement,
    JudgementBlockedError,
    MirrorSubject,
    drop_quarantined,
    judge_mirror,
)
from datops_assets.quality.judged import Kind
from datops_assets_tests.cdc.conftest import Followed
from datops_assets_tests.cdc.test_stream_component import datops, document, erp

__all__ = ["erp"]

CONTRACT = {
    "key": ["id"],
    "columns": {"id": {"type": "bigint", "required": True}, "amount": {"type": "numeric(10,2)", "min": 0}},
}


def judge(followed: Followed, kind: Kind = "load", contract: dict[str, Any] | None = None) -> Judgement:
    subject = MirrorSubject("erp", "t", Contract.model_validate(contract or CONTRACT), {}, "merge")
    return judge_mirror(followed.warehouse.conn, subject, FollowedMirror("erp", "t"), kind=kind)


def held(followed: Followed) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """What is in silver, and what waits."""
    conn = followed.warehouse.conn
    return (
        conn.execute("select id, amount::text from silver.erp_t order by id").fetchall(),
        conn.execute(
            "select record ->> 'id', reasons from quarantine.erp_t where stage = 'silver' order by 1"
        ).fetchall(),
    )


@pytest.fixture
def judged(followed: Followed) -> Followed:
    """Three rows of which one does not pass."""
    followed.run("create table t (id int primary key, amount text)")
    followed.run("insert into t values (1, '1.50'), (2, '-2'), (3, '3')")
    followed.follow("t")
    followed.snapshot()
    assert judge(followed).why == "silver is made for the first time"
    assert held(followed) == ([(1, "1.50"), (3, "3.00")], [("2", ["amount: below the minimum"])])
    return followed


def test_only_keys_that_changed_are_judged(judged: Followed) -> None:
    judged.run(
        "update t set amount = '7' where id = 2; insert into t values (4, 'x'); delete from t where id = 1"
    )
    judged.run("update t set amount = '-1' where id = 3")
    judged.drain()
    done = judge(judged)
    assert (done.kind, done.why, done.rows_judged) == ("load", "4 key(s) changed", 3)
    assert (done.rows_inserted, done.rows_updated, done.rows_deleted, done.rows_total) == (1, 0, 2, 1)
    assert done.reasons == {
        "amount: not a number that numeric(10,2) holds exactly": 1,
        "amount: below the minimum": 1,
    }
    silver, waiting = held(judged)
    assert (silver, [key for key, _ in waiting]) == ([(2, "7.00")], ["3", "4"])
    assert judge(judged).state == "unchanged"


def test_a_row_that_is_mended_leaves_the_quarantine(judged: Followed) -> None:
    judged.run("update t set amount = '2' where id = 2")
    judged.drain()
    done = judge(judged)
    assert (done.rows_inserted, done.rows_updated) == (1, 0)
    assert held(judged) == ([(1, "1.50"), (2, "2.00"), (3, "3.00")], [])
    judged.run("update t set id = 20 where id = 2; delete from t where id = 3")
    judged.drain()
    judge(judged)
    assert held(judged)[0] == [(1, "1.50"), (20, "2.00")]


def test_a_truncate_a_copy_and_another_contract_judge_all_rows(judged: Followed) -> None:
    judged.run("truncate t; insert into t values (9, '9')")
    judged.drain()
    assert judge(judged).why == "the mirror was copied anew or emptied"
    assert held(judged) == ([(9, "9.00")], [])
    judged.run("insert into t values (8, '-8')")
    judged.snapshot()
    assert judge(judged).why == "the mirror was copied anew or emptied"
    looser = {**CONTRACT, "columns": {**CONTRACT["columns"], "amount": {"type": "numeric(10,2)"}}}
    assert judge(judged, contract=looser).why == "the contract changed"
    assert held(judged) == ([(8, "-8.00"), (9, "9.00")], [])


def test_a_replay_judges_what_waits(judged: Followed) -> None:
    done = judge(judged, "replay")
    assert (done.kind, done.rows_judged, done.rows_quarantined) == ("replay", 1, 1)
    assert held(judged) == ([(1, "1.50"), (3, "3.00")], [("2", ["amount: below the minimum"])])
    with pytest.raises(LoadRefusedError, match="correct them there"):
        drop_quarantined(judged.warehouse.conn, source="erp", table="t", because="no")


def test_a_blocked_judgement_leaves_silver_and_is_tried_again(judged: Followed) -> None:
    strict = {**CONTRACT, "rules": [{"row_count": {"min": 2}, "severity": "block"}]}
    judge(judged, contract=strict)
    judged.run("delete from t where id = 1")
    judged.drain()
    for _ in range(2):
        with pytest.raises(JudgementBlockedError):
            judge(judged, contract=strict)
    assert held(judged)[0] == [(1, "1.50"), (3, "3.00")]
    judged.run("insert into t values (5, '5')")
    judged.drain()
    judge(judged, contract=strict)
    assert held(judged)[0] == [(3, "3.00"), (5, "5.00")]


def test_unique_values_are_judged_over_all_rows(judged: Followed) -> None:
    unique = {**CONTRACT, "rules": [{"unique": ["amount"]}]}
    judge(judged, contract=unique)
    judged.run("insert into t values (4, '3')")
    judged.drain()
    assert judge(judged, contract=unique).kind == "rebuild"
    assert [key for key, _ in held(judged)[1]] == ["2", "4"]
    judged.run("delete from t where id = 3")
    judged.drain()
    judge(judged, contract=unique)
    assert held(judged)[0] == [(1, "1.50"), (4, "3.00")]


@pytest.mark.parametrize(
    "changed",
    [
        {"key": ["amount"]},
        {"columns": {"id": {"type": "text", "clean": ["trim"]}, "amount": {"type": "text"}}},
    ],
)
def test_another_key_than_the_mirrors_is_refused(judged: Followed, changed: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="expected the mirror's, id, as it is"):
        judge(judged, contract={**CONTRACT, **changed})
    assert held(judged)[0] == [(1, "1.50"), (3, "3.00")]


WRITE = st.tuples(st.integers(1, 4), st.sampled_from(["'1'", "'-1'", "'x'", "null", "'2.5'"]))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(st.tuples(st.sampled_from("iudk"), WRITE), max_size=5), min_size=1, max_size=4)
)
def test_judging_what_changed_gives_what_judging_all_gives(
    followed: Followed, batches: list[list[tuple[str, tuple[int, str]]]]
) -> None:
    """Whatever the order of changes and judgements."""
    followed.run("drop table if exists t cascade; create table t (id int primary key, amount text)")
    followed.run("insert into t values (1, '1'), (2, '-1')")
    followed.follow("t")
    followed.snapshot()
    judge(followed)
    for batch in batches:
        for op, (key, amount) in batch:
            followed.run(
                {
                    "i": f"insert into t values ({key}, {amount}) on conflict (id) do update set amount = {amount}",
                    "u": f"update t set amount = {amount} where id = {key}",
                    "d": f"delete from t where id = {key}",
                    "k": f"update t set id = id + 4 where id = {key} and not exists"
                    f" (select from t where id = {key} + 4)",
                }[op]
            )
        followed.drain()
        assert judge(followed).kind == "load"
    bit_by_bit, total = held(followed), judge(followed).rows_total
    whole = judge(followed, "rebuild")
    assert (bit_by_bit, total) == (held(followed), whole.rows_total)


@pytest.mark.cdc_case(58)
def test_the_document_judges_by_contract(erp: Followed, project: Path) -> None:
    """Case 58: `schema: quarantine` sets rows with values in unknown columns aside, counted and replayable."""
    file = project / "stream.yaml"
    file.write_text(
        file.read_text().replace(
            "orders: {}",
            "orders: {schema: quarantine, contract: {key: [id], columns: {id: {type: bigint}, note: {type: text}}}}",
        )
    )
    with dg.DagsterInstance.ephemeral() as instance:
        job = stream_definitions(document(project)).resolve_job_def("erp_stream")
        assert job.execute_in_process(instance=instance).success
        erp.run(
            "alter table orders add column paid bool; insert into orders values (2, 'b', true), (3, 'c', null)"
        )
        result = job.execute_in_process(instance=instance)
        events = {e.asset_key.to_user_string(): e for e in result.get_asset_materialization_events()}
        checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    metadata = events["silver/erp/orders"].materialization.metadata
    assert [metadata[name].value for name in ("rows_judged", "rows_quarantined", "dagster/row_count")] == [
        2,
        1,
        2,
    ]
    assert not checks["contract"].passed
    changed = events["bronze/erp/orders"].materialization.metadata["columns_changed"].value
    assert changed == {"appeared": ["paid"]}
    answer = CliRunner().invoke(_app(), ["quarantine", "replay", "erp.orders", "--config", "stream.yaml"])
    assert answer.stdout == "erp.orders: 0 record(s) moved to silver, 1 still wait\n", answer.output
    erp.run("update orders set paid = null where id = 2")
    datops("drain")
    query = "select id, note from silver.erp_orders order by id"
    assert erp.warehouse.conn.execute(query).fetchall() == [(1, "a"), (2, "b"), (3, "c")]
    assert erp.warehouse.conn.execute("select count(*) from quarantine.erp_orders").fetchone() == (0,)
