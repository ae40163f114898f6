"""Artefacts: files of a backup in one stream, tar → zstd → encryption → every destination at once.

Belongs here: packing, unpacking and checking one artefact in bounded memory. Does not: which files make a backup.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from datops_assets.backup.compression import CompressingWriter
from datops_assets.backup.crc32c import Crc32c
from datops_assets.backup.destinations import Destination, Incoming
from datops_assets.backup.encryption import DecryptingReader, EncryptingWriter, Key, Keys, Reader, Writer
from datops_assets.backup.tar_stream import EntryContent, read_entries
from datops_assets.errors import BackupDamagedError, BackupError, DatopsError

_PIECE_BYTES = 1 << 17
BUNDLE_BYTES = 64 << 20
"""Smaller files travel together until they have this many bytes: a store is slow with many small objects."""


@dataclass(frozen=True)
class Member:
    """One file inside an artefact."""

    name: str
    sha256: str
    bytes: int
    crc32c: str = ""
    """As a server's manifest spells it; empty where no server names one."""


@dataclass(frozen=True)
class Artefact:
    """One file at the destinations."""

    name: str
    sha256: str
    bytes: int
    """Of the file as it is stored: packed and encrypted."""
    members: tuple[Member, ...]


class Fan:
    """Writes the same bytes to several destinations; one that fails is left out and remembered."""

    def __init__(self, destinations: Sequence[Destination], path: str, failed: dict[str, str]) -> None:
        """failed    by destination, shared by all artefacts of a backup: why it is left out"""
        self._failed = failed
        self._open: dict[str, Incoming] = {}
        self.sha256, self.bytes = hashlib.sha256(), 0
        for destination in destinations:
            if destination.name not in failed:
                self._guard(destination.name, lambda to=destination: self._begin(to, path))  # type: ignore[misc]
        self._require_one()

    def write(self, data: bytes, /) -> int:
        """Write to all that still answer. Raises BackupError: none does."""
        data = bytes(data)
        self.sha256.update(data)
        self.bytes += len(data)
        for name, incoming in list(self._open.items()):
            self._guard(name, lambda to=incoming: to.write(data))  # type: ignore[misc]
        self._require_one()
        return len(data)

    def commit(self) -> None:
        """Make the file appear everywhere."""
        for name, incoming in list(self._open.items()):
            self._guard(name, incoming.commit)
        self._require_one()

    def abandon(self) -> None:
        """Forget it everywhere."""
        for incoming in self._open.values():
            incoming.abandon()

    def _begin(self, destination: Destination, path: str) -> None:
        self._open[destination.name] = destination.create(path)

    def _guard(self, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except DatopsError as error:
            self._drop(name, str(error))
        except OSError as error:
            self._drop(name, os.strerror(error.errno) if error.errno else type(error).__name__)
        except Exception as error:
            self._drop(name, type(error).__name__)

    def _drop(self, name: str, reason: str) -> None:
        self._failed[name] = reason
        incoming = self._open.pop(name, None)
        if incoming is not None:
            incoming.abandon()

    def _require_one(self) -> None:
        if not self._open:
            said = "; ".join(f"{name}: {reason}" for name, reason in sorted(self._failed.items()))
            raise BackupError(f"no destination takes the backup ({said})")


class _Source(io.RawIOBase):
    """What pyarrow's decompressor reads from."""

    def __init__(self, source: Reader) -> None:
        super().__init__()
        self._source = source

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._source.read(size)


class _Hashing:
    """Reads through and keeps the hash and the count."""

    def __init__(self, source: Reader, crc32c: Crc32c | None = None) -> None:
        self._source, self.sha256, self.bytes, self.crc32c = source, hashlib.sha256(), 0, crc32c

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.sha256.update(data)
        if self.crc32c is not None:
            self.crc32c.update(data)
        self.bytes += len(data)
        return data


class _Output:
    """What tarfile writes to: bytes pass, and are counted."""

    name = ""

    def __init__(self, into: Writer) -> None:
        self._into, self._at = into, 0

    def write(self, data: bytes, /) -> int:
        self._into.write(data)
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at


class Packing:
    """One artefact that is being written: files are added, then it is finished or abandoned."""

    def __init__(
        self, artefact: str, place: str, destinations: Sequence[Destination], key: Key | None, failed: dict[str, str]
    ) -> None:  # fmt: skip
        """Begin it.

        place      where the artefact stands, `<backup>/<id>/<artefact>`: part of its encryption
        failed     destinations that are left out, with the reason; added to
        """
        self._name, self._fan = artefact, Fan(destinations, place, failed)
        self.members: list[Member] = []
        self.plain_bytes = 0
        """Bytes of all files so far, unpacked."""
        try:
            self._encrypting = EncryptingWriter(self._fan, key, place) if key else None
        except BaseException:
            self._fan.abandon()
            raise
        self._compressor = CompressingWriter(self._encrypting or self._fan)
        self._tar = tarfile.TarFile(
            fileobj=_Output(self._compressor),  # type: ignore[arg-type]
            mode="w",
            copybufsize=_PIECE_BYTES,
        )

    def add(self, name: str, size: int, content: Reader, *, crc32c: bool = False) -> Member:
        """Add a file of `size` bytes.

        crc32c    whether that of the file is wanted, too
        raises    BackupError: no destination is left. OSError: the content ended early
        """
        about = tarfile.TarInfo(name)
        about.size = size
        hashing = _Hashing(content, Crc32c() if crc32c else None)
        self._tar.addfile(about, hashing)
        member = Member(
            name, hashing.sha256.hexdigest(), size, hashing.crc32c.hexdigest() if hashing.crc32c else ""
        )
        self.members.append(member)
        self.plain_bytes += size
        return member

    def finish(self) -> Artefact:
        """Make it appear at every destination that still answers."""
        self._tar.close()
        self._compressor.close()
        if self._encrypting is not None:
            self._encrypting.close()
        self._fan.commit()
        return Artefact(self._name, self._fan.sha256.hexdigest(), self._fan.bytes, tuple(self.members))

    def abandon(self) -> None:
        """Forget it everywhere."""
        self._compressor.abandon()
        self._fan.abandon()


def pack(
    files: Mapping[str, Path], artefact: str, place: str, destinations: Sequence[Destination], key: Key | None,
    failed: dict[str, str],
) -> Artefact:  # fmt: skip
    """Write files as one artefact.

    files      by their name in the backup
    raises     BackupError: no destination is left. Nothing appears anywhere
    """
    packing = Packing(artefact, place, destinations, key, failed)
    try:
        for name, path in files.items():
            with path.open("rb") as file:
                packing.add(name, os.fstat(file.fileno()).st_size, file)
        return packing.finish()
    except BaseException:
        packing.abandon()
        raise


def unpack(
    source: Destination, place: str, artefact: Artefact, keys: Keys, *, encrypted: bool, into: Path | None,
    wanted: Callable[[str], bool] = lambda _: True,
) -> None:  # fmt: skip
    """Read one artefact, hold everything against the manifest, and write the wanted members into a folder.

    into       None to check only
    promise    a member is in the folder only with the content that was backed up; names that the manifest
               does not have, links and folders are refused
    raises     BackupDamagedError: anything differs
    """
    stored = _unpack(source, place, artefact.members, keys, encrypted, into, wanted)
    _require_stored(stored, artefact, place)


def unpack_alone(
    source: Destination, place: str, member: Member, keys: Keys, *, encrypted: bool, into: Path | None
) -> None:
    """Read an artefact of one file that no manifest lists: its name says what is in it.

    promise    as `unpack`
    raises     BackupDamagedError: anything differs
    """
    _unpack(source, place, [member], keys, encrypted, into, lambda _: True)


def _unpack(
    source: Destination, place: str, members: Sequence[Member], keys: Keys, encrypted: bool, into: Path | None,
    wanted: Callable[[str], bool],
) -> _Hashing:  # fmt: skip
    with _reading(source, place) as file:
        stored = _Hashing(file)
        expected = {member.name: member for member in members}
        try:
            with _opened(stored, keys, place, encrypted=encrypted) as entries:
                for about, content in entries:
                    member = expected.pop(about.name, None)
                    if member is None or not about.isreg() or about.size != member.bytes:
                        raise BackupDamagedError(
                            f"{place} holds {about.name!r}, which the manifest does not know so"
                        )
                    _keep(content, member, place, into if into and wanted(about.name) else None)
            while stored.read(_PIECE_BYTES):
                pass
        except (tarfile.TarError, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise BackupDamagedError(f"{place} cannot be unpacked: it was changed or cut off") from None
    if expected:
        raise BackupDamagedError(f"{place} lacks {', '.join(sorted(expected)[:3])}")
    return stored


def check_stored(source: Destination, place: str, artefact: Artefact) -> None:
    """Hold the stored bytes against the manifest; needs no key. Raises BackupDamagedError."""
    with _reading(source, place) as file:
        stored = _Hashing(file)
        while stored.read(_PIECE_BYTES):
            pass
    _require_stored(stored, artefact, place)


def _require_stored(stored: _Hashing, artefact: Artefact, place: str) -> None:
    if stored.bytes != artefact.bytes:
        raise BackupDamagedError(f"{place} has {stored.bytes} bytes, expected {artefact.bytes}")
    if stored.sha256.hexdigest() != artefact.sha256:
        raise BackupDamagedError(f"{place} is not what was written: its SHA-256 differs")


@contextmanager
def _reading(source: Destination, place: str) -> Iterator[IO[bytes]]:
    try:
        file = source.open(place)
    except FileNotFoundError:
        raise BackupDamagedError(f"{place} is missing at the destination {source.name}") from None
    with file:
        yield file


@contextmanager
def _opened(
    stored: Reader, keys: Keys, place: str, *, encrypted: bool
) -> Iterator[Iterator[tuple[tarfile.TarInfo, EntryContent]]]:
    import pyarrow as pa

    plain: Reader = DecryptingReader(stored, keys, place) if encrypted else stored
    with pa.CompressedInputStream(pa.PythonFile(_Source(plain), mode="r"), "zstd") as unpacked:
        yield read_entries(unpacked)
        while unpacked.read(_PIECE_BYTES):
            pass


def _keep(content: EntryContent, member: Member, place: str, folder: Path | None) -> None:
    """Hash a member; write it under another name first, so that only a right one has its own."""
    digest = hashlib.sha256()
    part = folder / f"{member.name}.part" if folder else None
    if part is not None:
        part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") if part else io.BytesIO() as out:
        while data := content.read(_PIECE_BYTES):
            digest.update(data)
            if part is not None:
                out.write(data)
    if digest.hexdigest() != member.sha256:
        if part is not None:
            part.unlink()
        raise BackupDamagedError(f"{member.name} in {place} is not what was backed up: its SHA-256 differs")
    if part is not None and folder is not None:
        part.rename(folder / member.name)


def bundle(files: Mapping[str, Path]) -> list[dict[str, Path]]:
    """Share files out to artefacts: large ones alone, small ones together, in order."""
    bundles: list[dict[str, Path]] = []
    together: dict[str, Path] = {}
    held = 0
    for name, path in files.items():
        size = path.stat().st_size
        if size >= BUNDLE_BYTES:
            bundles.append({name: path})
            continue
        if held + size > BUNDLE_BYTES and together:
            bundles.append(together)
            together, held = {}, 0
        together[name] = path
        held += size
    return [*bundles, together] if together else bundles
