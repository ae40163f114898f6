"""The watchdog and detection against a real server: what is an attack is found, what is harmless is not."""

# ruff: noqa: E501
from __future__ import annotations

import time
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datops_assets.databases import Limits, Login, lint, look, watch_once
from datops_assets.databases.detect import Baseline, Thresholds
from datops_assets.databases.sessions import Session
from datops_assets.databases.watchdog import PATIENCE_S, SLACK_S, decide

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
    done = decide(found, {"ours": LIMITS}, since, places, 2)
    assert all(one.session.role == "ours" and one.reason for one in done)
    assert len({one.session.key for one in done}) == len(done)
    for one in done:
        if one.session.is_active and one.action == "terminate":
            assert since[one.session.key] > PATIENCE_S


@given(sessions)
def test_with_room_and_within_the_limits_nothing_is_done(found):
    generous = Limits(*[10_000] * 6)
    assert decide(found, {"ours": generous}, {}, 100, 5) == []


@given(sessions)
def test_the_longest_idle_sessions_make_room_and_no_more_than_needed(found):
    done = decide(found, {"ours": Limits(*[None] * 6)}, {}, len(found) + 1, 3)
    idle = [one for one in found if one.role == "ours" and one.state == "idle"]
    assert len(done) == min(2, len(idle))


def test_a_statement_that_goes_on_after_its_cancel_ends_with_its_session():
    busy = Session(1, STARTED, "ours", "db", "active", "", None, 50, 50, 50)
    assert [one.action for one in decide([busy], {"ours": LIMITS}, {}, 100)] == ["cancel"]
    assert decide([busy], {"ours": LIMITS}, {busy.key: PATIENCE_S / 2}, 100) == []
    assert [one.action for one in decide([busy], {"ours": LIMITS}, {busy.key: PATIENCE_S + 1}, 100)] == [
        "terminate"
    ]


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
        time.sleep(1 + SLACK_S + 0.5)
        done = watch_once(admin, warehouse.conn, "here", [sales])
        assert {one.action for one in done} == {"cancel", "terminate"}
        with pytest.raises(psycopg.OperationalError):
            idler.execute("select 1")
        with suppress(psycopg.Error):
            sleeper.pgconn.get_result()
    rows = warehouse.fetch("select action, reason, reached from datops.interventions order by action")
    assert [(row[0], row[2]) for row in rows] == [("cancel", True), ("terminate", True)]
    assert "1 s are allowed" in rows[0][1]


def open_kinds(warehouse) -> set[tuple[str, str]]:
    """What is open, without what others on the test server do."""
    return set(warehouse.fetch("select kind, severity from datops.findings where resolved_at is null"))


@pytest.fixture
def watched(teams, warehouse):
    """A team's database with a table of 5,000 rows that was looked at once."""
    sales = teams.declare(logins=(Login("maker", "owner", 30), Login("etl", "writer", 30)))
    teams.apply(sales)
    with teams.log_in(sales, "maker") as maker:
        maker.execute("create table orders (id int primary key, what text)")
        maker.execute("insert into orders select x, 'a pen' from generate_series(1, 5000) x")
    with teams.connect(sales.database) as admin:
        admin.execute("analyze main.orders")

    def again(**thresholds):
        return look(teams.connect, warehouse.conn, "here", [sales], Thresholds(**thresholds))

    again()
    return sales, again


def _flush(teams, sales):
    """What a session counted reaches the statistics when it ends."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if teams.run(
            "select count(*) from pg_stat_activity where usename like '%_maker_%' or usename like '%_etl_%'"
        ) == [(0,)]:
            break
    time.sleep(0.3)


ATTACKS = {
    "a table is emptied": ("maker", "truncate orders", "mass_change"),
    "a table is dropped": ("maker", "drop table orders", "mass_change"),
    "most rows are deleted": ("etl", "delete from orders where id > 100", "mass_change"),
    "all rows are written over": ("etl", "update orders set what = 'gone'", "mass_change"),
    "a role becomes superuser": ("admin", "alter role {etl} superuser", "privilege"),
    "a role may go round row security": ("admin", "alter role {etl} bypassrls", "privilege"),
    "a role joins one of the server's": ("admin", "grant pg_read_all_data to {etl}", "privilege"),
    "a new superuser": ("admin", "create role {prefix}_mallory superuser", "privilege"),
}
HARMLESS = {
    "rows come": ("etl", "insert into orders select x, 'new' from generate_series(6000, 12000) x"),
    "some rows change": ("etl", "update orders set what = 'done' where id < 1000"),
    "some rows go": ("etl", "delete from orders where id < 1000"),
    "a table is read whole": ("etl", "select * from orders"),
    "a table is copied out": ("etl", "copy orders to stdout"),
    "a table is made": ("maker", "create table more (id int primary key)"),
    "an index is made": ("maker", "create index on orders (what)"),
    "a column is added": ("maker", "alter table orders add column note text"),
    "statistics are taken": ("maker", "analyze orders"),
    "a statement that is wrong": ("etl", "select * from nowhere"),
    "a right that is refused": ("etl", "drop table orders"),
    "a pause": ("etl", "select pg_sleep(0.5)"),
}


def _do(teams, sales, who: str, statement: str) -> None:
    names = {"etl": f'"{sales.pair(sales.logins[1])[0]}"', "prefix": teams.prefix}
    text = statement.format(**names).encode()
    with teams.connect() if who == "admin" else teams.log_in(sales, who) as conn, suppress(psycopg.Error):
        if statement.startswith("copy"):
            with conn.cursor().copy(text) as copy:
                for _ in copy:
                    pass
        else:
            conn.execute(text)


@pytest.mark.db_scenario
@pytest.mark.parametrize("what", ATTACKS)
def test_an_attack_is_found_at_the_next_look_and_not_before(watched, teams, warehouse, what):
    sales, again = watched
    who, statement, kind = ATTACKS[what]
    again()
    assert kind not in {found[0] for found in open_kinds(warehouse)}
    _do(teams, sales, who, statement)
    _flush(teams, sales)
    found = {one.kind: one for one in again().changes.new}
    assert kind in found
    assert found[kind].evidence or found[kind].summary


@pytest.mark.db_scenario
def test_harmless_loads_one_after_the_other_raise_nothing_critical(watched, teams, warehouse):
    sales, again = watched
    for who, statement in HARMLESS.values():
        _do(teams, sales, who, statement)
        _flush(teams, sales)
        again()
        assert "critical" not in {severity for _, severity in open_kinds(warehouse)}, statement


@pytest.mark.db_scenario
def test_passwords_that_are_tried_are_found_in_the_log_by_role_and_by_client(watched, teams, warehouse):
    sales, again = watched
    for _ in range(12):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(
                host=teams.server.host, port=teams.server.port, user=teams.secret(sales, "etl").user, password="guess",
                dbname=sales.database,
            )  # fmt: skip
    time.sleep(0.5)
    found = [one for one in again().changes.new if one.kind == "brute_force"]
    assert {one.subject.split()[0] for one in found} == {"role", "client"}
    assert again().changes.new == ()


@pytest.mark.db_scenario
def test_many_connections_a_lock_queue_and_a_copy_are_found_and_are_over_by_themselves(
    watched, teams, warehouse
):
    sales, again = watched
    with ExitStack() as stack:
        holder = stack.enter_context(teams.log_in(sales, "maker"))
        holder.execute("begin; lock table orders")
        waiting = [stack.enter_context(closing(teams.log_in(sales, "etl"))) for _ in range(4)]
        for conn in waiting:
            conn.pgconn.send_query(b"select count(*) from orders")
        time.sleep(0.5)
        found = {
            one.kind
            for one in again(
                connections_share=0.0,
                blocked_sessions=3,
                in_transaction_warning_s=0.1,
                statement_warning_s=0.1,
            ).changes.new
        }
        assert {"connections", "lock_queue", "idle_in_transaction", "long_statement"} <= found
        holder.execute("rollback")
    _flush(teams, sales)
    assert {one.kind for one in again().changes.resolved} >= {
        "connections",
        "lock_queue",
        "idle_in_transaction",
    }


def test_a_slot_that_nobody_follows_is_found(watched, teams, warehouse):
    _, again = watched
    name = f"{teams.prefix}_slot"
    teams.run(f"select pg_create_physical_replication_slot('{name}', true)")
    try:
        assert "slot" in {one.kind for one in again(retained_bytes=-1).changes.new}
    finally:
        teams.run(f"select pg_drop_replication_slot('{name}')")


@given(st.lists(st.floats(0, 20), min_size=30, max_size=200))
def test_what_was_usual_is_never_unusual_below_the_floor_and_a_storm_always_is(values):
    usual = Baseline()
    for value in values:
        usual = usual.learn(value)
    assert not usual.is_unusual(10, 10, Thresholds())
    assert usual.is_unusual(1000, 10, Thresholds())
    assert not Baseline(5, 1, 0).is_unusual(1000, 10, Thresholds()), "too few samples to know"


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
