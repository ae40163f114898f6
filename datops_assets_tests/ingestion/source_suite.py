"""What every kind of source has to survive: kills, cuts, slowness, size, change, lies, wrong credentials.

How to plug in. Write two things in a module of your own, e.g. `tests/ingestion/rest/test_suite.py`:

1. A `FarSide`: it holds the data of the other system and changes it when the suite says so.
2. A module-level function that opens a source and its table from plain keyword arguments. The suite
   calls it here, and by its name in a process that it kills; so it may use nothing but its arguments.

        def opened(url: str) -> tuple[Source[Any], SourceTable]: ...

        class Shop(FarSide):
            opener = opened
            def fill(self, rows): ...                       # id 1…rows, name "name <id>"
            def arguments(self, address=None, secret=None): # of `opened`; address: go by this (host, port)
                ...

        @pytest.mark.source_suite
        class TestShopSuite(SourceSuite):
            @pytest.fixture
            def far(self): yield Shop(...)

What a kind cannot do it leaves as FarSide has it; the tests that need it are skipped with the reason.
`SourceContract` holds the promises of the interface; this suite holds what happens between two of them.
"""

from __future__ import annotations

import importlib.util
import json
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import psycopg
import pytest

from datops_assets.errors import RetryableError, SourceRefusedError, SourceUnreachableError
from datops_assets.ingestion import (
    ArrowDelivery,
    CopyDelivery,
    Delivery,
    Source,
    SourceTable,
    TableLoaded,
    TextDelivery,
    list_loads,
    load_table,
)
from datops_assets.postgres import failpoints
from datops_assets_tests.conftest import TestWarehouse

Opener = Callable[..., tuple[Source[Any], SourceTable]]
FAILPOINTS = ("after_reserve", "before_copy", "after_copy", "before_commit", "after_commit")
FEW, SOME, MANY = 2_000, 100_000, 5_000_000
MOST_GROWTH_MB = 150
"""How much more memory many rows may take than one row."""
_CHILD = """
import json, sys
from datops_assets_tests.ingestion.source_suite import load_alone
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
        return type(self).opener(**self.arguments(**options))  # type: ignore[no-any-return]


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
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            json.dumps({"rows": loaded.rows_added, "errors": [r.error for r in loaded.failed], "mb": peak_mb})
        )


class Rig:
    """A far side and a warehouse, and short ways to load and look."""

    def __init__(self, warehouse: TestWarehouse, far: FarSide) -> None:
        self.warehouse = warehouse
        self.far = far
        self.table = far.open()[1]

    def load(self, **options: Any) -> TableLoaded:
        """Run once, here."""
        source, table = self.far.open(**options)
        with source:
            return load_table(self.warehouse.conn, source, table, batch="here", adbc_url=self.warehouse.url)

    def start(self, failpoint: str = "", *, report: bool = False) -> subprocess.Popen[bytes]:
        """Run once in a process of its own."""
        opener = type(self.far).opener
        values = {
            "url": self.warehouse.url, "file": opener.__code__.co_filename, "opener": opener.__name__,
            "arguments": self.far.arguments(), "failpoint": failpoint, "report": report,
        }  # fmt: skip
        return subprocess.Popen([sys.executable, "-c", _CHILD, json.dumps(values)], stdout=subprocess.PIPE)

    def load_alone(self) -> dict[str, Any]:
        """Run once in a process of its own; returns its `rows`, `errors` and the most memory it took (`mb`)."""
        with ended(self.start(report=True)) as process:
            assert process.stdout is not None
            return json.loads(process.stdout.read().splitlines()[-1])

    def fetch(self, outputs: str) -> list[tuple[Any, ...]]:
        """Query the rows that silver would see."""
        bronze = f"bronze.{self.table.source}_{self.table.name}"
        return self.warehouse.fetch(
            f"select {outputs} from {bronze} join datops.loads on load_id = _load_id where state = 'loaded'"
        )

    def counts(self) -> tuple[int, int]:
        """Rows that silver would see, and how many different ids they have."""
        if self.warehouse.fetch(
            "select to_regclass(%s)", f"bronze.{self.table.source}_{self.table.name}"
        ) == [(None,)]:
            return 0, 0
        columns = self.warehouse.fetch(
            "select 1 from information_schema.columns where table_schema = 'bronze' and column_name = 'id'"
        )
        ((rows, ids),) = self.fetch("count(*), count(distinct id::text)" if columns else "count(*), 0")
        return rows, ids

    def states(self) -> list[str]:
        """States of the loads, oldest first."""
        loads = list_loads(self.warehouse.conn, self.table.source, self.table.name)
        return [load.state for load in loads][::-1]


class SlowOrCutProxy:
    """A way to a server that ends after so many bytes, or lets through only so many a second."""

    def __init__(
        self, server: tuple[str, int], *, cut_after: int | None = None, bytes_per_s: int | None = None
    ) -> None:
        self._server = server
        self._left = cut_after
        self._rate = bytes_per_s
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.2)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.cuts = 0

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect to."""
        host, port = self._listening.getsockname()[:2]
        return str(host), int(port)

    def __enter__(self) -> SlowOrCutProxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(5)
        self._listening.close()

    def _start(self, run: Callable[..., None], *values: Any) -> None:
        thread = threading.Thread(target=run, args=values, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                near, _ = self._listening.accept()
            except TimeoutError:
                continue
            self._start(self._carry, near)

    def _carry(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._server) as far:
            while not self._ended.is_set():
                ready, _, _ = select.select([near, far], [], [], 0.2)
                for side in ready:
                    try:
                        data = side.recv(1 << 16)
                    except OSError:
                        data = b""
                    if not data or not self._pass_on(data, side is far, near if side is far else far):
                        return

    def _pass_on(self, data: bytes, is_answer: bool, to: socket.socket) -> bool:
        """Pass data on; False: the connection ends here."""
        if is_answer and self._left is not None:
            data, self._left = data[: self._left], self._left - len(data)
        try:
            to.sendall(data)
        except OSError:
            return False
        if is_answer and self._rate is not None:
            time.sleep(len(data) / self._rate)
        if self._left is not None and self._left <= 0:
            self.cuts += 1
            return False
        return True


def read_slowly(delivery: Delivery, pause_s: float) -> int:
    """Read a delivery to its end with a pause before each part; returns how many parts there were."""
    if isinstance(delivery, TextDelivery):
        parts: Iterator[Any] = delivery.chunks()
    elif isinstance(delivery, CopyDelivery):
        parts = delivery.chunks([type_ for _, type_ in delivery.columns()])
    else:
        assert isinstance(delivery, ArrowDelivery)
        parts = delivery.batches()
    count = 0
    for _ in parts:
        time.sleep(pause_s)
        count += 1
    return count


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process of ours at the end of the block, whatever happens."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


class SourceSuite:
    """Inherit, and give a fixture `far`. Mark the class with `source_suite`."""

    @pytest.fixture
    def far(self) -> FarSide:
        """Return the other side."""
        raise NotImplementedError

    @pytest.fixture
    def rig(self, warehouse: TestWarehouse, far: FarSide) -> Rig:
        """The far side and a warehouse."""
        return Rig(warehouse, far)

    @pytest.mark.parametrize("failpoint", FAILPOINTS)
    def test_killed_at_a_step_the_next_run_completes_it_once(self, rig: Rig, failpoint: str) -> None:
        """kill -9 between any two steps."""
        rig.far.fill(FEW)
        with ended(rig.start(failpoint)) as process:
            assert process.wait(60) == -signal.SIGKILL
        assert rig.load().failed == []
        assert rig.counts() == (FEW, FEW)
        assert rig.load().rows_added == 0

    @pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
    def test_killed_at_a_random_moment_the_next_run_completes_it_once(self, rig: Rig, seed: int) -> None:
        """Twice in a row, wherever it is by then."""
        rig.far.fill(20 * FEW)
        moments = random.Random(seed)
        for _ in range(2):
            with ended(rig.start()) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                time.sleep(moments.uniform(0, 0.4))
        assert rig.load().failed == []
        assert rig.counts() == (20 * FEW, 20 * FEW)
        assert rig.load().rows_added == 0

    def test_a_connection_cut_in_the_middle_keeps_nothing_of_it(self, rig: Rig) -> None:
        """The load is entered as interrupted and the next run takes all of it, once."""
        far = rig.far
        if far.address is None:
            pytest.skip("this kind of source has no connection to cut")
        far.fill(20 * FEW)
        with SlowOrCutProxy(far.address, cut_after=200_000) as proxy:
            try:
                assert rig.load(address=proxy.address).failed
            except RetryableError:
                pass  # it was cut while it said what there is
            assert proxy.cuts == 1
        assert rig.counts() == (0, 0)
        assert set(rig.states()) <= {"interrupted"}
        assert rig.load().failed == []
        assert rig.counts() == (20 * FEW, 20 * FEW)

    def test_a_source_nobody_answers_for_is_worth_another_try(self, rig: Rig) -> None:
        """An error that is tried again, not one that waits for a person."""
        if rig.far.address is None:
            pytest.skip("this kind of source has nobody to answer")
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            address = ("127.0.0.1", nobody.getsockname()[1])
        source, table = rig.far.open(address=address)
        with source:
            said = source.check(table)
            assert (said.ok, "\n" in said.message) == (False, False)
            with pytest.raises(SourceUnreachableError):
                source.list_units(table)

    def test_a_slow_source_is_waited_for(self, rig: Rig) -> None:
        """It takes its time, and all of it arrives."""
        if rig.far.address is None:
            pytest.skip("this kind of source has no connection to slow down")
        rig.far.fill(FEW)
        with SlowOrCutProxy(rig.far.address, bytes_per_s=100_000) as proxy:
            assert rig.load(address=proxy.address).failed == []
        assert rig.counts() == (FEW, FEW)

    def test_a_slow_reader_gets_all_of_it(self, rig: Rig) -> None:
        """The source waits for us, and its hash is that of a quick reading."""
        rig.far.fill(5 * FEW)
        source, table = rig.far.open()
        with source:
            unit = source.list_units(table)[0]
            with source.open(unit) as quick:
                read_slowly(quick, 0)
                expected = quick.content_hash()
            with source.open(unit) as slow:
                assert read_slowly(slow, 0.05) >= 1
                assert slow.content_hash() == expected

    def test_no_row_then_one_row(self, rig: Rig) -> None:
        """Nothing is a reading like any other."""
        rig.far.fill(0)
        first = rig.load()
        assert (first.failed, rig.counts()[0]) == ([], 0)
        rig.far.fill(1)
        assert rig.load().failed == []
        assert rig.counts() == (1, 1)

    @pytest.mark.parametrize(
        "rows", [SOME, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
    )
    def test_many_rows_take_no_more_memory_than_few(self, rig: Rig, rows: int) -> None:
        """Rows travel in batches."""
        rig.far.fill(1)
        one = rig.load_alone()
        rig.far.fill(rows)
        all_of_them = rig.load_alone()
        assert (one["errors"], all_of_them["errors"]) == ([], [])
        assert all_of_them["mb"] < one["mb"] + MOST_GROWTH_MB
        assert rig.counts() == (rows, rows)

    def test_a_column_more_between_two_readings(self, rig: Rig) -> None:
        """It becomes a column of bronze; what was loaded before it holds null there."""
        rig.far.fill(3)
        rig.load()
        if not rig.far.add_column():
            pytest.skip("a table of this kind cannot change its columns")
        assert rig.load().failed == []
        columns = rig.warehouse.fetch(
            "select column_name::text from information_schema.columns where table_schema = 'bronze'"
        )
        assert ("note",) in columns
        assert rig.counts() == (3, 3)
        assert {str(row[0]).strip('"') for row in rig.fetch("note::text")} == {"new"}

    def test_wrong_credentials_are_one_sentence_without_a_secret(self, rig: Rig) -> None:
        """For a person to act on: nothing is tried again and again until an account is locked."""
        if rig.far.secret is None:
            pytest.skip("nobody asks for credentials here")
        rig.far.fill(1)
        source, table = rig.far.open(secret="wr0ng-and-secret")
        with source:
            said = source.check(table)
            with pytest.raises(SourceRefusedError) as raised:
                for unit in source.list_units(table):
                    with source.open(unit) as delivery:
                        read_slowly(delivery, 0)
        for sentence in (said.message, str(raised.value)):
            assert "\n" not in sentence
            assert "wr0ng-and-secret" not in sentence
            assert rig.far.secret not in sentence
        assert not said.ok

    def test_credentials_that_expire_between_two_runs_lose_nothing(self, rig: Rig) -> None:
        """What was loaded stays, and the next run with good ones goes on."""
        if rig.far.secret is None:
            pytest.skip("nobody asks for credentials here")
        rig.far.fill(2)
        rig.load()
        try:
            assert rig.load(secret="wr0ng-and-secret").failed
        except SourceRefusedError:
            pass
        assert rig.counts() == (2, 2)
        rig.far.fill(3)
        assert rig.load().failed == []
        assert rig.counts() == (3, 3)

    def test_a_source_that_lies_about_its_types_bends_nothing(self, rig: Rig) -> None:
        """The value stands in bronze or in the quarantine as it was delivered, or all of it is refused."""
        rig.far.fill(3)
        lie = rig.far.lie()
        if lie is None:
            pytest.skip("this kind of source cannot say one type and deliver another")
        loaded = rig.load()
        if loaded.failed:
            assert rig.counts() == (0, 0)
            assert all(result.error and lie not in result.error for result in loaded.failed)
            return
        kept = {str(row[0]).strip('"') for row in rig.fetch("id::text")}
        aside: set[str] = set()
        quarantine = f"quarantine.{rig.table.source}_{rig.table.name}"
        if rig.warehouse.fetch("select to_regclass(%s)", quarantine) != [(None,)]:
            aside = {bytes(row[0]).decode() for row in rig.warehouse.fetch(f"select raw from {quarantine}")}
        assert lie in kept or any(lie in raw for raw in aside)
        assert len(kept) + len(aside) == 4
