"""Steps of roles: the roles themselves, their passwords, who is in whom, and with which parameters each begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from psycopg import sql

from datops_assets.databases.actual import Actual, Membership, Role
from datops_assets.databases.desired import Login, TeamDatabase, other_of
from datops_assets.databases.plan.steps import VERIFIER, Step, identifier, text
from datops_assets.databases.scram import is_verifier_of
from datops_assets.databases.secrets import Secret


def role_steps(
    desired: TeamDatabase, actual: Actual, secrets: Mapping[str, Secret], set_unseen: bool
) -> Iterator[Step]:
    """Make the roles, give them their attributes and passwords."""
    for name in desired.groups:
        yield from _role(actual.roles.get(name), name, desired, login=False, connections=-1, until=None)
    for login in desired.present:
        pair, secret = desired.pair(login), secrets.get(login.name)
        current = secret.user if secret is not None and secret.user in pair else pair[0]
        resting = other_of(pair, current)
        until = None if secret is None else secret.previous_until
        for name, has_login, valid in ((current, True, login.expires), (resting, until is not None, until)):
            found = actual.roles.get(name)
            yield from _role(
                found, name, desired, login=has_login, connections=login.connections, until=valid
            )
        why = _wrong_password(actual, current, secret, set_unseen)
        if why is not None:
            yield Step(text("alter role {} password ", identifier(current)) + VERIFIER, why, password=secret)


def _wrong_password(actual: Actual, role: str, secret: Secret | None, set_unseen: bool) -> str | None:
    """Why a role has to be given its password; None: it has it, or nobody can say and it shall be left alone."""
    known = actual.roles.get(role)
    if known is None or (actual.superuser and known.verifier is None):
        return "it has no password"
    other = "it has another password, or none of SCRAM"
    if actual.superuser:
        same = secret is not None and is_verifier_of(known.verifier or "", secret.password)
        return None if same else other
    if role in actual.let_in:
        return None if actual.let_in[role] else other
    return f"{actual.admin} cannot see which it has" if set_unseen or not known.login else None


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
        yield Step(text("create role {}", identifier(name)), "it is not there")
        found = Role(name, False, True, frozenset(), -1, None, None)
    words = [f"no{power}" for power in sorted(found.powers)]
    if found.login != login:
        words.append("login" if login else "nologin")
    if not found.inherit:
        words.append("inherit")
    if found.connections != connections:
        words.append(f"connection limit {connections}")
    if found.valid_until != until or found.never_valid:
        words.append(text("valid until {}", sql.Literal(_moment(until))))
    if words:
        yield Step(text("alter role {} ", identifier(name)) + " ".join(words), "its attributes are others")
    if found.comment != desired.mark:
        yield Step(
            text("comment on role {} is {}", identifier(name), sql.Literal(desired.mark)), "says whose it is"
        )


def _moment(until: datetime | None) -> str:
    return "infinity" if until is None else until.astimezone(UTC).isoformat()


def membership_steps(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    """Put each login into the role of its access, and nobody else into any of them."""
    wanted = {
        # An owner acts as the owner role, so that what it makes belongs to that role; the others have
        # their rights by themselves and may take on no role at all.
        (desired.group(login.access), name): (False, login.access != "owner", login.access == "owner")
        for login in desired.present
        for name in desired.pair(login)
    }
    declared = set(desired.roles())
    left_alone = desired.absent_roles | {
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
                text(
                    "revoke {} from {} granted by {} cascade",
                    identifier(row.role),
                    identifier(row.member),
                    identifier(row.grantor),
                ),
                "nobody declared it",
            )
    yield from take_on(desired.group("owner"), actual)
    have = {(row.role, row.member) for row in kept}
    for (role, member), (_, inherit, taken_on) in wanted.items():
        if (role, member) not in have:
            options = f" with admin false, inherit {str(inherit).lower()}, set {str(taken_on).lower()}"
            yield Step(
                text("grant {} to {}", identifier(role), identifier(member)) + options,
                "a login stands on its role",
            )


def _is_own(row: Membership, actual: Actual) -> bool:
    """PostgreSQL makes whoever creates a role, and is no superuser, its member with the admin option."""
    return not actual.superuser and row.member == actual.admin


def take_on(role: str, actual: Actual) -> Iterator[Step]:
    """An administrator who is no superuser acts on what a role owns as a member of it."""
    if actual.superuser or any(
        row.role == role and _is_own(row, actual) and row.inherit and row.set for row in actual.members
    ):
        return
    options = " with inherit true, set true"
    yield Step(
        text("grant {} to {}", identifier(role), identifier(actual.admin)) + options, "to act on what it owns"
    )


def setting_steps(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    """Set the parameters with which each role begins."""
    for login in desired.present:
        wanted = _parameters(desired, login, actual.server_version)
        if not actual.limits_temp_files:
            wanted.pop("temp_file_limit", None)
        for role in desired.pair(login):
            for (name, database), found in sorted(actual.settings.items()):
                if name == role and database != desired.database:
                    where = text(" in database {}", identifier(database)) if database else ""
                    yield Step(
                        text("alter role {}", identifier(role)) + where + " reset all",
                        f"sets {', '.join(sorted(found))}",
                    )
            found = actual.settings.get((role, desired.database), {})
            base = text("alter role {} in database {} ", identifier(role), identifier(desired.database))
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
        "search_path": ", ".join(text("{}", identifier(name)) for name in desired.schemas),
        "password_encryption": "scram-sha-256",
        **login.limits.parameters(server_version),
    }
    if login.access == "owner":
        parameters["role"] = desired.group("owner")
    return parameters


def _parameter(name: str) -> str:
    return text("{}", sql.Identifier(*name.split(".")))


def _value(key: str, value: str) -> str:
    return value if key == "search_path" else text("{}", sql.Literal(value))


def _is_same(key: str, found: str | None, wanted: str) -> bool:
    if key == "search_path" and found is not None:
        return found.replace('"', "") == wanted.replace('"', "")  # quoted where PostgreSQL needs it
    return found == wanted
