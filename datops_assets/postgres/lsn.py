"""Places in PostgreSQL's write-ahead log: whole numbers of bytes inside, `16/B374D848` for people."""

from __future__ import annotations


def parse_lsn(text: str) -> int:
    """Return the byte position that PostgreSQL writes as two hexadecimal numbers."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def format_lsn(lsn: int) -> str:
    """Return a byte position as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
