"""What a source database says about itself and its tables: asked in plain SQL, nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, LiteralString

import psycopg

from datops_assets.postgres.lsn import parse_lsn

FIRST_OWN_OID = 16384
"""Types below it are PostgreSQL's own: their numbers and binary forms are the same everywhere."""


@dataclass(frozen=True)
class SourceColumn:
    """One column of a source table, and the type that the warehouse keeps it in."""

    name: str
    type: str
    is_key: bool
    travels_as_binary: bool
    """Whether the binary form it is sent in is one that the warehouse's type reads."""


@dataclass(frozen=True)
class Partition:
    """One table below a partitioned one, at any depth."""

    file: str
    """Where its rows are kept, and by which transaction it became a partition."""
    came_empty: bool
    """Whether it was made as a partition, and not attached with the rows that it had."""


@dataclass(frozen=True)
class SourceTable:
    """One table of the source, as it is now."""

    oid: int
    schema: str
    name: str
    columns: tuple[SourceColumn, ...]
    identity: str
    """REPLICA IDENTITY: d default, n nothing, f full, i index."""
    published: bool
    is_partitioned: bool = False
    row_filter: str | None = None
    """The condition under which the publication has a row."""
    via_root: bool = True
    """Whether rows of partitions are sent as the table's own."""
    numbers: Mapping[str, int] = field(default_factory=dict, compare=False)
    """The number that the source gave each column for good: another name with the same number was renamed."""
    modifiers: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Lengths, digits and so on of the columns' types, as the source keeps them."""
    filled: frozenset[str] = field(default=frozenset(), compare=False)
    """Columns that may have got a value in rows that were there before them."""
    file: int = field(default=0, compare=False)
    """Where the rows are kept; another one when all were written anew. 0 for partitioned tables."""
    partitions: Mapping[int, Partition] = field(default_factory=dict, compare=False)
    """All that are below a partitioned table, by oid."""

    @property
    def key(self) -> list[str]:
        """The columns that tell a row from all others; none where the table has no such key."""
        return [column.name for column in self.columns if column.is_key]

    @property
    def label(self) -> str:
        """The name people use."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class SourceServer:
    """The server behind the source database."""

    version: int
    system_identifier: int
    timeline: int
    wal_level: str
    in_recovery: bool
    may_replicate: bool
    settings: dict[str, str]


# The control file learns of a new timeline by a checkpoint, which may be minutes after a standby took over.
_SERVER: LiteralString = """
select current_setting('server_version_num')::int, s.system_identifier,
       case when pg_is_in_recovery() then c.timeline_id
            else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end,
       current_setting('wal_level'), pg_is_in_recovery(),
       coalesce((select rolreplication or rolsuper from pg_roles where rolname = current_user), false)
  from pg_control_system() s, pg_control_checkpoint() c
"""
_SETTINGS: LiteralString = """
select name, setting from pg_settings
 where name in ('max_replication_slots', 'max_wal_senders', 'max_slot_wal_keep_size', 'wal_sender_timeout',
                'idle_replication_slot_timeout', 'hot_standby_feedback', 'primary_slot_name')
"""
_REACHED: LiteralString = """
select pg_is_in_recovery(),
       (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end)::text
"""
# The key is what the log names a row by: the replica identity's index, or the primary key under FULL.
_TABLES: LiteralString = """
with published as (
  -- As a document: PostgreSQL 14 has neither column lists nor row filters.
  select p.schemaname, p.tablename, to_jsonb(p) as how from pg_publication_tables p where p.pubname = %(publication)s
), wanted as (
  select c.oid, n.nspname, c.relname, c.relreplident, c.relkind,
         p.how is not null as published, p.how ->> 'rowfilter' as row_filter, p.how -> 'attnames' as names,
         (select i.indkey::int2[] from pg_index i
           where i.indrelid = c.oid and i.indisvalid
             and case c.relreplident when 'i' then i.indisreplident else i.indisprimary end limit 1) as key
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join published p on p.schemaname = n.nspname and p.tablename = c.relname
   where c.relkind in ('r', 'p') and c.relpersistence = 'p' and format('%%I.%%I', n.nspname, c.relname)
       = any (select format('%%I.%%I', s, t) from unnest(%(schemas)s::text[], %(names)s::text[]) as w(s, t))
)
select w.oid, w.nspname, w.relname, w.relreplident::text, w.published, w.relkind = 'p', w.row_filter,
       a.attname, a.atttypid, coalesce(a.attnum = any (w.key), false) and w.relreplident <> 'n',
       a.attnum, a.atttypmod, a.atthasmissing or a.atthasdef or a.attidentity <> '' or a.attnotnull,
       coalesce(pg_relation_filenode(w.oid), 0)::bigint,
       coalesce((select pubviaroot from pg_publication where pubname = %(publication)s), true)
  from wanted w join pg_attribute a on a.attrelid = w.oid
 where a.attnum > 0 and not a.attisdropped
   and case when w.names is null then a.attgenerated = '' else w.names ? a.attname::text end
 order by w.oid, a.attnum
"""
# A domain is its base type; binary forms of texts, citext and enum labels are the text itself.
_TYPES: LiteralString = """
with recursive base(oid, of) as (
  select t.oid, t.oid from pg_type t where t.oid = any(%(oids)s)
  union all
  select b.oid, t.typbasetype from base b join pg_type t on t.oid = b.of where t.typtype = 'd'
)
select b.oid, t.oid, format_type(t.oid, -1),
       t.typsend = 0 or t.typsend::regproc::text ~ '(^|\\.)(text|enum_|varchar|bpchar|name|unknown|citext)send$'
         or t.typsend::regproc::text ~ '(^|\\.)citextsend$',
       scale(1::money::numeric) = 2
  from base b join pg_type t on t.oid = b.of where t.typtype <> 'd'
"""
_NUMBERS_OF_OBJECTS = ("reg",)
_UNFIT: LiteralString = """
select n.nspname, c.relname,
       case when c.relkind = 'v' then 'is a view; follow the tables that it reads'
            when c.relkind = 'm' then 'is a materialized view; follow the tables that it reads'
            when c.relkind = 'f' then 'is a foreign table; follow it where its rows are'
            when c.relkind = 'S' then 'is a sequence; its values arrive with the rows that got them'
            when c.relpersistence = 'u' then 'is unlogged, so the log has no change of it; alter table … set logged'
            when c.relpersistence = 't' then 'is a temporary table, which no other session sees'
            else 'is no table' end
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  join unnest(%(schemas)s::text[], %(names)s::text[]) as w(s, t) on (w.s, w.t) = (n.nspname, c.relname)
 where c.relkind not in ('r', 'p') or c.relpersistence <> 'p'
"""
# Attaching writes a table's columns anew in the same command; making it as a partition does not.
_PARTITIONS: LiteralString = """
select p.relid::oid::bigint, format('%%s.%%s', coalesce(pg_relation_filenode(p.relid), 0), i.xmin),
       coalesce(i.xmin = a.xmin and not i.cmin = a.cmin, false)
  from pg_partition_tree(%(oid)s) p
  join pg_inherits i on i.inhrelid = p.relid
  left join pg_attribute a on a.attrelid = p.relid and a.attnum = 1
 where p.relid <> %(oid)s
"""
_CHILDREN: LiteralString = """
select c.oid::regclass::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
 where i.inhparent = %s and not c.relispartition order by 1
"""


def read_server(conn: psycopg.Connection[Any]) -> SourceServer:
    """Ask a server who it is and how it is set up."""
    row = conn.execute(_SERVER).fetchone()
    assert row is not None
    version, system, timeline, wal_level, in_recovery, may_replicate = row
    settings = dict(conn.execute(_SETTINGS).fetchall())
    return SourceServer(version, system, timeline, wal_level, in_recovery, may_replicate, settings)


def reached(conn: psycopg.Connection[Any]) -> tuple[bool, int]:
    """Whether a server is a standby, and the place in the log that all it shows is before, in bytes."""
    row = conn.execute(_REACHED).fetchone()
    assert row is not None
    in_recovery, place = row
    return in_recovery, parse_lsn(place)


def read_tables(
    conn: psycopg.Connection[Any], publication: str, names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], SourceTable]:
    """Describe the tables of these (schema, name); what does not exist is left out."""
    rows = conn.execute(_TABLES, {"publication": publication, **_apart(names)}).fetchall()
    types = warehouse_types(conn, sorted({row[8] for row in rows}))
    found: dict[tuple[str, str], SourceTable] = {}
    columns: dict[int, list[SourceColumn]] = {}
    numbers: dict[int, dict[str, int]] = {}
    modifiers: dict[int, dict[str, int]] = {}
    filled: dict[int, set[str]] = {}
    for (
        oid,
        schema,
        name,
        identity,
        published,
        partitioned,
        row_filter,
        column,
        type_oid,
        is_key,
        *more,
    ) in rows:
        kept, travels = types[type_oid]
        columns.setdefault(oid, []).append(SourceColumn(column, kept, is_key, travels))
        number, modifier, is_filled, file, via_root = more
        modifiers.setdefault(oid, {})[column] = modifier
        numbers.setdefault(oid, {})[column] = number
        filled.setdefault(oid, set()).update([column] if is_filled else [])
        found[schema, name] = SourceTable(
            oid, schema, name, (), identity, published, partitioned, row_filter, via_root, file=file
        )
    return {
        where: replace(
            table,
            columns=tuple(columns[table.oid]),
            numbers=numbers[table.oid],
            modifiers=modifiers[table.oid],
            filled=frozenset(filled[table.oid]),
            partitions=partitions_of(conn, table.oid) if table.is_partitioned else {},
        )
        for where, table in found.items()
    }


def partitions_of(conn: psycopg.Connection[Any], oid: int) -> dict[int, Partition]:
    """All tables below a partitioned one."""
    rows = conn.execute(_PARTITIONS, {"oid": oid}).fetchall()
    return {part: Partition(file, came_empty) for part, file, came_empty in rows}


def unfit(conn: psycopg.Connection[Any], names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Of these (schema, name) what is there and has no changes in the log, with what it is."""
    return {
        (schema, name): why
        for schema, name, why in conn.execute(_UNFIT, _apart(names))
        if isinstance(why, str)
    }


def children_of(conn: psycopg.Connection[Any], oid: int) -> list[str]:
    """Tables that inherit from a table and are no partitions of it: their rows are their own."""
    return [name for (name,) in conn.execute(_CHILDREN, (oid,))]


def _apart(names: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"schemas": [schema for schema, _ in names], "names": [name for _, name in names]}


def warehouse_types(conn: psycopg.Connection[Any], oids: Sequence[int]) -> dict[int, tuple[str, bool]]:
    """For each type the one the warehouse keeps it in, and whether its binary form travels.

    promise    a type of PostgreSQL's own keeps its name; any other becomes text, never something narrower
    """
    found: dict[int, tuple[str, bool]] = {}
    for oid, base, name, is_text, has_cents in conn.execute(_TYPES, {"oids": list(oids)}):
        is_number_of_object = name.startswith(_NUMBERS_OF_OBJECTS)  # regclass: another object over there
        if name.startswith("xml"):  # not every server reads xml, and its binary form is its text
            found[oid] = ("text", name == "xml")
        elif name.startswith("money") and not has_cents:
            found[oid] = ("text", False)  # its bytes count yen, and would be read as hundredths of them
        elif base < FIRST_OWN_OID and not is_number_of_object and not name.startswith(("aclitem", "record")):
            found[oid] = (name, True)
        else:
            found[oid] = ("text", bool(is_text) and not is_number_of_object)
    return found
