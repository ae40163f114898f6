"""The way into an SFTP server, for whoever reads from one or writes to one: by paramiko, with the host key known."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import paramiko

_TIMEOUT_S = 30


def connect_ssh(host: str, **options: Any) -> paramiko.SSHClient:
    """Connect. A server whose host key is not known is refused, as ssh does it.

    options    as paramiko's SSHClient.connect takes them; `known_hosts` is a file beside ~/.ssh/known_hosts
    raises     paramiko.SSHException, OSError
    """
    known_hosts = options.pop("known_hosts", None)
    client = paramiko.SSHClient()
    client.load_system_host_keys()
    if known_hosts is not None:
        client.load_host_keys(known_hosts)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    waits = dict.fromkeys(("timeout", "banner_timeout", "auth_timeout"), _TIMEOUT_S)
    client.connect(host, **{**waits, **options})
    return client


def open_channel(client: paramiko.SSHClient) -> paramiko.SFTPClient:
    """Open a session that gives up on a server that falls silent."""
    ftp = client.open_sftp()
    channel = ftp.get_channel()
    if channel is not None:
        channel.settimeout(_TIMEOUT_S)
    return ftp


def way_of(url: str, options: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Host, path and options of a URL; what the URL does not say is left to the options."""
    parts = urlsplit(url)
    named = {"port": parts.port, "username": unquote(parts.username) if parts.username else None}
    given = {**{name: value for name, value in named.items() if value is not None}, **options}
    return parts.hostname or "", parts.path.rstrip("/"), given
