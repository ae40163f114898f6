"""Put first on a process's path, this refuses and records every look outside.

libpq opens its connections in C and passes by; whatever asks a registry, counts usage or
looks for a newer version does it in Python.
"""

import os
import socket
from pathlib import Path
from typing import Any

ATTEMPTS = Path(os.environ.get("HOME", "/tmp")) / "network-attempts.txt"


def _refuse(what: object) -> None:
    with ATTEMPTS.open("a") as file:
        file.write(f"{what!r}\n")
    raise OSError(f"the test allows no network: {what!r}")


def _getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
    return _refuse(host)


def _connect(self: socket.socket, address: Any) -> Any:
    return _refuse(address)


vars(socket)["getaddrinfo"] = _getaddrinfo
socket.socket.connect = _connect  # type: ignore[assignment,method-assign]
