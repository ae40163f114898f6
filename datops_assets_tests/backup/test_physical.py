"""A physical backup is a whole server as it sent itself; what differs from its own list is no backup."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from datops_assets.backup import physical
from datops_assets.backup.artefacts import Member
from datops_assets.backup.physical import plan_physical
from datops_assets.backup.server_manifest import check_folder, compare_members, read_server_manifest
from datops_assets.errors import BackupDamagedError, BackupError
from datops_assets_tests.backup.conftest import datops
from datops_assets_tests.backup.physical_server import Copied

STAGES = ["backup.entered", "backup.dumped", "backup.packed", "backup.published"]
QUICK = ("backup.dumped",)


def test_a_whole_server_is_taken_and_its_content_known_at_a_place_in_the_log(copied: Copied) -> None:
    taken = copied.take()
    manifest = taken.manifest
    assert (manifest.kind, manifest.facts["content"]) == ("full", "hashed")
    assert manifest.facts["tables"]["public.orders"][0] == 2000
    assert copied.look(taken).findings == []
    names = [member.name for artefact in manifest.artefacts for member in artefact.members]
    assert {"data/backup_label", "data/backup_manifest", "data/global/pg_control"} <= set(names)
    assert any(name.startswith("wal/") for name in names)
    assert copied.entries()[-1].is_good
    assert list(copied.backup.staging.iterdir()) == []


def test_an_incremental_one_is_small_and_names_its_parent(copied: Copied) -> None:
    full = copied.take()
    with copied.connect() as conn:
        conn.execute("insert into orders select g, 'more' from generate_series(10001, 10100) g")
    part = copied.take(parent=full)
    assert (part.manifest.kind, part.manifest.parent) == ("incremental", full.manifest.backup_id)
    data = [
        sum(m.bytes for a in one.manifest.artefacts for m in a.members if m.name.startswith("data/base/"))
        for one in (full, part)
    ]
    assert data[1] < data[0] / 3
    assert copied.look(part).findings == []


def test_an_artefact_ends_when_it_is_large_enough(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physical, "ARTEFACT_BYTES", 4 << 20)
    taken = copied.take()
    assert len(taken.manifest.artefacts) > 4
    assert copied.look(taken).findings == []


@pytest.mark.backup_fault
@pytest.mark.parametrize(
    "stage", [stage if stage in QUICK else pytest.param(stage, marks=pytest.mark.slow) for stage in STAGES]
)
def test_a_physical_backup_killed_at_any_stage_leaves_nothing_that_counts(
    server_document: Path, stage: str
) -> None:
    script = (
        "from datops_assets.postgres import failpoints; from datops_assets.cli import _app\n"
        f"failpoints.arm({stage!r})\n"
        "_app()(['backup', 'run', '--kind', 'full', '--config', 'backup.yaml'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert all(row["state"] != "complete" for row in datops("list"))
    following = datops("run", "--kind", "full")["backup_id"]
    states = {row["backup_id"]: row["state"] for row in datops("list")}
    assert states.pop(following) == "complete"
    assert set(states.values()) == {"complete" if stage == "backup.published" else "failed"}
    kept = {path.name for path in (server_document.parent / "kept/whole").iterdir()}
    assert kept == {row["backup_id"] for row in datops("list") if row["state"] == "complete"}
    assert not list((server_document.parent / ".datops/backup").iterdir())


@pytest.mark.backup_fault
def test_a_base_backup_that_the_server_cuts_off_is_no_backup(copied: Copied) -> None:
    """The walsender is ended in the middle."""

    def end() -> None:
        with copied.connect() as conn:
            for _ in range(400):
                ended = conn.execute(
                    "select pg_terminate_backend(pid) from pg_stat_replication where state = 'backup'"
                ).fetchall()
                if ended:
                    return
                time.sleep(0.005)

    ending = threading.Thread(target=end)
    ending.start()
    with pytest.raises(Exception, match=r"copy of .* failed"):
        copied.take()
    ending.join()
    assert copied.entries()[-1].state == "failed"
    assert copied.look(copied.take()).passed


def _tar(*members: tarfile.TarInfo) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for one in members:
            tar.addfile(one, io.BytesIO(b"x" * one.size))
    out.seek(0)
    return out


def _member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    about = tarfile.TarInfo(name)
    about.type, about.linkname, about.size = kind, to, 1 if kind == tarfile.REGTYPE else 0
    return about


@pytest.mark.backup_fault
@pytest.mark.parametrize(
    "hostile",
    [
        _member("base/1", tarfile.SYMTYPE, "/etc"), _member("base/2", tarfile.LNKTYPE, "../../etc/passwd"),
        _member("../outside"), _member("/etc/cron.d/x"), _member("base/fifo", tarfile.FIFOTYPE),
        _member("pg_tblspc/16400", tarfile.SYMTYPE, "/mnt/other"),
    ],
    ids=["a symbolic link", "a hard link", "a parent folder", "an absolute name", "a pipe", "a tablespace's link"],
)  # fmt: skip
def test_a_server_that_sends_odd_names_or_links_is_refused(copied: Copied, hostile: tarfile.TarInfo) -> None:
    files = physical._Files(copied.backup, "01AAAAAAAAAAAAAAAAAAAAAAAA", {})
    with pytest.raises(BackupError, match="the server sent"):
        files.add_all(_tar(_member("fine"), hostile))
    files.abandon()


def _listed(tmp_path: Path, algorithm: str = "SHA256") -> Path:
    """A small base backup with the manifest that PostgreSQL would write."""
    import google_crc32c

    folder = tmp_path / "base"
    (folder / "global").mkdir(parents=True)
    files = []
    for name, content in {"PG_VERSION": b"18\n", "global/pg_control": b"c" * 8192}.items():
        (folder / name).write_bytes(content)
        checksum = (
            google_crc32c.Checksum(content).digest()[::-1].hex()
            if algorithm == "CRC32C"
            else hashlib.new(algorithm.lower(), content).hexdigest()
        )
        files.append({
            "Path": name, "Size": len(content), "Last-Modified": "2026-01-01 00:00:00 GMT",
            "Checksum-Algorithm": algorithm, "Checksum": checksum,
        })  # fmt: skip
    body = json.dumps({"PostgreSQL-Backup-Manifest-Version": 2, "System-Identifier": 7, "Files": files,
                       "WAL-Ranges": [{"Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000120"}]})  # fmt: skip
    text = body[:-1] + ",\n"
    seal = hashlib.sha256(text.encode()).hexdigest()
    (folder / "backup_manifest").write_text(f'{text}"Manifest-Checksum": "{seal}"}}\n')
    return folder


def _edit(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new, 1))


MANIFEST_FAULTS: dict[str, Any] = {
    "a changed byte": (
        lambda at: _edit(at / "global/pg_control", b"cc", b"cd"),
        "is not what the server wrote",
    ),
    "a cut file": (
        lambda at: _edit(at / "global/pg_control", b"cccc", b""),
        "has 8188 bytes, the server wrote 8192",
    ),
    "a missing file": (lambda at: (at / "PG_VERSION").unlink(), "PG_VERSION is missing"),
    "an extra file": (
        lambda at: (at / "global/evil").write_bytes(b"x"),
        "global/evil is a file that the server",
    ),
}


@pytest.mark.backup_fault
@pytest.mark.parametrize("algorithm", ["SHA256", "SHA512", "CRC32C"])
@pytest.mark.parametrize("fault", MANIFEST_FAULTS)
def test_a_base_backup_is_held_against_the_servers_manifest(
    tmp_path: Path, fault: str, algorithm: str
) -> None:
    folder = _listed(tmp_path, algorithm)
    assert check_folder(folder) == []
    damage, said = MANIFEST_FAULTS[fault]
    damage(folder)
    assert said in check_folder(folder)[0]


@pytest.mark.backup_fault
@pytest.mark.parametrize(
    ("old", "new"),
    [(b"8192", b"8193"), (b'"System-Identifier": 7', b'"System-Identifier": 8'), (b"}\n", b"")],
    ids=["a size", "the system", "its end"],
)
def test_a_servers_manifest_that_was_changed_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    folder = _listed(tmp_path)
    _edit(folder / "backup_manifest", old, new)
    with pytest.raises(BackupDamagedError):
        check_folder(folder)


@pytest.mark.parametrize("algorithm", ["SHA256", "CRC32C"])
def test_the_servers_manifest_is_held_against_hashes_that_are_known_already(
    tmp_path: Path, algorithm: str
) -> None:
    folder = _listed(tmp_path, algorithm)
    listed = read_server_manifest((folder / "backup_manifest").read_bytes(), "here")
    members = {
        name: Member(name, one.checksum, one.bytes, one.checksum) for name, one in listed.files.items()
    }
    assert compare_members(listed, members) == []
    members["PG_VERSION"] = dataclasses.replace(members["PG_VERSION"], sha256="0" * 64, crc32c="0" * 8)
    assert f"{algorithm} differs" in compare_members(listed, members)[0]


def test_a_servers_manifest_without_checksums_proves_no_file(tmp_path: Path) -> None:
    listed = read_server_manifest((_listed(tmp_path, "SHA512") / "backup_manifest").read_bytes(), "here")
    members = {name: Member(name, one.checksum, one.bytes) for name, one in listed.files.items()}
    assert len(compare_members(listed, members)) == len(members)


def test_a_role_that_may_not_replicate_is_told_how(copied: Copied) -> None:
    with copied.connect() as conn:
        conn.execute("create role only_reads login password 'x'; grant pg_read_all_data to only_reads")
    try:
        parameters = {**copied.backup.server.parameters, "user": "only_reads", "password": "x"}
        server = dataclasses.replace(copied.backup.server, parameters=parameters)
        problems = plan_physical(dataclasses.replace(copied.backup, server=server), "full").problems
        assert "alter role only_reads replication" in problems[0]
    finally:
        with copied.connect() as conn:
            conn.execute("drop role only_reads")


@pytest.mark.backup_fault
def test_an_incremental_backup_without_a_parent_is_refused(server_document: Path) -> None:
    assert "no good full backup to build on" in str(datops("run", "--kind", "incremental", expect=1))
