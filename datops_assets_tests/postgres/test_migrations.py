"""Migrations: each applied once, in order, or not at all."""

import os
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

from datops_assets.errors import WarehouseError
from datops_assets.postgres.migrations import Migration, pending, read_migrations, upgrade


@pytest.fixture
def empty(server):
    """A database without anything in it, and a way to open connections."""
    dbname = f"datops_test_empty_{os.getpid()}"
    name = sql.Identifier(dbname)
    with server.connect() as conn:
        conn.execute(sql.SQL("drop database if exists {} with (force)").format(name))
        conn.execute(sql.SQL("create database {}").format(name))
        yield server.at(dbname)
        conn.execute(sql.SQL("drop database {} with (force)").format(name))


FIRST = Migration("20260101T0000__first", "create table datops.one (id int)")
SECOND = Migration(
    "20260102T0000__second", "create table datops.two (id int); insert into datops.two values (1)"
)


def names(conn):
    return [name for (name,) in conn.execute("select name from datops.migrations order by name")]


def test_our_own_files_are_named_by_time_and_apply_to_an_empty_database(empty):
    with empty.connect() as conn:
        expected = [migration.name for migration in read_migrations()]
        assert pending(conn) == expected
        assert upgrade(conn) == expected
        assert upgrade(conn) == pending(conn) == []


def test_only_what_is_missing_is_applied(empty):
    with empty.connect() as conn:
        assert upgrade(conn, [FIRST]) == [FIRST.name]
        assert upgrade(conn, [FIRST, SECOND]) == [SECOND.name]
        assert names(conn) == [FIRST.name, SECOND.name]


def test_a_migration_that_fails_takes_all_the_others_back(empty):
    broken = Migration("20260103T0000__broken", "create table datops.three (id int); select 1 / 0")
    with empty.connect() as conn:
        with pytest.raises(psycopg.errors.DivisionByZero):
            upgrade(conn, [FIRST, SECOND, broken])
        assert conn.execute("select to_regnamespace('datops')").fetchone() == (None,)
        assert upgrade(conn, [FIRST, SECOND]) == [FIRST.name, SECOND.name]


def test_processes_that_upgrade_at_once_apply_each_file_once(empty):
    def run(_):
        with empty.connect() as conn:
            return upgrade(conn)

    with ThreadPoolExecutor(4) as threads:
        applied = [name for names in threads.map(run, range(4)) for name in names]
    assert applied == [migration.name for migration in read_migrations()]


def test_a_file_that_changed_after_it_was_applied_is_refused(empty):
    changed = Migration(FIRST.name, FIRST.text + " -- better")
    with empty.connect() as conn:
        upgrade(conn, [FIRST])
        with pytest.raises(
            WarehouseError, match=r"migration 20260101T0000__first has changed .* restore the file"
        ):
            upgrade(conn, [changed, SECOND])
        assert names(conn) == [FIRST.name]


def test_line_ends_are_no_change(empty):
    lines = Migration(FIRST.name, "create table\ndatops.one (id int)\n")
    with empty.connect() as conn:
        upgrade(conn, [lines])
        assert upgrade(conn, [Migration(FIRST.name, lines.text.replace("\n", "\r\n"))]) == []


def test_a_warehouse_of_a_newer_datops_is_refused(empty):
    with empty.connect() as conn:
        upgrade(conn, [FIRST, SECOND])
        with pytest.raises(WarehouseError, match=r"upgraded by a newer datops \(20260102T0000__second\)"):
            upgrade(conn, [FIRST])


def test_a_file_with_another_kind_of_name_is_refused(tmp_path):
    (tmp_path / "2_quick_fix.sql").write_text("select 1")
    with pytest.raises(WarehouseError, match=r"2_quick_fix.sql is not named like"):
        read_migrations(tmp_path)


def as_reader(warehouse, query):
    with warehouse.connect(autocommit=False) as conn:
        conn.execute("set role datops_reader")
        return conn.execute(query).fetchall()


def test_readers_read_silver_and_gold_also_after_a_swap(warehouse):
    for schema in ("silver", "gold"):
        warehouse.conn.execute(f"create table {schema}.shop_orders as select 1 as id")
        assert as_reader(warehouse, f"select id from {schema}.shop_orders") == [(1,)]
        with warehouse.conn.transaction():
            warehouse.conn.execute(f"create table {schema}.fresh as select 2 as id")
            warehouse.conn.execute(f"drop table {schema}.shop_orders")
            warehouse.conn.execute(f"alter table {schema}.fresh rename to shop_orders")
        assert as_reader(warehouse, f"select id from {schema}.shop_orders") == [(2,)]


@pytest.mark.parametrize("schema", ["bronze", "quarantine", "datops"])
def test_readers_see_nothing_raw_and_nothing_quarantined(warehouse, schema):
    warehouse.conn.execute(f"create table {schema}.shop_orders as select 1 as id")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_reader(warehouse, f"select id from {schema}.shop_orders")


def test_readers_change_nothing(warehouse):
    warehouse.conn.execute("create table silver.shop_orders as select 1 as id")
    for statement in ("delete from silver.shop_orders", "create table silver.mine (id int)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_reader(warehouse, statement)


def test_without_the_right_to_make_roles_the_rest_is_still_done(server, empty, caplog):
    if not server.embedded:
        pytest.skip("roles belong to the whole server, which is not ours")
    with empty.connect() as conn:
        conn.execute("create role plain_owner login password 'x'")
        conn.execute(f"grant create on database {empty.dbname} to plain_owner")
    with empty.connect(autocommit=True) as conn:
        conn.execute("alter role datops_reader rename to datops_reader_aside")
        try:
            conn.execute("set role plain_owner")
            assert upgrade(conn) == [migration.name for migration in read_migrations()]
            assert "role datops_reader is missing and we may not create it" in caplog.text
        finally:
            conn.execute("reset role")
            conn.execute("alter role datops_reader_aside rename to datops_reader")
            conn.execute("drop owned by plain_owner cascade; drop role plain_owner")


def versions(conn):
    return conn.execute(
        "select oid, xmin::text from pg_class where relnamespace = 'silver'::regnamespace"
    ).fetchall()


def test_with_nothing_to_apply_nothing_is_written_and_nobody_waited_for(warehouse):
    """Every step, command and sensor tick opens the catalogue."""
    warehouse.conn.execute(
        "create table silver.shop_orders (id int); revoke all on silver.shop_orders from datops_reader"
    )
    before = versions(warehouse.conn)
    with warehouse.connect(autocommit=False) as other, warehouse.connect() as conn:
        other.execute("lock table silver.shop_orders in access exclusive mode")
        other.execute("select pg_advisory_xact_lock(hashtextextended('datops.migrations', 0))")
        conn.execute("set lock_timeout = '1s'; set default_transaction_read_only = on")
        assert upgrade(conn) == []
    assert versions(warehouse.conn) == before


def test_a_table_of_another_owner_in_gold_stops_nobody(server, empty):
    if not server.embedded:
        pytest.skip("roles belong to the whole server, which is not ours")
    with empty.connect() as conn:
        conn.execute("create role plain_owner; create role bi")
        conn.execute(f"grant create on database {empty.dbname} to plain_owner")
    with empty.connect() as conn:
        try:
            conn.execute("set role plain_owner")
            upgrade(conn)
            conn.execute("create table gold.ours (x int); revoke all on gold.ours from datops_reader")
            conn.execute("grant create, usage on schema gold to bi; reset role; set role bi")
            conn.execute("create table gold.theirs (x int); reset role; set role plain_owner")
            assert upgrade(conn, grant=True) == []
            conn.execute("reset role")
            readable = "select has_table_privilege('datops_reader', %s, 'select')"
            assert conn.execute(readable, ("gold.ours",)).fetchone() == (True,)
            assert conn.execute(readable, ("gold.theirs",)).fetchone() == (False,)
        finally:
            conn.execute("reset role")
            conn.execute("drop owned by plain_owner, bi cascade; drop role plain_owner, bi")
