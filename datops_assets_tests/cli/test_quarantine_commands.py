"""`datops quarantine`, as a person types it."""

from __future__ import annotations

import pytest

CONFIG = ("--config", "pipeline.yaml")
BELOW, NOBODY = "total: below the minimum", "customer_id: not in customers"


@pytest.fixture
def waiting(shop):
    """The shop after a run: two orders refused, a third record damaged."""
    shop.put("orders/2.csv", "order_id,customer_id,total\n14,1\n")
    shop.run()
    return shop


def test_list_counts_by_reason(waiting):
    rows = waiting.json("quarantine", "list", "store.orders")
    assert {(row["stage"], row["reason"], row["rows"]) for row in rows} == {
        ("bronze", "2 fields where the header has 3", 1),
        ("silver", BELOW, 1),
        ("silver", NOBODY, 1),
    }
    assert waiting.json("quarantine", "list") == waiting.json("quarantine", "list", "store") == rows
    assert waiting.json("quarantine", "list", "store.customers") == []
    assert BELOW in waiting.datops("quarantine", "list").stdout


def test_an_empty_quarantine_says_so(shop):
    assert shop.datops("quarantine", "list").stdout == "the quarantine is empty\n"
    assert shop.datops("quarantine", "show", "store.orders").stdout == "no record waits\n"


def test_show_has_the_record_as_it_was_delivered(waiting):
    damaged, negative = (
        waiting.json("quarantine", "show", "store.orders", "--reason", r)[0]
        for r in ("2 fields where the header has 3", BELOW)
    )
    assert (damaged["path"], damaged["row"], damaged["raw"]) == ("orders/2.csv", 1, "14,1")
    assert negative["record"] == {"order_id": "11", "customer_id": "2", "total": "-1.00"}
    assert negative["reasons"] == [BELOW]
    assert len(waiting.json("quarantine", "show", "store.orders", "--limit", "1")) == 1
    said = waiting.datops("quarantine", "show", "store.orders").stdout
    assert '{"order_id": "11", "customer_id": "2", "total": "-1.00"}' in said
    assert "14,1" in said


def test_replay_after_a_changed_contract_moves_the_rows_that_now_pass_once(waiting, warehouse):
    waiting.declare("min: 0", "min: -5")
    replayed = waiting.json("quarantine", "replay", "store.orders", *CONFIG)
    assert (replayed["rows_released"], replayed["rows_waiting"]) == (1, 1)
    assert warehouse.fetch("select order_id from silver.store_orders order by 1") == [(10,), (11,)]
    again = waiting.datops("quarantine", "replay", "store.orders", *CONFIG).stdout
    assert again == "store.orders: 0 record(s) moved to silver, 1 still wait\n"
    assert warehouse.fetch("select order_id from silver.store_orders order by 1") == [(10,), (11,)]


def test_replay_after_a_changed_contract_says_what_left_silver(waiting):
    waiting.declare("min: 0", "min: 1000")
    said = waiting.datops("quarantine", "replay", "store.orders", *CONFIG).stdout
    assert said == (
        "store.orders: the contract changed: the whole table was judged again;"
        " 0 record(s) moved to silver, 1 left it, 3 wait\n"
    )


def test_a_corrected_file_takes_its_damaged_records_out_of_sight(waiting):
    waiting.put("orders/2.csv", "order_id,customer_id,total\n14,1,5\n")
    waiting.run()
    assert {row["stage"] for row in waiting.json("quarantine", "list", "store.orders")} == {"silver"}
    assert "14,1" not in waiting.datops("quarantine", "show", "store.orders").stdout


def test_show_names_the_load_and_prints_a_record_on_one_line(waiting):
    waiting.put("orders/3.csv", b"order_id,customer_id,total\n15,\xff" + b"y" * 300 + b"\n")
    waiting.run()
    (record,) = [r for r in waiting.json("quarantine", "show", "store.orders") if r["path"] == "orders/3.csv"]
    lines = waiting.datops("quarantine", "show", "store.orders").stdout.splitlines()
    assert lines[0].split() == ["load", "path", "row", "reasons", "delivered"]
    (line,) = [line for line in lines if "orders/3.csv" in line]
    assert line.split()[0] == str(record["load_id"])
    assert "15,\\xffyyy" in line
    assert line.endswith("y…")
    assert record["raw"].endswith("y" * 300)


def test_list_prints_a_long_reason_whole_so_that_show_and_drop_take_it(waiting, warehouse):
    names = ", ".join(f"a_rather_long_name_{n}" for n in range(5))
    reason = f"{names}: not in a table far away"
    warehouse.conn.execute(
        "update quarantine.store_orders set reasons = %s where stage = 'silver'", [[reason]]
    )
    assert reason in waiting.datops("quarantine", "list").stdout
    assert len(waiting.json("quarantine", "show", "store.orders", "--reason", reason)) == 2


def test_replay_judges_foreign_keys_by_what_is_there_now(waiting, warehouse):
    waiting.put("customers/2.csv", "customer_id,country\n9,DE\n")
    waiting.run()
    assert waiting.json("quarantine", "replay", "store.orders", *CONFIG)["rows_released"] == 1
    assert warehouse.fetch("select order_id from silver.store_orders order by 1") == [(10,), (12,)]


def test_replay_keeps_a_damaged_record_waiting(waiting):
    waiting.json("quarantine", "replay", "store.orders", *CONFIG)
    assert "bronze" in {row["stage"] for row in waiting.json("quarantine", "list", "store.orders")}


def test_replay_wants_a_contract(waiting):
    said = waiting.datops("quarantine", "replay", "store.notes", *CONFIG, expect=2).stderr
    assert "store.notes has no contract to judge by" in said


def test_a_replay_that_blocks_fails_and_moves_nothing(waiting, warehouse):
    waiting.declare("min: 0", "min: 100, severity: block")
    said = waiting.datops("quarantine", "replay", "store.orders", *CONFIG, expect=1).stderr
    assert "Silver is as it was" in said
    assert warehouse.fetch("select order_id from silver.store_orders") == [(10,)]


def test_drop_leaves_records_out_for_good(waiting, warehouse):
    assert waiting.json(
        "quarantine", "drop", "store.orders", "--reason", BELOW, "--because", "test order"
    ) == {
        "table": "store.orders",
        "rows_dropped": 1,
    }
    waiting.declare("min: 0", "min: -5")
    waiting.datops("pipeline", "rebuild", "store.orders", *CONFIG)
    assert warehouse.fetch("select order_id from silver.store_orders") == [(10,)]
    assert warehouse.fetch("select count(*) from bronze.store_orders") == [(3,)]
    said = waiting.datops("quarantine", "drop", "store.orders", "--because", "all of them").stdout
    assert said == "store.orders: 2 record(s) dropped; they stay in bronze\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "store"), "'store' is not a table, expected PIPELINE.TABLE"),
        (("drop", "store", "--because", "x"), "'store' is not a table, expected PIPELINE.TABLE"),
        (("drop", "store.orders"), "Missing option '--because'"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(shop, arguments, said):
    assert said in shop.datops("quarantine", *arguments, expect=2).output
