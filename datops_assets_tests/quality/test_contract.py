"""What a contract may say, how it is refused, and what counts as a new version."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from datops_assets.quality import Contract
from datops_assets.quality.contract_rules import ForeignKeyRule
from datops_assets_tests.quality.bronze_table import contract


def problems(**parts: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as refused:
        contract(**parts)
    return [(".".join(map(str, each["loc"])), each["msg"]) for each in refused.value.errors()]


def column(**parts: Any) -> list[tuple[str, str]]:
    return problems(columns={"c": parts})


@pytest.mark.parametrize(
    ("parts", "where", "sentence"),
    [
        ({"type": "int"}, "columns.c.type", "'int' is not a type, expected one of: text"),
        ({"type": "integer", "min": "x"}, "columns.c.min", "not a whole number (integer)"),
        ({"type": "text", "in": [True]}, "columns.c.in", "a bare yes, no, on or off is a boolean in YAML"),
        ({"type": "text", "regex": "a*?"}, "columns.c.regex", "a repeat of a repeat"),
        ({"type": "integer", "regex": "a"}, "columns.c", "regex, like and length are for text"),
        (
            {"type": "integer", "formats": ["%Y"]},
            "columns.c.formats",
            "formats are for date, time, timestamp, timestamptz",
        ),
        ({"type": "date", "formats": ["%Y-%m"]}, "columns.c.formats", "lacks the day of a date"),
        (
            {"type": "date", "formats": ["%Y-%m-%d %H:%M"]},
            "columns.c.formats",
            "says more than a date holds: hour, minute",
        ),
        (
            {"type": "timestamptz", "formats": ["%Y-%m-%d"]},
            "columns.c",
            "names no offset; add %z or `timezone:`",
        ),
        ({"type": "timestamptz", "timezone": "Mars"}, "columns.c.timezone", "not a time zone"),
        ({"type": "text", "from": "filename"}, "columns.c", "`from: filename` and `pattern:` go together"),
        (
            {"type": "text", "from": "filename", "pattern": "a"},
            "columns.c.pattern",
            "the pattern has no group",
        ),
        ({"type": "text", "length": {"min": 3, "max": 1}}, "columns.c.length", "min is greater than max"),
        ({"type": "text", "max_ratio": 2}, "columns.c.max_ratio", "less than or equal to 1"),
        ({"type": "text", "colour": "red"}, "columns.c.colour", "Extra inputs are not permitted"),
        ({"type": "text", "clean": ["scrub"]}, "columns.c.clean.0", "Input should be 'trim'"),
    ],
)
def test_a_wrong_column_is_told_where_and_why(parts: dict[str, Any], where: str, sentence: str) -> None:
    assert any(place == where and sentence in said for place, said in column(**parts)), column(**parts)


def test_problems_between_parts_are_told_all_at_once_with_their_places() -> None:
    with pytest.raises(ValidationError) as refused:
        contract(
            key=["a", "b"], latest_by="b",
            columns={"Bad Name": {"type": "text"}, "b": {"type": "json"}},
            rules=[{"unique": ["z"]}, {"expression": "q > 1"}],
        )  # fmt: skip
    (error,) = refused.value.errors()
    assert error["type"] == "contract_parts"
    assert [place for place, _ in error["ctx"]["problems"]] == [
        ("columns", "Bad Name"), ("key", 0), ("key", 1), ("latest_by",), ("rules", 0), ("rules", 1),
    ]  # fmt: skip


def test_a_rule_of_no_kind_is_told_the_kinds() -> None:
    assert problems(columns={"a": {"type": "text"}}, rules=[{"foo": 1}]) == [
        (
            "rules.0",
            "not a rule, expected exactly one of: expression, check, unique, foreign_key, row_count, holds, compare,"
            " freshness, volume",
        )
    ]


ORDERS: dict[str, Any] = {
    "key": ["id"],
    "columns": {"id": {"type": "bigint"}, "n": {"type": "integer", "min": 1, "severity": "warn"}},
    "rules": [{"expression": "n > 0"}],
}


@pytest.mark.parametrize(
    ("change", "is_new"),
    [
        ({"description": "x"}, False),
        (
            {"columns": {**ORDERS["columns"], "id": {"type": "bigint", "description": "x", "max_rows": 3}}},
            False,
        ),
        ({"columns": {**ORDERS["columns"], "n": {"type": "integer", "min": 5, "severity": "warn"}}}, False),
        ({"columns": {**ORDERS["columns"], "n": {"type": "integer", "min": 5}}}, True),
        ({"columns": {**ORDERS["columns"], "id": {"type": "integer"}}}, True),
        ({"rules": []}, True),
        ({"rules": [{"expression": "n > 0", "name": "positive", "severity": "block"}]}, False),
        ({"rules": [*ORDERS["rules"], {"row_count": {"min": 1}}]}, False),
        ({"latest_by": "n"}, True),
        ({"on_null_key": "keep"}, True),
    ],
)
def test_a_version_changes_with_what_decides_silver_only(change: dict[str, Any], is_new: bool) -> None:
    assert (contract(**ORDERS).version() != contract(**(ORDERS | change)).version()) is is_new


def test_renames_are_part_of_the_version() -> None:
    orders = contract(**ORDERS)
    assert orders.version() != orders.version(rename={"ID": "id"})


def test_a_contract_survives_its_own_json() -> None:
    orders = contract(**ORDERS)
    again = Contract.model_validate_json(orders.model_dump_json(by_alias=True))
    assert (again, again.version()) == (orders, orders.version())


def test_rules_have_names_that_asset_checks_can_carry() -> None:
    rule = ForeignKeyRule(foreign_key=["a", "b"], references="other.table", columns=["x", "y"])
    assert rule.check_name() == "foreign_key_a_b_in_other_table"
    assert rule.sentence() == "foreign_key a, b in other.table"


def test_the_column_schema_says_what_silver_allows_to_be_null() -> None:
    columns = {
        "id": {"type": "bigint"},
        "n": {"type": "integer", "required": True},
        "w": {"type": "text", "required": True, "severity": "warn"},
    }
    schema = contract(key=["id"], columns=columns).column_schema()
    assert [(each.name, each.type, each.nullable) for each in schema] == [
        ("id", "bigint", False),
        ("n", "integer", False),
        ("w", "text", True),
    ]


@pytest.mark.parametrize("name", ["contract", "pandera"])
def test_a_rule_called_like_a_check_of_datops_is_refused(name: str) -> None:
    """Dagster would have two checks of one name, and the code location would not load."""
    rules = [{"name": name, "expression": "id > 0"}]
    with pytest.raises(ValueError, match=f"'{name}' is the name of a check of datops, expected another name"):
        Contract.model_validate({"columns": {"id": {"type": "bigint"}}, "rules": rules})
