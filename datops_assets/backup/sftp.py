"""Backups on an SFTP server: a file has its name only when it is whole, as on a disk of this machine."""

from __future__ import annotations

import io
import posixpath
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import PurePosixPath
from typing import IO, Any, cast

import paramiko

from datops_assets.backup.destinations import MANIFEST, Destination, Incoming, explained
from datops_assets.errors import BackupRefusedError, SourceUnreachableError
from datops_assets.resources.sftp import connect_ssh, open_channel, way_of

_ASKED_BYTES = 32 << 10
"""The most that every server answers with at once."""
_WINDOW = 64
"""Pieces that are asked for before the first has come: a distant server is not waited for piece by piece."""


class SftpDestination(Destination):
    """A folder of an SFTP server. Nobody is asked before the first file is wanted."""

    def __init__(self, name: str, url: str, options: Mapping[str, Any]) -> None:
        """options    as `connect_ssh` takes them"""
        super().__init__(name)
        self._url = url
        self._host, self._root, self._options = way_of(url, dict(options))
        self._client: paramiko.SSHClient | None = None
        self._lock = threading.Lock()

    @property
    def shown(self) -> str:
        """The URL as it is written."""
        return self._url

    def create(self, path: str) -> Incoming:
        """Begin a file beside its place."""
        target = self._path(path)
        with self._talking():
            ftp = self._channel()
            try:
                _make_folders(ftp, posixpath.dirname(target))
                return _IncomingSftp(self, ftp, target)
            except BaseException:
                ftp.close()
                raise

    def open(self, path: str) -> IO[bytes]:
        """Open a file."""
        with self._talking():
            ftp = self._channel()
            try:
                return cast("IO[bytes]", _Outgoing(self, ftp, self._path(path)))
            except BaseException:
                ftp.close()
                raise

    def list_files(self, folder: str) -> dict[str, int]:
        """Every regular file below; links are none of ours."""
        top = self._path(folder)
        with self._session() as ftp:
            return dict(sorted((path.removeprefix(f"{top}/"), size) for path, size in _files_below(ftp, top)))

    def list_folders(self, folder: str) -> list[str]:
        """Names of the folders."""
        with self._session() as ftp:
            return sorted(
                one.filename for one in _entries(ftp, self._path(folder)) if stat.S_ISDIR(one.st_mode or 0)
            )

    def remove(self, folder: str) -> None:
        """Remove it; the manifest first."""
        top = self._path(folder)
        with self._session() as ftp:
            with suppress(FileNotFoundError):
                ftp.remove(f"{top}/{MANIFEST}")
            _remove_tree(ftp, top)

    def remove_file(self, path: str) -> None:
        """Remove it."""
        with self._session() as ftp, suppress(FileNotFoundError):
            ftp.remove(self._path(path))

    def free_bytes(self) -> int | None:
        """Nobody knows."""
        return None

    @contextmanager
    def _session(self) -> Iterator[paramiko.SFTPClient]:
        with self._talking(), closing(self._channel()) as ftp:
            yield ftp

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Say what went wrong in our words; the next one connects anew."""
        try:
            with explained(self), _refusals(self):
                yield
        except (BackupRefusedError, SourceUnreachableError):
            with self._lock:
                client, self._client = self._client, None
            if client is not None:
                client.close()
            raise

    def _channel(self) -> paramiko.SFTPClient:
        """A session of its own: answers that two threads wait for on one would get lost."""
        with self._lock:
            if self._client is None:
                self._client = connect_ssh(self._host, **self._options)
            return open_channel(self._client)

    def _path(self, path: str) -> str:
        if not path or ".." in PurePosixPath(path).parts or path.startswith("/"):
            raise BackupRefusedError(f"{path!r} leads out of the destination {self.name}")
        return f"{self._root}/{path}"


@contextmanager
def _refusals(destination: Destination) -> Iterator[None]:
    where = f"the destination {destination.name} ({destination.shown})"
    try:
        yield
    except paramiko.AuthenticationException:
        raise BackupRefusedError(f"{where} refuses us; check its user, password or key") from None
    except paramiko.BadHostKeyException:
        raise BackupRefusedError(f"{where} shows another host key than the one that is known") from None
    except paramiko.SSHException as error:
        if "not found in known_hosts" in str(error):
            raise BackupRefusedError(
                f"{where} has a host key that nobody knows; look at it, then: ssh-keyscan HOST >> ~/.ssh/known_hosts"
            ) from None
        raise


class _IncomingSftp(Incoming):
    def __init__(self, of: SftpDestination, ftp: paramiko.SFTPClient, target: str) -> None:
        self._of, self._ftp, self._target, self._part = of, ftp, target, f"{target}.part"
        self._file = ftp.open(self._part, "wb")
        self._file.set_pipelined(True)
        self._bytes = 0

    def write(self, data: bytes, /) -> object:
        with self._of._talking():
            self._file.write(data)
        self._bytes += len(data)
        return len(data)

    def commit(self) -> None:
        with self._of._talking():
            self._file.close()
            there = self._ftp.stat(self._part).st_size
            if there != self._bytes:  # answers to pipelined writes may be lost with their errors
                raise SourceUnreachableError(
                    f"the destination {self._of.name} ({self._of.shown}) has {there} bytes of {self._bytes}"
                )
            try:
                self._ftp.posix_rename(self._part, self._target)
            except OSError:  # a server without that extension gives a name only where there is none
                with suppress(FileNotFoundError):
                    self._ftp.remove(self._target)
                self._ftp.rename(self._part, self._target)
            self._ftp.close()

    def abandon(self) -> None:
        with suppress(Exception):
            self._file.close()
        with suppress(Exception):
            self._ftp.remove(self._part)
            self._ftp.rmdir(posixpath.dirname(self._part))  # goes where nothing else is in it
        with suppress(Exception):
            self._ftp.close()


class _Outgoing(io.BufferedIOBase):
    """A file that is read front to back, some pieces ahead."""

    def __init__(self, of: SftpDestination, ftp: paramiko.SFTPClient, path: str) -> None:
        super().__init__()
        self._of, self._ftp = of, ftp
        self._file = ftp.open(path, "rb")
        self._left = self._file.stat().st_size or 0
        self._at, self._held = 0, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        pieces, wanted = [], size if size is not None and size >= 0 else len(self._held) + self._left
        while wanted > 0 and (self._held or self._left):
            if not self._held:
                self._fill()
            pieces.append(self._held[:wanted])
            self._held = self._held[wanted:]
            wanted -= len(pieces[-1])
        return b"".join(pieces)

    def _fill(self) -> None:
        ahead = min(self._left, _ASKED_BYTES * _WINDOW)
        asked = [
            (self._at + begin, min(_ASKED_BYTES, ahead - begin)) for begin in range(0, ahead, _ASKED_BYTES)
        ]
        with self._of._talking():
            self._held = b"".join(self._file.readv(asked))
        if len(self._held) < ahead:  # somebody cuts it while it is read: what is there is all there is
            self._left = ahead = len(self._held)
        self._at += ahead
        self._left -= ahead

    def close(self) -> None:
        if not self.closed:
            with suppress(Exception):
                self._file.close()
            with suppress(Exception):
                self._ftp.close()
        super().close()


def _entries(ftp: paramiko.SFTPClient, folder: str) -> list[paramiko.SFTPAttributes]:
    try:
        return ftp.listdir_attr(folder)
    except FileNotFoundError:
        return []


def _files_below(ftp: paramiko.SFTPClient, folder: str) -> Iterator[tuple[str, int]]:
    for one in _entries(ftp, folder):
        path = f"{folder}/{one.filename}"
        if stat.S_ISDIR(one.st_mode or 0):
            yield from _files_below(ftp, path)
        elif stat.S_ISREG(one.st_mode or 0):
            yield path, one.st_size or 0


def _remove_tree(ftp: paramiko.SFTPClient, folder: str) -> None:
    for one in _entries(ftp, folder):
        path = f"{folder}/{one.filename}"
        if stat.S_ISDIR(one.st_mode or 0):
            _remove_tree(ftp, path)
        else:
            ftp.remove(path)
    with suppress(FileNotFoundError):
        ftp.rmdir(folder)


def _make_folders(ftp: paramiko.SFTPClient, folder: str) -> None:
    try:
        ftp.stat(folder)
    except FileNotFoundError:
        _make_folders(ftp, posixpath.dirname(folder))
        with suppress(OSError):  # another thread made it meanwhile; if nobody did, the file says so
            ftp.mkdir(folder, 0o700)
