"""A server with tablespaces of its own: copied, drilled, restored in the folder or elsewhere, not at the old path."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from datops_assets.backup.physical import plan_physical
from datops_assets_tests.backup.conftest import datops
from datops_assets_tests.backup.physical_server import Copied
from datops_assets_tests.backup.test_wal import drop_slot, log_document, server_of

__all__ = ["log_document"]
pytestmark = pytest.mark.backup_fault

HOSTILE = 'fast " $(touch pwned); ..\\ disk'
"""Part of a path that somebody may have given a tablespace. Single quotes and line ends PostgreSQL refuses."""


@pytest.fixture
def old(copied: Copied, tmp_path: Path) -> Iterator[Path]:
    """The folder of a tablespace, with a table in it."""
    folder = tmp_path / HOSTILE / "old"
    folder.mkdir(parents=True)
    with copied.connect() as conn:
        conn.execute(sql.SQL("create tablespace fast location {}").format(sql.Literal(str(folder))))
        conn.execute("create table on_fast (a int primary key) tablespace fast")
        conn.execute("insert into on_fast select generate_series(1, 1000)")
        conn.execute("checkpoint")
    yield folder
    with copied.connect() as conn:
        conn.execute("drop table if exists on_fast")
        conn.execute("drop tablespace fast")


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def rows(folder: Path) -> Any:
    with server_of(folder, 180000) as conn:
        return conn.execute("select count(*), pg_tablespace_location(max(t.oid)) from on_fast, pg_tablespace t"
                            " where spcname = 'fast'").fetchone()  # fmt: skip


def test_tablespaces_come_back_inside_the_folder_or_where_one_says(
    server_document: Path, copied: Copied, old: Path, tmp_path: Path
) -> None:
    datops("run", "--kind", "full")
    with copied.connect() as conn:
        conn.execute("insert into on_fast select generate_series(1001, 1200)")
    datops("run", "--kind", "incremental")
    assert datops("drill")["findings"] == []
    assert [row["passed"] for row in datops("verify", "--all")] == [True, True]
    with copied.connect() as conn:
        conn.execute("checkpoint")
    before = content(old)
    inside, outside, there = tmp_path / "inside", tmp_path / "outside", tmp_path / "disks" / "fast"
    plan = datops("restore", "--folder", str(inside))
    assert plan["tablespaces"]["fast"].startswith(f"{inside}/pg_tblspc/")
    assert datops("restore", "--folder", str(inside), "--apply")["findings"] == []
    assert not [path for path in (inside / "pg_tblspc").iterdir() if path.is_symlink()]
    assert rows(inside)[0] == 1200
    wanted = ["--folder", str(outside), "--tablespace", f"fast={there}"]
    assert datops("restore", *wanted)["tablespaces"] == {"fast": str(there)}
    assert datops("restore", *wanted, "--apply")["findings"] == []
    assert (1200, str(there)) == rows(outside)
    assert content(old) == before
    assert not Path("pwned").exists()


def test_a_place_that_a_tablespace_cannot_have_is_named_in_the_plan(
    server_document: Path, copied: Copied, old: Path, tmp_path: Path
) -> None:
    datops("run", "--kind", "full")
    back, filled = tmp_path / "back", tmp_path / "filled"
    filled.mkdir()
    (filled / "a").write_text("b")

    def problems(*given: str) -> str:
        options = [part for one in given for part in ("--tablespace", one)]
        return str(datops("restore", "--folder", str(back), *options, expect=1)["problems"])

    assert "no tablespace 'slow'; it has: fast" in problems(f"slow={tmp_path / 'x'}")
    assert "is not empty" in problems(f"fast={filled}")
    assert "is not empty" in problems(f"fast={old}")
    assert "lie in each other" in problems(f"fast={back / 'pg_tblspc' / 'x'}")
    assert "expected NAME=/FOLDER" in str(
        datops("restore", "--folder", str(back), "--tablespace", "fast=relative", expect=2)
    )


def test_no_room_for_the_archives_is_said_before_anything_is_copied(
    copied: Copied, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 1 << 20

    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: Full)
        problems = plan_physical(copied.backup, "full").problems
    assert any("with tablespaces of its own (fast) is written there first" in one for one in problems)


def test_a_log_that_makes_a_tablespace_is_not_replayed_onto_the_old_path(
    log_document: Path, copied: Copied, tmp_path: Path
) -> None:
    """PostgreSQL would make it there again, and write into what the living server has."""
    datops("wal", "--once")
    datops("run", "--kind", "full")
    folder = tmp_path / "later"
    folder.mkdir()
    with copied.connect() as conn:
        conn.execute("insert into orders values (80001, 'before')")
        row = conn.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        conn.execute(f"create tablespace later location '{folder}'")
    try:
        datops("wal", "--once")
        before = sorted(folder.rglob("*"))
        said = str(datops("restore", "--folder", str(tmp_path / "end"), "--apply", expect=1))
        assert f"makes a tablespace at '{folder}'" in said
        assert "--to-lsn" in said
        assert sorted(folder.rglob("*")) == before
        done = datops("restore", "--folder", str(tmp_path / "back"), "--to-lsn", row[0], "--apply")
        assert done["findings"] == []
    finally:
        with copied.connect() as conn:
            conn.execute("drop tablespace later")
        drop_slot(copied)
