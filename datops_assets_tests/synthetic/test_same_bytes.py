"""The same seed gives the same bytes: here, elsewhere, whole, in parts, with and without faults."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from datops_assets.synthetic import DEMO_FAULTS, ShopPlan, generate_shop, generate_shop_day, read_faults
from datops_assets_tests.synthetic.reading import files_of

# A change here means that every folder generated so far is of another shop: raise
# FORMAT_VERSION in datops_assets/synthetic/folder.py, and say so in the changelog.
GOLDEN = {
    "customers": "65026ecb6168d0d3",
    "faults.jsonl": "b836986f8e32ace5",
    "order_items": "ed7afe48912ce3dc",
    "orders": "fc055c6cca9cb183",
    "payments": "94da5279e13be792",
    "products": "c783b2aaea4ee629",
    "shop.json": "f3c73baa26ac78af",
    "web_events": "10e1a326f77171d8",
}


def digest(root: Path) -> dict[str, str]:
    """One hash per table, over names and bytes of its files."""
    hashes: dict[str, str] = {}
    for folder in sorted(path for path in root.iterdir()):
        found = sha256()
        files = files_of(folder) if folder.is_dir() else {"": folder.read_bytes()}
        for name, data in files.items():
            found.update(name.encode() + b"\0" + data)
        hashes[folder.name] = found.hexdigest()[:16]
    return hashes


def test_the_bytes_are_those_of_every_other_machine(tmp_path):
    """Golden hashes, Parquet included: the writer is ours, so no library's version is in the file."""
    generate_shop(ShopPlan(seed=7, days=5, scale=0.2, faults=read_faults(DEMO_FAULTS)), tmp_path)
    assert digest(tmp_path) == GOLDEN


def test_no_setting_of_the_process_changes_a_byte(tmp_path):
    script = (
        "import sys, datetime, pathlib\n"
        "from datops_assets.synthetic import ShopPlan, generate_shop\n"
        "generate_shop(ShopPlan(seed=9, days=3, scale=0.1), pathlib.Path(sys.argv[1]))\n"
    )
    roots = []
    settings = [
        {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"},
        {
            "PYTHONHASHSEED": "2",
            "TZ": "Pacific/Auckland",
            "LC_ALL": "C.UTF-8",
            "NPY_DISABLE_CPU_FEATURES": "",
        },
    ]
    for number, setting in enumerate(settings):
        roots.append(tmp_path / str(number))
        command = [sys.executable, "-c", script, str(roots[-1])]
        subprocess.run(command, env={**os.environ, **setting}, check=True, timeout=120)
    assert files_of(roots[0]) == files_of(roots[1])


def test_another_seed_gives_another_shop(tmp_path):
    for seed in (1, 2):
        generate_shop(ShopPlan(seed=seed, days=2, scale=0.1), tmp_path / str(seed))
    one, two = files_of(tmp_path / "1"), files_of(tmp_path / "2")
    assert [path for path in one if one[path] == two[path]] == []


@pytest.mark.parametrize("with_faults", [False, True])
def test_more_days_leave_the_earlier_days_as_they_are(tmp_path, with_faults):
    faults = read_faults(DEMO_FAULTS) if with_faults else ()
    generate_shop(ShopPlan(seed=7, days=12, scale=0.2, faults=faults), tmp_path / "short")
    generate_shop(ShopPlan(seed=7, days=30, scale=0.2, faults=faults), tmp_path / "long")
    short, long = files_of(tmp_path / "short"), files_of(tmp_path / "long")
    # The product list has no day: it is the one file that shows the last.
    undated = {"products/products.json", "faults.jsonl", "shop.json"}
    for path in set(short) - undated:
        assert short[path] == long[path], path
    if with_faults:
        before = [line for line in short["faults.jsonl"].splitlines() if b'"day": null' not in line]
        after = [line for line in long["faults.jsonl"].splitlines() if b'"day": null' not in line]
        assert before == after[: len(before)]


def test_days_one_by_one_and_out_of_order_are_the_days_of_the_whole(tmp_path):
    plan = ShopPlan(seed=7, days=12, scale=0.1, faults=read_faults(DEMO_FAULTS))
    generate_shop(plan, tmp_path / "whole")
    for day in (11, 0, 5, 6, 1, 2, 10, 9, 8, 3, 4, 7):
        generate_shop_day(plan, plan.start + timedelta(days=day), tmp_path / "parts")
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "parts")


def test_a_day_far_after_the_start_can_be_generated_alone(tmp_path):
    plan = ShopPlan(seed=7, days=1, scale=0.1)
    generated = generate_shop_day(plan, date(2029, 6, 1), tmp_path)
    assert "orders/orders-2029-06-01.csv" in generated.files
    assert generated.rows["orders"] > 20
