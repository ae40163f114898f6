"""What has to be true of a source before it is followed: each point a sentence, and the statement that mends it.

Deciding is pure; only `preflight` and `plan_deletes` ask a server, and it changes nothing there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal, LiteralString

import psycopg
from psycopg import sql

from datops_assets.cdc.marks import marks_of, own_columns
from datops_assets.cdc.slots import find_slot
from datops_assets.cdc.snapshot import connect_source, publication_statement
from datops_assets.cdc.source import SourceServer, SourceTable, children_of, read_server, read_tables, unfit
from datops_assets.cdc.streams import ChangeStream, StreamedTable, names_of
from datops_assets.postgres.identifiers import bronze_table, warehouse_name

OLDEST_VERSION = 140000
"""Reads of a table by ranges of its pages, and binary values in the stream, came with PostgreSQL 14."""
_OLDEST_STANDBY = 160000
"""Slots on a standby came with PostgreSQL 16."""
_UNLIMITED = "-1"
_OF_THE_PRIMARY = ("alter role", "alter table", "alter publication", "create publication", "grant")
"""Statements that a standby takes from its primary's log only."""

Verdict = Literal["ok", "warn", "stop"]

_USAGE: LiteralString = """
select (select count(*) from pg_replication_slots), (select count(*) from pg_stat_replication),
       exists (select from pg_replication_slots where slot_name = %(slot)s),
       exists (select from pg_publication where pubname = %(publication)s),
       has_database_privilege(current_database(), 'create') and not pg_is_in_recovery(), current_user
"""
_OPERATIONS: LiteralString = """
select string_agg(name, ', ') from (
  select unnest(array['insert', 'update', 'delete', 'truncate']) as name,
         unnest(array[pubinsert, pubupdate, pubdelete, pubtruncate]) as has
    from pg_publication where pubname = %s) p where not has having count(*) > 0
"""
_RIGHTS: LiteralString = """
select has_schema_privilege(c.relnamespace, 'usage') and has_table_privilege(c.oid, 'select'),
       pg_has_role(c.relowner, 'usage'), row_security_active(c.oid)
  from pg_class c where oid = %s
"""
_SHORT_LOG_MB = 1024
_SHORT_TIMEOUT_MS = 20_000
"""Twice what we let pass between two signs of life."""


@dataclass(frozen=True)
class Finding:
    """One point, and what to do about it."""

    verdict: Verdict
    what: str
    found: str
    mend: str = ""
    """A statement for the source's administrator, or a change of the document; empty where all is well."""


@dataclass(frozen=True)
class Usage:
    """What is taken on the server, and what the role may do there."""

    slots: int
    senders: int
    has_slot: bool
    has_publication: bool
    may_create: bool
    role: str
    has_copy_of_slot: bool = False
    """Whether a standby keeps the stream's slot in step with its primary's, where nobody may read it."""


@dataclass(frozen=True)
class Rights:
    """What the role may do with one table."""

    may_read: bool
    owns: bool
    sees_some: bool = False
    """Whether policies of row level security hide rows from it."""


def preflight(parameters: dict[str, Any], stream: ChangeStream) -> list[Finding]:
    """Look at a source and say what stands in the way of following it.

    raises     SourceUnreachableError, SourceRefusedError: nobody answers, or the role is not let in
    """
    with closing(connect_source(parameters)) as conn:
        server = read_server(conn)
        row = conn.execute(_USAGE, {"slot": stream.slot, "publication": stream.publication}).fetchone()
        assert row is not None
        slot = find_slot(conn, stream.slot)
        usage = replace(Usage(*row), has_copy_of_slot=slot is not None and slot.is_copy)
        tables = read_tables(conn, stream.publication, names_of(stream.tables))
        rights = {table.oid: _rights(conn, table.oid) for table in tables.values()}
        strange = unfit(conn, names_of(stream.tables))
        children = {table.label: children_of(conn, table.oid) for table in tables.values()}
        missing = {where for where, table in tables.items() if not table.published}
        statement = publication_statement(stream, missing if usage.has_publication else None).as_string(conn)
        if usage.has_publication and (kept := conn.execute(_OPERATIONS, (stream.publication,)).fetchone()):
            operations = str(kept[0])
        else:
            operations = ""
    findings = [
        *judge_server(server, usage),
        *judge_tables(stream.tables, tables, rights, usage, statement, strange),
        *judge_children(children, {one.label for one in stream.tables}),
        *judge_publication(stream.publication, operations, tables.values()),
    ]
    return [_on_primary(finding) for finding in findings] if server.in_recovery else findings


def _on_primary(finding: Finding) -> Finding:
    if not finding.mend.startswith(_OF_THE_PRIMARY):
        return finding
    return replace(finding, mend=f"on the primary: {finding.mend}")


def _rights(conn: psycopg.Connection[Any], oid: int) -> Rights:
    row = conn.execute(_RIGHTS, (oid,)).fetchone()
    assert row is not None
    return Rights(*row)


def judge_server(server: SourceServer, usage: Usage) -> Iterator[Finding]:
    """Hold a server against what a stream needs. Pure."""
    major = server.version // 10000
    if server.version < OLDEST_VERSION:
        yield Finding(
            "stop", "version", f"PostgreSQL {major}", "upgrade the source to PostgreSQL 14 or later"
        )
    else:
        yield Finding("ok", "version", f"PostgreSQL {major}")
    if server.wal_level != "logical":
        mend = "alter system set wal_level = logical; then restart the source"
        yield Finding("stop", "wal_level", server.wal_level, mend)
    else:
        yield Finding("ok", "wal_level", "logical")
    if not server.may_replicate:
        yield Finding(
            "stop", "replication", f"{usage.role} may not replicate", f"alter role {usage.role} replication"
        )
    else:
        yield Finding("ok", "replication", f"{usage.role} may replicate")
    if server.in_recovery:
        yield from _judge_standby(server, usage)
    yield from _judge_room(server.settings, usage)
    yield from _judge_times(server.settings, usage)


def _judge_standby(server: SourceServer, usage: Usage) -> Iterator[Finding]:
    primary = "name the primary in `source: {url: …}`"
    if server.version < _OLDEST_STANDBY:
        found = "a standby shows its log by slots of its own from PostgreSQL 16 on"
        yield Finding("stop", "standby", found, primary)
        return
    if usage.has_copy_of_slot:
        found = "the slot is the primary's, kept in step for a failover: nobody may read it here"
        yield Finding("stop", "standby", found, f"{primary}, or give the stream another `slot:`")
        return
    found = "the server is a standby; its primary must say which transactions run before a slot can begin"
    mend = "on the primary, where it is idle, while the snapshot waits: select pg_log_standby_snapshot()"
    yield Finding("ok", "standby", found, "" if usage.has_slot else mend)
    lost = "and the slot is lost when the primary removes rows of the catalogue that it needs"
    if server.settings["hot_standby_feedback"] != "on":
        mend = "alter system set hot_standby_feedback = on; select pg_reload_conf()"
        yield Finding("warn", "hot_standby_feedback", f"off: copies may be cancelled, {lost}", mend)
    elif not server.settings["primary_slot_name"]:
        mend = (
            "on the primary: select pg_create_physical_replication_slot('…'); here: alter system set primary_slot_name"
            " = '…'; select pg_reload_conf()"
        )
        found = f"none: the feedback ends with the connection, {lost}"
        yield Finding("warn", "primary_slot_name", found, mend)


def _judge_room(settings: Mapping[str, str], usage: Usage) -> Iterator[Finding]:
    slots, senders = int(settings["max_replication_slots"]), int(settings["max_wal_senders"])
    taken = f"{usage.slots} of {slots} slots are taken"
    if usage.slots >= slots and not usage.has_slot:
        mend = f"alter system set max_replication_slots = {slots + 4}; then restart the source"
        yield Finding("stop", "replication slots", taken, mend)
    else:
        yield Finding("ok", "replication slots", taken)
    taken = f"{usage.senders} of {senders} senders are taken"
    if usage.senders + 1 >= senders:
        mend = f"alter system set max_wal_senders = {senders + 4}; then restart the source"
        yield Finding("stop" if usage.senders >= senders else "warn", "wal senders", taken, mend)
    else:
        yield Finding("ok", "wal senders", taken)
    if settings["max_slot_wal_keep_size"] == _UNLIMITED:
        mend = "alter system set max_slot_wal_keep_size = '50GB'; select pg_reload_conf()"
        found = "no limit: a stream that stands still fills the source's disk"
        yield Finding("warn", "max_slot_wal_keep_size", found, mend)
    elif int(settings["max_slot_wal_keep_size"]) < _SHORT_LOG_MB:
        mend = "alter system set max_slot_wal_keep_size = '50GB'; select pg_reload_conf()"
        found = f"{settings['max_slot_wal_keep_size']} MB: a stream that stands still that long is lost"
        yield Finding("warn", "max_slot_wal_keep_size", found, mend)
    else:
        yield Finding("ok", "max_slot_wal_keep_size", f"{settings['max_slot_wal_keep_size']} MB")


def _judge_times(settings: Mapping[str, str], usage: Usage) -> Iterator[Finding]:
    timeout_ms = int(settings["wal_sender_timeout"])
    mend = f"alter role {usage.role} set wal_sender_timeout = '60s'"
    if timeout_ms == 0:
        found = "no limit: a reader that vanished holds the slot until the network says so"
        yield Finding("warn", "wal_sender_timeout", found, mend)
    elif timeout_ms < _SHORT_TIMEOUT_MS:
        found = f"{timeout_ms} ms: a stream that is busy is cut off"
        yield Finding("warn", "wal_sender_timeout", found, mend)
    else:
        yield Finding("ok", "wal_sender_timeout", f"{timeout_ms // 1000} s")
    idle_s = int(settings.get("idle_replication_slot_timeout", "0"))
    if idle_s:
        mend = "alter system set idle_replication_slot_timeout = 0; select pg_reload_conf()"
        found = f"{idle_s} s: a slot that nobody reads for that long is lost"
        yield Finding("warn", "idle_replication_slot_timeout", found, mend)


def judge_tables(
    wanted: tuple[StreamedTable, ...],
    found: Mapping[tuple[str, str], SourceTable],
    rights: Mapping[int, Rights],
    usage: Usage,
    publish: str,
    strange: Mapping[tuple[str, str], str],
) -> Iterator[Finding]:
    """Hold the tables against what the stream wants of them. Pure.

    publish    the statement after which all of them are published
    strange    what is there under a table's name and has no changes in the log, and what it is
    """
    unpublished = []
    for one in wanted:
        table = found.get((one.schema, one.table))
        if table is None and (one.schema, one.table) in strange:
            found_instead, _, mend = strange[one.schema, one.table].partition("; ")
            yield Finding("stop", one.label, found_instead, mend or f"take {one.name} out of `tables:`")
            continue
        if table is None:
            mend = f"correct `tables: {{{one.name}: {{table: …}}}}`, or grant usage on its schema"
            yield Finding("stop", one.label, "there is no such table, or the role may not see it", mend)
            continue
        yield _judge_table(table, rights[table.oid], usage.role)
        if not table.published:
            unpublished.append(table)
    if not unpublished:
        yield Finding("ok", "publication", "publishes every table")
    elif usage.may_create and all(rights[table.oid].owns for table in unpublished):
        yield Finding("ok", "publication", "will be made by the snapshot")
    else:
        names = ", ".join(table.label for table in unpublished)
        yield Finding(
            "stop",
            "publication",
            f"does not publish {names}, and {usage.role} may not change that",
            publish,
        )


def judge_children(children: Mapping[str, list[str]], followed: Collection[str]) -> Iterator[Finding]:
    """Say which tables have rows elsewhere, in children by inheritance. Pure.

    children   of each table of the stream, as the source names them
    """
    for label, names in children.items():
        others = [name for name in names if name not in followed and f"public.{name}" not in followed]
        if others:
            found = f"its children by inheritance have rows of their own, which do not arrive: {', '.join(others)}"
            yield Finding("warn", label, found, "name them in `tables:` too")


def judge_publication(name: str, withheld: str, tables: Iterable[SourceTable]) -> Iterator[Finding]:
    """Hold a publication that is there against what a mirror needs of it. Pure.

    withheld   the kinds of change that it does not publish
    """
    if withheld:
        mend = f"alter publication {name} set (publish = 'insert, update, delete, truncate')"
        found = f"publishes no {withheld}: the mirror keeps what the source no longer has"
        yield Finding("warn", "publication", found, mend)
    for table in tables:
        if table.is_partitioned and not table.via_root:
            mend = f"alter publication {name} set (publish_via_partition_root = true)"
            yield Finding("stop", table.label, "its rows are sent as its partitions'", mend)


def _judge_table(table: SourceTable, rights: Rights, role: str) -> Finding:
    if not rights.may_read:
        mend = f"grant usage on schema {table.schema} to {role}; grant select on {table.label} to {role}"
        return Finding("stop", table.label, "the role may not read it", mend)
    if rights.sees_some:
        return Finding(
            "stop", table.label, f"row level security hides rows from {role}", f"alter role {role} bypassrls"
        )
    if table.identity == "n":
        mend = f"alter table {table.label} replica identity default"
        return Finding(
            "stop", table.label, "replica identity nothing: the source refuses updates and deletes", mend
        )
    if not table.key:
        mend = f"give it a primary key, or: alter table {table.label} replica identity using index <unique, not null>"
        return Finding("stop", table.label, "no key tells its rows apart", mend)
    return Finding("ok", table.label, f"key ({', '.join(table.key)}), {len(table.columns)} columns")


def plan_deletes(conn: psycopg.Connection[Any], source: str, declared: Mapping[str, bool]) -> list[Finding]:
    """Say what the next drain does to the mirrors of a stream whose `deletes:` became another.

    declared   per table whether its deletes are soft
    """
    found = []
    for name, soft in declared.items():
        mirror = bronze_table(source, name)
        marks, label = marks_of(conn, mirror), f"bronze.{warehouse_name(source, name)}"
        if not own_columns(conn, mirror) or soft == (marks is not None):
            continue
        if marks is None:
            said = (
                "rows that are deleted from the next drain on stay, marked; those before are in the log alone"
            )
            found.append(Finding("ok", label, said))
            continue
        counted = sql.SQL("select count(*) from {} as m where not {}").format(mirror, marks.live("m"))
        (rows,) = conn.execute(counted).fetchone() or (0,)
        said = f"deletes are hard: with the next drain {rows} marked row(s) leave for good, and the marks"
        found.append(Finding("warn", label, said, "to keep them: `deletes: soft`"))
    return found
