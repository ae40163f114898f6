"""Files to bronze: CSV against `\\copy` of the same bytes, Parquet against ADBC's bulk ingest of the same file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from benchmarks.harness import Bench, Comparison, best_of, memory_alone
from datops_assets.ingestion import FileSource, FileTable, load_table
from datops_assets.resources.warehouse import Warehouse

ROWS = 1_000_000
ROUNDS = 3
COLUMNS = (
    "order_id bigint, customer_id bigint, status text, ordered_at timestamptz, updated_at timestamptz, "
    "currency text, items integer, total numeric(12,2), email text, note text"
)


def measure(bench: Bench) -> None:
    """CSV without and with quotes, Parquet; one million orders each, and the memory of each load."""
    for quoted in (False, True):
        name = "csv_quoted" if quoted else "csv"
        file = bench.folder / name / "orders.csv"
        write_csv(file, ROWS, quoted=quoted)
        _compare(bench, f"ingestion.{name}_to_bronze.vs_copy", file, _copy, aim=0.8)
    file = bench.folder / "parquet" / "orders.parquet"
    file.parent.mkdir()
    pyarrow.parquet.write_table(orders(ROWS), file)
    _compare(bench, "ingestion.parquet_to_bronze.vs_adbc", file, _adbc, aim=0.9)


def orders(rows: int, start: int = 0) -> pa.Table:
    """Made-up orders: ids, a skewed status, times to the second, amounts, mail addresses, a note."""
    draws = np.random.default_rng(7)
    numbers = np.arange(start, start + rows, dtype=np.int64)
    seconds = pa.array(numbers * 7 + 1_600_000_000).cast(pa.timestamp("s", "UTC"))
    customers = draws.integers(1, 200_000, rows)
    texts = pa.array(numbers.astype(str))
    return pa.table(
        {
            "order_id": pa.array(numbers),
            "customer_id": pa.array(customers),
            "status": pa.array(
                np.array(["placed", "paid", "shipped", "delivered"])[draws.integers(0, 4, rows)]
            ),
            "ordered_at": seconds.cast(pa.timestamp("us", "UTC")),
            "updated_at": seconds.cast(pa.timestamp("us", "UTC")),
            "currency": pa.array(np.array(["EUR", "USD"])[draws.integers(0, 2, rows)]),
            "items": pa.array(draws.integers(1, 9, rows).astype(np.int32)),
            "total": pa.array(draws.integers(100, 999_999, rows))
            .cast(pa.decimal128(19, 0))
            .cast(pa.decimal128(12, 2), safe=False),
            "email": pc.binary_join_element_wise("customer", texts, "@example.com", "."),
            "note": pc.binary_join_element_wise("leave it at the door of number", texts, " "),
        }
    )


def write_csv(file: Path, rows: int, *, quoted: bool, start: int = 0, piece: int = 1_000_000) -> None:
    """The same orders as text; `quoted` puts the text columns into quotes. Written in pieces, so at any size."""
    file.parent.mkdir(exist_ok=True)
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed" if quoted else "none")
    with file.open("wb") as out:
        out.write((",".join(part.split()[0] for part in COLUMNS.split(", ")) + "\n").encode())
        for first in range(start, start + rows, piece):
            pyarrow.csv.write_csv(_as_text(orders(min(piece, start + rows - first), first)), out, options)


def _as_text(table: pa.Table) -> pa.Table:
    for name in ("ordered_at", "updated_at"):
        text = pc.strftime(table[name].cast(pa.timestamp("s", "UTC")), format="%Y-%m-%dT%H:%M:%SZ")
        table = table.set_column(table.schema.get_field_index(name), name, text)
    return table


def _compare(
    bench: Bench, key: str, file: Path, other: Callable[[Bench, Warehouse, Path], None], aim: float
) -> None:
    with bench.database() as database:
        sides: list[Callable[[], Any]] = [lambda: load(database, file), lambda: other(bench, database, file)]
        ours, theirs = best_of(ROUNDS, bench, *sides)
    with bench.database() as database:
        memory = memory_alone(database, load, file)
    megabytes = file.stat().st_size / 1e6
    bench.add(
        Comparison(
            key,
            ratio=theirs / ours,
            aim=aim,
            datops={
                "seconds": ours,
                "mb_per_s": megabytes / ours,
                "rows_per_s": round(ROWS / ours),
                **memory,
            },
            other={"seconds": theirs, "mb_per_s": megabytes / theirs},
            note=f"{ROWS:,} rows, {megabytes:.0f} MB, best of {ROUNDS}",
        )
    )


_number = iter(range(1_000_000))


def load(database: Warehouse, file: Path) -> None:
    """Load one file into a bronze table of its own."""
    table = FileTable(source="bench", name=f"t{next(_number)}", root=file.parent, pattern=file.name)
    with database.connect() as conn:
        loaded = load_table(conn, FileSource(), table, batch="bench", adbc_url=database.url)
    assert loaded.rows_added, loaded.results


def _copy(bench: Bench, database: Warehouse, file: Path) -> None:
    name = f"copied_{next(_number)}"
    columns = ", ".join(f"{part.split()[0]} text" for part in COLUMNS.split(", "))
    script = f"create table {name} ({columns});\n\\copy {name} from '{file}' with (format csv, header)\n"
    command = [str(bench.bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1"]
    environment = {**os.environ, **database.libpq_environment()}
    subprocess.run(command, input=script.encode(), env=environment, check=True)


def _adbc(bench: Bench, database: Warehouse, file: Path) -> None:
    del bench
    with adbc.connect(database.url) as conn, conn.cursor() as cursor:
        reader = pyarrow.parquet.ParquetFile(file)
        batches = pa.RecordBatchReader.from_batches(reader.schema_arrow, reader.iter_batches())
        cursor.adbc_ingest(f"ingested_{next(_number)}", batches, mode="create")
        conn.commit()
