"""A standby as the source: it takes no marks and no statements, and its slot is its own."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import psycopg
import pytest

from datops_assets.cdc import ChangeStream, Finding, find_stream, has_news, preflight, read_slot, slots
from datops_assets.cdc.snapshot import end_stream
from datops_assets.errors import SourceRefusedError, SourceUnreachableError
from datops_assets_tests.cdc.conftest import Followed
from datops_assets_tests.cdc.servers import OwnServer, own_server, standby_of
from datops_assets_tests.cdc.test_source_failures import again, followed_in
from datops_assets_tests.cdc.test_streaming import streaming, until
from datops_assets_tests.conftest import TestWarehouse

pytestmark = pytest.mark.cdc_case(52)
_numbers = iter(range(1, 10**9))


class Pair:
    """A primary and its standby, and a database of theirs with a table t."""

    def __init__(self, primary: OwnServer, standby: OwnServer, name: str) -> None:
        self.primary, self.standby, self.name = primary, standby, name
        with closing(primary.warehouse.connect()) as admin:
            admin.execute(f"create database {name}")
        self.writer = primary.warehouse.at(name).connect()
        self.run("create table t (id int primary key, v text); insert into t values (1, 'a')")
        self.catch_up()

    def run(self, statement: str) -> None:
        """Change the primary."""
        self.writer.execute(statement)  # type: ignore[call-overload]

    def catch_up(self) -> None:
        """Wait until the standby shows what the primary has."""
        (place,) = self.writer.execute("select pg_current_wal_insert_lsn()::text").fetchone() or ("",)
        with closing(self.standby.warehouse.connect()) as conn:
            query = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
            until(lambda: conn.execute(query, (place,)).fetchone() == (True,))

    def followed(self, warehouse: TestWarehouse) -> Followed:
        """The stream that follows t from the standby; the publication is not there yet."""
        database = self.standby.warehouse.at(self.name)
        followed = Followed(
            warehouse, database, database.connect(), ChangeStream("erp", self.name, "datops_erp", ())
        )
        followed.follow("t")
        return followed

    @contextmanager
    def talkative(self) -> Iterator[None]:
        """Meanwhile the primary says again and again which transactions run, as a busy one does."""
        ended = threading.Event()

        def talk() -> None:
            with closing(self.primary.warehouse.connect()) as conn:
                while not ended.wait(0.2):
                    conn.execute("select pg_log_standby_snapshot()")

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@contextmanager
def servers(major: int) -> Iterator[tuple[OwnServer, OwnServer]]:
    with own_server(major) as primary:
        with closing(primary.warehouse.connect()) as conn:
            conn.execute("select pg_create_physical_replication_slot('standby')")
        with standby_of(primary, hot_standby_feedback="on", primary_slot_name="standby") as standby:
            yield primary, standby


@pytest.fixture(scope="module", params=[18, pytest.param(16, marks=pytest.mark.slow)])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[OwnServer, OwnServer]]:
    with servers(request.param) as pair:
        yield pair


@pytest.fixture
def pair(both: tuple[OwnServer, OwnServer], request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(*both, f"shop_{next(_numbers)}")
    yield made
    made.writer.close()
    with closing(made.standby.warehouse.connect()) as conn:
        conn.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s",
            (made.name,),
        )


def begun(pair: Pair, warehouse: TestWarehouse) -> Followed:
    followed = pair.followed(warehouse)
    pair.run("create publication datops_erp for table t")
    pair.catch_up()
    with pair.talkative():
        followed.snapshot()
    return followed


def look(followed: Followed) -> dict[str, Finding]:
    return {finding.what: finding for finding in preflight(followed.parameters, followed.stream)}


def test_a_stream_follows_a_standby(pair: Pair, warehouse: TestWarehouse) -> None:
    followed = pair.followed(warehouse)
    found = look(followed)
    assert found["standby"].verdict == "ok"
    assert found["publication"].verdict == "stop"
    statement = found["publication"].mend.removeprefix("on the primary: ")
    with pytest.raises(
        SourceRefusedError, match="a standby cannot change that; let the tables' owner run on the"
    ):
        followed.snapshot()
    pair.run(statement)
    pair.catch_up()
    assert {finding.verdict for finding in look(followed).values()} <= {"ok", "warn"}
    writer = pair.primary.warehouse.at(pair.name).connect()
    with closing(writer), pair.talkative():
        writer.autocommit = False
        writer.execute("insert into t values (2, 'open before the slot')")
        threading.Timer(1.0, writer.commit).start()
        assert followed.snapshot().rows == {"t": 2}
    assert not has_news(followed.parameters, followed.stream)
    pair.run("insert into t values (3, 'c'); update t set id = -1 where id = 1")
    pair.run("insert into t select n, 'x' from generate_series(10, 3000) n")
    pair.catch_up()
    assert has_news(followed.parameters, followed.stream)
    assert followed.drain().changes == 1 + 2 + 2991  # the key that changed is told by two
    followed.require_equal()
    slot = read_slot(followed.parameters, followed.stream, find_stream(warehouse.conn, "erp"))
    assert slot is not None
    assert slot.lag_bytes is not None
    assert slot.lag_bytes < 1_000_000  # the primary writes a little by itself
    assert slot.wal_status == "reserved"
    assert followed.drain().changes == 0
    end_stream(warehouse.conn, followed.parameters, followed.stream)
    assert find_stream(warehouse.conn, "erp") is None
    followed.source.close()


def test_a_running_stream_outlives_the_standby_s_promotion(warehouse: TestWarehouse) -> None:
    """It is the same server with the same slot on a new timeline: neither a stream nor a drain loses anything."""
    with servers(18) as (primary, standby):
        pair = Pair(primary, standby, "shop")
        followed = begun(pair, warehouse)
        with streaming(followed) as (_, failed):
            pair.run("insert into t select n, 'before' from generate_series(2, 500) n")
            pair.catch_up()
            pair.writer.close()
            primary.stop("immediate")
            standby.promote()
            pair.writer = followed.database.connect()
            pair.run(
                "insert into t select n, 'after' from generate_series(501, 900) n; delete from t where id = 5"
            )
            until(lambda: warehouse.fetch("select count(*) from bronze.erp_t") == [(899,)])
        assert failed == []
        followed.require_equal()
        pair.run("update t set v = 'later' where id < 50")
        assert followed.drain().changes == 48
        followed.require_equal()
        assert len(followed.log("t")) == 499 + 400 + 1 + 48
        pair.writer.close()
        followed.source.close()


def test_a_standby_that_has_nothing_for_the_stream_moves_its_slot(
    pair: Pair, warehouse: TestWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mark can be written there: what it says of its own place is enough, and never past what is not here."""
    from datops_assets.cdc import following

    monkeypatch.setattr(following, "_MOVES_EVERY_S", 0.2)
    followed = begun(pair, warehouse)
    query = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s"

    def slot() -> str:
        return str(followed.source.execute(query, (followed.stream.slot,)).fetchone())

    with streaming(followed) as (told, failed):
        for number in range(3):
            before = slot()
            pair.run(f"create table other{number} (a int); insert into other{number} values (1)")
            until(lambda before=before: slot() != before)
            followed.require_acknowledged()
        pair.run("insert into t values (2, 'b')")
        until(lambda: warehouse.fetch("select count(*) from bronze.erp_t") == [(2,)])
    assert failed == []
    assert sum(progress.changes for progress in told) == 1
    assert max(progress.longest_lag_s for progress in told) < 30
    assert followed.drain().changes == 0
    followed.require_equal()


def test_a_table_is_copied_anew_from_a_standby(pair: Pair, warehouse: TestWarehouse) -> None:
    followed = begun(pair, warehouse)
    pair.run("insert into t values (2, 'b'); alter table t add column w int default 5; update t set v = 'c'")
    pair.catch_up()
    with pair.talkative():
        assert followed.drain().copied == ["t"]
    followed.require_equal()
    pair.run("delete from t where id = 1; insert into t values (3, 'd', 6)")
    pair.catch_up()
    followed.drain()
    followed.require_equal()


def test_a_slot_that_waits_in_vain_for_the_primary_is_a_sentence(
    pair: Pair, warehouse: TestWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = pair.followed(warehouse)
    pair.run("create publication datops_erp for table t")
    pair.catch_up()
    monkeypatch.setattr(slots, "_STANDBY_WITHIN_S", 1.0)
    with pytest.raises(
        SourceUnreachableError, match=r"run on the primary: select pg_log_standby_snapshot\(\)"
    ):
        followed.snapshot()
    query = "select count(*) from pg_replication_slots where slot_name = %s"
    assert followed.source.execute(query, (followed.stream.slot,)).fetchone() == (0,)
    monkeypatch.undo()
    with pair.talkative():
        followed.snapshot()
    followed.require_equal()


def test_another_standby_is_refused_and_nothing_is_entered(pair: Pair, warehouse: TestWarehouse) -> None:
    """Whoever names the wrong server for a moment need not copy all tables anew."""
    followed = begun(pair, warehouse)
    elsewhere = replace(followed, stream=replace(followed.stream, slot="not_here"))
    with pytest.raises(SourceRefusedError, match="the standby has no slot not_here"):
        elsewhere.drain()
    warehouse.conn.execute("update datops.streams set applied_lsn = applied_lsn + 1e12")
    with pytest.raises(SourceUnreachableError, match="it replays its log, try again"):
        followed.drain()
    assert find_stream(warehouse.conn, "erp").state == "streaming"
    warehouse.conn.execute("update datops.streams set applied_lsn = applied_lsn - 1e12")
    followed.drain()
    followed.require_equal()


@pytest.mark.parametrize("major", [18, pytest.param(16, marks=pytest.mark.slow)])
def test_a_slot_that_its_primary_ended_needs_a_person(warehouse: TestWarehouse, major: int) -> None:
    """Rows of the catalogue that were removed, then a lower wal_level: each is told as what it was."""
    with servers(major) as (primary, standby):
        pair = Pair(primary, standby, "shop")
        followed = begun(pair, warehouse)
        with closing(standby.warehouse.connect()) as conn:
            conn.execute("alter system set hot_standby_feedback = off")
            conn.execute("select pg_reload_conf()")
        assert look(followed)["hot_standby_feedback"].mend.startswith(
            "alter system set hot_standby_feedback = on"
        )

        def is_lost() -> bool:
            for statement in ("create table gone (a int)", "drop table gone", "vacuum pg_class"):
                pair.run(statement)
            state = slots.find_slot(followed.source, followed.stream.slot)
            return state is not None and state.lost("x") is not None

        until(is_lost)
        why = "lost rows of|rows of the catalogue" if major < 17 else "catalogue lost rows that the slot"
        for _ in range(2):
            with pytest.raises(SourceRefusedError, match=rf"({why}).*datops cdc resync erp"):
                followed.drain()
        assert find_stream(warehouse.conn, "erp").state == "resync_required"
        with closing(standby.warehouse.connect()) as conn:
            conn.execute("alter system reset hot_standby_feedback")
            conn.execute("select pg_reload_conf()")
        pair.run("insert into t values (2, 'b')")
        pair.catch_up()
        with pair.talkative():
            followed.snapshot()
        followed.drain()
        followed.require_equal()
        pair.writer.close()
        primary.stop()
        primary.start(wal_level="replica")
        until(lambda: slots.find_slot(followed.source, followed.stream.slot).lost("x") is not None)
        with pytest.raises(SourceRefusedError, match=r"wal_level .*was lowered.*datops cdc resync erp"):
            followed.drain()
        with pytest.raises(SourceRefusedError, match="wal_level"):
            followed.snapshot()
        followed.source.close()


@pytest.fixture
def in_step(warehouse: TestWarehouse) -> Iterator[tuple[OwnServer, OwnServer, Followed]]:
    """A primary, a standby that keeps its slots in step, and a stream on the primary whose slot has arrived there."""
    with own_server(18) as primary:
        with closing(primary.warehouse.connect()) as conn:
            conn.execute("select pg_create_physical_replication_slot('standby')")
        with standby_of(
            primary, hot_standby_feedback="on", primary_slot_name="standby", sync_replication_slots="on"
        ) as standby:
            followed = followed_in(primary, warehouse)
            with closing(standby.warehouse.connect()) as conn:

                def is_copied() -> bool:
                    followed.run("select pg_log_standby_snapshot()")
                    followed.drain()
                    query = "select synced and not temporary from pg_replication_slots where slot_name = %s"
                    return conn.execute(query, (followed.stream.slot,)).fetchone() == (True,)

                until(is_copied)
            yield primary, standby, followed
            followed.source.close()


def has_rows(server: OwnServer, count: int) -> bool:
    with closing(server.warehouse.at("shop").connect()) as conn:
        return bool(conn.execute("select count(*) = %s from t", (count,)).fetchone() == (True,))


@pytest.mark.slow
def test_a_switchover_and_back(in_step: tuple[OwnServer, OwnServer, Followed]) -> None:
    """Two new timelines; in between the old primary is a standby, and its own slot serves there too."""
    primary, standby, followed = in_step
    followed.run("insert into t values (2, 'on the first')")
    until(lambda: has_rows(standby, 2))
    followed.source.close()
    primary.stop()
    standby.promote()
    again(followed, standby.warehouse.at("shop"))
    followed.run("insert into t values (3, 'on the second'); update t set v = 'moved' where id = 1")
    assert followed.drain().changes == 3
    followed.require_equal()
    with closing(standby.warehouse.connect()) as conn:
        conn.execute("select pg_create_physical_replication_slot('primary')")
    primary.follow(standby, primary_slot_name="primary", hot_standby_feedback="on")
    until(lambda: has_rows(primary, 3))
    followed.run("insert into t values (4, 'read from the standby')")
    until(lambda: has_rows(primary, 4))
    there = replace(followed, database=primary.warehouse.at("shop"))
    assert there.drain().changes == 1
    followed.run("insert into t values (5, 'before the way back')")
    until(lambda: has_rows(primary, 5))
    followed.source.close()
    standby.stop()
    primary.promote()
    again(followed, primary.warehouse.at("shop"))
    followed.run("delete from t where id = 2")
    assert followed.drain().changes == 2
    followed.require_equal()
    assert len(followed.log("t")) == 6
    assert find_stream(followed.warehouse.conn, "erp").state == "streaming"


@pytest.mark.slow
def test_a_running_stream_outlives_a_failover(in_step: tuple[OwnServer, OwnServer, Followed]) -> None:
    """Its connection ends with the primary; where the standby had everything, the next one goes on there."""
    primary, standby, followed = in_step
    with streaming(followed) as (_, failed):
        followed.run("insert into t select n, 'before' from generate_series(2, 300) n")
        until(lambda: followed.warehouse.fetch("select count(*) from bronze.erp_t") == [(300,)])
        until(lambda: has_rows(standby, 300))
        followed.source.close()
        primary.stop("immediate")
        until(lambda: bool(failed))
        assert isinstance(failed[0], SourceUnreachableError)
    standby.promote()
    again(followed, standby.warehouse.at("shop"))
    with streaming(followed) as (_, failed):
        followed.run("insert into t values (301, 'after')")
        until(lambda: followed.warehouse.fetch("select count(*) from bronze.erp_t") == [(301,)])
    assert failed == []
    followed.require_equal()
    assert len(followed.log("t")) == 300


@pytest.mark.slow
def test_a_failover_without_the_slot_needs_a_person(warehouse: TestWarehouse) -> None:
    """Nobody kept it in step: what was not read is not known, and no copy is taken by itself."""
    with own_server(18) as primary, standby_of(primary) as standby:
        followed = followed_in(primary, warehouse)
        until(lambda: followed.drain().changes == 0 and has_rows(standby, 1))
        followed.source.close()
        primary.stop("immediate")
        standby.promote()
        again(followed, standby.warehouse.at("shop"))
        followed.run("insert into t values (2, 'after')")
        for _ in range(2):
            with pytest.raises(SourceRefusedError, match=r"the slot shop is gone; .*datops cdc resync erp"):
                followed.drain()
        followed.snapshot()
        followed.require_equal()
        followed.source.close()


class _UndoneError(Exception):
    """A savepoint that is rolled back."""


def _write_until(ended: threading.Event, pair: Pair, seed: int) -> None:
    """Transactions of several statements, with savepoints that are rolled back or kept, some of them long."""
    draws = random.Random(seed)
    with closing(pair.primary.warehouse.at(pair.name).connect()) as conn:
        while not ended.is_set():
            with (
                suppress(psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected),
                conn.transaction(),
            ):
                for _ in range(draws.randint(1, 5)):
                    with suppress(_UndoneError), conn.transaction():
                        low = draws.randint(1, 3000)
                        conn.execute(
                            "insert into t select n, %s from generate_series(%s::int, %s::int) n"
                            " on conflict (id) do update set v = excluded.v",
                            (f"v{draws.random()}", low, low + draws.randint(0, 80)),
                        )
                        if draws.random() < 0.3:
                            conn.execute("delete from t where id between %s and %s", (low, low + 20))
                        if draws.random() < 0.3:
                            conn.execute("update t set id = -id where id = %s", (low + 30,))
                        if draws.random() < 0.3:
                            raise _UndoneError
                    if draws.random() < 0.05:
                        ended.wait(0.3)


@pytest.mark.cdc_case(34)
@pytest.mark.slow
def test_writers_throughout_a_snapshot_of_a_standby(pair: Pair, warehouse: TestWarehouse) -> None:
    """The snapshot that a standby exports has each transaction whole or not at all, its savepoints too."""
    pair.run("insert into t select n, 'old' from generate_series(2, 2000) n")
    followed = begun(pair, warehouse)
    for round_ in range(5):
        ended = threading.Event()
        writers = [
            threading.Thread(target=_write_until, args=(ended, pair, 10 * round_ + n), daemon=True)
            for n in range(3)
        ]
        for writer in writers:
            writer.start()
        try:
            with pair.talkative():
                followed.snapshot()
            followed.drain()
        finally:
            ended.set()
            for writer in writers:
                writer.join()
        pair.catch_up()
        assert followed.drain().transactions > 0
        followed.require_equal()
