"""The other system as the suite needs it, and what the suite does with it: load, count, look.

Belongs here: `FarSide`, which a source's author writes, and `Rig`, which joins it with a warehouse.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import psycopg

from datops_assets.ingestion import Source, SourceTable, TableLoaded, list_loads, load_table
from datops_assets.postgres import failpoints
from datops_assets.resources.warehouse import Warehouse

Opener = Callable[..., tuple[Source[Any], SourceTable]]
_CHILD = """
import json, sys
from datops_assets.testing.sources.far_side import load_alone
load_alone(**json.loads(sys.argv[1]))
"""


class FarSide(ABC):
    """The other system, as the suite needs it: one table with the columns `id` and `name`."""

    opener: ClassVar[Any]
    """The function that opens source and table; see the module."""
    address: tuple[str, int] | None = None
    """Where it listens, if a connection to it can be cut; None: there is none."""
    secret: str | None = None
    """The password or token that lets us in; None: nobody asks for one."""

    @abstractmethod
    def fill(self, rows: int) -> None:
        """Hold exactly so many rows: id from 1, name `name <id>`."""

    @abstractmethod
    def arguments(self, address: tuple[str, int] | None = None, secret: str | None = None) -> dict[str, Any]:
        """Keyword arguments of the opener, as JSON can hold them.

        address    go this way instead of straight to `address`
        secret     instead of the right one
        """

    def add_column(self) -> bool:
        """Give every row a column `note` with the value `new`; False: a table of this kind cannot change."""
        return False

    def lie(self) -> str | None:
        """Let `id` of the row with the name `liar` be a text, although ids are declared to be numbers.

        returns    that text; None: this kind of source cannot lie about types
        """
        return None

    def open(self, **options: Any) -> tuple[Source[Any], SourceTable]:
        """Open source and table here."""
        return type(self).opener(**self.arguments(**options))


def load_alone(
    url: str, file: str, opener: str, arguments: dict[str, Any], failpoint: str, report: bool
) -> None:
    """Load once in a process of its own: it may be killed, or tell how much memory it took."""
    if failpoint:
        failpoints.arm(failpoint)
    # By file, for pytest gives test modules names of its own.
    spec = importlib.util.spec_from_file_location("far_side", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source, table = getattr(module, opener)(**arguments)
    with psycopg.connect(url, autocommit=True) as conn, source:
        conn.execute("set timezone = 'UTC'")
        print("ready", flush=True)
        loaded = load_table(conn, source, table, batch="alone", adbc_url=url)
    if report:
        errors = [result.error for result in loaded.failed]
        print(json.dumps({"rows": loaded.rows_added, "errors": errors, "mb": _peak_mb()}))


def _peak_mb() -> int:
    """The most memory that this process took so far."""
    status = Path("/proc/self/status")
    if not status.exists():  # macOS counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20
    # Not by getrusage: on Linux its count begins with the memory of whoever started this process.
    (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak) >> 10


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process of ours at the end of the block, whatever happens."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


class Rig:
    """A far side and a warehouse, and short ways to load and look."""

    def __init__(self, database: Warehouse, conn: psycopg.Connection[Any], far: FarSide) -> None:
        self.database = database
        self.conn = conn
        self.far = far
        self.table = far.open()[1]

    def load(self, **options: Any) -> TableLoaded:
        """Run once, here."""
        source, table = self.far.open(**options)
        with source:
            return load_table(self.conn, source, table, batch="here", adbc_url=self.database.url)

    def start(self, failpoint: str = "", *, report: bool = False) -> subprocess.Popen[bytes]:
        """Run once in a process of its own."""
        opener = type(self.far).opener
        values = {
            "url": self.database.url, "file": opener.__code__.co_filename, "opener": opener.__name__,
            "arguments": self.far.arguments(), "failpoint": failpoint, "report": report,
        }  # fmt: skip
        return subprocess.Popen([sys.executable, "-c", _CHILD, json.dumps(values)], stdout=subprocess.PIPE)

    def load_alone(self) -> dict[str, Any]:
        """Run once in a process of its own; returns its `rows`, `errors` and the most memory it took (`mb`)."""
        with ended(self.start(report=True)) as process:
            assert process.stdout is not None
            return json.loads(process.stdout.read().splitlines()[-1])

    def fetch(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a query of the warehouse."""
        return self.conn.execute(query.encode(), values).fetchall()

    def live(self, outputs: str) -> list[tuple[Any, ...]]:
        """Query the rows that silver would see."""
        return self.fetch(
            f"select {outputs} from bronze.{self.relation}"
            " join datops.loads on load_id = _load_id where state = 'loaded'"
        )

    def counts(self) -> tuple[int, int]:
        """Rows that silver would see, and how many different ids they have."""
        if not self.columns():
            return 0, 0
        ids = "count(distinct id::text)" if "id" in self.columns() else "0"
        ((rows, different),) = self.live(f"count(*), {ids}")
        return rows, different

    def columns(self) -> list[str]:
        """Columns of the bronze table; none where there is no table yet."""
        found = self.fetch(
            "select column_name::text from information_schema.columns"
            " where table_schema = 'bronze' and table_name = %s order by ordinal_position",
            self.relation,
        )
        return [name for (name,) in found]

    @property
    def relation(self) -> str:
        """Name of the table in bronze and in the quarantine."""
        return f"{self.table.source}_{self.table.name}"

    def states(self) -> list[str]:
        """States of the loads, oldest first."""
        loads = list_loads(self.conn, self.table.source, self.table.name)
        return [load.state for load in loads][::-1]
