"""Row rules say the same in SQL, in Python and in pandera, and to a judge written apart."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from datops_assets.quality import test_contract as try_contract
from datops_assets.quality.formats import compile_format, parse, typed_sql
from datops_assets.quality.patterns import read_pattern
from datops_assets.quality.types import NotAValueError, value_type
from datops_assets_tests.quality.bronze_table import BronzeTable, contract

RULES = contract(
    key=["a"],
    columns={
        "a": {"type": "integer", "required": True, "min": -5, "max": 100},
        "b": {"type": "numeric(6,2)", "in": [1, 2.5, 100]},
        "c": {"type": "text", "regex": r"[A-Z]\w*-\d{1,3}", "length": {"min": 3, "max": 6}},
        "d": {"type": "date", "min": "2020-01-01", "formats": ["%d/%m/%Y", "%b %d %y"]},
        "e": {"type": "text", "in": ["x", "y"], "severity": "warn"},
        "f": {"type": "double"},
    },
    rules=[
        {"name": "adds_up", "expression": "a + b >= 0 or e = 'x'"},
        {"name": "ratio", "expression": "b / a < 1"},
        {"name": "whole", "expression": "not (c like 'A%' and a is not null) and coalesce(e, 'none') <> 'y'"},
        {"name": "dated", "expression": "d between '2020-06-01' and date '2024-12-31'", "severity": "warn"},
        {
            "name": "wide",
            "expression": "case when f > 1e300 then a * 1000000000 * 1000000000 < 0 else f * 2 >= f end",
        },
    ],
)
CELLS = {
    "a": ["1", "0", "-5", "-6", "100", "101", "x", "1.0", "", None, "٣", "2147483648", " 1"],
    "b": ["1", "2.50", "100.0", "3", "1e2", "0.001", "99999", "NaN", None, ""],
    "c": ["A-1", "B-12", "Bé-1", "B_x-123", "A-1\n", "b-1", "", None, "B-١", "B-1234"],
    "d": [
        "01/06/2020",
        "1/6/2020",
        "29/02/2023",
        "29/02/2024",
        "31/12/2019",
        "Jan 5 24",
        "JAN 05 70",
        "2020-06-01",
        None,
        "00/01/2020",
    ],
    "e": ["x", "y", "z", "X", "", None],
    "f": ["1", "-1", "1e308", "1e309", "-0", "0.1", "Infinity", None],
}
ROW = st.fixed_dictionaries({name: st.sampled_from(cells) for name, cells in CELLS.items()})


def reference(row: dict[str, Any]) -> set[str]:
    """The verdict on one row, rule after rule, as a reader of the contract would say it."""
    reasons = set()

    def check(reason: str, holds: Any) -> None:
        if holds is False:
            reasons.add(reason)

    def of(name: str, value: Any, noun: str) -> Any:
        check(f"{name}: not {noun}", row[name] is None or value is not None)
        return value

    a = of("a", _whole(row["a"]), "a whole number (integer)")
    check("a: missing", row["a"] is not None)
    check("a: below the minimum", a is None or a >= -5)
    check("a: above the maximum", a is None or a <= 100)
    b = of("b", _money(row["b"]), "a number that numeric(6,2) holds exactly")
    check("b: not in the allowed set", b is None or b in (1, Decimal("2.5"), 100))
    c, e = row["c"], row["e"]
    check(
        "c: does not match the pattern",
        c is None or re.fullmatch(r"[A-Z][A-Za-z0-9_]*-[0-9]{1,3}", c) is not None,
    )
    check("c: too short or too long", c is None or 3 <= len(c) <= 6)
    d = of("d", _day(row["d"]), "a date")
    check("d: below the minimum", d is None or d >= date(2020, 1, 1))
    check("e: not in the allowed set", e is None or e in ("x", "y"))
    f = of("f", {"1": 1, "-1": -1, "1e308": 10**308, "-0": 0, "0.1": 0.1}.get(row["f"]), "a number (double)")
    check("adds_up: is false", e in ("x", None) or None in (a, b) or a + b >= 0)
    check("ratio: is false", None in (a, b) or a == 0 or b / a < 1)
    starts = (c or "").startswith("A") and a is not None
    check("whole: is false", not starts and e != "y")
    check("dated: is false", d is None or date(2020, 6, 1) <= d <= date(2024, 12, 31))
    check("wide: is false", f is None or (a is None or a < 0 if f > 1e300 else f * 2 >= f))
    return reasons


def _whole(text: str | None) -> int | None:
    return int(text.removesuffix(".0")) if text in ("1", "0", "-5", "-6", "100", "101", "1.0") else None


def _money(text: str | None) -> Decimal | None:
    return Decimal(text) if text in ("1", "2.50", "100.0", "3", "1e2") else None


def _day(text: str | None) -> date | None:
    return {
        "01/06/2020": date(2020, 6, 1), "1/6/2020": date(2020, 6, 1), "29/02/2024": date(2024, 2, 29),
        "31/12/2019": date(2019, 12, 31), "Jan 5 24": date(2024, 1, 5), "JAN 05 70": date(1970, 1, 5),
    }.get(text or "")  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(ROW, min_size=1, max_size=40))
def test_a_row_gets_the_same_reasons_everywhere(warehouse: Any, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    from datops_assets.quality.pandera_schema import failures, to_pandera

    conn = warehouse.conn
    conn.execute("drop table if exists bronze.shop_rules; drop table if exists quarantine.shop_rules cascade")
    conn.execute(
        "delete from datops.columns where table_id in (select table_id from datops.tables where name = 'rules')"
    )
    bronze = BronzeTable(conn, "rules", list(CELLS))
    load = bronze.load(*rows, path="rules.csv")
    conn.execute("update datops.loads set state = 'undone' where load_id < %s", (load,))
    judgement = bronze.judge(RULES)

    expected = [reference(row) for row in rows]
    by_python = try_contract(RULES, rows).verdicts
    assert [set(by_python.get(position, [])) for position in range(len(rows))] == expected

    by_pandera: list[set[str]] = [set() for _ in rows]
    frame = pd.DataFrame(rows, columns=list(CELLS), dtype=object)
    for position, _, reason in failures(to_pandera(RULES), frame):
        by_pandera[position].add(reason)
    assert by_pandera == expected

    warnings = {"e: not in the allowed set", "dated: is false"}
    refused = {number: set(reasons) for _, number, reasons in bronze.waiting()}
    assert refused == {n: reasons for n, reasons in enumerate(expected, start=1) if reasons - warnings}
    for check, reason in (("e.in", "e: not in the allowed set"), ("dated", "dated: is false")):
        counted = next(each.rows_failed for each in judgement.checks if each.name == check)
        assert counted == sum(reason in reasons for reasons in expected)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pattern=st.text(st.sampled_from("ab.*+?|()[]^-{},1\\dws$\n "), max_size=8),
    values=st.lists(st.text(st.sampled_from("ab1-. \né_٣"), max_size=6), min_size=3, max_size=10),
)
def test_a_pattern_that_is_taken_means_the_same_to_postgresql_and_python(
    module_connection: Any, pattern: str, values: list[str]
) -> None:
    try:
        read = read_pattern(pattern)
    except ValueError:
        return
    rows = module_connection.execute(
        "select v ~ %s from unnest(%s::text[]) as v", (read.postgres, values)
    ).fetchall()
    assert [answer for (answer,) in rows] == [read.matches(value) for value in values]


@pytest.fixture(scope="module")
def module_connection(server: Any) -> Any:
    with server.connect() as conn:
        yield conn


@pytest.mark.parametrize(
    "pattern",
    [r"a*?", r"(?i)a", r"\bfoo", r"[[:alpha:]]", "a{1,300}", "a)", "(a", "[a", "x^y", r"(a)\1", "(?=a)"],
)
def test_a_pattern_that_the_two_read_differently_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="character"):
        read_pattern(pattern)


def test_formats_are_tried_in_order_and_never_guessed(warehouse: Any) -> None:
    bronze = BronzeTable(warehouse.conn, "times", ["at"])
    times = contract(
        columns={
            "at": {
                "type": "timestamp",
                "formats": ["%m/%d/%y %H:%M", "%m/%d/%Y %I:%M %p", "%Y-%m-%dT%H:%M:%S"],
            }
        }
    )
    texts = [
        "3/4/20 7:05",
        "3/4/2020 7:05 PM",
        "12/31/1999 12:00 AM",
        "2020-03-04T07:05:09",
        "13/1/20 1:00",
        "2020-03-04 07:05",
        "2/30/20 1:00",
    ]
    bronze.load(*[(text,) for text in texts])
    bronze.judge(times)
    assert [str(at) for (at,) in bronze.silver("at")] == [
        "2020-03-04 07:05:00", "2020-03-04 19:05:00", "1999-12-31 00:00:00", "2020-03-04 07:05:09",
    ]  # fmt: skip
    assert [row for _, row, _ in bronze.waiting()] == [5, 6, 7]
    assert sorted(try_contract(times, [{"at": text} for text in texts]).verdicts) == [4, 5, 6]


FORMATS = ["%d.%m.%y", "%Y%m%d", "%d-%b-%Y", "%B %d, %Y", "%d%b%Y", "Day %d of %m/%Y", "%Y/%m/%d"]
TIME_FORMATS = [
    "%d/%m/%Y %H:%M:%S.%f",
    "%Y%m%dT%H%M%S",
    "%m/%d/%y %I:%M %p",
    "%d %b %y %Hh%M",
    "%Y-%m-%d %H:%M %z",
    "%H:%M on %d/%m/%Y",
]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    moments=st.lists(st.datetimes(datetime(1969, 1, 1), datetime(2068, 12, 31)), min_size=1, max_size=8),
    noise=st.lists(st.text(st.sampled_from("0123459/:. -TJanpPM%"), max_size=16), max_size=8),
    format_=st.sampled_from(FORMATS + TIME_FORMATS),
)
def test_a_format_reads_what_python_writes_and_both_sides_agree_on_noise(
    module_connection: Any, moments: list[datetime], noise: list[str], format_: str
) -> None:
    kind = value_type("date" if format_ in FORMATS else "timestamptz", "UTC")
    compiled = [compile_format(format_, kind.family)]
    written = [moment.replace(tzinfo=UTC).strftime(format_) for moment in moments]
    texts = [*written, *noise, *(text[:-1] for text in written), *(text.replace("0", "") for text in written)]
    judged = typed_sql(sql.SQL("t"), kind, compiled, "UTC")
    statement = sql.SQL("select {} from unnest({}::text[]) with ordinality as x (t, n) order by n").format(
        judged, sql.Literal(texts)
    )
    values = [value for (value,) in module_connection.execute(statement)]
    for text, value in zip(texts, values, strict=True):
        assert (text, value) == (text, parsed(text, kind.family, compiled))
    for text, value in zip(written, values, strict=False):
        assert value is not None and value.strftime(format_) == text


def parsed(text: str, family: str, compiled: Any) -> Any:
    try:
        return parse(text, family, compiled, "UTC")
    except NotAValueError:
        return None


def test_cleaning_comes_before_the_verdict_and_is_the_same_in_python(warehouse: Any) -> None:
    bronze = BronzeTable(warehouse.conn, "clean", ["a", "b"])
    cleaned = contract(
        columns={
            "a": {"type": "integer", "clean": ["trim", "empty_to_null"]},
            "b": {"type": "text", "clean": ["nfc", "control", "trim"], "in": ["é", "ab"]},
        }
    )
    rows = [("\u00a01\u2003", "e\u0301"), ("  ", "a\x01b\x85"), ("\ufeff2", "\tab\n"), ("1 1", None)]
    bronze.load(*rows)
    judgement = bronze.judge(cleaned)
    assert bronze.silver("a, b") == [(1, "é"), (None, "ab"), (2, "ab")]
    assert bronze.waiting()[0][2] == ["a: not a whole number (integer)"]
    assert try_contract(cleaned, [dict(zip("ab", row, strict=True)) for row in rows]).verdicts == {
        3: ["a: not a whole number (integer)"]
    }
    metrics = dict(
        warehouse.conn.execute(
            "select metric, value from datops.metrics where judgement_id = %s", (judgement.judgement_id,)
        ).fetchall()
    )
    assert (metrics["cleaned:a"], metrics["cleaned:b"]) == (3, 3)


def test_an_expression_never_stops_a_judgement(warehouse: Any) -> None:
    """Division by zero is null, products of great numbers do not overflow."""
    bronze = BronzeTable(warehouse.conn, "sums", ["a", "b"])
    sums = contract(
        columns={"a": {"type": "bigint"}, "b": {"type": "bigint"}},
        rules=[
            {"name": "ratio", "expression": "a / b > 0"},
            {"name": "product", "expression": "a * a * b >= 0"},
        ],
    )
    bronze.load(("1", "0"), ("9223372036854775807", "9223372036854775807"), ("1", "-1"))
    bronze.judge(sums)
    assert bronze.silver("a") == [(1,), (9223372036854775807,)]
    assert bronze.waiting()[0][2] == ["ratio: is false", "product: is false"]


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("a > (select 1)", "a subquery is not allowed"),
        ("a > 1; drop table x", "without a semicolon"),
        ("{{ a }} > 1", "templates are not run"),
        ("pg_sleep(a) is null", "'pg_sleep' is not allowed"),
        ("a > 1 and now() is null", "is not allowed"),
        ("b = 'now'", "may not depend on the clock"),
        ("a::text = 'x'", "a cast may fail"),
        ("other.a > 1", "names a table"),
        ("z > 1", "'z' is not a column"),
        ("1 = 1", "names no column"),
        ("a >", "not an expression"),
    ],
)
def test_an_expression_beyond_one_row_is_refused_with_a_sentence(expression: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        contract(
            columns={"a": {"type": "integer"}, "b": {"type": "text"}}, rules=[{"expression": expression}]
        )


def test_bounds_may_be_days_and_moments_as_yaml_reads_them(warehouse: Any) -> None:
    bronze = BronzeTable(warehouse.conn, "moments", ["at", "local", "day"])
    moments = contract(
        columns={
            "at": {"type": "timestamptz", "min": date(2020, 1, 1), "max": "2020-01-03T00:00:00+02:00"},
            "local": {"type": "timestamptz", "timezone": "Asia/Tokyo", "min": datetime(2020, 1, 1, 9)},
            "day": {"type": "date", "in": [date(2020, 1, 1)]},
        }
    )
    rows = [
        ("2020-01-01T00:00:00Z", "2020-01-01 09:00:00", "2020-01-01"),
        ("2019-12-31T23:59:59Z", "2020-01-01 08:59:59", "2020-01-02"),
    ]
    rows += [("2020-01-02T22:00:01Z", None, None)]
    bronze.load(*rows)
    bronze.judge(moments)
    reasons = [
        ["at: below the minimum", "local: below the minimum", "day: not in the allowed set"],
        ["at: above the maximum"],
    ]
    assert [waiting for _, _, waiting in bronze.waiting()] == reasons
    names = ("at", "local", "day")
    assert (
        list(try_contract(moments, [dict(zip(names, row, strict=True)) for row in rows]).verdicts.values())
        == reasons
    )
