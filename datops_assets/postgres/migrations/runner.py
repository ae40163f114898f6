"""Bring the catalogue to the version this datops needs."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from datops_assets.errors import WarehouseError

_log = logging.getLogger(__name__)
_NAME = re.compile(r"\d{8}T\d{4}__[a-z0-9_]+")
_LOCK = "select pg_advisory_xact_lock(hashtextextended('datops.migrations', 0))"
_TABLE = """
create schema if not exists datops;
create table if not exists datops.migrations (
    name        text primary key,
    sha256      text not null,
    applied_at  timestamptz not null default clock_timestamp()
);
"""


@dataclass(frozen=True)
class Migration:
    """One SQL file."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Fingerprint of the text; line ends do not count, because git may change them."""
        return hashlib.sha256(self.text.replace("\r\n", "\n").encode()).hexdigest()


def read_migrations(folder: Path = Path(__file__).parent) -> list[Migration]:
    """All migrations of a folder in the order they are applied."""
    files = sorted(folder.glob("*.sql"))
    wrong = [file.name for file in files if not _NAME.fullmatch(file.stem)]
    if wrong:
        raise WarehouseError(
            f"{folder / wrong[0]} is not named like 20260131T0900__what_it_does.sql; rename it"
        )
    return [Migration(file.stem, file.read_text(encoding="utf-8")) for file in files]


def upgrade(
    conn: psycopg.Connection[Any], migrations: Sequence[Migration] | None = None, *, grant: bool = False
) -> list[str]:
    """Apply what is missing, all of it or nothing, and answer the names applied.

    conn     autocommit, as the role that will own and write the tables
    grant    give readers their rights again, even where nothing is missing
    raises   WarehouseError: an applied file has changed, or the warehouse is newer than
             this datops. Nothing is written
    promise  two processes at once apply each file once; where nothing is missing it only reads,
             because every step, command and sensor tick comes through here
    """
    wanted = read_migrations() if migrations is None else migrations
    if not grant and not pending(conn, wanted):
        return []
    with conn.transaction():
        conn.execute(_LOCK)
        if not _is_prepared(conn):
            conn.execute(_TABLE)
        missing = _compare(wanted, _applied(conn))
        for migration in missing:
            conn.execute(migration.text)
            conn.execute(
                "insert into datops.migrations (name, sha256) values (%s, %s)",
                (migration.name, migration.sha256),
            )
        grant_reader(conn)
    return [migration.name for migration in missing]


def pending(conn: psycopg.Connection[Any], migrations: Sequence[Migration] | None = None) -> list[str]:
    """Names of the migrations that `upgrade` would apply."""
    wanted = read_migrations() if migrations is None else migrations
    applied = _applied(conn) if _is_prepared(conn) else {}
    return [migration.name for migration in _compare(wanted, applied)]


def grant_reader(conn: psycopg.Connection[Any]) -> None:
    """Let the role datops_reader read silver and gold, and whatever we create there later.

    Default privileges make the grants survive a table swap: the new table has them too.
    Roles belong to the server, not to the database, so another database may have made it.
    """
    present = conn.execute("select 1 from pg_roles where rolname = 'datops_reader'").fetchone()
    if present is None:
        try:
            with conn.transaction():
                conn.execute("create role datops_reader nologin")
        except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            pass  # another database of this server was faster
        except psycopg.errors.InsufficientPrivilege:
            _log.warning(
                "role datops_reader is missing and we may not create it; "
                "ask for it, then run: datops db upgrade"
            )
            return
    for schema in ("silver", "gold"):
        if conn.execute("select to_regnamespace(%s) is not null", (schema,)).fetchone() == (True,):
            _grant(conn, schema)


_UNREADABLE = """
select c.relname from pg_class c
where c.relnamespace = %s::regnamespace and c.relkind in ('r', 'v', 'm', 'f', 'p')
  and pg_has_role(c.relowner, 'usage') and not has_table_privilege('datops_reader', c.oid, 'select')
"""


def _grant(conn: psycopg.Connection[Any], schema: str) -> None:
    # Only our own tables, one by one: "all tables" fails at the first one of another owner.
    name = sql.Identifier(schema)
    reads = "select has_schema_privilege('datops_reader', %s, 'usage')"
    if conn.execute(reads, (schema,)).fetchone() != (True,):
        conn.execute(sql.SQL("grant usage on schema {} to datops_reader").format(name))
    for (table,) in conn.execute(_UNREADABLE, (schema,)).fetchall():
        conn.execute(sql.SQL("grant select on {} to datops_reader").format(sql.Identifier(schema, table)))
    conn.execute(
        sql.SQL("alter default privileges in schema {} grant select on tables to datops_reader").format(name)
    )


def _is_prepared(conn: psycopg.Connection[Any]) -> bool:
    return conn.execute("select to_regclass('datops.migrations') is not null").fetchone() == (True,)


def _applied(conn: psycopg.Connection[Any]) -> dict[str, str]:
    return dict(conn.execute("select name, sha256 from datops.migrations").fetchall())


def _compare(wanted: Sequence[Migration], applied: dict[str, str]) -> list[Migration]:
    unknown = sorted(set(applied) - {migration.name for migration in wanted})
    if unknown:
        raise WarehouseError(
            f"the warehouse was upgraded by a newer datops ({unknown[-1]}); install that version here"
        )
    for migration in wanted:
        if applied.get(migration.name, migration.sha256) != migration.sha256:
            raise WarehouseError(
                f"migration {migration.name} has changed since it was applied; "
                "restore the file and put the change into a new one"
            )
    return [migration for migration in wanted if migration.name not in applied]
