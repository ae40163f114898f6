"""What `clean:` does to a delivered text before it is judged, in SQL and in Python alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, LiteralString

from datops_assets.postgres import lazy_sql as sql

CleanStep = Literal["trim", "nfc", "control", "html", "formula", "empty_to_null"]

# Spelled out: neither PostgreSQL's nor Python's own idea of a space is the other's.
_SPACES = (
    " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_CONTROLS = "".join(chr(code) for code in (*range(1, 9), 11, 12, *range(14, 32), *range(127, 160)))


# Told in brackets and classes alone, which PostgreSQL and Python read alike. What is not a tag stays: `a < b`.
_MARKUP: tuple[tuple[LiteralString, LiteralString], ...] = (
    ("<[Ss][Cc][Rr][Ii][Pp][Tt][^<>]*>[^<]*</[Ss][Cc][Rr][Ii][Pp][Tt][^<>]*>", ""),
    ("<[Ss][Tt][Yy][Ll][Ee][^<>]*>[^<]*</[Ss][Tt][Yy][Ll][Ee][^<>]*>", ""),
    ("<(/?[Bb][Rr]|/([Pp]|[Dd][Ii][Vv]|[Ll][Ii]|[Tt][RrDdHh]|[Hh][1-6]))([ /][^<>]*)?>", " "),
    ("<[A-Za-z/!?][^<>]*>", ""),
    # Pieces that only became a tag when one between them left, or that were never closed.
    ("<+([A-Za-z/!?])", "\\1"),
)
# `&lt;` and `&gt;` stay as they are: written out they would be a tag again.
_ENTITIES = (("&nbsp;", " "), ("&quot;", '"'), ("&#39;", "'"), ("&apos;", "'"), ("&amp;", "&"))
_FORMULA: LiteralString = "[=+@\t\r\uff1d\uff0b\uff20\uff0d-]"
_NO_FORMULA: LiteralString = "[+-][0-9 .,()/]*"
"""A number or a telephone number: nothing in it computes."""


def _without_markup(text: str) -> str:
    for pattern, instead in _MARKUP:
        text = re.sub(pattern, instead, text)
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return text


def _without_markup_sql(text: sql.Composable) -> sql.Composable:
    for pattern, instead in _MARKUP:
        text = sql.SQL("regexp_replace({}, {}, {}, 'g')").format(
            text, sql.Literal(pattern), sql.Literal(instead)
        )
    for entity, character in _ENTITIES:
        text = sql.SQL("replace({}, {}, {})").format(text, sql.Literal(entity), sql.Literal(character))
    return text


def _neutral(text: str) -> str:
    is_formula = re.match(_FORMULA, text) and not re.fullmatch(_NO_FORMULA, text)
    return f"'{text}" if is_formula else text


def _neutral_sql(text: sql.Composable) -> sql.Composable:
    return sql.SQL("case when {0} ~ {1} and {0} !~ {2} then {3} || {0} else {0} end").format(
        text, sql.Literal(f"^{_FORMULA}"), sql.Literal(f"^{_NO_FORMULA}$"), sql.Literal("'")
    )


@dataclass(frozen=True)
class _Step:
    to_sql: Callable[[sql.Composable], sql.Composable]
    apply: Callable[[str], str | None]


_STEPS: dict[str, _Step] = {
    "trim": _Step(
        lambda text: sql.SQL("btrim({}, {})").format(text, sql.Literal(_SPACES)),
        lambda text: text.strip(_SPACES),
    ),
    "nfc": _Step(
        lambda text: sql.SQL("normalize({}, nfc)").format(text),
        lambda text: unicodedata.normalize("NFC", text),
    ),
    "control": _Step(
        lambda text: sql.SQL("translate({}, {}, '')").format(text, sql.Literal(_CONTROLS)),
        lambda text: text.translate(dict.fromkeys(map(ord, _CONTROLS))),
    ),
    "html": _Step(_without_markup_sql, _without_markup),
    "formula": _Step(_neutral_sql, _neutral),
    "empty_to_null": _Step(lambda text: sql.SQL("nullif({}, '')").format(text), lambda text: text or None),
}
# In this order whatever the document's: an invisible character must not keep a space from the edge.
_ORDER = ("nfc", "control", "html", "trim", "formula", "empty_to_null")


def clean_sql(text: sql.Composable, steps: Sequence[str]) -> sql.Composable:
    """The expression after all steps."""
    for name in _ORDER:
        if name in steps:
            text = _STEPS[name].to_sql(text)
    return text


def clean_text(text: str | None, steps: Sequence[str]) -> str | None:
    """The same in Python."""
    for name in _ORDER:
        if name in steps and text is not None:
            text = _STEPS[name].apply(text)
    return text
