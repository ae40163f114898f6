"""kill -9 at any moment of a load: the next run completes it, once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datops_assets.ingestion import FileSource, load_table
from datops_assets.ingestion.job import Progress
from datops_assets.postgres import failpoints
from datops_assets_tests.ingestion.conftest import Lab

FAILPOINTS = (
    "after_reserve",
    "before_copy",
    "after_copy",
    "after_quarantine",
    "before_commit",
    "after_commit",
)
FILES = 3
ROWS = 200

# The process that dies: arms a failpoint by code and loads. No test talks to it but by its files.
LOADER = """
import sys
from pathlib import Path
import psycopg
from datops_assets.ingestion import FileSource, FileTable, load_table
from datops_assets.postgres import failpoints

url, folder, pattern, disposition, name, hits = sys.argv[1:]
if name:
    failpoints.arm(name, int(hits))
with psycopg.connect(url, autocommit=True) as conn:
    table = FileTable(source="shop", name="orders", root=Path(folder), pattern=pattern, disposition=disposition)
    print("ready", flush=True)
    load_table(conn, FileSource(), table, batch="killed", adbc_url=url)
"""


def start(lab: Lab, failpoint: str = "", hits: int = 1) -> subprocess.Popen[bytes]:
    """Start a process that loads the table and dies at a failpoint."""
    table = lab.table
    arguments = [lab.warehouse.url, str(lab.folder), table.pattern, table.disposition, failpoint, str(hits)]
    return subprocess.Popen([sys.executable, "-c", LOADER, *arguments], stdout=subprocess.PIPE)


def write(lab: Lab, ending: str, number: int) -> None:
    """Write a file of ROWS records in one format, one of them damaged where the format can be."""
    values = [f"{number}-{n}" for n in range(ROWS)]
    if ending == "csv":
        lab.write(f"{number}.csv", "a\n" + "\n".join(values[:-1]) + '\n"x"y\n')
    elif ending == "jsonl":
        lab.write(f"{number}.jsonl", "\n".join(json.dumps({"a": value}) for value in values[:-1]) + "\n[1]\n")
    else:
        values[-1] = "nul\0"
        pq.write_table(pa.table({"a": values}), lab.folder / f"{number}.parquet")


def assert_everything_is_there_once(lab: Lab, files: int) -> None:
    """Bronze, quarantine and catalogue agree, and nothing of a dead load is left."""
    damaged = "select count(*), count(distinct (_load_id, _row)) from quarantine.shop_orders"
    distinct = "count(*), count(distinct a::text), count(distinct _load_id)"
    assert lab.rows(distinct, "1") == [(files * (ROWS - 1), files * (ROWS - 1), files)]
    assert lab.warehouse.fetch(damaged) == [(files, files)]
    states = [load.state for load in lab.loads()]
    assert (states.count("loaded"), set(states) - {"loaded", "interrupted"}) == (files, set())


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_killed_at_any_step_the_next_run_completes_it_once(lab: Lab, ending: str, failpoint: str) -> None:
    """The second of three files is hit: one is done, one half done, one not begun."""
    for number in range(FILES):
        write(lab, ending, number)
    process = start(lab, failpoint, hits=2)
    assert process.wait(60) == -signal.SIGKILL
    assert lab.load().failed == []
    assert_everything_is_there_once(lab, FILES)
    assert lab.load().results == []


@pytest.mark.parametrize("failpoint", ["after_commit", "before_swap", "in_swap", "after_swap"])
def test_killed_in_a_whole_delivery_the_next_run_completes_it(lab: Lab, failpoint: str) -> None:
    """What the dead run had loaded belongs to the delivery, although the next batch has another name."""
    lab.declare(disposition="replace")
    lab.write("0.csv", "a\nold\n")
    lab.load()
    (lab.folder / "0.csv").unlink()
    for number in (1, 2):
        lab.write(f"{number}.csv", f"a\n{number}\n")
    assert start(lab, failpoint).wait(60) == -signal.SIGKILL
    assert lab.load().pending is None
    live = "select a from bronze.shop_orders join datops.loads on load_id = _load_id where state = 'loaded' order by 1"
    assert lab.warehouse.fetch(live) == [("1",), ("2",)]


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_everything_is_there_once(lab: Lab, seed: int) -> None:
    """Again and again, while files keep arriving."""
    moments = random.Random(seed)
    ending = ("csv", "jsonl", "parquet")[seed]
    rounds = 3
    for number in range(rounds * FILES):
        write(lab, ending, number)
        if number % FILES == FILES - 1:
            process = start(lab)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moments.random() * 0.2)
            process.kill()
            process.wait(60)
    assert lab.load().failed == []
    assert_everything_is_there_once(lab, rounds * FILES)


def test_nothing_of_a_test_is_armed_by_accident() -> None:
    """Failpoints cannot be reached from outside: no variable, no setting."""
    source = Path(sys.modules["datops_assets.postgres.failpoints"].__file__ or "").read_text()
    assert "environ" not in source


def lose_lock(lab: Lab) -> None:
    """End the session that holds the table's lock, as a network that breaks would."""
    with lab.warehouse.connect() as other:
        pid = lab.warehouse.conn.info.backend_pid
        other.execute("select pg_terminate_backend(%s, 5000)", (pid,))


def load_elsewhere(lab: Lab) -> list[str]:
    with lab.warehouse.connect() as conn:
        loaded = load_table(conn, FileSource(), lab.table, batch="other", adbc_url=lab.warehouse.url)
    return [result.state for result in loaded.results]


def counts(lab: Lab) -> tuple[list[str], list[tuple[int, int]]]:
    with lab.warehouse.connect() as conn:
        states = conn.execute("select state from datops.loads order by load_id").fetchall()
        rows = conn.execute("select count(*), count(distinct _row) from bronze.shop_orders group by _load_id")
        return [state for (state,) in states], rows.fetchall()


def test_a_lock_lost_while_parquet_is_written_lets_no_second_run_between(lab: Lab) -> None:
    """ADBC writes on a connection of its own, which goes on when the one with the lock is gone."""
    pq.write_table(pa.table({"a": range(300_000)}), lab.folder / "1.parquet")
    with ThreadPoolExecutor(1) as thread:
        second: list[Future[list[str]]] = []

        def cut(_: Progress) -> None:
            if not second:
                lose_lock(lab)
                second.append(thread.submit(load_elsewhere, lab))
                time.sleep(0.3)

        with pytest.raises(psycopg.OperationalError):
            lab.load(progress=cut)
        assert second[0].result() == []
    assert counts(lab) == (["loaded"], [(300_000, 300_000)])


def test_a_lock_lost_before_parquet_is_written_leaves_it_to_who_took_over(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"a": range(1000)}), lab.folder / "1.parquet")
    taken: list[str] = []

    def cut(name: str) -> None:
        if name == "after_copy" and not taken:
            taken.append("")
            with lab.warehouse.connect() as conn:
                conn.execute("update datops.loads set state = 'interrupted'")

    monkeypatch.setattr(failpoints, "hit", cut)
    (result,) = lab.load().results
    assert result.state == "interrupted"
    assert "another run took over; nothing of this try was kept" in str(result.error)
    assert lab.rows("count(*)", "1") == [(0,)]
    assert [each.state for each in lab.load().results] == ["loaded"]
    assert counts(lab) == (["interrupted", "loaded"], [(1000, 1000)])
