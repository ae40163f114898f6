"""The steps from what a server has to what a team's database shall be, each the exact statement.

Values in, values out: no connection, no clock. Deletions come only of an explicit word, and last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import LiteralString

from psycopg import sql

from datops_assets.databases.actual import Actual, DefaultGrant, Grant, Membership, Role, Thing, new_database
from datops_assets.databases.desired import (
    DATABASE_PRIVILEGES,
    ROUTINE_PRIVILEGES,
    SEQUENCE_PRIVILEGES,
    TABLE_PRIVILEGES,
    Login,
    TeamDatabase,
    other_of,
)
from datops_assets.databases.scram import is_verifier_of
from datops_assets.databases.secrets import Secret
from datops_assets.errors import DeclarationError

_PUBLIC = ""
VERIFIER = "<SCRAM-SHA-256 verifier>"
_DEFAULT_KINDS: Mapping[str, tuple[str, Mapping[str, frozenset[str]]]] = {
    "r": ("tables", TABLE_PRIVILEGES),
    "S": ("sequences", SEQUENCE_PRIVILEGES),
    "f": ("routines", ROUTINE_PRIVILEGES),
    "T": ("types", {}),
    "n": ("schemas", {}),
    "L": ("large objects", {}),
}
"""Letter of pg_default_acl: the word for it, and what the roles shall have."""
_NAMED_BY_TYPES = frozenset({"function", "procedure", "aggregate", "routine"})


@dataclass(frozen=True)
class Step:
    """One statement and its reason."""

    statement: str
    """As it is sent; of a password only the verifier is, which takes this text's last place."""
    why: str
    alone: bool = False
    """PostgreSQL runs it in no transaction: databases are made and dropped so."""
    drops: bool = False
    password: Secret | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Plan:
    """What to do, in order, and what is left as it is until somebody says the word."""

    steps: tuple[Step, ...] = ()
    kept: tuple[str, ...] = ()
    """Sentences: what is there, is not declared, and how to have it gone."""
    cannot: tuple[str, ...] = ()
    """Sentences: what this administrator may not do or see, and what would let it."""


def plan(
    desired: TeamDatabase,
    actual: Actual,
    secrets: Mapping[str, Secret],
    *,
    allow_drop: Collection[str] = (),
    adopt: Collection[str] = (),
    set_unseen: bool = False,
) -> Plan:
    """List the steps that remove drift, deletions last; none when there is no drift.

    secrets     of each login by its name; one that is missing will be made when the plan is applied
    allow_drop  roles of ours that no document names any more, to be dropped
    adopt       roles, schemas and databases that somebody else made, to be taken over
    set_unseen  set passwords again where the server does not show the administrator which it has
    raises      DeclarationError: a name is taken by something that is not ours
    promise     after the steps, a plan of what is there then has none
    """
    _refuse_strangers(desired, actual, adopt)
    if desired.absent:
        return Plan(tuple(_remove_all(desired, actual)))
    steps: list[Step] = []
    if actual.database is None:
        steps.append(
            Step(
                _text("create database {} template template0", _id(desired.database)), "it is not there", True
            )
        )
        actual = new_database(desired, actual)
    steps += _roles(desired, actual, secrets, set_unseen)
    steps += _memberships(desired, actual)
    steps += _settings(desired, actual)
    steps += _database(desired, actual)
    steps += _owners(desired, actual)
    steps += _privileges(desired, actual)
    steps += _defaults(desired, actual)
    gone, kept = _deletions(desired, actual, allow_drop)
    return Plan((*steps, *gone), tuple(kept), tuple(_cannot(actual)))


def _cannot(actual: Actual) -> Iterator[str]:
    if not actual.superuser:
        yield (
            f"{actual.admin} is no superuser: a password that somebody else changed is not seen as drift;"
            " apply sets all of them again"
        )
    if not actual.limits_temp_files:
        yield (
            f"{actual.admin} may not limit temporary files; as a superuser:"
            f" grant set on parameter temp_file_limit to {_text('{}', _id(actual.admin))}"
        )


def _refuse_strangers(desired: TeamDatabase, actual: Actual, adopt: Collection[str]) -> None:
    found: list[tuple[str, str, str | None]] = [
        ("role", role.name, role.comment)
        for role in actual.roles.values()
        if role.name in set(desired.roles())
    ]
    if actual.database is not None and desired.whole:
        found.append(("database", desired.database, actual.database.comment))
    if not desired.whole:
        found += [("schema", name, comment) for name, (_, comment) in actual.schemas.items()]
    taken = [(kind, name) for kind, name, comment in found if comment != desired.mark and name not in adopt]
    if taken:
        raise DeclarationError(
            [
                f"{desired.name}: there is a {kind} {name} that datops did not make, expected a free name;"
                f" choose another, or take it over: --adopt {name}"
                for kind, name in taken
            ]
        )


# Roles


def _roles(
    desired: TeamDatabase, actual: Actual, secrets: Mapping[str, Secret], set_unseen: bool
) -> Iterator[Step]:
    for name in desired.groups:
        yield from _role(actual.roles.get(name), name, desired, login=False, connections=-1, until=None)
    for login in _wanted(desired):
        pair, secret = desired.pair(login), secrets.get(login.name)
        current = secret.user if secret is not None and secret.user in pair else pair[0]
        resting = other_of(pair, current)
        until = None if secret is None else secret.previous_until
        for name, has_login, valid in ((current, True, login.expires), (resting, until is not None, until)):
            found = actual.roles.get(name)
            yield from _role(
                found, name, desired, login=has_login, connections=login.connections, until=valid
            )
        known = actual.roles.get(current)
        verifier = None if known is None else known.verifier
        if not actual.superuser and known is not None and known.login and not set_unseen:
            continue
        if secret is None or verifier is None or not is_verifier_of(verifier, secret.password):
            why = "it has another password, or none of SCRAM" if verifier else "it has no password"
            if known is not None and not actual.superuser:
                why = f"{actual.admin} cannot see which it has"
            yield Step(_text("alter role {} password ", _id(current)) + VERIFIER, why, password=secret)


def _role(
    found: Role | None,
    name: str,
    desired: TeamDatabase,
    *,
    login: bool,
    connections: int,
    until: datetime | None,
) -> Iterator[Step]:
    if found is None:
        yield Step(_text("create role {}", _id(name)), "it is not there")
        found = Role(name, False, True, frozenset(), -1, None, None)
    words = [f"no{power}" for power in sorted(found.powers)]
    if found.login != login:
        words.append("login" if login else "nologin")
    if not found.inherit:
        words.append("inherit")
    if found.connections != connections:
        words.append(f"connection limit {connections}")
    if found.valid_until != until or found.never_valid:
        words.append(_text("valid until {}", sql.Literal(_moment(until))))
    if words:
        yield Step(_text("alter role {} ", _id(name)) + " ".join(words), "its attributes are others")
    if found.comment != desired.mark:
        yield Step(
            _text("comment on role {} is {}", _id(name), sql.Literal(desired.mark)), "says whose it is"
        )


def _moment(until: datetime | None) -> str:
    return "infinity" if until is None else until.astimezone(UTC).isoformat()


def _memberships(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    wanted = {
        # An owner acts as the owner role, so that what it makes belongs to that role; the others have
        # their rights by themselves and may take on no role at all.
        (desired.group(login.access), name): (False, login.access != "owner", login.access == "owner")
        for login in _wanted(desired)
        for name in desired.pair(login)
    }
    declared = set(desired.roles())
    left_alone = _absent(desired) | {
        name for name, role in actual.roles.items() if role.comment == desired.mark and name not in declared
    }
    rows = [
        row
        for row in actual.members
        if {row.role, row.member} & declared and row.member not in left_alone and not _is_own(row, actual)
    ]
    members = {(row.role, row.member) for row in rows}
    kept = [
        row
        for row in rows
        if wanted.get((row.role, row.member)) == (row.admin, row.inherit, row.set)
        # No member shall pass its role on, so what one has passed on goes with its right to.
        and (row.role, row.grantor) not in members
    ]
    for row in rows:
        if row not in kept:
            yield Step(
                _text(
                    "revoke {} from {} granted by {} cascade",
                    _id(row.role),
                    _id(row.member),
                    _id(row.grantor),
                ),
                "nobody declared it",
            )
    yield from _take_on(desired.group("owner"), actual)
    have = {(row.role, row.member) for row in kept}
    for (role, member), (_, inherit, taken_on) in wanted.items():
        if (role, member) not in have:
            options = f" with admin false, inherit {str(inherit).lower()}, set {str(taken_on).lower()}"
            yield Step(
                _text("grant {} to {}", _id(role), _id(member)) + options, "a login stands on its role"
            )


def _is_own(row: Membership, actual: Actual) -> bool:
    """PostgreSQL makes whoever creates a role, and is no superuser, its member with the admin option."""
    return not actual.superuser and row.member == actual.admin


def _take_on(role: str, actual: Actual) -> Iterator[Step]:
    """An administrator who is no superuser acts on what a role owns as a member of it."""
    if actual.superuser or any(
        row.role == role and _is_own(row, actual) and row.inherit and row.set for row in actual.members
    ):
        return
    options = " with inherit true, set true"
    yield Step(_text("grant {} to {}", _id(role), _id(actual.admin)) + options, "to act on what it owns")


# Settings


def _settings(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    for login in _wanted(desired):
        wanted = _parameters(desired, login, actual.server_version)
        if not actual.limits_temp_files:
            wanted.pop("temp_file_limit", None)
        for role in desired.pair(login):
            for (name, database), found in sorted(actual.settings.items()):
                if name == role and database != desired.database:
                    where = _text(" in database {}", _id(database)) if database else ""
                    yield Step(
                        _text("alter role {}", _id(role)) + where + " reset all",
                        f"sets {', '.join(sorted(found))}",
                    )
            found = actual.settings.get((role, desired.database), {})
            base = _text("alter role {} in database {} ", _id(role), _id(desired.database))
            beyond = set() if actual.limits_temp_files else {"temp_file_limit"}
            for key in sorted(found.keys() - wanted.keys() - beyond):
                yield Step(base + "reset " + _parameter(key), "nobody declared it")
            for key, value in wanted.items():
                if not _is_same(key, found.get(key), value):
                    shown = _value(key, value)
                    yield Step(
                        f"{base}set {_parameter(key)} to {shown}", f"it is {found.get(key, 'not set')}"
                    )


def _parameters(desired: TeamDatabase, login: Login, server_version: int) -> dict[str, str]:
    parameters = {
        "search_path": ", ".join(_text("{}", _id(name)) for name in desired.schemas),
        "password_encryption": "scram-sha-256",
        **login.limits.parameters(server_version),
    }
    if login.access == "owner":
        parameters["role"] = desired.group("owner")
    return parameters


def _parameter(name: str) -> str:
    return _text("{}", sql.Identifier(*name.split(".")))


def _value(key: str, value: str) -> str:
    return value if key == "search_path" else _text("{}", sql.Literal(value))


def _is_same(key: str, found: str | None, wanted: str) -> bool:
    if key == "search_path" and found is not None:
        return found.replace('"', "") == wanted.replace('"', "")  # quoted where PostgreSQL needs it
    return found == wanted


# The database, its schemas and what is in them


def _database(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    found = actual.database
    assert found is not None
    name = _id(desired.database)
    if desired.whole:
        if found.owner != actual.admin:
            yield Step(
                _text("alter database {} owner to {}", name, _id(actual.admin)), "an owner could drop it"
            )
        if found.connections != desired.connections:
            limit = f" connection limit {desired.connections}"
            yield Step(_text("alter database {}", name) + limit, f"it is {found.connections}")
        if found.comment != desired.mark:
            yield Step(
                _text("comment on database {} is {}", name, sql.Literal(desired.mark)), "says whose it is"
            )
    for schema in desired.schemas:
        owner, comment = actual.schemas.get(schema, (None, None))
        wanted = _id(desired.group("owner"))
        if owner is None:
            yield Step(_text("create schema {} authorization {}", _id(schema), wanted), "it is not there")
        elif owner != desired.group("owner"):
            yield Step(_text("alter schema {} owner to {}", _id(schema), wanted), f"it belongs to {owner}")
        if comment != desired.mark:
            yield Step(
                _text("comment on schema {} is {}", _id(schema), sql.Literal(desired.mark)),
                "says whose it is",
            )


def _owners(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    owner = desired.group("owner")
    for thing, found in actual.things.items():
        if found != owner and thing not in actual.owned_by_table:
            statement = f"alter {thing.kind} {_named(thing)}" + _text(" owner to {}", _id(owner))
            yield Step(statement, f"it belongs to {found}")


def _privileges(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
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
        yield from _grant_steps(f"{_WORD[thing.kind]} {_named(thing)}", grants, owner, wanted)
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
    for login in _wanted(desired):
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
    target: str, grants: Iterable[Grant], owner: str, wanted: Mapping[str, frozenset[str]]
) -> Iterator[Step]:
    grants = [grant for grant in grants if grant.grantee != owner]
    for grantee in sorted({grant.grantee for grant in grants} - wanted.keys()):
        yield Step(f"revoke all on {target} from {_role_name(grantee)} cascade", "nobody declared it")
    for grantee, names in sorted(wanted.items()):
        own = [grant for grant in grants if grant.grantee == grantee]
        extra = {grant.privilege for grant in own} - names
        if extra:
            yield Step(
                f"revoke {_list(extra)} on {target} from {_role_name(grantee)} cascade", "more than declared"
            )
        passing = {grant.privilege for grant in own if grant.grantable} & names
        if passing:
            words = f"revoke grant option for {_list(passing)} on {target} from {_role_name(grantee)} cascade"
            yield Step(words, "it may be passed on")
        missing = names - {grant.privilege for grant in own if grant.grantor == owner}
        if missing:
            yield Step(f"grant {_list(missing)} on {target} to {_role_name(grantee)}", "it is not there")


def _columns(desired: TeamDatabase, column: Thing, grants: list[Grant], actual: Actual) -> Iterator[Step]:
    place = (column.schema, column.name)
    owners = {before for thing, before in actual.things.items() if (thing.schema, thing.name) == place}
    target = _text("{}", sql.Identifier(column.schema, column.name))
    for grantee in sorted({grant.grantee for grant in grants} - owners - {desired.group("owner")}):
        names = {grant.privilege for grant in grants if grant.grantee == grantee}
        listed = ", ".join(
            f"{name} ({_text('{}', _id(column.more or ''))})".lower() for name in sorted(names)
        )
        yield Step(
            f"revoke {listed} on table {target} from {_role_name(grantee)} cascade", "nobody declared it"
        )


def _defaults(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
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
        where = _text(" in schema {}", _id(schema)) if schema else ""
        base = _text("alter default privileges for role {}", _id(owner)) + where
        grants = by_place.get((schema, kind), [])
        for grantee in sorted({one.grantee for one in grants} - wanted.keys() - {owner}):
            if (schema, kind, grantee) == ("", "T", _PUBLIC):
                continue  # PostgreSQL's own: a type may be used by all
            yield Step(f"{base} revoke all on {word} from {_role_name(grantee)}", "nobody declared it")
        for grantee, names in sorted(wanted.items()):
            own = [one for one in grants if one.grantee == grantee]
            extra = {one.privilege for one in own} - names
            if extra:
                yield Step(
                    f"{base} revoke {_list(extra)} on {word} from {_role_name(grantee)}", "more than declared"
                )
            passing = {one.privilege for one in own if one.grantable} & names
            if passing:
                words = (
                    f"{base} revoke grant option for {_list(passing)} on {word} from {_role_name(grantee)}"
                )
                yield Step(words, "it may be passed on")
            missing = names - {one.privilege for one in own}
            if missing:
                yield Step(
                    f"{base} grant {_list(missing)} on {word} to {_role_name(grantee)}", "it is not there"
                )


# Deletions


def _deletions(
    desired: TeamDatabase, actual: Actual, allow_drop: Collection[str]
) -> tuple[list[Step], list[str]]:
    """Roles that the document calls absent, or that nobody names any more and the caller lets go."""
    absent = _absent(desired)
    declared = set(desired.roles()) - absent
    steps: list[Step] = []
    kept: list[str] = []
    for name, role in sorted(actual.roles.items()):
        if name in declared:
            continue
        if name in absent or name in allow_drop:
            steps += _drop_role(name, desired.group("owner"), actual)
        elif role.comment == desired.mark:
            kept.append(
                f"role {name} is in no document; it stays until a login of its name is `absent: true`,"
                f" or: --allow-drop {name}"
            )
    return steps, kept


def _absent(desired: TeamDatabase) -> set[str]:
    return {role for login in desired.logins if login.absent for role in desired.pair(login)}


def _end_sessions(name: str) -> Step:
    statement = _text(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = {}", sql.Literal(name)
    )
    return Step(statement, "its sessions would go on without it", drops=True)


def _drop_role(name: str, heir: str, actual: Actual) -> Iterator[Step]:
    yield from _take_on(name, actual)
    yield _end_sessions(name)
    yield Step(_text("reassign owned by {} to {}", _id(name), _id(heir)), "nothing of the team's is lost")
    yield Step(_text("drop owned by {}", _id(name)), "its privileges here", drops=True)
    yield Step(_text("drop role {}", _id(name)), "the document says absent, or --allow-drop", drops=True)


def _remove_all(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    for name in sorted(actual.roles):
        # Before the database goes: that ends their sessions.
        yield from (replace(step, alone=True) for step in _take_on(name, actual))
    if desired.whole and actual.database is not None:
        yield Step(
            _text("drop database {} with (force)", _id(desired.database)),
            "the document says absent",
            True,
            True,
        )
    if not desired.whole:
        for schema in sorted(actual.schemas):
            yield Step(_text("drop schema {} cascade", _id(schema)), "the document says absent", drops=True)
    for name in sorted(actual.roles):
        yield _end_sessions(name)
        if not desired.whole:
            yield Step(_text("drop owned by {}", _id(name)), "its privileges here", drops=True)
        yield Step(_text("drop role {}", _id(name)), "the document says absent", drops=True)


# Texts


def _wanted(desired: TeamDatabase) -> list[Login]:
    return [login for login in desired.logins if not login.absent]


def _named(thing: Thing) -> str:
    if thing.kind in _NAMED_BY_TYPES:
        # The server wrote it, quoted and with its schema: regprocedure under an empty search_path.
        return thing.more or ""
    parts = (thing.schema, thing.name) if thing.schema else (thing.name,)
    return _text("{}", sql.Identifier(*parts))


def _role_name(grantee: str) -> str:
    return _text("{}", _id(grantee)) if grantee else "public"


def _list(privileges: Iterable[str]) -> str:
    return ", ".join(sorted(privileges)).lower()


def _id(name: str) -> sql.Identifier:
    return sql.Identifier(name)


def _text(template: LiteralString, *parts: sql.Composable) -> str:
    return sql.SQL(template).format(*parts).as_string(None)
