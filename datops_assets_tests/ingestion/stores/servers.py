"""Servers of files for the tests.

S3 by moto, Google's by gcp-storage-emulator, Azure's by Azurite from npm,
SFTP by asyncssh, the web by the standard library. Loopback only.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

HOST = "127.0.0.1"
BUCKET = "landing"
AZURITE = "azurite@3.35.0"
# Else its driver asks for the kind of bucket by gRPC, which no emulator speaks.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@dataclass
class S3:
    """An S3 server with one empty bucket."""

    port: int
    client: Any

    @property
    def options(self) -> dict[str, Any]:
        return self.options_by((HOST, self.port))

    def options_by(self, address: tuple[str, int], secret: str = "testing-secret") -> dict[str, Any]:
        return {
            "key": "testing", "secret": secret,
            "client_kwargs": {"endpoint_url": f"http://{address[0]}:{address[1]}", "region_name": "us-east-1"},
            "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 5, "read_timeout": 10},
        }  # fmt: skip

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content)


@contextmanager
def s3_server() -> Iterator[S3]:
    """Start moto's server in this process."""
    import boto3
    from moto.moto_api._internal import moto_random  # noqa: F401 loads what resetting needs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        client = boto3.client(
            "s3", endpoint_url=f"http://{HOST}:{port}", region_name="us-east-1",
            aws_access_key_id="testing", aws_secret_access_key="testing-secret",
        )  # fmt: skip
        # What moto keeps belongs to the process: a bucket of an earlier server would be there again.
        httpx.post(f"http://{HOST}:{port}/moto-api/reset").raise_for_status()
        client.create_bucket(Bucket=BUCKET)
        yield S3(port, client)
    finally:
        server.stop()


@dataclass
class Gcs:
    """A server of Google Cloud Storage with one empty bucket."""

    port: int

    @property
    def options(self) -> dict[str, Any]:
        return {"endpoint_url": f"http://{HOST}:{self.port}", "token": "anon", "project": "test"}

    def put(self, name: str, content: bytes) -> None:
        upload = f"http://{HOST}:{self.port}/upload/storage/v1/b/{BUCKET}/o"
        done = httpx.post(
            upload, params={"uploadType": "media", "name": name}, content=content or b"\n", trust_env=False,
            headers={"Content-Type": "application/octet-stream"},
        )  # fmt: skip
        assert done.is_success, done.text


@contextmanager
def gcs_server() -> Iterator[Gcs]:
    """Start gcp-storage-emulator in a thread."""
    from gcp_storage_emulator.server import create_server

    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    server = create_server(HOST, port, in_memory=True, default_bucket=BUCKET)
    server.start()
    try:
        yield Gcs(port)
    finally:
        server.stop()


@dataclass
class Azure:
    """A server of Azure's blobs with one empty container; account and key are Azurite's well-known ones."""

    port: int
    account: str = "devstoreaccount1"
    key: str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    @property
    def options(self) -> dict[str, Any]:
        return {"connection_string": self.connection_string(self.key)}

    def connection_string(self, key: str) -> str:
        place = f"http://{HOST}:{self.port}/{self.account}"
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={key};BlobEndpoint={place};"
        )

    def put(self, name: str, content: bytes) -> None:
        self.container.upload_blob(name, content, overwrite=True)

    @property
    def container(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        service = BlobServiceClient.from_connection_string(self.connection_string(self.key))
        return service.get_container_client(BUCKET)


@contextmanager
def azure_server(folder: Path) -> Iterator[Azure]:
    """Install Azurite from npm into a folder and start it; skips where this machine cannot."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not on this machine; they bring Azurite")
    install = [
        npm,
        "install",
        "--no-audit",
        "--no-fund",
        "--prefer-offline",
        "--prefix",
        str(folder),
        AZURITE,
    ]
    try:
        done = subprocess.run(install, capture_output=True, timeout=280)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer")
    if done.returncode != 0:
        pytest.skip(f"npm cannot bring {AZURITE} to this machine")
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    program = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    command = [
        node, str(program), "--blobHost", HOST, "--blobPort", str(port), "--silent", "--inMemoryPersistence",
        "--skipApiVersionCheck", "--disableTelemetry",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        azure = Azure(port)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
                break
            time.sleep(0.2)
        azure.container.create_container()
        yield azure
    finally:
        process.terminate()
        process.wait(10)


@dataclass
class Sftp:
    """An SFTP server whose files lie in a folder of this machine."""

    port: int
    folder: Path
    known_hosts: Path
    password: str = "open-sesame"

    def options(self, password: str | None = None) -> dict[str, Any]:
        return {
            "password": password or self.password, "known_hosts": str(self.known_hosts),
            "look_for_keys": False, "allow_agent": False,
        }  # fmt: skip

    @property
    def url(self) -> str:
        return f"sftp://ada@{HOST}:{self.port}/files"


@contextmanager
def sftp_server(folder: Path) -> Iterator[Sftp]:
    """Start asyncssh in a thread; user ada, files below /files."""
    import asyncssh

    (folder / "root" / "files").mkdir(parents=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    ready: list[Any] = []
    loop = asyncio.new_event_loop()

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("ada", "open-sesame")

    async def start() -> None:
        ready.append(
            await asyncssh.create_server(
                Server, HOST, 0, server_host_keys=[key],
                sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(folder / "root")),
            )
        )  # fmt: skip

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    port = ready[0].sockets[0].getsockname()[1]
    public = key.export_public_key().decode().split()
    hosts = folder / "known_hosts"
    hosts.write_text(f"[{HOST}]:{port} {public[0]} {public[1]}\n")
    try:
        yield Sftp(port, folder / "root" / "files", hosts)
    finally:
        loop.call_soon_threadsafe(ready[0].close)
        time.sleep(0.05)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@dataclass
class Web:
    """A web server with pages in memory; its answers can be changed by the test."""

    port: int = 0
    pages: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    error: tuple[int, bytes] | None = None
    """Status and body of every answer."""
    password: str | None = None
    cut_after: int | None = None
    with_etag: bool = True
    with_head: bool = True
    encoding: str | None = None
    on_body: Callable[[], None] = lambda: None
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/files"


@contextmanager
def web_server() -> Iterator[Web]:
    """Serve `pages` below /files/, with ETag, and an index page for each folder."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            web.requests.append(f"{self.command} {self.path}")
            path = self.path.removeprefix("/files/")
            if web.error is not None:
                self._body(web.error[1] if with_body else b"", "text/html", with_body, web.error[0])
            elif web.status != 200 or (not with_body and not web.with_head):
                self._plain(web.status if web.status != 200 else 405)
            elif web.password is not None and self.headers.get("Authorization") != f"Bearer {web.password}":
                self._plain(401)
            elif path == "" or path.endswith("/"):
                names = {name.removeprefix(path).partition("/")[0] + ("/" if "/" in name.removeprefix(path) else "")
                         for name in web.pages if name.startswith(path)}  # fmt: skip
                links = "".join(f'<a href="{name}">{name}</a>' for name in ("../", "?C=M", *sorted(names)))
                self._body(f"<html>{links}</html>".encode(), "text/html", with_body)
            elif path in web.pages:
                self._body(web.pages[path], "application/octet-stream", with_body)
            else:
                self._plain(404)

        def _plain(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _body(self, body: bytes, kind: str, with_body: bool, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if web.encoding is not None and kind != "text/html":
                self.send_header("Content-Encoding", web.encoding)
            if web.with_etag:
                self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
            else:
                self.send_header("Last-Modified", formatdate(1_700_000_000, usegmt=True))
            self.end_headers()
            if not with_body:
                return
            if kind != "text/html":
                web.on_body()
            if web.cut_after is not None and kind != "text/html":
                self.wfile.write(body[: web.cut_after])
                self.close_connection = True
                return
            self.wfile.write(body)

    server = ThreadingHTTPServer((HOST, 0), Handler)
    web.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
