"""What is live, and so in silver, where each delivery takes the place of the one before it."""

from __future__ import annotations

import gzip
import os
import time
from typing import Any

import pytest

from datops_assets.ingestion import FilePartition, FileSource, Landing, plan_load, reload_load, undo_load
from datops_assets.quality import Contract, Judgement, judge_table
from datops_assets_tests.ingestion.conftest import Lab

DAILY = FilePartition(r"(\d{4}-\d\d-\d\d)")
ORDERS = Contract.model_validate(
    {"key": ["id"], "columns": {"id": {"type": "bigint"}, "v": {"type": "text"}}}
)


@pytest.fixture(params=["replace", "snapshot"])
def whole(lab: Lab, request: pytest.FixtureRequest) -> Lab:
    """A table of which each delivery is all there is."""
    lab.declare(disposition=request.param)
    return lab


def judge(lab: Lab) -> Judgement:
    """Bring silver up to date."""
    return judge_table(
        lab.warehouse.conn, source="shop", table="orders", contract=ORDERS, disposition=lab.table.disposition
    )


def silver(lab: Lab) -> list[Any]:
    """Return `id` and `v` of each row after a judgement, as `1x`."""
    judge(lab)
    return [row[0] for row in lab.warehouse.fetch("select id || v from silver.shop_orders order by id, v")]


def live(lab: Lab) -> list[str]:
    """Return the paths whose loads are live."""
    return sorted(load.path for load in lab.loads() if load.state == "loaded")


def rows(*values: str) -> str:
    """Return a CSV file with records written as `1x`."""
    return "id,v\n" + "".join(f"{value[0]},{value[1:]}\n" for value in values)


def load_id(lab: Lab, path: str, state: str = "loaded") -> str:
    """Return the number of the one load of a path that is in a state."""
    (found,) = (load for load in lab.loads() if (load.path, load.state) == (path, state))
    return str(found.load_id)


def test_a_file_that_is_mended_joins_its_delivery(whole: Lab) -> None:
    """The first run stages a, the second loads b: both are the delivery."""
    whole.write("a.csv", rows("1x", "2x"))
    whole.write("b.csv.gz", b"\x1f\x8b\x08junk")
    assert whole.load().pending is not None
    assert live(whole) == []
    whole.write("b.csv.gz", gzip.compress(rows("3x").encode()))
    assert whole.load().pending is None
    assert silver(whole) == ["1x", "2x", "3x"]


def test_the_parts_of_a_day_may_come_in_several_runs(whole: Lab) -> None:
    """Also when an earlier part has been taken away meanwhile."""
    whole.declare(partition=DAILY)
    first = whole.write("2026-01-01_1.csv", rows("1x", "2x"))
    whole.load()
    assert silver(whole) == ["1x", "2x"]
    first.unlink()
    whole.write("2026-01-01_2.csv", rows("3x"))
    whole.load()
    assert silver(whole) == ["1x", "2x", "3x"]
    whole.write("2026-01-02_1.csv", rows("4x"))
    whole.load()
    assert silver(whole) == ["4x"]


def test_a_touched_file_changes_nothing(whole: Lab) -> None:
    """Neither what is live nor what belongs together."""
    whole.write("a.csv", rows("1x"))
    whole.write("b.csv", rows("3x"))
    whole.load()
    os.utime(whole.folder / "a.csv", (1, 1))
    whole.load()
    assert live(whole) == ["a.csv", "b.csv"]
    assert silver(whole) == ["1x", "3x"]


@pytest.mark.parametrize("waits", ["young", "without its marker", "by its name"])
def test_a_file_that_is_not_complete_holds_its_delivery_back(whole: Lab, waits: str) -> None:
    """And the sentence names it."""
    landing = {
        "young": Landing(stable_for_s=30), "without its marker": Landing(done_marker="{name}.done"),
        "by its name": Landing(),
    }[waits]  # fmt: skip
    whole.declare(landing=landing, format="csv")
    unfinished = "b.csv.part" if waits == "by its name" else "b.csv"
    deliver(whole, "a.csv", rows("1x", "2x"))
    whole.load()
    deliver(whole, "a.csv", rows("1y", "2y"))
    whole.write(unfinished, "id,v\n3,")
    assert f"1 file(s) of the delivery are not loaded ({unfinished})" in str(whole.load().pending)
    assert silver(whole) == ["1x", "2x"]
    (whole.folder / unfinished).unlink()
    deliver(whole, "b.csv", rows("3y"))
    assert whole.load().pending is None
    assert silver(whole) == ["1y", "2y", "3y"]


def deliver(lab: Lab, path: str, content: str) -> None:
    """Put a file there that is old enough and has its marker."""
    if lab.table.landing.done_marker:
        lab.write(f"{path}.done", "")
    old = time.time() - 100 - len(lab.loads())
    os.utime(lab.write(path, content), (old, old))


def test_a_file_that_changes_replaces_only_itself(whole: Lab) -> None:
    """New ones beside it join, untouched ones stay, those that were taken away leave."""
    for path, record in (("a.csv", "1x"), ("b.csv", "2x"), ("c.csv", "3x")):
        whole.write(path, rows(record))
    whole.load()
    whole.write("a.csv", rows("1y"))
    whole.write("d.csv", rows("4y"))
    (whole.folder / "c.csv").unlink()
    assert whole.load().pending is None
    assert silver(whole) == ["1y", "2x", "4y"]


def test_a_file_taken_away_alone_changes_nothing(whole: Lab) -> None:
    """An emptied landing folder is no delivery."""
    path = whole.write("a.csv", rows("1x"))
    whole.load()
    path.unlink()
    whole.load()
    assert silver(whole) == ["1x"]


@pytest.mark.parametrize(("content", "state"), [("id,v\n", "loaded"), ("id,v\n1,2,3\n", "refused")])
def test_a_file_without_records_is_taken_where_that_is_declared(whole: Lab, content: str, state: str) -> None:
    """One whose records are all damaged is not empty."""
    whole.declare(allow_empty=True)
    whole.write("a.csv", rows("1x"))
    whole.load()
    whole.write("a.csv", content)
    (result,) = whole.load().results
    assert (result.state, silver(whole)) == (state, [] if state == "loaded" else ["1x"])


@pytest.mark.parametrize(
    "content", ["", "id,v\n", "id,v\n1,2,3\n"], ids=["0 bytes", "a header", "all damaged"]
)
def test_a_file_without_records_is_refused(whole: Lab, content: str) -> None:
    """It would empty silver; the sentence says how to go on."""
    path = whole.write("a.csv", rows("1x"))
    whole.load()
    assert silver(whole) == ["1x"]
    whole.write("a.csv", content)
    (result,) = whole.load().results
    assert result.state == "refused"
    assert str(result.error).startswith("a.csv holds no record that could be loaded")
    assert str(result.error).endswith(
        "deliver it again with its records, or take it away; where none is right, declare `allow_empty: true`"
    )
    assert (silver(whole), whole.load().results) == (["1x"], [])
    path.unlink()
    whole.write("b.csv", rows("2x"))
    assert whole.load().pending is None
    assert silver(whole) == ["2x"]


def test_a_file_without_records_is_taken_where_nothing_gives_way(lab: Lab) -> None:
    """And one that was refused is tried again once the table is declared so."""
    lab.declare(disposition="replace")
    lab.write("a.csv", "id,v\n")
    lab.load()
    lab.declare(disposition="append")
    assert [(result.state, result.rows) for result in lab.load().results] == [("loaded", 0)]


def test_a_content_that_is_there_no_more_never_becomes_live(whole: Lab) -> None:
    """v1 is live, v2 staged beside a broken file; then the file is v1 again, and the broken one gone."""
    whole.write("a.csv", rows("1x"))
    whole.load()
    whole.write("a.csv", rows("1y"))
    broken = whole.write("b.csv", b"\xff\n")
    whole.load()
    whole.write("a.csv", rows("1x"))
    broken.unlink()
    whole.load()
    assert silver(whole) == ["1x"]
    assert [load.state for load in whole.loads()] == ["loaded", "superseded", "failed"]


def test_a_staged_file_that_was_taken_away_is_no_part_of_the_delivery(whole: Lab) -> None:
    """Else it would come in with whatever is delivered next."""
    withdrawn = whole.write("a.csv", rows("1x"))
    broken = whole.write("b.csv", b"\xff\n")
    whole.load()
    withdrawn.unlink()
    broken.unlink()
    whole.write("c.csv", rows("2x"))
    whole.load()
    assert silver(whole) == ["2x"]


def test_undoing_any_file_of_a_delivery_brings_back_what_its_path_held(whole: Lab) -> None:
    """Whichever of them comes first."""
    for version in ("x", "y"):
        whole.write("a.csv", rows(f"1{version}"))
        whole.write("b.csv", rows(f"3{version}"))
        whole.load()
    undo_load(whole.warehouse.conn, load_id(whole, "b.csv"))
    assert silver(whole) == ["1y", "3x"]
    undo_load(whole.warehouse.conn, load_id(whole, "a.csv"))
    assert silver(whole) == ["1x", "3x"]
    assert whole.load().results == []


def test_undoing_all_of_a_delivery_brings_back_the_one_before(whole: Lab) -> None:
    """Not before the last of its files is undone: two deliveries never mix."""
    for path in ("a1.csv", "a2.csv"):
        whole.write(path, rows(f"{path[1]}x"))
    whole.load()
    for path in ("b1.csv", "b2.csv"):
        whole.write(path, rows(f"{path[1]}y"))
    whole.load()
    whole.write("b1.csv", rows("1z"))
    whole.load()
    undo_load(whole.warehouse.conn, load_id(whole, "b2.csv"))
    assert silver(whole) == ["1z"]
    undo_load(whole.warehouse.conn, load_id(whole, "b1.csv"))
    assert silver(whole) == ["1y"]
    undo_load(whole.warehouse.conn, load_id(whole, "b1.csv"))
    assert silver(whole) == ["1x", "2x"]


def test_undoing_a_renewal_brings_back_the_file_that_had_been_taken_away(whole: Lab) -> None:
    """Once nothing of the renewal is left."""
    for path in ("a.csv", "b.csv", "c.csv"):
        whole.write(path, rows(f"{ord(path[0]) - 96}x"))
    whole.load()
    (whole.folder / "c.csv").unlink()
    whole.write("a.csv", rows("1y"))
    whole.write("b.csv", rows("2y"))
    whole.load()
    undo_load(whole.warehouse.conn, load_id(whole, "a.csv"))
    assert silver(whole) == ["1x", "2y"]
    undo_load(whole.warehouse.conn, load_id(whole, "b.csv"))
    assert silver(whole) == ["1x", "2x", "3x"]


def test_a_file_delivered_again_after_it_was_undone_joins_its_delivery(whole: Lab) -> None:
    """Undone because it was wrong; what comes instead does not take the place of the others."""
    whole.write("a.csv", rows("1x"))
    whole.write("b.csv", rows("2x"))
    whole.load()
    undo_load(whole.warehouse.conn, load_id(whole, "b.csv"))
    assert silver(whole) == ["1x"]
    whole.write("b.csv", rows("2y"))
    whole.load()
    assert silver(whole) == ["1x", "2y"]
    undo_load(whole.warehouse.conn, load_id(whole, "b.csv"))
    assert silver(whole) == ["1x"]
    reload_load(whole.warehouse.conn, max(load.ulid for load in whole.loads() if load.state == "undone"))
    whole.load()
    assert silver(whole) == ["1x", "2y"]


def test_an_undone_day_gives_way_to_the_day_before(whole: Lab) -> None:
    """To that day only, in the state its last delivery left, although it never was live."""
    whole.declare(partition=DAILY)
    for day in (1, 2, 3):
        whole.write(f"2026-01-0{day}.csv", rows(f"{day}x"))
    whole.load()
    whole.write("2026-01-02.csv", rows("2y"))
    whole.load()
    assert silver(whole) == ["3x"]
    undo_load(whole.warehouse.conn, load_id(whole, "2026-01-03.csv"))
    assert silver(whole) == ["2y"]
    undo_load(whole.warehouse.conn, load_id(whole, "2026-01-02.csv"))
    assert silver(whole) == ["2x"]
    undo_load(whole.warehouse.conn, load_id(whole, "2026-01-02.csv"))
    assert silver(whole) == ["1x"]


def test_undoing_a_staged_load_leaves_what_is_live(whole: Lab) -> None:
    """It had replaced nothing yet."""
    whole.write("a.csv", rows("1x"))
    whole.load()
    whole.write("a.csv", rows("1y"))
    broken = whole.write("b.csv", b"\xff\n")
    whole.load()
    undo_load(whole.warehouse.conn, load_id(whole, "a.csv", "staged"))
    assert silver(whole) == ["1x"]
    broken.unlink()
    assert whole.load().pending is None
    assert silver(whole) == ["1x"]
    (planned,) = plan_load(whole.warehouse.conn, FileSource(), whole.table)
    assert planned.reason.startswith("undone by a person")
