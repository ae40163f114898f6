"""`datops pipeline`, as a person types it."""

from __future__ import annotations

import contextlib
import gzip
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ("--config", "pipeline.yaml")


def by_table(rows: list[dict]) -> dict[str, dict]:
    """Rows by the table they are about."""
    return {row["table"]: row for row in rows}


def test_list_names_what_is_declared(shop):
    (row,) = shop.json("pipeline", "list", *CONFIG)
    assert (row["pipeline"], row["team"], row["tables"], row["with_contract"]) == ("store", "commerce", 3, 2)
    assert "commerce" in shop.datops("pipeline", "list", *CONFIG).stdout
    assert "shop" in {row["pipeline"] for row in shop.json("pipeline", "list")}


def test_plan_says_what_a_run_would_do_and_why_and_does_nothing(shop, warehouse):
    rows = shop.json("pipeline", "plan", *CONFIG)
    orders = [row for row in rows if row["table"] == "store.orders"]
    assert [(row["step"], row["what"], row["count"], row["why"]) for row in orders] == [
        ("bronze", "load", 1, "new"),
        ("silver", "judge", 1, "judge what bronze brings"),
    ]
    assert orders[0]["paths"] == ["orders/1.csv"]
    assert warehouse.fetch("select count(*) from datops.loads") == [(0,)]
    shop.run()
    said = shop.datops("pipeline", "plan", *CONFIG).stdout
    assert "unchanged" in said
    assert "nothing is new" in said


def test_plan_counts_the_files_that_come_before_silver_sees_them(shop):
    shop.run()
    shop.put("orders/2.csv", "order_id,customer_id,total\n13,1,1.00\n")
    rows = [row for row in shop.json("pipeline", "plan", *CONFIG) if row["table"] == "store.orders"]
    assert [(row["step"], row["what"], row["count"]) for row in rows] == [
        ("bronze", "skip", 1),
        ("bronze", "load", 1),
        ("silver", "judge", 1),
    ]


def test_plan_of_an_empty_folder_judges_nothing(shop):
    shop.declare("orders/*.csv*", "none/*.csv")
    rows = [row for row in shop.json("pipeline", "plan", *CONFIG) if row["table"] == "store.orders"]
    assert [(row["step"], row["what"], row["count"], row["why"]) for row in rows][1:] == [
        ("silver", "nothing", 0, "there is nothing to judge yet")
    ]


def test_plan_says_plainly_that_all_of_silver_was_undone(shop):
    shop.run()
    (load,) = (row for row in shop.json("load", "list", "store.orders"))
    shop.datops("load", "undo", load["ulid"])
    said = shop.datops("pipeline", "plan", *CONFIG).stdout
    assert "every load that silver holds was undone or replaced" in said


def test_plan_shows_the_columns_that_change(shop):
    shop.run()
    shop.declare('total: {type: "numeric(12,2)", min: 0}', "total: {type: text}")
    (row,) = [
        row
        for row in shop.json("pipeline", "plan", *CONFIG)
        if (row["table"], row["step"]) == ("store.orders", "silver")
    ]
    assert row["what"] == "rebuild"
    assert row["columns"] == [
        {"name": "total", "what": "widen", "declared": "text", "actual": "numeric(12,2)"}
    ]


def test_run_sums_up_each_table(shop):
    found = shop.run()
    assert (found["pipeline"], found["success"], found["problems"], found["notes"]) == ("store", True, [], [])
    orders = by_table(found["tables"])["orders"]
    assert (orders["files_loaded"], orders["rows_added"], orders["rows_passed"]) == (1, 3, 1)
    assert (orders["rows_quarantined"], orders["silver_rows"], orders["blocked"]) == (2, 1, False)
    assert by_table(found["tables"])["notes"]["silver_rows"] is None


def test_run_shows_steps_on_stderr_and_the_sum_on_stdout(shop):
    result = shop.datops("pipeline", "run", *CONFIG)
    steps = [line.partition(":")[0] for line in result.stderr.splitlines()]
    assert set(steps) == {
        "bronze/store/customers",
        "bronze/store/notes",
        "bronze/store/orders",
        "silver/store/customers",
        "silver/store/orders",
        "store_files",
    }
    assert len(steps) == 6
    assert "store: done in " in result.stdout
    assert "failed: store.orders: known_customer: 1 of 3 rows\n" in result.stdout
    assert shop.datops("pipeline", "run", *CONFIG, "--json").stderr == ""


def test_run_tells_a_warning_from_a_failure(shop):
    shop.declare("columns: [customer_id]}", "columns: [customer_id], severity: warn}")
    said = shop.datops("pipeline", "run", *CONFIG).stdout
    assert "warned: store.orders: known_customer: 1 of 3 rows\n" in said
    assert "failed: store.orders: total.min: 1 of 3 rows\n" in said


def test_run_shows_a_bar_to_a_person(shop):
    terminal, stderr = pty.openpty()
    program = "import sys; from datops_assets.cli import main; sys.argv[0] = 'datops'; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "pipeline", "run", *CONFIG],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"},
    ) as process:
        os.close(stderr)
        seen = _all_of(terminal)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0
    assert "silver/store/orders" in seen
    assert "6/6" in seen
    assert "store: done in" in said


def _all_of(terminal: int) -> str:
    """Everything that is written to a terminal until its last writer leaves."""
    seen = b""
    with contextlib.suppress(OSError):  # Linux says so instead of an end of file
        while part := os.read(terminal, 1 << 16):
            seen += part
    os.close(terminal)
    return seen.decode()


def test_run_of_one_table_leaves_the_others(shop, warehouse):
    found = shop.json("pipeline", "run", *CONFIG, "--table", "customers")
    assert [table["table"] for table in found["tables"]] == ["customers"]
    assert warehouse.fetch("select to_regclass('bronze.store_orders')") == [(None,)]


def test_a_required_column_that_no_file_has_is_said(shop):
    shop.declare("customer_id: {type: bigint}", "customer: {type: bigint, required: true}")
    shop.declare("foreign_key: [customer_id]", "foreign_key: [customer]")
    said = "no delivered column is `customer`; the files have: order_id, customer_id, total; see `rename:`"
    assert f"store.orders: {said}\n" in shop.datops("pipeline", "run", *CONFIG).stdout
    assert f"{said}\n" in shop.datops("contract", "test", "store.orders", *CONFIG, expect=1).stdout


def test_a_refused_file_is_named_once(shop):
    shop.put("orders/latin.csv", b"order_id,\xe4\n1,2\n")
    answer = shop.run(expect=1)
    said = answer["problems"] + [line for table in answer["tables"] for line in table["files_refused"]]
    assert len([line for line in said if "orders/latin.csv" in line]) == 2
    assert "\n".join(said).count("orders/latin.csv") == 2


def test_run_fails_with_a_refused_file_and_names_it(shop):
    shop.put("orders/2.csv.gz", gzip.compress(b"order_id\n1\n")[:-9])
    found = shop.run(expect=1)
    assert not found["success"]
    assert "orders/2.csv.gz" in found["problems"][0]
    shop.put("orders/2.csv.gz", gzip.compress(b"order_id\n2\n")[:-9])
    assert "failed: 1 file(s) were not taken" in shop.datops("pipeline", "run", *CONFIG, expect=1).stderr


def test_run_fails_when_a_check_blocks_and_silver_is_as_it_was(shop, warehouse):
    shop.run()
    shop.put("customers/2.csv", "customer_id,country\n3,XX\n4,YY\n5,DE\n")
    found = shop.run(expect=1)
    assert by_table(found["tables"])["customers"]["blocked"]
    assert warehouse.fetch("select count(*) from silver.store_customers") == [(2,)]
    status = by_table(shop.json("pipeline", "status", *CONFIG))["store.customers"]
    assert (status["state"], status["bronze_rows"], status["silver_rows"]) == ("blocked", 5, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "which pipeline?"),
        (("nobody",), "there is no pipeline 'nobody', expected one of: shop"),
        ((*CONFIG, "--table", "order"), "store has no table order, expected one of: customers, orders, notes"),
        ((*CONFIG, "--sample", "5"), "--sample and --into belong together"),
        ((*CONFIG, "--into", "trial"), "--sample and --into belong together"),
        ((*CONFIG, "--sample", "5", "--into", "silver"), "--into 'silver' is in use for other things"),
        ((*CONFIG, "--sample", "0", "--into", "trial"), "--sample"),
        ((*CONFIG, "--sample", "5", "--into", "trial", "--partition", "2026-01-01"), "--partition does not go with"),
        (("--config", "missing.yaml"), "missing.yaml"),
        ((*CONFIG, "--partition", "2026-05-01"), "no days to choose from, expected `partition:` in the document"),
    ],
)  # fmt: skip
def test_run_refuses_a_call_that_makes_no_sense(shop, arguments, said):
    assert said in shop.datops("pipeline", "run", *arguments, expect=2).output


def test_a_folder_that_does_not_exist_is_no_success(shop):
    shop.declare("path: landing", "path: lending")
    folder = shop.folder / "lending"
    said = shop.datops("pipeline", "run", *CONFIG, expect=1).stderr
    assert (
        said == f"datops: pipeline.yaml:3: the folder {folder} does not exist; make it, or correct the path\n"
    )
    assert {row["why"] for row in shop.json("pipeline", "plan", *CONFIG) if row["step"] == "bronze"} == {
        f"the folder {folder} does not exist"
    }


def test_a_glob_that_matches_nothing_is_said_until_something_was_loaded(shop):
    shop.declare("orders/*.csv*", "zzz/*.csv")
    sentence = f"no file matches zzz/*.csv below {shop.folder / 'landing'}"
    planned = [row["why"] for row in shop.json("pipeline", "plan", *CONFIG) if row["table"] == "store.orders"]
    assert sentence in planned
    assert f"store.orders: {sentence}\n" in shop.datops("pipeline", "run", *CONFIG).stdout
    file = shop.put("zzz/1.csv", "order_id,customer_id,total\n10,1,5.00\n")
    shop.run()
    file.unlink()
    assert sentence not in shop.datops("pipeline", "run", *CONFIG).stdout


def test_run_of_a_wrong_document_says_every_line(shop):
    shop.declare("load: merge", "load: upsert")
    said = shop.datops("pipeline", "run", *CONFIG, expect=2).stderr.splitlines()
    assert [line.split(": ")[0] for line in said] == ["pipeline.yaml:8", "pipeline.yaml:16"]


def test_run_into_a_schema_shows_the_first_records(shop, warehouse):
    found = shop.json("pipeline", "run", *CONFIG, "--sample", "2", "--into", "trial")
    assert by_table(found["tables"])["orders"]["rows_added"] == 2
    assert warehouse.fetch("select count(*) from trial.bronze_orders") == [(2,)]
    assert warehouse.fetch("select count(*) from datops.loads") == [(0,)]
    said = shop.datops("pipeline", "run", *CONFIG, "--sample", "2", "--into", "trial").stdout
    assert "not judged: store.orders: known_customer: store.customers has no silver yet" in said
    assert "look at: trial.bronze_<table>" in said


def test_status_follows_a_table_from_nothing_to_ok(shop):
    before = by_table(shop.json("pipeline", "status", *CONFIG))["store.orders"]
    assert (before["state"], before["bronze_rows"], before["silver_rows"]) == ("never loaded", 0, None)
    shop.run()
    after = by_table(shop.json("pipeline", "status", *CONFIG))["store.orders"]
    assert (after["state"], after["bronze_rows"], after["silver_rows"]) == ("failed", 3, 1)
    assert (after["quarantined"], after["refused_files"]) == (2, 0)
    assert 0 < after["score"] < 100
    shop.put("orders/2.csv.gz", b"\x1f\x8b")
    shop.run(expect=1)
    refused = by_table(shop.json("pipeline", "status", *CONFIG))["store.orders"]
    assert (refused["state"], refused["refused_files"]) == ("files refused", 1)
    assert "files refused" in shop.datops("pipeline", "status", *CONFIG).stdout


def test_status_says_ok_where_every_check_holds(shop):
    shop.run()
    states = {
        table: row["state"] for table, row in by_table(shop.json("pipeline", "status", *CONFIG)).items()
    }
    assert states == {"store.customers": "ok", "store.orders": "failed", "store.notes": "ok"}


def test_status_counts_records_not_reasons(shop):
    shop.put("orders/2.csv", "order_id,customer_id,total\nx,y,-1\n")
    shop.run()
    assert by_table(shop.json("pipeline", "status", *CONFIG))["store.orders"]["quarantined"] == 3


def test_status_says_that_silver_is_behind(shop, warehouse):
    shop.run()
    shop.datops("load", "undo", "1")
    undone = by_table(shop.json("pipeline", "status", *CONFIG))
    states = {table: row["state"] for table, row in undone.items()}
    assert sorted(states.values()) == ["behind", "failed", "ok"]
    shop.run()
    (undone_table,) = (table for table, state in states.items() if state == "behind")
    now = by_table(shop.json("pipeline", "status", *CONFIG))[undone_table]
    assert (now["state"], now["bronze_rows"], now["silver_rows"]) == ("ok", 0, 0)
    warehouse.conn.execute("delete from datops.judged_loads")
    assert "behind" in shop.datops("pipeline", "status", *CONFIG).stdout


def test_status_says_that_a_loaded_table_was_never_judged(shop):
    shop.declare(
        "country: {type: text, in: [DE, FR], max_ratio: 0.5, severity: block}",
        "country: {type: text, in: [IT], severity: block}",
    )
    shop.run(expect=1)
    states = {
        table: row["state"] for table, row in by_table(shop.json("pipeline", "status", *CONFIG)).items()
    }
    assert states == {"store.customers": "blocked", "store.orders": "never judged", "store.notes": "ok"}


def test_rebuild_judges_everything_again(shop, warehouse):
    shop.run()
    warehouse.conn.execute("delete from silver.store_orders")
    found = shop.json("pipeline", "rebuild", "store.orders", *CONFIG)
    assert (found["kind"], found["rows_judged"], found["rows_passed"], found["rows_total"]) == (
        "rebuild",
        3,
        1,
        1,
    )
    assert warehouse.fetch("select order_id from silver.store_orders") == [(10,)]
    said = shop.datops("pipeline", "rebuild", "store.orders", *CONFIG).stdout
    assert said == "store.orders: 3 rows judged, 1 passed, 2 in quarantine\n"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("store.notes", "store.notes has no contract, so it has no silver"),
        (
            "store.order",
            "there is no table 'store.order', expected one of: store.customers, store.orders, store.notes",
        ),
        ("store", "'store' is not a table, expected PIPELINE.TABLE"),
    ],
)
def test_rebuild_wants_a_table_with_a_contract(shop, table, said):
    assert said in shop.datops("pipeline", "rebuild", table, *CONFIG, expect=2).stderr


def test_rebuild_fails_when_a_check_blocks(shop):
    shop.run()
    shop.declare("in: [DE, FR]", "in: [IT]")
    said = shop.datops("pipeline", "rebuild", "store.customers", *CONFIG, expect=1).stderr
    assert said.startswith("datops: store.customers: country.in fails in 2 of 2 rows. Silver is as it was")


def test_drift_is_what_differs_from_the_declaration(shop, warehouse):
    assert shop.json("pipeline", "drift", *CONFIG) == []
    shop.run()
    assert shop.datops("pipeline", "drift", *CONFIG).stdout == "no drift\n"
    shop.declare("order_id: {type: bigint, required: true}", "order_id: {type: integer, required: true}")
    rows = shop.json("pipeline", "drift", *CONFIG, expect=1)
    assert [(row["table"], row["what"]) for row in rows] == [
        ("store.orders", "silver column order_id"),
        ("store.orders", "contract that silver was judged by"),
    ]
    assert (rows[0]["declared"], rows[0]["actual"]) == ("integer", "bigint")
    shop.datops(*rows[0]["next_step"].split()[1:], *CONFIG)
    assert shop.json("pipeline", "drift", *CONFIG) == []


def test_drift_leaves_a_snapshot_that_is_as_declared_alone(shop):
    shop.declare("load: merge", "load: snapshot")
    shop.run()
    assert shop.json("pipeline", "drift", *CONFIG) == []
    assert {row["what"] for row in shop.json("pipeline", "plan", *CONFIG)} == {"skip", "nothing"}
