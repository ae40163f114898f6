"""Files appear whole or not at all, nothing is written twice, and two shops are never mixed."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from datops_assets.errors import DeclarationError, LockTakenError, TerminalError
from datops_assets.synthetic import DEMO_FAULTS, ShopPlan, generate_shop, generate_shop_day, read_faults
from datops_assets_tests.synthetic.reading import files_of

PLAN = ShopPlan(seed=7, days=4, scale=0.05, faults=read_faults(DEMO_FAULTS))


def test_the_second_call_writes_nothing(tmp_path):
    first = generate_shop(PLAN, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = generate_shop(PLAN, tmp_path)
    assert len(first.written) == len(first.files) == 4 * 5 + 1
    assert second.written == ()
    assert (second.files, second.rows, second.labels) == (first.files, first.rows, first.labels)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_a_spoiled_file_is_written_again(tmp_path):
    generate_shop(PLAN, tmp_path)
    before = files_of(tmp_path)
    path = tmp_path / "orders" / "orders-2026-01-02.csv"
    path.write_bytes(path.read_bytes().replace(b"EUR", b"USD"))
    assert generate_shop(PLAN, tmp_path).written == ("orders/orders-2026-01-02.csv",)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (ShopPlan(seed=8, days=4, scale=0.05, faults=PLAN.faults), "seed"),
        (ShopPlan(seed=7, days=4, scale=0.06, faults=PLAN.faults), "scale"),
        (ShopPlan(seed=7, days=4, scale=0.05, start=date(2026, 1, 2), faults=PLAN.faults), "start"),
        (ShopPlan(seed=7, days=4, scale=0.05), "faults"),
    ],
)
def test_a_folder_of_another_shop_is_refused(tmp_path, other, differs):
    generate_shop(PLAN, tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(TerminalError, match=rf"holds another shop \({differs} differ\).*--force"):
        generate_shop(other, tmp_path)
    assert files_of(tmp_path) == before


def test_force_replaces_the_other_shop_and_leaves_foreign_files(tmp_path):
    generate_shop(ShopPlan(seed=8, days=9, scale=0.05), tmp_path)
    foreign = tmp_path / "orders" / "notes.txt"
    foreign.write_text("mine")
    generate_shop(PLAN, tmp_path, force=True)
    assert foreign.read_text() == "mine"
    foreign.unlink()
    generate_shop(PLAN, tmp_path / "fresh")
    fresh = files_of(tmp_path / "fresh")
    assert {path: data for path, data in files_of(tmp_path).items() if not path.startswith("fresh")} == fresh


def test_shop_files_of_nobody_are_refused(tmp_path):
    generate_shop(PLAN, tmp_path)
    (tmp_path / "shop.json").unlink()
    with pytest.raises(TerminalError, match="holds another shop"):
        generate_shop(PLAN, tmp_path)


def test_fewer_days_leave_later_files_and_their_labels(tmp_path):
    generate_shop(PLAN, tmp_path)
    before = files_of(tmp_path)
    fewer = ShopPlan(seed=7, days=2, scale=0.05, faults=PLAN.faults)
    assert generate_shop(fewer, tmp_path).written == ()
    assert files_of(tmp_path) == before


def test_a_day_before_the_start_is_refused(tmp_path):
    with pytest.raises(DeclarationError, match="before the shop's start"):
        generate_shop_day(PLAN, date(2025, 12, 31), tmp_path)
    assert files_of(tmp_path) == {}


def test_two_at_a_time_are_refused(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(LockTakenError, match="another process"):
            generate_shop(PLAN, tmp_path)
    finally:
        os.close(folder)
    assert files_of(tmp_path) == {}


def test_killed_at_any_moment_it_leaves_whole_files_and_goes_on(tmp_path):
    plan = ShopPlan(seed=7, days=40, scale=0.5)
    generate_shop(plan, tmp_path / "whole")
    whole = files_of(tmp_path / "whole")
    script = (
        "import sys, pathlib\n"
        "from datops_assets.synthetic import ShopPlan, generate_shop\n"
        "generate_shop(ShopPlan(seed=7, days=40, scale=0.5), pathlib.Path(sys.argv[1]))\n"
    )
    out = tmp_path / "killed"
    chance = random.Random(4)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(out)])
        written = wanted = len(files_of(out))
        wanted += chance.randrange(5, 60)
        while process.poll() is None and written < wanted:
            time.sleep(0.002)
            written = len(list(out.rglob("*-??.*")))
        process.kill()
        process.wait()
        for path, data in files_of(out).items():
            assert data == whole[path] or path == "products/products.json", path
    generate_shop(plan, out)
    assert files_of(out) == whole
    assert hidden(out) == []


def hidden(root: Path) -> list[Path]:
    return [path for path in root.rglob(".*") if path.is_file()]
