"""A store whose runs die, and what its tables must hold once a run came to its end: reckoned apart, in plain Python."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datops_assets_tests.conftest import TestWarehouse

ROOT = Path(__file__).parents[2]
RUN = ["pipeline", "run", "--config", "pipeline.yaml", "--json"]
DOCUMENT = """\
pipeline: store
team: commerce
source: {type: files, path: landing}
retries: {max: 0}
tables:
  orders:
    files: orders/*.csv
    load: merge
    contract:
      key: [id]
      latest_by: version
      columns:
        id: {type: bigint, required: true}
        total: {type: integer, min: 0}
        version: {type: bigint, required: true}
  events:
    files: events/*.jsonl
    contract: {columns: {n: {type: bigint, required: true}}}
  payments:
    files: payments/*.parquet
    contract: {columns: {n: {type: bigint, required: true}}}
  stock:
    files: stock/*.csv
    load: replace
    contract: {key: [item], columns: {item: {type: bigint}, count: {type: integer, min: 0}}}
"""
BROKEN = "broken"
"""A record that cannot be read; a negative or missing number is one that the contract refuses."""


class Nursery:
    """The process that the dying ones come from."""

    def __init__(self) -> None:
        program = Path(__file__).with_name("nursery.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, failpoint: str = "", hits: int = 1, *, function: str = "", record: str = "") -> int:
        """Start a run of the document in the current folder; answers its process id."""
        where = {"cwd": str(Path.cwd()), "environ": dict(os.environ), "arguments": RUN}
        wish = {**where, "failpoint": failpoint, "hits": hits, "function": function, "record": record}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def end(self) -> int:
        """How the run ended: its exit code, or the negative number of the signal."""
        return int(self._answer())

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@dataclass
class Store:
    """The landing folder, what was written into it, and the warehouse."""

    folder: Path
    warehouse: TestWarehouse
    draw: random.Random
    files: dict[str, list[Any]] = field(default_factory=dict)
    made: int = 0

    def deliver(self, path: str, records: int = 40) -> None:
        """Write a file, or write it anew: some records repeat a key, some are refused, one is broken."""
        rows: list[Any] = [self._record() for _ in range(records)]
        if not path.endswith(".parquet"):
            rows.insert(self.draw.randrange(records), BROKEN)
        self.files[path] = rows
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_name(f".{file.name}")
        written.write_bytes(_render(path, rows))
        written.replace(file)

    def _record(self) -> tuple[int, int | None, int]:
        """(key, number that may be refused, a version that no other record has)."""
        self.made += 1
        return self.draw.randrange(60), self.draw.choice([None, -1, *range(1, 12)]), self.made

    def something(self) -> None:
        """Deliver a new file or change a known one, of any table."""
        table, ending = self.draw.choice(
            [("orders", "csv"), ("events", "jsonl"), ("payments", "parquet"), ("stock", "csv")]
        )
        number = 0 if table == "stock" else self.draw.randrange(6)
        self.deliver(f"{table}/{number}.{ending}", self.draw.randrange(1, 60))

    def require_nothing_half(self) -> None:
        """Whatever moment a run died at: rows belong to loads that came to their end, each once."""
        for table in self._tables("bronze"):
            half = (
                f"select count(*) from bronze.{table} left join datops.loads on load_id = _load_id"
                " where state is null or state not in ('loaded', 'staged', 'superseded')"
            )
            assert self.warehouse.fetch(half) == [(0,)], table
            twice = f"select 1 from bronze.{table} group by _load_id, _row having count(*) > 1"
            assert self.warehouse.fetch(twice) == [], table
        assert not [name for name in self._tables("silver") if name.endswith(("__new", "__old"))]

    def require_complete(self) -> None:
        """Every record of every file as it is now: in bronze or set aside; silver as reckoned here."""
        self.require_nothing_half()
        assert self.warehouse.fetch(
            "select count(*) from datops.loads where state in ('loading', 'staged')"
        ) == [(0,)]
        live = self.warehouse.fetch(
            "select path, rows, damaged_rows, load_id, name from datops.loads join datops.tables using (table_id)"
            " where state = 'loaded'"
        )
        assert sorted(path for path, *_ in live) == sorted(self.files)
        for path, rows, damaged, load_id, table in live:
            broken = self.files[path].count(BROKEN)
            assert (rows, damaged) == (len(self.files[path]) - broken, broken), path
            in_bronze = f"select count(*) from bronze.store_{table} where _load_id = %s"
            assert self.warehouse.fetch(in_bronze, load_id) == [(rows,)], path
        for table, columns in (
            ("orders", "id, total, version"),
            ("events", "n"),
            ("payments", "n"),
            ("stock", "item, count"),
        ):
            found = Counter(self.warehouse.fetch(f"select {columns} from silver.store_{table}"))
            assert found == self._silver(table), table
            assert self._refused(table) == Counter(self._quarantined(table)), table

    def _readable(self, table: str) -> list[tuple[int, int | None, int]]:
        paths = [path for path in self.files if path.startswith(table)]
        return [row for path in paths for row in self.files[path] if row != BROKEN]

    def _silver(self, table: str) -> Counter[tuple[Any, ...]]:
        rows = self._readable(table)
        if table in ("events", "payments"):
            return Counter((version,) for _, number, version in rows if number is not None)
        passing = [row for row in rows if row[1] is None or row[1] >= 0]
        newest = {
            key: (key, number, version) for key, number, version in sorted(passing, key=lambda row: row[2])
        }
        if table == "orders":
            return Counter(newest.values())
        return Counter((key, number) for key, number, _ in newest.values())

    def _refused(self, table: str) -> Counter[int]:
        """How many rows of each file the contract refuses."""
        per_path = Counter[int]()
        for path, rows in self.files.items():
            if path.startswith(table):
                bad = [row for row in rows if row != BROKEN and _is_refused(table, row[1])]
                per_path[len(bad)] += 1 if bad else 0
        return +per_path

    def _quarantined(self, table: str) -> Iterator[int]:
        rows = self.warehouse.fetch(
            f"select count(*) from quarantine.store_{table} join datops.loads on load_id = _load_id"
            " where stage = 'silver' and state = 'loaded' group by _load_id"
        )
        return (count for (count,) in rows)

    def _tables(self, schema: str) -> list[str]:
        rows = self.warehouse.fetch(
            "select relname from pg_class where relnamespace = to_regnamespace(%s) and relkind = 'r'", schema
        )
        return [name for (name,) in rows]


def _is_refused(table: str, number: int | None) -> bool:
    if table in ("events", "payments"):
        return number is None
    return number is not None and number < 0


def _render(path: str, rows: list[Any]) -> bytes:
    if path.endswith(".parquet"):
        buffer = io.BytesIO()
        values = [None if number is None else version for _, number, version in rows]
        pq.write_table(pa.table({"n": pa.array(values, pa.int64())}), buffer)
        return buffer.getvalue()
    if path.endswith(".jsonl"):
        lines = [
            '{"n": ' if row == BROKEN else json.dumps({"n": None if row[1] is None else row[2]})
            for row in rows
        ]
    elif path.startswith("stock"):
        lines = ["item,count", *(BROKEN if row == BROKEN else f"{row[0]},{_cell(row[1])}" for row in rows)]
    else:
        lines = ["id,total,version"]
        lines += [BROKEN if row == BROKEN else f"{row[0]},{_cell(row[1])},{row[2]}" for row in rows]
    return ("\n".join(lines) + "\n").encode()


def _cell(number: int | None) -> str:
    return "" if number is None else str(number)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """One for all tests of this folder."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def store(project: Path, warehouse: TestWarehouse) -> Store:
    """A store with eight files that wait."""
    (project / "pipeline.yaml").write_text(DOCUMENT)
    store = Store(project / "landing", warehouse, random.Random(7))
    for path in ("orders/0.csv", "orders/1.csv", "orders/2.csv", "events/0.jsonl", "events/1.jsonl"):
        store.deliver(path)
    for path in ("payments/0.parquet", "payments/1.parquet", "stock/0.csv"):
        store.deliver(path)
    return store
