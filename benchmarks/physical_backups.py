"""Physical backups: a run, a restore and a drill against pg_basebackup and tar, the same work by hand, and other tools.

pg_basebackup alone packs nothing and hashes nothing; by hand is pg_basebackup through zstd and openssl, hashed as it
comes and as it is kept, which is what ours does of it without authentication and without looking at single files.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.backup_peers import DEBIAN_BIN, Barman, NoPeerError, PgBackRest, debian_server
from benchmarks.harness import Bench, Comparison, memory_alone
from benchmarks.sides import Side, in_turn, run_shell
from datops_assets.backup.destinations import FolderDestination
from datops_assets.backup.encryption import Keys, new_key, parse_key
from datops_assets.backup.manifest import Manifest
from datops_assets.backup.physical import PhysicalBackup, take_physical
from datops_assets.backup.physical_drill import drill_physical
from datops_assets.backup.physical_restore import Link, moment_of, plan_folder, restore_folder
from datops_assets.backup.recovery import Target
from datops_assets.backup.runs import Taken
from datops_assets.backup.server import Server
from datops_assets.resources.warehouse import Warehouse

ROUNDS = 3
JOBS = 2
_KEY = new_key()
_STREAM = "--pgdata=- --format=tar --wal-method=fetch --checkpoint=fast"


def physical(bench: Bench, catalogue: Warehouse, source: Warehouse) -> None:
    """A run, a restore, a drill; then the same beside Barman, on the same server."""
    folder = bench.folder / "copies"
    backup = _declared(bench.bin, source, folder)
    bare = folder / "bare"
    ours = Side(lambda: copy(catalogue, backup))
    hashed = Side(lambda: copy(catalogue, dataclasses.replace(backup, content=True)))
    theirs = Side(lambda: _pg_basebackup(bench, source, bare))
    packed = Side(lambda: _pg_basebackup(bench, source, bare, "--compress=client-gzip:1"))
    sides = [ours, theirs, packed, hashed]
    by_hand = Side(lambda: _by_hand(bench, source, folder / "by_hand")) if _has_tools() else None
    in_turn(bench, ROUNDS, *sides, *([by_hand] if by_hand else []))
    memory = memory_alone(catalogue, copy, backup)
    manifest = copy(catalogue, backup).manifest
    size_mb = round(manifest.plain_bytes / 1e6, 1)
    told = (
        f"{size_mb} MB, best of {ROUNDS}. Ours packs, encrypts, hashes every file and holds it against the server's "
        "manifest"
    )
    bench.add(
        Comparison(
            "backup.physical.vs_pg_basebackup", theirs.seconds / ours.seconds, 1 / 1.1,
            ours.figures()
            | {"stored_mb": round(manifest.stored_bytes / 1e6, 1), **memory,
               "with_content_seconds": round(hashed.seconds, 3)},
            theirs.figures()
            | {"stored_mb": size_mb, "gzip_seconds": round(packed.seconds, 3), "gzip_cpu_s": round(packed.cpu_s, 2)},
            "pg_basebackup --format=tar --wal-method=fetch, nothing packed; gzip: with --compress=client-gzip:1. "
            f"{told}; with_content: and hashes every row",
        )
    )  # fmt: skip
    if by_hand:
        bench.add(
            Comparison(
                "backup.physical.vs_by_hand", by_hand.seconds / ours.seconds, 1 / 1.1, ours.figures(),
                by_hand.figures(),
                "pg_basebackup | openssl sha256, zstd -1 -T2 | openssl aes-256-ctr | openssl sha256, and a sync: the "
                f"same work by bare programs. {told}",
            )
        )  # fmt: skip
    _pg_basebackup(bench, source, bare)
    _recoveries(bench, backup, manifest, bare / "base.tar")
    _beside("backup.physical.vs_barman", lambda: _beside_barman(bench, catalogue, source, backup))


def beside_pgbackrest(bench: Bench, catalogue: Warehouse, fill: Callable[[Warehouse], None]) -> None:
    """A run and a restore beside pgBackRest, on a server of Debian's PostgreSQL 15."""

    def measure() -> None:
        with debian_server(bench) as (source, data, sockets):
            fill(source)
            backup = _declared(DEBIAN_BIN, source, bench.folder / "copies15")
            tool = PgBackRest(bench, data, source.port, sockets)
            sides = _against(bench, catalogue, backup, tool)
            stored = {"stored_mb": tool.stored_mb}
            _tell(
                bench, "pgbackrest", *sides, stored,
                "pgBackRest 2.45, zst level 1, AES-256-CBC, process-max 2, PostgreSQL 15 of Debian on both sides; it "
                "reads the server's files itself and hashes each with SHA-1",
            )  # fmt: skip

    _beside("backup.physical.vs_pgbackrest", measure)


def _beside_barman(bench: Bench, catalogue: Warehouse, source: Warehouse, backup: PhysicalBackup) -> None:
    tool = Barman(bench, source)
    try:
        sides = _against(bench, catalogue, backup, tool)
    finally:
        tool.stop(source)
    _tell(
        bench, "barman", *sides, {},
        "Barman 3.19.1, backup_method postgres, nothing packed, encrypted or hashed; its restore is an rsync",
    )  # fmt: skip


def _beside(key: str, measure: Callable[[], None]) -> None:
    try:
        measure()
    except NoPeerError as error:
        print(f"{key}: skipped: {error}")


def _against(
    bench: Bench, catalogue: Warehouse, backup: PhysicalBackup, tool: Barman | PgBackRest
) -> tuple[Side, Side, Side, Side]:
    """Our run and theirs, our restore and theirs."""
    folder = backup.staging.parent
    ours, theirs = Side(lambda: copy(catalogue, backup)), Side(tool.backup)
    in_turn(bench, ROUNDS, ours, theirs)
    chain = [Link(copy(catalogue, backup).manifest, backup.destinations[0])]
    back = Side(lambda: _restore(chain, backup, folder / "back"))
    theirs_back = Side(lambda: tool.restore(folder / "theirs_back"))
    in_turn(bench, ROUNDS, back, theirs_back)
    return ours, theirs, back, theirs_back


def _tell(
    bench: Bench, name: str, ours: Side, theirs: Side, back: Side, theirs_back: Side, stored: dict[str, float],
    note: str,
) -> None:  # fmt: skip
    stored_mb = round(ours.outcome.manifest.stored_bytes / 1e6, 1)
    bench.add(
        Comparison(
            f"backup.physical.vs_{name}", theirs.seconds / ours.seconds, 1.0,
            ours.figures() | {"stored_mb": stored_mb}, theirs.figures() | stored,
            f"{note}. Best of {ROUNDS}",
        )
    )  # fmt: skip
    fetch_s = back.outcome.seconds["fetch"]
    bench.add(
        Comparison(
            f"restore.physical.vs_{name}", theirs_back.seconds / fetch_s, 1.0,
            {"seconds": fetch_s, "whole_seconds": round(back.seconds, 3)}, theirs_back.figures(),
            f"{note}. Of ours the part that theirs does: files in a folder; whole: recovered, too, and every page "
            f"looked at. Best of {ROUNDS}",
        )
    )  # fmt: skip


def _declared(pg_bin: Path, source: Warehouse, folder: Path) -> PhysicalBackup:
    return PhysicalBackup(
        "bench", Server(source.parameters()), [FolderDestination("local", folder / "kept")],
        Keys.of(parse_key("BENCH_KEY", _KEY)), folder / "staging", pg_bin, JOBS, content=False,
    )  # fmt: skip


def _recoveries(bench: Bench, backup: PhysicalBackup, manifest: Manifest, tar: Path) -> None:
    chain = [Link(manifest, backup.destinations[0])]
    folder = bench.folder / "copies"
    restored = Side(lambda: _restore(chain, backup, folder / "back"))
    unpacked = Side(lambda: _untar(tar, folder / "untarred"))
    drilled = Side(lambda: _drill_physical(bench, chain, backup))
    in_turn(bench, ROUNDS, restored, unpacked, drilled)
    steps = {f"{step}_s": seconds for step, seconds in restored.outcome.seconds.items()}
    alike_s = steps["recover_s"] + steps["pages_s"]
    bench.add(
        Comparison(
            "restore.physical.vs_tar", (unpacked.seconds + alike_s) / restored.seconds, 1 / 1.1,
            restored.figures() | steps,
            unpacked.figures() | {"with_recovery_and_pages_s": round(unpacked.seconds + alike_s, 3)},
            "tar -x of what pg_basebackup wrote, and the recovery and look at every page that ours took, which are the "
            "same programs; ours fetches, decrypts, unpacks, and holds every file against its hash. CPU seconds of the "
            f"recovering server are not in the figures. Best of {ROUNDS}",
        )
    )  # fmt: skip
    read_s = drilled.outcome.seconds["read"]
    bench.add(
        Comparison(
            "drill.physical.vs_restore_and_read", (restored.seconds + read_s) / drilled.seconds, 1.0,
            drilled.figures() | {"rto_s": drilled.outcome.rto_s}
            | {f"{step}_s": seconds for step, seconds in drilled.outcome.seconds.items()},
            restored.figures() | {"read_s": read_s} | steps,
            "a restore fetches, holds every file against its hash, recovers and checks every page; the read is one of "
            "all rows. CPU seconds of the recovering server are not in the figures",
        )
    )  # fmt: skip


def copy(catalogue: Warehouse, backup: PhysicalBackup) -> Taken:
    """One physical backup; the last one's files go."""
    shutil.rmtree(backup.staging.parent / "kept", ignore_errors=True)
    with catalogue.connect(autocommit=True) as conn:
        return take_physical(conn, backup, why="bench")


def _pg_basebackup(bench: Bench, source: Warehouse, folder: Path, *more: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    run_shell(
        f"'{bench.bin}/pg_basebackup' {_STREAM.replace('--pgdata=-', f'--pgdata={folder}')} {' '.join(more)}",
        source.libpq_environment(),
    )


def _has_tools() -> bool:
    lacking = [name for name in ("bash", "zstd", "openssl", "tee") if shutil.which(name) is None]
    if lacking:
        print(f"backup.physical.vs_by_hand: skipped: there is no {', '.join(lacking)}")
    return not lacking


def _by_hand(bench: Bench, source: Warehouse, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run_shell(
        f"'{bench.bin}/pg_basebackup' {_STREAM} | tee >(openssl dgst -sha256 > {folder}/plain.sha256) | zstd -1 -T2 -q"
        f" | openssl enc -aes-256-ctr -pass env:KEY -pbkdf2 | tee >(openssl dgst -sha256 > {folder}/stored.sha256)"
        f" > {folder}/base.tar.zst.enc; sync {folder}/base.tar.zst.enc",
        {**source.libpq_environment(), "KEY": _KEY},
    )


def _untar(tar: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run_shell(f"tar -xf {tar} -C {folder}", {})


def _restore(chain: list[Link], backup: PhysicalBackup, back: Path) -> Any:
    shutil.rmtree(back, ignore_errors=True)
    target = moment_of(chain)
    plan = plan_folder(chain, back, target, lost="nothing")
    # To the end, as a restore after a loss does: the comparison of rows at the moment is the drill's.
    return restore_folder(chain, backup.keys, back, Target(), plan=plan, pg_bin=backup.pg_bin)


def _drill_physical(bench: Bench, chain: list[Link], backup: PhysicalBackup) -> Any:
    done = drill_physical(
        chain, backup.keys, backup.staging, now=datetime.now(UTC), rpo_s=0.0, pg_bin=bench.bin, jobs=JOBS
    )
    assert done.passed, done.findings
    return done
