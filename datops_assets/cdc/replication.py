"""The connection that follows a source's log: receive in a thread of its own, acknowledge what is durable.

psycopg has no replication API, but hands out libpq's connection; START_REPLICATION opens a COPY in
both directions there (copy_both.py). All calls on it are made by one thread, because libpq allows no other.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import pq, sql

from datops_assets.cdc import wire
from datops_assets.cdc.copy_both import CopyBoth, begin_copy
from datops_assets.errors import SourceRefusedError, SourceUnreachableError
from datops_assets.postgres.lsn import format_lsn, parse_lsn

_STATUS_EVERY_S = 10.0
"""A sixth of wal_sender_timeout's default: the server must never wonder whether we are there."""
_PLACE_EVERY_S = 1.0
"""How often a server is asked how far it has come, where that is to be known."""
_WAIT_S = 0.2
_SLOT_FREE_WITHIN_S = 10.0
"""The source notices that a reader is gone with the next message to it."""
_BATCH_BYTES = 1 << 20
"""Handed over at once: to wake the reader costs as much as receiving ten messages."""
_GATHERED_S = 0.003
"""Longest that a message waits for others to be handed over with."""
_PAUSE_S = 0.0002
"""How long to let bytes come together where few came last time. The server hands over each change by itself; to be
woken for each costs it and us six times as much as to send and to read it."""
_WORTH_WAKING_BYTES = 1 << 15
_AHEAD_BYTES = 32 << 20
"""Received before the reader must have taken it: bounds memory, and lasts for a merge."""
_NO_SUCH_SLOT = b"42704"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FORMS = (
    "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 -c bytea_output=hex -c timezone=UTC"
    " -c statement_timeout=0 -c row_security=off"
)
"""How values are written where they travel as text: a database or role may have it otherwise, and
`03.02.2026` would be another day in the warehouse. Rows that a policy hides are an error instead of missing."""


@contextmanager
def replication_connection(parameters: dict[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection that speaks the replication protocol, in plain SQL besides.

    raises     SourceUnreachableError, SourceRefusedError
    """
    try:
        conn = psycopg.connect(**{**session(parameters), "replication": "database", "autocommit": True})
    except psycopg.OperationalError as error:
        raise explained(error, parameters) from None
    try:
        yield conn
    finally:
        conn.close()


def session(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a connection whose values are written in one way, whatever the database sets."""
    options = f"{parameters.get('options', '')} {_FORMS}".strip()
    return {**parameters, "options": options, "client_encoding": "utf8"}


def explained(
    error: psycopg.Error, parameters: dict[str, Any]
) -> SourceUnreachableError | SourceRefusedError:
    """Say in one sentence why the source did not take us; libpq's own text may hold more than that."""
    where = f"{parameters.get('host')}:{parameters.get('port', 5432)}/{parameters.get('dbname')}"
    said = str(error).lower()
    if "password authentication failed" in said or "no password supplied" in said:
        return SourceRefusedError(f"{where} refuses the user or password; correct the stream's `source:`")
    if "permission denied" in said or "must be superuser or replication role" in said:
        return SourceRefusedError(
            f"{where}: the role may not replicate; on the source: alter role {parameters.get('user')} replication"
        )
    if "no pg_hba.conf entry" in said:
        return SourceRefusedError(
            f"{where}: pg_hba.conf of the source lets nobody in from here; add a line for us"
        )
    if "does not exist" in said and "database" in said:
        return SourceRefusedError(f"{where}: there is no such database; correct the stream's `source:`")
    return SourceUnreachableError(f"{where} does not answer; see that it runs, then try again")


def require_open(conn: pq.abc.PGconn, when: str) -> None:
    """Tell a lost connection from a server that says no."""
    if conn.status == pq.ConnStatus.BAD:
        raise SourceUnreachableError(f"the source closed the connection when {when}; try again")


class Receiver:
    """Follows a slot from a place on. A context manager: inside, messages arrive; outside, all is closed."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        slot: str,
        publication: str,
        start: int,
        *,
        binary: bool,
        tells_places: bool = False,
    ) -> None:
        """Know where to begin; nothing is sent yet.

        start           what was committed before this place is not sent
        tells_places    signs of life are handed over among the messages: all that was committed before the place in
                        one was sent before it
        """
        self._pgconn = conn.pgconn
        self._slot = slot
        self._tells_places = tells_places
        self._arrived: list[bytes] = []
        self._arrived_bytes = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        """Guards what has arrived and the error."""
        self._stopped = threading.Event()
        self._flushed = start
        self._received = start
        self.heard_at = time.monotonic()
        """When the server last sent anything, a sign of life included."""
        self._thread = threading.Thread(target=self._receive, name="datops-cdc-receive", daemon=True)
        options = {"proto_version": "1", "publication_names": f'"{publication}"', "messages": "true"}
        if binary:
            options["binary"] = "true"
        stated = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in options.items()
        )
        self._command = sql.SQL("START_REPLICATION SLOT {} LOGICAL {} ({})").format(
            sql.Identifier(slot), sql.SQL(format_lsn(start)), stated
        ).as_bytes(conn)  # fmt: skip

    def __enter__(self) -> Receiver:
        """Begin to receive.

        raises     SourceRefusedError: the slot is gone, or its log was dropped
                   SourceUnreachableError: somebody else reads it, or the connection was lost
        """
        given_up_at = time.monotonic() + _SLOT_FREE_WITHIN_S
        while True:
            try:
                result = begin_copy(self._pgconn, self._command)
            except psycopg.OperationalError:
                raise SourceUnreachableError(
                    f"the source closed the connection when the slot {self._slot} was to be read; try again"
                ) from None
            if isinstance(result, CopyBoth):
                self._copy = result
                self._thread.start()
                return self
            said = result.error_message.decode(errors="replace").strip().partition("\n")[0]
            require_open(self._pgconn, f"the slot {self._slot} was to be read")
            if result.error_field(pq.DiagnosticField.SQLSTATE) == _NO_SUCH_SLOT:
                raise SourceUnreachableError(  # the next try looks anew, and says what became of it
                    f"the slot {self._slot} went away when it was to be read; try again"
                )
            if "is active for PID" not in said:
                raise SourceRefusedError(
                    f"the slot {self._slot} cannot be read: {said}; see: datops cdc status"
                )
            if time.monotonic() > given_up_at:
                raise SourceUnreachableError(
                    f"somebody else reads the slot {self._slot}; end that, or try again once it has ended"
                )
            time.sleep(_WAIT_S)

    def __exit__(self, *_: object) -> None:
        """Say for the last time what is durable, and stop."""
        self._stopped.set()
        self._thread.join()

    def acknowledge(self, lsn: int) -> None:
        """Let the source forget what is before `lsn`: it is committed in the warehouse."""
        self._flushed = max(self._flushed, lsn)

    def batches(self, idle_s: float) -> Iterator[list[bytes]]:
        """Yield pgoutput messages in order, some at a time; none after each `idle_s` seconds without any.

        raises     SourceUnreachableError: the connection was lost
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._arrived or self._error is not None, idle_s)
                if self._error is not None and not self._arrived:
                    raise self._error
                messages, self._arrived, self._arrived_bytes = self._arrived, [], 0
                self._changed.notify()
            yield messages

    def _receive(self) -> None:
        try:
            self._loop()
        except psycopg.OperationalError:
            self._fail(
                SourceUnreachableError(f"the source closed the connection of slot {self._slot}; try again")
            )
        except BaseException as error:  # handed to the reader, who raises it
            self._fail(error)

    def _loop(self) -> None:
        batch: list[bytes] = []
        size, seen, began, told_at, told = 0, 0, 0.0, 0.0, -1
        every_s = _PLACE_EVERY_S if self._tells_places else _STATUS_EVERY_S
        while not self._stopped.is_set():
            now = time.monotonic()
            if now - told_at >= every_s or self._flushed != told:
                told_at, told = now, self._flushed
                self._tell()
            if size >= _BATCH_BYTES or (batch and now - began >= _GATHERED_S):
                if not self._offer(batch, size):
                    continue  # the reader is busy: keep the server informed, read no more
                batch, size, seen = [], 0, 0
            if not batch:
                began = now
            taken = self._take(batch)
            if taken:
                self.heard_at = now
                size += taken
                continue
            readable, _, _ = select.select([self._pgconn.socket], [], [], _GATHERED_S if batch else _WAIT_S)
            if readable and size - seen < _WORTH_WAKING_BYTES:
                time.sleep(_PAUSE_S)
            seen = size
            self._copy.fill()
        self._tell()

    def _take(self, batch: list[bytes]) -> int:
        """Add what has arrived to the batch; returns its bytes, 0 where nothing has."""
        taken = self._copy.take(batch, with_keepalives=self._tells_places)
        self._received = max(self._received, taken.received)
        if taken.wants_reply:
            self._tell()
        return taken.size

    def _tell(self) -> None:
        now_us = int((datetime.now(UTC) - _EPOCH).total_seconds() * 1_000_000)
        # A source that decodes what is not ours for minutes sends nothing by itself: it is asked for a sign of life.
        asks = self._tells_places or time.monotonic() - self.heard_at > _STATUS_EVERY_S / 2
        status = wire.write_status(self._flushed, now_us, received=self._received, wants_reply=asks)
        self._copy.put(status)

    def _offer(self, batch: list[bytes], size: int) -> bool:
        with self._changed:
            if not self._changed.wait_for(lambda: self._arrived_bytes < _AHEAD_BYTES, _WAIT_S):
                return False
            self._arrived += batch
            self._arrived_bytes += size
            self._changed.notify()
        return True

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify()


def read_timeline(conn: psycopg.Connection[Any]) -> int:
    """The timeline that the server writes, or that a standby replays.

    conn       speaks the replication protocol
    raises     SourceUnreachableError
    """
    result = conn.pgconn.exec_(b"IDENTIFY_SYSTEM")
    require_open(conn.pgconn, "its timeline was read")
    return int(result.get_value(0, 1) or b"0")


def read_fork(conn: psycopg.Connection[Any], timeline: int, parent: int) -> int:
    """Where `timeline` left its ancestor `parent`, in bytes of log; 0 where it does not descend from it.

    conn       speaks the replication protocol
    raises     SourceUnreachableError
    """
    result = conn.pgconn.exec_(b"TIMELINE_HISTORY %d" % timeline)
    require_open(conn.pgconn, "its timelines were read")
    history = result.get_value(0, 1) if result.status == pq.ExecStatus.TUPLES_OK else None
    for line in (history or b"").decode(errors="replace").splitlines():
        fields = line.split("\t")
        if fields[0].strip() == str(parent) and len(fields) > 1:
            return parse_lsn(fields[1])
    return 0
