"""Documents that try to run something, to exhaust something, or just are wrong: exit 2, `file:line: …`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from datops_assets_tests.bad_input.conftest import HEAD, RUN, Platform

TABLES = "tables:\n  orders: {files: 'orders/*.csv', description: d}\n"
GOOD = HEAD + TABLES
_LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def with_table(key: str) -> str:
    """The document with one more key of its table."""
    return GOOD.replace("description: d", key)


def with_contract(contract: str) -> str:
    return with_table(f"contract: {{{contract}}}")


NOT_YAML = {
    "a python tag": (GOOD + "description: !!python/object/apply:os.system ['touch ran']\n", "7: the tag "),
    "a python object": (GOOD + "description: !!python/object/new:os.system [touch ran]\n", "7: the tag "),
    "a tag on a mapping": (GOOD.replace("tables:", "tables: !!python/object:x.Y"), "5: the tag "),
    "a tag of ours": (GOOD + "description: !include /etc/passwd\n", "7: the tag !include"),
    "a set": (GOOD + "owners: !!set {a@example.com}\n", "7: the tag "),
    "a number that is none": (GOOD + "pool: !!int word\n", "7: the value cannot be read"),
    "a truth that is none": (GOOD + "pool: !!bool word\n", "7: the value cannot be read"),
    "a huge number": (GOOD + f"pool: {'9' * 5000}\n", "7: the value cannot be read"),
    "a template as a value": (
        GOOD.replace("pipeline: store", "pipeline: {{ env.HOME }}"),
        "1: a key is no text",
    ),
    "a list as a key": (GOOD + "? [a, b]\n: c\n", "7: a key is no text"),
    "a billion laughs": (_LAUGHS + GOOD, "2: an alias (*name) is not allowed"),
    "an alias of itself": (GOOD + "x: &x [*x]\n", "7: an alias (*name) is not allowed"),
    "a merge key": (GOOD + "<<: {description: x}\n", "7: <<: unknown key"),
    "a hundred thousand lists": (GOOD + "x: " + "[" * 100_000, "7: nested too deeply"),
    "a staircase": (
        GOOD + "x:\n" + "".join(" " * n + "x:\n" for n in range(1, 2000)),
        "57: nested too deeply",
    ),
    "two documents": (GOOD + "---\n" + GOOD, "7: not YAML"),
    "a key twice": (GOOD + "team: other\n", "7: team: the key stands twice"),
    "a tab": ("a:\n\tb: c\n", "2: not YAML"),
    "a NUL character": (GOOD + 'description: "a\\0b"\n', "7: a NUL character"),
    "nothing": ("", "1: the document is not a mapping"),
    "a list": ("- a\n", "1: the document is not a mapping"),
    "an open quote": (GOOD + 'description: "open\n', "not YAML"),
    "latin-1": (GOOD.encode() + b"description: caf\xe9\n", "1: cannot be read (not UTF-8 text)"),
    "utf-16": (GOOD.encode("utf-16"), "1: cannot be read (not UTF-8 text)"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0", "1: cannot be read (not UTF-8 text)"),
}
WRONG = {
    "a template in a name": (GOOD.replace("store", "'{{ env.HOME }}'"), "1: pipeline: not a name"),
    "SQL in a name": (GOOD.replace("store", "'x; drop table y'"), "1: pipeline: not a name"),
    "SQL as a table": (GOOD.replace("orders:", "'a\"; drop table x; --':"), "6: tables."),
    "a name too long": (GOOD.replace("store", "p" * 40).replace("orders:", f"{'t' * 40}:"), "expected at most 53"),
    "an unset variable": (GOOD.replace("path: landing", "path: '${NO_SUCH}/x'"), "3: source.path: the variable NO_"),
    "a variable in one": (GOOD.replace("path: landing", "path: '${A${B}}'"), "3: source.path: not a variable"),
    "a default value": (GOOD.replace("path: landing", "path: '${A:-/etc}'"), "3: source.path: not a variable"),
    "an empty variable": (GOOD.replace("path: landing", "path: '${}'"), "3: source.path: not a variable"),
    "files above": (GOOD.replace("orders/*.csv", "../*.csv"), "6: tables.orders.files: leads out of"),
    "files in between": (GOOD.replace("orders/*.csv", "a/../../*.csv"), "6: tables.orders.files: leads out of"),
    "files elsewhere": (GOOD.replace("orders/*.csv", "/etc/*"), "6: tables.orders.files: leads out of"),
    "no files": (GOOD.replace("orders/*.csv", "."), "6: tables.orders.files: names no file"),
    "a half wildcard": (GOOD.replace("orders/*.csv", "a**b"), "6: tables.orders.files: ** stands beside"),
    "a marker elsewhere": (with_table("landing: {done_marker: '../{name}'}"), "landing.done_marker: not a file name"),
    "an empty marker": (with_table("landing: {done_marker: ''}"), "landing.done_marker: not a file name"),
    "endless patience": (with_table("landing: {stable_for_s: .inf}"), "landing.stable_for_s: "),
    "no encoding of texts": (with_table("csv: {encoding: rot13}"), "csv.encoding: not an encoding"),
    "an encoding of bytes": (with_table("csv: {encoding: hex}"), "csv.encoding: not an encoding"),
    "an encoding of names": (with_table("csv: {encoding: idna}"), "csv.encoding: not an encoding"),
    "an encoding that runs escapes": (with_table("csv: {encoding: unicode_escape}"), "csv.encoding: not an encoding"),
    "a day of no calendar": (with_table("partition: {daily: '(x)', start: 9999-12-31}"), "partition.start: no day"),
    "an owner that is none": (GOOD + "owners: ['{{ x }}@y']\n", "7: owners.0: not an owner"),
    "a table's owner that is none": (with_table("owners: [me]"), "6: tables.orders.owners.0: not an owner"),
    "a tag with blanks": (GOOD + "tags: {a: 'c d'}\n", "7: tags: not a tag"),
    "a tag with markup": (GOOD + "tags: {a: '<script>'}\n", "7: tags: not a tag"),
    "a pool with blanks": (GOOD + "pool: a b\n", "7: pool: not a pool"),
    "an asset without a name": (GOOD + "after: [a//b]\n", "7: after.0: not an asset"),
    "a schedule that runs more": (GOOD + "schedule: '* * * * * ; rm'\n", "7: schedule: not a cron line"),
    "a day that never comes": (GOOD + "schedule: '0 0 31 2 *'\n", "7: schedule: not a cron line"),
    "too many columns": (
        with_contract(f"columns: {{{', '.join(f'c{n}: {{type: text}}' for n in range(1600))}}}"),
        "6: tables.orders.contract: 1600 columns",
    ),
    "a column like ours": (with_contract("columns: {ctid: {type: text}}"), "columns.ctid: not a column name"),
    "SQL as a type": (with_contract("columns: {a: {type: 'text; drop table x'}}"), "a.type: "),
    "a rule like our check": (
        with_contract("columns: {a: {type: text}}, rules: [{name: contract, expression: a > ''}]"),
        "6: tables.orders.contract.rules.0: 'contract' is the name of a check of datops",
    ),
    **{
        f"an expression that {what}": (
            with_contract(f'columns: {{a: {{type: bigint}}}}, rules: [{{name: x, expression: "{expression}"}}]'),
            "6: tables.orders.contract.rules.0: ",
        )
        for what, expression in {
            "ends itself": "true); drop table silver.store_orders; --",
            "reads a table": "(select count(*) from pg_authid) > 0",
            "sleeps": "pg_sleep(1) is null",
            "reads a file": "pg_read_file('/etc/passwd') is null",
            "sets a setting": "set_config('datops.load_id', '1', false) is null",
            "is a template": "{{ a }} > 0",
            "casts": "a::text::xml is null",
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("case", [*NOT_YAML, *WRONG])
def test_a_wrong_document_says_where_and_what_and_runs_nothing(platform: Platform, case: str) -> None:
    text, said = {**NOT_YAML, **WRONG}[case]
    platform.write_document(text)
    platform.put("orders/1.csv", "id\n1\n")
    answer = platform.datops(*RUN)
    assert answer.exit_code == 2
    told = json.loads(answer.stdout)["error"]
    assert (told["kind"], len(told["problems"])) == ("DeclarationError", len(answer.stderr.splitlines()))
    assert all(re.match(r"pipeline\.yaml:\d+: ", line) for line in answer.stderr.splitlines()), answer.stderr
    assert any(said in line for line in answer.stderr.splitlines()), answer.stderr
    assert len(answer.stderr) < 10_000
    assert not Path("ran").exists()
    assert platform.warehouse.fetch("select count(*) from datops.tables") == [(0,)]


def test_every_mistake_is_said_in_one_go(platform: Platform) -> None:
    platform.write_document(with_table("laod: x, csv: {encoding: hex}") + "pool: a b\nowners: [me]\n")
    lines = platform.datops(*RUN).stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "owners.0",
        "pool",
        "tables.orders.csv.encoding",
        "tables.orders.laod",
    ]


def test_text_that_looks_like_code_stays_text(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is expanded, neither by us nor by Dagster; a variable's value is not read again."""
    monkeypatch.setenv("FOLDER", "${HOME} {{ 7 * 7 }}")
    trap = "{{ ''.__class__.__mro__ }} {% for x in y %} ${HOME} $(touch ran) `touch ran` <%= 1 %>"
    platform.write_document(
        GOOD.replace("description: d", f'description: "{trap}"')
        .replace("path: landing", "path: 'landing/${FOLDER}'")
        .replace("orders/*.csv", "$(touch ran) {{ x }}/*.csv")
    )
    platform.put("${HOME} {{ 7 * 7 }}/$(touch ran) {{ x }}/1.csv", "id\n1\n")
    assert platform.run().table("orders")["rows_added"] == 1
    assert not Path("ran").exists()


def test_a_secret_typed_in_the_wrong_place_is_not_repeated(platform: Platform) -> None:
    platform.write_document(GOOD + "team: hunter2-cell\npassword: hunter2-cell\nschedule: hunter2-cell\n")
    assert platform.datops(*RUN).exit_code == 2
    platform.write_document(GOOD.replace("{type: files", "{type: hunter2-cell, password: hunter2-cell"))
    assert platform.datops(*RUN).exit_code == 2


@pytest.mark.parametrize("config", ["nowhere.yaml", "landing", ".", ""])
def test_a_config_that_declares_nothing_is_no_success(platform: Platform, config: str) -> None:
    answer = platform.datops("pipeline", "run", "--config", config, "--json")
    assert answer.exit_code == 2
    assert "expected" in answer.stderr


@pytest.mark.parametrize(
    "text",
    [
        'source_systems: [{name: "x\'; drop table y", type: csv, path: landing}]',
        "source_systems: [{name: x, type: csv, path: 'a**b'}]",
        "source_systems: [{name: x, type: csv, path: '*/../../*.csv'}]",
        "source_systems: [{name: x, type: exe, path: landing}]",
        "source_systems: [{name: x, type: csv, path: '${NO_SUCH}'}]",
        "source_systems: {{ systems }}",
        "source_systems: []",
    ],
)
def test_the_bare_form_is_held_to_the_same(platform: Platform, text: str) -> None:
    platform.write_document(text + "\n")
    answer = platform.datops(*RUN)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("pipeline.yaml:1: ")


def test_a_wrong_document_ends_a_process_with_code_2_and_no_traceback(platform: Platform) -> None:
    platform.write_document(GOOD + "x: " + "[" * 100_000)
    answer = platform.run_apart(expect=2)
    assert answer.stderr.startswith("pipeline.yaml:7: nested too deeply")


@pytest.mark.parametrize(
    "arguments", [["--table", "x'; drop table y"], ["--partition", "nonsense"], ["--partition", "2026-01-01"]]
)
def test_a_wrong_argument_ends_with_code_2(platform: Platform, arguments: list[str]) -> None:
    platform.write_document(GOOD)
    answer = platform.datops(*RUN, *arguments)
    assert answer.exit_code == 2, answer.said
    assert "expected" in answer.stderr


def test_importing_nothing_runs_while_a_document_is_read(platform: Platform) -> None:
    """A schema of a team's own is Python, so it is imported when it judges, never before."""
    (platform.project / "trap.py").write_text("open('ran', 'w').close()\n")
    platform.write_document(with_contract("columns: {a: {type: text}}, pandera: 'trap:Schema'"))
    code = (
        "from pathlib import Path; from datops_assets.components.documents import read_documents;"
        "read_documents(Path('pipeline.yaml'), Path('.'))"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=platform.project,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert not Path("ran").exists()
