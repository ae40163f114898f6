"""A server that recovers a restored folder to a place in the log, shut off from everything, and then answers or ends.

It has no network (a Unix socket in a private folder only), none of the settings of the server that was copied (its
archive, its standbys, its libraries, its subscriptions), and a log to read from that lies beside it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from datops_assets.backup.server import Server
from datops_assets.backup.tablespaces import MAP, require_none_made
from datops_assets.errors import BackupError
from datops_assets.postgres.lsn import parse_lsn
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets.resources.embedded.account import Account, choose_account
from datops_assets.resources.embedded.postmaster import disown_stale_pid, is_alive, read_postmaster
from datops_assets.resources.embedded.programs import Programs, find_programs
from datops_assets.resources.embedded.server import socket_folder

_SAID = re.compile(
    r"(recovery stopping|redo done|last completed transaction|selected new timeline|archive recovery)"
)
_CONTROL = re.compile(
    r"^max_(connections|worker_processes|wal_senders|prepared_xacts|locks_per_xact) setting:\s+(\d+)"
)
_PARAMETER = {"prepared_xacts": "max_prepared_transactions", "locks_per_xact": "max_locks_per_transaction"}
_HBA = "local all all trust\nlocal replication all trust\n"


@dataclass(frozen=True)
class Target:
    """How far a recovery goes; without any of them to the end of the log that is there."""

    time: datetime | None = None
    lsn: str | None = None
    name: str | None = None
    inclusive: bool = True
    """Whether what lies at the very target is in it."""
    timeline: int | None = None
    """The timeline to end on; None for the newest that the log has."""

    @property
    def is_end(self) -> bool:
        """Whether all of the log is wanted."""
        return self.time is None and self.lsn is None and self.name is None

    def __str__(self) -> str:
        if self.time is not None:
            said = f"time {self.time.isoformat()}"
        elif self.lsn is not None:
            said = f"LSN {self.lsn}"
        else:
            said = f"name {self.name}" if self.name is not None else "the end of the log"
        return said if self.timeline is None else f"{said} on timeline {self.timeline}"

    def parameters(self) -> dict[str, str]:
        """PostgreSQL's words for it; the others are emptied, whatever the copied server had."""
        said = {
            "recovery_target": "",
            "recovery_target_xid": "",
            "recovery_target_time": self.time.isoformat() if self.time is not None else "",
            "recovery_target_lsn": self.lsn or "",
            "recovery_target_name": self.name or "",
        }
        # The empty ones first: PostgreSQL takes one behind another that has a value for a second target.
        in_order = dict(sorted(said.items(), key=lambda item: item[1] != ""))
        return in_order | {
            "recovery_target_inclusive": "on" if self.inclusive else "off",
            "recovery_target_action": "promote",
            "recovery_target_timeline": str(self.timeline) if self.timeline else "latest",
        }


class RecoveringServer:
    """A restored folder and the server that recovers it: `<folder>/data`, the log to read in `<folder>/wal`."""

    def __init__(self, folder: Path, server_version: int, pg_bin: Path | None) -> None:
        """Choose programs and account, and a folder that the account reaches.

        raises     WarehouseError: there are no programs of this major version
        """
        self._embedded = EmbeddedServer(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._account: Account = choose_account(folder)
        programs = find_programs(pg_bin, server_version // 10000)
        self.programs: Programs = self._embedded.settle(self._account, programs)
        self.base = self._embedded.base
        self.data, self.wal = self.base / "data", self.base / "wal"

    def start(self, target: Target, *, durable: bool, superuser: str, dbname: str) -> Server:
        """Recover to the target and answer on the socket.

        durable    False for a drill: what is restored is thrown away
        raises     BackupError: it ended before, with what it said
        """
        require_none_made(self.programs, self.data, self.wal, parse_lsn(target.lsn) if target.lsn else None)
        self.data.chmod(0o700)
        # The map would have it make links to the paths of the copied server, which may be there, and in use.
        for name in ("standby.signal", "postmaster.pid", "postmaster.opts", MAP):
            (self.data / name).unlink(missing_ok=True)
        (self.data / "recovery.signal").touch()
        for name, text in (("scratch.conf", ""), ("scratch_hba.conf", _HBA), ("scratch_ident.conf", "")):
            (self.base / name).write_text(text)
        self._log.write_text("")
        self._account.take_all(self.base)
        disown_stale_pid(self.data)
        sockets = socket_folder(self._account)
        (self.base / "socket").write_text(str(sockets))
        pid = self._account.start(self._command(target, sockets, durable=durable), self._log)
        while not ((running := read_postmaster(self.data)) and running.ready):
            if not is_alive(pid):
                shutil.rmtree(sockets, ignore_errors=True)
                raise BackupError(f"the server does not recover to {target}: {self._last_words()}")
            time.sleep(0.05)
        return Server({"host": str(sockets), "port": 5432, "user": superuser, "dbname": dbname})

    def stop(self) -> None:
        """Stop it; a server that does not run is left alone."""
        self._embedded.stop()

    def said(self) -> list[str]:
        """Where the recovery ended, in PostgreSQL's words."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return [line.partition("LOG:  ")[2] for line in lines if _SAID.search(line) and "LOG:  " in line]

    def check_pages(self) -> list[str]:
        """Hold every page of the stopped server against its checksum; findings."""
        done = self._account.run([self.programs.path("pg_checksums"), "--check", "-D", str(self.data)])
        if done.returncode == 0:
            return []
        bad = [line for line in done.stderr.splitlines() if "checksum verification failed" in line]
        said = bad[:3] or done.stderr.strip().splitlines()[-1:]
        return [f"pages are damaged ({len(bad) or 'unknown'}): {'; '.join(said)}"]

    @property
    def _log(self) -> Path:
        return self.base / "start.log"

    def _last_words(self) -> str:
        lines = [
            line
            for line in self._log.read_text(errors="replace").splitlines()
            if re.search("FATAL|PANIC", line)
        ]
        said = [line.partition(":  ")[2] for line in lines]
        return "; ".join(said[-2:]) or "it said nothing"

    def _command(self, target: Target, sockets: Path, *, durable: bool) -> list[str]:
        wal = shlex.quote(str(self.wal)).replace("%", "%%")
        parameters: Mapping[str, str] = {
            "config_file": str(self.base / "scratch.conf"), "hba_file": str(self.base / "scratch_hba.conf"),
            "ident_file": str(self.base / "scratch_ident.conf"), "listen_addresses": "", "port": "5432",
            "unix_socket_directories": str(sockets), "unix_socket_permissions": "0700", "ssl": "off",
            "logging_collector": "off", "log_destination": "stderr", "lc_messages": "C", "log_timezone": "UTC",
            "timezone": "UTC", "external_pid_file": "",
            # Nothing of the copied server's dealings with others, and none of its libraries.
            "archive_mode": "off", "archive_command": "", "archive_library": "", "primary_conninfo": "",
            "primary_slot_name": "", "shared_preload_libraries": "", "session_preload_libraries": "",
            "local_preload_libraries": "", "max_logical_replication_workers": "0", "synchronous_standby_names": "",
            # Tablespaces are folders here, at which a recovery would stop.
            "allow_in_place_tablespaces": "on",
            "event_triggers": "off", "archive_cleanup_command": "", "recovery_end_command": "",
            "recovery_min_apply_delay": "0", "autovacuum": "off", "hot_standby": "off",
            "restore_command": f"cp {wal}/%f %p", "fsync": "on" if durable else "off",
            **target.parameters(), **self._sizes(),
        }  # fmt: skip
        since = {"event_triggers": 17, "allow_in_place_tablespaces": 15}
        parameters = {
            name: value for name, value in parameters.items() if since.get(name, 0) <= self.programs.major
        }
        given = [part for name, value in parameters.items() for part in ("-c", f"{name}={value}")]
        return [self.programs.path("postgres"), "-D", str(self.data), *given]

    def _sizes(self) -> dict[str, str]:
        """What the log asks for: prepared transactions and locks of the copied server."""
        done = self._account.run([self.programs.path("pg_controldata"), "-D", str(self.data)])
        found = [match for line in done.stdout.splitlines() if (match := _CONTROL.match(line))]
        return {_PARAMETER.get(match[1], f"max_{match[1]}"): match[2] for match in found}
