"""A loopback door to a server that counts what passes, and lets a test act at a chosen byte."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Wire:
    """Everything between a client and a server goes through here."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        self._act: Callable[[], object] | None = None
        self._at_bytes = 0
        self.down_bytes, self.up_bytes = 0, 0
        """From the server, and to it."""
        self.acted = False
        self.bytes_per_s: float | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def at(self, passed: int, act: Callable[[], object]) -> None:
        """Do something once so many bytes have passed, both ways together; what follows waits for it."""
        self.down_bytes = self.up_bytes = 0
        self._at_bytes, self._act, self.acted = passed, act, False

    def cut(self) -> None:
        """End all connections; new ones are let in."""
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let nobody in any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._to)
                except OSError:
                    near.close()
                    continue
                self._ends += [near, far]
                threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while data := one.recv(16384):
                self._count(len(data), up)
                if self.bytes_per_s is not None:
                    time.sleep(len(data) / self.bytes_per_s)
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, passed: int, up: bool) -> None:
        with self._lock:
            if up:
                self.up_bytes += passed
            else:
                self.down_bytes += passed
            if self._act is not None and self.down_bytes + self.up_bytes >= self._at_bytes:
                act, self._act, self.acted = self._act, None, True
                act()


@contextmanager
def wire_to(host: str, port: int) -> Iterator[Wire]:
    """Open a door; shut afterwards."""
    wire = Wire(host, port)
    try:
        yield wire
    finally:
        wire.close()
