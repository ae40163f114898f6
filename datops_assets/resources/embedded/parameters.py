"""Server parameters of our own PostgreSQL, each with its reason. Text in, text out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_GIB = 1024**3


@dataclass(frozen=True)
class Machine:
    """What the parameters are chosen by, in bytes; no `shared_memory_bytes` where there is no /dev/shm."""

    memory_bytes: int
    disk_free_bytes: int
    shared_memory_bytes: int | None


def server_parameters(*, major: int, machine: Machine, durable: bool) -> dict[str, str]:
    """Parameters for a machine of this size.

    durable  False drops every guarantee against a crash of the machine: for tests
    """
    roomy = machine.memory_bytes >= 6 * _GIB
    chosen = {
        # Who gets in. 100 connections: Dagster opens one per storage and thread.
        "listen_addresses": "127.0.0.1",
        "unix_socket_permissions": "0700",
        "password_encryption": "scram-sha-256",
        "scram_iterations": "4096",  # initdb had 1, see server.py
        "max_connections": "100",
        # Change data capture and incremental backups need it from the first start: they read WAL of the past.
        "wal_level": "logical",
        "max_wal_senders": "10",
        "max_replication_slots": "10",
        # A forgotten slot must not fill the disk.
        "max_slot_wal_keep_size": "4GB" if machine.disk_free_bytes > 40 * _GIB else "1GB",
        # Loading: few checkpoints, so few full pages in the WAL.
        "max_wal_size": "4GB" if machine.disk_free_bytes > 20 * _GIB else "1GB",
        "min_wal_size": "256MB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "wal_compression": "on",
        "wal_buffers": "16MB",
        # Small on purpose: the pages of a load pass once, the rest of memory is the file cache's.
        "shared_buffers": "256MB" if roomy else "128MB",
        "effective_cache_size": f"{max(machine.memory_bytes // 2 // 1024**2, 256)}MB",
        "work_mem": "32MB" if roomy else "16MB",
        "maintenance_work_mem": "128MB" if roomy else "64MB",
        "random_page_cost": "1.1",  # no spinning disk
        "jit": "off",  # costs more than it gives on queries of a second
        # Sessions.
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        # A week of JSON log, of the server's own affairs only: in the errors of a statement DETAIL and
        # CONTEXT repeat cell values and the statement may hold a password, and whoever sent it has them.
        "logging_collector": "on",
        "log_destination": "jsonlog",
        "log_filename": "postgres-%a.log",
        "log_truncate_on_rotation": "on",
        "log_rotation_age": "1d",
        "log_rotation_size": "0",
        "log_min_messages": "log",
        "log_min_error_statement": "panic",
        "log_lock_waits": "on",
    }
    if major >= 17:
        chosen["summarize_wal"] = "on"
    if machine.shared_memory_bytes is not None and machine.shared_memory_bytes < _GIB // 4:
        # Docker's /dev/shm has 64 MB: a parallel query would fail on it.
        chosen["dynamic_shared_memory_type"] = "sysv"
    if not durable:
        chosen |= {"fsync": "off", "full_page_writes": "off"}
    return chosen


def measure_machine(folder: Path) -> Machine:
    """This machine; the disk is the one that holds `folder`."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")  # a container sees the whole machine's memory otherwise
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        memory = min(memory, int(text))
    shared = Path("/dev") / "shm"
    return Machine(
        memory_bytes=memory,
        disk_free_bytes=shutil.disk_usage(folder).free,
        shared_memory_bytes=shutil.disk_usage(shared).total if shared.is_dir() else None,
    )


def render(parameters: Mapping[str, str]) -> str:
    """The text of a PostgreSQL configuration file."""
    head = "# Written by datops at every start. Your own lines belong in ../own.conf, which is read later."
    quoted = {name: value.replace("'", "''") for name, value in parameters.items()}
    return "\n".join([head, *(f"{name} = '{value}'" for name, value in quoted.items()), ""])
