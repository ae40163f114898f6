"""Much at once: large transactions, several of them, many small ones, many tables; memory stays bounded."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from datops_assets.cdc import following
from datops_assets_tests.cdc.conftest import Followed
from datops_assets_tests.cdc.test_streaming import streaming, until

_CEILING_BYTES = 300 << 20

DRAIN = """
import json, sys
import psycopg
from datops_assets.cdc import ChangeStream, StreamedTable, drain, lease

url, parameters, names, tables = json.loads(sys.argv[1])
stream = ChangeStream(*names, tuple(StreamedTable(*table) for table in tables))
with psycopg.connect(url, autocommit=True) as conn, lease(conn, stream.source):
    done = drain(conn, parameters, stream)
# Not ru_maxrss: that begins with what the process had from which this one was started.
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
print(json.dumps([done.changes, peak]))
"""


def drain_elsewhere(followed: Followed) -> tuple[int, int]:
    """Drain in a process of its own; returns changes, and the most memory it had, in bytes."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not say how much memory a process had (/proc)")
    stream = followed.stream
    told = [
        followed.warehouse.url, followed.parameters, [stream.source, stream.slot, stream.publication],
        [[one.name, one.schema, one.table] for one in stream.tables],
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", DRAIN, json.dumps(told)], check=True, stdout=subprocess.PIPE, text=True
    )
    changes, peak = json.loads(done.stdout)
    return changes, peak


def require_same(followed: Followed, table: str = "t") -> None:
    """As the oracle of all cases, for more rows than are to be fetched: a count and a hash of each side."""
    query = "select count(*), sum(('x' || substr(md5({0}::text), 1, 15))::bit(60)::bigint) from {1} {0}"
    there = followed.source.execute(query.format(table, table)).fetchone()
    here = followed.warehouse.conn.execute(query.format(table, f"bronze.erp_{table}")).fetchone()
    assert here == there
    followed.require_acknowledged()


@pytest.mark.cdc_case(59)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "rows",
    [
        100_000,
        pytest.param(1_000_000, marks=pytest.mark.slow),
        pytest.param(10_000_000, marks=pytest.mark.slow),
    ],
)
def test_one_large_transaction(followed: Followed, rows: int) -> None:
    """With savepoints in it that are rolled back; the memory of who drains does not grow with it."""
    followed.run("create table t (id bigint primary key, n int, v text)")
    followed.follow("t")
    followed.snapshot()
    followed.run(
        f"begin; insert into t select n, 1, repeat('x', 60) from generate_series(1, {rows}) n;"
        f" savepoint a; update t set v = 'rolled back' where id <= {rows // 2}; rollback to a;"
        f" savepoint b; update t set n = 2 where id <= {rows // 10};"
        f" savepoint c; delete from t where id <= {rows // 5}; rollback to c; release b;"
        f" delete from t where id > {rows - rows // 10}; commit"
    )
    changes, peak = drain_elsewhere(followed)
    assert changes == rows + rows // 10 + rows // 10
    require_same(followed)
    print(f"{rows} rows: {peak >> 20} MB", flush=True)
    assert peak < _CEILING_BYTES


@pytest.mark.cdc_case(61)
@pytest.mark.parametrize("last", ["first", pytest.param("second", marks=pytest.mark.slow)])
def test_two_large_transactions_interleaved(followed: Followed, last: str) -> None:
    """Row by row beside each other, of two tables, with rollbacks to savepoints; either one commits last."""
    followed.run("create table t (id int primary key, v text); create table u (id int primary key, v text)")
    followed.follow("t", "u")
    followed.snapshot()
    with (
        closing(psycopg.connect(**followed.parameters)) as first,
        closing(psycopg.connect(**followed.parameters)) as second,
    ):
        for piece in range(10):
            for conn, sign in ((first, 1), (second, -1)):
                low, high = piece * 500 + 1, piece * 500 + 500
                for table in ("t", "u"):
                    conn.execute(
                        f"insert into {table} select {sign} * n, repeat('x', 300) from generate_series({low}, {high}) n"
                    )
                    conn.execute("savepoint s")
                    conn.execute(f"update {table} set v = 'gone' where id between {-high} and {high}")
                    conn.execute("rollback to s")
                    conn.execute(
                        f"update {table} set v = 'p{piece}' where id in ({sign * low}, {sign * high})"
                    )
        ends = [second, first] if last == "first" else [first, second]
        ends[0].commit()
        followed.run("insert into t values (1000000, 'between')")
        followed.drain()
        followed.require_equal()
        ends[1].commit()
    followed.drain()
    followed.require_equal()
    assert followed.warehouse.fetch("select count(distinct _xid) from bronze.erp_t_changes") == [(3,)]


@pytest.mark.cdc_case(60)
def test_many_tables(followed: Followed) -> None:
    """A transaction that writes into each of them."""
    names = [f"t{number}" for number in range(60)]
    followed.run("; ".join(f"create table {name} (id int primary key, v text)" for name in names))
    followed.follow(*names)
    followed.snapshot()
    followed.run("; ".join(f"insert into {name} values (1, 'a')" for name in names))
    followed.run("; ".join(f"update {name} set v = 'b'" for name in names))
    assert followed.drain().changes == 120
    followed.require_equal()


@pytest.mark.cdc_case(60)
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_bursts_of_small_transactions_and_the_lag_at_a_fixed_rate(followed: Followed) -> None:
    """Sized for two cores: 500 tables, bursts of 20,000 transactions of one row, 300 a second for 20 s."""
    names = [f"t{number}" for number in range(500)]
    for name in names:
        followed.run(f"create table {name} (id int primary key, v text)")
    followed.run("create table t (id int primary key, v text)")
    followed.run(
        "create procedure burst(low int, high int) language plpgsql as $$ begin"
        " for n in low..high loop insert into t values (n, 'x'); commit; end loop; end $$"
    )
    followed.follow("t", *names)
    followed.snapshot()
    followed.run("call burst(1, 20000)")
    followed.run("; ".join(f"insert into {name} values (1, 'a')" for name in names))
    assert followed.drain().transactions >= 20_001
    followed.require_equal()
    with streaming(followed) as (told, failed):
        begun = time.monotonic()
        for number in range(6000):
            followed.run(f"insert into t values ({100_000 + number}, 'y')")
            time.sleep(max(0.0, begun + number / 300 - time.monotonic()))
        until(lambda: sum(progress.changes for progress in told) == 6000)
    assert failed == []
    lags = sorted(progress.longest_lag_s for progress in told if progress.changes)
    print(
        f"lag of {len(lags)} reports: median {lags[len(lags) // 2]:.2f} s, most {lags[-1]:.2f} s", flush=True
    )
    assert lags[len(lags) // 2] < 5
    followed.drain()
    followed.require_equal()


@pytest.mark.cdc_case(60)
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_backlog_while_others_go_on_writing(followed: Followed) -> None:
    """Half a gigabyte of log in many transactions is caught up with, in bounded memory, under a writer."""
    followed.run("create table t (id bigint primary key, n int, v text)")
    followed.follow("t")
    followed.snapshot()
    for piece in range(20):
        low = piece * 50_000
        followed.run(
            f"insert into t select n, 0, repeat('y', 200) from generate_series({low + 1}, {low + 50_000}) n"
        )
        followed.run(f"update t set n = {piece} where id between {low - 20_000} and {low + 20_000}")
    stopped = threading.Event()

    def write() -> None:
        with closing(psycopg.connect(**followed.parameters, autocommit=True)) as conn:
            number = 10**8
            while not stopped.is_set():
                number += 1
                conn.execute("insert into t values (%s, 1, 'new')", (number,))
                time.sleep(0.005)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        _, peak = drain_elsewhere(followed)
    finally:
        stopped.set()
        writer.join()
    assert peak < _CEILING_BYTES
    followed.drain()
    require_same(followed)


def test_rows_are_written_in_pieces_of_an_open_transaction(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces of a large transaction are one, whatever comes in them: truncates, moved keys, values left out."""
    monkeypatch.setattr(following, "_BATCH_BYTES", 2000)
    followed.run(
        "create table t (id int primary key, n int, v text); alter table t alter v set storage external"
    )
    followed.run("insert into t select n, 0, repeat('x', 3000) from generate_series(1, 20) n")
    followed.follow("t")
    followed.snapshot()
    followed.run(
        "begin; update t set n = 1; update t set id = -id where id < 5;"
        " update t set v = repeat('z', 3000) where id = 7; update t set n = 2;"
        " delete from t where id = 8; insert into t values (8, 0, repeat('w', 3000));"
        " update t set n = 3 where id = 8; commit"
    )
    followed.drain()
    followed.require_equal()
    followed.run("begin; update t set n = 4; truncate t; insert into t select n, 1, 'a' from generate_series(1, 300) n;"
                 " update t set id = 1000 - id; commit")  # fmt: skip
    followed.drain()
    followed.require_equal()
