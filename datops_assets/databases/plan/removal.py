"""Steps that remove: a login, or all of a database. They come of an explicit word only."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from psycopg import sql

from datops_assets.databases.actual import Actual
from datops_assets.databases.desired import TeamDatabase
from datops_assets.databases.plan.roles import take_on
from datops_assets.databases.plan.steps import Step, identifier, text


def removal_steps(
    desired: TeamDatabase, actual: Actual, allow_drop: Collection[str]
) -> tuple[list[Step], list[str]]:
    """Roles that the document calls absent, or that nobody names any more and the caller lets go."""
    absent = desired.absent_roles
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


def _end_sessions(name: str) -> Step:
    statement = text(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = {}", sql.Literal(name)
    )
    return Step(statement, "its sessions would go on without it", drops=True)


def _drop_role(name: str, heir: str, actual: Actual) -> Iterator[Step]:
    yield from take_on(name, actual)
    yield _end_sessions(name)
    yield Step(
        text("reassign owned by {} to {}", identifier(name), identifier(heir)),
        "nothing of the team's is lost",
    )
    yield Step(text("drop owned by {}", identifier(name)), "its privileges here", drops=True)
    yield Step(
        text("drop role {}", identifier(name)), "the document says absent, or --allow-drop", drops=True
    )


def remove_all(desired: TeamDatabase, actual: Actual) -> Iterator[Step]:
    """The database or its schemas, then the roles."""
    for name in sorted(actual.roles):
        # Before the database goes: that ends their sessions.
        yield from (replace(step, alone=True) for step in take_on(name, actual))
    if desired.whole and actual.database is not None:
        yield Step(
            text("drop database {} with (force)", identifier(desired.database)),
            "the document says absent",
            True,
            True,
        )
    if not desired.whole:
        for schema in sorted(actual.schemas):
            yield Step(
                text("drop schema {} cascade", identifier(schema)), "the document says absent", drops=True
            )
    for name in sorted(actual.roles):
        yield _end_sessions(name)
        if not desired.whole:
            yield Step(text("drop owned by {}", identifier(name)), "its privileges here", drops=True)
        yield Step(text("drop role {}", identifier(name)), "the document says absent", drops=True)
