"""Do what a plan says: passwords are kept first, then all statements in one transaction.

A database is made and dropped outside of it, because PostgreSQL lets nothing else near that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.databases.actual import Connect, read_actual
from datops_assets.databases.desired import Login, TeamDatabase, other_of
from datops_assets.databases.passwords import try_passwords
from datops_assets.databases.plan import VERIFIER, Plan, Step, plan
from datops_assets.databases.scram import make_verifier
from datops_assets.databases.secrets import Secret, SecretStore, make_secret, next_secret
from datops_assets.errors import DeclarationError, TerminalError

_LOCK = "select pg_advisory_lock(hashtextextended('datops.team_database.' || %s, 0))"
_VERIFIERS = re.compile(r"SCRAM-SHA-256\$\S+")
GRACE = timedelta(hours=24)
"""How long the password before stays good, so that programs have time to read the new one."""


class StepRefusedError(TerminalError):
    """The server refused a statement of a plan; what its transaction had done was undone.

    Next: give the role what it lacks, or correct the document; then `datops database plan`.
    """


@dataclass(frozen=True)
class Applied:
    """What was done, and what a new look found still to do: nothing, unless somebody works against us."""

    done: tuple[Step, ...]
    left: Plan


def read_plan(
    connect: Connect,
    desired: TeamDatabase,
    store: SecretStore,
    *,
    allow_drop: Collection[str] = (),
    adopt: Collection[str] = (),
) -> Plan:
    """Look at the server and say what would be done; changes nothing, makes no password.

    raises    DeclarationError, WarehouseError, SecretStoreError: see `plan`, `read_actual`
    """
    return _plan(connect, desired, store, allow_drop, adopt)


def _plan(
    connect: Connect,
    desired: TeamDatabase,
    store: SecretStore,
    allow_drop: Collection[str],
    adopt: Collection[str],
    set_unseen: bool = False,
) -> Plan:
    actual = read_actual(connect, desired)
    known = _known(desired, store)
    if not actual.superuser and not desired.absent:
        actual = replace(actual, let_in=try_passwords(connect, desired, actual, known))
    return plan(desired, actual, known, allow_drop=allow_drop, adopt=adopt, set_unseen=set_unseen)


def apply(
    connect: Connect,
    desired: TeamDatabase,
    store: SecretStore,
    now: datetime,
    *,
    allow_drop: Collection[str] = (),
    adopt: Collection[str] = (),
) -> Applied:
    """Make the server so, under a lock on the database's name.

    raises    StepRefusedError, and as `read_plan`
    promise   a password is kept before the server has it, so a crash between the two is mended by the
              next call; all statements but create and drop database commit together or not at all
    """
    with closing(connect(None)) as guard:
        guard.execute(_LOCK, (desired.name,))
        if not desired.absent:
            _make_missing(desired, store, now)
        wanted = _plan(connect, desired, store, allow_drop, adopt, set_unseen=True)
        _run(connect, desired, wanted.steps)
        for login in desired.logins:
            if login.absent or desired.absent:
                store.forget(desired.name, login.name)
        return Applied(wanted.steps, read_plan(connect, desired, store))


def rotate(
    connect: Connect,
    desired: TeamDatabase,
    store: SecretStore,
    login: str,
    now: datetime,
    grace: timedelta = GRACE,
    *,
    hurry: bool = False,
) -> Secret:
    """Give a login its next password: the other role's turn; the one before is good for `grace` more.

    hurry     also where the password before the present one is still good: whoever has it is shut out
    raises    DeclarationError: there is no such login, or it was rotated a short while ago; and as `apply`
    promise   no session ends and at every moment a kept secret lets its holder in
    """
    found = _login(desired, login)
    with closing(connect(None)) as guard:
        guard.execute(_LOCK, (desired.name,))
        current = store.read(desired.name, login)
        if current is None:
            secret = make_secret(desired.pair(found)[0], now)
        else:
            if current.previous_until is not None and current.previous_until > now and not hurry:
                raise DeclarationError(
                    [
                        f"{desired.name}: the password of {login} before the present one is good until"
                        f" {current.previous_until:%Y-%m-%d %H:%M} UTC, and rotating would end it; wait, or: --hurry"
                    ]
                )
            secret = next_secret(other_of(desired.pair(found), current.user), now, now + grace)
        # The role can log in before anybody is told its name: first the server, then the store.
        actual = read_actual(connect, desired)
        secrets = _known(desired, store) | {login: secret}
        _run(connect, desired, plan(desired, actual, secrets, set_unseen=True).steps)
        store.write(desired.name, login, secret)
    return secret


def _login(desired: TeamDatabase, name: str) -> Login:
    for login in desired.logins:
        if login.name == name and not login.absent:
            return login
    known = ", ".join(login.name for login in desired.logins if not login.absent) or "none"
    raise DeclarationError([f"{desired.name} has no login {name!r}, expected one of: {known}"])


def _known(desired: TeamDatabase, store: SecretStore) -> dict[str, Secret]:
    found = {
        login.name: store.read(desired.name, login.name)
        for login in desired.logins
        if not login.absent and not desired.absent
    }
    return {name: secret for name, secret in found.items() if secret is not None}


def _make_missing(desired: TeamDatabase, store: SecretStore, now: datetime) -> None:
    for login in desired.logins:
        if not login.absent and store.read(desired.name, login.name) is None:
            store.write(desired.name, login.name, make_secret(desired.pair(login)[0], now))


def _run(connect: Connect, desired: TeamDatabase, steps: Iterable[Step]) -> None:
    steps = list(steps)
    alone = [step for step in steps if step.alone]
    together = [step for step in steps if not step.alone]
    if alone:
        with closing(connect(None)) as conn:
            for step in alone:
                _send(conn, step)
    if together:
        gone = desired.absent and desired.whole
        with closing(connect(None if gone else desired.database)) as conn, conn.transaction():
            for step in together:
                _send(conn, step)


def _send(conn: psycopg.Connection[Any], step: Step) -> None:
    statement: sql.Composed | bytes = step.statement.encode()
    if step.password is not None:
        role = sql.Identifier(step.password.user)
        statement = sql.SQL("alter role {} password {}").format(role, make_verifier(step.password.password))
    try:
        conn.execute(statement)
    except psycopg.Error as error:
        said = _VERIFIERS.sub(VERIFIER, error.diag.message_primary or type(error).__name__)
        raise StepRefusedError(
            f"the server refused `{step.statement}` ({said}); the transaction was undone, mend it and apply again"
        ) from None
