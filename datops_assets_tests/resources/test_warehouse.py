"""Opening the warehouse: what works, and what is said when it does not."""

import os
import socket
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from psycopg import sql
from pydantic import SecretStr

from datops_assets.config.settings import Settings
from datops_assets.errors import WarehouseError, WarehouseUnreachableError
from datops_assets.postgres.migrations import upgrade
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets.resources.embedded.programs import find_programs
from datops_assets.resources.server_errors import server_errors
from datops_assets.resources.warehouse import (
    Warehouse,
    embedded_server,
    open_dagster_database,
    open_warehouse,
    parse_url,
    require_version,
)

ROOT = Path(__file__).parents[2]
PASSWORD = "s3cret p@ss/w:rd?%&#'\"\\ü"


@pytest.fixture
def person(server, database):
    """A role with a difficult password, as the warehouse of somebody."""
    name = f"person_{os.getpid()}"
    with server.connect() as conn:
        conn.execute(sql.SQL("create role {} login password {}").format(sql.Identifier(name), PASSWORD))
    yield replace(database, user=name, password=PASSWORD)
    with server.connect() as conn:
        conn.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))


def settings_of(warehouse, tmp_path):
    return Settings(project_root=tmp_path, home=tmp_path, warehouse_url=SecretStr(warehouse.url))


def refusal(warehouse, tmp_path):
    """What opening this warehouse says, and everything a log would show of it."""
    with pytest.raises((WarehouseError, WarehouseUnreachableError)) as caught:
        open_warehouse(settings_of(warehouse, tmp_path))
    shown = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in shown + repr(caught.value) + repr(warehouse)
    return str(caught.value)


def test_a_fresh_database_has_the_catalogue(warehouse):
    assert warehouse.fetch("select count(*) from datops.loads") == [(0,)]


def test_a_session_is_autocommit_and_in_utc(warehouse):
    assert warehouse.conn.autocommit
    assert warehouse.fetch("show timezone") == [("UTC",)]


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_session_is_in_utc_whatever_the_database_prefers(warehouse, autocommit):
    name = sql.Identifier(warehouse.warehouse.dbname)
    warehouse.conn.execute(sql.SQL("alter database {} set timezone = 'Asia/Tokyo'").format(name))
    with warehouse.connect(autocommit=autocommit) as conn:
        assert conn.execute("show timezone").fetchone() == ("UTC",)
        conn.rollback()
        assert conn.execute("show timezone").fetchone() == ("UTC",)


def test_any_password_survives_the_url(person, tmp_path):
    assert open_warehouse(settings_of(person, tmp_path)).password == PASSWORD
    with psycopg.connect(person.url) as conn:
        assert conn.execute("select current_user").fetchone() == (person.user,)
    with sqlalchemy.create_engine(person.sqlalchemy_url).connect() as conn:
        assert conn.execute(sqlalchemy.text("select current_user")).scalar() == person.user


def test_programs_get_the_password_by_environment(person):
    program = find_programs().path("psql")
    done = subprocess.run(
        [program, "-Atc", "select current_user"],
        env=person.libpq_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == person.user


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@db.example/shop?sslmode=require",
        "postgresql+psycopg2://me:s3cret@db.example/shop?sslmode=require",
        "host=db.example user=me password=s3cret dbname=shop sslmode=require",
    ],
)
def test_a_url_is_read_in_every_usual_form(url):
    found = parse_url(url, "X")
    assert found.url == "postgresql://me:s3cret@db.example:5432/shop?sslmode=require"
    assert found.sqlalchemy_url.startswith("postgresql+psycopg2://me:s3cret@db.example:5432/shop")
    assert found.libpq_environment()["PGSSLMODE"] == "require"


def test_a_socket_folder_and_ipv6_survive_the_url():
    for url in ("postgresql://me@:6000/shop?host=%2Frun%2Fpg", "postgresql://me@[::1]:6000/shop"):
        again = parse_url(parse_url(url, "X").url, "X")
        assert again == parse_url(url, "X")
        assert (again.host in ("/run/pg", "::1"), again.port) == (True, 6000)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql://me:s3cret@db.example:54x32/shop", "X is not a PostgreSQL URL; write postgresql://"),
        ("mysql://me:s3cret@db.example/shop", "X is not a PostgreSQL URL; write postgresql://"),
        ("postgresql://me:s3cret@db.example/shop?colour=s3cret", "X is not a PostgreSQL URL; write"),
        ("postgresql://me:s3cret@/shop", "X names no host; write postgresql://"),
        ("postgresql://db.example", "X names no user and no dbname; write postgresql://"),
    ],
)
def test_a_wrong_url_is_said_without_repeating_it(url, sentence):
    with pytest.raises(WarehouseError) as caught:
        parse_url(url, "X")
    assert str(caught.value).startswith(sentence)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_password_is_said(person, tmp_path):
    said = refusal(replace(person, password="s3cret wrong"), tmp_path)
    assert said == (
        f"the warehouse at {person.address} refuses the user or the password; "
        "correct the URL, then run: datops doctor"
    )


def test_a_missing_password_is_said(person, tmp_path):
    assert "refuses the user or the password" in refusal(replace(person, password=None), tmp_path)


def test_a_missing_database_is_said(person, tmp_path):
    assert "has no database" in refusal(person.at("nowhere"), tmp_path)


def test_a_server_that_does_not_answer_may_be_tried_again(person, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = replace(person, port=probe.getsockname()[1])
    assert "does not answer; check that it runs, then run: datops doctor" in refusal(nobody, tmp_path)
    with pytest.raises(WarehouseUnreachableError):
        nobody.connect()


def test_a_host_without_a_server_does_not_hang(person, tmp_path):
    with socket.socket() as mute:  # takes connections and says nothing
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        silent = replace(person, port=mute.getsockname()[1], options={"connect_timeout": "2"})
        assert "does not answer" in refusal(silent, tmp_path)


def test_too_many_connections_may_be_tried_again(server, person, tmp_path):
    with server.connect() as conn:
        conn.execute(sql.SQL("alter role {} connection limit 1").format(sql.Identifier(person.user)))
    with (
        person.connect(),
        pytest.raises(WarehouseUnreachableError, match=r"connections .* are taken; try again"),
    ):
        person.connect()


def test_a_server_older_than_16_is_said():
    with pytest.raises(
        WarehouseError, match=r"db:5432/shop is PostgreSQL 15, datops needs 16 .* or unset DATOPS_"
    ):
        require_version(150007, "db:5432/shop")
    require_version(160000, "db:5432/shop")


def test_a_full_disk_is_said_and_nothing_is_kept(server, warehouse, tmp_path):
    if os.geteuid() != 0 or not server.embedded:
        pytest.skip("only root can mount a small disk for our own server")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", disk], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this root may not mount a small disk")
    (disk / "space").mkdir(mode=0o700)
    space = sql.Identifier(f"small_{os.getpid()}")
    try:
        warehouse.conn.execute(sql.SQL("create tablespace {} location {}").format(space, str(disk / "space")))
        warehouse.conn.execute(sql.SQL("create table filling (t text) tablespace {}").format(space))
        with (
            pytest.raises(WarehouseError, match="disk of the warehouse at here is full") as caught,
            server_errors("here"),
            warehouse.conn.cursor().copy("copy filling from stdin") as copy,
        ):  # its CONTEXT repeats the line
            for _ in range(10_000):
                copy.write("s3cret" * 200 + "\n")
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))
        assert warehouse.fetch("select count(*) from filling") == [(0,)]
    finally:
        warehouse.conn.execute("drop table if exists filling")
        warehouse.conn.execute(sql.SQL("drop tablespace if exists {}").format(space))
        subprocess.run(["umount", disk], check=True)


def test_a_disk_too_small_for_our_own_server_is_said(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("this root may not mount a small disk")
    try:
        with pytest.raises(
            WarehouseError, match=r"the disk that holds .* is full; free some space, or set DATOPS_HOME"
        ):
            EmbeddedServer(disk / "postgres").start()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_errors_of_a_statement_pass_through(warehouse):
    with pytest.raises(psycopg.errors.UndefinedTable), server_errors("here"):
        warehouse.conn.execute("select * from nothing_here")


def test_a_session_that_the_server_ended_may_be_tried_again(warehouse):
    with warehouse.connect() as other:
        warehouse.fetch("select pg_terminate_backend(%s)", other.info.backend_pid)
        with (
            pytest.raises(WarehouseUnreachableError, match="starting or stopping; try again"),
            server_errors("here"),
        ):
            other.execute("select 1")


def test_inherited_variables_lead_nowhere(database, monkeypatch, tmp_path):
    for name, value in {
        "PGHOST": "elsewhere.example",
        "PGPORT": "1",
        "PGUSER": "stranger",
        "PGPASSWORD": "wrong",
        "PGDATABASE": "elsewhere",
        "PGSERVICE": "no_such_service",
        "PGOPTIONS": "-c timezone=Asia/Tokyo -c default_transaction_read_only=on",
        "PGSSLMODE": "verify-full",
        "POSTGRES_HOST": "elsewhere.example",
        "POSTGRES_PASSWORD": "wrong",
    }.items():
        monkeypatch.setenv(name, value)
    found = open_warehouse(settings_of(database, tmp_path))
    with found.connect() as conn:
        assert conn.execute("select current_database()").fetchone() == (database.dbname,)
        assert conn.execute("show default_transaction_read_only").fetchone() == ("off",)
        assert conn.execute("show timezone").fetchone() == ("UTC",)


def test_without_a_url_our_own_server_is_started(tmp_path, monkeypatch):
    monkeypatch.setenv("POSTGRES_HOST", "elsewhere.example")
    settings = Settings(project_root=tmp_path, home=tmp_path / ".datops")
    try:
        found = open_warehouse(settings)
        assert found.embedded
        assert found.server_version >= 180000
        assert (found.dbname, open_dagster_database(settings).dbname) == ("datops", "dagster")
        assert found.password not in repr(found)
    finally:
        embedded_server(settings).stop()


@pytest.fixture(scope="module")
def server16(tmp_path_factory):
    """The oldest PostgreSQL that we take: the wheel's 16.14."""
    folder = tmp_path_factory.mktemp("sixteen") / "postgres"
    server = EmbeddedServer(folder, pg_bin=find_programs(major=16).bin, durable=False)
    address = server.start()
    yield Warehouse(address.host, address.port, address.user, "datops", address.password)
    server.stop()


def test_postgresql_16_is_a_warehouse_too(server16, tmp_path):
    found = open_warehouse(settings_of(server16, tmp_path))
    assert found.server_version // 10000 == 16
    with found.connect() as conn:
        assert upgrade(conn)
        assert upgrade(conn) == []
        assert conn.execute("select pg_input_is_valid('x', 'int')").fetchone() == (False,)


def test_importing_the_warehouse_imports_no_driver_and_no_dagster():
    heavy = {"psycopg", "psycopg2", "sqlalchemy", "dagster", "pandas", "pyarrow", "psutil", "dbt"}
    code = "import sys, datops_assets.resources.warehouse; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert heavy & set(done.stdout.split()) == set()
