"""`datops generate shop`, as a person and as a program call it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from datops_assets.cli import generate
from datops_assets.cli.group import SentenceGroup
from datops_assets_tests.synthetic.reading import files_of


@pytest.fixture
def datops():
    app = typer.Typer(cls=SentenceGroup, pretty_exceptions_enable=False)
    app.add_typer(generate.app, name="generate")
    return lambda *arguments: CliRunner().invoke(app, ["generate", "shop", *map(str, arguments)])


def test_it_says_what_it_wrote(datops, tmp_path):
    said = datops("--out", tmp_path, "--days", 3, "--scale", 0.05)
    assert said.exit_code == 0, said.output
    assert "16 files written to" in said.stdout
    assert "web_events" in said.stdout
    again = datops("--out", tmp_path, "--days", 3, "--scale", 0.05)
    assert "0 files written to" in again.stdout and "16 were there already" in again.stdout


def test_json_is_all_that_stands_on_standard_output(datops, tmp_path):
    said = datops("--out", tmp_path, "--days", 60, "--scale", 0.01, "--json")
    answer = json.loads(said.stdout)
    assert (answer["files"], answer["written"], answer["labels"]) == (301, 301, {})
    assert answer["rows"]["products"] == 2


def test_start_and_seed_are_taken(datops, tmp_path):
    assert (
        datops(
            "--out", tmp_path, "--days", 1, "--seed", 3, "--scale", 0.01, "--start", "2024-02-29"
        ).exit_code
        == 0
    )
    assert "orders/orders-2024-02-29.csv" in files_of(tmp_path)
    assert json.loads((tmp_path / "shop.json").read_text())["seed"] == 3


def test_a_wrong_faults_document_exits_with_2_and_its_line(datops, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("faults:\n  - {table: orders, fault: none, rate: 0.1}\n")
    said = datops("--out", tmp_path / "out", "--faults", wrong)
    assert said.exit_code == 2
    assert said.stderr.startswith(f"{wrong}:2: faults[0].fault is wrong, expected one of missing_value, ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--days", 0), ("--scale", 0), ("--start", "today"), ("--seed", "x")])
def test_a_wrong_option_exits_with_2(datops, tmp_path, option):
    assert datops("--out", tmp_path / "out", *option).exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_shop_exits_with_1_and_says_the_way_out(datops, tmp_path):
    assert datops("--out", tmp_path, "--days", 1, "--scale", 0.01, "--seed", 1).exit_code == 0
    refused = datops("--out", tmp_path, "--days", 1, "--scale", 0.01, "--seed", 2)
    assert refused.exit_code == 1
    assert "(seed differ)" in refused.stderr and "--force" in refused.stderr
    assert datops("--out", tmp_path, "--days", 1, "--scale", 0.01, "--seed", 2, "--force").exit_code == 0


def test_the_module_of_the_command_is_light():
    """Every `datops` command imports it, so it may not bring numpy with it."""
    script = (
        "import sys, datops_assets.cli.generate\n"
        "print([name for name in ('numpy', 'pyarrow', 'pydantic', 'yaml') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_domain_can_be_imported_without_numpy():
    script = "import sys, datops_assets.synthetic; print('numpy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
