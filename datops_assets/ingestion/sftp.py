"""Files of an SFTP server as fsspec shows them."""

from __future__ import annotations

from typing import Any

from fsspec.implementations.sftp import SFTPFileSystem

from datops_assets.resources.sftp import connect_ssh, open_channel, way_of


def open_sftp(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """Return the file system of a server, and the path of the URL there; `options` as `connect_ssh` takes them."""
    host, path, given = way_of(url, options)
    return _Sftp(host=host, **given), path


class _Sftp(SFTPFileSystem):  # type: ignore[misc]
    def _connect(self) -> None:
        options = dict(self.ssh_kwargs)
        for ours in ("use_listings_cache", "skip_instance_cache"):
            options.pop(ours, None)
        self.client = connect_ssh(self.host, **options)
        self.ftp = open_channel(self.client)
