"""What a run takes, and what it leaves alone: identity, policies, deliveries, undo, two runs at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datops_assets.errors import LoadRefusedError, WarehouseUnreachableError
from datops_assets.ingestion import (
    Delivery,
    FilePartition,
    FileSource,
    Landing,
    Progress,
    TextDelivery,
    Unit,
    landing_findings,
    list_loads,
    load_table,
    plan_load,
    reload_load,
    show_load,
    undo_load,
)
from datops_assets.ingestion.bronze import WORTH_A_CONSTANT_BYTES
from datops_assets.ingestion.listing import natural_order
from datops_assets_tests.ingestion.conftest import Lab

DAILY = FilePartition(r"(\d\d\d\d-\d\d-\d\d)")


def live(lab: Lab) -> list[str]:
    """Return the values of column a that silver may see."""
    query = (
        "select a from bronze.shop_orders join datops.loads using (load_id) where state = 'loaded' order by a"
    )
    query = query.replace("using (load_id)", "on load_id = _load_id")
    return [row[0] for row in lab.warehouse.fetch(query)]


def states(lab: Lab) -> list[tuple[str, str]]:
    """Return path and state of every load, oldest first."""
    return [(load.path, load.state) for load in lab.loads()]


def test_a_second_run_adds_nothing(lab: Lab) -> None:
    """Same path, same content: nothing, and nothing is entered."""
    lab.write("a.csv", "a\n1\n")
    assert lab.load().rows_added == 1
    again = lab.load()
    assert (again.results, again.rows_total, len(lab.loads())) == ([], 1, 1)


def test_a_touched_file_is_hashed_and_left_alone(lab: Lab) -> None:
    """And not hashed again by the run after that."""
    path = lab.write("a.csv", "a\n1\n")
    lab.load()
    os.utime(path, (1, 1))
    assert [p.action for p in plan_load(lab.warehouse.conn, FileSource(), lab.table)] == ["compare"]
    assert lab.load().results == []
    assert [p.reason for p in plan_load(lab.warehouse.conn, FileSource(), lab.table)] == ["unchanged"]


def test_the_same_content_under_two_names_is_loaded_and_noted(lab: Lab) -> None:
    """Two deliveries are two deliveries; whoever looks sees that they are equal."""
    lab.write("a.csv", "a\n1\n")
    lab.write("b.csv", "a\n1\n")
    assert lab.load().rows_added == 2
    first, second = lab.loads()
    assert (first.same_content_as, second.same_content_as) == (None, first.load_id)


@pytest.mark.parametrize(
    ("policy", "expected", "final"),
    [
        ("replace", ["2"], [("a.csv", "superseded"), ("a.csv", "loaded")]),
        ("append", ["1", "2"], [("a.csv", "loaded"), ("a.csv", "loaded")]),
        ("refuse", ["1"], [("a.csv", "loaded"), ("a.csv", "refused")]),
    ],
)
def test_a_known_path_with_new_content(
    lab: Lab, policy: str, expected: list[str], final: list[tuple[str, str]]
) -> None:
    """By policy; the rows of before stay in bronze in any case."""
    lab.declare(changed_file=policy)
    lab.write("a.csv", "a\n1\n")
    lab.load()
    lab.write("a.csv", "a\n2\n")
    lab.load()
    assert (live(lab), states(lab)) == (expected, final)
    assert lab.rows("a")[0] == ("1",)
    assert lab.load().results == []


def test_a_refused_change_comes_in_once_the_old_load_is_undone(lab: Lab) -> None:
    """One step, and the message names it: no `reload` after it, and never neither of the two."""
    lab.declare(changed_file="refuse")
    lab.write("a.csv", "a\n1\n")
    (old,) = lab.load().results
    lab.write("a.csv", "a\n2\n")
    (refused,) = lab.load().results
    assert refused.error is not None
    assert refused.error.endswith(f": datops load undo {old.ulid}, and the next run loads it")
    (skipped,) = plan_load(lab.warehouse.conn, FileSource(), lab.table)
    assert skipped.reason == f"refused beside the load before it; datops load undo {old.ulid} lets it in"
    undo_load(lab.warehouse.conn, old.ulid)
    assert [result.state for result in lab.load().results] == ["loaded"]
    assert live(lab) == ["2"]


def test_content_that_comes_back_is_loaded_again(lab: Lab) -> None:
    """A, then B, then A: the last word counts."""
    for content in ("1", "2", "1"):
        lab.write("a.csv", f"a\n{content}\n")
        lab.load()
    assert live(lab) == ["1"]
    assert [state for _, state in states(lab)] == ["superseded", "superseded", "loaded"]
    assert [load.same_content_as for load in lab.loads()] == [None] * 3  # noted for other paths only


def test_records_are_numbered_from_one_in_every_file(lab: Lab) -> None:
    """Whichever connection loads it, and whatever numbers another one still holds."""
    for number in range(3):
        lab.write(f"{number}.csv", "a\n1\n2\n")
        with lab.warehouse.connect() as other:
            load_table(other if number == 1 else lab.warehouse.conn, FileSource(), lab.table, batch="b")
    assert lab.rows("_load_id, _row") == [(load, row) for load in (1, 2, 3) for row in (1, 2)]


def test_one_bad_file_does_not_stop_the_others(lab: Lab) -> None:
    """It is entered as failed, left alone while it stays the same, and taken when it changes."""
    lab.write("1.json", "[1")
    lab.write("2.csv", "a\n1\n")
    first, second = lab.load().results
    assert (first.state, second.state) == ("failed", "loaded")
    assert first.error == "1.json: line 1, column 3: a comma or the end of the array was expected"
    (skipped,) = [p for p in plan_load(lab.warehouse.conn, FileSource(), lab.table) if p.path == "1.json"]
    assert skipped.reason == f"failed and not changed since; datops load reload {first.ulid}"
    assert lab.load().results == []


def test_files_are_taken_by_partition_then_as_a_person_would_sort(lab: Lab) -> None:
    """The winner among equal keys is the later load."""
    lab.declare(pattern="**/*.csv", partition=DAILY)
    for path in (
        "x10 2026-01-01.csv",
        "x9 2026-01-01.csv",
        "a 2026-01-02.csv",
        "z 2025-12-31.csv",
        "10.csv",
        "9.csv",
    ):
        lab.write(path, "a\n1\n")
    assert [load.path for load in lab.load().results] == [
        "9.csv", "10.csv", "z 2025-12-31.csv", "x9 2026-01-01.csv", "x10 2026-01-01.csv", "a 2026-01-02.csv",
    ]  # fmt: skip
    assert [load.partition_key for load in lab.loads()][2:] == [
        "2025-12-31",
        "2026-01-01",
        "2026-01-01",
        "2026-01-02",
    ]
    assert sorted(["a10", "a9", "a", "b"], key=natural_order) == ["a", "a9", "a10", "b"]


def test_a_partition_takes_its_files_only(lab: Lab) -> None:
    """The others wait for their own run."""
    lab.declare(partition=DAILY)
    lab.write("2026-01-01.csv", "a\n1\n")
    lab.write("2026-01-02.csv", "a\n2\n")
    assert [load.path for load in lab.load(partitions=["2026-01-02"]).results] == ["2026-01-02.csv"]
    assert lab.load().rows_added == 1


def test_files_that_are_not_complete_wait(lab: Lab) -> None:
    """Temporary names, young files, missing done-markers; hidden files are not even named."""
    lab.declare(landing=Landing(stable_for_s=60, done_marker="{name}.done"))
    for path in ("a.csv", "b.csv", "c.csv.tmp", ".hidden.csv", "d.csv"):
        lab.write(path, "a\n1\n")
    lab.write("a.csv.done", "")
    os.utime(lab.folder / "a.csv", (1, 1))
    os.utime(lab.folder / "b.csv", (1, 1))
    lab.declare(format="csv")
    plans = {p.path: p.reason for p in plan_load(lab.warehouse.conn, FileSource(), lab.table)}
    assert plans == {
        "a.csv": "new",
        "b.csv": "its done-marker b.csv.done is not there yet",
        "c.csv.tmp": "its name says that it is still being written",
        "d.csv": "changed 0 s ago, taken after 60 s without a change",
    }
    assert [result.path for result in lab.load().results] == ["a.csv"]


def test_days_with_missing_or_surplus_files_are_found(lab: Lab) -> None:
    """Days between the first and the last, too."""
    lab.declare(partition=DAILY, landing=Landing(files_per_day=1))
    for path in ("2026-01-01.csv", "2026-01-03.csv", "b2026-01-03.csv"):
        lab.write(path, "a\n1\n")
    lab.load()
    findings = landing_findings(lab.warehouse.conn, lab.table, until=date(2026, 1, 4))
    assert [str(finding) for finding in findings] == [
        "shop.orders: 0 file(s) of 2026-01-02, expected 1",
        "shop.orders: 2 file(s) of 2026-01-03, expected 1",
        "shop.orders: 0 file(s) of 2026-01-04, expected 1",
    ]


def test_an_undone_load_stays_away_until_it_is_asked_for(lab: Lab) -> None:
    """Touching the file changes nothing; `reload` does, new content does."""
    path = lab.write("a.csv", "a\n1\n")
    ulid = lab.load().results[0].ulid
    assert undo_load(lab.warehouse.conn, ulid).state == "undone"
    os.utime(path, (1, 1))
    assert (lab.load().results, live(lab), lab.rows("a")) == ([], [], [("1",)])
    with pytest.raises(LoadRefusedError, match="only a loaded one can be undone"):
        undo_load(lab.warehouse.conn, ulid)
    reload_load(lab.warehouse.conn, ulid)
    assert lab.load().rows_added == 1
    assert live(lab) == ["1"]


def test_undoing_a_replacement_brings_back_what_it_replaced(lab: Lab) -> None:
    """As if it had not happened."""
    lab.write("a.csv", "a\n1\n")
    lab.load()
    lab.write("a.csv", "a\n2\n")
    undo_load(lab.warehouse.conn, lab.load().results[0].ulid)
    assert live(lab) == ["1"]
    assert lab.load().results == []


def test_a_failed_file_is_taken_again_when_asked(lab: Lab) -> None:
    """Or once its declaration is another one; a loaded one has to be undone first."""
    lab.write("a.json", '{"items": [{"a": 1}]}')
    failed = lab.load().results[0]
    assert lab.load().results == []
    reload_load(lab.warehouse.conn, str(failed.load_id))
    assert [again.state for again in lab.load().results] == ["failed"]
    lab.declare(records="items")
    loaded = lab.load().results[0]
    assert loaded.rows == 1
    with pytest.raises(LoadRefusedError, match="undo it first: datops load undo"):
        reload_load(lab.warehouse.conn, loaded.ulid)
    with pytest.raises(LoadRefusedError, match="there is no load"):
        show_load(lab.warehouse.conn, "nonsense")


def test_loads_are_listed_newest_first(lab: Lab) -> None:
    """By source, table, state; with what a person wants to know."""
    lab.write("a.csv", "a\n1\n")
    lab.write("b.csv", "a,a\n1,2\n3\n")
    lab.load(run_id="run-1")
    entries = list_loads(lab.warehouse.conn, "shop")
    assert [(e.path, e.rows, e.damaged_rows, e.header, e.table) for e in entries] == [
        ("b.csv", 1, 1, ["a", "a"], "orders"),
        ("a.csv", 1, 0, ["a"], "orders"),
    ]
    assert {e.run_id for e in entries} == {"run-1"}
    assert list_loads(lab.warehouse.conn, state="failed") == []
    assert list_loads(lab.warehouse.conn, "shop", limit=1) == entries[:1]


@pytest.mark.parametrize("disposition", ["replace", "snapshot"])
def test_a_whole_delivery_takes_the_place_of_the_one_before(lab: Lab, disposition: str) -> None:
    """All its files at once, and only when all are there."""
    lab.declare(disposition=disposition, pattern="*.csv")
    lab.write("1.csv", "a\n1\n")
    lab.write("2.csv", "a\n2\n")
    assert lab.load().pending is None
    assert live(lab) == ["1", "2"]
    lab.write("1.csv", "a\n3\n")
    lab.write("2.csv", 'a,"b\n4\n')
    incomplete = lab.load()
    assert "1 file(s) of the delivery are not loaded (2.csv)" in str(incomplete.pending)
    assert live(lab) == ["1", "2"]
    lab.write("2.csv", "a\n4\n")
    assert lab.load().pending is None
    assert live(lab) == ["3", "4"]
    assert lab.load().results == []


def test_a_part_delivered_again_unchanged_stays(lab: Lab) -> None:
    """One part of the new delivery may be equal to the old one."""
    lab.declare(disposition="replace")
    lab.write("1.csv", "a\n1\n")
    lab.write("2.csv", "a\n2\n")
    lab.load()
    lab.write("1.csv", "a\n3\n")
    lab.write("2.csv", "a\n2\n")
    os.utime(lab.folder / "2.csv", (1, 1))
    lab.load()
    assert live(lab) == ["2", "3"]


def test_a_delivery_under_new_names_replaces_files_that_still_lie_there(lab: Lab) -> None:
    """Not touched since: not delivered again."""
    lab.declare(disposition="replace")
    lab.write("old.csv", "a\n1\n")
    lab.load()
    lab.write("new.csv", "a\n2\n")
    loaded = lab.load()
    assert live(lab) == ["2"]
    undo_load(lab.warehouse.conn, loaded.results[0].ulid)
    assert live(lab) == ["1"]


def test_with_partitions_the_newest_day_is_the_delivery(lab: Lab) -> None:
    """Whichever order the days come in, and although all come in one run."""
    lab.declare(disposition="replace", partition=DAILY)
    for day in (1, 3, 2):
        lab.write(f"2026-01-0{day}.csv", f"a\n{day}\n")
    lab.load()
    assert live(lab) == ["3"]
    lab.write("2026-01-01.csv", "a\nlate\n")
    lab.load()
    assert live(lab) == ["3"]


def test_a_broken_file_that_was_taken_away_is_no_longer_missed(lab: Lab) -> None:
    """The rest of the delivery then counts as all of it."""
    lab.declare(disposition="replace")
    lab.write("1.csv", "a\n1\n")
    bad = lab.write("2.csv", b"\xff\n")
    assert lab.load().pending is not None
    assert live(lab) == []
    bad.unlink()
    assert lab.load().pending is None
    assert live(lab) == ["1"]


def test_two_runs_at_once_load_everything_once(lab: Lab) -> None:
    """Sensor, command line, backfill: the second waits and then finds nothing to do."""
    for n in range(5):
        lab.write(f"{n}.csv", "a\n" + "1\n" * 2000)
    totals: list[int] = []

    def run(name: str) -> None:
        with lab.warehouse.connect() as conn:
            totals.append(load_table(conn, FileSource(), lab.table, batch=name).rows_added)

    threads = [threading.Thread(target=run, args=(f"b{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(totals) == [0, 0, 10000]
    assert lab.rows("count(*), count(distinct (_load_id, _row))", "1") == [(10000, 10000)]


def between_pieces(delivery: Delivery, happens: Callable[[], object]) -> Delivery:
    """Let something happen whenever a piece of a delivery was handed on."""
    name = "chunks" if isinstance(delivery, TextDelivery) else "batches"
    pieces = getattr(delivery, name)

    def disturbed() -> Iterator[object]:
        for piece in pieces():
            yield piece
            happens()

    setattr(delivery, name, disturbed)
    return delivery


class DisturbedSource(FileSource):
    """Files that something happens to while they are read."""

    def __init__(self, disturb: Callable[[Path], object]) -> None:
        super().__init__()
        self.disturb = disturb

    def open(self, unit: Unit) -> Delivery:
        """Disturb the file after its first piece was handed on."""
        return between_pieces(super().open(unit), lambda: self.disturb(Path(unit.location)))


def grow(path: Path) -> None:
    """Append a record."""
    with path.open("a") as file:
        file.write("9\n")


def swap(path: Path) -> None:
    """Put another file of the same size and time there."""
    stat = path.stat()
    other = path.with_suffix(".new")
    other.write_text("a\n7\n")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize("disturb", [grow, Path.unlink, swap], ids=["grows", "vanishes", "is swapped"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_that_changes_while_it_is_read_is_not_kept(
    lab: Lab, ending: str, disturb: Callable[[Path], object]
) -> None:
    """The next run takes what is there then."""
    whole = content_of(lab, ending)
    lab.write(f"a.{ending}", whole)
    source = DisturbedSource(disturb)
    result = load_table(lab.warehouse.conn, source, lab.table, batch="b", adbc_url=lab.warehouse.url).results[
        0
    ]
    assert (result.state, lab.rows("count(*)", "1")) == ("interrupted", [(0,)])
    assert "nothing of it was kept" in str(result.error)
    lab.write(f"a.{ending}", whole)
    assert lab.load().rows_added == 1


def content_of(lab: Lab, ending: str) -> bytes:
    """Return a file of one record."""
    if ending == "parquet":
        pq.write_table(pa.table({"a": ["1"]}), lab.folder / ".a.parquet")
        return (lab.folder / ".a.parquet").read_bytes()
    return {"csv": b"a\n1\n", "jsonl": b'{"a": 1}\n'}[ending]


@pytest.mark.parametrize("last_record", ["2", '2,"x"y'], ids=["plain", "read again carefully"])
def test_a_large_load_leaves_no_load_id_behind(lab: Lab, last_record: str) -> None:
    """It makes its id a constant for COPY's sake; whoever writes after it gives an id of their own."""
    large = "a\n" + "x" * (WORTH_A_CONSTANT_BYTES - 4) + "\n1\n" + last_record + "\n"
    for number in (1, 2):
        lab.write(f"{number}.csv", large)
    lab.load()
    assert lab.rows("distinct _load_id", "1") == [(1,), (2,)]
    with lab.warehouse.connect() as other:
        with pytest.raises(psycopg.errors.UndefinedObject):
            other.execute("insert into bronze.shop_orders (a) values ('nobody says which load')")
        other.execute("set datops.load_id = '77'")
        other.execute("insert into bronze.shop_orders (a) values ('by hand')")
    assert lab.rows("distinct _load_id", "1") == [(1,), (2,), (77,)]


def test_whoever_watches_is_told(lab: Lab) -> None:
    """Bytes done grow to the size of the file."""
    told: list[Progress] = []
    lab.write("a.csv", "a\n" + "1\n" * 2_000_000)
    lab.load(progress=told.append)
    assert [p.bytes_done for p in told] == sorted(p.bytes_done for p in told)
    assert (told[-1].bytes_done, told[-1].path) == (told[-1].size_bytes, "a.csv")


def test_readers_are_never_locked_out_by_a_load_without_new_columns(lab: Lab) -> None:
    """A reader in a long transaction does not stop a load, nor the load the reader."""
    lab.write("a.csv", "a\n1\n")
    lab.load()
    lab.write("b.csv", "a\n2\n")
    with lab.warehouse.connect() as reader, reader.transaction():
        reader.execute("select * from bronze.shop_orders")
        assert lab.load().rows_added == 1


def test_no_message_shows_a_value(lab: Lab) -> None:
    """Neither of a damaged record nor of a file the server refuses."""
    secret = "tops3cret"
    lab.write("a.csv", f'a,b\n1,"{secret}"{secret}\n{secret}\n')
    lab.write("b.json", f'[{{"a": {secret}}}]')
    lab.write("c.jsonl", f'{{"a": {secret}}}\n')
    lab.load()
    said = [str(load.error) for load in lab.loads()] + [reason for _, reason, *_ in lab.damaged()]
    assert len(said) == 6
    assert not any(secret in sentence for sentence in said)


class CutOffSource(FileSource):
    """Files during whose reading the server ends every connection of the load."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab

    def open(self, unit: Unit) -> Delivery:
        """End all connections after the first piece was handed on."""
        return between_pieces(super().open(unit), self._cut_off)

    def _cut_off(self) -> None:
        with self.lab.warehouse.connect() as other:
            other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_lost_connection_ends_the_run_and_the_next_one_completes_it(lab: Lab, ending: str) -> None:
    """The server is the problem, not the file: nothing is entered as failed."""
    lab.write(f"a.{ending}", content_of(lab, ending))
    with (
        lab.warehouse.connect() as conn,
        pytest.raises((psycopg.OperationalError, WarehouseUnreachableError)),
    ):
        load_table(conn, CutOffSource(lab), lab.table, batch="b", adbc_url=lab.warehouse.url)
    with lab.warehouse.connect() as conn:
        assert (
            load_table(conn, FileSource(), lab.table, batch="c", adbc_url=lab.warehouse.url).rows_added == 1
        )
        assert conn.execute("select count(*) from bronze.shop_orders").fetchone() == (1,)
        states = [load.state for load in list_loads(conn)]
    assert states == ["loaded", "interrupted"]
