"""A try-out shows what a run would do, and leaves everything real as it is."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from datops_assets.components.document import PipelineDocument
from datops_assets.components.documents import read_documents
from datops_assets.components.runner import PipelineRun, run_pipeline
from datops_assets.components.try_out import try_out
from datops_assets.errors import DeclarationError, WarehouseError
from datops_assets.ingestion import FileTable
from datops_assets.ingestion.files import FileSource
from datops_assets.ingestion.sampled import Sampled
from datops_assets.resources.scratch_database import scratch_database

ROOT = Path(__file__).parents[2]
DOCUMENT = """\
pipeline: shop
team: commerce
source: {type: files, path: landing}
retries: {max: 0}
tables:
  orders:
    files: orders/*
    format: csv
    load: merge
    contract:
      key: [order_id]
      columns:
        order_id: {type: bigint, required: true}
        customer_id: {type: bigint}
      rules:
        - {name: known_customer, foreign_key: [customer_id], references: customers, columns: [customer_id]}
        - {row_count: {min: 100}, severity: block}
  customers:
    files: customers/*
    format: csv
    load: merge
    contract:
      key: [customer_id]
      columns:
        customer_id: {type: bigint, required: true}
  notes:
    files: notes/*.jsonl
"""


@pytest.fixture
def document(project: Path) -> PipelineDocument:
    """Two customers, three orders in two files (one refers to nobody), three notes."""
    (project / "pipeline.yaml").write_text(DOCUMENT)
    put(project, "customers/1.csv", "customer_id\n1\n2\n")
    put(project, "orders/1.csv", "order_id,customer_id\n10,1\n11,2\n")
    put(project, "orders/2.csv", "order_id,customer_id\n12,9\nx,1\n13,1\n")
    put(project, "notes/1.jsonl", '{"a": 1}\n{"a": [2]}\n{"a": 3}\n')
    (loaded,) = read_documents(project / "pipeline.yaml", project)
    return loaded.document


def put(project: Path, path: str, content: str | bytes) -> None:
    """Write a file below the landing folder."""
    file = project / "landing" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def attempt(document: PipelineDocument, project: Path, **options) -> PipelineRun:
    """A try-out of two records a file into schema `trial`."""
    return try_out(document, project, **{"tables": [], "rows": 2, "schema": "trial", **options})


def everything(warehouse) -> dict[str, str]:
    """Every real table of the warehouse and a hash of its rows."""
    tables = warehouse.fetch(
        "select schemaname, tablename from pg_tables where schemaname = any(%s)",
        ["bronze", "silver", "quarantine", "gold", "datops"],
    )
    query = "select md5(string_agg(t::text, ',' order by t::text)) from {} t"
    return {
        f"{schema}.{table}": warehouse.conn.execute(
            sql.SQL(query).format(sql.Identifier(schema, table))
        ).fetchone()[0]
        for schema, table in tables
    }


def scratch_databases(warehouse) -> list[str]:
    """Scratch databases of this warehouse."""
    return [
        name
        for (name,) in warehouse.fetch(
            "select datname from pg_database where starts_with(datname, 'datops_try_out_' ||"
            " (select oid from pg_database where datname = current_database()) || '_')"
        )
    ]


def test_the_first_records_of_each_file_go_the_real_way_and_stay_to_be_looked_at(
    document, project, warehouse
):
    result = attempt(document, project)
    assert result.success, result.problems
    by_table = {table.table: table for table in result.tables}
    assert (
        by_table["orders"].files_loaded,
        by_table["orders"].rows_added,
        by_table["orders"].rows_passed,
    ) == (2, 4, 3)
    assert warehouse.fetch("select order_id from trial.silver_orders order by 1") == [(10,), (11,), (12,)]
    delivered = warehouse.fetch("select order_id from trial.bronze_orders order by _load_id, _row")
    assert delivered == [("10",), ("11",), ("12",), ("x",)]
    reasons = warehouse.fetch("select unnest(reasons) from trial.quarantine_orders")
    assert reasons == [("order_id: not a whole number (bigint)",)]
    assert warehouse.fetch("select a::text from trial.bronze_notes order by _row") == [("1",), ("[2]",)]
    assert warehouse.fetch("select to_regclass('trial.silver_notes')") == [(None,)]


def test_rules_that_a_sample_cannot_be_judged_by_are_named(document, project):
    notes = attempt(document, project).notes
    assert "not judged: shop.orders: known_customer: shop.customers has no silver yet" in notes
    assert "not judged: shop.orders: row_count_of_the_table: a sample says nothing of it" in notes


def test_foreign_keys_are_judged_against_the_real_silver(document, project, warehouse):
    run_pipeline(document, project, tables=["customers"])
    result = attempt(document, project, rows=1)
    assert not [note for note in result.notes if "known_customer" in note]
    # Customer 2 is not among the first records of its file, yet known; 9 is nobody.
    put(project, "orders/3.csv", "order_id,customer_id\n14,2\n")
    attempt(document, project, rows=1)
    assert warehouse.fetch("select order_id from trial.silver_orders order by 1") == [(10,), (14,)]
    assert warehouse.fetch("select reasons from trial.quarantine_orders") == [
        (["customer_id: not in customers"],)
    ]
    assert warehouse.fetch("select customer_id from trial.silver_customers") == [(1,)]


def test_nothing_real_is_touched_and_no_database_is_left(document, project, warehouse):
    run_pipeline(document, project)
    put(project, "orders/3.csv", "order_id,customer_id\n14,2\n")
    before = everything(warehouse)
    attempt(document, project)
    assert everything(warehouse) == before
    assert scratch_databases(warehouse) == []


def test_a_table_without_a_file_is_said_so(document, project):
    (project / "landing" / "notes" / "1.jsonl").rename(project / "landing" / "notes" / "1.jsonl.tmp")
    (note,) = [note for note in attempt(document, project, tables=["notes"]).notes if "shop.notes" in note]
    assert note == f"shop.notes: nothing is ready: no file matches notes/*.jsonl below {project / 'landing'}"


def test_the_next_try_out_replaces_the_results_of_its_tables(document, project, warehouse):
    attempt(document, project)
    attempt(document, project, rows=1, tables=["orders"])
    assert warehouse.fetch("select count(*) from trial.bronze_orders") == [(2,)]
    assert warehouse.fetch("select count(*) from trial.bronze_notes") == [(2,)]


def test_a_refused_file_fails_the_try_out_and_the_others_are_shown(document, project, warehouse):
    put(project, "orders/3.csv", b"\x1f\x8b not gzip")
    result = attempt(document, project)
    assert not result.success
    assert "orders/3.csv" in result.problems[0]
    assert warehouse.fetch("select count(*) from trial.silver_orders") == [(3,)]


@pytest.mark.parametrize(
    "schema", ["bronze", "datops", "public", "pg_temp", "Trial", 'x"; drop schema silver', ""]
)
def test_only_a_plain_name_of_its_own_is_a_schema(document, project, schema):
    with pytest.raises(DeclarationError, match="--into"):
        attempt(document, project, schema=schema)


def test_a_schema_of_somebody_else_is_left_alone(document, project, warehouse):
    warehouse.conn.execute("create schema trial; create table trial.bronze_orders (mine int)")
    with pytest.raises(DeclarationError, match="no try-out made it"):
        attempt(document, project)
    assert warehouse.fetch("select * from trial.bronze_orders") == []


def test_a_view_on_the_last_results_is_not_dropped_unasked(document, project, warehouse):
    attempt(document, project)
    warehouse.conn.execute("create view trial.mine as select * from trial.silver_orders")
    with pytest.raises(WarehouseError, match="drop it, or choose another --into"):
        attempt(document, project)
    assert warehouse.fetch("select count(*) from trial.mine") == [(3,)]
    assert scratch_databases(warehouse) == []


def test_without_the_right_to_create_a_database_it_is_one_sentence(document, project, warehouse, monkeypatch):
    role, dbname = f"limited_{os.getpid()}", warehouse.warehouse.dbname
    warehouse.conn.execute(f"create role {role} login superuser password 'p'")
    try:
        run_pipeline(document, project, tables=["customers"])
        warehouse.conn.execute(f"alter role {role} nosuperuser; grant all on database {dbname} to {role}")
        warehouse.conn.execute(f"grant all on schema datops, silver, bronze, quarantine, gold to {role}")
        warehouse.conn.execute(f"grant all on all tables in schema datops, silver to {role}")
        warehouse.conn.execute(f"grant datops_reader to {role}")
        limited = warehouse.url.replace(
            f"{warehouse.warehouse.user}:{warehouse.warehouse.password}", f"{role}:p"
        )
        monkeypatch.setenv("DATOPS_WAREHOUSE_URL", limited)
        with pytest.raises(WarehouseError, match=r"may not create a database.*createdb"):
            attempt(document, project)
    finally:
        warehouse.conn.execute(f"drop owned by {role}; drop role {role}")


def test_what_a_killed_try_out_left_is_dropped_by_the_next(document, project, warehouse):
    program = (
        "import sys, time; from datops_assets.config.settings import read_settings;"
        "from datops_assets.resources.warehouse import open_warehouse;"
        "from datops_assets.resources.scratch_database import scratch_database as s\n"
        "with s(open_warehouse(read_settings())) as d: print(d.dbname, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    with scratch_database(warehouse.warehouse) as other:
        assert sorted(scratch_databases(warehouse)) == sorted([name, other.dbname])
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    _until_gone(warehouse, name)
    assert scratch_databases(warehouse) == [name]
    attempt(document, project)
    assert scratch_databases(warehouse) == []


def _until_gone(warehouse, name: str) -> None:
    """The server notices a dead client when it next looks at its socket."""
    held = "select pg_try_advisory_lock(hashtextextended(%s, 0))"
    for _ in range(100):
        if warehouse.fetch(held, name) == [(True,)]:
            warehouse.fetch("select pg_advisory_unlock(hashtextextended(%s, 0))", name)
            return
        time.sleep(0.05)
    raise AssertionError("the lock of a dead process is still held")


def sample(folder: Path, name: str, content: bytes, rows: int, **declared) -> bytes:
    """What is delivered of a file when only its first records are wanted."""
    (folder / name).write_bytes(content)
    table = FileTable(source="shop", name="orders", root=folder, pattern="*", **declared)
    source = Sampled(FileSource(), table, rows)
    (unit,) = source.list_units(table)
    with source.open(unit) as delivery:
        return b"".join(delivery.chunks())


@pytest.mark.parametrize(
    ("name", "content", "rows", "expected"),
    [
        ("a.csv", b"\xef\xbb\xbfa,b\r\n1,2\r\n3,4\r\n5,6\r\n", 2, b"\xef\xbb\xbfa,b\r\n1,2\r\n3,4\r\n"),
        ("a.csv", b'a\n"1\n2"\n3\n', 1, b'a\n"1\n2"\n'),
        ("a.csv", b"a\n1", 5, b"a\n1"),
        ("a.csv", b"", 5, b""),
        ("a.csv.gz", gzip.compress(b"a\n1\n2\n", mtime=0), 1, b"a\n1\n"),
        ("a.csv", b"a,b\n1\n2,2\n", 1, b"a,b\n1\n"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": 2}\n{"a": 3}', 2, b'{"a": 1}\n\n{"a": 2}\n'),
        ("a.json", b'[{"a": 1}, {"a": 2}, {"a": 3}]', 2, b'[{"a": 1}, {"a": 2}]'),
        ("a.json", b"[ ]", 2, b"[ ]"),
    ],
)
def test_a_sample_is_the_beginning_of_the_file(tmp_path, name, content, rows, expected):
    assert sample(tmp_path, name, content, rows) == expected


def test_a_sample_of_a_document_is_closed_where_it_is_cut(tmp_path):
    content = b'{"n": 9, "data": {"items": [{"a": 1}, {"a": 2}], "more": 1}, "z": 2}'
    cut = sample(tmp_path, "a.json", content, 1, records="data.items")
    assert json.loads(cut) == {"n": 9, "data": {"items": [{"a": 1}]}}


def test_a_sample_keeps_the_encoding_of_the_file(tmp_path):
    from datops_assets.ingestion import CsvOptions

    text = "a;b\nö;1\nü;2\n"
    for encoding in ("latin-1", "utf-16"):
        cut = sample(tmp_path, "a.csv", text.encode(encoding), 1, csv=CsvOptions(";", encoding))
        assert cut.decode(encoding) == "a;b\nö;1\n"


def test_a_sample_of_parquet_has_its_first_rows(tmp_path):
    pq.write_table(pa.table({"a": list(range(70_000))}), tmp_path / "a.parquet")
    table = FileTable(source="shop", name="orders", root=tmp_path, pattern="*")
    source = Sampled(FileSource(), table, 66_000)
    (unit,) = source.list_units(table)
    with source.open(unit) as delivery:
        batches = [batch["a"].to_pylist() for batch in delivery.batches()]
        assert len(delivery.content_hash()) == 64
    assert len(batches) > 1
    assert [n for batch in batches for n in batch] == list(range(66_000))
