"""What is said about a sample: habits that are learned, thresholds, and what could not be looked at."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

import datops_assets
from datops_assets.databases import KINDS, look
from datops_assets.databases.detect import (
    Baseline,
    Bounds,
    Burst,
    Familiar,
    LogSeen,
    Sample,
    Size,
    TableCounts,
    Thresholds,
    judge,
    learn,
)
from datops_assets.databases.detect.sample import EXTRAS, PARTS
from datops_assets.databases.detect.server_log import count
from datops_assets.databases.detect.usual import MEASURES, network
from datops_assets.databases.findings import Finding, enter
from datops_assets.databases.sessions import Session
from datops_assets.databases.watching import _with_hour

START = datetime(2026, 11, 2, tzinfo=UTC)
LIMIT = Thresholds()
BOUNDS = Bounds(LIMIT)
NOBODY = Familiar({})


def days_of(values, each=timedelta(hours=6)) -> Baseline:
    usual = Baseline(START, START)
    for number, value in enumerate(values):
        usual = usual.learn(value, START + number * each, LIMIT)
    return usual


@given(st.lists(st.floats(0, 20), min_size=40, max_size=200))
def test_what_was_usual_is_not_unusual_and_a_storm_always_is(values):
    usual = days_of(values)
    assert not usual.is_unusual(10, 10, usual.seen_at, LIMIT)
    assert not usual.is_unusual(usual.mean + usual.deviation, 0, usual.seen_at, LIMIT)
    assert usual.is_unusual(1000, 10, usual.seen_at, LIMIT)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=60), st.integers(1, 3600))
def test_nothing_is_unusual_before_it_was_watched_for_long_enough(values, each_s):
    usual = days_of(values, timedelta(seconds=each_s))
    if usual.samples < LIMIT.learning_samples or len(values) * each_s < LIMIT.learning_s:
        assert not usual.is_unusual(1e9, 0, usual.seen_at, LIMIT)


@given(st.floats(100, 1e6))
def test_an_attack_of_an_hour_does_not_become_usual_and_a_load_of_every_night_does(value):
    usual = days_of([5.0] * 40)
    for second in range(0, 3600, 10):
        usual = usual.learn(value, usual.seen_at + timedelta(seconds=10 if second else 0), LIMIT)
    assert usual.is_unusual(value, 0, usual.seen_at, LIMIT)
    nights = days_of([5.0] * 40)
    for _ in range(120):
        nights = nights.learn(100.0, nights.seen_at + timedelta(days=1), LIMIT)
    assert not nights.is_unusual(100.0, 0, nights.seen_at, LIMIT)


def session(role="sales_bi_a", pid=1, **more) -> Session:
    about = {
        "backend_start": START,
        "database": "sales",
        "state": "active",
        "application": "psql",
        "client": "10.0.0.1",
    }
    return Session(**{"pid": pid, "role": role, **about, **more})


def sample(at=START, **more) -> Sample:
    return Sample(
        **{
            "at": at,
            "sessions": (),
            "places": 100,
            "logins": {"sales_bi_a": "sales_bi", "sales_bi_b": "sales_bi"},
            **more,
        }
    )


def kinds(now: Sample, before: Sample | None = None, familiar: Familiar = NOBODY, **limits) -> dict[str, str]:
    found = judge(now, before, {}, familiar, Bounds(Thresholds(**limits)), frozenset({"dumper"}))
    return {one.kind: one.severity for one in found}


@pytest.mark.parametrize(
    ("share", "of_limit", "severity"),
    [(1.0, 0.1, None), (1.2, 0.1, "warning"), (2.5, 0.2, "critical"), (1.2, 0.8, "critical")],
)
def test_transactions_that_grow_old_are_told_in_time(share, of_limit, severity):
    assert kinds(sample(freeze={"sales": (share, of_limit)})).get("wraparound") == severity


@pytest.mark.parametrize(
    ("slot", "severity"),
    [
        ((True, "reserved", 1e6), None), ((True, "extended", 2 * 1024**3), "warning"),
        ((False, "reserved", 2 * 1024**3), "critical"), ((False, "lost", 0.0), "critical"),
    ],
)  # fmt: skip
def test_a_slot_is_judged_by_what_it_keeps_and_whether_somebody_follows(slot, severity):
    assert kinds(sample(slots={"erp": slot})).get("slot") == severity


def test_a_queue_is_a_warning_while_it_is_young_and_critical_later():
    for waited, severity in ((1.0, "warning"), (20.0, "critical")):
        waiting = [session(pid=n, blocked=True, lock_wait_s=waited) for n in range(2, 9)]
        assert kinds(sample(sessions=(session(blocks=7), *waiting)))["lock_queue"] == severity


def test_a_copy_is_told_louder_the_larger_it_is_and_not_where_it_is_the_roles_work():
    for rows, severity in ((1000, None), (200_000, "warning"), (2_000_000, "critical")):
        assert kinds(sample(sessions=(session(copied_rows=rows),))).get("exfiltration") == severity
        assert "exfiltration" not in kinds(sample(sessions=(session("dumper", copied_rows=rows),)))


def test_habits_belong_to_the_login_whichever_of_its_roles_has_its_turn():
    usual: dict = {}
    for day in range(40):
        usual |= learn(
            sample(START + timedelta(days=day), sessions=(session("sales_bi_a"),)), None, usual, BOUNDS
        )
    later = START + timedelta(days=41)
    storm = sample(later, sessions=tuple(session("sales_bi_b", pid=n) for n in range(20)))
    found = judge(storm, None, usual, NOBODY, BOUNDS, frozenset())
    assert [(one.kind, one.subject) for one in found] == [("connection_storm", "sales_bi")]


def test_a_role_from_another_network_is_a_stranger_once_its_habits_are_known():
    known = Familiar({("sales_bi", "client"): {"10.0.0.0/24": START}})
    fresh, old = START + timedelta(days=1), START + timedelta(days=8)
    elsewhere = (session(client="10.0.1.1"),)
    assert kinds(sample(fresh, sessions=elsewhere), familiar=known) == {}
    assert kinds(sample(old, sessions=elsewhere), familiar=known) == {"new_client": "warning"}
    assert kinds(sample(old, sessions=(session(client="10.0.0.77"),)), familiar=known) == {}


NIGHT = datetime(2026, 11, 18, 3, 20, tzinfo=UTC)
"""A Wednesday."""


@pytest.mark.parametrize(
    ("at", "more", "severity"),
    [
        (NIGHT, {}, "warning"),
        (NIGHT.replace(day=14, hour=10), {}, "warning"),
        (NIGHT.replace(hour=10), {}, None),
        (NIGHT.replace(hour=18, minute=59), {}, None),
        (NIGHT, {"state": "idle", "statement_s": 4000.0}, None),
        (NIGHT, {"state": "idle", "statement_s": 20.0}, "warning"),
        (NIGHT, {"role": "postgres"}, None),
    ],
    ids=[
        "at night",
        "at the weekend",
        "at noon",
        "an hour late",
        "a pool that idles",
        "a moment ago",
        "of no team",
    ],
)
def test_a_login_at_work_when_it_never_was_is_told_once_its_hours_are_known(at, more, severity):
    hours = {f"workday {hour:02}": START for hour in range(8, 19)}
    known = Familiar({("sales_bi", "hour"): hours, ("postgres", "hour"): hours})
    now = sample(at, sessions=(session(**more),))
    assert kinds(now, familiar=known).get("off_hours") == severity
    assert "off_hours" not in kinds(
        sample(START + timedelta(days=1, hours=3), sessions=(session(),)), familiar=known
    )
    if severity:
        assert ("sales_bi", "hour") in {one[:2] for one in known.unknown(now)}, "it is told once"


def test_hours_go_on_over_midnight_and_into_the_weekend():
    known = Familiar({("sales_bi", "hour"): {"workday 23": START}})
    saturday = datetime(2026, 11, 21, 0, 10, tzinfo=UTC)
    assert "off_hours" not in kinds(sample(saturday, sessions=(session(),)), familiar=known)
    assert "off_hours" in kinds(sample(saturday + timedelta(hours=1), sessions=(session(),)), familiar=known)


def test_a_role_of_many_statements_may_run_any_and_no_more_are_kept():
    known = Familiar({("sales_bi", "statement"): {str(number): START for number in range(500)}})
    later = sample(NIGHT, shapes={"sales_bi_a": frozenset({"-1"})})
    assert "new_statement" not in kinds(later, familiar=known)
    assert known.unknown(later) == []
    many = sample(shapes={"sales_bi_a": frozenset(map(str, range(900)))})
    assert len(NOBODY.unknown(many)) == 500


@pytest.mark.parametrize(
    ("size", "severity"),
    [((3e9, 1e9), "warning"), ((5e9, 1e9), "critical"), ((1.9e9, 1e9), None), ((5e8, 1e8), None)],
)
def test_a_log_that_outgrows_what_is_meant_is_told(size, severity):
    assert kinds(sample(log_size=size)).get("log_size") == severity


@pytest.mark.parametrize(
    ("lag", "severity"),
    [((1e6, 2.0), None), ((2e9, None), "warning"), ((0.0, 400.0), "warning"), ((0.0, 4000.0), "critical")],
)
def test_who_follows_and_falls_behind_is_told_by_bytes_or_by_time(lag, severity):
    assert kinds(sample(replicas={"standby": lag})).get("replication_lag") == severity


def test_a_database_that_grows_as_it_never_did_is_told_and_one_that_grows_as_always_is_not():
    mib, usual = 1024**2, {}
    for hour in range(24 * 10):
        grown = sample(START + timedelta(hours=hour), sizes={"sales": Size(10e9 + 300 * mib, 10e9, 0.0)})
        usual |= learn(grown, None, usual, BOUNDS)
    for more, found in ((400, []), (3000, ["growth"])):
        now = sample(START + timedelta(days=11), sizes={"sales": Size(10e9 + more * mib, 10e9, 0.0)})
        assert [one.kind for one in judge(now, None, usual, NOBODY, BOUNDS, frozenset())] == found


def test_an_hour_of_growth_begins_with_the_look_after_the_one_before_was_over():
    before, seen = None, []
    for minute, grown in ((0, 10.0), (30, 14.0), (59, 15.0), (61, 16.0), (90, 18.0)):
        at = START + timedelta(minutes=minute)
        now = sample(at, sizes={"sales": Size(grown, grown, at.timestamp())})
        before = replace(now, sizes=_with_hour(now, before, 3600))
        seen.append(before.sizes["sales"].bytes - before.sizes["sales"].begun_bytes)
    assert seen == [0, 4, 5, 0, 2]


def test_thresholds_of_a_team_hold_for_its_logins_and_its_database_and_for_nobody_else():
    calm = LIMIT.but({"statement_warning_s": 7200, "mass_rows": 10_000, "failed_logins": 50})
    bounds = Bounds(LIMIT, dict.fromkeys(["sales", "sales_bi_a", "sales_bi_b", "sales_bi"], calm))
    gone = {f"{name}/main.orders": table(5000) for name in ("sales", "web")}
    before = sample(tables=gone, grants=dict.fromkeys(["sales", "web"], frozenset()))
    whose = [("sales_bi_a", "x"), ("someone", "sales"), ("web_bi_a", "web")]
    long = [session(role, n, database=name, statement_s=4000.0) for n, (role, name) in enumerate(whose)]
    guessed = [*failures(12, 0.1).bursts.items(), *failures(12, 0.1, "web_bi_a").bursts.items()]
    log = LogSeen(None, {who: 12 for who, _ in guessed}, dict(guessed))
    now = sample(START + timedelta(minutes=1), sessions=tuple(long), grants=before.grants, log=log,
                 powers={"sales_bi_a": (), "web_bi_a": ()})  # fmt: skip
    found = judge(now, before, {}, NOBODY, bounds, frozenset())
    assert {(one.kind, one.subject) for one in found if one.subject != "client 10.0.0.1"} == {
        ("long_statement", "web_bi_a/2"), ("mass_change", "web/main.orders"), ("brute_force", "role web_bi_a"),
    }  # fmt: skip


def test_a_program_without_a_name_is_a_habit_too():
    known = Familiar({("sales_bi", "application"): {"no name": START}})
    assert "new_application" not in kinds(sample(NIGHT, sessions=(session(application=""),)), familiar=known)
    assert "new_application" in kinds(
        sample(NIGHT, sessions=(session(application="sqldump"),)), familiar=known
    )


@pytest.mark.parametrize(
    ("client", "shown"),
    [
        (None, "local"),
        ("10.1.2.3", "10.1.2.0/24"),
        ("fe80::1%eth0", "fe80::/64"),
        ("2001:db8::1", "2001:db8::/64"),
    ],
)
def test_machines_come_and_go_in_a_network(client, shown):
    assert network(client) == shown


def line(code: str, at: datetime, user: str = "sales_bi_a", message: str = "failed") -> bytes:
    entry = {"timestamp": f"{at:%Y-%m-%d %H:%M:%S}.000 UTC", "user": user, "remote_host": "10.0.0.1",
             "state_code": code, "message": message}  # fmt: skip
    return json.dumps(entry).encode()


def failures(number: int, each_s: float, user: str = "sales_bi_a") -> LogSeen:
    return count(
        [line("28P01", START + n * timedelta(seconds=each_s), user) for n in range(number)], {}, 900, UTC
    )


def test_a_program_with_an_old_password_is_a_warning_and_guessing_is_critical():
    roles = {"sales_bi_a": ()}
    assert kinds(sample(log=failures(12, 0.1), powers=roles))["brute_force"] == "critical"
    assert kinds(sample(log=failures(12, 30), powers=roles))["brute_force"] == "warning"
    assert kinds(sample(log=failures(5, 0.1), powers=roles)) == {}


def test_what_was_typed_in_the_place_of_a_role_is_not_repeated():
    found = judge(sample(log=failures(12, 0.1, "hunter2")), None, {}, NOBODY, BOUNDS, frozenset())
    assert "hunter2" not in str(found)
    assert {one.subject for one in found} == {"role names that are no role", "client 10.0.0.1"}


def test_a_login_after_a_burst_is_a_break_in_by_the_log_and_by_the_session():
    after = START + timedelta(seconds=20)
    entered = line("00000", after, message="connection authorized: user=sales_bi_a database=sales")
    guessed = count([entered], failures(12, 1).bursts, 900, UTC)
    assert guessed.bursts == {}
    assert kinds(sample(log=guessed))["break_in"] == "critical"
    there = (session(backend_start=after),)
    assert kinds(sample(log=failures(12, 1), sessions=there))["break_in"] == "critical"
    assert "break_in" not in kinds(sample(log=failures(12, 1), sessions=(session(),)))


def test_a_burst_is_forgotten_after_its_time_and_lines_of_others_are_passed_over():
    hours_later = line("00000", START + timedelta(hours=1), message="checkpoint")
    seen = count([b"no json", b"{}", hours_later], {("r", "c"): Burst(12, START, START)}, 900, UTC)
    assert seen.bursts == {}


def table(rows: int, **more) -> TableCounts:
    return TableCounts(**{"rows": rows, "deleted": 0, "updated": 0, "file": 1, "oid": 7, **more})


@pytest.mark.parametrize(
    ("was", "now", "severity"),
    [
        (table(5000), {}, "critical"),
        (table(5000, since=START.timestamp()), {}, "warning"),
        (table(5000, partition=True), {}, "warning"),
        (table(500), {}, None),
        (table(5000), {"sales/main.bills": table(5000)}, None),
        (table(5000), {"sales/main.orders": table(0, file=2)}, "critical"),
        (table(5000), {"sales/main.orders": table(5000, file=2, oid=8)}, None),
        (table(5000), {"sales/main.orders": table(5000, updated=4000)}, "warning"),
    ],
)
def test_what_becomes_of_a_table_is_judged_by_its_size_and_its_age(was, now, severity):
    before = sample(tables={"sales/main.orders": was}, grants={"sales": frozenset()})
    after = sample(START + timedelta(minutes=1), tables=now, grants={"sales": frozenset()})
    assert kinds(after, before).get("mass_change") == severity


def test_a_setting_is_told_without_its_text_and_louder_where_it_guards_something():
    before = sample(settings={"work_mem": "4096", "archive_command": "0" * 32})
    after = sample(settings={"work_mem": "8192", "archive_command": "1" * 32})
    found = {one.subject: one for one in judge(after, before, {}, NOBODY, BOUNDS, frozenset())}
    assert {name: one.severity for name, one in found.items()} == {
        "work_mem": "warning",
        "archive_command": "critical",
    }
    assert "1" * 32 not in str(found["archive_command"])


def test_each_kind_of_finding_has_its_meaning_its_next_step_and_its_line_in_the_docs():
    page = (Path(datops_assets.__file__).parents[1] / "docs/databases.md").read_text()
    code = "".join(
        file.read_text() for file in Path(datops_assets.databases.detect.__file__).parent.glob("*.py")
    )
    used = set(re.findall(r'Finding\(\s*"(\w+)"', code)) | {one.kind for one in MEASURES.values()}
    assert used == set(KINDS)
    assert {kind for part in (*PARTS.values(), *EXTRAS.values()) for kind in part} <= used
    assert [kind for kind in KINDS if f"`{kind}`" not in page] == []


def open_findings(warehouse) -> dict[str, str]:
    return dict(warehouse.fetch("select kind, severity from datops.findings where resolved_at is null"))


def test_what_could_not_be_looked_at_stays_open_and_what_lasts_grows_worse(warehouse):
    flood, slot = Finding("statement_flood", "sales", "warning", "x"), Finding("slot", "erp", "critical", "x")
    enter(warehouse.conn, "here", [flood, slot])
    before = warehouse.fetch("select changed_at from datops.findings where kind = 'statement_flood'")
    enter(warehouse.conn, "here", [flood], unseen=["slot"])
    assert open_findings(warehouse) == {"statement_flood": "warning", "slot": "critical"}
    warehouse.conn.execute("update datops.findings set first_seen = now() - interval '2 hours'")
    enter(warehouse.conn, "here", [flood])
    assert open_findings(warehouse) == {"statement_flood": "critical"}
    assert warehouse.fetch("select changed_at from datops.findings where kind = 'statement_flood'") > before
    assert [one.kind for one in enter(warehouse.conn, "here", [], linger_s=0).resolved] == ["statement_flood"]


@pytest.fixture
def bystander(teams):
    """Opens connections as a role that may see little."""
    name = f"{teams.prefix}_bystander"
    teams.run(f"create role {name} login password 'of-a-bystander'")

    def connect(dbname: str | None = None) -> psycopg.Connection:
        return psycopg.connect(
            host=teams.server.host, port=teams.server.port, user=name, password="of-a-bystander",
            dbname=dbname or "postgres", autocommit=True,
        )  # fmt: skip

    return connect


def test_a_role_that_may_see_little_skips_and_says_what_it_lacks(warehouse, bystander, teams):
    skipped = look(bystander, warehouse.conn, "here", []).skipped
    assert {part.split(":")[0].split(" (")[0] for part in skipped} == {
        "sessions of others", "pg_hba.conf", "temporary files", "failed logins", "size of the log",
    }  # fmt: skip
    teams.run(
        sql.SQL("grant pg_monitor to {}").format(sql.Identifier(f"{teams.prefix}_bystander")).as_string()
    )
    skipped = look(bystander, warehouse.conn, "here", []).skipped
    assert {part.split(":")[0] for part in skipped} == {"pg_hba.conf", "failed logins"}


def test_what_is_usual_survives_a_restart(warehouse, teams):
    """A look keeps nothing in the process: each takes its memory from the warehouse."""
    sales = teams.declare()
    teams.apply(sales)
    with teams.log_in(sales, "bi"):
        for _ in range(3):
            with warehouse.connect() as catalogue:
                look(teams.connect, catalogue, "here", [sales])
    who = f"{sales.name}_bi"
    assert warehouse.fetch(
        "select samples, mean from datops.baselines where subject = %s and measure = 'connections'", who
    ) == [(3, 1.0)]
    assert warehouse.fetch("select value from datops.familiar where role = %s and trait = 'client'", who) == [
        ("127.0.0.0/24",)
    ]


def test_a_look_judges_each_team_by_its_own_thresholds(warehouse, teams):
    hasty, calm = teams.declare("hasty", thresholds={"in_transaction_warning_s": 0.1}), teams.declare("calm")
    with ExitStack() as stack:
        for one in (hasty, calm):
            teams.apply(one)
            stack.enter_context(closing(teams.log_in(one, "etl"))).execute("begin; select pg_sleep(0)")
        for _ in range(100):
            found = look(teams.connect, warehouse.conn, "here", [hasty, calm]).changes.new
            if found:
                break
            teams.run("select pg_sleep(0.05)")
    assert [(one.kind, one.team, one.severity) for one in found] == [
        ("idle_in_transaction", "hasty", "warning")
    ]
