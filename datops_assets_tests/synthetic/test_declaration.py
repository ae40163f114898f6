"""A wrong faults document is answered with file, line, what, and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from datops_assets.errors import DeclarationError
from datops_assets.synthetic import DEMO_FAULTS, Fault, ShopPlan, read_faults
from datops_assets.synthetic.declaration import FAULTS


def problems_of(folder: Path, text: str) -> list[str]:
    path = folder / "faults.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DeclarationError) as raised:
        read_faults(path)
    return [problem.removeprefix(f"{path}:") for problem in raised.value.problems]


def test_the_demo_profile_is_right():
    faults = read_faults(DEMO_FAULTS)
    assert {fault.table for fault in faults} == {
        "customers",
        "products",
        "orders",
        "order_items",
        "payments",
        "web_events",
    }


def test_all_problems_are_said_in_one_go_with_their_lines(tmp_path):
    problems = problems_of(
        tmp_path,
        "faults:\n"
        "  - {table: orders, fault: negative, column: total, rate: 0.1}\n"
        "  - {table: orrders, fault: negative, rate: 0.1}\n"
        "  - table: orders\n"
        "    fault: negative\n"
        "    colum: total\n"
        "    rate: 3\n"
        "  - {table: payments, fault: wrong_type, rate: 0.1}\n"
        "  - {table: orders, fault: bad_date, column: total, rate: 0.1}\n"
        "  - {table: orders, fault: negative}\n"
        "  - sometimes\n",
    )
    assert [problem.split(" ")[0] for problem in problems] == [
        "3:",
        "6:",
        "7:",
        "8:",
        "9:",
        "10:",
        "11:",
    ]
    assert problems[0] == (
        "3: faults[1].table is wrong, expected one of "
        "customers, products, orders, order_items, payments, web_events"
    )
    assert problems[1] == "6: faults[2].colum is unknown, expected table, fault, column, rate"
    assert problems[2] == "7: faults[2].rate is wrong, expected a number above 0 and at most 1"
    assert problems[3].startswith("8: faults[3].fault not possible in parquet, expected one of ")
    assert problems[4] == (
        "9: faults[4].column does not suit the fault, expected one of ordered_at, updated_at"
    )
    assert problems[5] == "10: faults[5].rate is missing, expected a number above 0 and at most 1"
    assert problems[6] == "11: faults[6] is wrong, expected {table: …, fault: …, rate: …}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1: not a faults document, expected `faults:` with a list"),
        ("faults: 3\n", "1: faults is wrong, expected a list of faults"),
        ("\nfault: []\n", "2: faults is missing, expected a list of faults"),
        ("faults: []\nmore: 1\n", "2: more is unknown, expected faults"),
        ("faults: [\n", "2: not YAML"),
        (
            "faults:\n  - {table: orders, fault: late, column: total, rate: 0.1}\n",
            "2: faults[0].column is of no",
        ),
        ("faults:\n  - {table: products, fault: late, rate: 0.1}\n", "2: faults[0].fault not possible"),
        ("faults:\n  - {table: web_events, fault: stale_duplicate, rate: 0.1}\n", "2: faults[0].fault not"),
        ("faults:\n  - {table: products, fault: bad_date, rate: 0.1}\n", "2: faults[0].fault not possible"),
        ("faults:\n  - {table: orders, fault: negative, rate: '0.1'}\n", "2: faults[0].rate is wrong"),
        ("faults:\n  - {table: [s3cret], fault: late, rate: 0.1}\n", "2: faults[0].table is wrong"),
    ],
)
def test_each_likely_mistake_has_its_sentence(tmp_path, text, problem):
    problems = problems_of(tmp_path, text)
    assert any(said.startswith(problem) for said in problems), problems
    assert "s3cret" not in "".join(problems)


def test_a_missing_document_is_one_sentence(tmp_path):
    with pytest.raises(DeclarationError, match=r"nowhere\.yaml:1: cannot be read \(No such file"):
        read_faults(tmp_path / "nowhere.yaml")


def test_a_document_of_other_bytes_is_one_sentence(tmp_path):
    (tmp_path / "faults.yaml").write_bytes(b"faults: \xe9\n")
    with pytest.raises(DeclarationError, match="it is not UTF-8"):
        read_faults(tmp_path / "faults.yaml")


def test_a_plan_refuses_what_it_can_not_make():
    impossible = Fault(table="payments", fault="bad_date", rate=0.1)
    with pytest.raises(DeclarationError) as raised:
        ShopPlan(seed=1, days=0, scale=0, faults=(impossible,))
    assert [problem.split(" ")[0] for problem in raised.value.problems] == [
        "--days",
        "--scale",
        "faults[0].fault",
    ]


def test_every_fault_stands_in_the_tutorial():
    tutorial = Path(__file__).parents[2] / "docs" / "tutorials" / "synthetic-data.md"
    text = tutorial.read_text("utf-8")
    assert [fault for fault in FAULTS if f"`{fault}`" not in text] == []
