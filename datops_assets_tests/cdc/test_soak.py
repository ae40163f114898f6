"""Half an hour of writes and faults on one stream: equal all along, and the process does not grow."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psutil
import psycopg
import pytest

from datops_assets_tests.cdc.conftest import Followed, followed_on
from datops_assets_tests.cdc.servers import OwnServer, own_server
from datops_assets_tests.conftest import TestWarehouse

TABLES = ("customers", "orders", "events")
SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))
"""How long; a variable of the test's own, for a shorter try."""
ROUND_S = min(20.0, SECONDS / 5)
"""Writes and faults this long, then all is compared."""
_ROOM_BYTES = 60 << 20
"""What a process may grow by after the first rounds: caches of the driver and of Python."""

# Follows on and on; tries again when a server is away, as `datops cdc stream` does.
PROCESS = """
import json, sys, time
import psycopg
from datops_assets.cdc import ChangeStream, StreamedTable, lease, stream_changes
from datops_assets.errors import RetryableError

url, parameters, names, tables = json.loads(sys.argv[1])
stream = ChangeStream(*names, tuple(StreamedTable(*table) for table in tables))
while True:
    try:
        with psycopg.connect(url, autocommit=True) as conn, lease(conn, stream.source):
            stream_changes(conn, parameters, stream, stopping=lambda: False, report=lambda progress: None,
                           every_s=0.05, report_s=1.0)
    except (RetryableError, psycopg.OperationalError) as error:
        print(type(error).__name__, error, flush=True)
        time.sleep(0.2)
"""


@pytest.fixture
def source(warehouse: TestWarehouse) -> Iterator[tuple[OwnServer, Followed]]:
    with own_server(18) as server, followed_on(server.warehouse, warehouse) as followed:
        for table in TABLES:
            followed.run(f"create table {table} (id int primary key, v text, big text)")
            followed.run(f"alter table {table} alter big set storage external")
        followed.follow(*TABLES)
        followed.snapshot()
        yield server, followed


@contextmanager
def process(followed: Followed) -> Iterator[psutil.Process]:
    """The stream, in a process of its own."""
    stream = followed.stream
    told = [
        followed.warehouse.url, followed.parameters, [stream.source, stream.slot, stream.publication],
        [[one.name, one.schema, one.table] for one in stream.tables],
    ]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, json.dumps(told)], stdout=subprocess.DEVNULL
    ) as started:
        try:
            yield psutil.Process(started.pid)
        finally:
            started.kill()


def write(followed: Followed, draws: random.Random, ends: float) -> int:
    """Transactions of every kind until `ends`, some of them rolled back, some large; returns how many."""
    done = 0
    while time.monotonic() < ends:
        with suppress(psycopg.OperationalError), closing(psycopg.connect(**followed.parameters)) as conn:
            while time.monotonic() < ends:
                _transaction(conn, draws)
                done += 1
                time.sleep(draws.choice([0, 0.001, 0.005]))
        time.sleep(0.05)
    return done


def _transaction(conn: psycopg.Connection[Any], draws: random.Random) -> None:
    for _ in range(draws.randint(1, 6)):
        table, key, kind = draws.choice(TABLES), draws.randint(1, 2000), draws.random()
        if kind < 0.45:
            statement = (
                f"insert into {table} values ({key}, 'v{draws.random()}', repeat('x', {draws.randint(1, 4000)}))"
                " on conflict (id) do update set v = excluded.v"
            )
        elif kind < 0.75:
            statement = f"update {table} set v = 'u{draws.random()}' where id between {key} and {key + 5}"
        elif kind < 0.88:
            statement = f"delete from {table} where id between {key} and {key + 3}"
        elif kind < 0.985:
            statement = f"update {table} set id = -id - {draws.randint(1, 10**8)} where id = {key}"
        elif kind < 0.995:
            statement = (
                f"insert into {table} select {10**9 + key} + n, 'bulk', null from generate_series(1, 5000) n"
                " on conflict (id) do nothing"
            )
        else:
            statement = f"truncate {table}"
        with suppress(psycopg.errors.UniqueViolation), conn.transaction():
            conn.execute(statement)  # type: ignore[call-overload]
    if draws.random() < 0.1:
        conn.rollback()
    else:
        conn.commit()


def disturb(followed: Followed, server: OwnServer, draws: random.Random) -> str:
    """One fault: a backend that ends on either side, a source that restarts, DDL."""
    kind = draws.choice(["walsender", "warehouse", "fast", "immediate", "ddl", "nothing"])
    if kind == "walsender":
        with followed.database.connect() as conn:
            conn.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
    elif kind == "warehouse":
        with followed.warehouse.connect() as conn:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid() and pid <> %s", (followed.warehouse.conn.info.backend_pid,),
            )  # fmt: skip
    elif kind in ("fast", "immediate"):
        server.stop(kind)
        server.start()
    elif kind == "ddl":
        with suppress(psycopg.OperationalError), followed.database.connect() as conn:
            table, number = draws.choice(TABLES), draws.randint(1, 10**6)
            default = draws.choice(["", f" default {number}"])
            conn.execute(f"alter table {table} add column if not exists c{number % 8} int{default}")
    return kind


def compare(followed: Followed) -> None:
    """Nobody writes, and the process has caught up: source and mirror are equal, no change is there twice."""
    followed.source.close()
    followed.source = followed.database.connect()
    followed.require_equal()
    for table in TABLES:
        rows, places = followed.warehouse.conn.execute(
            f"select count(*), count(distinct (_commit_lsn, _seq)) from bronze.erp_{table}_changes"
        ).fetchone()
        assert rows == places


def caught_up(followed: Followed, running: psutil.Process) -> None:
    """Wait until the process has applied what the source has written by now."""
    with closing(followed.database.connect()) as conn:
        (place,) = conn.execute("select pg_logical_emit_message(true, 'soak', '')::text").fetchone()
    ends = time.monotonic() + 180
    query = "select applied_lsn >= %s::pg_lsn from datops.streams"
    while followed.warehouse.conn.execute(query, (place,)).fetchone() != (True,):
        assert running.is_running() and time.monotonic() < ends, "it does not catch up"
        time.sleep(0.1)


@pytest.mark.cdc_case(62)
@pytest.mark.slow
@pytest.mark.timeout(SECONDS * 2 + 900)
def test_half_an_hour_of_writes_and_faults(source: tuple[OwnServer, Followed]) -> None:
    """Each round has one fault in its middle; one round in five the stream's own process is killed."""
    server, followed = source
    draws = random.Random(int(os.environ.get("SOAK_SEED", "11")))
    ends = time.monotonic() + SECONDS
    faults: dict[str, int] = {}
    grown: list[int] = []
    transactions = 0
    while time.monotonic() < ends:
        with process(followed) as running:
            sizes: list[tuple[int, int]] = []
            is_killed = False
            while time.monotonic() < ends and not is_killed:
                is_killed = draws.random() < 0.2
                transactions += _round(followed, server, running, draws, faults, is_killed=is_killed)
                if not is_killed:
                    caught_up(followed, running)
                    compare(followed)
                    sizes.append((running.memory_info().rss, running.num_fds()))
                    said = f"{transactions} transactions, {faults}, {sizes[-1][0] >> 20} MB, {sizes[-1][1]} files"
                    print(f"{ends - time.monotonic():.0f} s left, {said}", flush=True)
        if len(sizes) > 2:
            grown.append(sizes[-1][0] - sizes[1][0])
            assert max(files for _, files in sizes) - min(files for _, files in sizes) <= 4, sizes
    with process(followed) as running:
        caught_up(followed, running)
        compare(followed)
    assert transactions > SECONDS
    assert max(grown, default=0) < _ROOM_BYTES, grown


def _round(
    followed: Followed, server: OwnServer, running: psutil.Process, draws: random.Random, faults: dict[str, int],
    *, is_killed: bool,
) -> int:  # fmt: skip
    """Two writers for a while, and a fault in the middle; returns how many transactions there were."""
    until, seed = time.monotonic() + ROUND_S, draws.random()
    counts: list[int] = []
    writers = [
        threading.Thread(
            target=lambda n=n: counts.append(write(followed, random.Random(seed + n), until)), daemon=True
        )
        for n in range(2)
    ]
    for writer in writers:
        writer.start()
    time.sleep(draws.uniform(0, ROUND_S / 2))
    fault = "kill" if is_killed else disturb(followed, server, draws)
    if is_killed:
        running.send_signal(signal.SIGKILL)
    faults[fault] = faults.get(fault, 0) + 1
    for writer in writers:
        writer.join()
    return sum(counts)
