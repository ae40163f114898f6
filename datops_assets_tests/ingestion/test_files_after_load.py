"""What becomes of a file once it is loaded: nothing is lost, and nothing is loaded twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from datops_assets.errors import SourceRefusedError
from datops_assets.ingestion import AfterLoad, FileSource
from datops_assets.ingestion.remote import RemoteStore
from datops_assets_tests.ingestion.conftest import Lab
from datops_assets_tests.ingestion.stores.servers import BUCKET, s3_server, sftp_server

LOADER = """
import sys
from pathlib import Path
import psycopg
from datops_assets.ingestion import AfterLoad, FileSource, FileTable, load_table
from datops_assets.postgres import failpoints

url, folder, archive, failpoint = sys.argv[1:]
failpoints.arm(failpoint, 2)
how = AfterLoad("archive", Path(archive)) if archive else AfterLoad("delete")
with psycopg.connect(url, autocommit=True) as conn:
    table = FileTable(source="shop", name="orders", root=Path(folder), pattern="*")
    load_table(conn, FileSource(after_load=how), table, batch="killed", adbc_url=url)
"""


def today() -> str:
    return datetime.now(UTC).date().isoformat()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def load(lab: Lab, how: AfterLoad) -> list[tuple[str, str]]:
    return [(result.path, result.state) for result in lab.load(source=FileSource(after_load=how)).results]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_loaded_file_goes_into_the_archive(lab: Lab, archive: Path) -> None:
    """By the day of its load, under its own path; one that was not loaded stays."""
    lab.declare(pattern="**/*")
    lab.write("2026/a.csv", "x\n1\n")
    lab.write("broken.csv.gz", b"\x1f\x8bno")
    lab.write("waits.csv.part", "x\n")
    load(lab, AfterLoad("archive", archive))
    assert files(archive) == [f"{today()}/2026/a.csv"]
    assert files(lab.folder) == ["broken.csv.gz", "waits.csv.part"]
    assert lab.rows("x") == [("1",)]
    assert load(lab, AfterLoad("archive", archive)) == []


def test_a_loaded_file_is_deleted(lab: Lab) -> None:
    lab.write("a.csv", "x\n1\n")
    load(lab, AfterLoad("delete"))
    assert files(lab.folder) == []
    assert lab.rows("x") == [("1",)]


def test_a_file_that_comes_back_is_not_loaded_twice(lab: Lab, archive: Path) -> None:
    """The same content goes where it is already; another content is loaded, and stands beside it."""
    how = AfterLoad("archive", archive)
    lab.declare(changed_file="append")
    for content in ("x\n1\n", "x\n1\n", "x\n2\n"):
        lab.write("a.csv", content)
        load(lab, how)
    assert lab.rows("x") == [("1",), ("2",)]
    assert files(archive) == [f"{today()}/a.2.csv", f"{today()}/a.csv"]
    assert files(lab.folder) == []


def test_files_that_were_loaded_before_are_put_away_once_that_is_declared(lab: Lab, archive: Path) -> None:
    lab.write("a.csv", "x\n1\n")
    load(lab, AfterLoad())
    assert load(lab, AfterLoad("archive", archive)) == []
    assert files(archive) == [f"{today()}/a.csv"]


def test_a_file_that_was_taken_out_of_silver_stays(lab: Lab, archive: Path) -> None:
    from datops_assets.ingestion import undo_load

    lab.write("a.csv", "x\n1\n")
    load(lab, AfterLoad())
    undo_load(lab.warehouse.conn, lab.loads()[0].ulid)
    load(lab, AfterLoad("archive", archive))
    assert files(lab.folder) == ["a.csv"]


def test_a_file_that_changed_since_it_was_loaded_stays(lab: Lab, archive: Path) -> None:
    path = lab.write("a.csv", "x\n1\n")
    source = FileSource(after_load=AfterLoad("archive", archive))
    (unit,) = source.list_units(lab.table)
    path.write_text("x\n2\n3\n")
    source.acknowledge(unit)
    path.unlink()
    source.acknowledge(unit)
    assert (files(archive) if archive.exists() else [], files(lab.folder)) == ([], [])


def test_an_archive_that_cannot_be_made_is_one_sentence(lab: Lab, tmp_path: Path) -> None:
    """The rows are loaded all the same, and the next run tries the rest again."""
    (tmp_path / "file").write_text("")
    lab.write("a.csv", "x\n1\n")
    with pytest.raises(SourceRefusedError, match=r"a\.csv is loaded, but cannot be moved into"):
        load(lab, AfterLoad("archive", tmp_path / "file"))
    assert lab.rows("x") == [("1",)]
    assert load(lab, AfterLoad("archive", tmp_path / "archive")) == []
    assert files(lab.folder) == []


@pytest.mark.parametrize(
    ("action", "failpoint"),
    [
        *(
            (action, failpoint)
            for action in ("archive", "delete")
            for failpoint in ("after_commit", "before_put_away", "after_put_away")
        ),
        ("archive", "in_put_away"),  # deleting is one step
    ],
)
def test_killed_at_any_step_each_file_is_loaded_and_put_away_once(
    lab: Lab, archive: Path, action: str, failpoint: str
) -> None:
    """The second of three files is hit."""
    for n in range(3):
        lab.write(f"{n}.csv", f"x\n{n}\n")
    arguments = [lab.warehouse.url, str(lab.folder), str(archive) if action == "archive" else "", failpoint]
    process = subprocess.run([sys.executable, "-c", LOADER, *arguments], timeout=60)
    assert process.returncode == -signal.SIGKILL
    load(lab, AfterLoad("archive", archive) if action == "archive" else AfterLoad("delete"))
    assert lab.rows("x") == [("0",), ("1",), ("2",)]
    assert [entry.state for entry in lab.loads() if entry.state != "interrupted"] == ["loaded"] * 3
    assert files(lab.folder) == []
    assert action == "delete" or files(archive) == [f"{today()}/{n}.csv" for n in range(3)]


def test_objects_are_moved_inside_their_store(lab: Lab) -> None:
    with s3_server() as s3:
        how = AfterLoad("archive", f"s3://{BUCKET}/archive")
        lab.declare(root=f"s3://{BUCKET}/in", changed_file="append")
        for content in (b"x\n1\n", b"x\n1\n", b"x\n2\n"):
            s3.put("in/a.csv", content)
            with FileSource(store=RemoteStore(f"s3://{BUCKET}/in", s3.options), after_load=how) as source:
                lab.load(source=source)
        names = [found["Key"] for found in s3.client.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert lab.rows("x") == [("1",), ("2",)]
    assert names == [f"archive/{today()}/a.2.csv", f"archive/{today()}/a.csv"]


@pytest.mark.parametrize("action", ["archive", "delete"])
def test_files_on_an_sftp_server_are_put_away(lab: Lab, tmp_path: Path, action: str) -> None:
    with sftp_server(tmp_path / "sftp") as sftp:
        url = f"{sftp.url}/in"
        archive = f"{sftp.url}/archive"
        how = AfterLoad("archive", archive) if action == "archive" else AfterLoad("delete")
        (sftp.folder / "in").mkdir()
        (sftp.folder / "in" / "a.csv").write_text("x\n1\n")
        lab.declare(root=url)
        with FileSource(store=RemoteStore(url, sftp.options()), after_load=how) as source:
            lab.load(source=source)
        left = files(sftp.folder)
    assert lab.rows("x") == [("1",)]
    assert left == ([f"archive/{today()}/a.csv"] if action == "archive" else [])
