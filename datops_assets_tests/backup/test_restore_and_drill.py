"""A backup comes back: whole, in part, never onto something that was not named; a drill proves it."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from datops_assets.backup import drill, facts
from datops_assets.backup.restore import Wanted, plan_restore, read_content, restore_logical
from datops_assets.backup.server import Server
from datops_assets.errors import BackupDamagedError, BackupRefusedError
from datops_assets.resources.embedded import EmbeddedServer
from datops_assets_tests.backup.conftest import Backed, datops


def restore(backed: Backed, taken: Any, target: Server, **more: Any) -> Any:
    return restore_logical(
        taken.manifest,
        backed.backup.destinations[0],
        backed.backup.keys,
        target,
        backed.backup.staging,
        **more,
    )


def test_a_database_comes_back_whole(backed: Backed, target: Server) -> None:
    taken = backed.take()
    backed.source.execute("truncate sales.orders")
    done = restore(backed, taken, target)
    assert (done.tables, done.rows, done.findings) == (4, 5605, [])
    assert read_content(target, 2) == taken.manifest.facts["tables"]
    with target.connect() as conn:
        facts.prepare(conn)
        assert facts.read_objects(conn) == taken.manifest.facts["objects"]
        assert facts.read_sequences(conn) == taken.manifest.facts["sequences"]
        assert conn.execute("select setting from pg_settings where name = 'work_mem'").fetchone() == ("7168",)


def test_one_table_comes_back_with_index_sequence_and_grants(
    backed: Backed, target: Server, role: str
) -> None:
    taken = backed.take()
    done = restore(backed, taken, target, wanted=Wanted(table="sales.orders"))
    assert (done.tables, done.findings) == (1, [])
    assert set(read_content(target, 1)) == {"sales.orders"}
    with target.connect() as conn:
        found = facts.read_objects(conn)
    for name in (
        "table sales.orders",
        "index sales.orders_by_customer",
        "sequence sales.orders_id_seq",
        "type sales.state",
    ):
        assert found[name] == taken.manifest.facts["objects"][name]


def test_a_dropped_table_comes_back_into_its_own_database(backed: Backed) -> None:
    taken = backed.take()
    backed.source.execute("drop view sales.paid; drop table sales.orders cascade")
    done = restore(
        backed,
        taken,
        backed.backup.server,
        wanted=Wanted(table="sales.orders"),
        onto=backed.backup.server.address,
    )
    assert done.findings == []
    assert backed.source.execute("select count(*) from sales.orders").fetchone() == (5000,)
    with pytest.raises(BackupRefusedError, match="already"):
        restore(
            backed,
            taken,
            backed.backup.server,
            wanted=Wanted(table="sales.orders"),
            onto=backed.backup.server.address,
        )


def test_one_schema_comes_back(backed: Backed, target: Server) -> None:
    done = restore(backed, backed.take(), target, wanted=Wanted(schema="sales"))
    assert (done.tables, done.findings) == (2, [])
    assert set(read_content(target, 1)) == {"sales.orders", "sales.customers"}


@pytest.mark.backup_fault
def test_a_source_or_a_filled_database_is_replaced_only_by_its_name(backed: Backed, target: Server) -> None:
    taken = backed.take()
    with pytest.raises(BackupRefusedError, match="is the source itself"):
        restore(backed, taken, backed.backup.server)
    restore(backed, taken, target)
    with pytest.raises(BackupRefusedError, match="is not empty"):
        restore(backed, taken, target)
    with target.connect() as conn:
        conn.execute("create table written_later (a int)")
    restore(backed, taken, target, onto=target.address)
    assert read_content(target, 2) == taken.manifest.facts["tables"]
    with target.at("postgres").connect() as conn:
        aside = conn.execute(
            "select datname from pg_database where starts_with(datname, %s) and datname ~ '__before_'",
            (target.dbname,),
        ).fetchall()
    assert len(aside) == 1


@pytest.mark.backup_fault
def test_a_damaged_backup_is_refused_before_anything_is_made(backed: Backed, target: Server) -> None:
    taken = backed.take()
    file = backed.artefacts(taken)[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BackupDamagedError):
        restore(backed, taken, target)
    with target.at("postgres").connect() as conn:
        found = conn.execute(
            "select from pg_database where starts_with(datname, %s)", (target.dbname,)
        ).fetchall()
    assert found == []


@pytest.mark.backup_fault
def test_a_disk_without_room_is_said_before_anything_is_fetched(
    backed: Backed, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = backed.take()
    from datops_assets.backup import restore as module

    class Full:
        free = 10

    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Full)
    plan = plan_restore(
        taken.manifest, backed.backup.destinations[0], target, backed.backup.staging, Wanted(), None
    )
    assert "unpacking needs" in plan.problems[0]


@pytest.mark.backup_fault
def test_roles_that_the_target_lacks_are_named_before_anything_is_made(
    backed: Backed, target: Server
) -> None:
    import copy
    import dataclasses

    manifest = backed.take().manifest
    held = copy.deepcopy(manifest.facts)
    held["objects"]["table sales.orders"]["owner"] = "gone_role"
    plan = plan_restore(
        dataclasses.replace(manifest, facts=held), backed.backup.destinations[0], target, backed.backup.staging,
        Wanted(), None,
    )  # fmt: skip
    assert "lacks the role(s) gone_role" in plan.problems[0]


def test_a_drill_proves_a_backup_and_measures_it(document: Path, backed: Backed) -> None:
    first = datops("run")["backup_id"]
    done = datops("drill")
    assert (done["backup_id"], done["findings"], done["passed"]) == (first, [], True)
    assert 0 < done["rto_s"] < 120
    assert done["rpo_s"] > 0
    second = datops("run")["backup_id"]
    (old, new) = datops("list")
    assert (old["drill_passed"], new["drill_passed"]) == (True, None)
    artefact = document.parent / "kept/one/erp" / second / "00001.tar.zst.enc"
    artefact.write_bytes(artefact.read_bytes()[:-1])
    failed = datops("drill", "--at", "local", expect=1)  # its turn: it was never drilled
    assert (failed["backup_id"], failed["passed"], failed["rto_s"]) == (second, False, None)
    assert not list((document.parent / ".datops/backup").iterdir())


@pytest.mark.backup_fault
def test_a_killed_drill_leaves_a_server_that_the_next_one_ends(document: Path, backed: Backed) -> None:
    datops("run")
    script = (
        "from datops_assets.postgres import failpoints; from datops_assets.cli import _app\n"
        "failpoints.arm('drill.started')\n_app()(['backup', 'drill', '--config', 'backup.yaml'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = (document.parent / ".datops/backup").iterdir()
    scratch = EmbeddedServer(left / "server")
    assert scratch.status().running
    assert datops("list")[0]["drill_passed"] is None
    assert datops("drill")["passed"]
    assert not scratch.status().running
    assert not left.exists()


@pytest.mark.backup_fault
def test_a_restored_table_that_cannot_be_read_is_a_finding(
    document: Path, backed: Backed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own refusal while the drill reads; the next drill finds nothing wrong."""
    datops("run")

    def read_badly(target: Server, jobs: int) -> dict[str, Any]:
        with closing(target.connect()) as conn:
            conn.execute("select 'a secret value'::int")
        return read_content(target, jobs)

    with monkeypatch.context() as patched:
        patched.setattr(drill, "read_content", read_badly)
        done = datops("drill", expect=1)
    assert done["findings"] == [
        "cannot be read once it is restored: InvalidTextRepresentation, SQLSTATE 22P02"
    ]
    assert not done["passed"]
    assert datops("drill")["passed"]


@pytest.mark.backup_fault
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda held: held["tables"]["sales.orders"].__setitem__(0, 4999), "has 5000 rows, the backup had 4999"),
        (lambda held: held["tables"]["sales.orders"].__setitem__(1, "0 0"), "other content"),
        (lambda held: held["objects"]["table sales.orders"].__setitem__("grants", []), "other grants"),
        (lambda held: held["objects"]["table sales.orders"].__setitem__("owner", "x"), "another owner"),
        (
            lambda held: held["objects"].__setitem__("extension x", {"owner": None, "grants": [], "rest": []}),
            "extension x is missing",
        ),
        (lambda held: held["sequences"].__setitem__("sales.orders_id_seq", [7, True]), "sequence sales.orders_id_seq"),
    ],
    ids=["a lost row", "a changed value", "lost grants", "another owner", "a lost extension", "a sequence set back"],
)  # fmt: skip
def test_what_a_drill_compares_is_compared(backed: Backed, spoil: Any, said: str) -> None:
    """The comparison itself, on facts of a real database; the drill above runs it on a restored one."""
    import copy

    held = backed.take().manifest.facts
    assert facts.compare(held, held) == []
    other = copy.deepcopy(held)
    spoil(other)
    other["sequences_after"] = other["sequences"]
    assert said in "; ".join(facts.compare(other, held))


def test_prune_shows_its_plan_and_removes_what_no_rule_keeps(document: Path) -> None:
    document.write_text(document.read_text() + "retention: {last: 1}\n")
    first, second = (datops("run")["backup_id"] for _ in range(2))
    assert [(row["backup_id"], row["goes"]) for row in datops("prune")] == [(first, True), (second, False)]
    assert len(list((document.parent / "kept/one/erp").iterdir())) == 2
    assert [row["backup_id"] for row in datops("prune", "--apply")] == [first]
    assert [path.name for path in (document.parent / "kept/two/erp").iterdir()] == [second]
    assert [entry["state"] for entry in datops("list")] == ["pruned", "complete"]
    assert datops("prune", "--apply") == []


def test_a_person_plans_and_restores(document: Path, target: Server) -> None:
    datops("run")
    plan = datops("restore", "--database", target.dbname)
    assert (plan["problems"], plan["tables"], plan["rows"]) == ([], 4, 5605)
    assert datops("restore", "--database", target.dbname, "--apply")["findings"] == []
    assert "is not empty" in str(datops("restore", "--database", target.dbname, expect=1))
    assert "has no table sales.nothing" in str(
        datops("restore", "--database", target.dbname, "--table", "sales.nothing", expect=1)
    )


@pytest.mark.backup_fault
def test_a_lost_warehouse_stands_in_the_way_of_no_restore(
    document: Path, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (datops("run")["backup_id"] for _ in range(2))
    monkeypatch.setenv("DATOPS_WAREHOUSE_URL", "postgresql://nobody@127.0.0.1:1/gone")
    assert [one["backup_id"] for one in datops("list", "--at", "second")] == [first, second]
    wanted = ["restore", "--database", target.dbname, "--without-catalogue"]
    assert "expected --at with one of: local, second" in str(datops(*wanted, expect=2))
    plan = datops(*wanted, "--at", "second")
    assert (plan["problems"], plan["backup_id"]) == ([], second)
    done = datops(*wanted, "--at", "second", "--backup", first, "--apply")
    assert (done["findings"], done["rows"]) == ([], 5605)
    assert "has no such backup" in str(datops(*wanted, "--at", "local", "--backup", "01X", expect=1))
    manifest = document.parent / "kept/two/erp" / second / "manifest.json"
    manifest.write_text(manifest.read_text().replace("5000", "5001", 1))
    assert "has no such backup" in str(datops(*wanted, "--at", "second", "--backup", second, expect=1))
