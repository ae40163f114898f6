"""Weak points that no session shows: each is planted, found by its name, and gone once it is mended."""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest

from datops_assets.databases import FileStore, lint
from datops_assets.databases.lints import queries
from datops_assets_tests.databases.conftest import Teams

PLANTED = {
    "no_primary_key": ("create table main.a (x int)", "alter table main.a add primary key (x)"),
    "unindexed_foreign_key": (
        "create table main.a (x int primary key); create table main.b (y int primary key, x int references main.a)",
        "create index on main.b (x)",
    ),
    "duplicate_index": (
        "create table main.a (x int primary key, y int); create index on main.a (y); create index two on main.a (y)",
        "drop index main.two",
    ),
    "unused_index": (
        "create table main.a (x int primary key, y int); create index idle on main.a (y);"
        "insert into main.a select n, n from generate_series(1, 2000) n",
        "drop index main.idle",
    ),
    "invalid_index": (
        "create table main.a (x int primary key, y int); insert into main.a values (1, 1), (2, 1);"
        "create unique index concurrently broken on main.a (y)",
        "drop index main.broken",
    ),
    "definer_view": (
        "create table main.a (x int primary key); create view main.v as select * from main.a",
        "alter view main.v set (security_invoker = true)",
    ),
    "definer_function": (
        "create function main.f() returns int language sql security definer set search_path to main as 'select 1';"
        "grant execute on function main.f to public",
        "revoke execute on function main.f from public",
    ),
    "definer_search_path": (
        "create function main.f() returns int language sql security definer as 'select 1'",
        "alter function main.f set search_path to main",
    ),
    "policy_off": (
        "create table main.a (x int primary key); create policy own on main.a using (x = 1)",
        "alter table main.a enable row level security",
    ),
    "policy_missing": (
        "create table main.a (x int primary key); alter table main.a enable row level security",
        "create policy own on main.a using (x = 1)",
    ),
    "policy_for_all": (
        "create table main.a (x int primary key); alter table main.a enable row level security;"
        "create policy everybody on main.a for insert with check (true)",
        "drop policy everybody on main.a; create policy own on main.a using (x = 1)",
    ),
    "row_security_copied": (
        "create table main.a (x int primary key); alter table main.a enable row level security;"
        "create policy own on main.a using (x = 1); create materialized view main.m as select * from main.a",
        "drop materialized view main.m",
    ),
    "foreign_table": (
        "create foreign data wrapper nowhere; create server far foreign data wrapper nowhere;"
        "create foreign table main.a (x int) server far; grant select on main.a to {reader}",
        "revoke select on main.a from {reader}",
    ),
    "public_grant": (
        "create table main.a (x int primary key); grant select on main.a to public",
        "revoke select on main.a from public",
    ),
    "secret_column": (
        "create table main.a (x int primary key, api_key text); grant select on main.a to {reader}",
        "revoke select on main.a from {reader}; grant select (x) on main.a to {reader}",
    ),
    "extension_in_public": (
        "create extension vector schema public",
        "drop extension vector; create extension vector schema main",
    ),
    "outdated_extension": (
        "create extension vector schema main; update pg_extension set extversion = '0.1' where extname = 'vector'",
        "drop extension vector; create extension vector schema main",
    ),
    "constraint_not_valid": (
        "create table main.a (x int primary key); alter table main.a add constraint positive check (x > 0) not valid",
        "alter table main.a validate constraint positive",
    ),
    "sequence_near_end": (
        "create sequence main.s maxvalue 10; select setval('main.s', 9)",
        "alter sequence main.s maxvalue 1000000",
    ),
    "dead_rows": (
        "create table main.a (x int primary key) with (autovacuum_enabled = false);"
        "insert into main.a select generate_series(1, 30000); delete from main.a where x > 10000",
        "vacuum main.a",
    ),
    "open_database": ("create database {other}", "revoke connect on database {other} from public"),
}  # fmt: skip


@pytest.fixture(scope="module")
def planted(server, tmp_path_factory):
    """A team's database, of which the schema is made anew for each fault."""
    teams = Teams(server, FileStore(tmp_path_factory.mktemp("secrets")), "t_lint")
    teams.sweep()
    sales = teams.declare()
    teams.apply(sales)
    yield teams, sales
    teams.sweep()


def found(teams: Teams, sales) -> set[tuple[str, str]]:
    with teams.connect(sales.database) as conn:
        seen = {(one.name, one.where) for one in lint(conn, sales.schemas, unused_days=0)}
    # Of the other databases of the test server only the one of this test counts.
    return {one for one in seen if one[0] != "open_database" or one[1] == f"{teams.prefix}_other"}


@pytest.mark.parametrize("name", sorted(queries()))
def test_a_weak_point_is_found_by_its_name_and_gone_once_it_is_mended(planted, name):
    teams, sales = planted
    words = {"reader": sales.group("reader"), "other": f"{teams.prefix}_other"}
    plant, mend = (text.format(**words) for text in PLANTED[name])
    with teams.connect(sales.database) as conn:
        conn.execute("drop schema if exists main cascade; create schema main")
        conn.execute("drop extension if exists vector; drop foreign data wrapper if exists nowhere cascade")
        assert name not in {one for one, _ in found(teams, sales)}
        try:
            for statement in plant.split(";"):
                with suppress(psycopg.errors.UniqueViolation):  # how an index is left invalid
                    conn.execute(statement.encode())
        except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported):
            pytest.skip("this server lacks the extension vector")
        conn.execute("select pg_stat_force_next_flush()")
        assert name in {one for one, _ in found(teams, sales)}
        for statement in mend.split(";"):
            conn.execute(statement.encode())
        conn.execute("select pg_stat_force_next_flush()")
        assert name not in {one for one, _ in found(teams, sales)}


def test_what_somebody_thought_about_is_left_out(planted):
    teams, sales = planted
    with teams.connect(sales.database) as conn:
        conn.execute("drop schema if exists main cascade; create schema main; create table main.a (x int)")
        assert ("no_primary_key", "main.a") in found(teams, sales)
        conn.execute("comment on table main.a is 'a log. datops: no-lint'")
        assert ("no_primary_key", "main.a") not in found(teams, sales)


def test_each_lint_says_why_and_stands_in_the_docs():
    from pathlib import Path

    import datops_assets

    page = (Path(datops_assets.__file__).parents[1] / "docs/databases.md").read_text()
    for name, (why, _) in queries().items():
        assert why.endswith("."), name
        assert f"`{name}`" in page
    assert set(PLANTED) == set(queries())
