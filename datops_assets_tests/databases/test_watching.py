"""The watchdog: what it decides, and what it does to real sessions."""

# ruff: noqa: E501
from __future__ import annotations

import time
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datops_assets.databases import Limits, Login, watch_once
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


STUBBORN = b"""
do $$ begin loop
    begin perform pg_sleep(100); exception when query_canceled then null; end;
end loop; end $$
"""


def test_a_statement_that_swallows_its_cancel_ends_with_its_session(teams, warehouse):
    sales = teams.declare(logins=(Login("etl", "writer", limits=Limits(statement_s=1)),))
    teams.apply(sales)
    hasty = Patience(slack_s=0, cancelled_s=0.2)
    with teams.connect() as admin, closing(teams.log_in(sales, "etl")) as stubborn:
        stubborn.execute("set statement_timeout to 0")
        stubborn.pgconn.send_query(STUBBORN)
        done = []
        deadline = time.monotonic() + 30
        while "terminate" not in done and time.monotonic() < deadline:
            done += [one.action for one in watch_once(admin, warehouse.conn, "here", [sales], hasty)]
            time.sleep(0.1)
        assert done[0] == "cancel"
        assert done[-1] == "terminate"
        with suppress(psycopg.Error):
            stubborn.pgconn.get_result()
    reasons = warehouse.fetch("select reason from datops.interventions where action = 'terminate'")
    assert "after it was cancelled" in str(reasons)


def test_places_that_idle_sessions_hold_are_freed_for_others_and_nobody_elses_are(teams, warehouse):
    sales, other = teams.declare(logins=(Login("bi", "reader", 30),)), teams.declare("other")
    for one in (sales, other):
        teams.apply(one)
    with ExitStack() as stack:
        admin = stack.enter_context(teams.connect())
        theirs = stack.enter_context(closing(teams.log_in(other, "etl")))
        ours = [stack.enter_context(closing(teams.log_in(sales, "bi"))) for _ in range(6)]
        ours[0].execute("begin; select 1")  # in a transaction: not idle
        [[taken]] = teams.run("select count(*) from pg_stat_activity where backend_type = 'client backend'")
        [[places]] = teams.run(
            "select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        )
        done = watch_once(admin, warehouse.conn, "here", [sales], Patience(kept_free=places - taken + 5))
        assert 3 <= len(done) <= 5
        assert {one.session.pid for one in done} <= {conn.info.backend_pid for conn in ours[1:]}
        assert all("are kept free" in one.reason for one in done)
        theirs.execute("select 1")
        ours[0].execute("select 1")
