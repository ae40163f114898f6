"""Files behind a URL, on real servers: S3, SFTP and the web keep the same promises as a folder."""

from __future__ import annotations

import bz2
import gzip
import io
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from datops_assets.errors import FileChangedError, SourceRefusedError, SourceUnreachableError
from datops_assets.ingestion import FileSource, FileTable, Landing, TextDelivery
from datops_assets.ingestion.http_store import HttpStore
from datops_assets.ingestion.remote import RemoteStore
from datops_assets.ingestion.store import Store
from datops_assets.testing.sources import SourceContract
from datops_assets_tests.ingestion.conftest import Lab
from datops_assets_tests.ingestion.stores.servers import (
    BUCKET,
    HOST,
    S3,
    Azure,
    Gcs,
    Sftp,
    Web,
    azure_server,
    gcs_server,
    s3_server,
    sftp_server,
    web_server,
)


@pytest.fixture(scope="module")
def s3_running() -> Iterator[S3]:
    with s3_server() as running:
        yield running


@pytest.fixture
def s3(s3_running: S3) -> Iterator[S3]:
    yield s3_running
    listed = s3_running.client.list_objects_v2(Bucket=BUCKET)
    for found in listed.get("Contents", []):
        s3_running.client.delete_object(Bucket=BUCKET, Key=found["Key"])


@pytest.fixture(scope="module")
def sftp_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sftp]:
    with sftp_server(tmp_path_factory.mktemp("sftp")) as running:
        yield running


@pytest.fixture
def sftp(sftp_running: Sftp) -> Iterator[Sftp]:
    import shutil

    yield sftp_running
    for found in sftp_running.folder.iterdir():
        shutil.rmtree(found) if found.is_dir() else found.unlink()


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as running:
        yield running


@pytest.fixture(scope="module")
def gcs_running() -> Iterator[Gcs]:
    with gcs_server() as running:
        yield running


@pytest.fixture
def gcs(gcs_running: Gcs) -> Iterator[Gcs]:
    import fsspec

    yield gcs_running
    files = fsspec.filesystem(
        "gcs", **gcs_running.options, skip_instance_cache=True, use_listings_cache=False
    )
    for found in files.find(BUCKET):
        files.rm_file(found)


@pytest.fixture(scope="module")
def azure_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    with azure_server(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture
def azure(azure_running: Azure) -> Iterator[Azure]:
    yield azure_running
    for found in list(azure_running.container.list_blobs()):
        azure_running.container.delete_blob(found.name)


BUCKETS = {"s3": "s3", "gcs": "gs", "azure": "abfs"}
"""Kinds of stores that have buckets, and what their URLs begin with."""


class Place:
    """One store, and how to put files there."""

    def __init__(self, kind: str, request: pytest.FixtureRequest) -> None:
        self.kind = kind
        self._server = request.getfixturevalue(kind)

    @property
    def url(self) -> str:
        return f"{BUCKETS[self.kind]}://{BUCKET}/shop" if self.kind in BUCKETS else self._server.url

    def put(self, name: str, content: bytes) -> None:
        if self.kind in BUCKETS:
            self._server.put(f"shop/{name}", content)
        elif self.kind == "sftp":
            path = self._server.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        else:
            self._server.pages[name] = content

    def store(self) -> Store:
        if self.kind in BUCKETS:
            return RemoteStore(self.url, self._server.options)
        if self.kind == "sftp":
            return RemoteStore(self.url, self._server.options())
        return HttpStore(self.url)

    def source(self) -> FileSource:
        return FileSource(store=self.store())


@pytest.fixture(params=["s3", "gcs", pytest.param("azure", marks=pytest.mark.slow), "sftp", "web"])
def place(request: pytest.FixtureRequest) -> Place:
    return Place(request.param, request)


class TestStores(SourceContract):
    """Each store keeps the promises of a source."""

    @pytest.fixture
    def source(self, place: Place) -> Iterator[FileSource]:
        with place.source() as source:
            yield source

    @pytest.fixture
    def table(self, place: Place) -> FileTable:
        place.put("a.csv", b"x,y\n1,2\n")
        place.put("b.jsonl.gz", gzip.compress(b'{"x": 1}\n'))
        place.put("c.parquet", parquet(1))
        return FileTable(source="shop", name="orders", root=place.url, pattern="*")

    @pytest.fixture
    def missing(self, place: Place) -> FileTable:
        return FileTable(source="shop", name="orders", root=place.url, pattern="*")

    def test_check_says_yes_or_no_and_never_raises(
        self, source: FileSource, table: FileTable, missing: FileTable, place: Place
    ) -> None:
        """A store that nobody reaches says no."""
        assert source.check(table).ok
        nowhere = FileSource(store=HttpStore(f"http://{HOST}:9/files"))
        assert (nowhere.check(missing).ok, bool(nowhere.check(missing).message)) == (False, True)


def parquet(rows: int) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"x": range(rows), "y": [f"y{n}" for n in range(rows)]}), file)
    return file.getvalue()


def orc_file(rows: int) -> bytes:
    file = io.BytesIO()
    orc.write_table(pa.table({"x": range(rows), "y": [f"y{n}" for n in range(rows)]}), file)
    return file.getvalue()


def workbook(rows: int) -> bytes:
    file, book = io.BytesIO(), openpyxl.Workbook()
    assert book.active is not None
    for row in [("x", "y"), *((n, f"y{n}") for n in range(rows))]:
        book.active.append(row)
    book.save(file)
    return file.getvalue()


def csv(rows: int) -> bytes:
    return b"x,y\n" + b"".join(b"%d,y%d\n" % (n, n) for n in range(rows))


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as container:
        container.writestr("a.csv", content)
    return file.getvalue()


def declare(lab: Lab, place: Place, **changes: Any) -> None:
    lab.declare(root=place.url, **{"pattern": "*", **changes})


def load(lab: Lab, place: Place) -> list[tuple[str, str | None, int]]:
    with place.source() as source:
        return [(result.path, result.error, result.rows) for result in lab.load(source=source).results]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", csv(3000)),
        ("a.csv.bz2", bz2.compress(csv(3000))),
        ("a.csv.zip", zipped(csv(3000))),
        ("a.parquet", parquet(3000)),
        ("a.orc", orc_file(3000)),
        ("a.xlsx", workbook(3000)),
    ],
)
def test_every_format_is_read_from_every_store(lab: Lab, place: Place, name: str, content: bytes) -> None:
    """Once; its hash is that of the same file on a disk."""
    declare(lab, place)
    place.put(name, content)
    assert load(lab, place) == [(name, None, 3000)]
    assert load(lab, place) == []
    lab.write(name, content)
    lab.declare(root=lab.folder)
    assert lab.load().results == []


def test_patterns_match_as_they_do_on_a_disk(lab: Lab, place: Place) -> None:
    names = [
        "a.csv", "b.txt", "2026/a.csv", "2026/01/a10.csv", "2026/01/a9.csv", "2026/.hidden.csv", "2027/b.csv.part",
    ]  # fmt: skip
    for name in names:
        place.put(name, b"x\n1\n")
        lab.write(name, b"x\n1\n")
    patterns = [
        "*.csv",
        "a.csv",
        "2026/*.csv",
        "*/*.csv",
        "**/*.csv",
        "2026/**/a*.csv",
        "no/*.csv",
        "2027/*",
        "b.csv",
    ]
    table = FileTable(source="shop", name="t", root=lab.folder, pattern="")
    with place.source() as source:
        for pattern in [*patterns, "a.csv\n2026/*.csv"]:
            here = FileSource().list_units(replace(table, pattern=pattern))
            there = source.list_units(replace(table, root=place.url, pattern=pattern))
            expected = [(unit.path, unit.waiting, unit.format, unit.size_bytes) for unit in here]
            assert [(unit.path, unit.waiting, unit.format, unit.size_bytes) for unit in there] == expected, (
                pattern
            )


def test_a_file_with_new_content_is_loaded_again(lab: Lab, place: Place) -> None:
    declare(lab, place)
    place.put("a.csv", csv(10))
    assert load(lab, place) == [("a.csv", None, 10)]
    place.put("a.csv", csv(11))
    assert load(lab, place) == [("a.csv", None, 11)]
    assert [entry.state for entry in lab.loads()] == ["superseded", "loaded"]


def test_done_markers_are_waited_for(lab: Lab, place: Place) -> None:
    declare(lab, place, pattern="*.csv", landing=Landing(done_marker="{name}.done"))
    place.put("a.csv", csv(10))
    assert load(lab, place) == []
    place.put("a.csv.done", b"")
    assert load(lab, place) == [("a.csv", None, 10)]


def test_a_young_file_waits_where_the_store_says_how_old_it_is(lab: Lab, place: Place) -> None:
    declare(lab, place, landing=Landing(stable_for_s=3600))
    place.put("a.csv", csv(10))
    with place.source() as source:
        (unit,) = source.list_units(lab.table)
    assert (unit.waiting is None) == (place.kind == "web")  # which only gave an ETag


def test_a_file_replaced_while_it_is_read_is_found(lab: Lab, place: Place) -> None:
    """Nothing of it is kept, and the next run takes the new one."""
    declare(lab, place)
    place.put("a.csv", csv(200_000))
    with place.source() as source:
        (unit,) = source.list_units(lab.table)
        with source.open(unit) as delivery, pytest.raises(FileChangedError):
            assert isinstance(delivery, TextDelivery)
            chunks = delivery.chunks()
            next(chunks)
            place.put("a.csv", csv(150_000))
            for _ in chunks:
                pass
            delivery.content_hash()
        with pytest.raises(FileChangedError), source.open(replace(unit, fingerprint="other")) as stale:
            stale.content_hash()
    assert load(lab, place) == [("a.csv", None, 150_000)]


def test_a_typed_file_replaced_before_it_is_fetched_is_found(lab: Lab, place: Place) -> None:
    declare(lab, place)
    place.put("a.parquet", parquet(10))
    with place.source() as source:
        (unit,) = source.list_units(lab.table)
        place.put("a.parquet", parquet(12))
        with pytest.raises(FileChangedError):
            source.open(unit)


def test_a_file_that_vanished_is_found(lab: Lab, s3: S3, request: pytest.FixtureRequest) -> None:
    place = Place("s3", request)
    declare(lab, place)
    place.put("a.csv", csv(10))
    with place.source() as source:
        (unit,) = source.list_units(lab.table)
        s3.client.delete_object(Bucket=BUCKET, Key="shop/a.csv")
        with pytest.raises(FileChangedError, match=r"a\.csv vanished before it was read"):
            source.open(unit)


def test_no_copy_is_left_behind(
    lab: Lab, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither after a load, nor after a file that changed."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    declare(lab, place)
    place.put("a.parquet", parquet(10))
    place.put("b.parquet", parquet(11))
    assert len(load(lab, place)) == 2
    with place.source() as source:
        (unit, _) = source.list_units(lab.table)
        with pytest.raises(FileChangedError):
            source.open(replace(unit, fingerprint="other"))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_bucket_that_is_not_there_is_said(s3: S3) -> None:
    table = FileTable(source="s", name="t", root="s3://nobucket/x", pattern="*")
    source = FileSource(store=RemoteStore("s3://nobucket/x", s3.options))
    with pytest.raises(SourceRefusedError, match="s3://nobucket/x is not there"):
        source.list_units(table)


@pytest.mark.parametrize("kind", ["sftp", "web", pytest.param("azure", marks=pytest.mark.slow)])
def test_wrong_credentials_are_one_sentence(kind: str, request: pytest.FixtureRequest) -> None:
    """Without them."""
    server = request.getfixturevalue(kind)
    if kind == "sftp":
        store: RemoteStore | HttpStore = RemoteStore(server.url, server.options(password="hunter2"))
    elif kind == "azure":
        wrong = server.connection_string("aHVudGVyMi1odW50ZXIyLWh1bnRlcjI=")
        store = RemoteStore(f"abfs://{BUCKET}/shop", {"connection_string": wrong})
    else:
        server.password = "right"
        store = HttpStore(server.url, {"token": "hunter2"})
    table = FileTable(source="s", name="t", root=store.url, pattern="*")
    with pytest.raises(SourceRefusedError, match=r"refuses us \(.*\); check the credentials") as refused:
        FileSource(store=store).list_units(table)
    assert "hunter2" not in str(refused.value)


def test_a_server_whose_key_is_not_known_is_refused(sftp: Sftp, tmp_path: Path) -> None:
    (tmp_path / "none").write_text("")
    options = {**sftp.options(), "known_hosts": str(tmp_path / "none")}
    table = FileTable(source="s", name="t", root=sftp.url, pattern="*")
    with pytest.raises(SourceRefusedError, match=r"its host key is not the one in known_hosts"):
        FileSource(store=RemoteStore(sftp.url, options)).list_units(table)


@pytest.mark.parametrize(
    "store",
    [
        HttpStore(f"http://{HOST}:9/x"),
        RemoteStore(f"sftp://ada@{HOST}:9/x", {"look_for_keys": False, "allow_agent": False}),
        RemoteStore("s3://landing/x", S3(9, None).options),
    ],
    ids=["web", "sftp", "s3"],
)
def test_a_server_that_nobody_reaches_may_be_tried_again(store: Store) -> None:
    table = FileTable(source="s", name="t", root="x", pattern="*")
    with pytest.raises(SourceUnreachableError, match="does not answer"):
        FileSource(store=store).list_units(table)


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, SourceRefusedError), (429, SourceUnreachableError), (503, SourceUnreachableError)],
)
def test_what_a_web_server_says_is_told_apart(web: Web, status: int, error: type[Exception]) -> None:
    web.status = status
    table = FileTable(source="s", name="t", root=web.url, pattern="*")
    with pytest.raises(error, match=str(status)):
        FileSource(store=HttpStore(web.url)).list_units(table)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_an_answer_that_ends_too_early_is_tried_again(lab: Lab, web: Web, name: str) -> None:
    """Nothing of it is kept."""
    lab.declare(root=web.url, pattern="*")
    web.pages[name] = csv(50_000) if name.endswith("csv") else parquet(50_000)
    web.cut_after = 100_000
    (result,) = lab.load(source=FileSource(store=HttpStore(web.url))).results
    assert (result.state, "does not answer (RemoteProtocolError" in str(result.error)) == (
        "interrupted",
        True,
    )
    web.cut_after = None
    assert lab.load(source=FileSource(store=HttpStore(web.url))).rows_added == 50_000


def test_a_web_server_without_head_or_etag_is_read_all_the_same(lab: Lab, web: Web) -> None:
    """By the time of the last change; a body packed for the way is told by its first bytes."""
    web.with_head, web.with_etag = False, False
    web.pages["a.csv"] = gzip.compress(csv(10))
    web.encoding = "gzip"
    lab.declare(root=web.url, pattern="*")
    assert [result.error for result in lab.load(source=FileSource(store=HttpStore(web.url))).results] == [
        None
    ]
    assert lab.load(source=FileSource(store=HttpStore(web.url))).results == []


def test_options_that_no_store_knows_are_named(web: Web) -> None:
    table = FileTable(source="s", name="t", root=web.url, pattern="*")
    with pytest.raises(SourceRefusedError, match="`options:` has tokn, expected of"):
        FileSource(store=HttpStore(web.url, {"tokn": "x"})).list_units(table)


def test_a_driver_that_is_missing_is_one_sentence() -> None:
    table = FileTable(source="s", name="t", root="x", pattern="*")
    with pytest.raises(SourceRefusedError, match="smb://host/x"):
        FileSource(store=RemoteStore("smb://host/x")).list_units(table)


def test_a_fetched_file_is_not_fetched_twice(lab: Lab, web: Web) -> None:
    """Not for its columns, and not for its hash."""
    web.pages["a.parquet"] = parquet(100)
    lab.declare(root=web.url, pattern="*")
    lab.load(source=FileSource(store=HttpStore(web.url)))
    assert web.requests.count("GET /files/a.parquet") == 1


def test_a_large_object_is_read_in_bounded_memory(lab: Lab, s3: S3) -> None:
    """Pieces of 8 MiB, one ahead."""
    import tracemalloc

    s3.put("shop/a.csv", b"x,y\n" + b"1,2\n" * (12 << 20))
    store = RemoteStore(f"s3://{BUCKET}/shop", s3.options)
    (unit,) = store.list_units(FileTable(source="s", name="t", root="x", pattern="*"), time.time())
    tracemalloc.start()
    with store.stream(unit) as file:
        size = 0
        while chunk := file.read(1 << 20):
            size += len(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == (48 << 20) + 4
    # moto answers in this process, too, and holds the object several times.
    assert peak < 400 << 20
