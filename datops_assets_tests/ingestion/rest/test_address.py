"""Private networks are refused on the resolved address, and a certificate must be one that is trusted."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from datops_assets.ingestion import rest
from datops_assets.ingestion.rest.address import is_public
from datops_assets_tests.ingestion.rest.conftest import RestLab

PRIVATE = """
127.0.0.1 127.8.8.8 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255
240.0.0.1 198.18.0.1 192.0.2.1 ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd12::1 ff02::1 ::ffff:10.0.0.1 ::ffff:127.0.0.1
64:ff9b::7f00:1 64:ff9b::a00:1 2002:7f00:1:: 2002:a00:1:: 2001:db8::1
""".split()


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "64:ff9b::101:101"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0"])
def test_a_private_network_is_refused_unless_it_is_allowed(lab: RestLab, host: str) -> None:
    port = lab.api.url.rpartition(":")[2]
    lab.connect(url=f"http://{host}:{port}", allow_private=False)
    with lab.source() as source:
        said = source.check(lab.table)
    assert (said.ok, "in a private network" in said.message) == (False, True)
    assert "allow_private: true" in said.message
    assert lab.api.asked == []


def test_a_host_that_does_not_exist(lab: RestLab) -> None:
    lab.connect(url="http://nobody.invalid", tries=1)
    with lab.source() as source:
        assert "no connection to it" in source.check(lab.table).message


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server whose certificate only its own file vouches for."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("no openssl program to make a certificate with")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302 if self.path == "/moved" else 200)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/orders")
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'[{"id": 1}]')

        def log_message(self, *_: object) -> None:
            pass

    class Server(HTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that does not trust us

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", certificate
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_certificate_must_be_trusted(lab: RestLab, secure: tuple[str, Path]) -> None:
    lab.connect(url=secure[0])
    error = str(lab.refused().error)
    assert "its certificate is not trusted (self-signed certificate)" in error
    assert "`ca_file:`" in error


def test_an_authority_of_our_own_is_trusted_by_its_file(lab: RestLab, secure: tuple[str, Path]) -> None:
    lab.connect(url=secure[0], ca_file=secure[1])
    assert lab.load().rows_added == 1


def test_a_redirect_from_https_to_http_is_refused(lab: RestLab, secure: tuple[str, Path]) -> None:
    lab.connect(url=secure[0], ca_file=secure[1])
    lab.declare(path="moved")
    assert "it leads from https to http, where others could read along" in str(lab.refused().error)


def test_a_certificate_for_another_name_is_refused(lab: RestLab, secure: tuple[str, Path]) -> None:
    port = secure[0].rpartition(":")[2]
    lab.connect(url=f"https://127.0.0.2:{port}", ca_file=secure[1], tries=1)
    with lab.source() as source:
        assert not source.check(lab.table).ok


def test_a_file_that_holds_no_certificates(lab: RestLab, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    lab.connect(ca_file=tmp_path / "ca.pem")
    assert "cannot be read as certificates" in str(lab.refused().error)


def test_requests_per_second_are_kept(lab: RestLab) -> None:
    lab.api.serve([{"id": number} for number in range(8)])
    lab.declare(records="data", pagination=rest.PageNumber(total_path="meta.total"))
    lab.connect(requests_per_s=10, concurrency=4)
    began = time.monotonic()
    lab.load()
    assert time.monotonic() - began >= 0.3
    assert lab.ids() == list(range(8))
