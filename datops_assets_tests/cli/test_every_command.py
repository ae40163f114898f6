"""What holds for every command: no secret is printed, no traceback, exit codes as documented."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ("--config", "pipeline.yaml")
ASK_THE_WAREHOUSE = [
    ("pipeline", "plan", *CONFIG),
    ("pipeline", "run", *CONFIG),
    ("pipeline", "run", *CONFIG, "--sample", "1", "--into", "trial"),
    ("pipeline", "status", *CONFIG),
    ("pipeline", "rebuild", "store.orders", *CONFIG),
    ("pipeline", "drift", *CONFIG),
    ("load", "list"),
    ("load", "show", "1"),
    ("load", "undo", "1"),
    ("load", "reload", "1"),
    ("quarantine", "list"),
    ("quarantine", "show", "store.orders"),
    ("quarantine", "replay", "store.orders", *CONFIG),
    ("quarantine", "drop", "store.orders", "--because", "x"),
]


@pytest.mark.parametrize("command", ASK_THE_WAREHOUSE, ids=" ".join)
def test_an_unreachable_warehouse_is_one_sentence_without_a_secret(shop, monkeypatch, command):
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", "postgresql://datops:hunter2@127.0.0.1:1/datops")
    result = shop.datops(*command, expect=1)
    assert "127.0.0.1:1/datops does not answer" in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize("command", ASK_THE_WAREHOUSE, ids=" ".join)
def test_an_empty_warehouse_is_no_reason_for_a_traceback(shop, command):
    known = {"show": 1, "undo": 1, "reload": 1} if command[0] == "load" else {}
    shop.datops(*command, expect=known.get(command[1], 0))
    if known.get(command[1], 0) == 0:
        shop.json(*command)


@pytest.mark.parametrize(
    "command", [*ASK_THE_WAREHOUSE, ("validate",), ("contract", "test", "store.orders")], ids=" ".join
)
def test_a_secret_of_a_document_is_not_repeated(shop, monkeypatch, command):
    monkeypatch.setenv("SHOP_DIR", "hunter2")
    shop.declare("path: landing", "path: '${SHOP_DIR}/../landing', pasword: hunter2")
    if command == ("validate",):
        command = ("validate", "pipeline.yaml")
    elif CONFIG[0] not in command:
        command = (*command, *CONFIG) if command[0] == "contract" else ("validate", "pipeline.yaml")
    result = shop.datops(*command, expect=2)
    assert "pipeline.yaml:3: source.pasword: unknown key" in result.stderr
    assert "hunter2" not in result.output


def test_a_reader_who_leaves_early_sees_no_traceback(shop):
    shop.run()
    program = "import sys; from datops_assets.cli import main; sys.argv[0] = 'datops'; main()"
    done = subprocess.run(
        f'"{sys.executable}" -c "{program}" load list --json | head -c 1',
        shell=True, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "["
    assert "Traceback" not in done.stderr


def test_an_error_is_one_document_where_json_was_asked_for(shop):
    shop.declare("load: merge", "load: upsert")
    result = shop.datops("pipeline", "run", *CONFIG, "--json", expect=2)
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["message"] + "\n") == ("DeclarationError", result.stderr)
    assert [(problem["file"], problem["line"]) for problem in error["problems"]] == [
        ("pipeline.yaml", 8),
        ("pipeline.yaml", 16),
    ]
    assert error["problems"][0]["what"].startswith("tables.customers.load: ")


def test_an_error_of_the_call_has_no_file(shop):
    result = shop.datops("pipeline", "run", "nobody", "--json", expect=2)
    (problem,) = json.loads(result.stdout)["error"]["problems"]
    assert (problem["file"], problem["line"], problem["what"] + "\n") == (None, None, result.stderr)


def test_an_error_that_is_not_the_document_s_keeps_its_exit_code(shop):
    result = shop.datops("load", "show", "4711", "--json", expect=1)
    assert json.loads(result.stdout) == {
        "error": {
            "kind": "LoadRefusedError",
            "message": "there is no load '4711'; datops load list shows all",
            "problems": [],
        }
    }
    assert result.stderr == "datops: there is no load '4711'; datops load list shows all\n"
