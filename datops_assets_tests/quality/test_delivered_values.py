"""How delivered columns become contract columns: names, JSON, Parquet's types, the file's path."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from datops_assets.quality import column_origins, rebuild_table
from datops_assets_tests.quality.bronze_table import BronzeTable, contract


def test_columns_renamed_between_files_meet_in_one(warehouse: Any) -> None:
    bronze = BronzeTable(warehouse.conn, "places", ["Province/State", "Lat"])
    places = contract(
        columns={
            "province_state": {"type": "text"},
            "latitude": {"type": "numeric"},
            "never_seen": {"type": "date"},
        }
    )
    bronze.load(("Hubei", "30.9"))
    bronze.add_column("Province_State")
    bronze.load({"Province_State": "Bavaria"})
    bronze.judge(places, rename={"Lat": "latitude"})
    assert bronze.silver("province_state, latitude, never_seen") == [
        ("Hubei", Decimal("30.9"), None),
        ("Bavaria", None, None),
    ]
    assert column_origins(warehouse.conn, "shop", "places", places, {"Lat": "latitude"}) == {
        "province_state": ["Province/State", "Province_State"], "latitude": ["Lat"], "never_seen": [],
    }  # fmt: skip


def test_a_column_may_come_from_the_path(warehouse: Any) -> None:
    bronze = BronzeTable(warehouse.conn, "reports", ["n"])
    reports = contract(
        key=["day", "n"],
        columns={
            "day": {
                "type": "date",
                "from": "filename",
                "pattern": r"(\d\d-\d\d-\d{4})\.csv$",
                "formats": ["%m-%d-%Y"],
            },
            "n": {"type": "integer"},
        },
    )
    bronze.load(("1",), path="daily/03-01-2020.csv")
    bronze.load(("1",), ("2",), path="daily/03-02-2020.csv")
    lost = bronze.load(("1",), path="daily/notes.csv")
    bronze.judge(reports)
    assert bronze.silver("day, n") == [(date(2020, 3, 1), 1), (date(2020, 3, 2), 1), (date(2020, 3, 2), 2)]
    assert bronze.waiting() == [(lost, 1, ["day: missing in the key"])]


def test_json_values_are_judged_by_their_text(warehouse: Any) -> None:
    columns = dict.fromkeys(["id", "name", "active", "attributes"], "json")
    bronze = BronzeTable(warehouse.conn, "products", columns)
    products = contract(
        key=["id"],
        columns={
            "id": {"type": "bigint"},
            "name": {"type": "text"},
            "active": {"type": "boolean"},
            "attributes": {"type": "json"},
        },
    )
    load = bronze.load(
        ("1", '"a\\nb"', "true", '{"a": 1, "a": 2}'),
        ('"2"', "null", "null", "null"),
        ("3", '"cut \\u0000 short"', "true", '{"a": "\\u0000"}'),
        ("4", '"half \\ud83d"', "false", "[]"),
        ("1.5", '"x"', '"maybe"', "1"),
        ("5", '{"first": "x"}', "1", '"\\ud83d"'),
    )
    bronze.judge(products)
    rows = bronze.silver("id, name, active, attributes::text")
    assert rows == [
        (1, "a\nb", True, '{"a": 1, "a": 2}'), (2, None, None, None), (5, '{"first": "x"}', True, '"\\ud83d"'),
    ]  # fmt: skip
    assert bronze.waiting() == [
        (load, 3, ["name: not text"]), (load, 4, ["name: not text"]),
        (load, 5, ["id: not a whole number (bigint)", "active: not true or false"]),
    ]  # fmt: skip


def test_typed_values_pass_without_becoming_text_where_the_type_is_the_same(warehouse: Any) -> None:
    types = {
        "id": "bigint",
        "small": "smallint",
        "amount": "numeric(12,4)",
        "at": "timestamptz",
        "share": "double precision",
        "day": "date",
    }
    bronze = BronzeTable(warehouse.conn, "payments", types)
    payments = contract(
        key=["id"],
        columns={
            "id": {"type": "bigint"}, "small": {"type": "bigint"}, "amount": {"type": "numeric(12,2)"},
            "at": {"type": "timestamptz"},
            "share": {"type": "double"}, "day": {"type": "text"},
        },
    )  # fmt: skip
    moment = datetime(2024, 1, 1, 12, 0, 0, 123, tzinfo=UTC)
    load = bronze.load(
        (1, 2, Decimal("1.5000"), moment, 0.1, date(2024, 1, 1)),
        (2, 2, Decimal("1.0050"), moment, 0.1, None),
        (3, None, None, None, float("nan"), None),
    )
    bronze.judge(payments)
    assert bronze.silver("id, small, amount, at, share, day") == [
        (1, 2, Decimal("1.50"), moment, 0.1, "2024-01-01")
    ]
    assert bronze.waiting() == [
        (load, 2, ["amount: not a number that numeric(12,2) holds exactly"]),
        (load, 3, ["share: not a number (double)"]),
    ]  # fmt: skip


def test_names_that_are_sql_are_names(warehouse: Any) -> None:
    """Delivered names reach statements as identifiers only."""
    evil = 'x"; drop table datops.loads; --'
    names = [evil, "d", "_r0", "t", "b", "select", "%s", "{}"]
    bronze = BronzeTable(warehouse.conn, "evil", names)
    rename = {evil: "x"}
    evils = contract(
        columns={
            "x": {"type": "integer"},
            "d": {"type": "text", "in": ["'; --", "%s", "{}"]},
            "t": {"type": "text"},
            "b": {"type": "text"},
        }
    )
    bronze.load(("1", "%s"), ("a", "{}"), ("2", "no"))
    bronze.judge(evils, rename=rename)
    assert bronze.silver("x, d") == [(1, "%s")]
    record = warehouse.fetch("select record from quarantine.shop_evil order by _row")[0][0]
    assert (record[evil], record["d"]) == ("a", "{}")


def test_columns_past_the_limit_are_found_in_more(warehouse: Any) -> None:
    bronze = BronzeTable(warehouse.conn, "wide", ["id"])
    warehouse.conn.execute("alter table bronze.shop_wide add column _more json")
    warehouse.conn.execute(
        "insert into datops.columns (table_id, delivered, name, type, position, in_more,"
        " first_load_id) values (%s, 'Last One', 'Last One_ab12', 'text', 9, true, 1)",
        (bronze.number,),
    )
    wide = contract(columns={"id": {"type": "integer"}, "last_one": {"type": "integer"}})
    bronze.load(
        {"id": "1", "_more": '{"Last One": "7"}'},
        {"id": "2", "_more": None},
        {"id": "3", "_more": '{"Last One": "x"}'},
    )
    bronze.judge(wide)
    assert bronze.silver("id, last_one") == [(1, 7), (2, None)]
    assert bronze.waiting()[0][1:] == (3, ["last_one: not a whole number (integer)"])


@pytest.mark.parametrize("type_", ["text", "numeric", "numeric(8,2)", "bigint"])
@pytest.mark.parametrize(
    ("narrow", "wide"), [("integer", "numeric(12,2)"), ("numeric(9,2)", "numeric(12,4)")]
)
def test_a_wider_type_in_bronze_changes_nothing_of_what_was_judged(
    warehouse: Any, narrow: str, wide: str, type_: str
) -> None:
    """Silver of the loads one after the other is silver of a rebuild, also after 1 became 1.00 in bronze."""
    bronze = BronzeTable(warehouse.conn, "amounts", {"id": "integer", "v": narrow})
    amounts = contract(key=["id"], columns={"id": {"type": "integer"}, "v": {"type": type_}})
    bronze.load((1, Decimal(1)), (2, Decimal(250)))
    bronze.judge(amounts)
    bronze.conn.execute(f"alter table bronze.shop_amounts alter column v type {wide}")
    bronze.load((3, Decimal("3.00")))
    bronze.judge(amounts)
    step_by_step = bronze.silver("id, v::text")
    rebuild_table(bronze.conn, source="shop", table="amounts", contract=amounts)
    assert bronze.silver("id, v::text") == step_by_step
    assert bronze.waiting() == []


def test_typed_values_beyond_the_table_of_types_are_refused_as_their_text_is(warehouse: Any) -> None:
    """Parquet holds the year 12100 and 24:00, which no reader in Python can."""
    kinds = {"d": "date", "t": "time", "m": "timestamp", "z": "timestamptz"}
    bronze = BronzeTable(warehouse.conn, "moments", {"id": "integer", **kinds})
    moments = contract(
        columns={"id": {"type": "integer"}, **{name: {"type": kind} for name, kind in kinds.items()}}
    )
    good = ("9999-12-31", "23:59:59.999999", "9999-12-31 23:59:59.999999", "9999-12-31 23:59:59.999999Z")
    bronze.load((1, *good), (2, "0001-01-01", "00:00", "0001-01-01 00:00", "0001-01-01 00:00Z"))
    for position, bad in enumerate(("12100-05-09", "24:00", "12100-05-09 00:00", "infinity")):
        bronze.load((3, *good[:position], bad, *good[position + 1 :]))
    bronze.judge(moments)
    assert bronze.silver("id") == [(1,), (2,)]
    assert [reasons[0].partition(":")[0] for _, _, reasons in bronze.waiting()] == list(kinds)
