"""An administrator who is no superuser: what it can do, and what is said where it cannot."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from datops_assets.databases import FileStore, Login, read_plan, rotate
from datops_assets.errors import WarehouseError
from datops_assets_tests.cdc.servers import own_server
from datops_assets_tests.databases.conftest import Teams


@pytest.fixture(params=["", "set, inherit"], ids=["as PostgreSQL comes", "createrole_self_grant"])
def platform(teams, request):
    """The teams of a server whose administrator may make roles and databases, and no more."""
    name, password = f"{teams.prefix}_platform", "of-the-platform-team"
    teams.run(f"create role {name} login createrole createdb password '{password}'")
    teams.run(f"alter role {name} set createrole_self_grant to '{request.param}'")
    yield replace(teams, server=replace(teams.server, user=name, password=password))
    teams.sweep()


def test_it_makes_a_database_with_roles_and_passwords_and_nothing_is_left_to_do(platform):
    sales = platform.declare()
    done = platform.apply(sales)
    assert done.left.steps == ()
    assert any("temp_file_limit" in sentence for sentence in done.left.cannot)
    assert read_plan(platform.connect, sales, platform.store).steps == ()
    again = platform.apply(sales)
    assert again.done == (), "each login was let in by its kept password"
    with platform.log_in(sales, "maker") as maker, platform.log_in(sales, "etl") as etl:
        maker.execute("create table orders (id int primary key)")
        etl.execute("insert into orders values (1)")
    with platform.log_in(sales, "bi") as bi:
        assert bi.execute("select id from orders").fetchall() == [(1,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            bi.execute("insert into orders values (2)")
    assert read_plan(platform.connect, sales, platform.store).steps == ()


def test_drift_that_it_may_mend_is_mended(platform):
    sales = platform.declare()
    platform.apply(sales)
    platform.run(f'alter role "{sales.pair(sales.logins[1])[0]}" connection limit 50')
    with platform.log_in(sales, "maker") as maker:
        maker.execute("create table orders (id int); grant select on orders to public")
    assert len(read_plan(platform.connect, sales, platform.store).steps) == 2
    assert platform.apply(sales).left.steps == ()


def test_it_rotates_a_password_and_sees_and_mends_one_that_somebody_changed(platform):
    sales = platform.declare()
    platform.apply(sales)
    before = platform.secret(sales, "etl")
    rotate(platform.connect, sales, platform.store, "etl", datetime.now(UTC), timedelta(hours=1))
    after = platform.secret(sales, "etl")
    assert after.user != before.user
    platform.log_in(sales, "etl").close()
    platform.run(f"alter role \"{after.user}\" password 'somebody-elses'")
    [step] = read_plan(platform.connect, sales, platform.store).steps
    assert (step.password, step.why) == (after, "it has another password, or none of SCRAM")
    assert platform.apply(sales).left.steps == ()
    platform.log_in(sales, "etl").close()


def test_where_logging_in_tells_nothing_it_is_said_and_apply_sets_the_password_again(platform):
    """A login at its limit of connections is refused for that, whichever password it has."""
    sales = platform.declare(logins=(Login("etl", "writer", connections=1), Login("bi", "reader")))
    platform.apply(sales)
    with platform.log_in(sales, "etl"):
        found = read_plan(platform.connect, sales, platform.store)
        assert found.steps == ()
        assert [line for line in found.cannot if "the password of etl is still the kept one" in line]
        [step] = platform.apply(sales).done
        assert step.password == platform.secret(sales, "etl")
    assert "password" not in str(read_plan(platform.connect, sales, platform.store).cannot)


@pytest.mark.slow
def test_a_server_that_asks_for_no_password_tells_nothing_about_it(tmp_path):
    """`trust` in pg_hba.conf lets everybody in: that a login gets in says nothing."""
    with own_server() as server:
        admin = Teams(server.warehouse, FileStore(tmp_path), "t")
        admin.run("create role platform login createrole createdb")
        platform = replace(admin, server=replace(admin.server, user="platform"))
        sales = platform.declare(logins=(Login("etl", "writer"),))
        platform.apply(sales)
        found = read_plan(platform.connect, sales, platform.store)
        assert "the password of etl is still the kept one" in str(found.cannot)
        assert [step.password for step in platform.apply(sales).done] == [platform.secret(sales, "etl")]


def test_a_login_that_was_put_off_or_ended_is_seen_without_a_try(platform):
    sales = platform.declare(logins=(Login("etl", "writer"), Login("bi", "reader")))
    platform.apply(sales)
    platform.run(f"alter role \"{platform.secret(sales, 'etl').user}\" valid until '2001-01-01'")
    platform.run(f"alter role \"{platform.secret(sales, 'bi').user}\" valid until '2999-01-01'")
    found = read_plan(platform.connect, sales, platform.store)
    assert [step.statement.split(" ", 3)[3] for step in found.steps] == ["valid until 'infinity'"] * 2
    assert platform.apply(sales).left.steps == ()
    platform.log_in(sales, "etl").close()


def test_a_login_and_then_the_whole_database_go_with_what_they_own(platform):
    sales = platform.declare()
    platform.apply(sales)
    with platform.log_in(sales, "maker") as maker:
        maker.execute("reset role; create temporary table mine (id int)")
        fewer = replace(sales, logins=(replace(sales.logins[0], absent=True), *sales.logins[1:]))
        assert platform.apply(fewer).left.steps == ()
        with pytest.raises(psycopg.OperationalError):
            maker.execute("select 1")
    with platform.log_in(sales, "bi"):
        assert platform.apply(replace(fewer, absent=True)).left.steps == ()
    like = sales.name.replace("_", r"\_") + "\\_%"
    assert platform.run(f"select rolname from pg_roles where rolname like '{like}'") == []


def test_with_the_right_to_it_temporary_files_are_limited_too(teams, platform):
    teams.run(f"grant set on parameter temp_file_limit to {platform.server.user}")
    try:
        sales = platform.declare()
        assert not any("temp_file_limit" in one for one in platform.apply(sales).left.cannot)
        with platform.log_in(sales, "etl") as etl:
            assert etl.execute("show temp_file_limit").fetchone() == ("1GB",)
    finally:
        teams.run(f"revoke set on parameter temp_file_limit from {platform.server.user} cascade")


@pytest.mark.parametrize(
    ("power", "sentence"),
    [("nocreaterole", "may make no roles: alter role"), ("nocreatedb", "may make no databases")],
)
def test_what_it_lacks_is_said_before_anything_is_done(teams, platform, power, sentence):
    teams.run(f"alter role {platform.server.user} {power}")
    with pytest.raises(WarehouseError, match=sentence):
        platform.apply(platform.declare())


def test_a_database_of_somebody_else_is_refused_with_what_would_help(teams, platform):
    sales = teams.declare(logins=(Login("bi", "reader"),))
    teams.apply(sales)
    with pytest.raises(WarehouseError, match="does not own it: alter database"):
        read_plan(platform.connect, sales, teams.store)
