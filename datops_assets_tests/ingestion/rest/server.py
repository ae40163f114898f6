"""An API of our own on loopback that does what a test tells it to, also what no API should."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes
    target: str

    def number(self, name: str, default: int) -> int:
        """Return a parameter that is a number."""
        return int(self.params.get(name, default))


@dataclass(frozen=True)
class Reply:
    """One answer; `raw` goes out as it is, `length` is what its header claims."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    length: int | None = None

    def content(self) -> bytes:
        """Return the bytes of the body."""
        return json.dumps(self.body).encode() if self.raw is None else self.raw


Answer = Callable[[Asked], Reply | Any]


class Api:
    """The server: where it listens, what it was asked, and how it answers."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked: list[Asked] = []
        self.answer: Answer = lambda asked: []

    @property
    def targets(self) -> list[str]:
        """What was asked for, in order."""
        return [asked.target for asked in self.asked]

    def serve(self, records: list[Any], size: int = 2) -> None:
        """Answer with pages of records: `page` counts from 1, `offset` and `limit` are taken too."""

        def answer(asked: Asked) -> Any:
            limit = asked.number("limit", size)
            start = asked.number("offset", (asked.number("page", 1) - 1) * limit)
            return Reply(
                {"data": records[start : start + limit], "meta": {"total": len(records)}},
                headers={"X-Total-Count": str(len(records))},
            )

        self.answer = answer


@contextmanager
def running() -> Iterator[Api]:
    """Serve on a free port of loopback until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body, self.path)
            with lock:
                api.asked.append(asked)
            reply = api.answer(asked)
            if not isinstance(reply, Reply):
                reply = Reply(reply)
            self.send(reply)

        def send(self, reply: Reply) -> None:
            content = reply.content()
            length = len(content) if reply.length is None else reply.length
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            try:
                self.wfile.write(content)
            except OSError:
                pass
            if length != len(content):
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = handle_one  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    lock = threading.Lock()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api = Api(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
