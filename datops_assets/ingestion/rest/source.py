"""An API as a source: a unit is what one reading brings, from the watermark on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from datops_assets.errors import DatopsError
from datops_assets.ingestion.json_text import object_members
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

    def _forget(self, path: str) -> None:
        for key in [key for key in self._spools if key[0] == path]:
            self._spools.pop(key).close()


def _path_of(table: RestTable, watermark: str | None) -> str:
    if table.incremental is None:
        return table.name
    begins = "start" if watermark is None else hashlib.sha256(watermark.encode()).hexdigest()[:12]
    return f"{table.name}@{begins}"
