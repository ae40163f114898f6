"""The 62 cases that change data capture is held to, and the tests that hold each.

A test says which by `@pytest.mark.cdc_case(5, 11)`. `docs/reference/cdc-cases.md` is written from this file and
from those marks, which are read from the source: nothing has to be collected or run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GROUPS: dict[str, dict[int, str]] = {
    "Types, each through snapshot and stream, as insert, update and delete": {
        1: "boolean, integers, oid, floats: ends of the range, NaN, infinities, -0, subnormals",
        2: "numeric: NaN, infinities, 131072 and 16383 digits, negative scale, zeros at the end",
        3: "dates and timestamps: infinities, before Christ, the last year, microseconds",
        4: "time and timetz 24:00, intervals with mixed signs",
        5: "texts: empty and null, `\\N`, tabs, quotes, four-byte letters, padding, name, \"char\", citext",
        6: "bytea: empty, zero, every byte, a megabyte",
        7: "json as written, jsonb as normalised, JSON null and SQL NULL",
        8: "arrays: empty, NULL elements, two dimensions, a lower bound other than 1, of every scalar",
        9: "enums: a value added in the middle, arrays of them, one name in two schemas",
        10: "domains, domains over domains, composites, and arrays of each",
        11: "ranges, addresses, bits, uuid, xml, money, shapes, regclass, aclitem; hstore, ltree, vector, PostGIS",
        12: "types of extensions pass as text, or are refused by name",
        13: "any value, by property; any tuple, by property",
    },
    "Rows": {
        14: "insert, update, delete of one key in one transaction, in one batch, across batches",
        15: "a key that changes, keys that change places",
        16: "a composite key in another order than the columns",
        17: "large values that an update left out: in every order, of every type, of a key that changes",
        18: "replica identity default, full, using index, nothing",
        19: "no primary key; full with rows that are equal",
        20: "truncate of one, of several, cascade, restart identity, among rows of its transaction",
        21: "empty and rolled back transactions and savepoints, unpublished tables",
        22: "ON CONFLICT, MERGE, COPY, session_replication_role, what triggers write",
        23: "a value above 100 MB, a table of 1,600 columns",
        24: "names that need quotes, of 63 bytes, the same in two schemas, such as our own columns have",
        25: "unlogged and temporary tables, views, materialized views: never published, said by name",
        26: "generated and identity columns, sequences",
        27: "row filters and column lists, rows that move in and out of the filter",
        28: "publish = 'insert' alone",
    },
    "Partitions": {
        29: "publish_via_partition_root on and off; root, middle and leaf published",
        30: "a partition attached, detached, dropped, truncated in the middle",
        31: "a row that moves to another partition",
        32: "columns in another order in each partition",
        33: "children by inheritance",
    },
    "Snapshot and handing over": {
        34: "writers in every table throughout the snapshot",
        35: "a transaction open before the slot was made",
        36: "an empty table, one row, growing, VACUUM FULL during the copy, a dead tail",
        37: "many tables by several connections see one snapshot",
        38: "kill -9 during the copy",
        39: "one table copied anew while others are followed, for each kind of key",
        40: "a table added to a running stream; dropped and made again under its name",
    },
    "Failure and restart": {
        41: "kill -9 at every stage, and at random moments under a write load",
        42: "the warehouse committed and its answer was lost",
        43: "a whole transaction delivered twice, and half a batch",
        44: "several changes at one place in the log, a restart in their middle",
        45: "a stop in the middle of a transaction, and of one that is not committed",
        46: "the source restarts, shuts down, ends a walsender; the network is cut, slow, flapping",
        47: "the warehouse is down: bounded memory, the slot holds, the lag is told, it catches up",
        48: "a slot dropped, and lost by size: a person is asked, never a silent copy",
        49: "slot and warehouse disagree, a new timeline",
        50: "a second reader is refused",
        51: "an idle database: its slot moves, and never past what is not in the warehouse",
        52: "a standby as the source; a slot that survives a failover",
        53: "a full disk, timeouts, deadlocks: try again, or stop for a person",
        54: "a password that changed, a role that lost REPLICATION",
    },
    "Columns that change in the middle": {
        55: "add, drop, rename, widen, narrow, NOT NULL, key, the table's name; with and without rows after it",
        56: "DDL of one table does not speak for another",
        57: "a restart right after DDL: the history is read as it was",
        58: "what a contract does with a change of columns: freeze, discard, quarantine",
    },
    "Volume": {
        59: "a million and ten million rows in one transaction: bounded memory; a rolled back savepoint in it",
        60: "bursts of small transactions, many tables, a backlog, lag at fixed rates",
        61: "two large transactions interleaved",
        62: "half an hour of writes and faults: equal all along, no growth of memory or descriptors",
    },
}  # fmt: skip

CASES: dict[int, str] = {number: said for cases in GROUPS.values() for number, said in cases.items()}

NOT_HELD: dict[int, str] = {}
"""Cases without a test, and why."""

NOT_ALL: dict[int, str] = {
    18: "replica identity nothing is refused by name: once published, the source would refuse updates",
    19: "a table without a key is refused by name, for the same reason, also under full",
    58: "discard: no policy drops values; a contract leaves columns out that it does not name",
    60: "500 tables, 300 transactions a second, a backlog of half a gigabyte: what two cores hold",
    62: "minutes instead of a day",
}
"""What a case that has tests asks beyond them, and why it is not tried."""


@dataclass(frozen=True)
class Mark:
    """A test that holds a case."""

    file: str
    test: str
    is_slow: bool


def marks(folder: Path = Path(__file__).parent) -> dict[int, list[Mark]]:
    """Every case's tests, in the order of files and lines."""
    found: dict[int, list[Mark]] = {number: [] for number in CASES}
    for file in sorted(folder.parent.rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if "cdc_case" not in text:
            continue
        tree = ast.parse(text)
        file_is_slow = any(_names(node, "slow") for node in tree.body if isinstance(node, ast.Assign))
        for test in ast.walk(tree):
            if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
                continue
            # A mark of the test, not one of some of its parameters.
            is_slow = file_is_slow or any(_names(one, "slow", deep=False) for one in test.decorator_list)
            numbers = [n for decorator in test.decorator_list for n in _numbers(decorator)]
            for number in dict.fromkeys(numbers):
                found.setdefault(number, []).append(Mark(file.name, test.name, is_slow))
    return found


def _numbers(node: ast.AST) -> Iterator[int]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and _names(call.func, "cdc_case", deep=False):
            yield from (number.value for number in call.args if isinstance(number, ast.Constant))  # type: ignore[misc]


def _names(node: ast.AST, mark: str, *, deep: bool = True) -> bool:
    within = ast.walk(node) if deep else [node]
    return any(isinstance(one, ast.Attribute) and one.attr == mark for one in within)


def table() -> str:
    """The cases and their tests, as Markdown."""
    found = marks()
    lines = []
    for group, cases in GROUPS.items():
        lines.append(f"\n## {group}\n\n| case | | held by |\n| --- | --- | --- |\n")
        for number, said in cases.items():
            held = [_link(mark) for mark in found[number]]
            held += [why for why in (NOT_HELD.get(number), NOT_ALL.get(number)) if why]
            lines.append(f"| {number} | {said} | {'; '.join(held)} |\n")
    return "".join(lines)


def _link(mark: Mark) -> str:
    said = mark.test.removeprefix("test_").replace("_", " ")
    slow = ", slow" if mark.is_slow else ""
    return f"{said} (`{mark.file}`{slow})"
