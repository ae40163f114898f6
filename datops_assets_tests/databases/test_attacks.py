"""What a login of team A may not do, each tried for real: nothing of B, nothing of the server's."""

from __future__ import annotations

import psycopg
import pytest

from datops_assets.databases import FileStore, read_plan
from datops_assets_tests.databases.conftest import Teams

pytestmark = pytest.mark.db_attack

REFUSED = {
    # On the neighbour
    "connect to the neighbour's database": ("@b", "select 1"),
    "read the neighbour's database by dblink": ("", "create extension dblink"),
    "reach the neighbour by a foreign server": ("", "create extension postgres_fdw"),
    "end the neighbour's session": ("", "select pg_terminate_backend({pid_of_b})"),
    "cancel the neighbour's statement": ("", "select pg_cancel_backend({pid_of_b})"),
    "take on the neighbour's role": ("", "set role {b_owner}"),
    "join the neighbour's role": ("", "grant {b_owner} to current_user"),
    "set the neighbour's password": ("", "alter role {b_etl} password 'mine'"),
    "drop the neighbour's database": ("", "drop database {b}"),
    # On its own limits
    "take on the owner's role": ("", "set role {a_owner}"),
    "take on its own group's role": ("", "set role {a_group}"),
    "become somebody else for the session": ("", "set session authorization {admin}"),
    "raise its number of connections": ("", "alter role current_user connection limit 1000"),
    "put off the end of its password": ("", "alter role current_user valid until 'infinity'"),
    "become a superuser": ("", "alter role current_user superuser"),
    "go round row security": ("", "alter role current_user bypassrls"),
    "lift the limit of temporary files": ("", "set temp_file_limit to '-1'"),
    "lift the limit of temporary files for good": ("", "alter role current_user set temp_file_limit to '-1'"),
    "lift the database's limit": ("", "alter database {a} connection limit -1"),
    "set a parameter of the database": ("", "alter database {a} set statement_timeout to 0"),
    # In the database
    "make a table in public": ("", "create table public.mine (id int)"),
    "make a table in the team's schema": ("", "create table main.mine (id int)"),
    "make a schema": ("", "create schema mine"),
    "put a function before the team's": ("", "create function main.f() returns int language sql as 'select 1'"),
    "put an operator into pg_catalog": ("", "create table pg_catalog.mine (id int)"),
    "empty a table whole": ("", "truncate main.secrets"),
    "drop a table": ("", "drop table main.secrets"),
    "add a trigger": ("", "create trigger t before insert on main.secrets execute function now()"),
    "make a language": ("", "create extension plpython3u"),
    "watch all changes by an event trigger": ("", "create event trigger t on ddl_command_start execute function f()"),
    "make a publication": ("", "create publication p for all tables"),
    "make a subscription": ("", "create subscription s connection 'dbname=x' publication p"),
    # On the server
    "read password hashes": ("", "select rolpassword from pg_authid"),
    "read password hashes by the old view": ("", "select passwd from pg_shadow"),
    "make a role": ("", "create role mine"),
    "make a database": ("", "create database mine"),
    "run a program": ("", "copy (select 1) to program 'id'"),
    "read by a program": ("", "create temp table x (a text); copy x from program 'id'"),
    "write a file": ("", "copy (select 1) to '/tmp/datops-attack'"),
    "read a file": ("", "select pg_read_file('postgresql.conf')"),
    "list a folder": ("", "select * from pg_ls_dir('.')"),
    "read a file as a large object": ("", "select lo_import('/etc/passwd')"),
    "write a large object to a file": ("", "select lo_export(1, '/tmp/datops-attack')"),
    "change the server's configuration": ("", "alter system set work_mem to '1GB'"),
    "reload the configuration": ("", "select pg_reload_conf()"),
    "read pg_hba.conf": ("", "select * from pg_hba_file_rules"),
    "follow the log": ("", "select pg_create_logical_replication_slot('mine', 'pgoutput')"),
    "switch the log": ("", "select pg_switch_wal()"),
    "load a library": ("", "load '/tmp/evil.so'"),
    "preload a library": ("", "set local_preload_libraries to 'evil'; alter role current_user set session_preload_libraries to 'evil'"),  # noqa: E501
    "call C": ("", "create function evil() returns int language c as '/tmp/evil.so', 'evil'"),
    "force a checkpoint": ("", "checkpoint"),
    "forget the statistics": ("", "select pg_stat_reset()"),
}  # fmt: skip
OF_OWNERS = {
    "take on the owner's role", "put a function before the team's", "make a table in the team's schema", "drop a table",
    "empty a table whole", "add a trigger",
}  # fmt: skip
"""What an owner may do, and the other two may not."""


@pytest.fixture(scope="module")
def neighbours(server, tmp_path_factory):
    """Two teams with a table each, and a session of B's."""
    teams = Teams(server, FileStore(tmp_path_factory.mktemp("secrets")), "t_attack")
    teams.sweep()
    a, b = teams.declare("a"), teams.declare("b")
    for one in (a, b):
        teams.apply(one)
        with teams.log_in(one, "maker") as maker:
            maker.execute("create table secrets (id int)")
    with teams.log_in(b, "etl") as session:
        yield teams, a, b, session
    teams.sweep()


@pytest.mark.parametrize(
    ("what", "login"),
    [
        (what, login)
        for what in REFUSED
        for login in ("etl", "bi", "maker")
        if login != "maker" or what not in OF_OWNERS
    ],
)
def test_it_is_refused(neighbours, what, login):
    teams, a, b, session = neighbours
    where, statement = REFUSED[what]
    if where == "@b":
        with pytest.raises(psycopg.OperationalError, match="CONNECT privilege"):
            teams.log_in(a, login, b.database)
        return
    group = {"etl": "writer", "bi": "reader", "maker": "reader"}[login]
    names = {
        "a": a.database, "b": b.database, "a_owner": a.group("owner"), "b_owner": b.group("owner"),
        "a_group": a.group(group), "b_etl": teams.secret(b, "etl").user, "admin": teams.server.user,
    }  # fmt: skip
    quoted = {key: f'"{name}"' for key, name in names.items()}
    with teams.log_in(a, login) as conn, pytest.raises(psycopg.Error) as refused:
        conn.execute("reset role")
        conn.execute(statement.format(pid_of_b=session.info.backend_pid, **quoted).encode())
    assert refused.value.sqlstate in ("42501", "58P01", "0A000", "42704"), refused.value
    if refused.value.sqlstate in ("58P01", "0A000", "42704"):  # this server lacks what the attack needs
        assert "extension" in str(refused.value) or "could not" in str(refused.value)


def test_what_a_session_can_lift_itself_is_seen_as_drift(neighbours):
    """PostgreSQL lets a role set its own timeouts; the plan puts them back, the watchdog holds them."""
    teams, a, _, _ = neighbours
    with teams.log_in(a, "etl") as conn:
        conn.execute("set statement_timeout to 0")
        user = teams.secret(a, "etl").user
        conn.execute(f'alter role "{user}" in database "{a.database}" set statement_timeout to 0'.encode())
        conn.execute("set password_encryption to 'md5'")
        conn.execute("alter role current_user password 'easy'")
    assert len(read_plan(teams.connect, a, teams.store).steps) == 2
    assert teams.apply(a).left.steps == ()


def test_what_a_login_passes_on_of_its_rights_arrives_nowhere(neighbours):
    """PostgreSQL answers with a warning, not with an error."""
    teams, a, b, _ = neighbours
    for login in ("etl", "bi"):
        with teams.log_in(a, login) as conn:
            conn.execute(f'grant select on main.secrets to public, "{b.group("reader")}"'.encode())
    assert read_plan(teams.connect, a, teams.store).steps == ()


@pytest.mark.parametrize(
    "statement",
    [
        "select * from generate_series(1, 30000000) x order by md5(x::text)",
        "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r",
        "select pg_sleep(10)",
    ],
    ids=["a bomb of temporary files", "a recursion without end", "a statement that sleeps"],
)
def test_a_bomb_ends_at_a_limit(teams, statement):
    from datops_assets.databases import Limits, Login

    small = Login("etl", "writer", limits=Limits(statement_s=2, temp_file_mb=5))
    sales = teams.declare(logins=(small,))
    teams.apply(sales)
    with teams.log_in(sales, "etl") as conn, pytest.raises(psycopg.Error) as ended:
        conn.execute("set work_mem to '64kB'")
        conn.execute(statement.encode())
    assert ended.value.sqlstate in ("53400", "57014")


def test_a_storm_of_connections_leaves_room_for_the_others(neighbours):
    teams, a, b, _ = neighbours
    storm = []
    with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
        for _ in range(100):
            storm.append(teams.log_in(a, "bi"))
    assert len(storm) == 3
    with teams.log_in(b, "bi") as conn:
        assert conn.execute("select 1").fetchone() == (1,)
    for conn in storm:
        conn.close()
