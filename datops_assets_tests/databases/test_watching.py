"""The watchdog against a real server, and weak points that no session shows."""

# ruff: noqa: E501
from __future__ import annotations

import time
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datops_assets.databases import Limits, Login, lint, watch_once
from datops_assets.databases.sessions import Session
from datops_assets.databases.watchdog import Patience, decide

PATIENCE = Patience()
STARTED = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits(statement_s=10, lock_s=5, idle_in_transaction_s=10, idle_session_s=60, transaction_s=30)
ages = st.none() | st.floats(0, 200)
sessions = st.lists(
    st.builds(
        Session, st.integers(1, 9), st.just(STARTED), st.sampled_from(["ours", "theirs"]), st.just("db"),
        st.sampled_from(["active", "idle", "idle in transaction", None]), st.just(""), st.none(), ages, ages, ages, ages,
    ),
    unique_by=lambda one: one.pid, max_size=9,
)  # fmt: skip


@given(sessions, st.dictionaries(st.integers(1, 9), st.floats(0, 100)), st.integers(0, 20))
def test_only_declared_roles_are_touched_each_session_once_and_never_ended_without_reason(
    found, cancelled, places
):
    since = {(pid, STARTED): age for pid, age in cancelled.items()}
    done = decide(found, {"ours": LIMITS}, since, places, Patience(kept_free=2))
    assert all(one.session.role == "ours" and one.reason for one in done)
    assert len({one.session.key for one in done}) == len(done)
    for one in done:
        if one.session.is_active and one.action == "terminate":
            assert since[one.session.key] > PATIENCE.cancelled_s


@given(sessions)
def test_with_room_and_within_the_limits_nothing_is_done(found):
    generous = Limits(*[10_000] * 6)
    assert decide(found, {"ours": generous}, {}, 100) == []


@given(sessions)
def test_the_longest_idle_sessions_make_room_and_no_more_than_needed(found):
    done = decide(found, {"ours": Limits(*[None] * 6)}, {}, len(found) + 1, Patience(kept_free=3))
    idle = [one for one in found if one.role == "ours" and one.state == "idle"]
    assert len(done) == min(2, len(idle))


def test_a_statement_that_goes_on_after_its_cancel_ends_with_its_session():
    busy = Session(1, STARTED, "ours", "db", "active", "", None, 50, 50, 50)
    assert [one.action for one in decide([busy], {"ours": LIMITS}, {}, 100)] == ["cancel"]
    assert decide([busy], {"ours": LIMITS}, {busy.key: PATIENCE.cancelled_s / 2}, 100) == []
    assert [
        one.action for one in decide([busy], {"ours": LIMITS}, {busy.key: PATIENCE.cancelled_s + 1}, 100)
    ] == ["terminate"]


def test_a_limit_that_a_session_lifted_itself_is_held_and_written_down(teams, warehouse):
    sales = teams.declare(
        logins=(Login("etl", "writer", limits=Limits(statement_s=1, idle_in_transaction_s=1)),)
    )
    teams.apply(sales)
    with ExitStack() as stack:
        admin = stack.enter_context(teams.connect())
        sleeper, idler = (stack.enter_context(closing(teams.log_in(sales, "etl"))) for _ in range(2))
        sleeper.execute("set statement_timeout to 0")
        idler.execute("set idle_in_transaction_session_timeout to 0")
        idler.execute("begin")
        sleeper.pgconn.send_query(b"select pg_sleep(60)")
        time.sleep(1 + PATIENCE.slack_s + 0.5)
        done = watch_once(admin, warehouse.conn, "here", [sales])
        assert {one.action for one in done} == {"cancel", "terminate"}
        with pytest.raises(psycopg.OperationalError):
            idler.execute("select 1")
        with suppress(psycopg.Error):
            sleeper.pgconn.get_result()
    rows = warehouse.fetch("select action, reason, reached from datops.interventions order by action")
    assert [(row[0], row[2]) for row in rows] == [("cancel", True), ("terminate", True)]
    assert "1 s are allowed" in rows[0][1]


def test_each_weak_point_is_named_and_goes_when_it_is_mended(teams):
    sales = teams.declare()
    teams.apply(sales)
    with teams.log_in(sales, "maker") as maker:
        maker.execute("""
            create table a (id int primary key, x int); create index one on a (x); create index two on a (x);
            create table b (a_id int references a); create view v as select * from a;
            create function f() returns int language sql security definer as 'select 1';
            create policy everybody on a using (true);
        """)
    with teams.connect(sales.database) as conn:
        found = {one.name for one in lint(conn, sales.schemas)} - {"open_database"}
        assert found == {
            "no_primary_key", "unindexed_foreign_key", "definer_view", "definer_search_path", "duplicate_index",
            "policy_off", "policy_for_all",
        }  # fmt: skip
    with teams.log_in(sales, "maker") as maker:
        maker.execute("""
            drop index two; alter table b add primary key (a_id); alter view v set (security_invoker = true);
            alter function f set search_path to main; drop policy everybody on a;
        """)
    with teams.connect(sales.database) as conn:
        assert {one.name for one in lint(conn, sales.schemas)} - {"open_database"} == set()
