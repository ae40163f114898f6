"""Whether a kept password still lets its login in: for servers that show their administrator no password.

Belongs here: the try. Does not: making and keeping passwords (secrets.py), what a superuser compares
instead (scram.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import psycopg

from datops_assets.databases.actual import Actual, Connect
from datops_assets.databases.desired import TeamDatabase
from datops_assets.databases.secrets import Secret

_OF_THE_ADMINISTRATOR = frozenset({
    "user", "password", "passfile", "dbname", "service", "options", "sslcert", "sslkey", "sslpassword",
})  # fmt: skip
_LONGEST_TRY_S = 10
_REFUSED = "password authentication failed"
"""libpq shows no SQLSTATE of a login that failed; a server that says it in another language leaves us in doubt."""


def try_passwords(
    connect: Connect, desired: TeamDatabase, actual: Actual, secrets: Mapping[str, Secret]
) -> dict[str, bool]:
    """Log in once as each login; by role, whether its kept password is the server's.

    returns    nothing of a role that was let in without its password (`trust`, a certificate), that has ended,
               or that was refused for another reason: too many connections, no way through pg_hba.conf
    """
    if actual.database is None:
        return {}
    with closing(connect(None)) as conn:
        row = conn.execute("select now()").fetchone()
        assert row is not None
        given = conn.info.get_parameters()
        place: dict[str, Any] = {key: given[key] for key in given.keys() - _OF_THE_ADMINISTRATOR}
        place |= {"host": conn.info.host, "port": conn.info.port, "connect_timeout": _LONGEST_TRY_S}
    found = {}
    for login in desired.present:
        secret = secrets.get(login.name)
        role = actual.roles.get(secret.user) if secret is not None else None
        if secret is None or role is None or not role.login or role.never_valid:
            continue
        if role.valid_until is not None and role.valid_until <= row[0]:
            continue
        same = _try(place | {"dbname": desired.database}, secret)
        if same is not None:
            found[role.name] = same
    return found


def _try(place: Mapping[str, Any], secret: Secret) -> bool | None:
    try:
        with closing(psycopg.connect(**place, user=secret.user, password=secret.password)) as conn:
            return True if conn.pgconn.used_password else None
    except psycopg.OperationalError as error:
        return False if _REFUSED in str(error) else None
