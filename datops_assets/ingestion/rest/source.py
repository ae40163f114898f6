"""An API as a source: a unit is what one reading brings, from the watermark on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial

from datops_assets.errors import DatopsError, FileChangedError, SourceRefusedError
from datops_assets.ingestion.json_text import object_members
from datops_assets.ingestion.kept import KeptPortions
from datops_assets.ingestion.rest.client import Client
from datops_assets.ingestion.rest.incremental import Position
from datops_assets.ingestion.rest.page import Page
from datops_assets.ingestion.rest.reading import Reading, label_of
from datops_assets.ingestion.rest.spool import Spool, SpooledLines, Write
from datops_assets.ingestion.rest.tables import Api, RestTable
from datops_assets.ingestion.source import Reachability, Reached, Source, TextDelivery, Unit

_RECORDS_LOOKED_AT = 100


class RestSource(Source[RestTable]):
    """Tables of one API.

    What is read whole (no `incremental`) is one unit, with one name for ever: the same answer again
    changes nothing. What is read since a watermark comes in chunks, named by where they begin.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._client = Client(api)
        self._readings: dict[str, tuple[RestTable, Position]] = {}
        self._spools: dict[tuple[str, int | None], Spool] = {}
        self._visited: dict[str, frozenset[str]] = {}
        self._kept: KeptPortions | None = None

    def keep_in(self, kept: KeptPortions) -> None:
        """Keep portions of what is read whole, so that a reading that was cut off can be gone on with."""
        self._kept = kept

    def check(self, table: RestTable) -> Reachability:
        """Ask for the first page; where asking could change something, connect only."""
        label = label_of(self._client.base, table)
        try:
            if table.method in ("PUT", "DELETE"):
                self._client.connect(label)
                return Reachability(True, f"{label}: there is somebody; {table.method} itself was not tried")
            page = self._first_page(table)
        except DatopsError as error:
            return Reachability(False, str(error))
        count = len(page.records)
        return Reachability(True, f"{label}: {count} record{'' if count == 1 else 's'} on the first page")

    def list_units(self, table: RestTable, watermark: str | None = None) -> Sequence[Unit]:
        """Name what would be read next; whether anything is there only reading it tells. Connects, asks nothing."""
        position = Position.of(watermark)
        path = _path_of(table, watermark)
        self._forget(path)
        self._readings[path] = (table, position)
        label = label_of(self._client.base, table)
        if position.place is None:
            self._client.connect(label)
            self._visited[table.name] = frozenset()
        return [Unit(path, "jsonl", 0, None, location=label)]

    def open(self, unit: Unit) -> TextDelivery:
        """Open a unit; it is read from the API once, then from disk."""
        key = (unit.path, unit.most_rows)
        if key not in self._spools:
            self._spools[key] = Spool(partial(self._read, *key))
        return SpooledLines(self._spools[key])

    def sketch(self, table: RestTable) -> list[str]:
        """Name the members of the first page's records, in the order they come."""
        names: dict[str, None] = {}
        for raw in self._first_page(table).raws[:_RECORDS_LOOKED_AT]:
            try:
                members = object_members(raw.decode())
            except (ValueError, RecursionError):
                continue
            names.update((name, None) for name, _ in members)
        return list(names)

    def acknowledge(self, unit: Unit) -> None:
        """Let go of what was kept of it."""
        self._forget(unit.path)

    def close(self) -> None:
        """Close connections, and let go of what was kept."""
        for path in [path for path, _ in self._spools]:
            self._forget(path)
        self._client.close()

    def _first_page(self, table: RestTable) -> Page:
        place = table.pagination.first()
        return Reading(self._client, table, Position(), frozenset(), concurrency=1).page_at(place)

    def _read(self, path: str, most_rows: int | None, write: Write) -> Reached:
        """Read a unit; pages it has been to count as visited once all of it is there."""
        table, position = self._readings[path]
        if table.incremental is None and most_rows is None and self._kept is not None:
            return self._read_whole(table, self._kept, write)
        visited = self._visited.get(table.name, frozenset())
        reading = Reading(
            self._client,
            table,
            position,
            visited,
            concurrency=self._api.concurrency,
            most_rows=most_rows,
        )
        reached = reading.write(write)
        self._visited[table.name] = reading.visited
        return reached

    def _read_whole(self, table: RestTable, kept: KeptPortions, write: Write) -> Reached:
        """Read all pages, those that an earlier reading kept from the warehouse."""
        portions = _Portions(kept, hashlib.sha256(f"{self._api.url} {table.question}".encode()).hexdigest())
        position, first = self._going_on(table, portions)
        for lines in portions.before():
            write(lines)

        def also_kept(lines: bytes) -> None:
            write(lines)
            portions.add(lines)

        reading = Reading(
            self._client,
            table,
            position,
            frozenset(),
            concurrency=self._api.concurrency,
            keep=portions.keep,
        )
        try:
            return reading.write(also_kept, first)
        except FileChangedError:
            kept.forget()  # what was kept is not of one state any more
            raise

    def _going_on(self, table: RestTable, portions: _Portions) -> tuple[Position, Page | None]:
        """Return where the reading goes on, and the page there; at the beginning where the API forgot the place."""
        position = portions.position()
        if position.place is None:
            return position, None
        reading = Reading(self._client, table, position, frozenset(), concurrency=1)
        try:
            return position, reading.page_at(position.place)
        except SourceRefusedError:
            # Whether the place is gone or we are not let in any more, the first page tells.
            begin = table.pagination.first()
            page = Reading(self._client, table, Position(), frozenset(), concurrency=1).page_at(begin)
            portions.begin()
            return Position(), page

    def _forget(self, path: str) -> None:
        for key in [key for key in self._spools if key[0] == path]:
            self._spools.pop(key).close()


class _Portions:
    """The portions of one whole reading: those before it, and the one that is growing."""

    def __init__(self, kept: KeptPortions, question: str) -> None:
        self._kept = kept
        self._question = question
        self._parts = 0
        self._place: str | None = None
        if last := kept.last(question):
            self._parts, self._place = last
        self._growing: list[bytes] = []

    def position(self) -> Position:
        """Return where the reading goes on."""
        return Position.of(self._place)

    def begin(self) -> None:
        """Take no notice of those before; they go with the first one that is kept, or with the load."""
        self._parts = 0

    def before(self) -> Iterator[bytes]:
        """Yield what an earlier reading kept."""
        return self._kept.lines(self._parts)

    def add(self, lines: bytes) -> None:
        """Take lines into the portion that is growing."""
        self._growing.append(lines)

    def keep(self, position: Position) -> None:
        """Keep the portion, together with the place after it."""
        self._parts += 1
        self._kept.keep(self._parts, self._question, position.text(), b"".join(self._growing))
        self._growing.clear()


def _path_of(table: RestTable, watermark: str | None) -> str:
    if table.incremental is None:
        return table.name
    begins = "start" if watermark is None else hashlib.sha256(watermark.encode()).hexdigest()[:12]
    return f"{table.name}@{begins}"
