"""Backups in a bucket of a real S3 server, by the document: taken, verified, drilled, pruned; refused credentials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datops_assets_tests.backup.conftest import datops
from datops_assets_tests.ingestion.stores.servers import BUCKET, HOST, S3, s3_server

pytest.importorskip("s3fs", reason="needs the extra s3")


@pytest.fixture
def bucket(document: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """backup.yaml names a bucket as its second destination."""
    with s3_server() as s3:
        monkeypatch.setenv("S3_KEY", "testing")
        monkeypatch.setenv("S3_SECRET", "testing-secret")
        text = document.read_text().replace(
            'second: {url: "${BACKUPS}/two"}',
            f"second: {{url: s3://{BUCKET}/backups, options: {{endpoint_url: 'http://{HOST}:{s3.port}'}},"
            " options_env: {key: S3_KEY, secret: S3_SECRET}}",
        )
        document.write_text(text + "retention: {last: 1}\n")
        yield s3


def test_a_bucket_keeps_backups_that_drills_prove(bucket: S3, document: Path) -> None:
    first = datops("run")["backup_id"]
    keys = [one["Key"] for one in bucket.client.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert f"backups/erp/{first}/manifest.json" in keys
    assert [row["passed"] for row in datops("verify", "--at", "second")] == [True]
    assert datops("drill", "--at", "second")["findings"] == []
    second = datops("run")["backup_id"]
    datops("prune", "--apply")
    assert [one["backup_id"] for one in datops("list", "--at", "second")] == [second]


@pytest.mark.backup_fault
def test_damage_in_a_bucket_is_found(bucket: S3, document: Path) -> None:
    taken = datops("run")["backup_id"]
    key = f"backups/erp/{taken}/00001.tar.zst.enc"
    data = bytearray(bucket.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    data[len(data) // 2] ^= 1
    bucket.client.put_object(Bucket=BUCKET, Key=key, Body=bytes(data))
    assert [row["passed"] for row in datops("verify", expect=1)] == [True, False]
    bucket.client.delete_object(Bucket=BUCKET, Key=key)
    assert "is missing" in str(datops("verify", "--at", "second", expect=1))


@pytest.mark.backup_fault
def test_a_bucket_that_is_gone_leaves_the_other_destination_good(bucket: S3, document: Path) -> None:
    text = document.read_text().replace(f"s3://{BUCKET}/backups", "s3://another-bucket/backups")
    document.write_text(text)
    said = datops("run", expect=1)
    assert said["destinations"] == ["local"]
    assert "testing-secret" not in str(said)
    assert datops("list")[0]["good"]
