"""SFTP by paramiko: a server whose host key is not known is refused, as ssh does it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

_TIMEOUT_S = 30


def open_sftp(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """Return the file system of a server, and the path of the URL there.

    options    as paramiko's SSHClient.connect takes them; `known_hosts` is a file beside ~/.ssh/known_hosts
    """
    parts = urlsplit(url)
    named = {"port": parts.port, "username": unquote(parts.username) if parts.username else None}
    given = {**{name: value for name, value in named.items() if value is not None}, **options}
    return _Sftp(host=parts.hostname, **given), parts.path.rstrip("/")


class _Sftp(SFTPFileSystem):  # type: ignore[misc]
    def _connect(self) -> None:
        options = dict(self.ssh_kwargs)
        known_hosts = options.pop("known_hosts", None)
        for ours in ("use_listings_cache", "skip_instance_cache"):
            options.pop(ours, None)
        self.client = paramiko.SSHClient()
        self.client.load_system_host_keys()
        if known_hosts is not None:
            self.client.load_host_keys(known_hosts)
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        waits = dict.fromkeys(("timeout", "banner_timeout", "auth_timeout"), _TIMEOUT_S)
        self.client.connect(self.host, **{**waits, **options})
        self.ftp = self.client.open_sftp()
        channel = self.ftp.get_channel()
        if channel is not None:
            channel.settimeout(_TIMEOUT_S)
