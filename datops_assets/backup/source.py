"""The database that is backed up: what has to be known of it and its server, and how its errors are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg

from datops_assets.backup.server import Server
from datops_assets.errors import BackupError, SourceUnreachableError

_DATABASE: LiteralString = """
select json_build_object('encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype,
         'provider', d.datlocprovider, 'locale', {locale}, 'owner', d.datdba::regrole::text,
         'settings', coalesce((select json_agg(x) from pg_db_role_setting s, unnest(s.setconfig) x
                                where s.setdatabase = d.oid and s.setrole = 0), '[]'))
  from pg_database d where d.datname = current_database()
"""
_SERVER: LiteralString = """
select current_setting('server_version_num')::int, pg_database_size(current_database()), pg_is_in_recovery(),
       (select system_identifier from pg_control_system()), (select timeline_id from pg_control_checkpoint())
"""


@contextmanager
def as_source(server: Server) -> Iterator[None]:
    """Say of a broken connection that it is the source's. The driver's text may hold values."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        if "max_locks_per_transaction" in (error.diag.message_hint or ""):
            # Whoever comes last finds no room: pg_dump says the same of itself (server.py).
            raise BackupError(
                f"{server.address} has no room for a lock on each table at once;"
                " raise its max_locks_per_transaction and restart it"
            ) from None
        state = getattr(error, "sqlstate", None) or type(error).__name__
        raise SourceUnreachableError(f"reading {server.address} broke off ({state}); try again") from None
    except psycopg.Error as error:
        raise BackupError(
            f"{server.address} refused to be read ({type(error).__name__}, SQLSTATE {error.sqlstate})"
        ) from None


def describe_database(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    """Encoding, locale, owner and settings of the database."""
    version_ = conn.info.server_version
    locale: LiteralString = (
        "d.datlocale" if version_ >= 170000 else "d.daticulocale" if version_ >= 150000 else "null"
    )
    query = _DATABASE.replace("{locale}", locale)
    row = conn.execute(query if version_ >= 150000 else query.replace("d.datlocprovider", "'c'")).fetchone()
    assert row is not None
    return row[0]


def ask_server(conn: psycopg.Connection[Any]) -> tuple[int, int, bool, int, int]:
    """Version, bytes of the database, whether in recovery, system identifier, timeline."""
    row = conn.execute(_SERVER).fetchone()
    assert row is not None
    return row
