"""The driver's errors that a person must act on, as sentences. Errors of a statement pass through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from datops_assets.errors import DatopsError, LockTakenError, WarehouseError, WarehouseUnreachableError

if TYPE_CHECKING:
    import psycopg


@contextmanager
def server_errors(where: str) -> Iterator[None]:
    """Turn what the server says about itself into a sentence about `where` (host:port/database).

    The driver's error is not chained: its text may hold cell values (DETAIL, CONTEXT).
    """
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        sentence = explain(error, where)
        if sentence is None:
            raise
        raise sentence from None


def explain(error: psycopg.Error, where: str) -> DatopsError | None:
    """The sentence for an error that is about the server; None for one about a statement."""
    import psycopg

    kind, sentence = _by_sqlstate(error.sqlstate or "")
    if kind is None and isinstance(error, psycopg.OperationalError):
        said = str(error)  # no SQLSTATE for a connection that never was: libpq has only words
        found = [answer for words, answer in _BY_WORDS.items() if words in said]
        if error.sqlstate is None or error.sqlstate.startswith("08"):
            kind, sentence = (found or [_NO_ANSWER])[0]
    return kind(sentence.format(where=where)) if kind else None


def explain_sqlstate(sqlstate: str, where: str) -> DatopsError | None:
    """As `explain`, for another driver's error."""
    kind, sentence = _by_sqlstate(sqlstate)
    return kind(sentence.format(where=where)) if kind else None


def _by_sqlstate(sqlstate: str) -> tuple[type[DatopsError] | None, str]:
    found = _BY_SQLSTATE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2])
    return found or (None, "")


_NO_ANSWER = (
    WarehouseUnreachableError,
    "the warehouse at {where} does not answer; check that it runs, then run: datops doctor",
)
_FULL = (
    WarehouseError,
    "the disk of the warehouse at {where} is full and nothing was kept; free some space, then run it again",
)
_TAKEN = (
    WarehouseUnreachableError,
    "all connections of the warehouse at {where} are taken; try again, or raise its max_connections",
)
_STOPPING = (
    WarehouseUnreachableError,
    "the warehouse at {where} is starting or stopping; try again, or see: datops warehouse status",
)
_PASSWORD = (
    WarehouseError,
    "the warehouse at {where} refuses the user or the password; correct the URL, then run: datops doctor",
)
_NO_DATABASE = (
    WarehouseError,
    "the server has no database {where}; create it or correct the URL, then run: datops doctor",
)
_NO_ENTRY = (
    WarehouseError,
    "the server of {where} lets nobody in from here; ask for an entry in its pg_hba.conf, "
    "or for sslmode=require in the URL",
)
_NO_WRITES = (
    WarehouseError,
    "the warehouse at {where} takes no writes (a standby, or set read-only); "
    "point DATOPS_WAREHOUSE_URL at the primary",
)
_BROKEN = (
    WarehouseUnreachableError,
    "the connection to the warehouse at {where} broke; try again, and if it stays so: datops doctor",
)
_CROSSED = (
    LockTakenError,
    "another transaction of the warehouse at {where} came in between, so nothing was kept; try again",
)
_LOCKED = (
    LockTakenError,
    "another connection to the warehouse at {where} kept a lock for too long, so nothing was kept; try again",
)
_CANCELLED = (
    WarehouseError,
    "a statement was cancelled by the warehouse at {where} (statement_timeout, or an administrator), "
    "and nothing was kept; see: alter role … set statement_timeout, then run it again",
)
_SHORT = (
    WarehouseError,
    "the warehouse at {where} ran out of memory or of another resource, and nothing was kept; "
    "see its log, then run it again",
)
_BY_CLASS: dict[str, tuple[type[DatopsError], str]] = {"08": _BROKEN, "40": _CROSSED, "53": _SHORT}
_BY_SQLSTATE: dict[str, tuple[type[DatopsError], str]] = {
    "53100": _FULL,
    "53300": _TAKEN,
    "55P03": _LOCKED,
    "57014": _CANCELLED,
    "57P01": _STOPPING,
    "57P02": _STOPPING,
    "57P03": _STOPPING,
    "28P01": _PASSWORD,
    "28000": _NO_ENTRY,
    "3D000": _NO_DATABASE,
    "25006": _NO_WRITES,
}
_BY_WORDS: dict[str, tuple[type[DatopsError], str]] = {
    "No space left on device": _FULL,
    "too many clients": _TAKEN,
    "too many connections": _TAKEN,
    "remaining connection slots": _TAKEN,
    "starting up": _STOPPING,
    "shutting down": _STOPPING,
    "recovery mode": _STOPPING,
    "authentication failed": _PASSWORD,
    "no password supplied": _PASSWORD,
    "pg_hba.conf": _NO_ENTRY,
    "does not exist": _NO_DATABASE,
}
