"""A server that refuses, stops, cancels, is full or was changed by hand: a sentence, nothing half done."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datops_assets.components.catalogue import LONGEST_WAIT, open_catalogue
from datops_assets.postgres.tables import lock_table
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.bad_input.conftest import CANARY, RUN, Landing, Platform
from datops_assets_tests.conftest import TestWarehouse
from datops_assets_tests.scratch import scratch_folder


@pytest.fixture
def busy(orders: Landing) -> Landing:
    """As orders, loaded once; a second file waits, and another table has one, too."""
    orders.run()
    orders.deliver("next.csv", f"id,note\n1,{CANARY}\n2,{CANARY}\n")
    orders.declare("visits", "files: visits/*.csv")
    orders.put("visits/1.csv", "visit\n1\n")
    return orders


def require_completed(landing: Landing) -> None:
    """The next run takes everything, once."""
    landing.run()
    landing.require_accounted("orders", {"orders/good.csv": 2, "orders/next.csv": 2})
    assert landing.silver("orders", "id") == [(1,), (2,), (1001,), (1002,)]
    assert landing.run().table("orders")["rows_added"] == 0


def end_backend(landing: Platform, how: str) -> Callable[[int], None]:
    def act(pid: int) -> None:
        landing.warehouse.fetch(f"select pg_{how}_backend(%s)", pid)

    return act


@pytest.mark.parametrize(
    ("how", "said"), [("terminate", "try again"), ("cancel", "a statement was cancelled")]
)
@pytest.mark.parametrize("schema", ["bronze", "silver"])
def test_a_backend_that_is_ended_loses_nothing(busy: Landing, schema: str, how: str, said: str) -> None:
    with busy.while_blocked(f"{schema}.store_orders", end_backend(busy, how)):
        answer = busy.run(expect=1)
    assert said in answer.problems
    assert "datops" in answer.problems
    assert busy.bronze("visits", "visit") == [("1",)]
    assert busy.silver("orders", "id") == [(1001,), (1002,)]
    require_completed(busy)


def test_a_run_that_may_try_again_completes_by_itself(busy: Landing) -> None:
    busy.write_document(Path("pipeline.yaml").read_text().replace("{max: 0}", "{max: 1, delay_s: 0.1}"))
    with busy.while_blocked("bronze.store_orders", end_backend(busy, "terminate")):
        busy.run()
    require_completed(busy)


def test_a_lock_of_somebody_else_is_waited_for(busy: Landing) -> None:
    with busy.while_blocked("bronze.store_orders", lambda _: None):
        busy.run()
    require_completed(busy)


def test_a_wait_that_the_server_limits_ends_in_a_sentence(busy: Landing) -> None:
    database = busy.warehouse.warehouse.dbname
    busy.warehouse.conn.execute(f"alter database {database} set lock_timeout = '300ms'")
    with busy.warehouse.connect(autocommit=False) as other:
        other.execute("lock table bronze.store_orders in access exclusive mode")
        answer = busy.run(expect=1)
    assert "kept a lock for too long" in answer.problems
    assert busy.bronze("visits", "visit") == [("1",)]
    require_completed(busy)


def test_another_run_of_the_table_is_waited_for(busy: Landing) -> None:
    with busy.warehouse.connect() as other:
        other.execute("select pg_advisory_lock(hashtextextended('datops.store.orders', 0))")
        process = busy.start(*RUN)
        busy.wait_until_blocked()
    busy.finish(process)
    require_completed(busy)


def test_another_run_that_does_not_end_is_named(busy: Landing) -> None:
    database = busy.warehouse.warehouse.dbname
    busy.warehouse.conn.execute(f"alter database {database} set lock_timeout = '300ms'")
    with busy.warehouse.connect() as other:
        other.execute("select pg_advisory_lock(hashtextextended('datops.store.orders', 0))")
        answer = busy.run(expect=1)
    assert "another run works on store.orders and did not finish in 300ms; try again" in answer.problems
    assert busy.bronze("visits", "visit") == [("1",)]
    require_completed(busy)


def test_no_wait_is_for_ever(busy: Landing) -> None:
    with open_catalogue() as catalogue:
        assert catalogue.conn.execute("show lock_timeout").fetchone() == (LONGEST_WAIT,)
        with lock_table(catalogue.conn, "store", "orders", wait_s=1):
            pass
        assert catalogue.conn.execute("show lock_timeout").fetchone() == (LONGEST_WAIT,)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("default_transaction_read_only = on", "takes no writes"),
        ("statement_timeout = '1ms'", "a statement was cancelled"),
    ],
)
def test_a_setting_that_forbids_the_work_is_one_sentence(busy: Landing, setting: str, said: str) -> None:
    database = busy.warehouse.warehouse.dbname
    busy.warehouse.conn.execute(f"alter database {database} set {setting}")
    answer = busy.datops(*RUN)
    assert answer.exit_code == 1
    assert said in answer.said
    busy.warehouse.conn.execute(f"alter database {database} reset all")
    require_completed(busy)


def test_settings_of_the_server_change_nothing(busy: Landing) -> None:
    database = busy.warehouse.warehouse.dbname
    for setting in (
        "datestyle = 'SQL, DMY'", "intervalstyle = sql_standard", "timezone = 'Asia/Tokyo'", "search_path = pg_temp",
        "standard_conforming_strings = off", "client_encoding = latin1", "client_min_messages = debug1",
        "default_transaction_isolation = serializable",
        "bytea_output = escape", "extra_float_digits = 0", "idle_session_timeout = '2s'",
    ):  # fmt: skip
        busy.warehouse.conn.execute(f"alter database {database} set {setting}")  # type: ignore[call-overload]
    busy.deliver("damaged.csv", "id,note\n3,x\n4\n")
    busy.run()
    busy.require_accounted("orders", {"orders/good.csv": 2, "orders/next.csv": 2, "orders/damaged.csv": 2})
    assert busy.set_aside("orders", "orders/damaged.csv") == {2: ("1 fields where the header has 2", b"4")}
    assert busy.silver("orders", "id") == [(1,), (2,), (3,), (1001,), (1002,)]


def test_a_wrong_password_is_one_sentence(busy: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    here = busy.warehouse.warehouse
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", here.url.replace(f":{here.password}@", f":{CANARY}@"))
    answer = busy.datops(*RUN)
    assert answer.exit_code == 1
    assert "refuses the user or the password; correct the URL, then run: datops doctor" in answer.said
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", here.url)
    require_completed(busy)


def test_a_column_dropped_by_hand_is_named_with_the_statement_that_mends_it(busy: Landing) -> None:
    busy.warehouse.conn.execute("alter table bronze.store_orders drop column note")
    answer = busy.run(expect=1)
    assert "bronze.store_orders" in answer.problems
    assert 'add column "note" text' in answer.problems
    assert busy.bronze("visits", "visit") == [("1",)]
    busy.warehouse.conn.execute('alter table bronze.store_orders add column "note" text')
    require_completed(busy)


def test_a_bronze_table_dropped_by_hand_is_not_made_anew_in_silence(busy: Landing) -> None:
    busy.warehouse.conn.execute("drop table bronze.store_orders")
    answer = busy.run(expect=1)
    assert "bronze.store_orders is gone" in answer.problems
    assert busy.bronze("visits", "visit") == [("1",)]
    assert busy.silver("orders", "id") == [(1001,), (1002,)]
    for step in ("undo", "reload"):
        assert busy.datops("load", step, "1").exit_code == 0
    require_completed(busy)


def test_what_people_added_to_bronze_is_left_alone(busy: Landing) -> None:
    busy.warehouse.conn.execute("alter table bronze.store_orders add column remark text default 'mine'")
    require_completed(busy)
    assert set(busy.bronze("orders", "remark")) == {("mine",)}


def test_a_rule_that_people_added_to_bronze_refuses_the_file_without_its_values(busy: Landing) -> None:
    busy.warehouse.conn.execute("alter table bronze.store_orders add constraint mine check (id <> '2')")
    answer = busy.run(expect=1)
    assert "orders/next.csv" in answer.problems
    assert "CheckViolation" in answer.problems
    busy.warehouse.conn.execute("alter table bronze.store_orders drop constraint mine")
    (command,) = re.findall(r"datops (load reload \w+)", answer.problems)
    busy.require_accounted("orders", {"orders/good.csv": 2, "orders/next.csv": 0})
    assert busy.datops(*command.split()).exit_code == 0
    require_completed(busy)


@pytest.fixture
def own() -> Iterator[EmbeddedServer]:
    """A server to be stopped and killed."""
    folder = scratch_folder(f"datops-test-{os.getpid()}-")
    server = EmbeddedServer(folder / "postgres", durable=False)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def fresh_view(landing: Landing) -> Iterator[Landing]:
    """The same platform over a connection that lives: a server that stopped ended the others."""
    with landing.warehouse.warehouse.connect() as conn:
        yield Landing(
            landing.project, TestWarehouse(landing.warehouse.warehouse, conn), landing.tables, "orders"
        )


@pytest.mark.parametrize("end", ["stop", "kill -9"])
def test_a_server_that_stops_in_the_middle_loses_nothing(
    project: Path, own: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """The load waits for a lock, so that it is in the middle of a file; then the server is gone and comes back."""
    address = own.start()
    here = Warehouse(address.host, address.port, address.user, "datops", address.password, embedded=True)
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", here.url)
    with here.connect() as conn:
        landing = Landing(project, TestWarehouse(here, conn), table="orders")
        landing.declare(
            "orders",
            "files: orders/*.csv\ncontract: {key: [id], columns: {id: {type: bigint}, note: {type: text}}}",
        )
        landing.deliver("good.csv", "id,note\n1001,a\n1002,b\n")
        landing.run()
        landing.deliver("next.csv", "id,note\n1,x\n2,y\n")
        keeper = here.connect(autocommit=False)
        keeper.execute("lock table bronze.store_orders in access exclusive mode")
        process = landing.start(*RUN)
        landing.wait_until_blocked()
        if end == "stop":
            own.stop()
        else:
            os.kill(own.status().pid or 0, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stdout + stderr
    assert "Traceback" not in stdout + stderr
    assert "the warehouse at 127.0.0.1" in stdout + stderr
    own.start()
    for after in fresh_view(landing):
        require_completed(after)


@pytest.fixture
def disk() -> Iterator[Callable[[str], Path]]:
    """Make small disks, in memory."""
    made: list[Path] = []

    def make(size: str) -> Path:
        folder = scratch_folder(f"datops-test-{os.getpid()}-disk-")
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if subprocess.run(command, capture_output=True).returncode != 0:
            folder.rmdir()
            pytest.skip("only root may mount a small disk here")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", "--lazy", folder], check=True)  # the server may have a file open still
        folder.rmdir()


@pytest.fixture
def small_disk(
    server: Warehouse, template: str, disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Warehouse, Path]]:
    """A database whose tables lie on a disk of 40 MB."""
    folder = disk("40m")
    with server.connect() as conn:
        conn.execute(f"create tablespace small location '{folder}'")
        conn.execute(f"create database full_disk template {template} tablespace small strategy file_copy")
        monkeypatch.setenv("DATOPS_WAREHOUSE_URL", server.at("full_disk").url)
        yield server.at("full_disk"), folder
        conn.execute("drop database full_disk with (force)")
        conn.execute("drop tablespace small")


def test_a_full_disk_keeps_nothing_half_and_goes_on_once_there_is_room(project: Path, small_disk) -> None:
    here, disk = small_disk
    with here.connect() as conn:
        landing = Landing(project, TestWarehouse(here, conn), table="orders")
        landing.declare(
            "orders",
            "files: orders/*.csv\ncontract: {key: [id], columns: {id: {type: bigint}, note: {type: text}}}",
        )
        landing.deliver("good.csv", "id,note\n1001,a\n1002,b\n")
        landing.run()
        rows = "".join(f"{n},{CANARY}{'x' * 150}\n" for n in range(2000, 202_000))
        path = landing.deliver("large.csv", "id,note\n" + rows)
        answer = landing.run(expect=1)
        assert "the disk of the warehouse at" in answer.problems
        assert "is full and nothing was kept; free some space, then run it again" in answer.problems
        assert landing.silver("orders", "id") == [(1001,), (1002,)]
        subprocess.run(["mount", "-o", "remount,size=400m", disk], check=True)
        landing.run()
        landing.require_taken(path, rows=200_000)
        assert landing.warehouse.fetch("select count(*) from silver.store_orders") == [(200_002,)]


def test_no_room_for_what_is_set_aside_stops_no_other_file(
    busy: Landing, disk: Callable[[str], Path]
) -> None:
    """Damaged records wait in a temporary file until COPY is over."""
    path = busy.deliver("damaged.csv", "id,note\n" + f"3,x,{CANARY}\n" * 200_000)
    full = disk("2m")
    answer = busy.run_apart(expect=1, TMPDIR=str(full))
    assert f"{path}: there is no room for temporary files in {full}, so nothing" in answer.problems
    busy.require_accounted("orders", {"orders/good.csv": 2, "orders/next.csv": 2, path: 0})
    busy.run()
    assert busy.loads("orders")[path][:3] == ("loaded", 0, 200_000)


@pytest.fixture
def typed(platform: Platform) -> Platform:
    """A table of Parquet files, which go another way to the server: loaded once, a second file waits."""
    platform.declare(
        "payments", "files: payments/*.parquet\ncontract: {columns: {id: {type: bigint}, note: {type: text}}}"
    )
    platform.declare("visits", "files: visits/*.csv")
    write_parquet(platform, "payments/1.parquet", 1)
    platform.run()
    write_parquet(platform, "payments/2.parquet", 3)
    platform.put("visits/1.csv", "visit\n1\n")
    return platform


def write_parquet(platform: Platform, path: str, rows: int) -> None:
    file = platform.put(path, b"")
    pq.write_table(pa.table({"id": pa.array(range(rows), pa.int64()), "note": [CANARY] * rows}), file)


@pytest.mark.parametrize(
    ("how", "said"), [("terminate", "try again"), ("cancel", "a statement was cancelled")]
)
def test_a_backend_that_is_ended_under_a_parquet_load_loses_nothing(
    typed: Platform, how: str, said: str
) -> None:
    with typed.while_blocked("bronze.store_payments", end_backend(typed, how)):
        answer = typed.run(expect=1)
    assert said in answer.problems
    assert typed.bronze("visits", "visit") == [("1",)]
    assert typed.warehouse.fetch("select count(*) from bronze.store_payments") == [(1,)]
    typed.run()
    typed.require_accounted("payments", {"payments/1.parquet": 1, "payments/2.parquet": 3})


def test_a_rule_of_bronze_refuses_a_parquet_file_without_its_values(typed: Platform) -> None:
    typed.warehouse.conn.execute("alter table bronze.store_payments add constraint mine check (id < 2)")
    answer = typed.run(expect=1)
    assert "payments/2.parquet" in answer.problems
    typed.require_accounted("payments", {"payments/1.parquet": 1, "payments/2.parquet": 0})
    assert typed.bronze("visits", "visit") == [("1",)]
