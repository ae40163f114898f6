"""Backups: a run, a restore and a drill of datops against the programs of PostgreSQL alone.

Ours packs, encrypts, hashes every file and every row, and holds a restore against that; theirs does none of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as adbc

from benchmarks.files_to_bronze import orders
from benchmarks.harness import Bench, Comparison, memory_alone
from benchmarks.physical_backups import beside_pgbackrest, physical
from benchmarks.sides import Side, in_turn, run_shell
from datops_assets.backup.destinations import FolderDestination
from datops_assets.backup.drill import drill
from datops_assets.backup.encryption import Keys, new_key, parse_key
from datops_assets.backup.logical import LogicalBackup, take_logical
from datops_assets.backup.manifest import Manifest
from datops_assets.backup.restore import restore_logical
from datops_assets.backup.runs import Taken
from datops_assets.backup.server import Server
from datops_assets.resources.warehouse import Warehouse

ROUNDS = 3
TABLES, ROWS = 6, 400_000
JOBS = 2
_KEY = new_key()
_numbers = iter(range(1_000_000))


def measure(bench: Bench) -> None:
    """Six tables of 400,000 orders with two indexes each, two jobs on either side."""
    with bench.database() as catalogue, bench.database() as source:
        _fill(source)
        logical(bench, catalogue, source)
        physical(bench, catalogue, source)
        beside_pgbackrest(bench, catalogue, _fill)


def _fill(source: Warehouse) -> None:
    for number in range(TABLES):
        with adbc.connect(source.url) as conn, conn.cursor() as cursor:
            cursor.adbc_ingest(f"orders_{number}", orders(ROWS, number * ROWS), mode="create")
            conn.commit()
        with source.connect() as conn:
            conn.execute(f"alter table orders_{number} add primary key (order_id)")
            conn.execute(f"create index on orders_{number} (customer_id, ordered_at)")
    with source.connect(autocommit=True) as conn:
        conn.execute("vacuum analyze")


# Logical backups.


def logical(bench: Bench, catalogue: Warehouse, source: Warehouse) -> None:
    """A run against pg_dump, a restore against pg_restore, a drill against its restore."""
    folder = bench.folder / "backups"
    backup = LogicalBackup(
        "bench", Server(source.parameters()), [FolderDestination("local", folder / "kept")],
        Keys.of(parse_key("BENCH_KEY", _KEY)), folder / "staging", bench.bin, JOBS,
    )  # fmt: skip
    dumped, plain = folder / "dumped", folder / "plain"
    ours = Side(lambda: take(catalogue, backup))
    packed = Side(lambda: _pg_dump(bench, source, dumped))
    uncompressed = Side(lambda: _pg_dump(bench, source, plain, "--compress=0"))
    by_hand = Side(lambda: _by_hand(bench, source, folder / "by_hand"))
    in_turn(bench, ROUNDS, ours, packed, uncompressed, by_hand)
    memory = memory_alone(catalogue, take, backup)
    manifest = take(catalogue, backup).manifest
    bench.add(
        Comparison(
            "backup.logical.vs_pg_dump", packed.seconds / ours.seconds, 1 / 1.1,
            ours.figures()
            | {"stored_mb": round(manifest.stored_bytes / 1e6, 1), **memory},
            packed.figures()
            | {
                "stored_mb": _megabytes(dumped),
                "uncompressed_seconds": round(uncompressed.seconds, 3),
                "uncompressed_cpu_s": round(uncompressed.cpu_s, 2),
                "uncompressed_mb": _megabytes(plain),
            },
            f"pg_dump --format=directory --jobs={JOBS}, which packs with gzip; uncompressed: with --compress=0. "
            f"{TABLES} tables of {ROWS:,} rows, best of {ROUNDS}. 1.1 times the time of pg_dump is 0.91 here",
        )
    )  # fmt: skip
    bench.add(
        Comparison(
            "backup.logical.vs_by_hand", by_hand.seconds / ours.seconds, 1 / 1.1, ours.figures(), by_hand.figures(),
            f"pg_dump --format=directory --jobs={JOBS} --compress=0, its files through openssl sha256, zstd -1 and "
            f"openssl aes-256-ctr, {JOBS} at once, and a sync: the same work by bare programs, but for the hash of "
            "every row, which the server makes for ours in the dump's snapshot",
        )
    )  # fmt: skip
    _restores(bench, source, backup, manifest, dumped)


def _restores(
    bench: Bench, source: Warehouse, backup: LogicalBackup, manifest: Manifest, dumped: Path
) -> None:
    ours = Side(lambda: restore(bench, source, backup, manifest))
    theirs = Side(lambda: _pg_restore(bench, dumped))
    drilled = Side(lambda: _drill(bench, backup, manifest))
    in_turn(bench, ROUNDS, ours, theirs, drilled)
    shown = f"{TABLES} tables of {ROWS:,} rows with two indexes each, {JOBS} jobs, best of {ROUNDS}"
    bench.add(
        Comparison(
            "restore.logical.vs_pg_restore", theirs.seconds / ours.seconds, 1 / 1.1,
            ours.figures()
            | {f"{step}_s": seconds for step, seconds in ours.outcome.seconds.items()}
            | memory_alone(source, _restore_alone, backup, manifest, bench.bin),
            theirs.figures(),
            f"{shown}; ours fetches, decrypts, holds every file against its hash, loads, and compares every row",
        )
    )  # fmt: skip
    bench.add(
        Comparison(
            "drill.logical.vs_restore", ours.seconds / drilled.seconds, 1 / 1.5,
            drilled.figures() | {"rto_s": drilled.outcome.rto_s}
            | {f"{step}_s": seconds for step, seconds in drilled.outcome.seconds.items()},
            ours.figures(),
            f"{shown}; a drill makes a server first. CPU seconds of its own server are not in the figure",
        )
    )  # fmt: skip


def take(catalogue: Warehouse, backup: LogicalBackup) -> Taken:
    """One backup; the last one's files go."""
    shutil.rmtree(backup.staging.parent / "kept", ignore_errors=True)
    with catalogue.connect(autocommit=True) as conn:
        return take_logical(conn, backup, why="bench")


def restore(bench: Bench, source: Warehouse, backup: LogicalBackup, manifest: Manifest) -> Any:
    """One restore into a database of its own."""
    with _fresh(bench) as name:
        return _restored(source, backup, manifest, bench.bin, name)


def _restore_alone(source: Warehouse, backup: LogicalBackup, manifest: Manifest, pg_bin: Path) -> None:
    name = f"alone_{next(_numbers)}"
    _restored(source, backup, manifest, pg_bin, name)
    with source.at("postgres").connect(autocommit=True) as conn:
        conn.execute(f"drop database {name} with (force)")


def _restored(source: Warehouse, backup: LogicalBackup, manifest: Manifest, pg_bin: Path, name: str) -> Any:
    target = Server(source.at(name).parameters())
    return restore_logical(
        manifest, backup.destinations[0], backup.keys, target, backup.staging, pg_bin=pg_bin, jobs=JOBS
    )


def _drill(bench: Bench, backup: LogicalBackup, manifest: Manifest) -> Any:
    now = datetime.now(UTC)
    done = drill(
        manifest, backup.destinations[0], backup.keys, backup.staging, now=now, next_finished_at=None,
        pg_bin=bench.bin, jobs=JOBS,
    )  # fmt: skip
    assert done.passed, done.findings
    return done


@contextmanager
def _fresh(bench: Bench) -> Iterator[str]:
    name = f"restored_{next(_numbers)}"
    try:
        yield name
    finally:
        with bench.warehouse.connect(autocommit=True) as conn:
            conn.execute(f"drop database if exists {name} with (force)")


def _pg_dump(bench: Bench, source: Warehouse, folder: Path, *more: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run(bench, source, "pg_dump", "--format=directory", f"--jobs={JOBS}", f"--file={folder}", *more)


def _by_hand(bench: Bench, source: Warehouse, folder: Path) -> None:
    _pg_dump(bench, source, folder, "--compress=0")
    steps = (
        "openssl dgst -sha256 {} > {}.sha256",
        "zstd -1 -q -c {} | openssl enc -aes-256-ctr -pass env:KEY -pbkdf2 -out {}.enc",
        "openssl dgst -sha256 {}.enc > {}.enc.sha256",
        "sync {}.enc",
        "rm {}",
    )
    one = "; ".join(steps)
    run_shell(f"ls {folder}/*.dat | xargs -P{JOBS} -I{{}} sh -c '{one}'", {"KEY": _KEY})


def _pg_restore(bench: Bench, folder: Path) -> None:
    with _fresh(bench) as name:
        with bench.warehouse.connect(autocommit=True) as conn:
            conn.execute(f"create database {name} template template0")
        target = bench.warehouse.at(name)
        _run(
            bench, target, "pg_restore", f"--jobs={JOBS}", f"--dbname={name}", "--exit-on-error", str(folder)
        )


def _run(bench: Bench, database: Warehouse, program: str, *arguments: str) -> None:
    environment = {**os.environ, **database.libpq_environment()}
    subprocess.run([str(bench.bin / program), *arguments], env=environment, check=True)


def _megabytes(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6, 1)
