"""Reads a shop's files back with readers that are not ours: csv, json and pyarrow."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from datops_assets.synthetic.tables import TABLES, Table


def files_of(root: Path) -> dict[str, bytes]:
    """Every file below a folder but hidden ones: path and bytes."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def paths_of(root: Path, table: str) -> list[Path]:
    return sorted(root.glob(TABLES[table].pattern.format(day="*")))


def read(root: Path, table: str) -> list[dict[str, Any]]:
    """All records of a table, in the order of its files."""
    return [record for path in paths_of(root, table) for record in records(path, TABLES[table])]


def records(path: Path, table: Table) -> Iterator[dict[str, Any]]:
    """The records of one file that has no damage in it."""
    if table.format == "csv":
        with path.open(encoding="utf-8", newline="") as lines:
            yield from csv.DictReader(lines, strict=True)
    elif table.format == "jsonl":
        yield from map(json.loads, path.read_text("utf-8").splitlines())
    elif table.format == "json":
        yield from json.loads(path.read_text("utf-8"))
    else:
        yield from pq.read_table(path).to_pylist()


def raw_records(data: bytes, table: Table) -> list[Any]:
    """The records of one file, header not counted, whatever is wrong in them.

    CSV gives lists of texts and JSON lines texts (a byte that is not UTF-8 is a lone
    surrogate), JSON and Parquet dictionaries.
    """
    if table.format == "csv":
        text = data.decode("utf-8", "surrogateescape")
        return list(csv.reader(io.StringIO(text, newline="")))[1:]
    if table.format == "jsonl":
        return data.decode("utf-8", "surrogateescape").split("\n")[:-1]
    if table.format == "json":
        return json.loads(data)
    return pq.read_table(io.BytesIO(data)).to_pylist()


def labels_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "faults.jsonl").read_text("utf-8").splitlines()]
