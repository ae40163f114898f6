"""What every kind of source has to survive: kills, cuts, slowness, size, change, lies, wrong credentials.

Two things to write in a test module:

1. A `FarSide`: it holds the data of the other system and changes it when the suite says so.
2. A module-level function that opens a source and its table from plain keyword arguments. The suite
   calls it here, and by its name in a process that it kills; so it may use nothing but its arguments.

        def opened(url: str) -> tuple[Source[Any], SourceTable]: ...

        class Shop(FarSide):
            opener = opened
            def fill(self, rows): ...                       # id 1…rows, name "name <id>"
            def arguments(self, address=None, secret=None): # of `opened`; address: go by this (host, port)
                ...

        class TestShopSuite(SourceSuite):
            @pytest.fixture
            def far(self): yield Shop(...)

What a kind cannot do it leaves as FarSide has it; the tests that need it are skipped with the reason.
"""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from datops_assets.errors import RetryableError, SourceRefusedError, SourceUnreachableError
from datops_assets.ingestion import ArrowDelivery, CopyDelivery, Delivery, TextDelivery
from datops_assets.resources.warehouse import Warehouse
from datops_assets.testing.sources.far_side import FarSide, Rig, ended
from datops_assets.testing.sources.proxy import SlowOrCutProxy

FAILPOINTS = ("after_reserve", "before_copy", "after_copy", "before_commit", "after_commit")
FEW, SOME, MANY = 2_000, 100_000, 5_000_000
MOST_GROWTH_MB = 150
"""How much more memory many rows may take than one row."""


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


@pytest.mark.source_suite
class SourceSuite:
    """Inherit, and give a fixture `far`."""

    @pytest.fixture
    def far(self) -> FarSide:
        """Return the other side."""
        raise NotImplementedError

    @pytest.fixture
    def rig(self, datops_database: Warehouse, far: FarSide) -> Iterator[Rig]:
        """The far side and a warehouse."""
        with datops_database.connect() as conn:
            yield Rig(datops_database, conn, far)

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
        assert "note" in rig.columns()
        assert rig.counts() == (3, 3)
        assert {str(row[0]).strip('"') for row in rig.live("note::text")} == {"new"}

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
        kept = {str(row[0]).strip('"') for row in rig.live("id::text")}
        aside: set[str] = set()
        quarantine = f"quarantine.{rig.relation}"
        if rig.fetch("select to_regclass(%s)", quarantine) != [(None,)]:
            aside = {bytes(row[0]).decode() for row in rig.fetch(f"select raw from {quarantine}")}
        assert lie in kept or any(lie in raw for raw in aside)
        assert len(kept) + len(aside) == 4
