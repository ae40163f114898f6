"""A moment of a database: a snapshot, and the very place in the log where it stands.

What is read in the snapshot is what a server holds that recovers to that place: transactions that were committed
before it, and no others. An exported snapshot alone has no such place, as commits become visible a little later than
they are written; PostgreSQL knows the place when it makes a logical replication slot, so a temporary one is made.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg

from datops_assets.backup.server import Server

_WAIT_S = 120
"""How long transactions that are under way are waited for: the place is behind the last of them."""


@dataclass(frozen=True)
class Moment:
    """What was committed before `lsn` is in the snapshot, and nothing else."""

    at: datetime
    """What was committed by then is in it."""
    lsn: str
    snapshot: str
    """Its exported name, for as long as the moment is held."""


class NoMomentError(Exception):
    """Why there is none, in a sentence for people. The backup is good without."""


@contextmanager
def hold_moment(server: Server) -> Iterator[Moment]:
    """Find one, and keep its snapshot open.

    raises     NoMomentError: the server cannot tell one
    """
    with server.connect(options=f"-c lock_timeout={_WAIT_S}s -c statement_timeout=0") as asking:
        level = asking.execute("show wal_level").fetchone()
    if level != ("logical",):
        raise NoMomentError(f"wal_level is {level[0] if level else 'unknown'}, expected logical")
    with server.connect(replication="database", options=f"-c lock_timeout={_WAIT_S}s") as keeper:
        row = keeper.execute("select clock_timestamp()").fetchone()
        assert row is not None
        name = f"datops_moment_{secrets.token_hex(6)}"
        try:
            made = keeper.execute(
                f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT"
            ).fetchone()
        except psycopg.Error as error:
            raise NoMomentError(
                f"no snapshot could be taken ({type(error).__name__}, SQLSTATE {error.sqlstate})"
            ) from None
        assert made is not None
        yield Moment(row[0], made[1], made[2])
