"""A PostgreSQL server as backups see it: how to get in, and the programs that speak to it.

Secrets travel in the environment of a program that we start, never in its arguments.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from datops_assets.errors import BackupError, SourceRefusedError, SourceUnreachableError, WarehouseError
from datops_assets.resources.embedded.programs import Programs, find_programs

if TYPE_CHECKING:
    import psycopg

_CONNECT_TIMEOUT_S = 10
_VARIABLES = {"dbname": "PGDATABASE", "application_name": "PGAPPNAME"}
# All that a program of PostgreSQL needs of ours; what else is in our environment is none of its business.
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_NOISE = re.compile(r"^(pg_\w+|psql): (warning|detail|hint|last built-in).*", re.IGNORECASE)
_PROGRESS = re.compile(rb"pg_\w+: (?!error|fatal|warning|detail|hint)")
_ERROR = re.compile(r"pg_\w+: error: ")
_NEWEST = 10**6
_PIPE_BYTES = 1 << 20
"""A program that writes while we pack waits less for us: the kernel's own 64 KB are full at once."""


@dataclass(frozen=True)
class Server:
    """One database and the way in, by libpq's names. Printing it shows no secret."""

    parameters: Mapping[str, Any] = field(repr=False)

    @property
    def dbname(self) -> str:
        """The database."""
        return str(self.parameters.get("dbname") or self.parameters.get("user") or "postgres")

    @property
    def address(self) -> str:
        """host:port/database: no user, no password."""
        host = self.parameters.get("host") or "localhost"
        return f"{host}:{self.parameters.get('port') or 5432}/{self.dbname}"

    def at(self, dbname: str) -> Server:
        """Another database of the same server."""
        return replace(self, parameters={**self.parameters, "dbname": dbname})

    def with_option(self, name: str, value: str) -> Server:
        """The same, with a setting of the server's for every session."""
        options = f"{self.parameters.get('options') or ''} -c {name}={value}".strip()
        return replace(self, parameters={**self.parameters, "options": options})

    def connect(self, **more: Any) -> psycopg.Connection[Any]:
        """Open a connection: autocommit.

        raises    SourceUnreachableError, SourceRefusedError: a sentence without user and password
        """
        import psycopg

        wanted = {
            "application_name": "datops",
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "client_encoding": "UTF8",
            "autocommit": True,
        }
        try:
            return psycopg.connect(**{**wanted, **self.parameters, **more})
        except psycopg.OperationalError as error:
            raise self._explain(str(error)) from None

    def environment(self) -> dict[str, str]:
        """The way in for a program that speaks libpq."""
        named = {
            _VARIABLES.get(name, "PG" + name.upper().replace("_", "")): str(value)
            for name, value in {"application_name": "datops", **self.parameters}.items()
        }
        return {
            "PATH": _PATH,
            "LC_ALL": "C",
            "PGTZ": "UTC",
            "PGCONNECT_TIMEOUT": str(_CONNECT_TIMEOUT_S),
            **named,
        }

    def run(
        self, command: Sequence[str], what: str, *, stdout: Path | None = None,
        heard: Callable[[str], None] | None = None,
    ) -> str:  # fmt: skip
        """Run a program against this database to its end; returns what it said on stderr.

        what      for the message: what could not be done
        heard     called with each line it says, while it runs; its progress is not kept then
        promise   when we are interrupted, the program is ended before we go on
        raises    BackupError: it failed. SourceUnreachableError: the connection broke
        """
        with open(os.devnull if stdout is None else stdout, "wb") as out:  # noqa: PTH123 - os.devnull is a text
            process = subprocess.Popen(
                command, env=self.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE,
                umask=0o077, cwd="/", start_new_session=True,
            )  # fmt: skip
            try:
                said = b"".join(_listen(process.stderr, heard)) if heard else process.communicate()[1]
                process.wait()
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                raise
        text = said.decode("utf-8", "replace")
        if process.returncode:
            raise self._failed(text, what, process.returncode)
        return text

    @contextmanager
    def stream(self, command: Sequence[str], what: str) -> Iterator[IO[bytes]]:
        """What a program writes, while it runs; at the end it must have ended well.

        promise   when the reader stops early, the program is ended before we go on
        raises    as `run`; also after the reader read everything
        """
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                command, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said,
                umask=0o077, cwd="/", start_new_session=True,
            )  # fmt: skip
            assert process.stdout is not None
            with suppress(OSError, AttributeError):  # the kernel may refuse; another system has no such pipe
                fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            cut: Exception | None = None
            try:
                try:
                    yield process.stdout
                except (tarfile.TarError, EOFError, OSError) as error:
                    cut = error  # what the program says of it comes first
                if cut is None:
                    process.wait()
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGTERM)
                process.stdout.close()
                code = process.wait()
            said.seek(0)
            text = said.read(1 << 20).decode("utf-8", "replace")
        if code > 0:
            raise self._failed(text, what, code)
        if cut is not None:
            raise cut
        if code:
            raise BackupError(f"{what}: the program was ended by signal {-code}")

    def _failed(self, said: str, what: str, code: int) -> Exception:
        lines = [line for line in said.splitlines() if line.strip() and not _NOISE.match(line)]
        # Several processes of one program write at once: what they say of their progress may run together.
        lines = [line for line in lines if _ERROR.search(line)] or lines
        if "max_locks_per_transaction" in said:
            return BackupError(
                f"{what}: {self.address} has no room for a lock on each table at once;"
                " raise its max_locks_per_transaction and restart it"
            )
        shown = "; ".join(_plain(line) for line in lines[:3]) or f"it ended with {code}"
        lost = (
            "server closed the connection",
            "could not connect",
            "connection to server",
            "terminating connection",
        )
        if any(words in said for words in lost):
            refused = self._explain(said)
            if isinstance(refused, SourceRefusedError):
                return refused
            return SourceUnreachableError(f"{what}: the connection to {self.address} broke ({shown})")
        return BackupError(f"{what}: {shown}")

    def _explain(self, said: str) -> Exception:
        where = self.address
        if "password" in said or "authentication" in said:
            return SourceRefusedError(
                f"{where} refuses the user or password; correct what password_env names"
            )
        if "pg_hba.conf" in said:
            return SourceRefusedError(
                f"{where} lets nobody in from here; ask for an entry in its pg_hba.conf"
            )
        if "does not exist" in said:
            return SourceRefusedError(
                f"there is no database or role of that name at {where}; correct the URL"
            )
        return SourceUnreachableError(f"{where} does not answer; check that it runs, then try again")


def _listen(stderr: IO[bytes] | None, heard: Callable[[str], None]) -> Iterator[bytes]:
    """Every line but those of progress."""
    for line in stderr or ():
        heard(line.decode("utf-8", "replace"))
        if not _PROGRESS.match(line):
            yield line


def _plain(line: str) -> str:
    """A line of a program without statements and rows, which may hold values."""
    line = line.strip()
    return line if len(line) <= 300 else line[:299] + "…"


def fitting_programs(server_version: int, pg_bin: Path | None) -> Programs:
    """The client programs for a server: of its own major version, else the oldest newer ones.

    server_version    as PostgreSQL counts it: 160014
    raises            BackupError: all programs at hand are older than the server
    """
    from datops_assets.resources.embedded.programs import wheel_folders

    major = server_version // 10000
    found = []
    for folder in ([pg_bin] if pg_bin else []) + wheel_folders():
        with suppress(WarehouseError):
            found.append(find_programs(folder))
    fitting = sorted(
        (programs.major, index) for index, programs in enumerate(found) if programs.major >= major
    )
    if not fitting:
        newest = max((programs.major for programs in found), default=0)
        raise BackupError(
            f"the server is PostgreSQL {major}, the programs at hand are of {newest or 'none'};"
            f" set DATOPS_PG_BIN to the bin folder of PostgreSQL {major} or newer"
        )
    return found[fitting[0][1]]
