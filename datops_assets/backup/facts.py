"""What a database holds: rows and a content hash per table, and who owns and may do what.

Taken in the snapshot that the dump is made of, and again in the restored database: a restore is right
where both say the same. Asked in plain SQL; nothing is changed.

The content hash of a table is the sum of a 64-bit hash of every row: the order of rows does not count, a row that is
twice there does. It finds damage; it is no proof against somebody who forges. A row is hashed by its values as they
are stored, where their type says so to the last bit, and by their text elsewhere: a third of the time of all as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

# Everything that changes how a value prints, and what would hide rows.
_SESSION: LiteralString = """
set datestyle = 'ISO, YMD'; set timezone = 'UTC'; set intervalstyle = 'postgres'; set extra_float_digits = 1;
set bytea_output = 'hex'; set lc_monetary = 'C'; set xmlbinary = 'base64'; set search_path = pg_catalog;
set row_security = off; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0;
set jit = off; set quote_all_identifiers = off
"""
_TABLES: LiteralString = r"""
select c.oid::bigint, n.nspname, c.relname, pg_table_size(c.oid),
       array(select array[a.attname::text, case when t.typnamespace = 'pg_catalog'::regnamespace then t.typname::text
                                                else '' end]
               from pg_attribute a join pg_type t on t.oid = a.atttypid
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r' and c.relpersistence <> 't'
   and n.nspname !~ '^pg_(toast|temp)' and n.nspname not in ('pg_catalog', 'information_schema')
   and not exists (select from pg_depend e
                    where e.deptype = 'e' and e.objid = c.oid and e.classid = 'pg_class'::regclass)
 order by 4 desc, 1
"""
# How a value is hashed, by its type. A hash of PostgreSQL's own is taken only where it sees every bit: that of int8
# folds its halves, that of a number or a float calls 1.0 and 1.00, 0 and -0 equal, that of a text may obey a
# collation. What is sent to a client is exact, and is the same whatever the session says.
_AS_IT_IS = frozenset({"bool", "int2", "int4", "oid", "date", "uuid", "bytea"})
_AS_SENT: Mapping[str, LiteralString] = {
    "int8": "int8send({})", "numeric": "numeric_send({})", "float4": "float4send({})", "float8": "float8send({})",
    "timestamp": "timestamp_send({})", "timestamptz": "timestamptz_send({})", "time": "time_send({})",
    "interval": "interval_send({})", "text": '{} collate "C"', "varchar": '{} collate "C"',
}  # fmt: skip
_AS_TEXT: LiteralString = 'row({})::text collate "C"'
_SEQUENCES: LiteralString = r"""
select n.nspname, c.relname
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'S' and c.relpersistence <> 't'
   and n.nspname !~ '^pg_(toast|temp)' and n.nspname not in ('pg_catalog', 'information_schema')
   and not exists (select from pg_depend e
                    where e.deptype = 'e' and e.objid = c.oid and e.classid = 'pg_class'::regclass)
 order by 1, 2
"""
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")
_PARTS_OF_NAME = re.compile(r'("(?:[^"]|"")*")|([^".]+)')
_OBJECTS = Path(__file__).parent / "objects.sql"
_LARGE_OBJECTS: LiteralString = """
select count(*), coalesce(sum(hashtextextended(oid::text || md5(lo_get(oid)), 0)::numeric), 0)::text
  from pg_largeobject_metadata
"""
# What of the catalogue belongs to one table, by (class, object): how a dump's list of contents names it.
_PARTS: LiteralString = """
with recursive part(top, class, object) as (
  select c.oid, 'pg_class'::regclass::oid, c.oid from pg_class c where c.oid = any(%s::oid[])
  union
  select p.top, d.classid, d.objid from part p join pg_depend d on d.refclassid = p.class and d.refobjid = p.object
   where d.deptype in ('a', 'i') and d.classid in ('pg_class'::regclass, 'pg_constraint'::regclass,
         'pg_trigger'::regclass, 'pg_attrdef'::regclass, 'pg_policy'::regclass, 'pg_rewrite'::regclass)
)
select top::bigint, array_agg(class::bigint || ' ' || object::bigint) from part group by top
"""


@dataclass(frozen=True)
class Table:
    """One table with rows of its own."""

    oid: int
    schema: str
    name: str
    bytes: int
    columns: Sequence[tuple[str, str]] = ()
    """Name and type of each; the type is empty where it is none of PostgreSQL's own."""

    @property
    def label(self) -> str:
        """The name that facts go by, as SQL spells it."""
        return spell(self.schema, self.name)


def spell(schema: str, name: str) -> str:
    """A name as SQL spells it: parts in quotes where they need them, so that no two tables share one."""
    return ".".join(
        part if _PLAIN.fullmatch(part) else '"' + part.replace('"', '""') + '"' for part in (schema, name)
    )


def unspell(label: str) -> tuple[str, str]:
    """Schema and name of what `spell` wrote; of a name without a dot the schema is empty."""
    parts = [
        quoted[1:-1].replace('""', '"') if quoted else plain
        for quoted, plain in _PARTS_OF_NAME.findall(label)
    ]
    return (parts[0], parts[1]) if len(parts) == 2 else ("", label)


def prepare(conn: psycopg.Connection[Any], lock_timeout_s: int = 300) -> None:
    """Make values print the same everywhere, whoever asks; a lock that others hold ends it in time."""
    conn.execute(_SESSION)
    conn.execute("select set_config('lock_timeout', %s, false)", (f"{lock_timeout_s}s",))


def read_tables(conn: psycopg.Connection[Any]) -> list[Table]:
    """All tables that hold rows and belong to no extension, the largest first."""
    return [Table(*row) for row in conn.execute(_TABLES)]


def read_objects(conn: psycopg.Connection[Any]) -> dict[str, dict[str, Any]]:
    """Owner, grants and whatever else must come back, by `kind name`."""
    found: dict[str, dict[str, Any]] = {}
    for kind, name, owner, grants, rest in conn.execute(_OBJECTS.read_bytes()).fetchall():
        found[f"{kind} {name}"] = {"owner": owner, "grants": grants, "rest": rest}
    return found


def read_sequences(conn: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    """[last value, whether it was handed out] by `schema.sequence`. Sequences obey no snapshot."""
    found: dict[str, list[Any]] = {}
    for schema, name in conn.execute(_SEQUENCES).fetchall():
        query = sql.SQL("select last_value, is_called from {}").format(sql.Identifier(schema, name))
        row = conn.execute(query).fetchone()
        assert row is not None
        found[spell(schema, name)] = [row[0], row[1]]
    return found


def read_parts(conn: psycopg.Connection[Any], tables: Sequence[Table]) -> dict[str, list[str]]:
    """What of the catalogue belongs to each table, as `class object` numbers, by `schema.table`."""
    parts = dict(conn.execute(_PARTS, ([table.oid for table in tables],)).fetchall())
    return {table.label: sorted(parts.get(table.oid, [])) for table in tables}


def read_large_objects(conn: psycopg.Connection[Any]) -> list[Any]:
    """[how many, a hash of them all]."""
    row = conn.execute(_LARGE_OBJECTS).fetchone()
    assert row is not None
    return list(row)


def hash_table(conn: psycopg.Connection[Any], table: Table) -> list[Any]:
    """[rows, content hash] of one table. `only`: partitions and children are tables of their own."""
    values = sql.SQL(", ").join(_hashed(name, of_type) for name, of_type in table.columns)
    query = sql.SQL(
        "select count(*), coalesce(sum(hash_record_extended(row({}), 0)), 0)::text from only {} as row_"
    ).format(values, sql.Identifier(table.schema, table.name))
    row = conn.execute(query).fetchone()
    assert row is not None
    return list(row)


def _hashed(name: str, of_type: str) -> sql.Composed:
    as_written = "{}" if of_type in _AS_IT_IS else _AS_SENT.get(of_type, _AS_TEXT)
    return sql.SQL(as_written).format(sql.Identifier("row_", name))


def hash_tables(
    connect: Callable[[], psycopg.Connection[Any]], tables: Sequence[Table], jobs: int
) -> dict[str, list[Any]]:
    """[rows, content hash] of every table by `schema.table`, read by `jobs` connections at once.

    connect    opens a prepared connection; inside the snapshot, where there is one
    """
    waiting = list(reversed(tables))

    def work() -> dict[str, list[Any]]:
        done: dict[str, list[Any]] = {}
        with connect() as conn:
            while waiting:
                try:
                    table = waiting.pop()
                except IndexError:  # another thread took the last one
                    break
                done[table.label] = hash_table(conn, table)
        return done

    found: dict[str, list[Any]] = {}
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        for part in [pool.submit(work) for _ in range(max(1, min(jobs, len(tables))))]:
            found |= part.result()
    return found


def compare(
    expected: Mapping[str, Any], restored: Mapping[str, Any], *, ignored_roles: Sequence[str] = ()
) -> list[str]:
    """What differs between the facts of a backup and those of a restored database; nothing where it is right.

    ignored_roles    roles that the restoring server has besides
    """
    return [
        *compare_tables(expected["tables"], restored["tables"]),
        *_compare_sequences(expected, restored["sequences"]),
        *_compare_objects(expected["objects"], restored["objects"], ignored_roles),
        *(
            ["large objects differ"]
            if expected.get("large_objects") and expected["large_objects"] != restored.get("large_objects")
            else []
        ),
    ]


def compare_tables(expected: Mapping[str, Any], restored: Mapping[str, Any]) -> list[str]:
    """What differs in rows and content."""
    findings = []
    for label, (rows, content) in expected.items():
        if label not in restored:
            findings.append(f"table {label} is missing")
        elif restored[label][0] != rows:
            findings.append(f"table {label} has {restored[label][0]} rows, the backup had {rows}")
        elif restored[label][1] != content:
            findings.append(f"table {label} has other content than the backup")
    return findings + [f"table {label} was not in the backup" for label in restored if label not in expected]


def _compare_sequences(expected: Mapping[str, Any], restored: Mapping[str, Any]) -> list[str]:
    """A sequence lies between what it was before and after the dump: it obeys no snapshot."""
    findings = []
    for label, before in expected["sequences"].items():
        after = expected["sequences_after"].get(label, before)
        if label not in restored:
            findings.append(f"sequence {label} is missing")
            continue
        least, most = sorted((before[0], after[0]))
        exact = before == after
        if restored[label] != before if exact else not least <= restored[label][0] <= most:
            findings.append(f"sequence {label} is at {restored[label][0]}, the backup had {before[0]}")
    return findings


def _compare_objects(
    expected: Mapping[str, Any], restored: Mapping[str, Any], ignored_roles: Sequence[str]
) -> list[str]:
    ignored = {f"role {name}" for name in ignored_roles}
    findings = []
    for name, about in expected.items():
        if name in ignored:
            continue
        found = restored.get(name)
        if found is None:
            findings.append(f"{name} is missing")
            continue
        for what, word in (
            ("owner", "another owner"),
            ("grants", "other grants"),
            ("rest", "another definition"),
        ):
            if found[what] != about[what]:
                findings.append(f"{name} has {word}")
    return findings + [
        f"{name} was not in the backup" for name in restored if name not in expected and name not in ignored
    ]
