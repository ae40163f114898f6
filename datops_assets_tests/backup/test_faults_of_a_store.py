"""Faults between us and an object store, on a real S3 server behind a wire: cut, slow, refused, half written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from datops_assets_tests.backup.conftest import datops
from datops_assets_tests.backup.wire import Wire, wire_to
from datops_assets_tests.ingestion.stores.servers import BUCKET, HOST, S3, s3_server

pytest.importorskip("s3fs", reason="needs the extra s3")
pytestmark = pytest.mark.backup_fault

SHARES = [10, 50, 90]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as s3:
        yield s3


@dataclass
class Store:
    """A bucket behind a wire, as the second destination of backup.yaml."""

    s3: S3
    wire: Wire
    folder: Path

    def objects(self) -> list[str]:
        found = self.s3.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [one["Key"] for one in found]

    def measure(self, *command: str) -> int:
        """Bytes that pass the wire while a command runs."""
        self.wire.at(1 << 60, lambda: None)
        datops(*command)
        return self.wire.down_bytes + self.wire.up_bytes


@pytest.fixture
def store(s3: S3, document: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("S3_KEY", "testing")
    monkeypatch.setenv("S3_SECRET", "testing-secret")
    for one in s3.client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.client.delete_object(Bucket=BUCKET, Key=one["Key"])
    with wire_to(HOST, s3.port) as wire:
        at(document, wire.port)
        yield Store(s3, wire, document.parent)


def at(document: Path, port: int) -> None:
    document.write_text(
        document.read_text().replace(
            'second: {url: "${BACKUPS}/two"}',
            f"second: {{url: s3://{BUCKET}/backups, options: {{endpoint_url: 'http://{HOST}:{port}'}},"
            " options_env: {key: S3_KEY, secret: S3_SECRET}}",
        )
    )


def next_is_fine() -> None:
    taken = datops("run")
    assert taken["destinations"] == ["local", "second"]
    assert [row["passed"] for row in datops("verify")] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("share", SHARES)
def test_the_network_cut_for_good_while_it_is_sent(store: Store, share: int) -> None:
    whole = store.measure("run")
    before = store.objects()
    store.wire.at(whole * share // 100, store.wire.close)
    taken = datops("run", expect=1)
    assert store.wire.acted
    assert taken["destinations"] == ["local"]
    assert "second" in taken["failed"]
    assert "testing-secret" not in str(taken)
    assert not [key for key in set(store.objects()) - set(before) if key.endswith("manifest.json")]
    assert datops("list")[-1]["destinations"] == ["local"]
    assert [row["passed"] for row in datops("verify")] == [True]


def test_a_network_that_stumbles_is_tried_again(store: Store) -> None:
    whole = store.measure("run")
    store.wire.at(whole // 2, store.wire.cut)
    taken = datops("run")  # the driver tries again by itself
    assert store.wire.acted
    assert taken["destinations"] == ["local", "second"]
    next_is_fine()


@pytest.mark.slow
def test_a_slow_network_only_takes_longer(store: Store) -> None:
    store.wire.bytes_per_s = 1_500_000
    next_is_fine()


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_not_taken_for_damage(store: Store) -> None:
    datops("run")
    store.wire.close()
    assert "cannot be used" in str(datops("verify", "--at", "second", expect=1))
    (entry,) = datops("list")
    assert (entry["good"], entry["damaged_at"]) == (True, [])
    said = str(datops("drill", "--at", "second", expect=1))
    assert "cannot be used" in said
    assert datops("list")[0]["drill_passed"] is None
    assert datops("drill", "--at", "local")["passed"]


@pytest.mark.slow
def test_the_network_cut_while_it_is_read_back(store: Store) -> None:
    datops("run")
    whole = store.measure("verify", "--at", "second")
    store.wire.at(whole * 60 // 100, store.wire.close)
    assert "cannot be used" in str(datops("verify", "--at", "second", expect=1))
    assert store.wire.acted
    assert datops("list")[0]["damaged_at"] == []


@dataclass
class Refusing:
    """An S3 that knows the credentials no more, or lets them read and not write."""

    port: int
    reads: bool = False


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # answers `Expect: 100-continue`

        def _refuse(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            if self.command == "GET" and refusing.reads:
                return self._say(200, b"<ListBucketResult><Name>landing</Name></ListBucketResult>")
            body = (
                b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
            )
            return self._say(403, body)

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _refuse  # noqa: N815 - names of the library

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    refusing = Refusing(server.server_address[1])
    yield refusing
    server.shutdown()
    server.server_close()


def test_credentials_that_have_expired(
    document: Path, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_KEY", "testing")
    monkeypatch.setenv("S3_SECRET", "testing-secret")
    plain = document.read_text()
    at(document, refusing.port)
    taken = datops("run", expect=1)
    assert taken["destinations"] == ["local"]
    assert "check its credentials" in taken["failed"]["second"] or "ermission" in taken["failed"]["second"]
    assert "testing-secret" not in str(taken)
    for command in (["list", "--at", "second"], ["list", "--rebuild"]):
        said = str(datops(*command, expect=1))
        assert "refuses us" in said
        assert "testing-secret" not in said
    (entry,) = datops("list")
    assert (entry["good"], entry["destinations"], entry["damaged_at"]) == (True, ["local"], [])
    document.write_text(plain)
    assert datops("run")["destinations"] == ["local", "second"]


def test_credentials_that_may_read_and_not_write(
    document: Path, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_KEY", "testing")
    monkeypatch.setenv("S3_SECRET", "testing-secret")
    refusing.reads = True
    at(document, refusing.port)
    taken = datops("run", expect=1)
    assert taken["destinations"] == ["local"]
    assert "refuses us; check its credentials and rights" in taken["failed"]["second"]
    assert [row["passed"] for row in datops("verify")] == [True]
    (entry,) = datops("list")
    assert (entry["good"], entry["destinations"], entry["damaged_at"]) == (True, ["local"], [])


def test_a_store_alone_that_refuses_fails_the_run(
    document: Path, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_KEY", "testing")
    monkeypatch.setenv("S3_SECRET", "testing-secret")
    at(document, refusing.port)
    lines = [line for line in document.read_text().splitlines() if not line.startswith("  local:")]
    document.write_text("\n".join(lines))
    assert "no destination takes the backup" in str(datops("run", expect=1))
    (entry,) = datops("list")
    assert (entry["good"], entry["state"]) == (False, "failed")


def test_an_artefact_cut_in_the_bucket(store: Store) -> None:
    taken = datops("run")["backup_id"]
    key = f"backups/erp/{taken}/00001.tar.zst.enc"
    data = store.s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    store.s3.client.put_object(Bucket=BUCKET, Key=key, Body=data[: len(data) // 2])
    assert [row["passed"] for row in datops("verify", expect=1)] == [True, False]
    assert datops("list")[0]["damaged_at"] == ["second"]
    next_is_fine()


def test_a_manifest_gone_from_the_bucket_comes_back_from_the_catalogue(store: Store) -> None:
    taken = datops("run")["backup_id"]
    store.s3.client.delete_object(Bucket=BUCKET, Key=f"backups/erp/{taken}/manifest.json")
    assert [row["passed"] for row in datops("verify", expect=1)] == [True, False]
    datops("list", "--rebuild")
    assert [row["passed"] for row in datops("verify")] == [True, True]
