"""`schema: quarantine`: a value in a column that the contract does not know sets its row aside."""

from __future__ import annotations

from datops_assets.quality import replay_quarantine
from datops_assets.quality import test_contract as try_contract
from datops_assets_tests.quality.bronze_table import BronzeTable, contract

COLUMNS = {"id": {"type": "bigint"}, "full_name": {"type": "text"}}
CLOSED = contract(key=["id"], columns=COLUMNS, closed=True)


def test_rows_with_a_value_in_an_unknown_column_wait_and_the_others_pass(warehouse):
    table = BronzeTable(warehouse.conn, "people", ["id", "Full Name", "mail"])
    table.load(("1", "a", None), ("2", "b", "x@y"), ("3", "c", ""))
    judgement = table.judge(CLOSED)
    assert table.silver("id") == [(1,)]
    assert judgement.reasons == {"mail: not a column of the contract": 2}
    assert {check.name for check in judgement.checks if check.rows_failed} == {"mail.unknown"}


def test_an_open_contract_leaves_them_in_bronze(warehouse):
    table = BronzeTable(warehouse.conn, "people", ["id", "Full Name", "mail"])
    table.load(("2", "b", "x@y"))
    table.judge(contract(key=["id"], columns=COLUMNS))
    assert table.silver("id") == [(2,)]


def test_they_come_in_once_the_contract_knows_the_column(warehouse):
    table = BronzeTable(warehouse.conn, "people", ["id", "mail"])
    table.load(("1", "x@y"))
    table.judge(CLOSED)
    wider = contract(key=["id"], columns={**COLUMNS, "mail": {"type": "text"}}, closed=True)
    done = replay_quarantine(warehouse.conn, source="shop", table="people", contract=wider)
    assert done.rows_released == 1
    assert table.silver("id, mail") == [(1, "x@y")]


def test_ignored_columns_are_known(warehouse):
    table = BronzeTable(warehouse.conn, "people", ["id", "E-Mail"])
    table.load(("1", "x@y"))
    table.judge(contract(key=["id"], columns=COLUMNS, closed=True, ignore=["e_mail"]))
    assert table.silver("id") == [(1,)]


def test_renamed_columns_are_known(warehouse):
    table = BronzeTable(warehouse.conn, "people", ["id", "Wer"])
    table.load(("1", "a"))
    table.judge(CLOSED, rename={"Wer": "full_name"})
    assert table.silver("id, full_name") == [(1, "a")]


def test_a_json_null_is_no_value(warehouse):
    table = BronzeTable(warehouse.conn, "people", {"id": "json", "tags": "json"})
    table.load(("1", "null"), ("2", "[]"))
    table.judge(CLOSED)
    assert table.silver("id") == [(1,)]


def test_columns_past_the_limit_of_bronze_are_looked_into(warehouse):
    table = BronzeTable(warehouse.conn, "people", {"id": "text", "_more": "json"})
    warehouse.conn.execute("delete from datops.columns where name = '_more'")
    warehouse.conn.execute(
        "insert into datops.columns select table_id, 'full_name', 1, 'full_name', 'text', 9, true, 1"
        " from datops.tables"
    )
    table.load(("1", '{"full_name": "a"}'), ("2", '{"mail": "x@y"}'), ("3", '{"mail": null}'), ("4", None))
    table.judge(CLOSED)
    assert table.silver("id, full_name") == [(1, "a"), (3, None), (4, None)]
    assert table.waiting()[0][2] == ["_more: not a column of the contract"]


def test_samples_are_judged_alike(warehouse):
    trial = try_contract(CLOSED, [{"id": "1", "mail": None}, {"id": "2", "mail": "x"}])
    assert trial.verdicts == {1: ["mail: not a column of the contract"]}
    assert trial.failing == 1


def test_only_a_closed_contract_has_another_version():
    still = contract(key=["id"], columns=COLUMNS, ignore=["mail"]).version()
    assert still == contract(key=["id"], columns=COLUMNS).version()
    assert CLOSED.version() != still
