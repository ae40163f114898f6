"""Segments of PostgreSQL's log: their names, what of the log they hold, and whether they follow one another. Pure.

source    PostgreSQL, src/include/access/xlog_internal.h
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

SEGMENT_BYTES = 16 << 20
"""Where nothing else is said: initdb --wal-segsize."""
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")


def segment_name(timeline: int, lsn: int, segment_bytes: int = SEGMENT_BYTES) -> str:
    """The file that holds the byte at `lsn`."""
    number = lsn // segment_bytes
    of_each = (1 << 32) // segment_bytes
    return f"{timeline:08X}{number // of_each:08X}{number % of_each:08X}"


def is_segment(name: str) -> bool:
    """Whether a file holds a part of the log."""
    return _SEGMENT.fullmatch(name) is not None


def is_history(name: str) -> bool:
    """Whether a file says where timelines parted."""
    return _HISTORY.fullmatch(name) is not None


def timeline_of(name: str) -> int:
    """The timeline of a segment or a history file."""
    return int(name[:8], 16)


def start_of(name: str, segment_bytes: int = SEGMENT_BYTES) -> int:
    """Where in the log a segment begins, in bytes."""
    return (int(name[8:16], 16) * ((1 << 32) // segment_bytes) + int(name[16:24], 16)) * segment_bytes


@dataclass(frozen=True)
class Parting:
    """One line of a history file: until `lsn` the log is of `timeline`, which the next one was made of."""

    timeline: int
    lsn: int


def read_history(text: str) -> list[Parting]:
    """The ancestors of a timeline, the oldest first."""
    from datops_assets.postgres.lsn import parse_lsn

    lines = [line.split("#")[0].split() for line in text.splitlines()]
    return [Parting(int(words[0]), parse_lsn(words[1])) for words in lines if len(words) >= 2]


def missing_segments(
    have: Iterable[str], timeline: int, start: int, end: int, segment_bytes: int = SEGMENT_BYTES
) -> list[str]:
    """The segments of one timeline between two places of the log that are not there, in order."""
    there = set(have)
    first, last = start // segment_bytes, max(start, end - 1) // segment_bytes
    wanted = (
        segment_name(timeline, number * segment_bytes, segment_bytes) for number in range(first, last + 1)
    )
    return [name for name in wanted if name not in there]
