"""What every kind of destination has to hold, on a folder, a real SFTP server and a real S3 server."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from datops_assets.backup.destinations import MANIFEST, Destination, FolderDestination, StoreDestination
from datops_assets.errors import BackupRefusedError
from datops_assets_tests.ingestion.stores.servers import BUCKET, HOST, S3, Sftp, s3_server, sftp_server


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sftp]:
    pytest.importorskip("paramiko", reason="needs the extra sftp")
    with sftp_server(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    pytest.importorskip("s3fs", reason="needs the extra s3")
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "sftp", "s3"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    if request.param == "folder":
        return FolderDestination("here", tmp_path / "kept")
    if request.param == "s3":
        bucket: S3 = request.getfixturevalue("s3")
        options = {
            "endpoint_url": f"http://{HOST}:{bucket.port}",
            "key": "testing",
            "secret": "testing-secret",
        }
        return StoreDestination("here", f"s3://{BUCKET}/{secrets.token_hex(4)}", options)
    server: Sftp = request.getfixturevalue("sftp")
    from datops_assets.backup.sftp import SftpDestination

    return SftpDestination("here", f"{server.url}/{secrets.token_hex(4)}", server.options())


def test_a_file_is_there_when_it_is_committed_with_all_its_bytes(destination: Destination) -> None:
    content = os.urandom(5_000_001)
    incoming = destination.create("erp/one/00001")
    for begin in range(0, len(content), 1_000_000):
        incoming.write(content[begin : begin + 1_000_000])
    assert "00001" not in destination.list_files("erp/one")
    incoming.commit()
    assert destination.list_files("erp") == {"one/00001": len(content)}
    assert destination.list_folders("erp") == ["one"]
    with destination.open("erp/one/00001") as file:
        assert file.read(3) + file.read(2_500_000) + file.read() == content
        assert file.read(10) == b""


def test_a_file_that_is_abandoned_leaves_nothing(destination: Destination) -> None:
    incoming = destination.create("erp/one/00001")
    incoming.write(b"x" * 100_000)
    incoming.abandon()
    incoming.abandon()
    assert destination.list_files("erp") == {}


def test_a_file_is_replaced_whole(destination: Destination) -> None:
    for content in (b"the first", b"2"):
        destination.write("erp/one/00001", content)
    assert destination.read("erp/one/00001") == b"2"
    assert destination.list_files("erp") == {"one/00001": 1}


def test_what_is_not_there_is_said_so(destination: Destination) -> None:
    assert destination.list_files("nothing") == {}
    assert destination.list_folders("nothing") == []
    with pytest.raises(FileNotFoundError):
        destination.read("nothing/here")
    destination.remove("nothing")
    destination.remove_file("nothing/here")


def test_a_folder_goes_with_all_in_it_and_its_neighbour_stays(destination: Destination) -> None:
    for path in (f"erp/one/{MANIFEST}", "erp/one/00001", "erp/one/deeper/00002", "erp/one-more/00001"):
        destination.write(path, b"x")
    destination.remove("erp/one")
    assert destination.list_files("erp") == {"one-more/00001": 1}
    assert destination.list_folders("erp") == ["one-more"]
    destination.remove_file("erp/one-more/00001")
    assert destination.list_files("erp") == {}


@pytest.mark.backup_fault
@pytest.mark.parametrize("path", ["../outside", "erp/../../outside", "/etc/passwd"])
def test_a_path_that_leads_out_is_refused(destination: Destination, path: str) -> None:
    with pytest.raises(BackupRefusedError, match="leads out"):
        destination.create(path)
    with pytest.raises(BackupRefusedError, match="leads out"):
        destination.open(path)
