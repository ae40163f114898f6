"""A team's database: what is made of a declaration, and that doing it twice does nothing."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from datops_assets.databases import (
    Limits,
    Login,
    StepRefusedError,
    TeamDatabase,
    read_actual,
    read_plan,
    rotate,
)
from datops_assets.databases.scram import is_verifier_of, make_verifier
from datops_assets.errors import DeclarationError
from datops_assets_tests.databases.conftest import Teams


def test_nothing_becomes_a_database_with_roles_and_a_second_time_nothing_is_left(teams):
    sales = teams.declare()
    done = teams.apply(sales)
    assert done.done[0].statement == f'create database "{sales.database}" template template0'
    assert done.left.steps == ()
    assert teams.apply(sales).done == ()


def test_a_plan_changes_nothing_and_makes_no_password(teams):
    sales = teams.declare()
    assert read_plan(teams.connect, sales, teams.store).steps
    assert teams.store.read(sales.name, "etl") is None
    assert teams.run(f"select 1 from pg_database where datname = '{sales.database}'") == []


def test_the_maker_makes_tables_the_writer_fills_them_and_the_reader_reads(teams):
    sales = teams.declare()
    teams.apply(sales)
    with teams.log_in(sales, "maker") as maker:
        maker.execute("create table orders (id bigint generated always as identity primary key, what text)")
    with teams.log_in(sales, "etl") as writer:
        writer.execute("insert into orders (what) values ('a pen')")
    with teams.log_in(sales, "bi") as reader:
        assert reader.execute("select * from orders").fetchall() == [(1, "a pen")]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("delete from orders")
    owners = teams.run("select tableowner from pg_tables where tablename = 'orders'", sales.database)
    assert owners == [(sales.group("owner"),)]
    assert teams.apply(sales).done == ()


def test_sessions_begin_with_the_declared_limits(teams):
    sales = teams.declare()
    teams.apply(sales)
    with teams.log_in(sales, "etl") as writer:
        found = {
            name: writer.execute("select current_setting(%s)", (name,)).fetchone()[0]
            for name in (
                "statement_timeout",
                "lock_timeout",
                "temp_file_limit",
                "search_path",
                "password_encryption",
            )
        }
    assert found == {
        "statement_timeout": "20s", "lock_timeout": "30s", "temp_file_limit": "1GB", "search_path": "main",
        "password_encryption": "scram-sha-256",
    }  # fmt: skip


def test_a_declared_limit_goes_before_those_of_the_role_the_database_and_the_server(teams):
    """PostgreSQL: role in database, role, database, server. A limit that is none is one that was declared."""
    lax = Login("lax", "reader", limits=Limits(statement_s=None, temp_file_mb=None))
    sales = teams.declare(logins=(Login("etl", "writer", limits=Limits(statement_s=20)), lax))
    teams.apply(sales)
    etl, other = (sales.pair(one)[0] for one in sales.logins)
    teams.run(f"alter database \"{sales.database}\" set statement_timeout to '7s'")
    teams.run(f"alter role \"{etl}\" set statement_timeout to '8s'")
    teams.run(f"alter role \"{other}\" set statement_timeout to '9s'")

    def begins_with(login: str) -> str:
        with teams.log_in(sales, login) as conn:
            return conn.execute("show statement_timeout").fetchone()[0]

    assert (begins_with("etl"), begins_with("lax")) == ("20s", "0")
    teams.run(f'alter role "{etl}" in database "{sales.database}" reset statement_timeout')
    assert begins_with("etl") == "8s", "the role's own is next, and that is drift"
    said = [step.statement for step in read_plan(teams.connect, sales, teams.store).steps]
    assert [one.split("\" ", 1)[1] for one in said] == [
        "reset all", f"in database \"{sales.database}\" set \"statement_timeout\" to '20s'", "reset all",
    ]  # fmt: skip
    assert teams.apply(sales).left.steps == ()
    assert (begins_with("etl"), begins_with("lax")) == ("20s", "0")


def test_no_password_is_in_a_statement_a_result_or_a_log_of_the_server(teams, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    sales = teams.declare()
    done = teams.apply(sales)
    password = teams.secret(sales, "etl").password
    [[verifier]] = teams.run(
        f"select rolpassword from pg_authid where rolname = '{sales.pair(sales.logins[1])[0]}'"
    )
    assert is_verifier_of(verifier, password)
    said = f"{done} {teams.secret(sales, 'etl')} {read_actual(teams.connect, sales)} {caplog.text} {capfd.readouterr()}"
    assert password not in said
    assert verifier not in said


def test_our_verifier_is_the_one_that_libpq_would_make(teams):
    with teams.connect() as conn:
        theirs = conn.pgconn.encrypt_password(b"secret", b"somebody", b"scram-sha-256").decode()
    assert is_verifier_of(theirs, "secret")
    assert not is_verifier_of(theirs, "Secret")
    assert not is_verifier_of("md5" + "0" * 32, "secret")
    assert make_verifier("secret") != make_verifier("secret")


def test_a_password_file_is_its_owners_alone_and_an_open_one_is_refused(teams):
    sales = teams.declare()
    teams.apply(sales)
    file = teams.store._file(sales.name, "etl")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o644)
    with pytest.raises(Exception, match="can be read by others"):
        read_plan(teams.connect, sales, teams.store)


def test_a_rotation_lets_both_passwords_in_until_the_grace_is_over(teams):
    sales = teams.declare()
    teams.apply(sales)
    before = teams.secret(sales, "etl")
    with teams.log_in(sales, "etl") as at_work:
        after = rotate(teams.connect, sales, teams.store, "etl", _now(teams))
        assert at_work.execute("select 1").fetchone() == (1,)
    assert (after.user, after.password) != (before.user, before.password)
    for secret in (before, after):
        with psycopg.connect(
            host=teams.server.host, port=teams.server.port, user=secret.user, password=secret.password,
            dbname=sales.database,
        ) as conn:  # fmt: skip
            assert conn.execute("select 1").fetchone() == (1,)
    assert read_plan(teams.connect, sales, teams.store).steps == ()
    with pytest.raises(DeclarationError, match="--hurry"):
        rotate(teams.connect, sales, teams.store, "etl", _now(teams))
    rotate(teams.connect, sales, teams.store, "etl", _now(teams), timedelta(0), hurry=True)
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(
            host=teams.server.host, port=teams.server.port, user=after.user, password=after.password,
            dbname=sales.database,
        )  # fmt: skip
    with teams.log_in(sales, "etl") as conn:
        assert conn.execute("select current_user").fetchone() == (before.user,)


def test_a_rotation_that_was_killed_before_the_password_was_kept_is_mended(teams, monkeypatch):
    sales = teams.declare()
    teams.apply(sales)

    class Killed(type(teams.store)):
        def write(self, *_: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rotate(teams.connect, sales, Killed(teams.store.folder), "etl", _now(teams))
    with teams.log_in(sales, "etl") as conn:
        assert conn.execute("select 1").fetchone() == (1,)
    assert teams.apply(sales).left.steps == ()


def test_a_lost_password_file_is_made_anew(teams):
    sales = teams.declare()
    teams.apply(sales)
    teams.store.forget(sales.name, "bi")
    assert [step.statement.split()[0:2] for step in teams.apply(sales).done] == [["alter", "role"]]
    with teams.log_in(sales, "bi") as conn:
        assert conn.execute("select 1").fetchone() == (1,)


def test_an_expired_login_is_not_let_in(teams):
    sales = teams.declare(logins=(Login("guest", "reader", expires=_now(teams) - timedelta(seconds=1)),))
    teams.apply(sales)
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        teams.log_in(sales, "guest")


def test_connections_of_a_login_and_of_a_database_end_where_declared(teams):
    sales = teams.declare(logins=(Login("bi", "reader", connections=1),))
    teams.apply(sales)
    with teams.log_in(sales, "bi"), pytest.raises(psycopg.OperationalError, match="too many connections"):
        teams.log_in(sales, "bi")


def test_what_nobody_declares_any_more_stays_until_somebody_says_the_word(teams):
    sales = teams.declare()
    teams.apply(sales)
    fewer = replace(sales, logins=sales.logins[:2])
    found = read_plan(teams.connect, fewer, teams.store)
    assert found.steps == ()
    assert [line.split()[1] for line in found.kept] == list(sales.pair(sales.logins[2]))
    teams.apply(fewer, allow_drop=[sales.pair(sales.logins[2])[0]])
    assert len(read_plan(teams.connect, fewer, teams.store).kept) == 1
    absent = replace(sales, logins=(*sales.logins[:2], replace(sales.logins[2], absent=True)))
    teams.apply(absent)
    assert teams.store.read(sales.name, "bi") is None
    assert read_plan(teams.connect, absent, teams.store) == read_plan(teams.connect, absent, teams.store)
    assert read_plan(teams.connect, fewer, teams.store).kept == ()


def test_a_database_called_absent_goes_with_its_roles_and_passwords(teams):
    sales = teams.declare()
    teams.apply(sales)
    done = teams.apply(replace(sales, absent=True))
    assert done.left.steps == ()
    assert teams.run(f"select 1 from pg_roles where rolname like '{sales.name}%'") == []
    assert teams.store.read(sales.name, "etl") is None


def test_a_name_that_somebody_else_has_is_refused_until_it_is_adopted(teams):
    sales = teams.declare()
    teams.run(f'create role "{sales.name}_owner" superuser')
    with pytest.raises(DeclarationError, match=f"--adopt {sales.name}_owner"):
        teams.apply(sales)
    assert teams.apply(sales, adopt=[f"{sales.name}_owner"]).left.steps == ()
    assert teams.run(f"select rolsuper from pg_roles where rolname = '{sales.name}_owner'") == [(False,)]


def test_schemas_in_a_database_of_many_leave_the_others_alone(teams, warehouse):
    shared = warehouse.warehouse.dbname
    sales = teams.declare(database=shared, schemas=(f"{teams.prefix}_s",), whole=False)
    before = warehouse.fetch(
        "select datconnlimit, shobj_description(oid, 'pg_database') from pg_database where datname = %s",
        shared,
    )
    assert teams.apply(sales).left.steps == ()
    assert teams.apply(sales).done == ()
    with teams.log_in(sales, "maker") as maker:
        maker.execute("create table mine (id int)")
    with teams.log_in(sales, "bi") as reader:
        assert reader.execute("select * from mine").fetchall() == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("select * from datops.loads")
    after = warehouse.fetch(
        "select datconnlimit, shobj_description(oid, 'pg_database') from pg_database where datname = %s",
        shared,
    )
    assert after == before
    assert teams.apply(replace(sales, absent=True)).left.steps == ()
    assert warehouse.fetch("select to_regnamespace(%s)", f"{teams.prefix}_s") == [(None,)]


def test_a_statement_that_the_server_refuses_undoes_all_others(teams):
    sales = teams.declare(logins=(Login("bi", "reader", limits=Limits(statement_s=10**9)),))
    with pytest.raises(StepRefusedError, match="statement_timeout"):
        teams.apply(sales)
    assert teams.run(f"select 1 from pg_roles where rolname like '{sales.name}%'") == []


# From any state


# ruff: noqa: E501
MESS = {
    "a role that may all": "alter role {owner} superuser createdb createrole replication bypassrls login connection limit 3",
    "a reader who is in a group of the server": "grant pg_read_all_data to {reader} with admin true",
    "a stranger among the writers": "grant {writer} to {stranger} with admin true",
    "the administrator among the owners": "grant {owner} to current_user with admin true",
    "a login that may take on its role": "grant {writer} to {etl} with set true",
    "a writer among the owners": "grant {owner} to {etl}",
    "a role that stands on a login": "grant {etl} to {stranger}",
    "a password of somebody else": "alter role {etl} password 'hello'",
    "no password": "alter role {bi} password null",
    "a password that ended": "alter role {etl} valid until '2001-01-01'",
    "a password that was never good": "alter role {etl} valid until '-infinity'",
    "a login that may not log in": "alter role {etl} nologin noinherit",
    "no limit of its own": "alter role {etl} in database {db} set statement_timeout to 0",
    "a setting for all databases": "alter role {etl} set search_path to public, main",
    "a setting of another kind": "alter role {etl} in database {db} set work_mem to '1GB'",
    "a setting of nobody's": "alter role {etl} in database {db} set my.own to 'x'",
    "a setting that was taken away": "alter role {bi} in database {db} reset all",
    "another owner of the database": "alter database {db} owner to {stranger}",
    "no limit of the database": "alter database {db} connection limit -1",
    "a database for all": "grant all on database {db} to public",
    "a database without its writer": "revoke connect on database {db} from {writer}",
    "public for all": "grant all on schema public to public",
    "another owner of the schema": "alter schema main owner to {stranger}",
    "a schema for all": "grant all on schema main to public with grant option".replace(" with grant option", ""),
    "a schema passed on": "grant usage on schema main to {reader} with grant option",
    "a table for all": "grant all on t to public",
    "a table of somebody else": "alter table t owner to {stranger}",
    "a table of the reader": "alter table t owner to {reader}",
    "a reader who may pass on": "grant select on t to {reader} with grant option; set role {reader}; grant select on t to {stranger}, {writer}; reset role",
    "a stranger who passed on": "grant usage on schema main to {stranger}; grant select, insert on t to {stranger} with grant option; set role {stranger}; grant insert on t to {writer}; reset role",
    "a reader who writes": "grant insert, truncate on t to {reader}",
    "a writer who may not write": "revoke all on t from {writer}",
    "a column for a stranger": "grant select (id), update (id) on t to {stranger}, {reader}",
    "a sequence of somebody else": "alter sequence q owner to {stranger}; grant all on q to public",
    "a column's sequence": "grant all on t_id_seq to public",
    "a routine of somebody else": "alter function f(int, text) owner to {stranger}; grant execute on function f to public",
    "a type of somebody else": "alter type mood owner to {stranger}; alter domain positive owner to {bi}",
    "a view of somebody else": "alter view v owner to {etl}; grant all on v to {stranger}",
    "defaults of the owner for all": "alter default privileges for role {owner} grant all on tables to public, {stranger}",
    "defaults in the schema": "alter default privileges for role {owner} in schema main grant all on tables to {stranger}, {reader} with grant option",
    "defaults that run": "alter default privileges for role {owner} grant execute on routines to public",
    "defaults of types": "alter default privileges for role {owner} grant usage on types to {stranger}",
    "defaults that are gone": "alter default privileges for role {owner} in schema main revoke all on sequences from {writer}",
    "a table more": 'create table "Odd "" name" (id int); create procedure p() language sql as $$ select 1 $$',
    "no comment": "comment on role {etl} is null; comment on schema main is null; comment on database {db} is 'mine'",
}  # fmt: skip
OBJECTS = """
create table t (id serial primary key); create sequence q; create view v as select * from t;
create function f(a int, b text) returns int language sql as $$ select 1 $$;
create type mood as enum ('good'); create domain positive as int check (value > 0);
create materialized view m as select 1 as one;
"""


@pytest.fixture(scope="module")
def messy(server, tmp_path_factory):
    """One server for all examples: each makes its mess of what the one before has put in order."""
    from datops_assets.databases import FileStore

    teams = Teams(server, FileStore(tmp_path_factory.mktemp("secrets")), "t_messy")
    teams.sweep()
    sales = teams.declare()
    teams.apply(sales)
    teams.run(f"create role {teams.prefix}_stranger")
    with teams.log_in(sales, "maker") as maker:
        maker.execute(OBJECTS.encode())
    yield teams, sales
    teams.sweep()


def make_mess(teams: Teams, sales: TeamDatabase, statement: str) -> None:
    """Run one of MESS as administrator, in the schema."""
    names = {
        "db": sales.database, "stranger": f"{teams.prefix}_stranger", "etl": sales.pair(sales.logins[1])[0],
        "bi": sales.pair(sales.logins[2])[0], **{role.rpartition("_")[2]: role for role in sales.groups},
    }  # fmt: skip
    quoted = {key: sql.Identifier(name).as_string(None) for key, name in names.items()}
    with teams.connect(sales.database) as conn:
        conn.execute("set search_path to main")
        conn.execute(statement.format(**quoted).encode())


@pytest.mark.parametrize("what", MESS)
def test_drift_is_seen_and_mended(messy, what):
    teams, sales = messy
    make_mess(teams, sales, MESS[what])
    adopt = [*sales.roles(), sales.database, *sales.schemas]
    assert read_plan(teams.connect, sales, teams.store, adopt=adopt).steps
    done = teams.apply(sales, adopt=adopt)
    assert done.done
    assert [step.statement for step in done.left.steps] == []


@settings(max_examples=15, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(what=st.lists(st.sampled_from(sorted(MESS)), min_size=4, max_size=14))
def test_whatever_is_there_a_plan_that_was_applied_leaves_no_steps(messy, what):
    teams, sales = messy
    for one in what:
        try:
            make_mess(teams, sales, MESS[one])
        except psycopg.Error:  # two that exclude each other: the second one has no effect
            pass
    done = teams.apply(sales, adopt=[*sales.roles(), sales.database, *sales.schemas])
    assert [step.statement for step in done.left.steps] == []


def _now(teams: Teams):
    """The server's clock: it decides whether a password has ended."""
    [[now]] = teams.run("select now()")
    return now
