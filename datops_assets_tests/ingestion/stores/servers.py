"""Servers of files for the tests: S3 by moto, SFTP by asyncssh, the web by the standard library. Loopback only."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
BUCKET = "landing"


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
        client.create_bucket(Bucket=BUCKET)
        yield S3(port, client)
    finally:
        server.stop()


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
