"""A way to a server that can be cut or slowed down, to see what a source makes of it."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any


class SlowOrCutProxy:
    """A way to a server that ends after so many bytes, or lets through only so many a second."""

    def __init__(
        self, server: tuple[str, int], *, cut_after: int | None = None, bytes_per_s: int | None = None
    ) -> None:
        self._server = server
        self._left = cut_after
        self._rate = bytes_per_s
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.2)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.cuts = 0

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect to."""
        host, port = self._listening.getsockname()[:2]
        return str(host), int(port)

    def __enter__(self) -> SlowOrCutProxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(5)
        self._listening.close()

    def _start(self, run: Callable[..., None], *values: Any) -> None:
        thread = threading.Thread(target=run, args=values, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                near, _ = self._listening.accept()
            except TimeoutError:
                continue
            self._start(self._carry, near)

    def _carry(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._server) as far:
            while not self._ended.is_set():
                ready, _, _ = select.select([near, far], [], [], 0.2)
                for side in ready:
                    try:
                        data = side.recv(1 << 16)
                    except OSError:
                        data = b""
                    if not data or not self._pass_on(data, side is far, near if side is far else far):
                        return

    def _pass_on(self, data: bytes, is_answer: bool, to: socket.socket) -> bool:
        """Pass data on; False: the connection ends here."""
        if is_answer and self._left is not None:
            data, self._left = data[: self._left], self._left - len(data)
        try:
            to.sendall(data)
        except OSError:
            return False
        if is_answer and self._rate is not None:
            time.sleep(len(data) / self._rate)
        if self._left is not None and self._left <= 0:
            self.cuts += 1
            return False
        return True
