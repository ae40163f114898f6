"""Streams: catching up against PostgreSQL's own subscription, reading the slot, and Debezium; and the memory of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.harness import Bench, Comparison, memory_alone
from benchmarks.stream_peers import DEBEZIUM, debezium
from datops_assets.cdc import ChangeStream, StreamedTable, drain, lease, take_snapshot
from datops_assets.cdc.drain import emit
from datops_assets.cdc.replication import Receiver, replication_connection
from datops_assets.resources.warehouse import Warehouse

INSERTS, UPDATES, DELETES = 750_000, 350_000, 150_000
CHANGES = INSERTS + UPDATES + DELETES
PER_TRANSACTION = 5_000
LARGE = 5_000_000
TABLE = """
create table public.orders (
  order_id bigint primary key, customer_id bigint, status text, ordered_at timestamptz, updated_at timestamptz,
  currency text, items integer, total numeric(12,2), email text, note text)
"""
ROW = """
n, n % 200000, (array['placed', 'paid', 'shipped', 'delivered'])[1 + n % 4],
'2020-01-01'::timestamptz + n * interval '7 s', '2020-01-01'::timestamptz + n * interval '7 s', 'EUR', n % 9,
(n % 99999) / 100.0, 'customer.' || n || '@example.com', case n % 10 when 0 then null else 'leave it at door ' || n end
"""
NATIVE = "native"
_OTHER_SLOTS = ("alone", "debezium")


def measure(bench: Bench) -> None:
    """Readers of the same log, one after the other; then one transaction of five million rows."""
    with bench.database() as warehouse, bench_source(bench) as source:
        stream = stream_of(source)
        parameters = dict(source.parameters())
        with warehouse.connect() as conn, source.connect() as at_source:
            subscribe(conn, at_source, source)
            with lease(conn, "erp"):
                take_snapshot(conn, warehouse.connect, parameters, stream)
            for slot in _OTHER_SLOTS:
                at_source.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
            _write(source)
            bench.settle()
            native = _catch_up_natively(conn, at_source)
            bench.settle()
            alone = _read_alone(at_source, parameters)
            bench.settle()
            with lease(conn, "erp"):
                done = drain(conn, parameters, stream)
            assert done.changes == CHANGES, done
            _require_equal(conn, at_source)
            bench.settle()
            engine = debezium(source, "debezium", "datops_erp", CHANGES, bench.folder)
            for slot in _OTHER_SLOTS:
                at_source.execute("select pg_drop_replication_slot(%s)", (slot,))
            _compare(bench, done.seconds, native=native, alone=alone, engine=engine)
            at_source.execute(
                f"insert into public.orders select {ROW} from generate_series(10000001, {10_000_000 + LARGE}) n"
            )
            memory = memory_alone(warehouse, _drain_alone, parameters, stream)
            _require_equal(conn, at_source)
            bench.add(Comparison(
                "cdc.memory_5m_rows.vs_limit", 300 / memory["together_mb"], 1, memory, {"together_mb": 300.0},
                "one transaction of 5 million rows; client and the backends of the server, private pages",
            ))  # fmt: skip


def _compare(bench: Bench, seconds: float, *, native: float, alone: float, engine: float | None) -> None:
    note = f"{CHANGES} changes of 10 columns; change log and mirror written"
    ours = {"seconds": seconds, "changes_per_s": CHANGES / seconds}
    bench.add(Comparison(
        "cdc.catch_up.vs_native_subscription", native / seconds, 1.5, ours,
        {"seconds": native, "changes_per_s": CHANGES / native}, f"{note}; the subscription writes the mirror only",
    ))  # fmt: skip
    bench.add(Comparison("cdc.catch_up.vs_slot_read", alone / seconds, None, ours, {"seconds": alone}, note))
    if engine is not None:
        bench.add(Comparison(
            "cdc.catch_up.vs_debezium", engine / seconds, 1, ours, {"seconds": engine},
            f"{note}; {DEBEZIUM} hands the changes to Python as JSON and writes nothing",
        ))  # fmt: skip


def stream_of(source: Warehouse) -> ChangeStream:
    """The stream that follows a bench source's table."""
    table = StreamedTable("orders", "public", "orders")
    return ChangeStream("erp", f"datops_{source.dbname}"[:60], "datops_erp", (table,))


def _drain_alone(warehouse: Warehouse, parameters: dict[str, Any], stream: ChangeStream) -> None:
    with warehouse.connect() as conn, lease(conn, "erp"):
        drain(conn, parameters, stream)


@contextmanager
def bench_source(bench: Bench) -> Iterator[Warehouse]:
    """A database to follow: one table, published, and empty."""
    name = f"bench_source_{time.monotonic_ns()}"
    with bench.warehouse.connect() as admin:
        admin.execute(f"create database {name}")
        source = bench.warehouse.at(name)
        with source.connect() as conn:
            conn.execute(TABLE)
            conn.execute("create publication datops_erp for table public.orders")
        try:
            yield source
        finally:
            admin.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s",
                (name,),
            )
            admin.execute(f"drop database {name} with (force)")


def subscribe(conn: Any, source: Any, where: Warehouse) -> None:
    """The same table in the warehouse, for PostgreSQL's own apply worker; it waits until it is enabled."""
    conn.execute(TABLE)
    source.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (NATIVE,))
    address = " ".join(
        f"{key}={value}"
        for key, value in where.parameters().items()
        if key in ("host", "port", "user", "password", "dbname")
    )
    conn.execute(
        f"create subscription {NATIVE} connection '{address}' publication datops_erp"
        f" with (create_slot = false, slot_name = {NATIVE}, enabled = false, copy_data = false, binary = true)"
    )


def _write(source: Warehouse) -> None:
    with source.connect() as conn:
        for first in range(1, INSERTS, PER_TRANSACTION):
            conn.execute(
                f"insert into public.orders select {ROW} from generate_series({first}, {first + PER_TRANSACTION - 1}) n"
            )
        for first in range(1, UPDATES, PER_TRANSACTION):
            last = first + PER_TRANSACTION - 1
            conn.execute(
                "update public.orders set status = 'changed', total = total + 1"
                f" where order_id between {first} and {last}"
            )
        for first in range(UPDATES + 1, UPDATES + DELETES, PER_TRANSACTION):
            conn.execute(
                f"delete from public.orders where order_id between {first} and {first + PER_TRANSACTION - 1}"
            )


def _catch_up_natively(conn: Any, source: Any) -> float:
    row = source.execute("select pg_current_wal_lsn()").fetchone()
    started = time.perf_counter()
    conn.execute(f"alter subscription {NATIVE} enable")
    query = "select confirmed_flush_lsn >= %s from pg_replication_slots where slot_name = %s"
    while source.execute(query, (row[0], NATIVE)).fetchone() != (True,):
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    unsubscribe(conn)
    return seconds


def unsubscribe(conn: Any) -> None:
    """End PostgreSQL's own subscription; its slot goes with the source."""
    conn.execute(f"alter subscription {NATIVE} disable")
    conn.execute(f"alter subscription {NATIVE} set (slot_name = none)")
    conn.execute(f"drop subscription {NATIVE}")


def _read_alone(source: Any, parameters: dict[str, Any]) -> float:
    """The messages of the same log, thrown away."""
    emit(source, "read alone")
    started = time.perf_counter()
    with (
        replication_connection(parameters) as conn,
        Receiver(conn, "alone", "datops_erp", 0, binary=True) as receiver,
    ):
        for batch in receiver.batches(0.1):
            if any(data[0] == ord("M") and data.endswith(b"read alone") for data in batch):
                break
    return time.perf_counter() - started


def _require_equal(conn: Any, source: Any) -> None:
    query = "select count(*), sum(hashtextextended(t::text, 0)) from {} t"
    here = conn.execute(query.format("bronze.erp_orders")).fetchone()
    assert here == source.execute(query.format("public.orders")).fetchone(), "the mirror is not the source"
