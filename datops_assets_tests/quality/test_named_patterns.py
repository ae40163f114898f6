"""Patterns by name and the cleaning of markup and formulas: PostgreSQL and Python say the same."""

from __future__ import annotations

import ipaddress
import re
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from datops_assets.quality import test_contract as try_contract
from datops_assets.quality.cleaning import clean_sql, clean_text
from datops_assets.quality.named_patterns import named_pattern, pattern_names
from datops_assets_tests.quality.bronze_table import BronzeTable, contract

PROPERTY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Digits and capitals often enough that forms are met, and what the two sides could see differently.
CHARACTERS = st.sampled_from([*string.digits, *"ABDEXZabdfz+-.:@/[]?#% _\n", "٣", "é", "İ"])
NOISE = st.lists(st.text(CHARACTERS, max_size=24), max_size=30)


def near(example: str) -> st.SearchStrategy[str]:
    """The example with up to two places changed, doubled or left out."""

    def changed(places: list[tuple[int, str]]) -> str:
        text = list(example)
        for place, instead in places:
            text[place % len(text)] = instead
        return "".join(text)

    return st.lists(st.tuples(st.integers(0, 60), st.text(CHARACTERS, max_size=2)), max_size=2).map(changed)


def in_sql(warehouse, name: str, texts: list[str]) -> list[bool]:
    query = sql.SQL("select ({}) from unnest({}::text[]) with ordinality as t (x, n) order by n").format(
        named_pattern(name).fails_sql(sql.Identifier("x")), sql.Literal(texts)
    )
    return [not fails for (fails,) in warehouse.conn.execute(query).fetchall()]


@pytest.mark.parametrize("name", pattern_names())
@PROPERTY
@given(data=st.data())
def test_sql_and_python_agree(warehouse, name, data):
    pattern = named_pattern(name)
    texts = data.draw(NOISE) + data.draw(st.lists(near(pattern.example), min_size=5, max_size=30))
    assert in_sql(warehouse, name, texts) == [pattern.matches(text) for text in texts]


@pytest.mark.parametrize("name", pattern_names())
def test_the_example_is_one_in_both(warehouse, name):
    example = named_pattern(name).example
    assert named_pattern(name).matches(example)
    assert in_sql(warehouse, name, [example, f"{example}\n", f" {example}", ""]) == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("email", ["a.b+c@x-y.co.uk", "o'neil@example.com"], ["a@b", "a..b@x.de", ".a@x.de", "a@-x.de", "ä@x.de"]),
        ("url", ["http://a", "HTTPS://x.de:8080/?q#f", "http://[::1]/"], ["ftp://a", "http://", "http://a b", "http://u@h"]),
        ("ipv4", ["0.0.0.0", "255.255.255.255"], ["256.1.1.1", "01.2.3.4", "1.2.3"]),
        ("phone_e164", ["+491711234567"], ["+0123456789", "00491711234567", "+49 171 1234567"]),
        (
            "iban",
            ["GB82WEST12345698765432", "NO9386011117947", "FR1420041010050500013M02606"],
            ["DE88370400440532013000", "DE8937040044053201300", "de89370400440532013000", "ZZ89370400440532013000"],
        ),
        ("bic", ["DEUTDEFF500", "NEDSZAJJXXX"], ["DEUTXXFF", "DEUTDEF", "deutdeff"]),
        ("credit_card", ["5500005555555559", "378282246310005"], ["4111111111111112", "4111 1111 1111 1111"]),
        ("luhn", ["18", "00"], ["17", "1"]),
        ("ean13", ["0012345678905"], ["4006381333932", "12345678"]),
        ("isbn13", ["9791090636071"], ["4006381333931", "978-0-306-40615-7"]),
        ("lei", ["213800WSGIIZCXF1P572"], ["213800WSGIIZCXF1P573"]),
        ("iso_country", ["AQ", "US"], ["UK", "XX", "de", "DEU"]),
        ("iso_country_3", ["GBR"], ["ENG", "DE"]),
        ("iso_currency", ["XAU", "CHF"], ["DEM", "EURO"]),
        ("iso_language", ["zu"], ["deu", "DE", "xx"]),
    ],
)  # fmt: skip
def test_known_values(warehouse, name, good, bad):
    assert in_sql(warehouse, name, good + bad) == [True] * len(good) + [False] * len(bad)


@PROPERTY
@given(texts=st.lists(st.text("0123456789abcF:", max_size=20), max_size=50), value=st.integers(0, 2**128 - 1))
def test_ipv6_is_what_python_reads_as_one(texts, value):
    address = ipaddress.IPv6Address(value)
    for text in [*texts, str(address), address.exploded, str(ipaddress.IPv6Address(value & ~(0xFFFF << 48)))]:
        try:
            ipaddress.IPv6Address(text)
            expected = True
        except ValueError:
            expected = False
        assert named_pattern("ipv6").matches(text) is expected, text


def test_one_wrong_or_two_turned_digits_are_found():
    """What check digits are for: every single mistake, every swap of neighbours of an IBAN."""
    good = named_pattern("iban").example
    wrong = {good[:n] + d + good[n + 1 :] for n in range(2, len(good)) for d in string.digits} - {good}
    turned = {good[:n] + good[n + 1] + good[n] + good[n + 2 :] for n in range(2, len(good) - 1)} - {good}
    assert not [text for text in wrong | turned if named_pattern("iban").matches(text)]


def test_a_contract_judges_by_name_in_the_warehouse_and_without(warehouse):
    rules = contract(columns={"account": {"type": "text", "like": "iban"}})
    table = BronzeTable(warehouse.conn, "accounts", ["account"])
    table.load(("DE89370400440532013000",), ("DE88370400440532013000",), (None,))
    table.judge(rules)
    assert table.waiting()[0][1:] == (2, ["account: not an IBAN"])
    trial = try_contract(rules, [{"account": "DE89370400440532013000"}, {"account": "x"}, {"account": None}])
    assert trial.verdicts == {1: ["account: not an IBAN"]}


def test_a_pattern_is_for_text_and_its_lists_are_part_of_the_version():
    with pytest.raises(ValueError, match="like and length are for text"):
        contract(columns={"a": {"type": "bigint", "like": "iban"}})
    plain, like = ({"type": "text"}, {"type": "text", "like": "bic"})
    versions = {
        contract(columns={"a": rule}).version() for rule in (plain, like, {**like, "severity": "warn"})
    }
    assert len(versions) == 2


MARKUP = st.lists(
    st.sampled_from(
        ["<", ">", "<b>", "</p>", "<br/>", "<!--", "-->", "<script>", "</script >", "<style a='>'>", "</style>",
         "&amp;", "&lt;", "lt;", "&nbsp;", "a", " ", "\n", "1 < 2", "<scr", "ipt>", "<?", "é", "=1+1", "-5",
         "+49 (0)30", "@x", "\t"]
    ),
    max_size=12,
).map("".join)  # fmt: skip


@PROPERTY
@given(texts=st.lists(MARKUP, min_size=1, max_size=40))
@pytest.mark.parametrize("steps", [["html"], ["formula"], ["html", "formula", "trim", "empty_to_null"]])
def test_cleaning_agrees_and_leaves_no_tag(warehouse, steps, texts):
    query = sql.SQL("select {} from unnest(%s::text[]) with ordinality as t (x, n) order by n").format(
        clean_sql(sql.Identifier("x"), steps)
    )
    cleaned = [value for (value,) in warehouse.conn.execute(query, (texts,)).fetchall()]
    assert cleaned == [clean_text(text, steps) for text in texts]
    if "html" in steps:
        assert not [text for text in cleaned if text and re.search("<[A-Za-z/!?]", text)]


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ("html", "<p>Hello <b>wor</b>ld</p>", "Hello world "),
        ("html", "one<br>two", "one two"),
        ("html", "<script>alert('x')</script>safe", "safe"),
        ("html", "<scr<b>ipt>alert(1)</scr</b>ipt>", "script>alert(1)/script>"),
        ("html", "1 < 2 &amp; 3 > 2", "1 < 2 & 3 > 2"),
        ("html", "&lt;b&gt; &quot;&#39;", "&lt;b&gt; \"'"),
        ("formula", "=HYPERLINK(A1)", "'=HYPERLINK(A1)"),
        ("formula", "@sum(a1)", "'@sum(a1)"),
        ("formula", "-2+3", "'-2+3"),
        ("formula", "-5,00", "-5,00"),
        ("formula", "+49 (0)30 1234", "+49 (0)30 1234"),
        ("formula", "a=b", "a=b"),
    ],
)
def test_what_cleaning_makes_of_a_text(step: Any, before, after):
    assert clean_text(before, [step]) == after


def test_cleaned_markup_is_counted(warehouse):
    table = BronzeTable(warehouse.conn, "notes", ["note"])
    table.load(("<b>hi</b>",), ("plain",), ("=1+A1",))
    table.judge(contract(columns={"note": {"type": "text", "clean": ["html", "formula"]}}))
    assert table.silver("note") == [("hi",), ("plain",), ("'=1+A1",)]
    counted = warehouse.fetch("select value from datops.metrics where metric = 'cleaned:note'")
    assert counted == [(2.0,)]
