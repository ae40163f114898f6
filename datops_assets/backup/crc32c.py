"""CRC-32C, PostgreSQL's own checksum of the files of a base backup, by the processor's instruction for it."""

from __future__ import annotations

import google_crc32c


class Crc32c:
    """The checksum of what it was given, as `hashlib` has others."""

    def __init__(self) -> None:
        self._digest = google_crc32c.Checksum()  # type: ignore[no-untyped-call]

    def update(self, data: bytes, /) -> None:
        """Go on with these bytes."""
        self._digest.update(data)  # type: ignore[no-untyped-call]

    def hexdigest(self) -> str:
        """As PostgreSQL prints it: the bytes as they lie in memory, the least significant first."""
        return bytes(self._digest.digest()[::-1]).hex()  # type: ignore[no-untyped-call]
