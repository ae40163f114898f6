"""What every source has to survive, for files: on a disk, and in an S3 bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from datops_assets.ingestion import FileSource, FileTable, Source, SourceTable
from datops_assets.ingestion.remote import RemoteStore
from datops_assets.testing.sources import FEW, FarSide, Rig, SlowOrCutProxy, SourceSuite
from datops_assets_tests.ingestion.stores.servers import BUCKET, HOST, S3, s3_server

NAME = "orders.csv"


def content(rows: int) -> Iterator[bytes]:
    yield b"id,name\n"
    for first in range(1, rows + 1, 50_000):
        last = min(first + 50_000, rows + 1)
        yield "".join(f"{n},name {n}\n" for n in range(first, last)).encode()


def opened_folder(folder: str) -> tuple[Source[Any], SourceTable]:
    return FileSource(), FileTable(source="far", name="orders", root=Path(folder), pattern="*.csv")


def opened_bucket(options: dict[str, Any]) -> tuple[Source[Any], SourceTable]:
    url = f"s3://{BUCKET}/in"
    table = FileTable(source="far", name="orders", root=url, pattern="*.csv")
    return FileSource(store=RemoteStore(url, options)), table


class Folder(FarSide):
    """A file that is replaced by a new one."""

    opener: ClassVar[Any] = opened_folder

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fill(self, rows: int) -> None:
        part = self._folder / f"{NAME}.part"
        with part.open("wb") as file:
            file.writelines(content(rows))
        part.replace(self._folder / NAME)

    def arguments(self, address: tuple[str, int] | None = None, secret: str | None = None) -> dict[str, Any]:
        return {"folder": str(self._folder)}

    def add_column(self) -> bool:
        old = (self._folder / NAME).read_text().splitlines()
        lines = [f"{old[0]},note", *(f"{line},new" for line in old[1:])]
        (self._folder / NAME).write_text("\n".join(lines) + "\n")
        return True


class Bucket(FarSide):
    """An object that is replaced by a new one."""

    opener: ClassVar[Any] = opened_bucket

    def __init__(self, s3: S3) -> None:
        self._s3 = s3
        self.address = (HOST, s3.port)

    def fill(self, rows: int) -> None:
        self._s3.put(f"in/{NAME}", b"".join(content(rows)))

    def arguments(self, address: tuple[str, int] | None = None, secret: str | None = None) -> dict[str, Any]:
        return {"options": self._s3.options_by(address or (HOST, self._s3.port))}


class TestFolderSuite(SourceSuite):
    """Files on a disk."""

    @pytest.fixture
    def far(self, tmp_path: Path) -> Folder:
        (tmp_path / "landing").mkdir()
        return Folder(tmp_path / "landing")


@pytest.mark.slow  # files on disk keep the same promises in CI, by the same code
class TestBucketSuite(SourceSuite):
    """Objects of an S3 server, which asks nobody for a signature."""

    @pytest.fixture
    def far(self) -> Iterator[Bucket]:
        with s3_server() as s3:
            yield Bucket(s3)

    @pytest.mark.slow  # its driver tries again for 20 s
    def test_a_connection_cut_in_the_middle_keeps_nothing_of_it(self, rig: Rig) -> None:
        """All or nothing: S3's driver may ask again for the piece that was cut off, of the same version."""
        assert rig.far.address is not None
        rig.far.fill(20 * FEW)
        with SlowOrCutProxy(rig.far.address, cut_after=200_000) as proxy:
            failed = rig.load(address=proxy.address).failed
            assert proxy.cuts >= 1
        assert rig.counts() == ((0, 0) if failed else (20 * FEW, 20 * FEW))
        assert {result.state for result in failed} <= {"interrupted"}
        assert rig.load().failed == []
        assert rig.counts() == (20 * FEW, 20 * FEW)
