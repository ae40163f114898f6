"""What a team's database shall be: values only, the same for a document, a test and a plan.

Belongs here: names that follow from names, limits as PostgreSQL's parameters. Does not: the YAML
(components/databases), what a server has (actual.py), the steps between the two (plan.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Access = Literal["owner", "writer", "reader"]
ACCESSES: tuple[Access, ...] = ("owner", "writer", "reader")
TURNS = ("a", "b")
"""Each login is two roles that take turns: the next password is another role's."""
TABLE_PRIVILEGES: Mapping[str, frozenset[str]] = {
    "reader": frozenset({"SELECT"}),
    "writer": frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"}),
}
SEQUENCE_PRIVILEGES: Mapping[str, frozenset[str]] = {
    "reader": frozenset({"SELECT"}),
    "writer": frozenset({"SELECT", "USAGE"}),
}
ROUTINE_PRIVILEGES: Mapping[str, frozenset[str]] = {
    "reader": frozenset({"EXECUTE"}),
    "writer": frozenset({"EXECUTE"}),
}
DATABASE_PRIVILEGES: Mapping[str, frozenset[str]] = {
    "owner": frozenset({"CONNECT", "TEMPORARY"}),
    "writer": frozenset({"CONNECT", "TEMPORARY"}),
    "reader": frozenset({"CONNECT"}),
}


@dataclass(frozen=True)
class Limits:
    """What one session may take. None: no limit."""

    statement_s: int | None = 300
    lock_s: int | None = 30
    idle_in_transaction_s: int | None = 60
    idle_session_s: int | None = 3600
    transaction_s: int | None = 900
    temp_file_mb: int | None = 1024

    def parameters(self, server_version: int) -> dict[str, str]:
        """The limits by PostgreSQL's names; those that a server of this version knows.

        No limit is said too: what a role begins with in its database goes before the role's own
        parameters, those before the database's, and those before the server's.
        source    PostgreSQL, "alter role", and pg_db_role_setting
        """
        seconds = {
            "statement_timeout": self.statement_s,
            "lock_timeout": self.lock_s,
            "idle_in_transaction_session_timeout": self.idle_in_transaction_s,
            "idle_session_timeout": self.idle_session_s,
        }
        if server_version >= 170000:
            seconds["transaction_timeout"] = self.transaction_s
        found = {name: "0" if value is None else f"{value}s" for name, value in seconds.items()}
        found["temp_file_limit"] = "-1" if self.temp_file_mb is None else f"{self.temp_file_mb}MB"
        return found


@dataclass(frozen=True)
class Login:
    """One way in: a person's or a program's."""

    name: str
    access: Access
    connections: int = 5
    limits: Limits = field(default_factory=Limits)
    expires: datetime | None = None
    absent: bool = False
    exports: bool = False
    """It may copy whole tables out: that is its work."""


@dataclass(frozen=True)
class TeamDatabase:
    """A database of a team, or schemas in a database that others use too."""

    name: str
    """Of the roles: `<name>_owner`, `<name>_writer`, `<name>_reader`."""
    database: str
    schemas: tuple[str, ...]
    logins: tuple[Login, ...] = ()
    whole: bool = True
    """The database is the team's alone; else only the schemas are."""
    connections: int = 50
    absent: bool = False
    team: str = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Of detection, by the names of `Thresholds`: those that are other than the server's."""

    @property
    def mark(self) -> str:
        """The comment that says whose a role, a database or a schema is."""
        return f"datops: {self.name}"

    def group(self, access: str) -> str:
        """The role without login that holds the rights."""
        return f"{self.name}_{access}"

    @property
    def groups(self) -> tuple[str, ...]:
        """The roles without login."""
        return tuple(self.group(access) for access in ACCESSES)

    def pair(self, login: Login) -> tuple[str, str]:
        """The two roles of a login."""
        return (f"{self.name}_{login.name}_{TURNS[0]}", f"{self.name}_{login.name}_{TURNS[1]}")

    @property
    def present(self) -> tuple[Login, ...]:
        """The logins that there shall be."""
        return tuple(login for login in self.logins if not login.absent)

    @property
    def absent_roles(self) -> frozenset[str]:
        """The roles of logins that there shall no longer be."""
        return frozenset(role for login in self.logins if login.absent for role in self.pair(login))

    def roles(self) -> Iterator[str]:
        """Every role there shall be, or shall no longer be."""
        yield from self.groups
        for login in self.logins:
            yield from self.pair(login)


def other_of(pair: tuple[str, str], role: str) -> str:
    """The role whose turn it is not."""
    return pair[1] if role == pair[0] else pair[0]
