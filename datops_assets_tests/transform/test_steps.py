"""Every step against a few lines of plain Python, on random rows with nulls among them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

COLUMNS = {
    "id": "bigint",
    "k": "text",
    "n": "integer",
    "total": "numeric(12,2)",
    "note": "text",
    "doc": "json",
}
IDS = list(COLUMNS)

TEXTS = st.one_of(st.none(), st.sampled_from(["", "a", "B", "b c", "é", "x,y,,z", "a%b", "'q'", "Zed"]))
DOCS = st.sampled_from(
    [None, {"a": {"b": "5"}, "l": [1, "x", None]}, {"a": {"b": None}}, {"l": []}, {"l": "no"}, {}]
)
ROWS = st.lists(
    st.tuples(
        TEXTS,
        st.one_of(st.none(), st.integers(-3, 9)),
        st.one_of(st.none(), st.decimals(-50, 50, places=2)),
        TEXTS,
        DOCS,
    ),
    max_size=12,
)
CASES = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def put(silver, rows) -> list[dict[str, Any]]:
    """Rows into the table, numbered; and as dictionaries."""
    numbered = [(i, *row) for i, row in enumerate(rows)]
    silver.put(
        "rows", COLUMNS, [(*row[:-1], None if row[-1] is None else json.dumps(row[-1])) for row in numbered]
    )
    return [dict(zip(IDS, row, strict=True)) for row in numbered]


def same(found, expected) -> None:
    """Equal rows, in whatever order."""
    plain = [
        tuple(json.dumps(cell) if isinstance(cell, dict | list) else cell for cell in row) for row in found
    ]
    wanted = [
        tuple(json.dumps(cell) if isinstance(cell, dict | list) else cell for cell in row) for row in expected
    ]
    assert Counter(plain) == Counter(wanted)


def order(value: Any) -> tuple[bool, Any]:
    """Nulls last; texts by code point."""
    return (value is None, 0 if value is None else value.encode() if isinstance(value, str) else value)


@CASES
@given(rows=ROWS)
def test_select_drop_and_rename_choose_columns(silver, rows):
    table = put(silver, rows)
    found = silver.rows(
        {"drop": ["doc", "n"]}, {"rename": {"k": "kind"}}, {"select": ["kind", "id", "total"]}
    )
    same(found, [(row["k"], row["id"], row["total"]) for row in table])


@CASES
@given(rows=ROWS)
def test_filter_keeps_rows_for_which_the_condition_is_true(silver, rows):
    table = put(silver, rows)
    found = silver.rows({"filter": "n > 2 or k < 'b'"}, {"select": ["id"]})
    kept = [
        row
        for row in table
        if (row["n"] is not None and row["n"] > 2) or (row["k"] is not None and row["k"].encode() < b"b")
    ]
    same(found, [(row["id"],) for row in kept])


@CASES
@given(rows=ROWS)
def test_derive_divides_exactly_and_by_zero_is_null(silver, rows):
    table = put(silver, rows)
    steps = {"derive": {"half": "n / 2", "per": "total / n", "said": "coalesce(k, '-') || '!'", "n": "n + 1"}}
    found = silver.rows(steps, {"select": ["id", "half", "per", "said", "n"]})
    by_id = {row[0]: row[1:] for row in found}
    for row in table:
        half, per, said, n = by_id[row["id"]]
        assert half == (None if row["n"] is None else Decimal(row["n"]) / 2)
        if row["n"] in (None, 0) or row["total"] is None:
            assert per is None
        else:
            assert abs(per - row["total"] / row["n"]) < Decimal("1e-9")
        assert said == f"{'-' if row['k'] is None else row['k']}!"
        assert n == (None if row["n"] is None else row["n"] + 1)


@CASES
@given(rows=ROWS)
def test_cast_changes_types_and_rounds_half_away_from_zero(silver, rows):
    table = put(silver, rows)
    found = silver.rows({"cast": {"total": "integer", "n": "text"}}, {"select": ["id", "total", "n"]})
    whole = [
        None if r["total"] is None else int(r["total"].quantize(Decimal(1), ROUND_HALF_UP)) for r in table
    ]
    texts = [None if row["n"] is None else str(row["n"]) for row in table]
    same(found, [(row["id"], total, text) for row, total, text in zip(table, whole, texts, strict=True)])


@CASES
@given(rows=ROWS)
def test_mask_hides_values_and_keeps_nulls(silver, rows):
    table = put(silver, rows)
    found = silver.rows(
        {"mask": {"k": "hash", "n": "redact", "total": "null", "note": {"last": 2}}},
        {"select": ["id", "k", "n", "total", "note"]},
    )
    same(
        found,
        [
            (
                row["id"],
                None if row["k"] is None else hashlib.sha256(row["k"].encode()).hexdigest(),
                None if row["n"] is None else "***",
                None,
                None if row["note"] is None else "*" * max(len(row["note"]) - 2, 0) + row["note"][-2:],
            )
            for row in table
        ],
    )


@CASES
@given(rows=ROWS)
def test_sort_with_a_limit_takes_the_first_by_code_point_nulls_last(silver, rows):
    table = put(silver, rows)
    found = silver.rows({"sort": {"by": ["k", "-n"], "limit": 4}}, {"select": ["id"]})
    by_n = sorted(table, key=lambda row: (row["n"] is None, -(row["n"] or 0), row["id"]))
    same(found, [(row["id"],) for row in sorted(by_n, key=lambda row: order(row["k"]))[:4]])


@CASES
@given(rows=ROWS)
def test_dedupe_keeps_one_row_of_each_key_and_nulls_are_one_key(silver, rows):
    table = put(silver, rows)
    found = silver.rows({"dedupe": {"key": ["k"], "first_by": ["-n"]}}, {"select": ["k", "id"]})
    winners: dict[Any, dict[str, Any]] = {}
    for row in sorted(table, key=lambda row: (row["n"] is None, -(row["n"] or 0), row["id"])):
        winners.setdefault(row["k"], row)
    same(found, [(key, row["id"]) for key, row in winners.items()])


@CASES
@given(rows=ROWS)
def test_dedupe_without_a_key_makes_equal_rows_one(silver, rows):
    table = put(silver, rows)
    found = silver.rows({"select": ["k", "n"]}, {"dedupe": {}})
    same(found, {(row["k"], row["n"]) for row in table})


@CASES
@given(rows=ROWS)
def test_aggregate_adds_up_each_group_without_nulls(silver, rows):
    table = put(silver, rows)
    found = silver.rows(
        {
            "aggregate": {
                "by": ["k"],
                "columns": {
                    "n_rows": "count(*)",
                    "sums": "sum(total)",
                    "big": "count(*) filter (where n > 2)",
                    "first": "min(note)",
                    "kinds": "count(distinct n)",
                },
            }
        }
    )
    groups = defaultdict(list)
    for row in table:
        groups[row["k"]].append(row)
    expected = []
    for key, members in groups.items():
        totals = [row["total"] for row in members if row["total"] is not None]
        notes = [row["note"] for row in members if row["note"] is not None]
        ns = [row["n"] for row in members if row["n"] is not None]
        expected.append(
            (
                key,
                len(members),
                sum(totals) if totals else None,
                sum(n > 2 for n in ns),
                min(notes, key=str.encode) if notes else None,
                len(set(ns)),
            )
        )
    same(found, expected)


@CASES
@given(rows=ROWS)
def test_window_counts_along_an_order(silver, rows):
    table = put(silver, rows)
    found = silver.rows(
        {
            "window": {
                "by": ["k"],
                "order": ["n"],
                "columns": {"place": "row_number()", "so_far": "sum(total)", "change": "n - lag(n)"},
            }
        },
        {"select": ["id", "place", "so_far", "change"]},
    )
    groups = defaultdict(list)
    for row in table:
        groups[row["k"]].append(row)
    expected = []
    for members in groups.values():
        running, before = None, None
        for place, row in enumerate(sorted(members, key=lambda row: (order(row["n"]), row["id"])), start=1):
            if row["total"] is not None:
                running = (running or 0) + row["total"]
            change = None if row["n"] is None or before is None else row["n"] - before
            expected.append((row["id"], place, running, change))
            before = row["n"]
    same(found, expected)


@CASES
@given(rows=ROWS)
def test_window_over_the_last_rows_and_over_all(silver, rows):
    table = put(silver, rows)
    found = silver.rows(
        {"window": {"order": ["id"], "last_rows": 2, "columns": {"two": "count(n)"}}},
        {"window": {"columns": {"all_n": "count(n)"}}},
        {"select": ["id", "two", "all_n"]},
    )
    values = [row["n"] is not None for row in table]
    same(found, [(i, sum(values[max(i - 1, 0) : i + 1]), sum(values)) for i in range(len(table))])


@CASES
@given(rows=ROWS)
def test_pivot_makes_columns_of_values(silver, rows):
    table = put(silver, rows)
    pivot = {
        "by": ["n"],
        "column": "k",
        "values": {"a": "a", "b c": "bc"},
        "value": "total",
        "function": "sum",
    }
    found = silver.rows({"pivot": pivot})
    groups: dict[Any, dict[str, Any]] = {}
    for row in table:
        sums = groups.setdefault(row["n"], {})
        if row["total"] is not None:
            sums[row["k"]] = sums.get(row["k"], 0) + row["total"]
    same(found, [(n, sums.get("a"), sums.get("b c")) for n, sums in groups.items()])


@CASES
@given(rows=ROWS)
def test_unpivot_makes_rows_of_columns(silver, rows):
    table = put(silver, rows)
    found = silver.rows({"select": ["id", "k", "note"]}, {"unpivot": {"columns": ["k", "note"]}})
    same(found, [(row["id"], word, row[word]) for row in table for word in ("k", "note")])


@CASES
@given(rows=ROWS)
def test_split_into_columns_and_into_rows(silver, rows):
    table = put(silver, rows)
    columns = silver.rows(
        {"split": {"column": "note", "by": ",", "into": ["one", "two"]}}, {"select": ["id", "one", "two"]}
    )
    parts = {row["id"]: (row["note"] or "").split(",") for row in table}
    same(columns, [(i, p[0] or None, (p[1] or None) if len(p) > 1 else None) for i, p in parts.items()])
    pieces = silver.rows({"split": {"column": "note", "by": ",", "rows": "part"}}, {"select": ["id", "part"]})
    same(pieces, [(row["id"], part) for row in table if row["note"] for part in row["note"].split(",")])


@CASES
@given(rows=ROWS)
def test_flatten_reads_fields_and_elements_of_json(silver, rows):
    table = put(silver, rows)
    fields = silver.rows(
        {"flatten": {"column": "doc", "fields": {"b": "a.b", "b_number": "a.b: integer"}}},
        {"select": ["id", "b", "b_number"]},
    )
    inner = {row["id"]: ((row["doc"] or {}).get("a") or {}).get("b") for row in table}
    same(fields, [(i, b, None if b is None else int(b)) for i, b in inner.items()])
    silver.put(
        "lists",
        {"id": "bigint", "l": "json"},
        [(r["id"], json.dumps((r["doc"] or {}).get("l"))) for r in table],
    )
    elements = silver.rows(
        {"flatten": {"column": "l", "elements": "e"}}, {"select": ["id", "e"]}, first="lists"
    )
    lists = {row["id"]: (row["doc"] or {}).get("l") for row in table}
    same(elements, [(i, e) for i, found in lists.items() if isinstance(found, list) for e in found])


# Few kinds, so that several rows of the other table match one of these.
OTHER = st.lists(st.tuples(st.sampled_from([None, "a", "B", ""]), st.integers(0, 5)), max_size=8)


@CASES
@given(rows=ROWS, other=OTHER, how=st.sampled_from(["inner", "left", "right", "full", "semi", "anti"]))
def test_join_matches_equal_keys_and_null_matches_nothing(silver, rows, other, how):
    table = put(silver, rows)
    silver.put("kinds", {"kind": "text", "weight": "integer"}, other)
    found = silver.rows(
        {"select": ["id", "k"]}, {"join": {"table": "kinds", "on": {"k": "kind"}, "how": how}}
    )
    matches = [(row, each) for row in table for each in other if row["k"] is not None and row["k"] == each[0]]
    left, right = {row["id"] for row, _ in matches}, {id(each) for _, each in matches}
    inner = [(row["id"], row["k"], each[1]) for row, each in matches]
    alone = [row for row in table if row["id"] not in left]
    extra = [(None, each[0], each[1]) for each in other if all(each is not m for _, m in matches)]
    expected = {
        "inner": inner,
        "left": inner + [(row["id"], row["k"], None) for row in alone],
        "right": inner + extra,
        "full": inner + [(row["id"], row["k"], None) for row in alone] + extra,
        "semi": [(row["id"], row["k"]) for row in table if row["id"] in left],
        "anti": [(row["id"], row["k"]) for row in alone],
    }[how]
    assert right is not None
    same(found, expected)


@CASES
@given(rows=ROWS, other=OTHER)
def test_lookup_never_multiplies_rows(silver, rows, other):
    table = put(silver, rows)
    silver.put("kinds", {"kind": "text", "weight": "integer"}, other)
    found = silver.rows(
        {"select": ["id", "k"]},
        {"lookup": {"table": "kinds", "on": {"k": "kind"}, "columns": {"weight": "w"}}},
    )
    first: dict[str, int] = {}
    for kind, weight in sorted(other, key=lambda each: each[1]):
        if kind is not None:
            first.setdefault(kind, weight)
    same(found, [(row["id"], row["k"], first.get(row["k"])) for row in table])


@CASES
@given(rows=ROWS, other=OTHER, distinct=st.booleans())
def test_union_goes_by_name(silver, rows, other, distinct):
    table = put(silver, rows)
    silver.put("kinds", {"n": "integer", "k": "text"}, [(weight, kind) for kind, weight in other])
    found = silver.rows({"select": ["k", "n"]}, {"union": {"tables": ["kinds"], "distinct": distinct}})
    expected = [(row["k"], row["n"]) for row in table] + list(other)
    same(found, set(expected) if distinct else expected)


@CASES
@given(rows=ROWS, other=OTHER)
def test_own_sql_reads_the_rows_so_far_and_the_tables_it_states(silver, rows, other):
    table = put(silver, rows)
    silver.put("kinds", {"kind": "text", "weight": "integer"}, other)
    query = """
        with heavy as (select kind from k2 where weight > 2)
        select r.id, (select count(*) from heavy h where h.kind = r.k) as heavy from rows r where n is not null
    """
    found = silver.rows({"filter": "id > 0"}, {"sql": {"select": query, "tables": {"k2": "kinds"}}})
    counts = Counter(kind for kind, weight in other if weight > 2 and kind is not None)
    same(found, [(r["id"], counts[r["k"]]) for r in table if r["id"] > 0 and r["n"] is not None])


TYPED = [
    "id + n", "id * 2", "n / 2", "n % 2", "total * n", "total + 1", "-n", "abs(total)", "round(total)",
    "round(total, 1)",
    "round(n)", "ceil(n)", "length(k)", "k || note", "upper(k)", "coalesce(n, 0)", "coalesce(k, '')", "greatest(n, id)",
    "case when n > 1 then total else 0 end", "case when n > 1 then 'x' end", "n > 1 and k like 'a%'", "nullif(n, 3)",
    "cast(k as date)", "cast(n as double)", "n::double / 2", "date_trunc('month', cast(k as date))",
    "extract(year from cast(k as timestamptz))", "date_trunc('day', cast(k as timestamptz))", "strpos(k, 'a')",
    "left(k, 2)", "split_part(k, ',', 1)", "cast(k as date) - cast(note as date)", "cast(k as date) + 1",
    "cast(k as timestamp) + interval '1 day'", "starts_with(k, 'a')", "substring(k, 1, 2)", "concat(k, n)",
    "trim(k)", "replace(k, 'a', 'b')", "n in (1, 2)", "n between 1 and 2", "n is null", "n is distinct from 3",
]  # fmt: skip


@pytest.mark.parametrize("expression", TYPED)
def test_the_type_of_an_expression_is_the_servers(silver, expression):
    put(silver, [])
    inferred, actual = silver.types({"derive": {"x": expression}})
    assert inferred["x"] is not None
    assert inferred["x"].partition("(")[0] == actual["x"].partition("(")[0]


AGGREGATES = ["count(*)", "count(distinct k)", "sum(n)", "sum(id)", "sum(total)", "avg(n)", "avg(total)", "min(k)",
              "max(n)", "bool_or(n > 1)", "sum(cast(n as double))", "sum(total) / count(*)"]  # fmt: skip


@pytest.mark.parametrize("expression", AGGREGATES)
def test_the_type_of_an_aggregate_is_the_servers(silver, expression):
    put(silver, [])
    inferred, actual = silver.types({"aggregate": {"columns": {"x": expression}}})
    assert inferred["x"].partition("(")[0] == actual["x"].partition("(")[0]
    windowed, there = (
        silver.types({"window": {"columns": {"x": expression}}})
        if "distinct" not in expression
        else (inferred, actual)
    )
    assert windowed["x"].partition("(")[0] == there["x"].partition("(")[0]


@pytest.mark.parametrize(
    "step",
    [
        {"filter": "k > 'Z'"},
        {"window": {"order": ["k"], "columns": {"n_th": "row_number()"}}},
        {"aggregate": {"columns": {"first": "min(k)"}}},
        {"sort": {"by": ["k"], "limit": 1}},
        {"derive": {"most": "greatest(k, note)"}},
    ],
    ids=str,
)
def test_wherever_the_order_of_texts_counts_the_statement_says_by_code_point(silver, step):
    """A server with its texts in code point order would give the same rows without."""
    put(silver, [])
    assert '"k" COLLATE "C"' in silver.statement(step).text()
    assert "COLLATE" not in silver.statement(step, engine="spark").text()


def test_texts_are_compared_by_code_point_whatever_the_columns_locale(silver):
    put(silver, [(text, 1, None, None, None) for text in ("b", "B", "a", "é", "Z")])
    try:
        silver.conn.execute('alter table silver.t_rows alter column k type text collate "und-x-icu"')
    except psycopg.errors.UndefinedObject:
        pytest.skip("this PostgreSQL is built without ICU")
    found = silver.rows(
        {"filter": "k > 'Z'"}, {"window": {"order": ["k"], "columns": {"n_th": "row_number()"}}}
    )
    assert sorted((row[-1], row[1]) for row in found) == [(1, "a"), (2, "b"), (3, "é")]
    least = silver.rows({"aggregate": {"columns": {"first": "min(k)", "last": "max(k)"}}})
    assert least == [("B", "é")]
