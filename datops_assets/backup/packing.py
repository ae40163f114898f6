"""Pack the files of a backup while they are being written, several at once.

A dump that runs says which of its files it has finished: those are compressed, encrypted and sent meanwhile, and at
its end only what is small is left to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datops_assets.backup import artefacts
from datops_assets.backup.artefacts import Artefact, bundle, pack
from datops_assets.backup.destinations import Destination
from datops_assets.backup.encryption import Keys
from datops_assets.backup.manifest import folder_of
from datops_assets.postgres.failpoints import hit


@dataclass(frozen=True)
class _Packed:
    artefact: Artefact
    files: Mapping[str, Path]
    stamps: Mapping[str, tuple[int, int]]
    """Size and time of change of every file before it was read."""


class Packer:
    """Turns the files below one folder into the artefacts of one backup."""

    def __init__(
        self, folder: Path, name: str, backup_id: str, destinations: Sequence[Destination], keys: Keys,
        failed: dict[str, str], pool: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        self._folder, self._below = folder, folder_of(name, backup_id)
        self._destinations, self._key, self._failed = destinations, keys.current, failed
        self._pool = pool
        self._running: list[Future[_Packed]] = []
        self._taken: set[str] = set()
        self._together: dict[str, Path] = {}
        self._held_bytes = 0

    def ready(self, name: str) -> None:
        """Say of a file that nobody writes to it any more.

        raises    BackupError: no destination is left, so that going on is of no use
        """
        for one in self._running:
            if one.done():
                one.result()
        path = self._folder / name
        if name in self._taken or not path.is_file():
            return
        size = path.stat().st_size
        if size >= artefacts.BUNDLE_BYTES:
            self._begin({name: path})
            return
        self._together[name] = path
        self._held_bytes += size
        if self._held_bytes >= artefacts.BUNDLE_BYTES:
            self._begin(self._together)
            self._together, self._held_bytes = {}, 0

    def finish(self) -> list[Artefact]:
        """Pack what is left, now that nobody writes any more.

        promise    a file that changed after it was said to be ready is packed again
        """
        left = {
            name: path
            for path in sorted(self._folder.rglob("*"))
            if path.is_file() and (name := path.relative_to(self._folder).as_posix()) not in self._taken
        }
        for files in bundle(left):
            self._begin(files)
        return [self._still_right(number, one.result()) for number, one in enumerate(self._running, start=1)]

    def _begin(self, files: Mapping[str, Path]) -> None:
        self._taken |= set(files)
        self._running.append(self._pool.submit(self._pack, len(self._running) + 1, dict(files)))

    def _pack(self, number: int, files: Mapping[str, Path]) -> _Packed:
        stamps = {name: _stamp(path) for name, path in files.items()}
        artefact = f"{number:05d}.tar.zst{'.enc' if self._key else ''}"
        place = f"{self._below}/{artefact}"
        packed = pack(files, artefact, place, self._destinations, self._key, self._failed)
        hit("backup.artefact")
        return _Packed(packed, files, stamps)

    def _still_right(self, number: int, packed: _Packed) -> Artefact:
        """Look again: whoever names a table may make a dump say that another one is finished."""
        while packed.stamps != {name: _stamp(path) for name, path in packed.files.items()}:
            packed = self._pack(number, packed.files)
        return packed.artefact


@contextmanager
def packer_of(
    folder: Path, name: str, backup_id: str, destinations: Sequence[Destination], keys: Keys, failed: dict[str, str],
    jobs: int,
) -> Iterator[Packer]:  # fmt: skip
    """A packer with `jobs` threads; when the block ends by an error, what waits is not begun.

    failed    destinations that are left out, with the reason; added to
    """
    pool = ThreadPoolExecutor(max_workers=max(1, jobs), thread_name_prefix="pack")
    try:
        yield Packer(folder, name, backup_id, destinations, keys, failed, pool)
    finally:
        pool.shutdown(cancel_futures=True)


def _stamp(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns
