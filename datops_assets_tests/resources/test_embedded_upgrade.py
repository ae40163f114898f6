"""From PostgreSQL 16 to 18 and back to the old data, on the wheel's own programs."""

import os
import signal

import psycopg
import pytest

from datops_assets.errors import WarehouseError
from datops_assets.resources.embedded import EmbeddedServer, upgrade_server
from datops_assets.resources.embedded.cluster import finish_swap
from datops_assets.resources.embedded.programs import find_programs, wheel_folders

ROWS = [(1, "first"), (2, "zwei"), (3, None)]


@pytest.fixture
def programs16():
    return find_programs(major=16).bin


@pytest.fixture
def old(tmp_path, programs16):
    """A server of PostgreSQL 16 with rows in it, as an earlier datops left it."""
    server = EmbeddedServer(tmp_path / "postgres", pg_bin=programs16, durable=False)
    with connect(server) as conn:
        conn.execute("create table kept (id int primary key, t text)")
        conn.cursor().executemany("insert into kept values (%s, %s)", ROWS)
    yield server
    server.stop()


@pytest.fixture
def new(old):
    """The same folder, met by this datops, whose programs are PostgreSQL 18."""
    server = EmbeddedServer(old.folder, durable=False)
    yield server
    server.stop()


def connect(server):
    found = server.start()
    login = {"host": found.host, "port": found.port, "user": found.user, "password": found.password}
    return psycopg.connect(**login, dbname="datops", autocommit=True)


def rows(server):
    with connect(server) as conn:
        return conn.execute("select id, t from kept order by id").fetchall()


def test_the_wheel_carries_both_versions():
    assert sorted(find_programs(folder).major for folder in wheel_folders()) == [16, 18]
    assert find_programs().major == 18


def test_data_of_another_version_is_said_with_the_command_that_helps(old, new):
    old.stop()
    with pytest.raises(
        WarehouseError, match=r"written by PostgreSQL 16.* of 18; run: datops warehouse upgrade"
    ):
        new.start()


def test_upgrade_keeps_every_row_the_password_and_the_old_data_and_is_done_once(old, new):
    password = old.start().password
    kept = upgrade_server(new)
    assert new.data_major() == 18
    assert rows(new) == ROWS
    assert new.start().password == password
    assert (kept / "PG_VERSION").read_text().strip() == "16"
    assert upgrade_server(new) is None


def test_upgrade_of_a_crashed_server_recovers_it_first(old, new):
    with connect(old) as conn:
        conn.execute("insert into kept values (4, 'just before')")
        os.kill(old.status().pid, signal.SIGKILL)
    upgrade_server(new)
    assert rows(new) == [*ROWS, (4, "just before")]


def test_an_upgrade_killed_between_its_last_two_steps_is_finished_by_the_next_start(old, new):
    kept = upgrade_server(new)
    new.stop()
    new.data.rename(new.data.with_name("data.upgraded"))
    assert kept.is_dir()
    assert rows(new) == ROWS


def test_nothing_is_finished_while_the_data_is_in_place(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data.upgraded").mkdir()
    finish_swap(tmp_path / "data")
    assert (tmp_path / "data.upgraded").is_dir()


def test_an_upgrade_that_fails_leaves_the_old_data_usable(old, new):
    with connect(old) as conn:  # pg_upgrade refuses a user table of a system's own type
        conn.execute("create table refused (aclitem aclitem, r regproc[])")
        conn.execute("insert into refused values (null, array['now'::regproc])")
    with pytest.raises(WarehouseError, match=r"pg_upgrade failed: .*the data is as it was"):
        upgrade_server(new)
    new.stop()
    assert rows(old) == ROWS


def test_older_programs_do_not_touch_newer_data(tmp_path, programs16):
    server = EmbeddedServer(tmp_path / "postgres", durable=False)
    server.start()
    server.stop()
    older = EmbeddedServer(tmp_path / "postgres", pg_bin=programs16)
    for attempt in (older.start, lambda: upgrade_server(older)):
        with pytest.raises(WarehouseError, match=r"written by PostgreSQL 18.* set DATOPS_PG_BIN to newer"):
            attempt()
