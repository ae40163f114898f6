"""Patterns by name (`like: iban`): what a text must look like, with its check digits, in SQL and in Python alike.

A name is a form (a pattern of the common dialect), maybe followed by a test that arithmetic or a list
decides. Both sides of each are kept beside each other here; a property test holds that they agree.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal, LiteralString

from datops_assets.postgres import lazy_sql as sql
from datops_assets.quality.code_lists import (
    COUNTRIES,
    COUNTRIES_3,
    CURRENCIES,
    IBAN_LENGTHS,
    LANGUAGES,
    LISTS_VERSION,
)
from datops_assets.quality.patterns import Pattern, read_pattern

PatternName = Literal[
    "email", "url", "uuid", "ipv4", "ipv6", "phone_e164", "iban", "bic", "credit_card", "luhn", "ean13", "isbn13",
    "lei", "iso_country", "iso_country_3", "iso_currency", "iso_language",
]  # fmt: skip
PATTERNS_VERSION = f"1.{LISTS_VERSION}"
"""Part of a contract's version where it names a pattern."""

_BIC_COUNTRIES = COUNTRIES | {"XK"}


@dataclass(frozen=True)
class _Test:
    """What the form alone does not say. Both sides get only texts of that form."""

    to_sql: Callable[[sql.Composable], sql.Composable]
    holds: Callable[[str], bool]


@dataclass(frozen=True)
class NamedPattern:
    """One pattern by name. `noun` ends the reason's sentence: "not …"."""

    name: str
    noun: str
    form: str
    accepts: str
    example: str
    test: _Test | None = None

    def fails_sql(self, text: sql.Composable) -> sql.Composable:
        """A condition: the text is not like this. Null for null."""
        other = sql.SQL("{} !~ {}").format(text, sql.Literal(_compiled(self.form).postgres))
        if self.test is None:
            return other
        return sql.SQL("case when {} then true else not ({}) end").format(other, self.test.to_sql(text))

    def matches(self, text: str) -> bool:
        """The same in Python, the other way round."""
        return _compiled(self.form).matches(text) and (self.test is None or self.test.holds(text))


@cache
def _compiled(form: str) -> Pattern:
    return read_pattern(form)


def _in_list(codes: Iterable[str], part: slice | None = None) -> _Test:
    """The text, or a part of it, is one of these codes."""
    members = sorted(codes)
    known = frozenset(members)

    def to_sql(text: sql.Composable) -> sql.Composable:
        if part is not None:
            text = sql.SQL("substr({}, {}, {})").format(
                text, sql.Literal(part.start + 1), sql.Literal(part.stop - part.start)
            )
        return sql.SQL("{} = any ({}::text[])").format(text, sql.Literal(members))

    return _Test(to_sql, lambda text: (text if part is None else text[part]) in known)


_LETTER_VALUES = {letter: str(value) for value, letter in enumerate(string.ascii_uppercase, start=10)}


def _digits_sql(text: sql.Composable) -> sql.Composable:
    """Letters as their numbers (A = 10 … Z = 35), as ISO 7064 counts."""
    for letter, value in _LETTER_VALUES.items():
        text = sql.SQL("replace({}, {}, {})").format(text, sql.Literal(letter), sql.Literal(value))
    return text


def _digits(text: str) -> int:
    return int("".join(_LETTER_VALUES.get(character, character) for character in text))


def _mod_97(turned: int) -> _Test:
    """The number that a text spells leaves 1 when divided by 97; its first `turned` characters come last."""

    def to_sql(text: sql.Composable) -> sql.Composable:
        if turned:
            first = sql.Literal(turned)
            text = sql.SQL("substr({0}, {1} + 1) || substr({0}, 1, {1})").format(text, first)
        return sql.SQL("mod(({})::numeric, 97) = 1").format(_digits_sql(text))

    return _Test(to_sql, lambda text: _digits(text[turned:] + text[:turned]) % 97 == 1)


def _iban() -> _Test:
    check, lengths = _mod_97(4), sorted(IBAN_LENGTHS)
    return _Test(
        lambda text: sql.SQL(
            "case when substr({0}, 1, 2) || length({0}) = any ({1}::text[]) then {2} else false end"
        ).format(text, sql.Literal(lengths), check.to_sql(text)),
        lambda text: f"{text[:2]}{len(text)}" in IBAN_LENGTHS and check.holds(text),
    )


_LONGEST_LUHN = 19
_DOUBLED: LiteralString = "0246813579"
"""For each digit the sum of the digits of its double."""


def _sum_sql(digits: sql.Composable, places: Iterable[int], factor: int = 1) -> sql.Composable:
    terms = [
        sql.SQL("(ascii(substr({}, {}, 1)) - 48)").format(digits, sql.Literal(place)) for place in places
    ]
    total = sql.SQL("({})").format(sql.SQL(" + ").join(terms))
    return total if factor == 1 else sql.SQL("{} * {}").format(sql.Literal(factor), total)


def _luhn() -> _Test:
    """Every second digit from the right is doubled; the sum ends in 0."""
    plain, doubled = range(1, _LONGEST_LUHN + 1, 2), range(2, _LONGEST_LUHN + 1, 2)

    def to_sql(text: sql.Composable) -> sql.Composable:
        filled = sql.SQL("lpad({}, {}, '0')").format(text, sql.Literal(_LONGEST_LUHN))
        twice = sql.SQL("translate({}, '0123456789', {})").format(filled, sql.Literal(_DOUBLED))
        return sql.SQL("mod({} + {}, 10) = 0").format(_sum_sql(filled, plain), _sum_sql(twice, doubled))

    def holds(text: str) -> bool:
        digits = [int(digit) for digit in reversed(text)]
        return (sum(digits[::2]) + sum(int(_DOUBLED[digit]) for digit in digits[1::2])) % 10 == 0

    return _Test(to_sql, holds)


def _ean() -> _Test:
    """Weights 1 and 3 in turn over 13 digits; the sum ends in 0."""
    return _Test(
        lambda text: sql.SQL("mod({} + {}, 10) = 0").format(
            _sum_sql(text, range(1, 14, 2)), _sum_sql(text, range(2, 14, 2), 3)
        ),
        lambda text: (sum(map(int, text[::2])) + 3 * sum(map(int, text[1::2]))) % 10 == 0,
    )


_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(\.{_OCTET}){{3}}"
_H = "[0-9A-Fa-f]{1,4}"
_IPV6 = "|".join(
    [
        f"({_H}:){{7}}{_H}",
        f"({_H}:){{1,7}}:",
        *(f"({_H}:){{1,{7 - after}}}(:{_H}){{1,{after}}}" for after in range(1, 7)),
        f":(:{_H}){{1,7}}",
        "::",
    ]
)

_ALL = [
    NamedPattern(
        "email", "an e-mail address", rf"{_ATOM}(\.{_ATOM})*@{_LABEL}(\.{_LABEL})+",
        "`name@host.domain`; no quotes, no comments, ASCII", "ada@example.com",
    ),
    NamedPattern(
        "url", "a URL", rf"[Hh][Tt][Tt][Pp][Ss]?://({_LABEL}(\.{_LABEL})*\.?|\[({_IPV6})\])(:[0-9]{{1,5}})?([/?#]\S*)?",
        "`http://` or `https://`, a host, maybe a port and a path; no user, no space", "https://example.com/a?b=1",
    ),
    NamedPattern(
        "uuid", "a UUID", f"{'[0-9A-Fa-f]' * 8}(-{'[0-9A-Fa-f]' * 4}){{3}}-{'[0-9A-Fa-f]' * 12}",
        "8-4-4-4-12 hexadecimal digits", "3ce10d69-d839-40e4-895b-fd824914f530",
    ),
    NamedPattern("ipv4", "an IPv4 address", _IPV4, "four numbers to 255, none with a zero in front", "192.0.2.1"),
    NamedPattern("ipv6", "an IPv6 address", _IPV6, "without an IPv4 part and without a zone", "2001:db8::1"),
    NamedPattern(
        "phone_e164", "a phone number (E.164)", r"\+[1-9][0-9]{6,14}", "`+`, country code, at most 15 digits",
        "+4930123456",
    ),
    NamedPattern(
        "iban", "an IBAN", "[A-Z]{2}[0-9]{2}[A-Z0-9]{8,30}",
        "no spaces, capital letters; the country's length; check digits (mod 97)", "DE89370400440532013000", _iban(),
    ),
    NamedPattern(
        "bic", "a BIC", "[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?", "8 or 11 characters, an ISO country in it",
        "DEUTDEFF", _in_list(_BIC_COUNTRIES, slice(4, 6)),
    ),
    NamedPattern(
        "credit_card", "a card number", "[0-9]{12,19}", "12 to 19 digits, no spaces; check digit (Luhn)",
        "4111111111111111", _luhn(),
    ),
    NamedPattern(
        "luhn", "a number with a Luhn check digit", f"[0-9]{{2,{_LONGEST_LUHN}}}", "2 to 19 digits; check digit",
        "79927398713", _luhn(),
    ),
    NamedPattern(
        "ean13", "an EAN-13", "[0-9]{13}", "13 digits; check digit (GTIN-13)", "4006381333931", _ean(),
    ),
    NamedPattern(
        "isbn13", "an ISBN-13", "97[89][0-9]{10}", "13 digits without hyphens; check digit", "9780306406157", _ean(),
    ),
    NamedPattern(
        "lei", "an LEI", "[A-Z0-9]{18}[0-9]{2}", "20 characters; check digits (mod 97)", "5493001KJTIIGC8Y1R12",
        _mod_97(0),
    ),
    NamedPattern(
        "iso_country", "an ISO country code", "[A-Z]{2}", "ISO 3166-1, two letters", "DE", _in_list(COUNTRIES),
    ),
    NamedPattern(
        "iso_country_3", "an ISO country code of three letters", "[A-Z]{3}", "ISO 3166-1, three letters", "DEU",
        _in_list(COUNTRIES_3),
    ),
    NamedPattern(
        "iso_currency", "an ISO currency code", "[A-Z]{3}", "ISO 4217, codes in use", "EUR", _in_list(CURRENCIES),
    ),
    NamedPattern(
        "iso_language", "an ISO language code", "[a-z]{2}", "ISO 639-1, two small letters", "de", _in_list(LANGUAGES),
    ),
]  # fmt: skip
_BY_NAME = {pattern.name: pattern for pattern in _ALL}


def named_pattern(name: str) -> NamedPattern:
    """The pattern of that name. Raises KeyError."""
    return _BY_NAME[name]


def pattern_names() -> list[str]:
    """All names, in the order of the documentation."""
    return list(_BY_NAME)


def print_patterns() -> str:
    """The table of the documentation."""
    lines = ["| `like:` | takes | example |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| `{p.name}` | {p.accepts} | `{p.example}` |" for p in _ALL)])
