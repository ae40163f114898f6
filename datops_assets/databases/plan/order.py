"""The whole plan: its steps in the order in which a server takes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from datops_assets.databases.actual import Actual, new_database
from datops_assets.databases.desired import TeamDatabase
from datops_assets.databases.plan.removal import removal_steps, remove_all
from datops_assets.databases.plan.rights import database_steps, default_steps, owner_steps, privilege_steps
from datops_assets.databases.plan.roles import membership_steps, role_steps, setting_steps
from datops_assets.databases.plan.steps import Plan, Step, identifier, text
from datops_assets.databases.secrets import Secret
from datops_assets.errors import DeclarationError


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
    set_unseen  set passwords again where nobody can tell which the server has
    raises      DeclarationError: a name is taken by something that is not ours
    promise     after the steps, a plan of what is there then has none
    """
    _refuse_strangers(desired, actual, adopt)
    if desired.absent:
        return Plan(tuple(remove_all(desired, actual)))
    steps: list[Step] = []
    if actual.database is None:
        steps.append(
            Step(
                text("create database {} template template0", identifier(desired.database)),
                "it is not there",
                True,
            )
        )
        actual = new_database(desired, actual)
    steps += role_steps(desired, actual, secrets, set_unseen)
    steps += membership_steps(desired, actual)
    steps += setting_steps(desired, actual)
    steps += database_steps(desired, actual)
    steps += owner_steps(desired, actual)
    steps += privilege_steps(desired, actual)
    steps += default_steps(desired, actual)
    gone, kept = removal_steps(desired, actual, allow_drop)
    return Plan((*steps, *gone), tuple(kept), tuple(_cannot(desired, actual, secrets)))


def _cannot(desired: TeamDatabase, actual: Actual, secrets: Mapping[str, Secret]) -> Iterator[str]:
    unseen = [
        login.name
        for login in desired.present
        if login.name in secrets and secrets[login.name].user in actual.roles.keys() - actual.let_in.keys()
    ]
    if unseen and not actual.superuser:
        yield (
            f"{actual.admin} is no superuser, and logging in did not tell whether the password of"
            f" {', '.join(unseen)} is still the kept one; apply sets it again"
        )
    if not actual.limits_temp_files:
        yield (
            f"{actual.admin} may not limit temporary files; as a superuser:"
            f" grant set on parameter temp_file_limit to {text('{}', identifier(actual.admin))}"
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
