"""`formats:` of date and time columns: strptime-like tokens, compiled to patterns and ISO text.

PostgreSQL never guesses (DateStyle is not used): a pattern takes the text apart, ISO text is
put together, and the type's own guard judges that (29 February, offsets out of range).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import lru_cache
from itertools import pairwise

from datops_assets.postgres import lazy_sql as sql
from datops_assets.quality.types import MAX_OFFSET, NotAValueError, ValueType, local_sql, local_time

_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_LONG_MONTHS = "January February March April May June July August September October November December".split()
_HOUR, _SIXTY = "[01]?[0-9]|2[0-3]", "[0-5]?[0-9]"


def _any_case(names: Sequence[str]) -> str:
    return "|".join(form for name in names for form in dict.fromkeys((name, name.lower(), name.upper())))


_TOKENS = {
    "Y": ("year", "[0-9]{4}"),
    "y": ("short_year", "[0-9]{2}"),
    "m": ("month", "0?[1-9]|1[0-2]"),
    "b": ("month", _any_case(_MONTHS)),
    "B": ("month", _any_case(_LONG_MONTHS)),
    "d": ("day", "0?[1-9]|[12][0-9]|3[01]"),
    "H": ("hour", _HOUR),
    "I": ("hour", "0?[1-9]|1[0-2]"),
    "M": ("minute", _SIXTY),
    "S": ("second", _SIXTY),
    "f": ("fraction", "[0-9]{1,6}"),
    "p": ("half", _any_case(["AM", "PM"])),
    "z": ("offset", "Z|[+-][0-9]{2}:?[0-5][0-9]"),
}
# As POSIX strptime: 69 to 99 are 19xx.
_SHORT_YEARS = {"20": "[0-5][0-9]|6[0-8]", "19": "69|[7-9][0-9]"}
_DATE = {"year", "month", "day"}


# Beside another token nothing says where a part ends, but its width.
_FIXED = {
    "0?[1-9]|1[0-2]": "0[1-9]|1[0-2]",
    "0?[1-9]|[12][0-9]|3[01]": "0[1-9]|[12][0-9]|3[01]",
    _HOUR: "[01][0-9]|2[0-3]",
    _SIXTY: "[0-5][0-9]",
    "[0-9]{1,6}": "[0-9]{6}",
}


@dataclass(frozen=True)
class Case:
    """One pattern of a format.

    names       the parts its groups hold, in order
    century     what two digits of a year belong to, else ''
    separators  the characters that stand between parts and nowhere else; '' when there are none such
    places      for each part its place among the pieces that the separators leave, from 1
    """

    pattern: str
    names: tuple[str, ...]
    century: str
    separators: str
    places: tuple[int, ...]


@dataclass(frozen=True)
class Format:
    """One `formats:` entry, compiled for one type."""

    text: str
    cases: tuple[Case, ...]


@lru_cache(maxsize=512)
def compile_format(text: str, family: str) -> Format:
    """Compile `%d/%m/%Y %H:%M` and its like for a date, time, timestamp or timestamptz column.

    raises  ValueError: an unknown token, a part that is missing or doubled
    """
    parts = _read(text)
    names = ["year" if name == "short_year" else name for name, _ in parts if name]
    _check(text, family, names, parts)
    parts = _with_widths(parts)
    separators, places = _separation(parts)
    centuries: dict[str, str] = _SHORT_YEARS if any(name == "short_year" for name, _ in parts) else {"": ""}
    cases = []
    for century, years in centuries.items():
        pattern = "".join(
            f"({years if name == 'short_year' else piece})" if name else _escape(piece)
            for name, piece in parts
        )
        cases.append(Case(pattern, tuple(names), century, separators, places))
    return Format(text, tuple(cases))


def _with_widths(parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    def beside(position: int) -> bool:
        return any(0 <= other < len(parts) and parts[other][0] for other in (position - 1, position + 1))

    return [
        (name, _FIXED.get(piece, piece) if name and beside(position) else piece)
        for position, (name, piece) in enumerate(parts)
    ]


def _separation(parts: list[tuple[str, str]]) -> tuple[str, tuple[int, ...]]:
    """The separators and the parts' places among the pieces; ('', ()) where parts cannot be told apart so."""
    literals = {piece for name, piece in parts if not name}
    has_words = any(name == "half" or (name == "month" and "J" in piece) for name, piece in parts)
    touching = any(one[0] and other[0] for one, other in pairwise(parts))
    unclear = any(
        literal.isdigit() or (literal.isalpha() and has_words) or not literal.isascii()
        for literal in literals
    )
    if touching or unclear or any(name == "offset" for name, _ in parts):
        return "", ()
    places, place = [], 1
    for name, _ in parts:
        if name:
            places.append(place)
        else:
            place += 1
    return "".join(sorted(literals)), tuple(places)


def typed_sql(
    text: sql.Composable, kind: ValueType, formats: Sequence[Format], zone: str | None
) -> sql.Composable:
    """Delivered text → typed expression; NULL where no format matches or no such day exists. Never raises."""
    cases = [case for each in formats for case in each.cases]
    iso = sql.SQL("case {} end").format(
        sql.SQL(" ").join(
            sql.SQL("when {} ~ {} then {}").format(
                text, sql.Literal(f"^{case.pattern}$"), _iso_sql(text, case)
            )
            for case in cases
        )
    )
    cast = sql.SQL("iso::{}").format(kind.postgres)
    if kind.family == "timestamptz" and zone and not all("offset" in case.names for case in cases):
        naive = local_sql(sql.SQL("iso::timestamp"), zone)
        cast = sql.SQL("case when iso ~ '(Z|[+-][0-9]{{2}}:?[0-9]{{2}})$' then {} else {} end").format(
            cast, naive
        )
    # A subquery gives the text a name, so that the patterns run once.
    check = sql.SQL(
        "(select case when pg_input_is_valid(iso, {}) then {} end from (select {} as iso offset 0) as f)"
    )
    return check.format(sql.Literal(kind.family), cast, iso)


def _iso_sql(text: sql.Composable, case: Case) -> sql.Composable:
    """ISO text of a text that matches; PostgreSQL reads `1-Jan` and `7:5` too."""
    if not case.separators:
        refs = {name: f"\\{position}" for position, name in enumerate(case.names, start=1)}
        replacement = "".join(_iso(case, refs))
        return sql.SQL("regexp_replace({}, {}, {})").format(
            text, sql.Literal(f"^{case.pattern}$"), sql.Literal(replacement)
        )
    # A pattern's groups cost 20 µs a value, cutting at the separators 1 µs.
    same = case.separators[0] * len(case.separators)
    pieces = {
        name: sql.SQL("p[{}]").format(sql.Literal(place))
        for name, place in zip(case.names, case.places, strict=True)
    }
    joined = sql.SQL(" || ").join(
        pieces[each] if each in pieces else sql.Literal(each)
        for each in _iso(case, {name: name for name in pieces})
    )
    cut = sql.SQL("string_to_array(translate({}, {}, {}), {})").format(
        text, sql.Literal(case.separators), sql.Literal(same), sql.Literal(case.separators[0])
    )
    return sql.SQL("(select {} from (select {} as p offset 0) as c)").format(joined, cut)


def _iso(case: Case, parts: Mapping[str, str]) -> list[str]:
    """The pieces of ISO text, `parts` standing for the values."""
    pieces: list[str] = []
    if "year" in parts:
        pieces += [case.century, parts["year"], "-", parts["month"], "-", parts["day"]]
    if "hour" in parts:
        pieces += [" " if "year" in parts else "", parts["hour"], ":", parts.get("minute", "00")]
        pieces += [":", parts.get("second", "00")]
        pieces += [".", parts["fraction"]] if "fraction" in parts else []
        pieces += [" ", parts["half"]] if "half" in parts else []
    pieces += [" ", parts["offset"]] if "offset" in parts else []
    return [piece for piece in pieces if piece]


def parse(text: str, family: str, formats: Sequence[Format], zone: str | None) -> object:
    """The same verdict and value in Python; raises NotAValueError."""
    for each in formats:
        for case in each.cases:
            found = re.fullmatch(case.pattern, text, re.ASCII)
            if found:
                try:
                    return _value(
                        dict(zip(case.names, found.groups(), strict=True)), family, case.century, zone
                    )
                except ValueError as error:
                    raise NotAValueError from error
    raise NotAValueError


def _read(text: str) -> list[tuple[str, str]]:
    """Split into (part name, pattern) and ('', one literal character)."""
    parts, position = [], 0
    while position < len(text):
        if text[position] != "%":
            parts.append(("", text[position]))
            position += 1
            continue
        token = text[position + 1 : position + 2]
        if token == "%":
            parts.append(("", "%"))
        elif token in _TOKENS:
            parts.append(_TOKENS[token])
        else:
            raise ValueError(
                f"{text!r} holds %{token}, expected only {' '.join('%' + known for known in _TOKENS)} or %%"
            )
        position += 2
    return parts


def _escape(character: str) -> str:
    return "\\" + character if character in r".*+?()[]{}|^$\\" else character


def _check(text: str, family: str, names: list[str], parts: list[tuple[str, str]]) -> None:
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ValueError(f"{text!r} says the {min(doubled)} twice")
    needed = {"hour", "minute"} if family == "time" else _DATE
    missing = needed - set(names)
    if missing:
        raise ValueError(f"{text!r} lacks the {', the '.join(sorted(missing))} of a {family}")
    allowed = {"date": _DATE, "time": {"hour", "minute", "second", "fraction", "half"}}.get(family)
    if allowed is not None and not set(names) <= allowed:
        raise ValueError(
            f"{text!r} says more than a {family} holds: {', '.join(sorted(set(names) - allowed))}"
        )
    if family == "timestamp" and "offset" in names:
        raise ValueError(f"{text!r} says an offset, which a timestamp cannot hold; expected type timestamptz")
    if (("", "") in parts) or ("half" in names) != (("hour", _TOKENS["I"][1]) in parts):
        raise ValueError(f"{text!r} needs %I and %p together")
    chain = ["hour", "minute", "second", "fraction"]
    present = [name in names for name in chain]
    if sorted(present, reverse=True) != present:
        raise ValueError(
            f"{text!r} says the {chain[present.index(False) + 1]} or smaller without the {chain[present.index(False)]}"
        )


def _value(found: dict[str, str], family: str, century: str, zone: str | None) -> object:
    day = None
    if "year" in found:
        month = found["month"].title()
        number = _MONTHS.index(month[:3]) + 1 if month.isalpha() else int(month)
        day = date(int(century + found["year"]), number, int(found["day"]))
    hour = int(found.get("hour", 0))
    if "half" in found:
        hour = hour % 12 + (12 if found["half"].upper() == "PM" else 0)
    clock = time(
        hour,
        int(found.get("minute", 0)),
        int(found.get("second", 0)),
        int(found.get("fraction", "0").ljust(6, "0")),
    )
    if family == "date":
        return day
    if family == "time":
        return clock
    assert day is not None
    moment = datetime.combine(day, clock)
    if "offset" in found:
        return moment.replace(tzinfo=_offset(found["offset"]))
    if family == "timestamptz":
        if zone is None:
            raise NotAValueError
        return local_time(moment, zone)
    return moment


def _offset(text: str) -> timezone:
    if text == "Z":
        return UTC
    digits = text.replace(":", "")
    shift = timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5]))
    if shift >= MAX_OFFSET:
        raise NotAValueError
    return timezone(-shift if text[0] == "-" else shift)
