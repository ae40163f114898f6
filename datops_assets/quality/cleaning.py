"""What `clean:` does to a delivered text before it is judged, in SQL and in Python alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from datops_assets.postgres import lazy_sql as sql

CleanStep = Literal["trim", "nfc", "control", "empty_to_null"]

# Spelled out: neither PostgreSQL's nor Python's own idea of a space is the other's.
_SPACES = (
    " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_CONTROLS = "".join(chr(code) for code in (*range(1, 9), 11, 12, *range(14, 32), *range(127, 160)))


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
    "empty_to_null": _Step(lambda text: sql.SQL("nullif({}, '')").format(text), lambda text: text or None),
}
# In this order whatever the document's: an invisible character must not keep a space from the edge.
_ORDER = ("nfc", "control", "trim", "empty_to_null")


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
