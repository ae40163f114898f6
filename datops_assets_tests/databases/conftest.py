"""Team databases on the test run's server: made under names of their own, and gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from datops_assets.databases import (
    Applied,
    FileStore,
    Limits,
    Login,
    Secret,
    SecretStore,
    TeamDatabase,
    apply,
)
from datops_assets.resources.warehouse import Warehouse

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
_numbers = iter(range(1, 10**9))


@dataclass
class Teams:
    """A server, and the store of its passwords."""

    server: Warehouse
    store: SecretStore
    prefix: str

    def connect(self, dbname: str | None = None) -> psycopg.Connection[Any]:
        """As administrator."""
        return self.server.at(dbname).connect() if dbname else self.server.connect()

    def declare(self, team: str = "sales", **changes: Any) -> TeamDatabase:
        """A database with one login of each kind."""
        name = f"{self.prefix}_{team}"
        logins = (
            Login("maker", "owner"),
            Login("etl", "writer", limits=Limits(statement_s=20)),
            Login("bi", "reader", connections=3),
        )
        return TeamDatabase(
            **{
                "name": name,
                "database": name,
                "schemas": ("main",),
                "logins": logins,
                "team": team,
                **changes,
            }
        )

    def apply(self, desired: TeamDatabase, **how: Any) -> Applied:
        """Make it so."""
        return apply(self.connect, desired, self.store, NOW, **how)

    def secret(self, desired: TeamDatabase, login: str) -> Secret:
        """What a program of the team has."""
        found = self.store.read(desired.name, login)
        assert found is not None
        return found

    def log_in(self, desired: TeamDatabase, login: str, dbname: str | None = None) -> psycopg.Connection[Any]:
        """As a program of the team."""
        secret = self.secret(desired, login)
        return psycopg.connect(
            host=self.server.host, port=self.server.port, user=secret.user, password=secret.password,
            dbname=dbname or desired.database, autocommit=True,
        )  # fmt: skip

    def run(self, statement: str, dbname: str | None = None) -> list[tuple[Any, ...]]:
        """As administrator, over a connection of its own."""
        with closing(self.connect(dbname)) as conn:
            done = conn.execute(statement.encode())
            return done.fetchall() if done.description else []

    def sweep(self) -> None:
        """Drop all that has the prefix."""
        with closing(self.connect()) as conn:
            like = self.prefix.replace("_", r"\_") + "%"
            for (name,) in conn.execute(
                "select datname from pg_database where datname like %s", (like,)
            ).fetchall():
                conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            roles = [
                row[0] for row in conn.execute("select rolname from pg_roles where rolname like %s", (like,))
            ]
            for name in roles:
                conn.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
            for name in roles:
                conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.fixture
def teams(server: Warehouse, tmp_path: Path) -> Iterator[Teams]:
    """A server without team databases."""
    made = Teams(server, FileStore(tmp_path / "secrets"), f"t{os.getpid()}_{next(_numbers)}")
    yield made
    made.sweep()
