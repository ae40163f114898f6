"""Backups on a real SFTP server, by the document; the network cut, a wrong password, a host key nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from datops_assets_tests.backup.conftest import datops
from datops_assets_tests.backup.wire import Wire, wire_to
from datops_assets_tests.ingestion.stores.servers import HOST, Sftp, sftp_server

pytest.importorskip("paramiko", reason="needs the extra sftp")
pytestmark = pytest.mark.backup_fault


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sftp]:
    with sftp_server(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@dataclass
class Distant:
    """An SFTP server behind a wire, as the second destination of backup.yaml."""

    wire: Wire
    folder: Path
    document: Path

    def files(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}

    def measure(self, *command: str) -> int:
        """Bytes that pass the wire while a command runs."""
        self.wire.at(1 << 60, lambda: None)
        datops(*command)
        return self.wire.down_bytes + self.wire.up_bytes


@pytest.fixture
def distant(
    sftp: Sftp, document: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Distant]:
    monkeypatch.setenv("SFTP_PASSWORD", sftp.password)
    folder = sftp.folder / tmp_path.name
    folder.mkdir()
    with wire_to(HOST, sftp.port) as wire:
        known = sftp.known_hosts.read_text().replace(f":{sftp.port} ", f":{wire.port} ")
        (project / "known_hosts").write_text(known)
        url = f"sftp://ada@{HOST}:{wire.port}/files/{tmp_path.name}"
        options = f"{{known_hosts: {project / 'known_hosts'}, look_for_keys: false, allow_agent: false}}"
        document.write_text(
            document.read_text().replace(
                'second: {url: "${BACKUPS}/two"}',
                f'second: {{url: "{url}", options: {options}, options_env: {{password: SFTP_PASSWORD}}}}',
            )
            + "retention: {last: 1}\n"
        )
        yield Distant(wire, folder, document)


def test_an_sftp_server_keeps_backups_that_drills_prove(distant: Distant) -> None:
    first = datops("run")["backup_id"]
    assert f"erp/{first}/manifest.json" in distant.files()
    assert [row["passed"] for row in datops("verify")] == [True, True]
    assert datops("drill", "--at", "second")["findings"] == []
    second = datops("run")["backup_id"]
    datops("prune", "--apply")
    assert [row["backup_id"] for row in datops("list", "--at", "second")] == [second]
    assert not (distant.folder / "erp" / first).exists()


@pytest.mark.parametrize(
    "share", [pytest.param(10, marks=pytest.mark.slow), 50, pytest.param(90, marks=pytest.mark.slow)]
)
def test_the_network_cut_while_it_is_sent(distant: Distant, share: int) -> None:
    """What is half there has not its name, and the next run sweeps it away."""
    whole = distant.measure("run")
    before = distant.files()
    distant.wire.at(whole * share // 100, distant.wire.cut)
    taken = datops("run", expect=1)
    assert distant.wire.acted
    assert taken["destinations"] == ["local"]
    assert "cannot be used" in taken["failed"]["second"]
    assert "open-sesame" not in str(taken)
    assert not [path for path in distant.files() - before if path.endswith("manifest.json")]
    assert datops("list")[-1]["destinations"] == ["local"]
    assert datops("run")["destinations"] == ["local", "second"]
    assert [row["passed"] for row in datops("verify")] == [True, True]


def test_the_network_cut_while_it_is_read_back_is_not_taken_for_damage(distant: Distant) -> None:
    datops("run")
    whole = distant.measure("verify", "--at", "second")
    distant.wire.at(whole // 2, distant.wire.cut)
    assert "cannot be used" in str(datops("verify", "--at", "second", expect=1))
    assert datops("list")[0]["damaged_at"] == []
    assert [row["passed"] for row in datops("verify", "--at", "second")] == [True]


def test_a_server_that_is_gone_and_a_wrong_password_leave_the_other_destination_good(
    distant: Distant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFTP_PASSWORD", "a-wrong-password")
    taken = datops("run", expect=1)
    assert (taken["destinations"], "check its user, password or key" in taken["failed"]["second"]) == (
        ["local"],
        True,
    )
    assert "a-wrong-password" not in str(taken)
    monkeypatch.setenv("SFTP_PASSWORD", "open-sesame")
    distant.wire.close()
    assert "cannot be used" in datops("run", expect=1)["failed"]["second"]
    assert datops("drill")["passed"]
    assert [one["good"] for one in datops("list")] == [True, True]


def test_a_host_key_that_nobody_knows_is_refused(distant: Distant) -> None:
    """Else whoever sits between gets the password and the backups."""
    known = distant.document.parent / "known_hosts"
    before = known.read_text()
    known.write_text("")
    taken = datops("run", expect=1)
    assert "ssh-keyscan" in taken["failed"]["second"]
    assert distant.files() == set()
    other = before.split()
    known.write_text(" ".join([other[0], other[1], other[2][:-8] + "AAAAAAAA"]) + "\n")
    assert "another host key than the one that is known" in datops("run", expect=1)["failed"]["second"]
