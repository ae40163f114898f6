"""What the delivered values of a table look like: types, nulls, ranges, sets, keys, with the counts behind each.

Two looks: a few thousand rows in Python say what could hold, then one pass of the server over all rows
(or a stated share of them) says whether it does. Nothing is written but a temporary table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composable

from datops_assets.postgres.names import contract_name
from datops_assets.postgres.tables import find_table_id
from datops_assets.quality import formats as date_formats
from datops_assets.quality import record
from datops_assets.quality.column_rule import ColumnRule
from datops_assets.quality.contract import COLUMN_NAME, RESERVED, Contract
from datops_assets.quality.delivered import BronzeColumn, Delivered, read_delivered
from datops_assets.quality.judged import Subject
from datops_assets.quality.named_patterns import named_pattern
from datops_assets.quality.patterns import read_pattern
from datops_assets.quality.row_checks import raw
from datops_assets.quality.row_query import RowQuery
from datops_assets.quality.types import NotAValueError, value_type

Connection = psycopg.Connection[Any]

MOST_ROWS = 100_000
"""Rows looked at, else about: of a million, a tenth says as much in a tenth of the time."""
_LOOKED_AT = 2000
_SET_ROWS, _SET_MEMBERS = 50, 20
_EVIDENCE = 20
"""Different values before a guess that takes some luck (a set of digits that is a day) is made."""
_KEY_TRIES = 12
_WORTH_A_REMARK = 100
_NEARLY = 0.99
_TYPED = {
    "smallint": "smallint", "integer": "integer", "bigint": "bigint", "real": "double", "double precision": "double",
    "boolean": "boolean", "date": "date", "time without time zone": "time", "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz", "uuid": "uuid", "bytea": "bytea",
}  # fmt: skip
# Narrow ones first. A number with a leading zero is a name, not a quantity: it stays text.
_TYPES = ("bigint", "numeric", "boolean", "date", "timestamptz", "timestamp", "time", "uuid")
_NOT_NUMBERS = {"bigint": "^[+-]?0[0-9]|[.]", "numeric": "^[+-]?0[0-9]"}
"""What the type would take and the data hardly means: 007 is a name, and 5.00 is no count."""
_DAYS = (
    "%d.%m.%Y",
    "%Y/%m/%d",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%d.%m.%y",
)
_CLOCKS = (" %H:%M:%S", " %H:%M", "T%H:%M")
_NUMBERED = ("isbn13", "ean13", "credit_card")
_LIKES = ("email", "url", "iban", "lei", "bic", "ipv4", "ipv6", "phone_e164", *_NUMBERED)
_CODES = ("iso_country", "iso_currency", "iso_language", "iso_country_3")
_KEY_TYPES = frozenset({"smallint", "integer", "bigint", "text", "date", "timestamp", "timestamptz", "uuid"})
_KEY_NAME = re.compile(r"(.*_)?(id|no|nr|number|code|key|uuid|ref)")


@dataclass(frozen=True)
class Guess:
    """A type, how it is written, or what a text is like."""

    type: str
    formats: tuple[str, ...] = ()
    like: str | None = None
    regex: str | None = None

    def rule(self) -> ColumnRule:
        """The guess as a contract's column."""
        return _rule(self)

    def holds(self, text: str) -> bool:
        """Whether one value is so."""
        rule = self.rule()
        try:
            if self.formats:
                date_formats.parse(text, rule.kind.family, rule.compiled_formats, None)
            else:
                rule.kind.parse(text)
        except NotAValueError:
            return False
        if self.type in _NOT_NUMBERS and re.search(_NOT_NUMBERS[self.type], text):
            return False
        pattern = rule.compiled_regex
        return (self.like is None or named_pattern(self.like).matches(text)) and (
            pattern is None or pattern.matches(text)
        )

    def typed_sql(self, text: Composable) -> Composable:
        """The typed value; null where the text is none."""
        rule = self.rule()
        if self.formats:
            return date_formats.typed_sql(text, rule.kind, rule.compiled_formats, None)
        typed = rule.kind.to_sql(text)
        if self.type in _NOT_NUMBERS:
            return SQL("case when {} !~ {} then {} end").format(
                text, sql.Literal(_NOT_NUMBERS[self.type]), typed
            )
        if self.like is not None:
            return SQL("case when not ({}) then {} end").format(
                named_pattern(self.like).fails_sql(text), text
            )
        if self.regex is not None:
            return SQL("case when {0} ~ {1} then {0} end").format(
                text, sql.Literal(read_pattern(self.regex).postgres)
            )
        return typed


@dataclass(frozen=True)
class ColumnProfile:
    """One column: the narrowest guess that every value fits, and what was counted.

    missed    guesses that nearly all values fit, with how many do not
    members   all values with their counts, where they are few; None where they are many
    unsure    guesses that fit too, so that the data alone does not decide
    """

    name: str
    guess: Guess
    values: int
    nulls: int
    distinct: float
    least: str | None = None
    most: str | None = None
    members: Mapping[str, int] | None = None
    missed: Mapping[str, int] = field(default_factory=dict)
    unsure: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeignKey:
    """A column whose values are those of another table's key. `missing` are rows without a match."""

    column: str
    references: str
    key: str
    missing: int


@dataclass(frozen=True)
class TableProfile:
    """A table's columns and keys. `rows` were looked at, of `rows_total`; `every` is 1 where that is all."""

    rows: int
    rows_total: int
    every: int
    columns: tuple[ColumnProfile, ...]
    keys: tuple[tuple[str, ...], ...] = ()
    """Columns that name one row within each load, best first."""
    foreign_keys: tuple[ForeignKey, ...] = ()


def profile_table(
    conn: Connection,
    source: str,
    table: str,
    *,
    rename: Mapping[str, str] | None = None,
    rows: int = MOST_ROWS,
) -> TableProfile | None:
    """Look at the rows of a table's live loads; None where there are none.

    rows      at most about this many: of more, a share is taken by a hash of the record's number;
              keys are held against all rows even then
    promise   nothing is written; one temporary table, gone at the end
    """
    delivered = read_delivered(conn, source, table)
    number = find_table_id(conn, source, table)
    chosen = _one_per_name(delivered, rename or {})
    loads = [load.load_id for load in record.live_loads(conn, number)] if number is not None else []
    if not chosen or not loads:
        return None
    columns = {name: ColumnRule(type="text") for name in chosen}
    subject = Subject(source, table, Contract(columns=columns), rename or {})
    query = RowQuery(subject, delivered)
    with conn.transaction(force_rollback=True):
        conn.execute("set local timezone = 'UTC'; set local jit = off; set local work_mem = '64MB'")
        counted = conn.execute(query.count(loads)).fetchone()
        assert counted is not None
        if counted[0] == 0:
            return None
        every = -(-counted[0] // rows)
        return _Look(conn, query, chosen, loads, counted[0], every).profile()


def _one_per_name(delivered: Delivered, rename: Mapping[str, str]) -> dict[str, BronzeColumn]:
    named: dict[str, BronzeColumn] = {}
    for column in delivered.columns:
        name = contract_name(column.delivered, rename)
        if COLUMN_NAME.fullmatch(name) and name not in RESERVED and not column.in_more:
            named.setdefault(name, column)
    return named


class _Look:
    """One look at one table, inside a transaction that is rolled back."""

    def __init__(
        self,
        conn: Connection,
        query: RowQuery,
        chosen: Mapping[str, BronzeColumn],
        loads: Sequence[int],
        total: int,
        every: int,
    ) -> None:
        self.conn, self.query, self.chosen, self.loads, self.total, self.every = (
            conn,
            query,
            chosen,
            loads,
            total,
            every,
        )
        places = {name: sql.Identifier(f"c{n}") for n, name in enumerate(chosen)}
        self.places = places
        outputs: list[Composable] = [SQL("_load_id")]
        outputs += [SQL("{} as {}").format(raw(n), place) for n, place in enumerate(places.values())]
        # Not every n-th record: what repeats with the same step would never, or always, be looked at.
        share = SQL("hashint8extended(b._row, b._load_id) % {} = 0").format(sql.Literal(every))
        scope = share if every > 1 else None
        conn.execute(
            SQL("create temp table _profile on commit drop as {}").format(
                query.select(SQL(", ").join(outputs), loads, scope=scope)
            )
        )
        conn.execute("analyze _profile")
        row = conn.execute("select count(*) from _profile").fetchone()
        assert row is not None
        self.rows = int(row[0])

    def profile(self) -> TableProfile:
        """All of it."""
        distinct, nulls = self._statistics()
        columns = self._columns(distinct, nulls)
        keys = self._keys(columns)
        return TableProfile(
            self.rows, self.total, self.every, tuple(columns.values()), keys, self._foreign_keys(columns)
        )

    def _statistics(self) -> tuple[dict[str, float], dict[str, float]]:
        """About how many different values each column has, by PostgreSQL's own estimate."""
        found = self.conn.execute(
            "select attname, n_distinct, null_frac from pg_stats where tablename = '_profile'"
            " and schemaname = (select nspname from pg_namespace where oid = pg_my_temp_schema())"
        ).fetchall()
        named = {place: (distinct, nulls) for place, distinct, nulls in found}
        distinct, nulls = {}, {}
        for n, name in enumerate(self.chosen):
            many, missing = named.get(f"c{n}", (0, 1))
            distinct[name] = -many * self.rows if many < 0 else float(many)
            nulls[name] = float(missing)
        return distinct, nulls

    def _columns(self, distinct: Mapping[str, float], nulls: Mapping[str, float]) -> dict[str, ColumnProfile]:
        looked_at = self._looked_at()
        waiting: dict[str, list[Guess]] = {}
        for name, column in self.chosen.items():
            waiting[name] = _guesses(column, looked_at[name], distinct[name])
        missed: dict[str, dict[str, int]] = {name: {} for name in waiting}
        done: dict[str, ColumnProfile] = {}
        while waiting:
            counted = self._count({name: guesses[0] for name, guesses in waiting.items()})
            for name, (values, fitting, least, most) in counted.items():
                guess = waiting[name].pop(0)
                if fitting < values:
                    if fitting > _NEARLY * values:
                        missed[name][_called(guess)] = values - fitting
                    continue
                # A day first or a month first: the data fits both, and only a person knows.
                unsure = tuple(_called(other) for other in waiting[name] if other.formats and guess.formats)
                if unsure:
                    unsure, guess = (_called(guess), *unsure), Guess("text")
                done[name] = ColumnProfile(
                    name, guess, values, self.rows - values, distinct[name], least, most,
                    missed=missed[name], unsure=unsure,
                )  # fmt: skip
                del waiting[name]
        return {name: self._with_members(done[name]) for name in self.chosen}

    def _looked_at(self) -> dict[str, list[str]]:
        share = min(100.0, 110.0 * _LOOKED_AT / max(self.rows, 1))
        found = self.conn.execute(
            SQL("select {} from _profile tablesample bernoulli ({}) repeatable (1) limit {}").format(
                SQL(", ").join(self.places.values()), sql.Literal(share), sql.Literal(_LOOKED_AT)
            )
        ).fetchall()
        return {name: [row[n] for row in found if row[n] is not None] for n, name in enumerate(self.chosen)}

    def _count(self, guesses: Mapping[str, Guess]) -> dict[str, tuple[int, int, str | None, str | None]]:
        """Values, those that fit, the least and the greatest of them, in one pass."""
        outputs: list[Composable] = []
        typed: list[Composable] = []
        for name, guess in guesses.items():
            place = self.places[name]
            kind = value_type(guess.type)
            ordered = kind.is_number or kind.family in ("date", "timestamp", "timestamptz", "time")
            value = sql.Identifier(f"t_{place.as_string(self.conn).strip(chr(34))}")
            typed.append(SQL("{} as {}").format(guess.typed_sql(place), value))
            ends = SQL("min({0})::text, max({0})::text" if ordered else "null, null").format(value)
            outputs.append(SQL("count({}), count({}), {}").format(place, value, ends))
        row = self.conn.execute(
            SQL("select {} from (select *, {} from _profile offset 0) as p").format(
                SQL(", ").join(outputs), SQL(", ").join(typed)
            )
        ).fetchone()
        assert row is not None
        return {name: tuple(row[4 * n : 4 * n + 4]) for n, name in enumerate(guesses)}

    def _with_members(self, column: ColumnProfile) -> ColumnProfile:
        few = column.distinct <= _SET_MEMBERS and column.values >= _SET_ROWS
        if not few or column.guess.type != "text" or column.guess.like in _LIKES:
            return column
        place = self.places[column.name]
        found = self.conn.execute(
            SQL(
                "select {0}, count(*) from _profile where {0} is not null group by 1 order by 2 desc, 1 limit {1}"
            ).format(place, sql.Literal(_SET_MEMBERS + 1))
        ).fetchall()
        if len(found) > _SET_MEMBERS or any(len(member) > 60 for member, _ in found):
            return column
        return replace(column, members=dict(found), distinct=len(found))

    def _keys(self, columns: Mapping[str, ColumnProfile]) -> tuple[tuple[str, ...], ...]:
        fit = [
            c for c in columns.values() if c.nulls == 0 and c.guess.type in _KEY_TYPES and c.members is None
        ]
        near = [c.name for c in fit if c.distinct >= 0.9 * self.rows]
        single = [(name,) for name in sorted(near, key=_key_rank)[:_KEY_TRIES] if self._is_key((name,))]
        named = [key for key in single if _KEY_NAME.fullmatch(key[0])]
        if named or (single and self.rows >= _EVIDENCE):
            return (*named, *(key for key in single if key not in named))
        if self.rows < _EVIDENCE:
            return ()
        parts = [
            c.name for c in columns.values() if c.nulls == 0 and c.guess.type in _KEY_TYPES and c.distinct > 1
        ]
        likely = sorted(parts, key=_key_rank)[:_KEY_TRIES]
        parts = [name for name in parts if name in likely]
        for size in (2, 3):
            tried = 0
            for names in combinations(parts, size):
                product = 1.0
                for name in names:
                    product *= columns[name].distinct
                if product >= self.rows and tried < _KEY_TRIES:
                    tried += 1
                    if self._is_key(names, 20_000) and self._is_key(names):
                        return (names,)
        return ()

    def _is_key(self, names: Sequence[str], first: int | None = None) -> bool:
        """Whether no two rows of one load share these values: of the first rows, or of all there are."""
        places = SQL(", ").join([SQL("_load_id"), *(self.places[name] for name in names)])
        rows: Composable = SQL("_profile")
        if first is not None:
            rows = SQL("(select {} from _profile limit {}) as s").format(places, sql.Literal(first))
        elif self.every > 1 and not self._is_key(names, self.rows):
            return False
        elif self.every > 1:
            wanted = [
                SQL("{} as {}").format(raw(n), place)
                for n, (name, place) in enumerate(self.places.items())
                if name in names
            ]
            outputs = SQL(", ").join([SQL("_load_id"), *wanted])
            rows = SQL("({}) as s").format(self.query.select(outputs, self.loads))
        row = self.conn.execute(
            SQL("select exists (select from {} group by {} having count(*) > 1)").format(rows, places)
        ).fetchone()
        return row == (False,)

    def _foreign_keys(self, columns: Mapping[str, ColumnProfile]) -> tuple[ForeignKey, ...]:
        """Columns called like another table's only key column, held against its silver."""
        subject = self.query.subject
        found = []
        for table, key in self._other_keys():
            for column in columns.values():
                called_alike = column.name == key or (key != "id" and column.name.endswith(f"_{key}"))
                called_alike = called_alike or (
                    key == "id" and column.name in (f"{table}_id", f"{table.rstrip('s')}_id")
                )
                if called_alike and column.values:
                    missing = self._missing(column.name, subject.source, table, key)
                    if missing is not None and missing <= (1 - _NEARLY) * column.values:
                        found.append(ForeignKey(column.name, table, key, missing))
        return tuple(found)

    def _other_keys(self) -> list[tuple[str, str]]:
        return self.conn.execute(
            "select distinct on (t.name) t.name, c.document -> 'contract' -> 'key' ->> 0 from datops.tables t"
            " join datops.contracts c using (table_id) where t.source = %s and t.name <> %s"
            " and jsonb_array_length(coalesce(c.document -> 'contract' -> 'key', '[]')) = 1"
            " and to_regclass(format('silver.%%I', t.source || '_' || t.name)) is not null"
            " order by t.name, c.contract_id desc",
            (self.query.subject.source, self.query.subject.table),
        ).fetchall()

    def _missing(self, column: str, source: str, table: str, key: str) -> int | None:
        from datops_assets.postgres.identifiers import silver_table

        row = self.conn.execute(
            SQL(
                "select count(*) from _profile as p where p.{0} is not null and not exists"
                " (select from {1} as o where o.{2}::text = p.{0})"
            ).format(self.places[column], silver_table(source, table), sql.Identifier(key))
        ).fetchone()
        return None if row is None else int(row[0])


def _key_rank(name: str) -> tuple[bool, int]:
    return (not _KEY_NAME.fullmatch(name), len(name))


@lru_cache(maxsize=256)  # asked for with each value that a guess is held against
def _rule(guess: Guess) -> ColumnRule:
    return ColumnRule(
        type=guess.type, formats=list(guess.formats) or None, like=guess.like, regex=guess.regex
    )


def _called(guess: Guess) -> str:
    return guess.like or (f"{guess.type} {guess.formats[0]}" if guess.formats else guess.type)


def _guesses(column: BronzeColumn, values: Sequence[str], distinct: float) -> list[Guess]:
    """What could hold for every value, best first; the last is text, which always does."""
    if column.type in _TYPED or column.type.startswith("numeric"):
        return [Guess(_TYPED.get(column.type, column.type)), Guess("text")]
    if column.type in ("json", "jsonb") and any(value[:1] in ("{", "[") for value in values):
        return [Guess("json"), Guess("text")]
    if not values:
        return [Guess("text")]
    sure = distinct >= _EVIDENCE
    wanted: list[Guess] = []
    if sure:
        wanted += [Guess("text", like=name) for name in _NUMBERED] + [Guess("date", ("%Y%m%d",))]
    zero_one = set(values) <= {"0", "1"}
    wanted += [Guess(name) for name in _TYPES if not (name == "boolean" and zero_one)]
    wanted += [Guess("date", (day,)) for day in _DAYS]
    wanted += [Guess("timestamp", (day + clock,)) for day in _DAYS for clock in _CLOCKS]
    if len(values) >= _EVIDENCE or sure:
        wanted += [Guess("text", like=name) for name in (*_LIKES, *_CODES)]
    if sure and (shape := _shape(values)) is not None:
        wanted.append(Guess("text", regex=shape))
    fitting = [guess for guess in dict.fromkeys(wanted) if _worth_counting(guess, values)]
    return [*fitting, Guess("text")]


def _worth_counting(guess: Guess, values: Sequence[str]) -> bool:
    """Whether all values are so; of a type, which a few damaged values may hide, nearly all."""
    first = next((n for n, value in enumerate(values) if not guess.holds(value)), None)
    if first is None:
        return True
    if guess.type == "text" or len(values) < _WORTH_A_REMARK:
        return False
    return sum(map(guess.holds, values)) >= _NEARLY * len(values)


def _shape(values: Sequence[str]) -> str | None:
    """The pattern that all values share, letter by letter class: `ORD-0001` is `[A-Z]{3}-[0-9]{4}`."""
    shapes = {
        re.sub(r"[0-9]", "9", re.sub(r"[A-Z]", "A", re.sub(r"[a-z]", "a", value))) for value in values[:500]
    }
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    if not 4 <= len(shape) <= 40 or "9" not in shape or not shape.isascii() or not shape.isprintable():
        return None
    classes = {"9": "[0-9]", "A": "[A-Z]", "a": "[a-z]"}
    parts = []
    for run in re.finditer(r"(.)\1*", shape):
        letter, count = run[1], len(run[0])
        one = classes.get(letter) or ("\\" + letter if letter in ".^$*+?{}[]()|\\" else letter)
        parts.append(f"{one}{{{count}}}" if count > 1 else one)
    return "".join(parts)
