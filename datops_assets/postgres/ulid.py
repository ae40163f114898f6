"""ULIDs: names for rows of the catalogue that sort by time and can be said on the phone."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U


def new_ulid() -> str:
    """26 characters: 48 bits of milliseconds since 1970, then 80 random bits."""
    return encode_ulid(time.time_ns() // 1_000_000, secrets.randbits(80))


def encode_ulid(time_ms: int, randomness: int) -> str:
    """The text form of one ULID."""
    number = time_ms << 80 | randomness
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -5, -5))
