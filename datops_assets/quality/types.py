"""The one table of types: which text is a value of which type, and how SQL and Python say so.

Belongs here: accepted text, the PostgreSQL type, a guard and a cast that never raise, and
the same verdict in Python. Does not: rules about values (rules), date formats (formats).

The principle: a value is accepted when the type holds it exactly; nothing is rounded,
trimmed or guessed. `print_types()` prints the table for the docs.

The guards are built for speed. PostgreSQL builds a regex's automaton anew at every call, so
a pattern with many distinct positions costs 0.9 µs a value, a single character class 0.07 µs,
`pg_input_is_valid` 0.04 µs. Hence: `pg_input_is_valid` plus one class or a round trip through
the type first; the long pattern only for text that is not in canonical form.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from uuid import UUID
from zoneinfo import ZoneInfo

from datops_assets.postgres import lazy_sql as sql

TABLE_VERSION = 3
"""Part of every contract's version: raise it when a verdict of this table changes."""

_INTEGER = r"[+-]?[0-9]+(\.0+)?"
_NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6}0*)?)?"
_OFFSET = r"(Z|z|[+-][0-9]{2}(:?[0-5][0-9])?)"
_TRUE = ("true", "t", "yes", "y", "on", "1")
_FALSE = ("false", "f", "no", "n", "off", "0")
_RANGES = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
_CATALOGUE_NAMES = {
    "double": "double precision",
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
}
_MAX_DIGITS = 131072
MAX_OFFSET = timedelta(hours=16)


class NotAValueError(ValueError):
    """This text is not a value of the type."""


@dataclass(frozen=True)
class ValueType:
    """One row of the table.

    name       as a contract writes it, with precision: `numeric(12,2)`
    accepts    the accepted text, in words, for the printed table
    noun       completes the reason "<column>: not …"
    to_sql     text expression → typed expression; NULL where the text is not a value. Never raises.
    parse      the same verdict in Python; raises NotAValueError
    """

    name: str
    accepts: str
    noun: str
    to_sql: Callable[[sql.Composable], sql.Composable]
    parse: Callable[[str], object]

    @property
    def family(self) -> str:
        """The name without precision."""
        return self.name.partition("(")[0]

    @property
    def is_number(self) -> bool:
        """Whether arithmetic works on it."""
        return self.family in {"smallint", "integer", "bigint", "numeric", "double"}

    @property
    def postgres(self) -> sql.Composable:
        """The PostgreSQL type; our names are PostgreSQL's, but for `double`."""
        return sql.SQL("double precision" if self.name == "double" else self.name)

    @property
    def catalogue_name(self) -> str:
        """The type as PostgreSQL's format_type() prints it."""
        return _CATALOGUE_NAMES.get(self.name, self.name)

    def literal(self, text: str) -> sql.Composable:
        """A constant of this type, for text that `parse` accepts."""
        # From the parsed value: PostgreSQL casts constants before it looks at the guard around them.
        value = self.parse(text)
        plain = (
            value.isoformat()
            if isinstance(value, date | time)
            else text
            if self.family in ("text", "bytea")
            else str(value)
        )
        return sql.SQL("{}::{}").format(sql.Literal(plain), self.postgres)


def value_type(name: str, timezone_name: str | None = None) -> ValueType:
    """Look a type up by the name a contract gives it.

    timezone_name   for timestamptz: the zone of text that names no offset
    raises          ValueError: no such type, with the list of those there are
    """
    compact = re.sub(r"\s+", "", name)
    found = re.fullmatch(r"numeric\(([0-9]+),([0-9]+)\)", compact)
    if found:
        precision, scale = int(found[1]), int(found[2])
        if not (1 <= precision <= 1000 and scale <= precision):
            raise ValueError(
                f"{name!r} is out of range, expected numeric(p,s) with 1 ≤ p ≤ 1000 and 0 ≤ s ≤ p"
            )
        return _numeric(precision, scale)
    if compact == "timestamptz":
        return _timestamptz(timezone_name)
    if compact in _PLAIN:
        return _PLAIN[compact]
    raise ValueError(f"{name!r} is not a type, expected one of: {', '.join(type_names())}")


def type_names() -> list[str]:
    """The names of the table, in its order."""
    return [kind.name for kind in _printed()]


def print_types() -> str:
    """The table in Markdown, as the docs show it."""
    rows = [f"| `{kind.name}` | {kind.accepts} | not {kind.noun} |" for kind in _printed()]
    return "\n".join(["| type | accepted text | reason otherwise |", "| --- | --- | --- |", *rows])


def _printed() -> list[ValueType]:
    order = [
        "text",
        "boolean",
        "smallint",
        "integer",
        "bigint",
        "numeric",
        "double",
        "date",
        "time",
        "timestamp",
    ]
    kinds = [_PLAIN[name] for name in order]
    kinds.insert(order.index("numeric") + 1, _numeric(12, 2))
    return [*kinds, _timestamptz(None), _PLAIN["uuid"], _PLAIN["json"], _PLAIN["bytea"]]


def _matching(text: sql.Composable, pattern: str) -> sql.Composable:
    return sql.SQL("{} ~ {}").format(text, sql.Literal(f"^({pattern})$"))


def _full(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


def _refuse(text: str, pattern: re.Pattern[str]) -> None:
    if pattern.fullmatch(text) is None:
        raise NotAValueError


# --- text, boolean, uuid, json, bytea -------------------------------------------------


def _parse_boolean(text: str) -> bool:
    for value, words in ((True, _TRUE), (False, _FALSE)):
        if text in _casings(words):
            return value
    raise NotAValueError


def _casings(words: tuple[str, ...]) -> list[str]:
    return sorted({form for word in words for form in (word, word.upper(), word.capitalize())})


def _boolean_sql(text: sql.Composable) -> sql.Composable:
    true, false = (sql.SQL(", ").join(map(sql.Literal, _casings(words))) for words in (_TRUE, _FALSE))
    return sql.SQL("case when {0} in ({1}) then true when {0} in ({2}) then false end").format(
        text, true, false
    )


_UUID = _full(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _parse_uuid(text: str) -> UUID:
    _refuse(text, _UUID)
    return UUID(text)


def _uuid_sql(text: sql.Composable) -> sql.Composable:
    # PostgreSQL allows hyphens after every fourth digit: 36 characters with four of them in place leave 32 digits.
    shape = sql.SQL(
        "{0} like '________-____-____-____-____________' and pg_input_is_valid({0}, 'uuid')"
    ).format(text)
    return sql.SQL("case when {} then {}::uuid end").format(shape, text)


def _parse_json(text: str) -> object:
    def refuse(_: str) -> object:
        raise NotAValueError

    try:
        return json.loads(text, parse_constant=refuse, parse_int=Decimal, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise NotAValueError from error


def _json_sql(text: sql.Composable) -> sql.Composable:
    return sql.SQL("case when pg_input_is_valid({0}, 'json') then {0}::json end").format(text)


_BYTEA = r"\\x([0-9a-fA-F]{2})*"


def _parse_bytea(text: str) -> bytes:
    _refuse(text, _full(_BYTEA))
    return bytes.fromhex(text[2:])


def _bytea_sql(text: sql.Composable) -> sql.Composable:
    return sql.SQL("case when {} then {}::bytea end").format(_matching(text, _BYTEA), text)


# --- numbers --------------------------------------------------------------------------


def _whole(name: str) -> ValueType:
    bound = _RANGES[name]

    def parse(text: str) -> int:
        _refuse(text, _full(_INTEGER))
        digits = text.partition(".")[0]
        if len(digits.lstrip("+-0")) > len(str(bound)) or not -bound <= int(digits) < bound:
            raise NotAValueError
        return int(digits)

    def to_sql(text: sql.Composable) -> sql.Composable:
        # What pg_input_is_valid takes beyond digits and sign (spaces, 0x1F, 1_000) holds another character.
        return sql.SQL(
            "case when {0} !~ '[^0-9+-]' then case when pg_input_is_valid({0}, {1}) then {0}::{2} end"
            " when {3} and pg_input_is_valid(split_part({0}, '.', 1), {1}) then split_part({0}, '.', 1)::{2} end"
        ).format(text, sql.Literal(name), sql.SQL(name), _matching(text, _INTEGER))

    accepts = f"digits with an optional sign, `.0` allowed after them; {-bound:,} to {bound - 1:,}"
    return ValueType(name, accepts, f"a whole number ({name})", to_sql, parse)


def _number(text: str) -> Decimal:
    _refuse(text, _full(_NUMBER))
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise NotAValueError from error


# One character class finds almost all text that is not a number; text with an exponent takes the long pattern.
_NUMBER_GUARD = "({0} !~ '[^0-9.+-]' or {2}) and pg_input_is_valid({0}, {1})"


def _numeric(precision: int, scale: int) -> ValueType:
    name = f"numeric({precision},{scale})"

    def parse(text: str) -> Decimal:
        value = _number(text)
        if value == 0:
            return Decimal(0)
        _, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int)
        significant = "".join(map(str, digits)).rstrip("0")
        scale_used = len(significant) - len(digits) - exponent
        if scale_used > scale or value.adjusted() >= precision - scale:
            raise NotAValueError
        return value

    def to_sql(text: sql.Composable) -> sql.Composable:
        guard = sql.SQL(_NUMBER_GUARD).format(text, sql.Literal(name), _matching(text, _NUMBER))
        return sql.SQL("case when {0} then case when {1}::numeric = {1}::{2} then {1}::{2} end end").format(
            guard, text, sql.SQL(name)
        )

    accepts = (
        "as `numeric`, when the precision and scale hold the value exactly: 1.5 and 1.500 are, 1.005 is not"
    )
    return ValueType(name, accepts, f"a number that {name} holds exactly", to_sql, parse)


def _parse_any_numeric(text: str) -> Decimal:
    value = _number(text)
    mantissa, _, exponent = text.lower().partition("e")
    scale = len(mantissa.partition(".")[2]) - int(exponent or 0)
    if scale > 16383 or (value and value.adjusted() >= _MAX_DIGITS):
        raise NotAValueError
    return value


def _any_numeric_sql(text: sql.Composable) -> sql.Composable:
    guard = sql.SQL(_NUMBER_GUARD).format(text, sql.Literal("numeric"), _matching(text, _NUMBER))
    return sql.SQL("case when {} then {}::numeric end").format(guard, text)


def _parse_double(text: str) -> float:
    exact = _number(text)
    value = float(text)
    if math.isinf(value) or (value == 0 and exact != 0):
        raise NotAValueError
    return value


def _double_sql(text: sql.Composable) -> sql.Composable:
    guard = sql.SQL(_NUMBER_GUARD).format(text, sql.Literal("double precision"), _matching(text, _NUMBER))
    return sql.SQL("case when {} then {}::double precision end").format(guard, text)


# --- dates and times ------------------------------------------------------------------


def _parse_date(text: str) -> date:
    _refuse(text, _full(_DATE))
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise NotAValueError from error


def _date_sql(text: sql.Composable) -> sql.Composable:
    # Ten characters that print as they were read: no 'infinity', no BC, no year of five digits.
    return sql.SQL(
        "case when length({0}) = 10 and pg_input_is_valid({0}, 'date')"
        " then case when {0}::date::text = {0} then {0}::date end end"
    ).format(text)


def _clock(text: str) -> time:
    _refuse(text, _full(_CLOCK))
    whole, _, fraction = text.partition(".")
    return time.fromisoformat(f"{whole}.{fraction[:6]:0<6}" if fraction else whole)


def _time_sql(text: sql.Composable) -> sql.Composable:
    return sql.SQL("case when {} then {}::time end").format(_matching(text, _CLOCK), text)


def _naive(text: str) -> datetime:
    if len(text) < 11 or text[10] not in " T":
        raise NotAValueError
    return datetime.combine(_parse_date(text[:10]), _clock(text[11:]))


def _is_naive(text: sql.Composable) -> sql.Composable:
    """Only for text that is valid as a timestamp: whether it is written as the table says."""
    # Canonical text prints as it was read; position 5 and the last character rule out long years, BC and infinity.
    return sql.SQL(
        "case when {0} like '____-__-__%' and ascii(right({0}, 1)) between 48 and 57"
        " and {0}::timestamp::text = replace({0}, 'T', ' ') then true else {1} end"
    ).format(text, _matching(text, f"{_DATE}[ T]{_CLOCK}"))


def _timestamp_sql(text: sql.Composable) -> sql.Composable:
    guard = sql.SQL(
        "case when pg_input_is_valid({0}, 'timestamp') then case when {1} then {0}::timestamp end end"
    )
    return guard.format(text, _is_naive(text))


_WITH_OFFSET = _full(f"(?P<naive>.*?)(?P<offset>{_OFFSET})")


def _parse_timestamptz(text: str, zone: str | None) -> datetime:
    found = _WITH_OFFSET.fullmatch(text[11:])
    if found is None:
        if zone is None:
            raise NotAValueError
        return local_time(_naive(text), zone)
    offset = found["offset"].lstrip("Zz").replace(":", "")
    shift = timedelta(hours=int(offset[1:3] or 0), minutes=int(offset[3:5] or 0))
    if shift >= MAX_OFFSET:
        raise NotAValueError
    sign = -1 if offset.startswith("-") else 1
    return _naive(text[:11] + found["naive"]).replace(tzinfo=timezone(sign * shift) if shift else UTC)


def local_sql(local: sql.Composable, zone: str) -> sql.Composable:
    """A moment from a timestamp of a zone; NULL where its clocks skip it, the later where they repeat it."""
    return sql.SQL(
        "case when {0} at time zone {1} at time zone {1} = {0} then {0} at time zone {1} end"
    ).format(local, sql.Literal(zone))


def local_time(local: datetime, zone: str) -> datetime:
    """The same in Python.

    raises    NotAValueError: the clocks skip it
    """
    # Of two readings PostgreSQL takes the one after the change; where there is none, that one is ahead (PEP 495).
    later, earlier = (local.replace(tzinfo=ZoneInfo(zone), fold=fold) for fold in (1, 0))
    before, after = earlier.utcoffset(), later.utcoffset()
    assert before is not None and after is not None
    if before < after:
        raise NotAValueError
    return later


def _timestamptz(zone: str | None) -> ValueType:
    def to_sql(text: sql.Composable) -> sql.Composable:
        has_offset = sql.SQL(
            "case when {0} like '____-__-__%Z' and {0}::timestamp::text = replace(rtrim({0}, 'Z'), 'T', ' ')"
            " then true else {1} end"
        ).format(text, _matching(text, f"{_DATE}[ T]{_CLOCK}{_OFFSET}"))
        naive: sql.Composable = sql.SQL("")
        if zone is not None:
            local = sql.SQL("{}::timestamp").format(text)
            naive = sql.SQL("when {} then {}").format(_is_naive(text), local_sql(local, zone))
        guard = "case when pg_input_is_valid({0}, 'timestamptz') then case when {1} then {0}::timestamptz {2} end end"
        return sql.SQL(guard).format(text, has_offset, naive)

    accepts = (
        "as `timestamp` with an offset after it: `Z`, `+02`, `+0200`, `+02:00`, less than 16 h;"
        " text without one only where `timezone:` says which: what its clocks skip is refused, of what they repeat"
        " it is the later"
    )
    noun = (
        "a time with an offset (or set `timezone:`)"
        if zone is None
        else f"a time that the clocks of {zone} show"
    )
    return ValueType("timestamptz", accepts, noun, to_sql, lambda text: _parse_timestamptz(text, zone))


_PLAIN = {
    kind.name: kind
    for kind in (
        ValueType("text", "any; an empty text is not null", "text", lambda text: text, lambda text: text),
        ValueType(
            "boolean",
            "`true false t f yes no y n on off 1 0` in lower, upper or title case",
            "true or false",
            _boolean_sql,
            _parse_boolean,
        ),
        *(_whole(name) for name in _RANGES),
        ValueType(
            "numeric",
            "digits with an optional sign, point and exponent of at most three digits; no NaN, Infinity, 0x1F, 1_000",
            "a number",
            _any_numeric_sql,
            _parse_any_numeric,
        ),
        ValueType(
            "double",
            "as `numeric`; not what overflows, or what becomes 0 without being 0",
            "a number (double)",
            _double_sql,
            _parse_double,
        ),
        ValueType(
            "date",
            "`YYYY-MM-DD`, years 0001 to 9999, or as `formats:` says",
            "a date",
            _date_sql,
            _parse_date,
        ),
        ValueType(
            "time",
            "`HH:MM`, `HH:MM:SS`, `HH:MM:SS.ffffff`; 24:00 and second 60 are not",
            "a time of day",
            _time_sql,
            _clock,
        ),
        ValueType(
            "timestamp",
            "a date, a space or `T`, a time; no offset, and no date alone, or as `formats:` says",
            "a time without an offset",
            _timestamp_sql,
            _naive,
        ),
        ValueType("uuid", "8-4-4-4-12 hexadecimal digits", "a uuid", _uuid_sql, _parse_uuid),
        ValueType("json", "one JSON value; no NaN, no Infinity", "JSON", _json_sql, _parse_json),
        ValueType(
            "bytea",
            "`\\x` and an even number of hexadecimal digits",
            "bytes in hexadecimal (\\x…)",
            _bytea_sql,
            _parse_bytea,
        ),
    )
}
