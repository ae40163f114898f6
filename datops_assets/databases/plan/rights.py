"""Steps of a database and what is in it: owners, privileges, and what will be granted on what comes later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from psycopg import sql

from datops_assets.databases.actual import Actual, DefaultGrant, Grant, Thing
from datops_assets.databases.desired import (
    DATABASE_PRIVILEGES,
    ROUTINE_PRIVILEGES,
    SEQUENCE_PRIVILEGES,
    TABLE_PRIVILEGES,
    TeamDatabase,
)
from datops_assets.databases.plan.steps import (
    PUBLIC,
    Step,
    grantee_name,
    identifier,
    named,
    privileges_of,
    text,
)

_DEFAULT_KINDS: Mapping[str, tuple[str, Mapping[str, frozenset[str]]]] = {
    "r": ("tables", TABLE_PRIVILEGES),
    "S": ("sequences", SEQUENCE_PRIVILEGES),
    "f": ("routines", ROUTINE_PRIVILEGES),
    "T": ("types", {}),
    "n": ("schemas", {}),
    "L": ("large objects", {}),
}
"""Letter of pg_default_acl: the word for it, and what the roles shall have."""


def database_steps(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    """The database, its schemas and whose they are."""
    found = actual.database
    assert found is not None
    name = identifier(desired.database)
    if desired.whole:
        if found.owner != actual.admin:
            yield Step(
                text("alter database {} owner to {}", name, identifier(actual.admin)),
                "an owner could drop it",
            )
        if found.connections != desired.connections:
            limit = f" connection limit {desired.connections}"
            yield Step(text("alter database {}", name) + limit, f"it is {found.connections}")
        if found.comment != desired.mark:
            yield Step(
                text("comment on database {} is {}", name, sql.Literal(desired.mark)), "says whose it is"
            )
    for schema in desired.schemas:
        owner, comment = actual.schemas.get(schema, (None, None))
        wanted = identifier(desired.group("owner"))
        if owner is None:
            yield Step(
                text("create schema {} authorization {}", identifier(schema), wanted), "it is not there"
            )
        elif owner != desired.group("owner"):
            yield Step(
                text("alter schema {} owner to {}", identifier(schema), wanted), f"it belongs to {owner}"
            )
        if comment != desired.mark:
            yield Step(
                text("comment on schema {} is {}", identifier(schema), sql.Literal(desired.mark)),
                "says whose it is",
            )


def owner_steps(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    """Give what is in the schemas to the owner role."""
    owner = desired.group("owner")
    for thing, found in actual.things.items():
        if found != owner and thing not in actual.owned_by_table:
            statement = f"alter {thing.kind} {named(thing)}" + text(" owner to {}", identifier(owner))
            yield Step(statement, f"it belongs to {found}")


def privilege_steps(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    """Privileges on the database, the schemas and all in them.

    Where an owner changes, PostgreSQL writes the new one in the place of the old one in the
    privileges too, so they are looked at as they will be then.
    """
    found: dict[Thing, list[Grant]] = {}
    for grant in actual.grants:
        found.setdefault(grant.on, []).append(grant)
    for thing, before, owner, wanted, ours_only in _targets(desired, actual):
        grants = [_as_owned(grant, before, owner) for grant in found.get(thing, [])]
        if ours_only:
            ours = set(desired.roles())
            grants = [grant for grant in grants if grant.grantee in ours]
        yield from _grant_steps(f"{_WORD[thing.kind]} {named(thing)}", grants, owner, wanted)
    for thing, grants in found.items():
        if thing.kind == "column":
            yield from _columns(desired, thing, grants, actual)


_WORD = {
    "database": "database", "schema": "schema", "sequence": "sequence", "table": "table", "view": "table",
    "materialized view": "table", "foreign table": "table", "function": "routine", "procedure": "routine",
    "aggregate": "routine", "routine": "routine",
}  # fmt: skip


def _targets(
    desired: TeamDatabase, actual: Actual
) -> Iterator[tuple[Thing, str, str, Mapping[str, frozenset[str]], bool]]:
    """Each thing with its owner before, its owner then, who shall have what, and whether others are left alone."""
    assert actual.database is not None
    owner = desired.group("owner")
    database = Thing("database", "", desired.database)
    whose = actual.admin if desired.whole else actual.database.owner
    on_database = {desired.group(access): names for access, names in DATABASE_PRIVILEGES.items()}
    for login in desired.present:
        if login.access == "owner":  # its rights begin when it has taken on the owner role: after the door
            on_database |= dict.fromkeys(desired.pair(login), frozenset({"CONNECT"}))
    yield database, actual.database.owner, whose, on_database, not desired.whole
    if desired.whole and "public" not in desired.schemas:
        yield Thing("schema", "", "public"), "pg_database_owner", "pg_database_owner", {}, False
    usage = {desired.group(access): frozenset({"USAGE"}) for access in TABLE_PRIVILEGES}
    for schema in desired.schemas:
        yield Thing("schema", "", schema), actual.schemas.get(schema, (owner, None))[0], owner, usage, False
    for thing, before in actual.things.items():
        kind = _WORD.get(thing.kind)
        if kind is None:
            continue
        given = {"sequence": SEQUENCE_PRIVILEGES, "routine": ROUTINE_PRIVILEGES}.get(kind, TABLE_PRIVILEGES)
        key = Thing(kind, thing.schema, thing.name, thing.more)
        yield key, before, owner, {desired.group(access): names for access, names in given.items()}, False


def _as_owned(grant: Grant, before: str, owner: str) -> Grant:
    def then(name: str) -> str:
        return owner if name == before else name

    return Grant(grant.on, then(grant.grantee), then(grant.grantor), grant.privilege, grant.grantable)


def _grant_steps(
    target: str, grants: Iterable[Grant], owner: str, wanted: Mapping[str, frozenset[str]], base: str = ""
) -> Iterator[Step]:
    """From what is granted on a target to what shall be.

    base    what stands before each statement: `alter default privileges …` for what is made later
    """
    grants = [grant for grant in grants if grant.grantee != owner]
    for grantee in sorted({grant.grantee for grant in grants} - wanted.keys()):
        yield Step(f"{base}revoke all on {target} from {grantee_name(grantee)} cascade", "nobody declared it")
    for grantee, names in sorted(wanted.items()):
        own = [grant for grant in grants if grant.grantee == grantee]
        extra = {grant.privilege for grant in own} - names
        passing = {grant.privilege for grant in own if grant.grantable} & names
        missing = names - {grant.privilege for grant in own if grant.grantor == owner}
        for words, privileges, end, why in (
            ("revoke", extra, "from {} cascade", "more than declared"),
            ("revoke grant option for", passing, "from {} cascade", "it may be passed on"),
            ("grant", missing, "to {}", "it is not there"),
        ):
            if privileges:
                to = end.format(grantee_name(grantee))
                yield Step(f"{base}{words} {privileges_of(privileges)} on {target} {to}", why)


def _columns(desired: TeamDatabase, column: Thing, grants: list[Grant], actual: Actual) -> Iterator[Step]:
    place = (column.schema, column.name)
    owners = {before for thing, before in actual.things.items() if (thing.schema, thing.name) == place}
    target = text("{}", sql.Identifier(column.schema, column.name))
    for grantee in sorted({grant.grantee for grant in grants} - owners - {desired.group("owner")}):
        names = {grant.privilege for grant in grants if grant.grantee == grantee}
        listed = ", ".join(
            f"{name} ({text('{}', identifier(column.more or ''))})".lower() for name in sorted(names)
        )
        yield Step(
            f"revoke {listed} on table {target} from {grantee_name(grantee)} cascade", "nobody declared it"
        )


def default_steps(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    """What the owner's tables, sequences and routines grant once they are made."""
    owner = desired.group("owner")
    by_place: dict[tuple[str, str], list[DefaultGrant]] = {}
    for default in actual.defaults:
        by_place.setdefault((default.schema, default.kind), []).append(default)
    ours = [
        (schema, kind) for schema in desired.schemas for kind, (_, given) in _DEFAULT_KINDS.items() if given
    ]
    for schema, kind in dict.fromkeys([*by_place, *ours]):
        word, given = _DEFAULT_KINDS[kind]
        here = schema in desired.schemas
        wanted = {desired.group(access): names for access, names in given.items()} if here else {}
        where = text(" in schema {}", identifier(schema)) if schema else ""
        base = text("alter default privileges for role {}", identifier(owner)) + where + " "
        grants = [
            Grant(Thing("defaults", schema, word), one.grantee, owner, one.privilege, one.grantable)
            for one in by_place.get((schema, kind), [])
            if (schema, kind, one.grantee) != ("", "T", PUBLIC)  # PostgreSQL's own: a type may be used by all
        ]
        yield from _grant_steps(word, grants, owner, wanted, base)
