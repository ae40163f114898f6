"""What PostgreSQL's types become in bronze: those that every server has keep their type, others are text.

Belongs here: which type travels by binary COPY as what. Does not: reading rows (postgres).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.ingestion.database.table_source import CursorKind
from datops_assets.ingestion.database.tables import DatabaseTable
from datops_assets.ingestion.source import MORE

_SAME = """
    boolean smallint integer bigint real numeric text bytea date interval uuid json jsonb inet cidr macaddr
    macaddr8 point line lseg box path polygon circle int4range int8range numrange tsrange tstzrange daterange
    int4multirange int8multirange nummultirange tsmultirange tstzmultirange datemultirange pg_lsn
"""
_KEPT: dict[str, str] = {name: name for name in _SAME.split()} | {
    "double precision": "double precision",
    "bit varying": "bit varying",
    "bit": "bit varying",
    "character varying": "text",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "money": "numeric",
}
"""PostgreSQL's own types by the name without length or precision, and the type bronze has for them.

No length and no precision: a later change of them needs no rewrite of bronze. `money` prints by the
server's locale; its amount does not.
"""
_MOMENTS = frozenset({"date", "timestamp", "timestamptz"})
_WHOLE = frozenset({"smallint", "integer", "bigint"})
_BIGINT = re.compile(r"-?[0-9]{1,18}")
_NUMBERS = _WHOLE | frozenset({"numeric"})

# Domains lead to the type they are made of; an array is known by its elements.
_COLUMNS: LiteralString = """
with recursive typed as (
    select a.attnum, a.attname::text, a.attnotnull, t.oid, t.typtype, t.typbasetype, t.typelem, t.typlen, t.typcategory,
           format_type(a.atttypid, a.atttypmod) as declared, 0 as depth
      from pg_attribute a join pg_type t on t.oid = a.atttypid
     where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
    union all
    select d.attnum, d.attname, d.attnotnull, t.oid, t.typtype, t.typbasetype, t.typelem, t.typlen, t.typcategory,
           d.declared, d.depth + 1
      from typed d join pg_type t on t.oid = d.typbasetype where d.typtype = 'd'
)
select distinct on (attnum) attname, declared, attnotnull,
       oid < 16384 as is_own, format_type(oid, null) as base,
       case when typcategory = 'A' and typelem <> 0 and typlen = -1 then format_type(typelem, null) end as element,
       typelem < 16384 as element_is_own
  from typed order by attnum, depth desc
"""


@dataclass(frozen=True)
class SourceColumn:
    """One column of a table of a source database."""

    name: str
    declared: str
    """Its type as the source prints it."""
    own: str
    """The type that its value has there, domains and lengths left out; `?` where bronze takes its text."""
    type: str
    """The type it has in bronze."""
    required: bool

    @property
    def cursor_kind(self) -> CursorKind | None:
        """What its values count; None: they are no place to go on from."""
        if self.type in _NUMBERS:
            return "number"
        if self.type in _MOMENTS:
            return "time"
        return "text" if self.type in ("text", "uuid") else None

    @property
    def endless(self) -> sql.Composable | None:
        """Values above every other that are no place to go on from; None: it has none."""
        if self.type == "numeric":
            return sql.SQL("'NaN', 'Infinity'")
        return sql.SQL("'infinity'") if self.type in _MOMENTS else None

    def literal(self, text: str) -> sql.Composable:
        """A cursor value that was written down, of a type that an index on the column still serves."""
        type_ = self.type
        if type_ in _WHOLE:  # the column may have been wider when it was written down
            type_ = "bigint" if _BIGINT.fullmatch(text) else "numeric"
        return sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(type_))

    def sent_as(self, target: str) -> sql.Composable:
        """Return the expression that gives its value as a type of bronze."""
        value = sql.Identifier(self.name)
        if self.declared == self.own == target:
            return value
        return sql.SQL("{}::{}").format(value, sql.SQL(target))


def read_columns(conn: psycopg.Connection[Any], relation: int, table: DatabaseTable) -> list[SourceColumn]:
    """Return the columns of a relation, in its order."""
    return [
        _column(name, declared, required, base if is_own else None, element, element_is_own, table)
        for name, declared, required, is_own, base, element, element_is_own in conn.execute(
            _COLUMNS, (relation,)
        )
    ]


def _column(
    name: str,
    declared: str,
    required: bool,
    base: str | None,
    element: str | None,
    element_is_own: bool,
    table: DatabaseTable,
) -> SourceColumn:
    if name in table.as_text:
        return SourceColumn(name, declared, "?", "text", required)
    if element is not None:
        kept = _KEPT.get(element, "text") if element_is_own else "text"
        return SourceColumn(name, declared, f"{element}[]", f"{kept}[]", required)
    kept = _KEPT.get(base or "", "text")
    return SourceColumn(name, declared, base if base in _KEPT else "?", kept, required)


def select_list(columns: Sequence[SourceColumn], types: Sequence[str]) -> sql.Composable:
    """Return what to select so that each column comes as the type it is to be sent as.

    Past the columns that a bronze table has the rest comes as one json object.
    """
    own = [column.sent_as(type_) for column, type_ in zip(columns, types, strict=True) if type_ != MORE]
    rest = [column for column, type_ in zip(columns, types, strict=True) if type_ == MORE]
    if rest:
        fields = sql.SQL(", ").join(
            sql.SQL("{} as {}").format(column.sent_as(column.type), sql.Identifier(column.name))
            for column in rest
        )
        own.append(sql.SQL("(select row_to_json(d.*) from (select {}) as d)").format(fields))
    return sql.SQL(", ").join(own)


def print_types() -> str:
    """The table in Markdown, as the docs show it."""
    kept: dict[str, list[str]] = {}
    for name, target in _KEPT.items():
        kept.setdefault(target, []).append(name)
    changed = [
        f"| {', '.join(f'`{name}`' for name in names)} | `{target}` |"
        for target, names in sorted(kept.items())
        if names != [target]
    ]
    same = ", ".join(f"`{name}`" for name, target in _KEPT.items() if name == target)
    return "\n".join(
        [
            "| PostgreSQL | in bronze |",
            "| --- | --- |",
            f"| {same} | the same, without precision |",
            *changed,
            "| `character(n)` | `text`, without the blanks that fill it up |",
            "| arrays of these | arrays |",
            "| a domain | what it is made of |",
            "| enumerations, composite types, `xml`, `tsvector`, types of extensions | `text`, as it is printed |",
            "| arrays of those | `text[]` |",
        ]
    )
