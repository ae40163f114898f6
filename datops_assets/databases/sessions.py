"""The sessions of a server at one moment. Read only; no text of a statement leaves the server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg

_SESSIONS: LiteralString = """
select a.pid, a.backend_start, a.usename, a.datname, a.state, a.application_name, host(a.client_addr),
       extract(epoch from clock_timestamp() - a.xact_start)::float8,
       extract(epoch from clock_timestamp() - a.query_start)::float8,
       extract(epoch from clock_timestamp() - a.state_change)::float8,
       extract(epoch from clock_timestamp() - l.waitstart)::float8,
       cardinality(pg_blocking_pids(a.pid)) > 0,
       (select count(*) from pg_stat_activity b
         where b.wait_event_type = 'Lock' and a.pid = any(pg_blocking_pids(b.pid))),
       coalesce(c.tuples_processed, 0), coalesce(c.bytes_processed, 0)
  from pg_stat_activity a
  left join lateral (select min(waitstart) as waitstart from pg_locks where pid = a.pid and not granted) l on true
  left join pg_stat_progress_copy c on c.pid = a.pid and c.command = 'COPY TO'
 where a.backend_type = 'client backend' and a.usename is not null and a.pid <> pg_backend_pid()
"""
_SLOTS: LiteralString = """
select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true)::int, 0)
"""


@dataclass(frozen=True)
class Session:
    """One session; ages in seconds, None where there is nothing of the kind under way."""

    pid: int
    backend_start: datetime
    role: str
    database: str | None
    state: str | None
    application: str
    client: str | None
    transaction_s: float | None = None
    statement_s: float | None = None
    in_state_s: float | None = None
    lock_wait_s: float | None = None
    blocked: bool = False
    blocks: int = 0
    copied_rows: int = 0
    copied_bytes: int = 0

    @property
    def key(self) -> tuple[int, datetime]:
        """Numbers of processes come again; with its start a session is itself."""
        return (self.pid, self.backend_start)

    @property
    def is_active(self) -> bool:
        """A statement of it is under way."""
        return self.state == "active"

    @property
    def is_in_transaction(self) -> bool:
        """It does nothing and keeps its locks."""
        return self.state is not None and self.state.startswith("idle in transaction")


def read_sessions(conn: psycopg.Connection[Any]) -> list[Session]:
    """Every session of a client but our own."""
    return [Session(*row) for row in conn.execute(_SESSIONS)]


def read_places(conn: psycopg.Connection[Any]) -> int:
    """How many connections the server has for those who are no superusers."""
    row = conn.execute(_SLOTS).fetchone()
    assert row is not None
    return int(row[0])
