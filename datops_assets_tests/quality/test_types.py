"""The table of types: PostgreSQL, our Python and a judge written apart give one verdict for any text."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from datops_assets.quality.formats import compile_format, parse, typed_sql
from datops_assets.quality.types import NotAValueError, print_types, type_names, value_type

NAMES = [
    "text",
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "numeric(12,2)",
    "numeric(5,0)",
    "double",
    "date",
    "time",
]
NAMES += ["timestamp", "timestamptz", "uuid", "json", "bytea"]

EDGES = """
0|-0|+7|007|1.0|1.00|1.|.5|.|-|+|1e3|1E+3|1e-3|1e9999|1e-400|1e308|1e309|-1e400|5e-324|1_000|0x1F|0b1|0o7|1.005|1.500|12345678901234567890
32767|32768|-32768|-32769|2147483647|2147483648|9223372036854775807|9223372036854775808|-9223372036854775808|9999999999.99|10000000000
99999|100000|1e10|0.001e1|NaN|nan|Infinity|-Infinity|inf|١٢|１２|½|1 | 1|1,5|1'000|--1|+-1|0.0|-0.00|0e5|0e999|1.0.0|1e1.5|1e+|e5
true|TRUE|True|tRUE|t|T|tr|yes|Yes|y|on|off|1|0|f|fal|no|N|2|oui
2024-01-31|2024-02-29|2023-02-29|1900-02-29|2000-02-29|0000-01-01|0001-01-01|9999-12-31|10000-01-01|2024-1-1|2024-13-01|2024-00-10|20240131
2024-001|Jan 1 2024|01/02/2024|today|now|epoch|infinity|-infinity|0044-03-15 BC|2024-W01-1|J2451187|2024-01-31 | 2024-01-31
12:00|24:00|24:00:00|23:59:60|23:59:59.999999|23:59:59.9999999|1:00|12:00 PM|12:00:00+02|12:0|00:00:00.1230000|noon|allballs
2024-01-31 10:00|2024-01-31T10:00|2024-01-31T10:00:00|2024-01-31t10:00:00|2024-01-31T10:00:00Z|2024-01-31T10:00:00z|2024-01-31 10:00:00+02
2024-01-31 10:00:00+0230|2024-01-31 10:00:00+02:30|2024-01-31 10:00:00-15:59|2024-01-31 10:00:00+16|2024-01-31 10:00:00+16:00|2024-01-31 10:00:00+02:60
2024-01-31 10:00:00 +02|2024-01-31 10:00:00 UTC|2024-01-31 10:00:00 Europe/Berlin|2024-01-31 24:00:00|2024-01-31 24:00:00Z|2024-01-31 10:00:60Z|2024-02-30T00:00Z
2024-01-31T10:00:00.123456Z|2024-01-31T10:00:00.1234567Z|2024-01-31T10:00:00.1000000Z|2024-01-31T10:00:00.Z|2024-01-31T10|2024-01-31 10:00:00ZZ
0001-01-01 00:00:00+15:00|9999-12-31 23:59:59-15:00|0044-03-15 00:00:00 BC|10000-01-01 00:00:00|infinity|2024-01-31  10:00|2024-01-31T10:00:00+02:00:30
550e8400-e29b-41d4-a716-446655440000|550E8400-E29B-41D4-A716-446655440000|{550e8400-e29b-41d4-a716-446655440000}|550e8400e29b41d4a716446655440000
550e-8400-e29b-41d4-a716-4466-5544-0000|550e8400-e29b-41d4-a716-44665544000g|550e8400-e29b-41d4-a716-4466554400001
{}|[]|null|"a"|{"a":1,"a":2}|{"a":NaN}|[1,]|1 2|"\\u0000"|"\\ud800"|[1e400]|tru|{'a':1}|"\t"
\\x|\\x00|\\xDEadBEef|\\x0|\\xgg|abc|\\\\|\\001
""".replace("\n", "|").split("|")  # fmt: skip  # noqa: E501

_ALPHABET = st.sampled_from([*"0123456789+-.:eETZ tfx_/,", "١", "\u00a0", "\n", "é", "𝟙"])
TEXTS = st.one_of(
    st.sampled_from(EDGES),
    st.text(_ALPHABET, max_size=12),
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=6),
    st.decimals(allow_nan=True, allow_infinity=True).map(str),
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes().map(str),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.builds(
        lambda text, spot, what: text[:spot] + what + text[spot:],
        st.sampled_from(EDGES),
        st.integers(0, 25),
        _ALPHABET,
    ),
)


def verdict(name: str, text: str) -> bool:
    """The table again, written as plainly as possible: whether a type takes a text."""
    if name == "text":
        return True
    if name == "boolean":
        words = "true t yes y on 1 false f no n off 0".split()
        return any(text in (word, word.upper(), word.title()) for word in words)
    if name in ("smallint", "integer", "bigint"):
        bits = {"smallint": 16, "integer": 32, "bigint": 64}[name]
        return bool(re.fullmatch(r"[+-]?[0-9]+(\.0+)?", text)) and -(2 ** (bits - 1)) <= int(
            Decimal(text)
        ) < 2 ** (bits - 1)
    if name.startswith(("numeric", "double")):
        return _is_number(name, text)
    if name == "json":
        return _is_json(text)
    if name == "uuid":
        return bool(
            re.fullmatch(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", text)
        )
    if name == "bytea":
        return bool(re.fullmatch(r"\\x([0-9a-fA-F][0-9a-fA-F])*", text))
    return _is_moment(name, text)


def _is_number(name: str, text: str) -> bool:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", text):
        return False
    value = Decimal(text)
    if name == "double":
        return abs(float(text)) != float("inf") and (float(text) != 0 or value == 0)
    if name == "numeric":
        return True
    precision, scale = map(int, name[8:-1].split(","))
    steps = value.scaleb(scale) if value else value
    return steps == steps.to_integral_value() and abs(steps) < 10**precision


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return False
    return True


def _is_moment(name: str, text: str) -> bool:
    day, clock = r"(\d{4})-(\d\d)-(\d\d)", r"(\d\d):(\d\d)(?::(\d\d)(\.\d{1,6}0*)?)?"
    shapes = {
        "date": day,
        "time": clock,
        "timestamp": f"{day}[ T]{clock}",
        "timestamptz": rf"{day}[ T]{clock}(Z|z|[+-]\d\d(:?\d\d)?)",
    }
    found = re.fullmatch(shapes[name], text, re.ASCII)
    if not found:
        return False
    parts = list(found.groups())
    try:
        date = [int(parts.pop(0)) for _ in range(3)] if name != "time" else [2000, 1, 1]
        hour, minute, second = (int(parts.pop(0) or 0) for _ in range(3)) if name != "date" else (0, 0, 0)
        datetime(*date, hour, minute, second)  # type: ignore[arg-type]
    except ValueError:
        return False
    offset = (parts + [None] * 3)[1] if name == "timestamptz" else None
    if offset is None or offset in "Zz":
        return True
    digits = offset[1:].replace(":", "").ljust(4, "0")
    return int(digits[2:]) < 60 and timedelta(hours=int(digits[:2]), minutes=int(digits[2:])) < timedelta(
        hours=16
    )


def parses(name: str, text: str) -> bool:
    try:
        value_type(name).parse(text)
    except NotAValueError:
        return False
    return True


@pytest.fixture(scope="module")
def server_verdict(server: Any) -> Any:
    """Ask PostgreSQL about many texts and all types at once."""
    columns = sql.SQL(", ").join(
        value_type(name).to_sql(sql.SQL("t")) + sql.SQL(" is not null") for name in NAMES
    )
    statement = sql.SQL("select {} from unnest(%s::text[]) with ordinality as x (t, n) order by n").format(
        columns
    )
    with server.connect() as conn:
        plain = statement.as_string(conn).replace("%", "%%").replace("%%s::text[]", "%s::text[]")
        yield lambda texts: [dict(zip(NAMES, row, strict=True)) for row in conn.execute(plain, (texts,))]


def test_every_edge_gets_one_verdict_from_all_three(server_verdict: Any) -> None:
    for text, answers in zip(EDGES, server_verdict(EDGES), strict=True):
        for name in NAMES:
            assert (name, text, answers[name], parses(name, text)) == (
                name,
                text,
                verdict(name, text),
                verdict(name, text),
            )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=20, max_size=60))
def test_any_text_gets_one_verdict_from_all_three(server_verdict: Any, texts: list[str]) -> None:
    for text, answers in zip(texts, server_verdict(texts), strict=True):
        for name in NAMES:
            assert (name, text, answers[name], parses(name, text)) == (
                name,
                text,
                verdict(name, text),
                verdict(name, text),
            )


def test_values_are_what_the_text_says(server: Any) -> None:
    """Nothing is rounded or shifted on its way into a typed column."""
    cases = {
        "bigint": {"007": 7, "1.0": 1, "-0": 0},
        "numeric(12,2)": {"1.500": Decimal("1.50"), "+.5": Decimal("0.50"), "1e3": Decimal(1000)},
        "timestamptz": {
            "2024-01-31T10:00:00+02:30": "2024-01-31T07:30:00+00:00",
            "2024-01-31 10:00Z": "2024-01-31T10:00:00+00:00",
        },
    }
    with server.connect() as conn:
        for name, values in cases.items():
            for text, expected in values.items():
                for value in (value_type(name).literal(text), value_type(name).to_sql(sql.SQL("t"))):
                    row = conn.execute(
                        sql.SQL("select {} from (select {}::text as t offset 0) as x").format(
                            value, sql.Literal(text)
                        )
                    ).fetchone()
                    got = row[0].isoformat() if hasattr(row[0], "isoformat") else row[0]
                    assert got == expected


def test_a_zone_is_used_for_text_without_an_offset_only(server: Any) -> None:
    kind = value_type("timestamptz", "Europe/Berlin")
    with server.connect() as conn:
        for text, hour in (
            ("2024-07-01 12:00:00", 10),
            ("2024-01-01T12:00:00", 11),
            ("2024-07-01T12:00:00Z", 12),
        ):
            row = conn.execute(
                sql.SQL("select {} from (select {}::text as t offset 0) as x").format(
                    kind.to_sql(sql.SQL("t")), sql.Literal(text)
                )
            ).fetchone()
            assert row[0].hour == hour
            assert kind.parse(text) == row[0]


def test_unknown_types_are_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match=r"'int' is not a type, expected one of: text, boolean, smallint"):
        value_type("int")
    with pytest.raises(ValueError, match="out of range"):
        value_type("numeric(0,0)")


def test_the_printed_table_has_every_type() -> None:
    assert all(f"| `{name}` |" in print_types() for name in type_names())


def test_the_docs_print_this_table() -> None:
    assert print_types() in (Path(__file__).parents[2] / "docs" / "quality.md").read_text()


@pytest.mark.parametrize(
    ("zone", "text", "utc"),
    [
        ("Europe/Berlin", "2026-03-29 01:59:59", "2026-03-29 00:59:59"),
        ("Europe/Berlin", "2026-03-29 02:00:00", None),
        ("Europe/Berlin", "2026-03-29T02:59:59.999999", None),
        ("Europe/Berlin", "2026-03-29 03:00:00", "2026-03-29 01:00:00"),
        ("Europe/Berlin", "2026-10-25 02:30:00", "2026-10-25 01:30:00"),
        ("America/New_York", "2026-03-08 02:30:00", None),
        ("America/New_York", "2026-11-01 01:30:00", "2026-11-01 06:30:00"),
        ("Australia/Lord_Howe", "2026-10-04 02:15:00", None),
        ("Pacific/Apia", "2011-12-30 12:00:00", None),
        ("Europe/Berlin", "0001-01-01 00:00:00", "0001-12-31 23:06:32 BC"),
    ],
)
def test_local_times_that_clocks_skip_or_repeat_are_one_verdict(
    warehouse: Any, zone: str, text: str, utc: str | None
) -> None:
    kind = value_type("timestamptz", zone)
    compiled = [compile_format("%Y-%m-%d %H:%M:%S", "timestamptz")]
    plain = text.replace("T", " ").partition(".")[0]
    for delivered, expression in (
        (text, kind.to_sql(sql.Literal(text))),
        (plain, typed_sql(sql.Literal(plain), kind, compiled, zone)),
    ):
        query = sql.SQL("select ({} at time zone 'UTC')::text").format(expression)
        ((found,),) = warehouse.conn.execute(query).fetchall()
        assert found == utc, delivered
    for judge in (lambda: kind.parse(text), lambda: parse(plain, "timestamptz", compiled, zone)):
        if utc is None:
            with pytest.raises(NotAValueError):
                judge()
        elif "BC" not in utc:
            value = judge()
            assert isinstance(value, datetime)
            assert value.astimezone(UTC).replace(tzinfo=None) == datetime.fromisoformat(utc)
