"""What becomes of the servers themselves: restarts, lost log, new timelines, failover, a warehouse away or full."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from datops_assets.cdc import ChangeStream, find_stream, preflight, read_slot
from datops_assets.components.streams import running
from datops_assets.errors import RetryableError, SourceRefusedError, SourceUnreachableError, WarehouseError
from datops_assets.resources.server_errors import explain
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.cdc.conftest import Followed, followed_on
from datops_assets_tests.cdc.servers import OwnServer, own_server, standby_of
from datops_assets_tests.cdc.test_stream_component import datops, document, erp  # noqa: F401
from datops_assets_tests.cdc.test_streaming import streaming, until
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.scratch import scratch_folder


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[OwnServer]:
    """A source server of its own, which the tests may restart."""
    with own_server(18, max_slot_wal_keep_size="64MB", max_wal_size="64MB", min_wal_size="32MB") as server:
        yield server


@pytest.fixture
def t(elsewhere: OwnServer, warehouse: TestWarehouse) -> Iterator[Followed]:
    """A table t with a row, copied, on that server."""
    with followed_on(elsewhere.warehouse, warehouse) as followed:
        yield begun(followed)


def begun(followed: Followed) -> Followed:
    followed.run("create table t (id int primary key, v text); insert into t values (1, 'a')")
    followed.follow("t")
    followed.snapshot()
    return followed


def again(followed: Followed, database: Warehouse | None = None) -> Followed:
    """The same stream, its source reached anew."""
    database = database or followed.database
    followed.source.close()
    followed.database, followed.source = database, database.connect()
    return followed


@pytest.mark.cdc_case(46)
@pytest.mark.parametrize("mode", ["fast", pytest.param("immediate", marks=pytest.mark.slow)])
def test_a_source_that_restarts(t: Followed, elsewhere: OwnServer, mode: str) -> None:
    """While a stream runs: one sentence, another try, nothing lost."""
    with streaming(t) as (_, failed):
        t.run("insert into t select n, 'before' from generate_series(2, 500) n")
        t.source.close()
        elsewhere.stop(mode)
        until(lambda: bool(failed))
        assert isinstance(failed[0], SourceUnreachableError), failed
    with pytest.raises(SourceUnreachableError, match="does not answer"):
        t.drain()
    elsewhere.start()
    again(t)
    t.run("update t set v = 'after' where id < 50")
    t.drain()
    t.require_equal()
    assert len(t.log("t")) == 499 + 49


@pytest.mark.cdc_case(48)
def test_a_slot_whose_log_the_source_dropped(t: Followed) -> None:
    """The stages are told on the way, and at the end a person is asked; never a copy by itself."""
    seen = []
    for _ in range(30):
        t.run("select pg_logical_emit_message(false, 'filler', repeat('x', 8000000)); select pg_switch_wal()")
        t.run("checkpoint")
        slot = read_slot(t.parameters, t.stream, find_stream(t.warehouse.conn, "erp"))
        assert slot is not None
        seen.append(slot.wal_status)
        if slot.wal_status == "lost":
            break
    assert seen[-1] == "lost", seen
    assert {"reserved", "extended"} & set(seen), seen
    t.run("insert into t values (2, 'b')")
    for _ in range(2):
        with pytest.raises(SourceRefusedError, match=r"dropped log that the slot .* datops cdc resync erp"):
            t.drain()
    assert find_stream(t.warehouse.conn, "erp").state == "resync_required"
    t.snapshot()
    t.drain()
    t.require_equal()


@pytest.mark.cdc_case(52)
@pytest.mark.slow
def test_a_standby_takes_over_with_the_slot(warehouse: TestWarehouse) -> None:
    """The slot was copied to the standby, so the stream goes on there, across the new timeline."""
    with own_server(18) as primary:
        with closing(primary.warehouse.connect()) as conn:
            conn.execute("select pg_create_physical_replication_slot('standby')")
        primary.stop()
        primary.start(synchronized_standby_slots="standby")
        with standby_of(
            primary, hot_standby_feedback="on", primary_slot_name="standby", sync_replication_slots="on",
            synchronized_standby_slots="",
        ) as standby:  # fmt: skip
            followed = followed_in(primary, warehouse)
            followed.run("insert into t values (2, 'before')")
            followed.drain()
            with closing(standby.warehouse.connect()) as conn:
                query = "select synced and not temporary from pg_replication_slots where slot_name = %s"

                def is_copied() -> bool:
                    followed.run("select pg_log_standby_snapshot()")
                    followed.drain()
                    return conn.execute(query, (followed.stream.slot,)).fetchone() == (True,)

                until(is_copied)
            there = replace(followed, database=standby.warehouse.at(followed.database.dbname))
            stops = [f.found for f in preflight(there.parameters, there.stream) if f.verdict == "stop"]
            assert stops == [
                "the slot is the primary's, kept in step for a failover: nobody may read it here"
            ]
            for refused in (there.drain, there.snapshot):
                with pytest.raises(
                    SourceRefusedError, match=r"kept in step for a failover; name the primary"
                ):
                    refused()
            assert find_stream(warehouse.conn, "erp").state == "streaming"
            followed.run("insert into t values (3, 'on the way')")
            with closing(standby.warehouse.at(followed.database.dbname).connect()) as conn:
                until(lambda: conn.execute("select count(*) from t").fetchone() == (3,))
            followed.source.close()
            primary.stop("immediate")
            standby.promote()
            again(followed, standby.warehouse.at(followed.database.dbname))
            followed.run("insert into t values (4, 'after')")
            followed.drain()
            followed.require_equal()
            assert find_stream(warehouse.conn, "erp").timeline == 2


def followed_in(server: OwnServer, warehouse: TestWarehouse) -> Followed:
    """A database on a server that ends with the test: nothing is cleared away."""
    with closing(server.warehouse.connect()) as admin:
        admin.execute("create database shop")
    database = server.warehouse.at("shop")
    return begun(
        Followed(warehouse, database, database.connect(), ChangeStream("erp", "shop", "datops_erp", ()))
    )


def rows_of_t(standby: OwnServer) -> int | None:
    """None until the standby has the database and the table."""
    with suppress(psycopg.Error, WarehouseError), closing(standby.warehouse.at("shop").connect()) as conn:
        return int(conn.execute("select count(*) from t").fetchall()[0][0])
    return None


@pytest.mark.cdc_case(49)
@pytest.mark.slow
def test_a_standby_that_took_over_too_early(warehouse: TestWarehouse) -> None:
    """It lacks what the warehouse has already: nothing goes on by itself."""
    with own_server(18) as primary, standby_of(primary) as standby:
        followed = followed_in(primary, warehouse)
        followed.run("insert into t values (2, 'everywhere')")
        followed.drain()
        until(lambda: rows_of_t(standby) == 2)
        standby.stop()
        followed.run(
            "insert into t select n, repeat('on the primary alone', 50) from generate_series(3, 3000) n"
        )
        followed.drain()
        followed.source.close()
        primary.stop("immediate")
        standby.start()
        standby.promote()
        again(followed, standby.warehouse.at("shop"))
        followed.source.execute("select pg_create_logical_replication_slot('shop', 'pgoutput')")
        with pytest.raises(SourceRefusedError, match=r"before the warehouse's .*: it was restored"):
            followed.drain()
        warehouse.conn.execute("update datops.streams set state = 'streaming', reason = null")
        # as far as the warehouse, but on another timeline
        followed.run("insert into t select n, repeat('x', 1000) from generate_series(10000, 20000) n")
        with pytest.raises(
            SourceRefusedError, match="a standby took over that lacked what the warehouse has"
        ):
            followed.drain()
        assert find_stream(warehouse.conn, "erp").state == "resync_required"
        followed.snapshot()
        followed.drain()
        followed.require_equal()


@pytest.fixture
def small_disk(server: Warehouse) -> Iterator[str]:
    """A tablespace of 24 MB; skips where nothing may be mounted."""
    folder = scratch_folder("datops-small-")
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can make a small disk (mount -t tmpfs)")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip("this machine lets nobody mount a small disk")
    name = f"small_{os.getpid()}"
    try:
        with server.connect() as admin:
            data = Path(admin.execute("show data_directory").fetchone()[0])
            os.chown(folder, data.stat().st_uid, data.stat().st_gid)
            admin.execute(f"create tablespace {name} location '{folder}'")
            yield name
            admin.execute(f"drop tablespace {name}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
        folder.rmdir()


@pytest.mark.cdc_case(53)
def test_a_warehouse_whose_disk_is_full(followed: Followed, small_disk: str, database: Warehouse) -> None:
    """A person is asked for space, nothing of the batch is kept; once there is space it goes on."""
    conn = followed.warehouse.conn
    begun(followed)
    for table in ("erp_t", "erp_t_changes"):
        conn.execute(f"alter table bronze.{table} set tablespace {small_disk}")
    followed.run("insert into t select n, repeat('x', 1500) from generate_series(2, 20000) n")
    before = find_stream(conn, "erp").applied
    with pytest.raises(psycopg.errors.DiskFull) as full:
        followed.drain()
    said = explain(full.value, "here")
    assert isinstance(said, WarehouseError) and "is full and nothing was kept" in str(said)
    assert find_stream(conn, "erp").applied == before
    followed.require_acknowledged()
    for table in ("erp_t", "erp_t_changes"):
        conn.execute(f"alter table bronze.{table} set tablespace pg_default")
        conn.execute(f"alter index bronze.{table}_pkey set tablespace pg_default")
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(53)
@pytest.mark.parametrize("sqlstate", ["40P01", pytest.param("40001", marks=pytest.mark.slow), "55P03"])
def test_what_crossed_another_transaction_is_tried_again(followed: Followed, sqlstate: str) -> None:
    """A deadlock, a failed serialization, a lock that was waited for: nothing is kept, the next drain has all."""
    begun(followed)
    conn = followed.warehouse.conn
    conn.execute(
        "create function bronze.refuse() returns trigger language plpgsql as $$ begin"
        f" raise exception 'crossed' using errcode = '{sqlstate}'; end $$;"
        " create trigger refuse before insert or update on bronze.erp_t for each row execute function bronze.refuse()"
    )
    followed.run("insert into t values (2, 'b')")
    with pytest.raises(psycopg.Error) as crossed:
        followed.drain()
    assert isinstance(explain(crossed.value, "here"), RetryableError)
    followed.require_acknowledged()
    conn.execute("drop trigger refuse on bronze.erp_t")
    followed.drain()
    followed.require_equal()
    assert len(followed.log("t")) == 1


@pytest.mark.cdc_case(54)
def test_a_role_that_lost_its_right_to_replicate(t: Followed) -> None:
    t.run("create role reader login replication; grant select on t to reader")
    reader = replace(t, database=replace(t.database, user="reader"))
    t.run("insert into t values (2, 'b')")
    reader.drain()
    t.run("alter role reader noreplication; insert into t values (3, 'c')")
    try:
        with pytest.raises(
            SourceRefusedError, match=r"may not replicate; on the source: alter role reader replication"
        ):
            reader.drain()
        t.run("alter role reader replication")
        reader.drain()
        t.require_equal()
    finally:
        t.run("drop owned by reader; drop role reader")


@pytest.mark.cdc_case(47)
def test_a_warehouse_that_is_away_for_long(erp: Followed, project: Path) -> None:
    """Its connections end and it lets nobody in: the slot holds, the lag grows and is told, then all is caught up."""
    said: list[str] = []
    stopped = threading.Event()
    loaded = document(project)
    name = erp.warehouse.warehouse.dbname
    with dg.instance_for_test(), closing(erp.database.connect()) as admin:
        thread = threading.Thread(
            target=lambda: running.follow_for_ever(
                loaded, stopped, say=said.append, every_s=0.05, report_s=0.2
            ),
            daemon=True,
        )
        thread.start()
        until(lambda: datops("status")["state"] == "streaming")
        before = find_stream(erp.warehouse.conn, "erp")
        admin.execute(f"alter database {name} allow_connections false")
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
        erp.run("insert into orders select n, repeat('x', 1000) from generate_series(2, 5000) n")
        until(lambda: len([line for line in said if "again in" in line]) >= 2)
        assert thread.is_alive()
        slot = read_slot(erp.parameters, erp.stream, before)
        assert slot is not None
        assert slot.lag_bytes > 4_000_000
        assert slot.retained_bytes >= slot.lag_bytes
        admin.execute(f"alter database {name} allow_connections true")
        erp.warehouse = TestWarehouse(erp.warehouse.warehouse, erp.warehouse.warehouse.connect())
        until(lambda: erp.warehouse.fetch("select count(*) from bronze.erp_orders") == [(5000,)])
        stopped.set()
        thread.join(60)
    assert not thread.is_alive()
    erp.drain()
    erp.require_equal()
    assert any("behind" in line for line in said), said
    assert datops("status")["lag_bytes"] < 1_000_000
    erp.warehouse.conn.close()
