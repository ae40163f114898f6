"""Labels are exactly right: undo what they say and the clean shop is back, byte for byte."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datops_assets.synthetic import Fault, ShopPlan, generate_shop
from datops_assets.synthetic.declaration import FAULTS, misfit
from datops_assets.synthetic.tables import TABLES, Column, Table
from datops_assets_tests.synthetic.reading import files_of, labels_of, paths_of, raw_records, read

DAYS = 10
RATE = 0.02
FILE_RATE = 0.15


def every_fault(scope: set[str]) -> tuple[Fault, ...]:
    """Each fault in each table and column that can have it."""
    found = []
    for table in TABLES.values():
        for name, kind in FAULTS.items():
            columns: list[Column | None] = list(table.columns) if kind.kinds else [None]
            for column in columns:
                rate = FILE_RATE if kind.scope == "file" else RATE / len(columns)
                fault = Fault(table=table.name, fault=name, column=column and column.name, rate=rate)
                if kind.scope in scope and misfit(fault) is None:
                    found.append(fault)
    return tuple(found)


RECORD_FAULTS = every_fault({"cell", "record"})


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clean")
    generate_shop(ShopPlan(seed=7, days=DAYS, scale=0.5), out)
    return out


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faulty")
    generate_shop(ShopPlan(seed=7, days=DAYS, scale=0.5, faults=RECORD_FAULTS), out)
    return out


@pytest.fixture(scope="module")
def hit_whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hit_whole")
    faults = every_fault({"file"})
    # Otherwise the faults named first would take nearly every file.
    few = tuple(fault for fault in faults if fault.column in (None, "order_id", "email", "price", "url"))
    generate_shop(ShopPlan(seed=7, days=30, scale=0.05, faults=few), out)
    return out


def of_file(labels: list[dict[str, Any]], path: str) -> dict[int, dict[str, Any]]:
    return {label["record"]: label for label in labels if label["file"] == path}


def test_every_fault_in_every_table_is_injected(faulty):
    injected = {(label["table"], label["fault"]) for label in labels_of(faulty)}
    # 100 products are too few for a rate of one per cent to hit with each fault.
    wanted = {(fault.table, fault.fault) for fault in RECORD_FAULTS if fault.table != "products"}
    assert wanted - injected == set()


def test_undoing_the_labels_gives_the_clean_shop_back(clean, faulty):
    """The strongest thing to ask of a label file: nothing is missing in it and nothing is wrong."""
    labels = labels_of(faulty)
    for table in TABLES.values():
        away = {(label["original"], key_of(label)) for label in labels if label["fault"] == "late"}
        for path in paths_of(clean, table.name):
            name = str(path.relative_to(clean))
            found = of_file(labels, name)
            records = raw_records((faulty / name).read_bytes(), table)
            undone = [
                record
                for number, given in enumerate(records, 1)
                for record in undo(table, given, found.get(number))
            ]
            wanted = raw_records(path.read_bytes(), table)
            if table.format == "jsonl":
                undone, wanted = [list(map(parsed, lines)) for lines in (undone, wanted)]
            assert [record for record in wanted if record in undone] == undone, name
            missing = {key_in(table, record) for record in wanted if record not in undone}
            arrived = {key for original, key in away if original == name}
            # Late records of the last days have not arrived, so they have no label.
            settled = path.stem[-10:] <= f"2026-01-{DAYS - 3:02d}"
            assert missing == arrived if settled else missing >= arrived, name


def undo(table: Table, record: Any, label: dict[str, Any] | None) -> list[Any]:
    """What stood in the file before: nothing, or one record."""
    if label is None:
        return [record]
    fault, original = label["fault"], label["original"]
    if fault in ("duplicate_key", "stale_duplicate", "late", "repeated_header"):
        return []
    if fault == "truncated_row":
        return [next(csv.reader(io.StringIO(original, newline="")))] if table.format == "csv" else [original]
    if fault == "extra_column":
        return [without_surplus(table, record)]
    column = table.column(label["column"])
    if table.format == "csv":
        position = table.columns.index(column)
        return [[*record[:position], original, *record[position + 1 :]]]
    if table.format == "jsonl":
        return [with_cell(record, column, original)]
    return [{**record, column.name: typed(table, column, original)}]


def without_surplus(table: Table, record: Any) -> Any:
    if table.format == "csv":
        return record[:-1]
    if table.format == "jsonl":
        return record.removesuffix(',"surplus":"x"}') + "}"
    return {name: value for name, value in record.items() if name != "surplus"}


def with_cell(line: str, column: Column, original: str) -> dict[str, Any]:
    return {**parsed(line), column.name: parsed(original) if column.kind in ("int", "json") else original}


def parsed(line: str | dict[str, Any]) -> Any:
    """One JSON value; a number with a decimal point stays the text it is written as."""
    return json.loads(line, strict=False, parse_float=str) if isinstance(line, str) else line


def typed(table: Table, column: Column, original: str) -> Any:
    if table.format == "json":
        return original if column.kind == "text" else json.loads(original)
    from datetime import datetime
    from decimal import Decimal

    read_as = {"int": int, "money": Decimal, "time": datetime.fromisoformat, "text": str}
    return read_as[column.kind](original)


def key_of(label: dict[str, Any]) -> tuple[str, ...]:
    return tuple(label["key"].values())


def key_in(table: Table, record: Any) -> tuple[str, ...]:
    if table.format == "csv":
        names = [column.name for column in table.columns]
        return tuple(record[names.index(name)] for name in table.key)
    return tuple(str(parsed(record)[name]) for name in table.key)


def test_each_labelled_record_shows_its_fault(faulty):
    for label in labels_of(faulty):
        table = TABLES[label["table"]]
        records = raw_records((faulty / label["file"]).read_bytes(), table)
        record = records[label["record"] - 1]
        assert shows(table, record, label, records), label


def shows(table: Table, record: Any, label: dict[str, Any], records: list[Any]) -> bool:
    match label["fault"]:
        case "repeated_header":
            return record == [column.name for column in table.columns]
        case "truncated_row":
            return len(record) < len(table.columns) if table.format == "csv" else not parses(record)
        case "extra_column":
            return len(record) == len(table.columns) + 1 if table.format == "csv" else "surplus" in record
        case "duplicate_key":
            return record in records[: label["record"] - 1]
        case "stale_duplicate":
            made = "signed_up_at" if table.name == "customers" else "ordered_at"
            names = [column.name for column in table.columns]
            return record[names.index("updated_at")] == record[names.index(made)]
        case "late":
            return label["original"] < label["file"]
    cell = cell_in(table, record, label["column"])
    return shown_in(cell, label)


def cell_in(table: Table, record: Any, column: str) -> str | None:
    if table.format == "csv":
        return record[[known.name for known in table.columns].index(column)] or None
    if isinstance(record, str):
        record = json.loads(record, strict=False)
    value = record[column]
    return None if value is None else str(value)


def shown_in(cell: str | None, label: dict[str, Any]) -> bool:
    original = label["original"]
    match label["fault"]:
        case "missing_value":
            return cell is None and original is not None
        case "negative":
            return float(cell) == -float(original) < 0
        case "unknown_foreign_key":
            return int(cell) >= 9_000_000_000
        case "stray_quote":
            return cell == original[:1] + '"' + original[1:]
        case "nul_byte":
            return "\0" in cell
        case "bad_encoding":
            return "\udce9" in cell
        case "wrong_type" | "bad_date" | "out_of_range":
            return cell != original
    raise AssertionError(label)


def parses(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_a_late_record_is_the_one_that_its_own_day_lacks(clean, faulty):
    late = [label for label in labels_of(faulty) if label["fault"] == "late"]
    assert len(late) > 20
    for label in late:
        table = TABLES[label["table"]]
        arrived, own, lacking = (
            raw_records((root / label[file]).read_bytes(), table)
            for root, file in ((faulty, "file"), (clean, "original"), (faulty, "original"))
        )
        record = arrived[label["record"] - 1]
        assert record in own
        assert record not in lacking


def test_an_old_version_comes_after_a_newer_one(clean, faulty):
    """Loaded in the order of delivery, it must not win."""
    stale = [label for label in labels_of(faulty) if label["fault"] == "stale_duplicate"]
    assert len(stale) > 10
    for label in stale:
        table = TABLES[label["table"]]
        names = [column.name for column in table.columns]
        old = raw_records((faulty / label["file"]).read_bytes(), table)[label["record"] - 1]
        newer = [
            record
            for path in paths_of(clean, table.name)
            if path.name < Path(label["file"]).name
            for record in raw_records(path.read_bytes(), table)
            if key_in(table, record) == key_of(label)
        ]
        at = names.index("updated_at")
        assert any(record[at] > old[at] for record in newer)


def test_a_stray_quote_stands_in_an_unquoted_field(faulty):
    """Where a reader that trusts quotes would join it with what follows."""
    for label in labels_of(faulty):
        if label["fault"] == "stray_quote":
            text = (faulty / label["file"]).read_bytes().decode("utf-8", "surrogateescape")
            spoiled = label["original"][:1] + '"' + label["original"][1:]
            assert f",{spoiled}," in text


def test_rates_are_met(tmp_path):
    faults = (
        Fault(table="web_events", fault="out_of_range", column="type", rate=0.02),
        Fault(table="web_events", fault="missing_value", column="customer_id", rate=0.05),
        Fault(table="order_items", fault="duplicate_key", rate=0.1),
        Fault(table="orders", fault="negative", column="total", rate=1.0),
    )
    generated = generate_shop(ShopPlan(seed=7, days=20, scale=0.5, faults=faults), tmp_path)
    rows, labels = generated.rows, generated.labels
    assert labels["web_events"]["out_of_range"] == pytest.approx(0.02 * rows["web_events"], rel=0.15)
    known = sum(event["customer_id"] is not None for event in read(tmp_path, "web_events"))
    missing = labels["web_events"]["missing_value"]
    assert missing == pytest.approx(0.05 * (known + missing), rel=0.15)
    assert labels["order_items"]["duplicate_key"] == pytest.approx(0.1 * rows["order_items"] / 1.1, rel=0.15)
    assert labels["orders"]["negative"] == rows["orders"]


def test_a_fault_in_one_table_leaves_the_others_alone(clean, tmp_path):
    fault = Fault(table="orders", fault="late", rate=0.2)
    generate_shop(ShopPlan(seed=7, days=DAYS, scale=0.5, faults=(fault,)), tmp_path)
    before, after = files_of(clean), files_of(tmp_path)
    changed = {path.split("/")[0] for path in after if before.get(path) != after[path]}
    assert changed == {"orders", "faults.jsonl", "shop.json"}


def test_another_fault_behind_it_does_not_move_a_fault(tmp_path):
    first = Fault(table="orders", fault="negative", column="total", rate=0.02)
    second = Fault(table="orders", fault="missing_value", column="customer_id", rate=0.02)
    hit = []
    for faults in ((first,), (first, second)):
        out = tmp_path / str(len(faults))
        generate_shop(ShopPlan(seed=7, days=5, scale=0.5, faults=faults), out)
        hit.append([label for label in labels_of(out) if label["fault"] == "negative"])
    assert hit[0] == hit[1] != []


def test_the_same_fault_twice_hits_twice_as_much(tmp_path):
    fault = Fault(table="web_events", fault="missing_value", column="url", rate=0.02)
    generated = generate_shop(ShopPlan(seed=7, days=5, scale=0.5, faults=(fault, fault)), tmp_path)
    hit = generated.labels["web_events"]["missing_value"]
    assert hit == pytest.approx(0.04 * generated.rows["web_events"], rel=0.2)


def test_files_hit_as_a_whole_are_labelled_once_and_show_it(hit_whole):
    labels = labels_of(hit_whole)
    assert {label["fault"] for label in labels} == {
        "renamed_column",
        "missing_column",
        "empty_file",
        "cut_file",
    }
    assert max(Counter(label["file"] for label in labels).values()) == 1
    for label in labels:
        data = (hit_whole / label["file"]).read_bytes()
        table = TABLES[label["table"]]
        if label["fault"] == "empty_file":
            assert data == b""
            assert int(label["original"]) >= 0
        elif label["fault"] == "cut_file":
            assert cut_shows(table, data, label), label
        else:
            names = names_in(table, data)
            assert label["column"] not in names
            assert (f"{label['column']}_new" in names) == (label["fault"] == "renamed_column")


def test_labels_of_records_behind_a_cut_are_gone_with_them(tmp_path):
    faults = (
        Fault(table="web_events", fault="late", rate=0.3),
        Fault(table="web_events", fault="cut_file", rate=1.0),
    )
    generate_shop(ShopPlan(seed=7, days=8, scale=0.1, faults=faults), tmp_path)
    labels = labels_of(tmp_path)
    cut = {label["file"]: label["record"] for label in labels if label["fault"] == "cut_file"}
    late = [label for label in labels if label["fault"] == "late"]
    assert len(cut) == 8
    assert late
    assert [label for label in late if label["record"] >= cut[label["file"]]] == []


def cut_shows(table: Table, data: bytes, label: dict[str, Any]) -> bool:
    if table.format in ("json", "parquet"):
        with pytest.raises(Exception):  # noqa: B017 - each reader has its own
            raw_records(data, table)
        return label["record"] is None
    assert not data.endswith(b"\n")
    records = raw_records(data + b"\n", table)
    last = records[-1]
    damaged = len(last) < len(table.columns) if table.format == "csv" else not parses(last)
    return damaged and len(records) == label["record"] <= int(label["original"])


def names_in(table: Table, data: bytes) -> list[str]:
    if table.format == "csv":
        return next(csv.reader(io.StringIO(data.decode())))
    if table.format == "parquet":
        import pyarrow.parquet as pq

        return pq.read_schema(io.BytesIO(data)).names
    records = raw_records(data, table)
    return list(json.loads(records[0]) if isinstance(records[0], str) else records[0])
