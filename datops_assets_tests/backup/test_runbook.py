"""The runbook of docs/backup.md, line by line: a server is lost, the catalogue with it, and comes back elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest

from datops_assets_tests.backup.conftest import KEY, datops
from datops_assets_tests.cdc.servers import OwnServer, own_server
from datops_assets_tests.conftest import TestWarehouse

pytestmark = [pytest.mark.backup_fault, pytest.mark.slow]


@dataclass
class Lost:
    """A server that was backed up and is gone; the catalogue forgot all of it."""

    server: OwnServer
    found: list[OwnServer] = field(default_factory=list)

    def start(self, data: Path) -> psycopg.Connection[object]:
        """Start the folder that came back, at the old address."""
        shutil.move(data, self.server.folder / "back")
        self.server.account.take_all(self.server.folder)
        back = replace(self.server, folder=self.server.folder / "again")
        back.folder.mkdir()
        (self.server.folder / "back").rename(back.data)
        back.account.take_all(back.folder)
        back.start()
        self.found.append(back)
        return back.warehouse.connect()


@pytest.fixture
def lost(warehouse: TestWarehouse, project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lost]:
    monkeypatch.setenv("BACKUP_KEY", KEY)
    with own_server(18) as server:
        (project / "backup.yaml").write_text(f"""
backup: erp
team: sales
source: {{url: "postgresql://datops@127.0.0.1:{server.port}/postgres"}}
encryption: {{key_env: BACKUP_KEY}}
destinations:
  local: {{url: kept}}
physical: {{}}
wal: {{}}
""")
        with closing(server.warehouse.connect()) as conn:
            conn.execute("create table orders as select generate_series(1, 100) as id")
            datops("wal", "--once")
            datops("run", "--kind", "full")
            datops("run")
            conn.execute("insert into orders values (101)")
        datops("wal", "--once")
        server.stop("immediate")
        for table in ("backup_wal", "backup_copies", "backups"):
            warehouse.conn.execute(f"delete from datops.{table}")
        made = Lost(server)
        yield made
        for one in made.found:
            one.stop("immediate")


def test_the_runbook_when_the_server_is_gone_and_then_the_one_for_a_bad_day(
    lost: Lost, project: Path
) -> None:
    assert [row["kind"] for row in datops("list", "--at", "local")] == ["full", "logical"]
    datops("list", "--rebuild")
    plan = datops("restore", "--folder", "back")
    assert (plan["target"], plan["problems"], plan["tablespaces"]) == ("the end of the log", [], {})
    assert datops("restore", "--folder", "back", "--apply")["findings"] == []
    with closing(lost.start(project / "back")) as conn:
        assert conn.execute("select count(*) from orders").fetchone() == (101,)
        conn.execute("insert into orders values (102)")
    assert datops("wal", "--once")["started_anew"] is None
    datops("run", "--kind", "full", "--why", "after the loss")
    datops("wal", "--once")
    assert datops("wal", "--status")["findings"] == []
    # And a bad day later: the dump from before, beside the database, then in its place.
    plan = datops("restore", "--database", "erp_back")
    assert plan["problems"] == []
    assert datops("restore", "--database", "erp_back", "--apply")["findings"] == []
    address = f"127.0.0.1:{lost.server.port}/postgres"
    done = datops("restore", "--database", "postgres", "--onto", address, "--apply")
    assert (done["target"], done["findings"]) == (address, [])
    datops("run", "--why", "after the restore")
    assert all(row["passed"] for row in datops("verify", "--all"))
