"""Detection on servers of other kinds: with pg_stat_statements, without it, and with a standby behind it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from datops_assets.databases import Login, TeamDatabase, Thresholds, look
from datops_assets.databases.findings import Finding, enter
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.cdc.servers import own_server, standby_of

QUICK = Thresholds(
    learning_s=0, learning_samples=5, linger_s=0, selected_rows=2000, selected_rows_critical=20_000,
    retained_bytes=24 * 1024**2,
)  # fmt: skip
SHOP = TeamDatabase(
    "shop", "shop", ("public",), (Login("bi", "reader"), Login("etl", "writer"), Login("dump", "reader", exports=True)),
    team="commerce",
)  # fmt: skip


@dataclass
class Watched:
    """A server, the warehouse that remembers what was seen of it, and how to work there."""

    server: Warehouse
    catalogue: psycopg.Connection[Any]

    def connect(self, dbname: str | None = None) -> psycopg.Connection[Any]:
        return (self.server.at(dbname) if dbname else self.server).connect()

    def run(self, *statements: str, role: str | None = None) -> None:
        with closing(self.connect("shop")) as conn:
            if role is not None:
                conn.execute(f"set session authorization {role}".encode())
            for one in statements:
                conn.execute(one.encode())

    def look(self):
        return look(self.connect, self.catalogue, "here", [SHOP], QUICK)

    def new(self, *kinds: str) -> dict[str, Finding]:
        """What is new of these kinds, by kind."""
        return {one.kind: one for one in self.look().changes.new if one.kind in kinds}


@pytest.fixture(scope="module")
def counting_server():
    """Debian's PostgreSQL 15, which comes with pg_stat_statements; the wheel's has none."""
    with own_server(15, shared_preload_libraries="pg_stat_statements") as server:
        with server.warehouse.connect() as conn:
            conn.execute("create database shop")
        yield server.warehouse


@pytest.fixture
def counting(counting_server, warehouse):
    watched = Watched(counting_server, warehouse.conn)
    roles = [role for login in SHOP.logins for role in SHOP.pair(login)]
    for role in roles:
        watched.run(f"create role {role} login; grant all on schema public to {role}")
    yield watched
    for role in roles:
        watched.run(f"drop owned by {role}; drop role {role}")
    watched.run("drop extension if exists pg_stat_statements")


def _rows(number: int, what: str = "x") -> str:
    return f"select {what} from generate_series(1, {number}) x"


def test_what_leaves_by_select_is_skipped_and_never_fine_without_the_extension(counting):
    enter(counting.catalogue, "here", [Finding("exfiltration_select", "shop_bi", "critical", "before")])
    seen = counting.look()
    assert "create extension pg_stat_statements" in str(seen.without)
    counting.look()
    assert counting.look().changes.resolved == (), "what nobody can see is not over"
    counting.run("create extension pg_stat_statements")
    seen = counting.look()
    assert seen.without == ()
    assert [one.kind for one in seen.changes.resolved] == ["exfiltration_select"]


def test_an_administrator_that_may_not_read_the_statements_of_others_skips_them(counting):
    counting.run("create extension pg_stat_statements", "create role platform login")
    try:
        as_platform = replace(counting, server=replace(counting.server, user="platform"))
        assert "pg_monitor" in str(as_platform.look().without)
        counting.run("grant pg_monitor to platform")
        assert as_platform.look().without == ()
    finally:
        counting.run("drop role platform")


def test_rows_that_a_login_was_given_by_select_are_told_and_what_it_brings_is_not(counting):
    counting.run("create extension pg_stat_statements", "create table if not exists t (id int)",
                 "grant all on t to shop_bi_a, shop_etl_a, shop_dump_a")  # fmt: skip
    counting.look()
    harmless = ["insert into t " + _rows(9000), "update t set id = id + 1", "delete from t where id > 100"]
    counting.run(*harmless, role="shop_etl_a")
    counting.run(_rows(9000), role="shop_dump_a")
    counting.run(_rows(1500), role="shop_bi_a")
    assert counting.new("exfiltration_select") == {}
    counting.run(
        "/* for the\n report */ " + _rows(1500, "x + 1"),
        "-- more\n(" + _rows(1500, "x + 2") + ")",
        role="shop_bi_a",
    )
    found = counting.new("exfiltration_select")["exfiltration_select"]
    assert (found.subject, found.severity, found.team) == ("shop_bi", "warning", "commerce")
    assert found.evidence == {"rows": 3000}


@pytest.mark.parametrize("statement", [
    "copy (select * from generate_series(1, 9000) x) to stdout",
    "begin; declare c cursor for select * from generate_series(1, 9000) x; fetch all from c",
    "with all_of_it as (select * from generate_series(1, 9000) x) select * from all_of_it",
], ids=["copy", "cursor", "with"])  # fmt: skip
def test_other_ways_out_are_counted_too(counting, statement):
    counting.run("create extension pg_stat_statements")
    counting.look()
    with closing(counting.connect("shop")) as conn:
        conn.execute("set session authorization shop_bi_b")
        if statement.startswith("copy"):
            with conn.cursor().copy(statement.encode()) as rows:
                assert sum(1 for _ in rows)
        else:
            conn.execute(statement.encode())
            conn.execute("commit")
    assert counting.new("exfiltration_select")["exfiltration_select"].subject == "shop_bi"


def test_once_it_is_learned_what_is_usual_counts_and_far_above_it_is_critical(counting):
    counting.run("create extension pg_stat_statements")
    for _ in range(8):
        counting.run(_rows(3000), role="shop_bi_a")
        counting.look()
    counting.run(_rows(3500), role="shop_bi_a")
    assert counting.new("exfiltration_select") == {}, "as much as always"
    counting.run(_rows(30_000), role="shop_bi_a")
    assert counting.new("exfiltration_select")["exfiltration_select"].severity == "critical"


def test_a_statement_of_a_new_shape_is_told_without_its_text(counting):
    counting.run("create extension pg_stat_statements")
    for number in range(3):
        counting.run(_rows(number + 1), role="shop_bi_a")
        counting.look()
    counting.run(_rows(5), role="shop_bi_a")
    assert counting.new("new_statement") == {}, "other numbers, the same shape"
    counting.run("select 'a secret cell' || md5(x::text) from generate_series(1, 2) x", role="shop_bi_a")
    found = counting.new("new_statement")["new_statement"]
    assert (found.subject, found.severity) == ("shop_bi", "info")
    assert "cell" not in str(found)
    with closing(counting.connect("shop")) as conn:
        [[text]] = conn.execute(
            "select query from pg_stat_statements where queryid = %s", (found.evidence["queryid"][0],)
        ).fetchall()
    assert "md5" in text, "which is what the next step asks for"


@pytest.mark.slow
def test_a_standby_that_applies_nothing_is_told_by_what_it_is_behind(warehouse):
    with own_server() as primary, standby_of(primary) as standby:
        watched = Watched(primary.warehouse, warehouse.conn)
        with watched.connect() as conn, standby.warehouse.connect() as other:
            conn.execute("create database shop")
            assert watched.new("replication_lag") == {}
            other.execute("select pg_wal_replay_pause()")
            conn.execute(
                "create table t as select x, repeat('x', 1000) as text from generate_series(1, 40000) x"
            )
            found = watched.new("replication_lag")["replication_lag"]
            assert found.subject == "walreceiver from 127.0.0.1"
            assert found.evidence["bytes"] > 24 * 1024**2
            other.execute("select pg_wal_replay_resume()")
            for _ in range(100):
                if [one for one in watched.look().changes.resolved if one.kind == "replication_lag"]:
                    break
                other.execute("select pg_sleep(0.1)")
            else:
                raise AssertionError("it has caught up, and is still told")
