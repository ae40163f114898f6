"""Streams: catching up against PostgreSQL's own subscription, reading the slot, and Debezium; and the memory of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.harness import Bench, Comparison, bench_server, memory_alone
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
    with bench.database() as warehouse, bench.database() as other, bench_source() as source:
        stream, unlogged = stream_of(source), stream_of(source, is_logged=False)
        parameters = dict(source.parameters())
        with warehouse.connect() as conn, other.connect() as conn_alone, source.connect() as at_source:
            subscribe(conn, at_source, source)
            for at, to, one in ((conn, warehouse, stream), (conn_alone, other, unlogged)):
                with lease(at, "erp"):
                    take_snapshot(at, to.connect, parameters, one)
            for slot in _OTHER_SLOTS:
                at_source.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
            _write(source)
            at_source.execute("checkpoint")
            bench.settle()
            native = _catch_up_natively(conn, at_source)
            bench.settle()
            read = _read_alone(at_source, parameters)
            bench.settle()
            mirror = _catch_up(conn_alone, at_source, parameters, unlogged)
            bench.settle()
            both = _catch_up(conn, at_source, parameters, stream)
            bench.settle()
            engine = debezium(source, "debezium", "datops_erp", CHANGES, bench.folder)
            for slot in (*_OTHER_SLOTS, unlogged.slot):
                at_source.execute("select pg_drop_replication_slot(%s)", (slot,))
            _compare(bench, both, mirror, native=native, read=read, engine=engine)
            at_source.execute(
                f"insert into public.orders select {ROW} from generate_series(10000001, {10_000_000 + LARGE}) n"
            )
            memory = memory_alone(warehouse, _drain_alone, parameters, stream)
            _require_equal(conn, at_source)
            bench.add(Comparison(
                "cdc.memory_5m_rows.vs_limit", 300 / memory["together_mb"], 1, memory, {"together_mb": 300.0},
                "one transaction of 5 million rows; client and the backends of the server, private pages",
            ))  # fmt: skip


def _compare(
    bench: Bench, both: float, mirror: float, *, native: float, read: float, engine: float | None
) -> None:
    """Seconds of each reader: log and mirror written, mirror alone, PostgreSQL's own, nothing written, Debezium."""
    subscription, nothing = _figures(native), _figures(read)
    bench.add(Comparison(
        "cdc.catch_up.limit.vs_native_subscription", native / read, None, nothing, subscription,
        "the slot is read and nothing is written: what the source's sender leaves any reader of it to reach here",
    ))  # fmt: skip
    for name, seconds, aim, written in (
        ("cdc.catch_up", both, 1.5, "change log and mirror written"),
        ("cdc.catch_up.mirror_alone", mirror, 1.5, "mirror written"),
    ):
        note, ours = f"{CHANGES} changes of 10 columns; {written}", _figures(seconds)
        bench.add(Comparison(
            f"{name}.vs_native_subscription", native / seconds, aim, ours, subscription,
            f"{note}; the subscription writes the mirror only",
        ))  # fmt: skip
        bench.add(Comparison(f"{name}.vs_slot_read", read / seconds, None, ours, nothing, note))
        if engine is not None:
            bench.add(Comparison(
                f"{name}.vs_debezium", engine / seconds, 1, ours, _figures(engine),
                f"{note}; {DEBEZIUM} hands the changes to Python as JSON and writes nothing",
            ))  # fmt: skip


def _figures(seconds: float) -> dict[str, float]:
    return {"seconds": seconds, "changes_per_s": CHANGES / seconds}


def _catch_up(conn: Any, source: Any, parameters: dict[str, Any], stream: ChangeStream) -> float:
    with lease(conn, "erp"):
        done = drain(conn, parameters, stream)
    assert done.changes == CHANGES, done
    _require_equal(conn, source)
    return done.seconds


def stream_of(source: Warehouse, *, is_logged: bool = True) -> ChangeStream:
    """The stream that follows a bench source's table."""
    table = StreamedTable("orders", "public", "orders", is_logged=is_logged)
    slot = f"{'log' if is_logged else 'mirror'}_{source.dbname}"[:60]
    return ChangeStream("erp", slot, "datops_erp", (table,))


def _drain_alone(warehouse: Warehouse, parameters: dict[str, Any], stream: ChangeStream) -> None:
    with warehouse.connect() as conn, lease(conn, "erp"):
        drain(conn, parameters, stream)


@contextmanager
def bench_source() -> Iterator[Warehouse]:
    """A database to follow: one table, published, and empty.

    On a server of its own: a slot reads through all that its server writes, so each reader would read what those
    before it wrote into the warehouse.
    """
    with bench_server() as server:
        with server.warehouse.connect() as conn:
            conn.execute("create database bench_source")
        source = server.warehouse.at("bench_source")
        with source.connect() as conn:
            conn.execute(TABLE)
            conn.execute("create publication datops_erp for table public.orders")
        yield source


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
