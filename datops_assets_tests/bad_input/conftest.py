"""A small platform to mistreat: one document, one landing folder, and an account of every record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from typer.testing import CliRunner

from datops_assets_tests.conftest import TestWarehouse

ROOT = Path(__file__).parents[2]
MAIN = "import sys; from datops_assets.cli import main; sys.argv[0] = 'datops'; main()"
RUN = ("pipeline", "run", "--config", "pipeline.yaml", "--json")
CANARY = "hunter2-cell"
"""A value that stands in cells and passwords; no answer and no catalogue entry may repeat it."""
GOOD = "good"
"""Name of the neighbour that must arrive whatever happens beside it."""


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return self.stdout + self.stderr

    @property
    def result(self) -> dict[str, Any]:
        """The JSON document on stdout."""
        return json.loads(self.stdout)

    @property
    def problems(self) -> str:
        """What went wrong, in sentences."""
        return "\n".join(self.result["problems"])

    def table(self, name: str) -> dict[str, Any]:
        return next(table for table in self.result["tables"] if table["table"] == name)


@dataclass
class Platform:
    """One project with one document, `store`."""

    project: Path
    warehouse: TestWarehouse
    tables: dict[str, str] = field(default_factory=dict)

    def declare(self, table: str, body: str) -> None:
        """Add a table to the document, or change it."""
        self.tables[table] = textwrap.dedent(body).strip()
        parts = [f"  {name}:\n{textwrap.indent(text, '    ')}\n" for name, text in self.tables.items()]
        self.write_document(HEAD + "tables:\n" + "".join(parts))

    def write_document(self, text: str | bytes) -> None:
        (self.project / "pipeline.yaml").write_bytes(text.encode() if isinstance(text, str) else text)

    def put(self, path: str, content: str | bytes) -> Path:
        """Deliver a file."""
        file = self.project / "landing" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def datops(self, *arguments: str) -> Answer:
        """Run a command in this process: a second less than one of its own."""
        from datops_assets.cli import _app

        done = CliRunner().invoke(_app(), list(arguments))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return self._checked(Answer(done.exit_code, done.stdout, done.stderr))

    def run(self, *arguments: str, expect: int = 0) -> Answer:
        """Run the document."""
        answer = self.datops(*RUN, *arguments)
        assert answer.exit_code == expect, answer.said
        return answer

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], expect: int = 0) -> Answer:
        """Wait for what `start` started."""
        stdout, stderr = process.communicate(timeout=120)
        answer = self._checked(Answer(process.returncode, stdout, stderr))
        assert answer.exit_code == expect, answer.said
        return answer

    def run_apart(self, *arguments: str, expect: int = 0, **variables: str) -> Answer:
        """Run the document in a process of its own."""
        return self.finish(self.start(*RUN, *arguments, **variables), expect)

    def wait_for(self, query: str, *values: object) -> Any:
        """Ask until the answer is true; returns it."""
        for _ in range(600):
            rows = self.warehouse.fetch(query, *values)
            if rows and rows[0][0]:
                return rows[0][0]
            time.sleep(0.05)
        raise TimeoutError(query)

    def wait_until_blocked(self) -> int:
        """The process id of a backend of this database that waits for a lock."""
        return self.wait_for(
            "select max(pid) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )

    @contextmanager
    def while_blocked(self, table: str, act: Callable[[int], None]) -> Iterator[None]:
        """Keep what writes to `table` waiting, once the block has come so far; act; let it go on.

        act   takes the process id of the backend that waits
        """
        with self.warehouse.connect(autocommit=False) as keeper, ThreadPoolExecutor(1) as helper:
            keeper.execute(f"lock table {table} in access exclusive mode")  # type: ignore[call-overload]

            def disturb() -> None:
                try:
                    act(self.wait_until_blocked())
                finally:
                    keeper.rollback()

            disturbed = helper.submit(disturb)
            yield
            disturbed.result()

    def loads(self, table: str) -> dict[str, tuple[str, int, int, str]]:
        """Newest entry of the catalogue per path: state, rows, damaged records, sentence."""
        rows = self.warehouse.fetch(
            "select distinct on (path) path, state, coalesce(rows, 0), damaged_rows, coalesce(error, '')"
            " from datops.loads join datops.tables using (table_id) where name = %s order by path, load_id desc",
            table,
        )
        return {path: (state, taken, damaged, error) for path, state, taken, damaged, error in rows}

    def bronze(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """Delivered columns of every bronze row, in load order."""
        return self._rows("bronze", table, columns, "_load_id, _row")

    def silver(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """Columns of every silver row, sorted by the first."""
        return self._rows("silver", table, columns, "1")

    def _rows(self, schema: str, table: str, columns: tuple[str, ...], order: str) -> list[tuple[Any, ...]]:
        query = sql.SQL("select {} from {} order by {}").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.Identifier(schema, f"store_{table}"),
            sql.SQL(order),
        )
        return self.warehouse.conn.execute(query).fetchall()

    def set_aside(self, table: str, path: str) -> dict[int, tuple[str, bytes]]:
        """Reason and bytes of the damaged records of one file, by record number."""
        if self.warehouse.fetch("select to_regclass(%s)", f"quarantine.store_{table}") == [(None,)]:
            return {}
        rows = self.warehouse.fetch(
            f"select _row, reasons[1], raw from quarantine.store_{table} join datops.loads on load_id = _load_id"
            " where stage = 'bronze' and path = %s",
            path,
        )
        return {row: (reason, bytes(raw)) for row, reason, raw in rows}

    def refused(self, table: str, path: str) -> list[str]:
        """Reasons why rows of one file did not reach silver, in the order of its records."""
        rows = self.warehouse.fetch(
            f"select reasons from quarantine.store_{table} join datops.loads on load_id = _load_id"
            " where stage = 'silver' and path = %s order by _row",
            path,
        )
        return [reason for (reasons,) in rows for reason in reasons]

    def require_accounted(self, table: str, delivered: Mapping[str, int]) -> None:
        """Hold what is there against the records delivered per file, 0 for one refused whole.

        Both the catalogue's counts and the rows themselves; nothing may be left half done.
        """
        assert {
            path: rows + damaged for path, (_, rows, damaged, _) in self.loads(table).items()
        } == delivered
        found = self.warehouse.fetch(
            f"select path, count(*) from ({self._every_record(table)}) as r group by path"
        )
        assert dict(found) == {path: count for path, count in delivered.items() if count}
        twice = (
            f"select 1 from ({self._every_record(table)}) as r group by _load_id, _row having count(*) > 1"
        )
        assert self.warehouse.fetch(twice) == []
        assert self.warehouse.fetch("select count(*) from datops.loads where state = 'loading'") == [(0,)]

    def _every_record(self, table: str) -> str:
        parts = [f"select _load_id, _row from bronze.store_{table}"]
        if self.warehouse.fetch("select to_regclass(%s)", f"quarantine.store_{table}") != [(None,)]:
            parts.append(f"select _load_id, _row from quarantine.store_{table} where stage = 'bronze'")
        live = "join datops.loads on load_id = _load_id and state in ('loaded', 'staged')"
        return f"select path, r.* from ({' union all '.join(parts)}) as r {live}"

    def _checked(self, answer: Answer) -> Answer:
        """What holds whatever went wrong: no traceback, no value of a cell, no secret."""
        assert "Traceback" not in answer.said, answer.said
        for secret in (CANARY, self.warehouse.warehouse.password):
            assert secret not in answer.said, answer.said
        if self.warehouse.fetch("select to_regclass('datops.loads')") != [(None,)]:
            leaks = "select count(*) from datops.loads where strpos(error, %s) > 0"
            assert self.warehouse.fetch(leaks, CANARY) == [(0,)]
        return answer


HEAD = "pipeline: store\nteam: commerce\nsource: {type: files, path: landing}\nretries: {max: 0}\n"
_CONTRACT = "contract: {key: [id], columns: {id: {type: bigint, required: true}, note: {type: text}}}"


@dataclass
class Landing(Platform):
    """A platform with one table; a good file of two records lies beside whatever a test puts there."""

    table: str = ""

    def deliver(self, name: str, content: str | bytes) -> str:
        """Put a file into the table's folder; returns its path."""
        path = f"{self.table}/{name}"
        self.put(path, content)
        return path

    def require_refused(self, answer: Answer, path: str, sentence: str) -> None:
        """The file was refused whole and is named with a sentence; its neighbour reached silver."""
        self.require_all_refused(answer, {path: sentence})

    def require_all_refused(self, answer: Answer, sentences: Mapping[str, str]) -> None:
        """Every one of these files was refused whole and is named; their neighbour reached silver."""
        loads = self.loads(self.table)
        for path, sentence in sentences.items():
            state, rows, damaged, error = loads[path]
            assert (state in ("failed", "refused"), rows, damaged) == (True, 0, 0), path
            assert path in error
            assert sentence in error
            assert error in answer.problems
        self._require_neighbour(dict.fromkeys(sentences, 0))

    def require_all_taken(self, rows: Mapping[str, int]) -> None:
        """Every one of these files is in bronze whole; their neighbour reached silver."""
        loads = self.loads(self.table)
        assert {path: loads[path] for path in rows} == {
            path: ("loaded", count, 0, "") for path, count in rows.items()
        }
        self._require_neighbour(dict(rows))

    def require_taken(
        self, path: str, rows: int, damaged: Mapping[int, tuple[str, bytes]] | None = None
    ) -> None:
        """The file is in bronze, its damaged records are set aside with reason and bytes."""
        damaged = damaged or {}
        assert self.loads(self.table)[path] == ("loaded", rows, len(damaged), "")
        assert self.set_aside(self.table, path) == damaged
        self._require_neighbour({path: rows + len(damaged)})

    def _require_neighbour(self, delivered: dict[str, int]) -> None:
        good = next(path for path in self.loads(self.table) if path.startswith(f"{self.table}/{GOOD}."))
        self.require_accounted(self.table, {good: 2, **delivered})
        assert {(1001, "a"), (1002, "b")} <= set(self.silver(self.table, "id", "note"))


@pytest.fixture
def platform(project: Path, warehouse: TestWarehouse) -> Platform:
    """A project with an empty landing folder and no document yet."""
    (project / "landing").mkdir()
    return Platform(project, warehouse)


@pytest.fixture
def orders(platform: Platform) -> Landing:
    """CSV files below orders/, judged by a contract with key id."""
    landing = Landing(platform.project, platform.warehouse, table="orders")
    landing.declare("orders", f"files: orders/*\nformat: csv\n{_CONTRACT}")
    landing.deliver(f"{GOOD}.csv", "id,note\n1001,a\n1002,b\n")
    return landing


@pytest.fixture
def events(platform: Platform) -> Landing:
    """JSON files below events/, judged by the same contract."""
    landing = Landing(platform.project, platform.warehouse, table="events")
    landing.declare("events", f"files: events/*\n{_CONTRACT}")
    landing.deliver(f"{GOOD}.jsonl", '{"id": 1001, "note": "a"}\n{"id": 1002, "note": "b"}\n')
    return landing
