"""The contract that datops proposes for a table without one."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datops_assets.ingestion import FileSource, FileTable, load_table
from datops_assets.quality import Contract, judge_table
from datops_assets.quality.suggest import suggest_contract
from datops_assets_tests.quality.bronze_table import BronzeTable


def suggested(warehouse, tmp_path, name: str, content: str):
    """Load one file and ask for its contract."""
    (tmp_path / name).write_text(content)
    table = FileTable(source="erp", name="orders", root=tmp_path, pattern=name)
    load_table(warehouse.conn, FileSource(), table, batch="1")
    return suggest_contract(warehouse.conn, "erp", "orders")


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (["1", "2"], "bigint"),
        (["1", "2.50"], "numeric"),
        (["007", "008"], "text"),
        (["0", "1"], "bigint"),
        (["true", "no"], "boolean"),
        (["2026-01-31", "2026-02-01"], "date"),
        (["2026-01-31T10:00:00Z", "2026-01-31 10:00:00+02"], "timestamptz"),
        (["2026-01-31T10:00:00"], "timestamp"),
        (["3ce10d69-d839-40e4-895b-fd824914f530"], "uuid"),
        (["1", "n/a"], "text"),
    ],
)
def test_the_narrowest_type_that_holds_every_value_is_proposed(warehouse, tmp_path, values, type_):
    found = suggested(warehouse, tmp_path, "a.csv", "\n".join(["Some Value", *values]) + "\n")
    assert [(column.name, column.type) for column in found.columns] == [("some_value", type_)]


def test_a_column_with_a_null_is_not_required_and_a_unique_id_is_the_key(warehouse, tmp_path):
    found = suggested(warehouse, tmp_path, "a.csv", "group_id,order_id,note\n1,1,x\n1,2,\n")
    assert found.key == ["order_id"]
    assert {column.name: column.required for column in found.columns} == {
        "group_id": True,
        "order_id": True,
        "note": False,
    }


def test_json_values_are_looked_into(warehouse, tmp_path):
    found = suggested(
        warehouse, tmp_path, "a.jsonl", '{"id": 1, "at": "2026-01-31", "more": {"a": 1}, "gone": null}\n'
    )
    assert {column.name: column.type for column in found.columns} == {
        "id": "bigint",
        "at": "date",
        "more": "json",
        "gone": "text",
    }


def test_the_proposal_is_a_contract_that_can_be_pasted(warehouse, tmp_path):
    found = suggested(warehouse, tmp_path, "a.csv", "order_id,total\n1,2.50\n2,3\n")
    contract = Contract.model_validate(yaml.safe_load(found.as_yaml())["contract"])
    assert contract.key == ["order_id"]
    assert contract.columns["total"].required


def test_nothing_is_proposed_before_the_first_load(warehouse):
    assert suggest_contract(warehouse.conn, "erp", "orders") is None


IBANS = ["DE89370400440532013000", "GB82WEST12345698765432", "NO9386011117947", "FR1420041010050500013M02606"]


def wide_rows(count: int) -> str:
    """A file with something of everything that is looked for."""
    lines = ["order_id,line,sku,status,iban,mail,sold,seen,ambiguous,price,ean,country,packed,mostly"]
    for n in range(count):
        day = 1 + n % 28
        ean = f"{400638133000 + n}"
        check = -(sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(ean))) % 10
        lines.append(
            f"{n // 2},{n % 2},ORD-{n:05},{'paid' if n % 3 else 'open'},{IBANS[n % 4]},u{n}@example.com,"
            f"{day:02}.0{1 + n % 9}.2026,2026-01-{day:02}T10:00:00Z,0{1 + n % 9}/0{1 + n % 8}/2026,"
            f"{n / 4},{ean}{check},{['DE', 'FR', 'CH'][n % 3]},202601{day:02},{'x' if n == 7 else n}"
        )
    return "\n".join(lines) + "\n"


def rules_of(found) -> dict[str, dict]:
    return {column.name: dict(column.rule) for column in found.columns}


def test_sets_patterns_formats_and_a_key_of_several_columns_are_found(warehouse, tmp_path):
    found = suggested(warehouse, tmp_path, "a.csv", wide_rows(400))
    rules = rules_of(found)
    assert found.key == ["order_id", "line"] or found.key == ["sku"] or found.key[0] in ("mail", "ean", "sku")
    assert rules["status"] == {"type": "text", "required": True, "in": ["open", "paid"]}
    assert rules["iban"]["in" if "in" in rules["iban"] else "like"] in ("iban", sorted(IBANS))
    assert rules["mail"]["like"] == "email"
    assert rules["ean"] == {"type": "text", "required": True, "like": "ean13"}
    assert (rules["sold"]["type"], rules["sold"]["formats"]) == ("date", ["%d.%m.%Y"])
    assert (rules["packed"]["type"], rules["packed"]["formats"]) == ("date", ["%Y%m%d"])
    assert rules["sku"]["regex"] == "[A-Z]{3}-[0-9]{5}"
    assert rules["price"] == {"type": "numeric", "required": True, "min": 0}
    assert rules["ambiguous"]["type"] == "text"
    said = {column.name: column.evidence for column in found.columns}
    assert "choose one: date %d/%m/%Y or date %m/%d/%Y" in said["ambiguous"]
    assert "all but 1 are bigint" in said["mostly"]


def test_a_key_may_take_two_columns(warehouse, tmp_path):
    lines = [f"{n // 3},{n % 3},{n % 7}" for n in range(90)]
    found = suggested(warehouse, tmp_path, "a.csv", "\n".join(["order_id,line_no,quantity", *lines]) + "\n")
    assert found.key == ["order_id", "line_no"]


@pytest.mark.parametrize("rows", [1, 3, 60, pytest.param(400, marks=pytest.mark.slow)])
def test_what_is_proposed_validates_and_the_data_it_was_made_from_passes(warehouse, tmp_path, rows):
    found = suggested(warehouse, tmp_path, "a.csv", wide_rows(rows))
    contract = Contract.model_validate(yaml.safe_load(found.as_yaml())["contract"])
    judgement = judge_table(warehouse.conn, source="erp", table="orders", contract=contract)
    assert (judgement.rows_quarantined, judgement.reasons) == (0, {})
    assert judgement.rows_total == rows


CELLS = st.one_of(
    st.none(),
    st.sampled_from(["1", "0", "-1", "1.0", "007", "true", "No", "2026-02-30", "2026-02-28", "01/02/2026", "24:00",
                     "yes", "null", "DE", "a@b.de", "1e5", "NaN", "#", "a: b", "'", '"x"', "\\", "é", "{", "[1]"]),
    st.integers(-(10**20), 10**20).map(str),
    st.dates().map(str),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)  # fmt: skip


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=60), times=st.sampled_from([1, 3]))
def test_whatever_was_delivered_passes_what_is_proposed(database, cells, times):
    with database.connect() as conn:
        conn.execute("drop table if exists bronze.shop_any, silver.shop_any, quarantine.shop_any;"
                     " delete from datops.columns; delete from datops.metrics; delete from datops.judged_loads;"
                     " delete from datops.check_results; delete from datops.judgements; delete from datops.contracts;"
                     " delete from datops.loads")  # fmt: skip
        table = BronzeTable(conn, "any", ["A id", "b", "c"])
        for number in range(times):
            table.load(*cells, path=f"{number}.csv")
        found = suggest_contract(conn, "shop", "any")
        contract = Contract.model_validate(yaml.safe_load(found.as_yaml())["contract"])
        judgement = table.judge(contract)
        assert (judgement.rows_quarantined, judgement.reasons) == (0, {})


def test_another_table_s_key_is_found_and_one_with_exceptions_is_a_remark(warehouse):
    customers = BronzeTable(warehouse.conn, "customers", ["customer_id"])
    customers.load(*[(str(n),) for n in range(1, 201)])
    customers.judge(
        Contract.model_validate({"key": ["customer_id"], "columns": {"customer_id": {"type": "bigint"}}})
    )
    orders = BronzeTable(warehouse.conn, "orders", ["order_id", "customer_id", "buyer_customer_id"])
    orders.load(*[(str(n), str(1 + n % 200), str(n + 1)) for n in range(201)])
    found = suggest_contract(warehouse.conn, "shop", "orders")
    assert found.rules == [
        {"foreign_key": ["customer_id"], "references": "customers", "columns": ["customer_id"]}
    ]
    assert "# buyer_customer_id looks like customers.customer_id; 1 row(s) have no match" in found.as_yaml()


def test_a_share_of_many_rows_is_stated_and_keys_are_held_against_all(warehouse):
    table = BronzeTable(warehouse.conn, "many", ["id", "line_no"])
    table.load(*[(str(n // 2), str(n % 2)) for n in range(1000)])
    found = suggest_contract(warehouse.conn, "shop", "many", rows=200)
    assert 100 < found.rows < 300
    assert found.as_yaml().startswith(f"# From {found.rows} of 1,000 rows (about one of 5); the others")
    assert found.key == ["id", "line_no"]


def test_looking_leaves_nothing_behind(warehouse):
    table = BronzeTable(warehouse.conn, "many", ["id"])
    table.load(("1",))
    before = warehouse.fetch("select count(*) from pg_class")
    suggest_contract(warehouse.conn, "shop", "many")
    assert warehouse.fetch("select count(*) from pg_class") == before
