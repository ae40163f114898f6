"""Bronze to silver against a bare INSERT … SELECT with the same casts into the same table with the same key."""

from __future__ import annotations

import time
from typing import Any

from psycopg import sql

from benchmarks.files_to_bronze import COLUMNS, load, write_csv
from benchmarks.harness import Bench, Comparison, memory_alone
from datops_assets.quality import Contract, judge_table
from datops_assets.resources.warehouse import Warehouse

SIZES = (1_000_000, 10_000_000)
ROUNDS = {1_000_000: 3, 10_000_000: 1}
AIM = 0.4
CONTRACT: dict[str, Any] = {
    "key": ["order_id"],
    "latest_by": "updated_at",
    "columns": {
        "order_id": {"type": "bigint", "required": True, "min": 0},
        "customer_id": {"type": "bigint", "required": True},
        "status": {"type": "text", "required": True, "in": ["placed", "paid", "shipped", "delivered"]},
        "ordered_at": {"type": "timestamptz", "required": True},
        "updated_at": {"type": "timestamptz", "required": True},
        "currency": {"type": "text", "required": True, "in": ["EUR", "USD"]},
        "items": {"type": "integer", "required": True, "min": 1},
        "total": {"type": "numeric(12,2)", "required": True, "min": 0},
        "email": {"type": "text", "regex": "^[^@ ]+@[^@ ]+$"},
        "note": {"type": "text", "length": {"max": 200}},
    },
}


def measure(bench: Bench) -> None:
    """Time and peak memory at one and at ten million rows."""
    print(f"contract: {CONTRACT}")
    for rows in SIZES:
        file = bench.folder / f"silver_{rows}" / "orders.csv"
        write_csv(file, rows, quoted=False)
        with bench.database() as database:
            load(database, file)
            file.unlink()
            ours, theirs, memory = _alternate(bench, database, rows)
        bench.add(
            Comparison(
                f"quality.to_silver_{rows // 1_000_000}m.vs_insert_select",
                ratio=theirs / ours,
                aim=AIM,
                datops={"seconds": ours, "rows_per_s": round(rows / ours), **memory},
                other={"seconds": theirs, "rows_per_s": round(rows / theirs)},
                note=f"{rows:,} rows, ten columns, a key; best of {ROUNDS[rows]}",
            )
        )


def _alternate(bench: Bench, database: Warehouse, rows: int) -> tuple[float, float, dict[str, float]]:
    ours = theirs = float("inf")
    with database.connect() as conn:
        (source_table,) = conn.execute(
            "select name from datops.tables where source = 'bench'"
        ).fetchone() or ("",)
        for _ in range(ROUNDS[rows]):
            _forget_silver(conn, source_table)
            bench.settle()
            started = time.perf_counter()
            _judge(database, source_table, rows)
            ours = min(ours, time.perf_counter() - started)
            bench.settle()
            theirs = min(theirs, _insert_select(conn, source_table))
        conn.execute("drop table bare")
        _forget_silver(conn, source_table)
        return ours, theirs, memory_alone(database, _judge, source_table, rows)


def _judge(database: Warehouse, table: str, rows: int) -> None:
    contract = Contract.model_validate(CONTRACT)
    with database.connect() as conn:
        judged = judge_table(conn, source="bench", table=table, contract=contract, disposition="merge")
    assert judged.rows_passed == rows, judged


def _forget_silver(conn: Any, table: str) -> None:
    """As if bronze had just been loaded."""
    conn.execute(sql.SQL("drop table if exists silver.{}").format(sql.Identifier(f"bench_{table}")))
    conn.execute(
        "truncate datops.judged_loads, datops.check_results, datops.metrics,"
        " datops.judgements, datops.contracts cascade"
    )


def _insert_select(conn: Any, table: str) -> float:
    casts = [part.split(maxsplit=1) for part in COLUMNS.split(", ")]
    selected = ", ".join(f"{name}::{type_}" for name, type_ in casts)
    conn.execute("drop table if exists bare")
    started = time.perf_counter()
    with conn.transaction():
        conn.execute(f"create table bare ({COLUMNS}, _load_id bigint, _row bigint)")
        conn.execute("create unique index on bare (order_id)")
        conn.execute(
            sql.SQL("insert into bare select " + selected + ", _load_id, _row from bronze.{}").format(
                sql.Identifier(f"bench_{table}")
            )
        )
    return time.perf_counter() - started
