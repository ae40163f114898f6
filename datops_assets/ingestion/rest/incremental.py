"""What is new since the last reading: the highest value seen, and the place in a reading that goes on. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from datops_assets.errors import ContainerDamagedError
from datops_assets.ingestion.rest.page import value_at
from datops_assets.ingestion.rest.pagination import Place

MOST_SEEN = 500
"""Records at the edge that are remembered, so that they are not loaded again; 30 bytes each in the catalogue."""
_DIGITS = 16
Value = str | int | float


@dataclass(frozen=True)
class Incremental:
    """How only what is new is asked for."""

    param: str
    """The parameter that takes the highest value seen."""
    field: str
    """Dotted path of that value in a record: a time or a number that only grows."""
    start: Value | None = None
    """What the first reading asks for; None: everything."""
    lookback: float = 0
    """How far before the highest value to ask: seconds for times, else in the field's own unit."""


@dataclass(frozen=True)
class Position:
    """How far a table is read; kept as JSON text, the watermark."""

    high: Value | None = None
    """Highest value of all readings that came to their end."""
    place: Place | None = None
    """The page at which a reading goes on; None: it begins."""
    running: Value | None = None
    """Highest value of the reading that is under way."""
    seen: tuple[str, ...] = ()
    """Short hashes of the records from the edge of the last reading, which come again."""
    edge: tuple[tuple[Value, str], ...] = ()
    """Those of the reading that is under way, with their values."""
    last_page: str | None = None
    """Hash of the last page, to notice one that comes for ever."""
    total: int | None = None
    """How many records there were in all when that page came; None: the API does not say."""

    def text(self) -> str:
        """Return it as the watermark."""
        kept = {name: value for name, value in vars(self).items() if value not in (None, ())}
        return json.dumps(kept, separators=(",", ":"))

    @classmethod
    def of(cls, watermark: str | None) -> Position:
        """Return it from the watermark; None: nothing was read yet."""
        kept = json.loads(watermark) if watermark else {}
        edge = tuple((value, digest) for value, digest in kept.pop("edge", ()))
        return cls(**{**kept, "seen": tuple(kept.pop("seen", ())), "edge": edge})

    def finished(self) -> Position:
        """Return where the next reading begins, once this one came to its end."""
        high = self.high if self.running is None else _higher(self.high, self.running)
        return Position(high=high, seen=tuple(digest for _, digest in self.edge))


def since(incremental: Incremental, position: Position) -> Value | None:
    """Return what to ask for: the highest value seen, less the lookback; None: everything."""
    if position.high is None:
        return incremental.start
    return earlier(position.high, incremental.lookback)


def follow(incremental: Incremental, position: Position, records: Iterable[tuple[Any, bytes]]) -> Position:
    """Take the records of a page into account: the highest value, and which ones are at the edge.

    records    each as Python's value and as its own text
    raises     ContainerDamagedError: not one of them has a value there, or they cannot be compared
    """
    valued, count = [], 0
    for record, raw in records:
        count += 1
        value = value_at(record, incremental.field)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
            valued.append((value, raw))
    if not valued:
        if count:
            raise ContainerDamagedError(
                f"no record of the page has a text or a number at {incremental.field!r}; correct `incremental.field`"
            )
        return position
    running = position.running
    for value, _ in valued:
        running = _higher(running, value)
    assert running is not None
    from_ = _order(earlier(running, incremental.lookback))
    kept = [(value, digest) for value, digest in position.edge if _order(value) >= from_]
    kept += [(value, digest_of(raw)) for value, raw in valued if _order(value) >= from_]
    edge = tuple(dict.fromkeys(kept))
    return replace(position, running=running, edge=edge[-MOST_SEEN:])


def digest_of(raw: bytes) -> str:
    """Return a short hash of a record's text."""
    return hashlib.sha256(raw).hexdigest()[:_DIGITS]


def page_digest(raws: Sequence[bytes]) -> str:
    """Return a short hash of a page's records."""
    return digest_of(b"\n".join(raws))


def earlier(value: Value, by: float) -> Value:
    """Return a value that lies so much before another, written the same way."""
    if not by:
        return value
    if not isinstance(value, str):
        less = Decimal(str(value)) - Decimal(str(by))
        return int(less) if less == less.to_integral_value() else float(less)
    rank, _ = _order(value)
    if rank == 0:
        return format(Decimal(value) - Decimal(str(by)), "f")
    if rank == 1:
        when = datetime.fromisoformat(value) - timedelta(seconds=by)
        if ":" not in value:
            return when.date().isoformat()
        text = when.isoformat(sep="T" if "T" in value else " ")
        return text.replace("+00:00", "Z") if value.endswith("Z") else text
    return value


def _higher(one: Value | None, other: Value) -> Value:
    if one is None:
        return other
    (kind, first), (other_kind, second) = _order(one), _order(other)
    if kind != other_kind:
        raise ContainerDamagedError(
            "the values of `incremental.field` are of different kinds (numbers, times, texts), so none is the highest;"
            " take another field"
        )
    return other if second > first else one


def _order(value: Value) -> tuple[int, Any]:
    """Return what values are compared by: numbers as numbers, times as times, else texts as they are."""
    try:
        number = Decimal(str(value))
        if number.is_finite():
            return 0, number
    except InvalidOperation:
        pass
    text = str(value)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return 2, text
    return 1, when if when.tzinfo else when.replace(tzinfo=UTC)
