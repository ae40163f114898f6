"""What a server has of a team's database: roles, memberships, owners, privileges, settings.

Only reads. The queries take what other roles did too, because that is what drift is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from datops_assets.databases.desired import TeamDatabase
from datops_assets.errors import WarehouseError

OLDEST_VERSION = 160000
"""Memberships say since PostgreSQL 16 whether a role may be taken on, and whether its rights come by themselves."""

Connect = Callable[[str | None], "psycopg.Connection[Any]"]
"""Opens a connection as administrator: to a database by name, or to the one the administrator's URL names."""

_POWERS = ("superuser", "createdb", "createrole", "replication", "bypassrls")

_SERVER: LiteralString = """
select current_setting('server_version_num')::int, current_user::text, r.rolsuper, r.rolcreaterole, r.rolcreatedb,
       has_parameter_privilege('temp_file_limit', 'set')
  from pg_roles r where r.rolname = current_user
"""
_DATABASE: LiteralString = """
select r.rolname, d.datconnlimit, d.datallowconn, shobj_description(d.oid, 'pg_database')
  from pg_database d join pg_roles r on r.oid = d.datdba where d.datname = %s
"""
_ROLES: LiteralString = """
select a.rolname, a.rolcanlogin, a.rolinherit, a.rolsuper, a.rolcreatedb, a.rolcreaterole, a.rolreplication,
       a.rolbypassrls, a.rolconnlimit,
       case when isfinite(a.rolvaliduntil) then a.rolvaliduntil end, a.rolvaliduntil = '-infinity',
       shobj_description(a.oid, 'pg_authid'), {password}
  from {roles} a where a.rolname = any(%(names)s) or shobj_description(a.oid, 'pg_authid') = %(mark)s
"""
_MAY_ACT_AS: LiteralString = "select pg_has_role(current_user, %s, 'usage')"
_MEMBERS: LiteralString = """
select g.rolname, m.rolname, by.rolname, a.admin_option, a.inherit_option, a.set_option
  from pg_auth_members a
  join pg_roles g on g.oid = a.roleid join pg_roles m on m.oid = a.member join pg_roles by on by.oid = a.grantor
 where g.rolname = any(%(names)s) or m.rolname = any(%(names)s)
 order by 1, 2, 3
"""
_SETTINGS: LiteralString = """
select r.rolname, coalesce(d.datname, ''), s.setconfig
  from pg_db_role_setting s join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase
 where r.rolname = any(%(names)s)
"""
_SCHEMAS: LiteralString = """
select n.nspname, r.rolname, obj_description(n.oid, 'pg_namespace')
  from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = any(%(schemas)s)
"""
# Objects that an extension brought are its own; a sequence of a column follows its table.
_OBJECTS: LiteralString = """
with mine as (select oid from pg_namespace where nspname = any(%(schemas)s)),
     brought as (select classid, objid from pg_depend where deptype = 'e')
select case c.relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view'
                      when 'f' then 'foreign table' else 'table' end,
       n.nspname, c.relname, null, r.rolname,
       c.relkind = 'S' and exists (select from pg_depend d where d.classid = 'pg_class'::regclass
                                      and d.objid = c.oid and d.deptype in ('a', 'i'))
  from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
 where c.relnamespace in (table mine) and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
   and ('pg_class'::regclass, c.oid) not in (table brought)
union all
select case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end,
       n.nspname, p.proname, p.oid::regprocedure::text, r.rolname, false
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_roles r on r.oid = p.proowner
 where p.pronamespace in (table mine) and ('pg_proc'::regclass, p.oid) not in (table brought)
union all
select 'type', n.nspname, t.typname, null, r.rolname, false
  from pg_type t join pg_namespace n on n.oid = t.typnamespace join pg_roles r on r.oid = t.typowner
 where t.typnamespace in (table mine) and t.typtype in ('d', 'e', 'r', 'c')
   and (t.typrelid = 0 or exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
   and ('pg_type'::regclass, t.oid) not in (table brought)
 order by 2, 1, 3, 4
"""
_GRANTS: LiteralString = """
with mine as (select oid from pg_namespace where nspname = any(%(schemas)s)),
     brought as (select classid, objid from pg_depend where deptype = 'e'),
     found as (
  select 'database' as kind, '' as schema, d.datname::text as name, null as more, x.*
    from pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
   where d.datname = current_database()
  union all
  select 'schema', '', n.nspname, null, x.*
    from pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) x
   where n.nspname = any(%(schemas)s) or n.nspname = 'public'
  union all
  select case c.relkind when 'S' then 'sequence' else 'table' end, n.nspname, c.relname, null, x.*
    from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) x
   where c.relnamespace in (table mine) and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
     and ('pg_class'::regclass, c.oid) not in (table brought)
  union all
  select 'column', n.nspname, c.relname, a.attname, x.*
    from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace,
         aclexplode(a.attacl) x
   where c.relnamespace in (table mine) and ('pg_class'::regclass, c.oid) not in (table brought)
  union all
  select 'routine', n.nspname, p.proname, p.oid::regprocedure::text, x.*
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace,
         aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
   where p.pronamespace in (table mine) and ('pg_proc'::regclass, p.oid) not in (table brought)
)
select kind, schema, name, more, coalesce(g.rolname, ''), b.rolname, privilege_type, is_grantable
  from found left join pg_roles g on g.oid = found.grantee join pg_roles b on b.oid = found.grantor
 order by 1, 2, 3, 4, 5, 7
"""
_DEFAULTS: LiteralString = """
select coalesce(n.nspname, ''), d.defaclobjtype::text, coalesce(g.rolname, ''), x.privilege_type, x.is_grantable
  from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace
  join pg_roles o on o.oid = d.defaclrole, aclexplode(d.defaclacl) x left join pg_roles g on g.oid = x.grantee
 where o.rolname = %(owner)s
 union all  -- a function of the owner's may be run by all, unless a row says otherwise
select '', 'f', '', 'EXECUTE', false where not exists (
  select from pg_default_acl d join pg_roles o on o.oid = d.defaclrole
   where o.rolname = %(owner)s and d.defaclnamespace = 0 and d.defaclobjtype = 'f')
"""


@dataclass(frozen=True)
class Role:
    """One role as it is. `verifier` is what the server keeps of its password; printing shows none."""

    name: str
    login: bool
    inherit: bool
    powers: frozenset[str]
    connections: int
    valid_until: datetime | None
    comment: str | None
    never_valid: bool = False
    verifier: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Membership:
    """`member` is in `role`, as `grantor` said."""

    role: str
    member: str
    grantor: str
    admin: bool
    inherit: bool
    set: bool


@dataclass(frozen=True)
class Thing:
    """An object that has an owner. `more`: a routine with its argument types, as SQL; a column's name."""

    kind: str
    schema: str
    name: str
    more: str | None = None


@dataclass(frozen=True)
class Grant:
    """One privilege. `grantee` is empty for PUBLIC."""

    on: Thing
    grantee: str
    grantor: str
    privilege: str
    grantable: bool


@dataclass(frozen=True)
class DefaultGrant:
    """What objects made later will grant. `schema` is empty for all schemas; `kind` as pg_default_acl has it."""

    schema: str
    kind: str
    grantee: str
    privilege: str
    grantable: bool


@dataclass(frozen=True)
class Database:
    """The database itself."""

    owner: str
    connections: int
    comment: str | None


@dataclass(frozen=True)
class Actual:
    """All that a plan looks at."""

    server_version: int
    admin: str
    superuser: bool = True
    """Of the administrator. Else the server shows it no passwords."""
    limits_temp_files: bool = True
    """The administrator may set temp_file_limit for others."""
    database: Database | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)
    let_in: Mapping[str, bool] = field(default_factory=dict)
    """Role: whether the kept password let it in. Only where passwords are not shown, and a try said something."""
    members: tuple[Membership, ...] = ()
    settings: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    """(role, database; empty for all): parameters."""
    schemas: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    """Name: owner, comment."""
    things: Mapping[Thing, str] = field(default_factory=dict)
    """Object: owner."""
    owned_by_table: frozenset[Thing] = frozenset()
    """Sequences of columns: their owner is the table's, and cannot be changed alone."""
    grants: tuple[Grant, ...] = ()
    defaults: tuple[DefaultGrant, ...] = ()


def read_actual(connect: Connect, desired: TeamDatabase) -> Actual:
    """Look at the server.

    raises    WarehouseError: it is older than 16, or the administrator may not do what the document needs
    """
    with closing(connect(None)) as conn:
        found = conn.execute(_DATABASE, (desired.database,)).fetchone()
        database = None if found is None else Database(found[0], found[1], found[3])
        actual = _as_administrator(conn, desired, database)
        if database is None:
            return _roles(conn, desired, actual)
    with closing(connect(desired.database)) as conn:
        return _inside(conn, desired, _roles(conn, desired, actual))


def _as_administrator(
    conn: psycopg.Connection[Any], desired: TeamDatabase, database: Database | None
) -> Actual:
    """Who we are there, and that it suffices; raises as `read_actual`."""
    version, admin, superuser, makes_roles, makes_databases, limits = _one(conn.execute(_SERVER).fetchone())
    where = f"{conn.info.host}:{conn.info.port}"
    if version < OLDEST_VERSION:
        raise WarehouseError(
            f"{where} is PostgreSQL {version // 10000}, team databases need 16 up; upgrade it"
        )
    lacks = None
    if not superuser:
        owns = database is None or conn.execute(_MAY_ACT_AS, (database.owner,)).fetchone() == (True,)
        if not makes_roles:
            lacks = f"may make no roles: alter role {admin} createrole"
        elif database is None and not makes_databases and not desired.absent:
            lacks = f"may make no databases: alter role {admin} createdb"
        elif not owns:
            lacks = f"does not own it: alter database {desired.database} owner to {admin}"
    if lacks:
        raise WarehouseError(
            f"{desired.database}: the role {admin} is no superuser of {where} and {lacks};"
            " or name another administrator under server: in the document"
        )
    return Actual(version, admin, superuser, limits, database)


def _roles(conn: psycopg.Connection[Any], desired: TeamDatabase, actual: Actual) -> Actual:
    names = list(desired.roles())
    about = {"names": names, "mark": desired.mark}
    shown = {"password": sql.SQL("a.rolpassword"), "roles": sql.SQL("pg_authid")}
    if not actual.superuser:
        shown = {"password": sql.SQL("null"), "roles": sql.SQL("pg_roles")}
    roles = {row[0]: _role(row) for row in conn.execute(sql.SQL(_ROLES).format(**shown), about)}
    about["names"] = sorted({*names, *roles})
    settings = {
        (role, database): dict(line.partition("=")[::2] for line in lines)
        for role, database, lines in conn.execute(_SETTINGS, about)
    }
    members = tuple(Membership(*row) for row in conn.execute(_MEMBERS, about))
    return replace(actual, roles=roles, members=members, settings=settings)


def _inside(conn: psycopg.Connection[Any], desired: TeamDatabase, actual: Actual) -> Actual:
    about = {"schemas": list(desired.schemas), "owner": desired.group("owner")}
    with conn.transaction():
        conn.execute("set local search_path = ''")  # so that every name comes out whole
        objects = conn.execute(_OBJECTS, about).fetchall()
        grants = conn.execute(_GRANTS, about).fetchall()
        schemas = conn.execute(_SCHEMAS, about).fetchall()
        defaults = conn.execute(_DEFAULTS, about).fetchall()
    return replace(
        actual,
        schemas={name: (owner, comment) for name, owner, comment in schemas},
        things={Thing(*row[:4]): row[4] for row in objects},
        owned_by_table=frozenset(Thing(*row[:4]) for row in objects if row[5]),
        grants=tuple(Grant(Thing(*row[:4]), *row[4:]) for row in grants),
        defaults=tuple(DefaultGrant(*row) for row in defaults),
    )


def _role(row: tuple[Any, ...]) -> Role:
    powers = frozenset(name for name, has in zip(_POWERS, row[3:8], strict=True) if has)
    return Role(row[0], row[1], row[2], powers, row[8], row[9], row[11], bool(row[10]), row[12])


def _one(row: tuple[Any, ...] | None) -> tuple[Any, ...]:
    assert row is not None
    return row


def new_database(desired: TeamDatabase, actual: Actual) -> Actual:
    """What is there once the database was made from template0: PostgreSQL's own defaults."""
    whole = Thing("database", "", desired.database)
    public = Thing("schema", "", "public")
    grants = [Grant(whole, "", actual.admin, name, False) for name in ("CONNECT", "TEMPORARY")]
    grants.append(Grant(public, "", "pg_database_owner", "USAGE", False))
    return replace(
        actual,
        database=Database(actual.admin, -1, None),
        schemas={"public": ("pg_database_owner", "standard public schema")}
        if "public" in desired.schemas
        else {},
        grants=tuple(grants),
        defaults=(DefaultGrant("", "f", "", "EXECUTE", False),),
    )
