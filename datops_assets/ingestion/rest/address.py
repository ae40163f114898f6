"""Which addresses may be talked to: decided on the resolved address, at the moment of the connection.

A name that is checked first and resolved again for the connection could have changed in between, so
the connection goes to the very address that was looked at.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

import httpcore

from datops_assets.errors import SourceRefusedError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the open internet. Pure.

    An address that wraps another (IPv4 in IPv6, 6to4, Teredo, NAT64) is as public as what it wraps.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped: Iterable[ipaddress.IPv4Address | None] = (ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ()))
        if ip in _NAT64:
            wrapped = [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
        inner = [one for one in wrapped if one is not None]
        if inner:
            return all(_is_open(one) for one in inner)
    return _is_open(ip)


def _is_open(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.is_global and not ip.is_multicast


class CheckedBackend(httpcore.NetworkBackend):
    """Connects to public addresses, and to those of hosts that a person allowed.

    private_hosts   names (lower case) that may lead into a private network
    """

    def __init__(self, private_hosts: frozenset[str]) -> None:
        self._private_hosts = private_hosts
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolve, look, and connect to what was looked at; each address in turn.

        raises     SourceRefusedError: all of them are private
                   httpcore.ConnectError, ConnectTimeout
        """
        addresses = self._allowed(host, port)
        for number, address in enumerate(addresses, start=1):
            try:
                return self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise AssertionError  # there is at least one address

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Refuse: no API of a document is a file."""
        raise SourceRefusedError("a socket in the file system is no address of an API")

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._backend.sleep(seconds)

    def _allowed(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise httpcore.ConnectError(f"{host}: no such host") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if host.lower() in self._private_hosts:
            return addresses
        public = [address for address in addresses if is_public(address)]
        if not public:
            raise SourceRefusedError(
                f"{host} is in a private network, which no source may reach unasked;"
                " where that is meant, and only for the host of `url:`, write `allow_private: true` below `source:`"
            )
        return public
