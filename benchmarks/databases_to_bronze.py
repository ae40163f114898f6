"""Tables of other databases to bronze: PostgreSQL against a pipe of COPY and against dlt, MariaDB against dlt.

The source is a database on the same server as the warehouse, so both sides share its cores alike. dlt lives in
an environment of its own; of its ways of reading and writing the quickest counts.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pymysql
from sqlalchemy import make_url

from benchmarks.files_to_bronze import COLUMNS, orders, write_csv
from benchmarks.harness import Bench, Comparison, best_of, memory_alone
from datops_assets.ingestion import load_table
from datops_assets.ingestion.database import Address, DatabaseTable, open_database
from datops_assets.resources.warehouse import Warehouse
from datops_assets_tests.ingestion.database import mariadb

ROWS = 1_000_000
ROUNDS = 3
DLT = "dlt[postgres,sql_database,parquet]==1.31.0"
_PEERS = (DLT, "connectorx", "pymysql", "psycopg2-binary", "adbc-driver-postgresql", "adbc-driver-manager")
_DLT_RUN = """
import json, sys, time
import dlt
from dlt.sources.sql_database import sql_table

url, credentials, name, backend, file_format = sys.argv[1:]
options = {} if file_format == "default" else {"loader_file_format": file_format}
started = time.perf_counter()
source = sql_table(credentials=url, table="orders", backend=backend)
pipeline = dlt.pipeline(name, destination=dlt.destinations.postgres(credentials), dataset_name=name)
pipeline.run(source, write_disposition="replace", **options)
print(json.dumps({"seconds": time.perf_counter() - started}))
"""
_WAYS = (("sqlalchemy", "default"), ("connectorx", "parquet"), ("pyarrow", "parquet"))
_MARIADB_TABLE = """
create table orders (order_id bigint primary key, customer_id bigint, status varchar(20), ordered_at datetime(6),
  updated_at datetime(6), currency varchar(3), items int, total decimal(12,2), email varchar(100), note varchar(200))
"""


def measure(bench: Bench) -> None:
    """A million orders from PostgreSQL, and from MariaDB where there is one."""
    python = _dlt_environment(bench.folder)
    file = bench.folder / "orders.csv"
    write_csv(file, ROWS, quoted=False)
    with bench.database() as source, bench.database() as database:
        _fill(bench, source, file)
        _postgres(bench, python, source, database)
    file.unlink()
    try:
        server = mariadb.start()
    except mariadb.NoMariaDbError as error:
        print(f"sources.mariadb.vs_dlt_best: skipped: {error}")
        return
    try:
        _fill_mariadb(server.url)
        with bench.database() as database:
            _mariadb(bench, python, server.url, database)
    finally:
        server.stop()


def load(database: Warehouse, url: str) -> None:
    """Load the table into a bronze table of its own."""
    table = DatabaseTable(
        source="bench", name=f"t{time.monotonic_ns()}", relation="orders", disposition="replace"
    )
    with database.connect() as conn, open_database(Address.parse(url)) as source:
        loaded = load_table(conn, source, table, batch="bench", adbc_url=database.url)
    assert loaded.rows_added == ROWS, loaded.results


def _postgres(bench: Bench, python: Path, source: Warehouse, database: Warehouse) -> None:
    ours, pipe = best_of(
        ROUNDS, bench, lambda: load(database, source.url), lambda: _pipe(bench, source, database)
    )
    memory = memory_alone(database, load, source.url)
    figures = {"seconds": ours, "rows_per_s": round(ROWS / ours), **memory}
    note = f"{ROWS:,} rows of ten columns, best of {ROUNDS}"
    bench.add(Comparison("sources.postgres.vs_copy_pipe", pipe / ours, 0.9, figures, {"seconds": pipe}, note))
    url = source.url.replace("postgresql://", "postgresql+psycopg2://")
    best = _dlt_best(bench, python, url, database)
    note = f"{note}; {DLT}, best of {', '.join(f'{a} + {b}' for a, b in _WAYS)}"
    bench.add(Comparison("sources.postgres.vs_dlt_best", min(best.values()) / ours, 1.0, figures, best, note))


def _mariadb(bench: Bench, python: Path, url: str, database: Warehouse) -> None:
    (ours,) = best_of(ROUNDS, bench, lambda: load(database, url))
    memory = memory_alone(database, load, url)
    best = _dlt_best(bench, python, url, database)
    figures = {"seconds": ours, "rows_per_s": round(ROWS / ours), **memory}
    note = f"{ROWS:,} rows of ten columns, best of {ROUNDS}; {DLT}"
    bench.add(Comparison("sources.mariadb.vs_dlt_best", min(best.values()) / ours, 1.0, figures, best, note))


def _fill(bench: Bench, source: Warehouse, file: Path) -> None:
    create = f"create table orders ({COLUMNS}, primary key (order_id));"
    script = f"{create}\n\\copy orders from '{file}' with (format csv, header)\n"
    subprocess.run(
        [str(bench.bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1"],
        input=script.encode(), env={**os.environ, **source.libpq_environment()}, check=True,
    )  # fmt: skip
    with source.connect() as conn:
        conn.execute("vacuum analyze orders")


def _pipe(bench: Bench, source: Warehouse, database: Warehouse) -> None:
    """`psql COPY | psql COPY` into a table like ours, but for the columns that say where a row came from."""
    name = f"piped_{time.monotonic_ns()}"
    with database.connect() as conn:
        conn.execute(f"create table {name} ({COLUMNS})")
    psql = shlex.quote(str(bench.bin / "psql"))
    reads = f"env {_shell(source)} {psql} -X -q -c 'copy orders to stdout'"
    writes = f"env {_shell(database)} {psql} -X -q -c 'copy {name} from stdin'"
    subprocess.run(["bash", "-o", "pipefail", "-c", f"{reads} | {writes}"], check=True)


def _shell(warehouse: Warehouse) -> str:
    return " ".join(f"{key}={shlex.quote(value)}" for key, value in warehouse.libpq_environment().items())


def _fill_mariadb(url: str) -> None:
    address = make_url(url)
    table = orders(ROWS).to_pylist()
    with (
        pymysql.connect(
            host=address.host, port=address.port or 0, user=address.username, password=str(address.password),
            database=address.database, autocommit=False,
        ) as conn,
        conn.cursor() as cursor,
    ):  # fmt: skip
        cursor.execute(_MARIADB_TABLE)
        names = list(table[0])
        statement = f"insert into orders ({', '.join(names)}) values ({', '.join(['%s'] * len(names))})"
        for start in range(0, ROWS, 10_000):
            cursor.executemany(statement, [list(row.values()) for row in table[start : start + 10_000]])
        conn.commit()


def _dlt_environment(folder: Path) -> Path:
    """Return the Python of a new environment with dlt and the drivers that its quick ways need."""
    environment = folder / "dlt_databases"
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *_PEERS], check=True)
    return python


def _dlt_best(bench: Bench, python: Path, url: str, database: Warehouse) -> dict[str, float]:
    """Seconds of each of dlt's ways that works here."""
    seconds = {}
    for backend, file_format in _WAYS:
        name = f"dlt_{time.monotonic_ns()}"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PG")},
            "DLT_DATA_DIR": str(bench.folder / "dlt_data"),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "ERROR",
        }
        bench.settle()
        done = subprocess.run(
            [python, "-c", _DLT_RUN, url, database.url, name, backend, file_format],
            env=environment, cwd=bench.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            print(f"dlt with {backend} and {file_format} does not run here: {done.stderr[-300:]}")
            continue
        with database.connect() as conn:
            found = conn.execute(f"select count(*) from {name}.orders").fetchone()
            assert found == (ROWS,), found
            conn.execute(f"drop schema {name} cascade")
        seconds[f"seconds_{backend}_{file_format}"] = float(
            json.loads(done.stdout.splitlines()[-1])["seconds"]
        )
    return seconds
