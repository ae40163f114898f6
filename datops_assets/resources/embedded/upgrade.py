"""Move the server's data to the major version of the programs, by pg_upgrade."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from datops_assets.errors import WarehouseError
from datops_assets.resources.embedded.account import Account, choose_account
from datops_assets.resources.embedded.cluster import USER, create_cluster, finish_swap, swap_in
from datops_assets.resources.embedded.failures import folder_errors
from datops_assets.resources.embedded.programs import Programs, find_programs
from datops_assets.resources.embedded.server import EmbeddedServer, socket_folder


def upgrade_server(server: EmbeddedServer) -> Path | None:
    """Upgrade the data folder to the server's programs, and leave the server running.

    returns  the folder with the old data, for a person to delete; None when there was
             nothing to upgrade
    raises   WarehouseError: it cannot be done. The old data is as it was
    promise  the old data is copied, not linked, so until it is deleted there is a way
             back; killed at any moment, the next start finds the old or the new cluster
    """
    with server.lock():
        finish_swap(server.data)
        found, programs = server.data_major(), server.programs()
        if found is None or found == programs.major:
            return None
        if found > programs.major:
            raise WarehouseError(
                f"{server.data} was written by PostgreSQL {found}, the programs are older "
                f"({programs.version}); set DATOPS_PG_BIN to newer ones"
            )
        kept = server.data.with_name(f"data.{found}")
        if kept.exists():
            raise WarehouseError(
                f"{kept} is left from an earlier upgrade; "
                "delete it or move it away, then run: datops warehouse upgrade"
            )
        _upgrade(server, find_programs(server.pg_bin, found), programs, kept)
    server.start()
    return kept


def _upgrade(server: EmbeddedServer, old: Programs, new: Programs, kept: Path) -> None:
    server.halt()
    account = choose_account(server.data)
    with folder_errors(server.base):
        old, new = server.settle(account, old), server.settle(account, new)
        _shut_down_cleanly(server, account, old)
        fresh = server.data.with_name("data.fresh")
        shutil.rmtree(fresh, ignore_errors=True)
        create_cluster(server.base, fresh, account, new, durable=server.durable)
        server.write_parameters(account, new, fresh)
        _run_pg_upgrade(server, account, old, new, fresh)
        swap_in(fresh, server.data, kept)


def _shut_down_cleanly(server: EmbeddedServer, account: Account, old: Programs) -> None:
    """pg_upgrade refuses a cluster whose last shutdown was a crash: recover it first."""
    server.launch(account, old)
    server.halt()


def _run_pg_upgrade(
    server: EmbeddedServer, account: Account, old: Programs, new: Programs, fresh: Path
) -> None:
    sockets = socket_folder(account)
    command = [new.path("pg_upgrade"), "--username", USER, "--socketdir", str(sockets), "--copy"]
    command += ["--old-bindir", str(old.bin), "--new-bindir", str(new.bin)]
    command += ["--old-datadir", str(server.data), "--new-datadir", str(fresh)]
    command += [] if server.durable else ["--no-sync"]
    try:
        done = account.run(command, folder=server.base, PGPASSWORD=(server.base / "password").read_text())
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    if done.returncode:
        raise WarehouseError(
            f"pg_upgrade failed: {_reason(done.stdout + done.stderr)}; "
            f"the data is as it was, look into {fresh / 'pg_upgrade_output.d'}"
        )


def _reason(said: str) -> str:
    lines: Sequence[str] = [line.strip() for line in said.splitlines() if line.strip()]
    marks = ("fatal", "error", "failure")
    wrong = [line for line in lines if any(mark in line.lower() for mark in marks)]
    return (wrong or lines or ["it said nothing"])[-1]
