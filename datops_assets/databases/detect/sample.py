"""A server at one moment: what detection reads, and what it was not let read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.databases.detect.server_log import Burst, LogSeen, Place, Who, read_log
from datops_assets.databases.detect.statements import read_statements
from datops_assets.databases.sessions import Session, read_places, read_sessions

_MAY_SEE_OTHERS: LiteralString = "select pg_has_role(current_user, 'pg_read_all_stats', 'usage')"
_POWERS: LiteralString = """
select r.rolname, array_remove(array[
       case when r.rolsuper then 'superuser' end, case when r.rolbypassrls then 'bypassrls' end,
       case when r.rolcreaterole then 'createrole' end, case when r.rolreplication then 'replication' end,
       case when r.rolcreatedb then 'createdb' end], null)
       || array(select 'in ' || g.rolname from pg_auth_members m join pg_roles g on g.oid = m.roleid
                 where m.member = r.oid order by 1)
  from pg_roles r where r.rolname !~ '^pg_'
"""
_FREEZE: LiteralString = """
select datname,
       greatest(age(datfrozenxid)::float8 / current_setting('autovacuum_freeze_max_age')::float8,
                mxid_age(datminmxid)::float8 / current_setting('autovacuum_multixact_freeze_max_age')::float8),
       greatest(age(datfrozenxid), mxid_age(datminmxid))::float8 / 2147483648
  from pg_database
"""
_ARCHIVER: LiteralString = """
select failed_count, coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false),
       extract(epoch from now() - last_failed_time)::float8 from pg_stat_archiver
"""
_SLOTS: LiteralString = """
select slot_name, active, wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8
  from pg_replication_slots where not pg_is_in_recovery()
"""
# Who takes a base backup is not behind. pg_receivewal applies nothing: what it has on its disk counts.
_REPLICAS: LiteralString = """
select concat_ws(' from ', nullif(application_name, ''), coalesce(host(client_addr), 'this machine')),
       max(pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(replay_lsn, flush_lsn, sent_lsn)))::float8,
       max(case when replay_lsn is not null then extract(epoch from replay_lag) end)::float8
  from pg_stat_replication where state <> 'backup' and not pg_is_in_recovery() group by 1
"""
_LOG_SIZE: LiteralString = """
select coalesce(sum(size), 0)::float8, (pg_size_bytes(current_setting('max_wal_size'))
       + pg_size_bytes(current_setting('wal_keep_size')))::float8 from pg_ls_waldir()
"""
_SIZES: LiteralString = (
    "select datname, pg_database_size(oid)::float8 from pg_database where datname = any({})"
)
_DATABASES: LiteralString = """
select datname, xact_commit, xact_rollback, deadlocks, temp_bytes, tup_returned
  from pg_stat_database where datname is not null
"""
# A file that is being written is in no statistics yet. Its name begins with the process.
_TEMPORARY: LiteralString = r"""
select substring(name from '^pgsql_tmp(\d+)')::int, sum(size)::float8
  from pg_ls_tmpdir() where name ~ '^pgsql_tmp\d' group by 1
"""
_TABLES: LiteralString = """
select n.nspname || '.' || c.relname, n_live_tup, n_tup_del, n_tup_upd, c.relfilenode::bigint, c.oid::bigint,
       c.relispartition, extract(epoch from now())::float8
  from pg_stat_user_tables s join pg_class c on c.oid = s.relid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname <> 'datops'
"""
# Which role may do what on which kind of thing, whatever the thing: a new table brings no new line.
_GRANTS: LiteralString = """
select distinct kind || ' ' || privilege_type || case when is_grantable then ' and pass it on' else '' end
       || ' to ' || coalesce(r.rolname, 'PUBLIC')
  from (select case c.relkind when 'S' then 'sequences' else 'tables' end as kind, x.*
          from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) x
         where n.nspname not in ('pg_catalog', 'information_schema', 'datops') and x.grantee <> c.relowner
        union all
        select 'columns', x.* from pg_attribute a join pg_class c on c.oid = a.attrelid
          join pg_namespace n on n.oid = c.relnamespace, aclexplode(a.attacl) x
         where n.nspname not in ('pg_catalog', 'information_schema', 'datops') and x.grantee <> c.relowner
        union all
        select 'schemas', x.* from pg_namespace n, aclexplode(n.nspacl) x
         where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and x.grantee <> n.nspowner
        union all
        select 'database', x.* from pg_database d, aclexplode(d.datacl) x
         where d.datname = current_database() and x.grantee <> d.datdba
        union all
        select 'things made later', x.* from pg_default_acl d, aclexplode(d.defaclacl) x
         where x.grantee <> d.defaclrole) found
  left join pg_roles r on r.oid = found.grantee
"""
_OWNERS: LiteralString = """
select distinct 'owner ' || r.rolname from pg_class c join pg_namespace n on n.oid = c.relnamespace
  join pg_roles r on r.oid = c.relowner
 where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'datops') and c.relkind in ('r', 'p', 'v', 'm')
"""
_HBA: LiteralString = """
select md5(string_agg(concat(type, database, user_name, address, auth_method), ';' order by line_number))
  from pg_hba_file_rules
"""
# A text may hold a secret (primary_conninfo): only its hash is looked at.
_SETTINGS: LiteralString = """
select name, case when vartype = 'string' then md5(reset_val) else reset_val end from pg_settings
 where source not in ('client', 'session', 'interactive', 'user', 'database', 'database user', 'override')
   and context <> 'internal'
"""
PARTS: Mapping[str, tuple[str, ...]] = {
    "sessions of others (grant pg_monitor)": (
        "long_statement", "idle_in_transaction", "lock_queue", "exfiltration", "connections", "connection_storm",
        "new_client", "new_application", "off_hours", "replication_lag",
    ),
    "roles": ("privilege",),
    "pg_hba.conf": ("hba",),
    "settings": ("setting",),
    "wraparound": ("wraparound",),
    "archiver": ("archive",),
    "slots": ("slot",),
    "size of the log (grant pg_monitor)": ("log_size",),
    "sizes of databases (grant pg_monitor)": ("growth",),
    "databases": ("rollbacks", "deadlocks", "statement_flood", "bulk_read"),
    "temporary files (grant pg_monitor)": ("temporary_files",),
    "failed logins: the server writes no JSON log that we can read": (
        "brute_force", "break_in", "denied", "refused_connections",
    ),
}  # fmt: skip
"""What is looked at by itself, and the kinds of findings that stay unknown without it."""
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "rows that leave by select, and new statements (shared_preload_libraries = 'pg_stat_statements', then:"
    " create extension pg_stat_statements; and pg_monitor to read it)": (
        "exfiltration_select",
        "new_statement",
    ),
}
"""The same of what PostgreSQL has only with an extension: its lack is said, and is no fault of the server."""


@dataclass(frozen=True)
class TableCounts:
    """What the server counted of a table; `file` is another once it was truncated or rewritten."""

    rows: int
    deleted: int
    updated: int
    file: int
    oid: int = 0
    partition: bool = False
    since: float = 0.0
    """When it was first looked at, seconds since 1970."""


@dataclass(frozen=True)
class Counts:
    """What the server counted of a database since its statistics began."""

    commits: int
    rollbacks: int
    deadlocks: int
    temp_bytes: int
    read_rows: int

    @property
    def transactions(self) -> int:
        """Whatever became of them."""
        return self.commits + self.rollbacks


@dataclass(frozen=True)
class Size:
    """How large a database is, and was when the hour of this look began."""

    bytes: float
    begun_bytes: float
    begun_at: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class Sample:
    """A server at one moment."""

    at: datetime
    sessions: tuple[Session, ...]
    places: int
    powers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hba: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    freeze: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Database: age as a share of when autovacuum has to act, and of when PostgreSQL stops."""
    archive_failing_s: float | None = None
    slots: Mapping[str, tuple[bool, str | None, float]] = field(default_factory=dict)
    """Name: followed, wal_status, bytes of log kept for it."""
    replicas: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    """Who follows the log: bytes and seconds behind."""
    log_size: tuple[float, float] | None = None
    """Bytes of pg_wal, and how many are meant by max_wal_size and wal_keep_size."""
    sizes: Mapping[str, Size] = field(default_factory=dict)
    selected: Mapping[str, float] | None = None
    """Role: rows given by select since the statistics began; None: nobody counts."""
    shapes: Mapping[str, frozenset[str]] | None = None
    """Role: shapes of its statements."""
    counts: Mapping[str, Counts] = field(default_factory=dict)
    temporary: Mapping[int, float] = field(default_factory=dict)
    """Process: bytes of temporary files it has now."""
    tables: Mapping[str, TableCounts] = field(default_factory=dict)
    """`database/schema.table`."""
    grants: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Database: `tables SELECT to sales_reader`."""
    log: LogSeen | None = None
    logins: Mapping[str, str] = field(default_factory=dict)
    """Role of a pair that takes turns: the login, which is what habits belong to."""
    skipped: tuple[str, ...] = ()
    """What we may not look at."""
    without: tuple[str, ...] = ()
    """What an extension would show."""

    def habit_of(self, role: str) -> str:
        """Whose habits a role has: the login's, or its own."""
        return self.logins.get(role, role)

    @property
    def unseen(self) -> frozenset[str]:
        """Kinds of findings of which nothing is known now."""
        parts = {**PARTS, **EXTRAS}
        return frozenset(kind for part in (*self.skipped, *self.without) for kind in parts[part])


def take_sample(
    conn: psycopg.Connection[Any],
    databases: Mapping[str, psycopg.Connection[Any]],
    log_place: Place | None = None,
    bursts: Mapping[Who, Burst] | None = None,
    burst_s: float = 900,
) -> Sample:
    """Look at a server.

    databases    connections into the databases whose tables are watched
    log_place    how far the log was read by the sample before; None: what is in it now is old
    bursts       failed logins that were not over at the sample before
    """
    skipped: list[str] = []
    watched = sql.Literal(sorted(databases))

    def ask(part: str, query: LiteralString) -> list[tuple[Any, ...]]:
        try:
            with conn.transaction():
                return conn.execute(sql.SQL(query).format(watched)).fetchall()
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.UndefinedFunction,
            psycopg.errors.UndefinedFile,
        ):
            skipped.append(next(name for name in PARTS if name.startswith(part)))
            return []

    log = read_log(conn, log_place, bursts or {}, burst_s)
    if log is None:
        skipped.append(next(name for name in PARTS if name.startswith("failed logins")))
    if ask("sessions", _MAY_SEE_OTHERS) != [(True,)]:
        skipped.append(next(name for name in PARTS if name.startswith("sessions")))
    archiver = ask("archiver", _ARCHIVER)
    log_size = ask("size of the log", _LOG_SIZE)
    statements = read_statements([conn, *databases.values()])
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return Sample(
        at=row[0],
        sessions=tuple(read_sessions(conn)),
        places=read_places(conn),
        powers={name: tuple(powers) for name, powers in ask("roles", _POWERS)},
        hba=next((one[0] for one in ask("pg_hba.conf", _HBA)), None),
        settings=dict(ask("settings", _SETTINGS)),
        freeze={name: (share, of_limit) for name, share, of_limit in ask("wraparound", _FREEZE)},
        archive_failing_s=archiver[0][2] if archiver and archiver[0][1] else None,
        slots={one[0]: (one[1], one[2], one[3] or 0.0) for one in ask("slots", _SLOTS)},
        replicas={name: (behind or 0.0, late) for name, behind, late in ask("sessions", _REPLICAS)},
        log_size=log_size[0] if log_size else None,
        sizes={
            name: Size(size, size, row[0].timestamp()) for name, size in ask("sizes of databases", _SIZES)
        },
        selected=statements.selected if statements else None,
        shapes=statements.shapes if statements else None,
        counts={one[0]: Counts(*one[1:]) for one in ask("databases", _DATABASES)},
        temporary=dict(ask("temporary files", _TEMPORARY)),
        tables={
            f"{name}/{found[0]}": TableCounts(*found[1:])
            for name, one in databases.items()
            for found in one.execute(_TABLES)
        },
        grants={
            name: frozenset(found[0] for query in (_GRANTS, _OWNERS) for found in one.execute(query))
            for name, one in databases.items()
        },
        log=log,
        skipped=tuple(dict.fromkeys(skipped)),
        without=() if statements else tuple(EXTRAS),
    )
