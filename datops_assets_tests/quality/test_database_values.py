"""What databases deliver with types of their own, under each type of a contract that makes sense for it."""

from __future__ import annotations

from typing import Any

from datops_assets_tests.quality.bronze_table import BronzeTable
from datops_assets_tests.quality.test_judging import contract

# Type in bronze, the value as PostgreSQL prints it, the contract's type, the value's text in silver.
KEPT: list[tuple[str, str, str, str]] = [
    ("integer[]", "{{1,2},{3,NULL}}", "json", "[[1,2],[3,null]]"),
    ("integer[]", "{1,2}", "text", "{1,2}"),
    ("text[]", '{"a,b",NULL,""}', "json", '["a,b",null,""]'),
    ("numeric[]", "{1.50,NaN}", "json", '[1.50,"NaN"]'),
    ("uuid[]", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "json", '["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]'),
    ("bytea[]", r'{"\\x00ff"}', "json", r'["\\x00ff"]'),
    ("interval[]", '{"1 day 02:00:00"}', "json", '["1 day 02:00:00"]'),
    ("timestamptz[]", '{"2026-01-31 12:00:00+00"}', "json", '["2026-01-31T12:00:00+00:00"]'),
    ("integer[]", "{}", "json", "[]"),
    ("jsonb", '"so so"', "text", "so so"),
    ("jsonb", '"2026-01-31"', "date", "2026-01-31"),
    ("jsonb", '{"b": [1, null, 1.10]}', "json", '{"b": [1, null, 1.10]}'),
    ("jsonb", '{"b": 1}', "text", '{"b": 1}'),
    ("jsonb", "1.10", "numeric(12,2)", "1.10"),
    ("jsonb", "true", "boolean", "true"),
    ("jsonb", '"a\\\\u0041"', "text", "a\\u0041"),
    ("json", '{"a": 1, "a": 2}', "json", '{"a": 1, "a": 2}'),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "text", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("text", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("bytea", r"\x00ff5c", "bytea", r"\x00ff5c"),
    ("bytea", r"\x00ff5c", "text", r"\x00ff5c"),
    ("interval", "1 year 2 days 03:04:05.678901", "text", "1 year 2 days 03:04:05.678901"),
    ("time", "23:59:59.999999", "time", "23:59:59.999999"),
    ("time", "23:59:59.999999", "text", "23:59:59.999999"),
    ("timetz", "12:00:00+05:30", "text", "12:00:00+05:30"),
    ("text", "23:59:58.999999", "time", "23:59:58.999999"),
    ("text", "-838:59:58.999999", "text", "-838:59:58.999999"),
    ("numeric(20,0)", "1", "boolean", "true"),
    ("numeric(20,0)", "18446744073709551615", "numeric", "18446744073709551615"),
    ("numeric(20,0)", "7", "bigint", "7"),
    ("smallint", "0", "boolean", "false"),
    ("smallint", "2026", "integer", "2026"),
    ("bit varying", "1", "boolean", "true"),
    ("bit varying", "0101", "text", "0101"),
    ("real", "0.1", "double", "0.1"),
    ("real", "0.1", "numeric", "0.1"),
    ("numeric", "1.500", "numeric(12,2)", "1.50"),
    ("inet", "192.168.0.1/24", "text", "192.168.0.1/24"),
    ("int4range", "[1,5)", "text", "[1,5)"),
]

# The same, but no value of the contract's type: what the row waits for.
REFUSED: list[tuple[str, str, str, str]] = [
    ("integer[]", "{1,2}", "integer", "not a whole number (integer)"),
    ("jsonb", '{"a": 1}', "integer", "not a whole number (integer)"),
    ("numeric", "NaN", "numeric", "not a number"),
    ("numeric", "Infinity", "numeric", "not a number"),
    ("double precision", "-Infinity", "double", "not a number (double)"),
    ("date", "infinity", "date", "not a date"),
    ("time", "24:00:00", "time", "not a time of day"),
    ("timetz", "12:00:00+05:30", "time", "not a time of day"),
    ("text", "-838:59:58", "time", "not a time of day"),
    ("bytea", r"\x00ff", "json", "not JSON"),
    ("interval", "1 day", "time", "not a time of day"),
]


def bronze_of(warehouse: Any, cases: list[tuple[str, str, str, str]]) -> BronzeTable:
    """A table with an id and a column a case."""
    types = {"id": "bigint", **{f"c{n}": bronze for n, (bronze, *_) in enumerate(cases)}}
    return BronzeTable(warehouse.conn, "kinds", types)


def contract_of(cases: list[tuple[str, str, str, str]]) -> Any:
    """A contract that wants each column as the case says."""
    columns = {f"c{n}": {"type": wanted} for n, (_, _, wanted, _) in enumerate(cases)}
    return contract(key=["id"], columns={"id": {"type": "bigint"}, **columns})


def test_a_value_that_the_contract_can_hold_arrives_and_so_does_its_null(warehouse: Any) -> None:
    """Arrays become JSON, the text of a JSON string has no quotes, bytes and times print in one way."""
    bronze = bronze_of(warehouse, KEPT)
    bronze.load((1, *(value for _, value, _, _ in KEPT)), (2,))
    bronze.judge(contract_of(KEPT))
    assert bronze.waiting() == []
    names = [f"c{n}" for n in range(len(KEPT))]
    values, nulls = bronze.silver("id, " + ", ".join(f"{name}::text" for name in names))
    kept = {name: (case[0], case[2], text) for name, case, text in zip(names, KEPT, values[1:], strict=True)}
    assert kept == {name: (case[0], case[2], case[3]) for name, case in zip(names, KEPT, strict=True)}
    assert nulls == (2, *[None] * len(KEPT))


def test_a_value_that_the_contract_cannot_hold_waits(warehouse: Any) -> None:
    """Each alone, with its reason; nothing is bent."""
    bronze = bronze_of(warehouse, REFUSED)
    load = bronze.load(
        *({"id": n + 1, f"c{n}": value} for n, (_, value, _, _) in enumerate(REFUSED)), {"id": 0}
    )
    bronze.judge(contract_of(REFUSED))
    assert bronze.waiting() == [(load, n + 1, [f"c{n}: {reason}"]) for n, (*_, reason) in enumerate(REFUSED)]
    assert bronze.silver("id") == [(0,)]


def test_jsonb_null_is_null_and_a_column_may_have_been_json_before(warehouse: Any) -> None:
    """A required column misses it, whether it came as json or as jsonb, and both make one column."""
    bronze = BronzeTable(warehouse.conn, "kinds", {"id": "bigint", "Doc": "json", "doc": "jsonb"})
    wanted = contract(
        key=["id"],
        columns={"id": {"type": "bigint"}, "doc": {"type": "json", "required": True}},
    )
    load = bronze.load(
        {"id": 1, "doc": '{"a": 1}'},
        {"id": 2, "doc": "null"},
        {"id": 3, "Doc": '{"a":  2}'},
    )
    bronze.judge(wanted)
    assert bronze.silver("id, doc::text") == [(1, '{"a": 1}'), (3, '{"a":  2}')]
    assert bronze.waiting() == [(load, 2, ["doc: missing"])]
