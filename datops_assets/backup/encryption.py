"""Authenticated encryption of a stream: AES-256-GCM in chunks, STREAM construction. Pure; no key is read here.

Each artefact has a key of its own, derived (HKDF-SHA256) from the named key, a random salt and the artefact's
place, so that a file taken from another backup, or another place in this one, does not open. Each chunk's nonce
counts, and says whether it is the last one: chunks cannot be swapped, repeated or cut off.

    header   magic 8, key id 8, salt 32, chunk bytes 4
    chunks   ciphertext and tag 16 each; the last one may be empty

source    Hoang, Reyhanitabar, Rogaway, Vizár: Online authenticated-encryption and its nonce-reuse misuse-resistance
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from datops_assets.errors import BackupDamagedError, TerminalError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MAGIC = b"dtopsbk\x01"
_HEADER = struct.Struct(">8s8s32sI")
_TAG_BYTES = 16
_CHUNK_BYTES = 1 << 18
_MOST_CHUNK_BYTES = 1 << 24
_KEY_BYTES = 32


class Writer(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object:
        """Take these bytes."""
        ...


class Reader(Protocol):
    """Where bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Give at most this many; none at the end."""
        ...


@dataclass(frozen=True)
class Key:
    """32 bytes and the name they go by."""

    name: str
    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """What tells keys apart without giving them away: 16 hexadecimal digits."""
        return hashlib.sha256(b"datops backup key id\0" + self.secret).hexdigest()[:16]

    def sign(self, text: bytes) -> str:
        """The text's HMAC-SHA256 under a key derived from this one."""
        return hmac.new(
            _derive(self.secret, b"", b"datops backup manifest"), text, hashlib.sha256
        ).hexdigest()


@dataclass(frozen=True)
class Keys:
    """The key new backups get, and those that older ones still need."""

    current: Key | None = None
    by_id: Mapping[str, Key] = field(default_factory=dict)

    @classmethod
    def of(cls, current: Key | None, *former: Key) -> Keys:
        """Put them together."""
        return cls(current, {key.id: key for key in (current, *former) if key is not None})

    def find(self, key_id: str, name: str | None = None) -> Key:
        """The key with this id.

        raises    TerminalError: there is none among those that the document names
        """
        if key_id not in self.by_id:
            called = f" (it was called {name})" if name else ""
            raise TerminalError(
                f"the key {key_id}{called} that this backup was encrypted with is not at hand;"
                " name it under encryption.former and set its variable"
            )
        return self.by_id[key_id]


def new_key() -> str:
    """A fresh key as a variable holds it: base64 of 32 random bytes."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def parse_key(name: str, text: str) -> Key:
    """Read what a variable holds.

    raises    TerminalError: it is no key. The text is not repeated
    """
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != _KEY_BYTES:
        raise TerminalError(
            f"variable {name} holds no key, expected base64 of 32 bytes; make one: datops backup key"
        )
    return Key(name, secret)


class EncryptingWriter:
    """Encrypts what is written to it; the last chunk is only known on `close`."""

    def __init__(self, into: Writer, key: Key, place: str) -> None:
        salt = secrets.token_bytes(32)
        header = _HEADER.pack(_MAGIC, bytes.fromhex(key.id), salt, _CHUNK_BYTES)
        self._into, self._cipher = into, _cipher(key, salt, header, place)
        self._buffer, self._count = bytearray(), 0
        into.write(header)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take bytes; whole chunks leave at once."""
        self._buffer += data
        while len(self._buffer) > _CHUNK_BYTES:
            chunk = bytes(self._buffer[:_CHUNK_BYTES])
            del self._buffer[:_CHUNK_BYTES]
            self._send(chunk, last=False)
        return len(data)

    def close(self) -> None:
        """Write the last chunk. What it writes into stays open."""
        self._send(bytes(self._buffer), last=True)
        self._buffer.clear()

    def _send(self, chunk: bytes, *, last: bool) -> None:
        self._into.write(self._cipher.encrypt(_nonce(self._count, last=last), chunk, None))
        self._count += 1


class DecryptingReader:
    """Decrypts what it reads; nothing leaves it that was not authenticated."""

    def __init__(self, source: Reader, keys: Keys, place: str) -> None:
        """Read the header.

        raises    BackupDamagedError: it is none of ours; TerminalError: the key is not at hand
        """
        self._source, self._place = source, place
        header = read_fully(source, _HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            raise BackupDamagedError(f"{place} does not begin as an encrypted artefact does")
        _, key_id, salt, self._chunk_bytes = _HEADER.unpack(header)
        if not 0 < self._chunk_bytes <= _MOST_CHUNK_BYTES:
            raise BackupDamagedError(f"{place} does not begin as an encrypted artefact does")
        self._cipher = _cipher(keys.find(key_id.hex()), salt, header, place)
        self._count, self._ready, self._ended = 0, memoryview(b""), False
        self._next = read_fully(source, self._chunk_bytes + _TAG_BYTES)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, none at the end; all for -1.

        raises    BackupDamagedError: a chunk was changed, moved or cut off
        """
        parts, wanted = [], size
        while wanted != 0 and (self._ready or not self._ended):
            if not self._ready:
                self._ready = memoryview(self._open_next())
                continue
            piece = self._ready if wanted < 0 else self._ready[:wanted]
            self._ready = self._ready[len(piece) :]
            parts.append(bytes(piece))
            wanted -= len(piece) if wanted > 0 else 0
            if parts and size > 0 and not self._ready:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _open_next(self) -> bytes:
        from cryptography.exceptions import InvalidTag

        chunk, self._next = self._next, b""
        if len(chunk) == self._chunk_bytes + _TAG_BYTES:
            self._next = read_fully(self._source, self._chunk_bytes + _TAG_BYTES)
        self._ended = not self._next
        try:
            opened = self._cipher.decrypt(_nonce(self._count, last=self._ended), chunk, None)
        except (InvalidTag, ValueError):
            raise BackupDamagedError(
                f"{self._place} was changed, cut off, or is another file (chunk {self._count + 1})"
            ) from None
        self._count += 1
        return opened


def read_fully(source: Reader, size: int) -> bytes:
    """Read this many bytes; fewer only at the end."""
    data = bytes(source.read(size))
    while len(data) < size and (more := source.read(size - len(data))):
        data += more
    return data


def _nonce(count: int, *, last: bool) -> bytes:
    return count.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _cipher(key: Key, salt: bytes, header: bytes, place: str) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(_derive(key.secret, salt, b"datops backup artefact\0" + header + place.encode()))


def _derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), _KEY_BYTES, salt, info).derive(secret)
