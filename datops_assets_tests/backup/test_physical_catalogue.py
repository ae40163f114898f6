"""Physical backups and the log without their catalogue, from a remote store, and what retention leaves of a chain."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from datops_assets.backup.physical_restore import read_chain
from datops_assets.errors import BackupDamagedError
from datops_assets_tests.backup.conftest import datops
from datops_assets_tests.backup.physical_server import Copied
from datops_assets_tests.backup.test_wal import drop_slot
from datops_assets_tests.ingestion.stores.servers import BUCKET, HOST, S3, s3_server


@pytest.fixture
def log_document(server_document: Path, copied: Copied) -> Iterator[Path]:
    """backup.yaml that receives the log and keeps the newest backup only."""
    server_document.write_text(server_document.read_text() + "wal: {}\nretention: {last: 1}\n")
    yield server_document
    drop_slot(copied)


@pytest.mark.backup_fault
@pytest.mark.slow
def test_a_lost_catalogue_of_a_chain_and_its_log_is_rebuilt_from_a_destination(
    log_document: Path, copied: Copied
) -> None:
    datops("wal", "--once")
    full = datops("run", "--kind", "full")["backup_id"]
    part = datops("run", "--kind", "incremental")["backup_id"]
    with copied.connect() as conn:
        conn.execute("insert into orders values (70001, 'last')")
    datops("wal", "--once")
    before = copied.warehouse.fetch("select file from datops.backup_wal order by file")
    copied.warehouse.conn.execute("delete from datops.backup_wal")
    copied.warehouse.conn.execute("truncate datops.backups cascade")
    assert datops("list", "--rebuild")
    assert [(row["backup_id"], row["parent"], row["good"]) for row in datops("list")] == [
        (full, None, True), (part, full, True),
    ]  # fmt: skip
    assert copied.warehouse.fetch("select file from datops.backup_wal order by file") == before
    assert datops("restore", "--folder", "back", "--apply")["findings"] == []
    done = datops("drill", "--backup", full)
    assert (done["findings"], done["rpo_s"] < 3600) == ([], True)
    assert all(row["passed"] for row in datops("verify", "--all"))


@pytest.mark.slow
@pytest.mark.backup_fault
def test_a_child_whose_parent_stands_nowhere_is_named_and_not_entered(
    log_document: Path, copied: Copied
) -> None:
    import shutil

    full = datops("run", "--kind", "full")["backup_id"]
    part = datops("run", "--kind", "incremental")["backup_id"]
    copied.warehouse.conn.execute("truncate datops.backups cascade")
    shutil.rmtree(log_document.parent / "kept/whole" / full)
    assert [row for row in datops("list", "--rebuild") if isinstance(row, dict)] == []
    assert (log_document.parent / "kept/whole" / part / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.backup_fault
def test_retention_keeps_the_parents_of_the_one_that_stays(log_document: Path) -> None:
    old = datops("run", "--kind", "full")["backup_id"]
    full = datops("run", "--kind", "full")["backup_id"]
    parts = [datops("run", "--kind", "incremental")["backup_id"] for _ in range(2)]
    assert [row["backup_id"] for row in datops("prune", "--apply")] == [old]
    assert [row["backup_id"] for row in datops("list") if row["good"]] == [full, *parts]
    assert datops("drill", "--backup", parts[-1])["findings"] == []


@pytest.mark.slow
@pytest.mark.backup_fault
def test_a_chain_that_mixes_servers_is_refused(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    full = copied.take()
    part = copied.take(parent=full)
    from datops_assets.backup import physical_restore

    really = physical_restore._read_link

    def other(*arguments: object) -> physical_restore.Link:
        link = really(*arguments)  # type: ignore[arg-type]
        if link.manifest.kind == "full":
            return dataclasses.replace(link, manifest=dataclasses.replace(link.manifest, system_identifier=7))
        return link

    monkeypatch.setattr(physical_restore, "_read_link", other)
    with pytest.raises(BackupDamagedError, match="of another server"):
        read_chain(copied.backup.destinations, "whole", part.manifest.backup_id, copied.backup.keys)


@pytest.fixture
def bucket(log_document: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The only destination is a bucket."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    with s3_server() as s3:
        monkeypatch.setenv("S3_KEY", "testing")
        monkeypatch.setenv("S3_SECRET", "testing-secret")
        lines = [
            f"  remote: {{url: s3://{BUCKET}/backups, options: {{endpoint_url: 'http://{HOST}:{s3.port}'}},"
            " options_env: {key: S3_KEY, secret: S3_SECRET}}"
            if line.startswith("  local:")
            else line
            for line in log_document.read_text().splitlines()
        ]
        log_document.write_text("\n".join(lines) + "\n")
        yield s3


@pytest.mark.backup_fault
@pytest.mark.slow
def test_a_chain_and_its_log_come_back_from_a_bucket_and_a_damaged_parent_there_does_not(
    bucket: S3, log_document: Path, copied: Copied
) -> None:
    datops("wal", "--once")
    full = datops("run", "--kind", "full")["backup_id"]
    datops("run", "--kind", "incremental")
    datops("run", "--kind", "incremental")
    datops("wal", "--once")
    assert datops("wal", "--status")["findings"] == []
    done = datops("restore", "--folder", "back", "--apply")
    assert (done["findings"], done["target"]) == ([], "the end of the log")
    assert datops("drill")["findings"] == []
    key = f"backups/whole/{full}/00001.tar.zst.enc"
    data = bytearray(bucket.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    data[len(data) // 2] ^= 1
    bucket.client.put_object(Bucket=BUCKET, Key=key, Body=bytes(data))
    assert "was changed" in str(datops("restore", "--folder", "again", "--apply", expect=1))
    assert not (log_document.parent / "again").exists()
