"""From page to page: one chunk of an API's records, written as lines, and where the next one begins."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any
from urllib.parse import quote

import httpx

from datops_assets.errors import ContainerDamagedError, FileChangedError, SourceRefusedError
from datops_assets.ingestion.rest.client import Client, Request
from datops_assets.ingestion.rest.incremental import Position, digest_of, follow, page_digest, since
from datops_assets.ingestion.rest.page import Page, read_page
from datops_assets.ingestion.rest.pagination import Place
from datops_assets.ingestion.rest.spool import Write
from datops_assets.ingestion.rest.tables import ChunkLimits, RestTable
from datops_assets.ingestion.source import Reached

KeepPortion = Callable[[Position], None]
_EVERYTHING = ChunkLimits(pages=2**62, size_bytes=2**62, seconds=float("inf"))


class Reading:
    """One reading of a table, from a position on.

    visited    hashes of the places that this reading, and the chunks before it, have been to
    keep       takes the place after each portion of a whole reading; None: it has but its end
    """

    def __init__(
        self,
        client: Client,
        table: RestTable,
        position: Position,
        visited: frozenset[str],
        *,
        concurrency: int,
        most_rows: int | None = None,
        keep: KeepPortion | None = None,
    ) -> None:
        self._client = client
        self._table = table
        self._position = position
        self.visited = visited
        self._label = label_of(client.base, table)
        self._concurrency = concurrency
        self._rows_left = most_rows
        self._keep = keep if table.incremental is None else None
        self._limits = table.limits if table.incremental else table.portions if self._keep else _EVERYTHING

    def write(self, write: Write, first: Page | None = None) -> Reached:
        """Read until the end, or until the chunk is full, and write each record as a line.

        first      the page that it goes on with, where that was asked for already
        returns    the place that comes next, and whether it is there right now
        raises     SourceUnreachableError, SourceRefusedError, ContainerDamagedError;
                   FileChangedError: what there is changed while it was read page by page
        """
        place: Place | None = self._position.place or self._table.pagination.first()
        began, pages, size = time.monotonic(), 0, 0
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="datops-rest") as pool:
            ahead = _Ahead(pool, self.page_at, self._concurrency)
            try:
                while place is not None:
                    self._visit(place)
                    page, first = first or ahead.take(place), None
                    pages, size = pages + 1, size + page.size_bytes
                    following = self._following(place, page)
                    is_full = (
                        pages >= self._limits.pages
                        or size >= self._limits.size_bytes
                        or time.monotonic() - began >= self._limits.seconds
                    )
                    if following is not None and not is_full and self._rows_left is None:
                        more = self._table.pagination.ahead(place, page)
                        ahead.ask_for(following, more, self._limits.pages - pages)
                    self._write_page(page, write)
                    place = following
                    if self._rows_left == 0 or (is_full and self._keep is None):
                        break
                    if is_full and self._keep is not None and place is not None:
                        self._keep(replace(self._position, place=place))
                        began, pages, size = time.monotonic(), 0, 0
            finally:
                ahead.stop()
        return self._reached(place)

    def page_at(self, place: Place) -> Page:
        """Ask for one page."""
        table = self._table

        def read(answer: Any) -> Page:
            return read_page(
                answer.body, answer.headers, answer.url, records=table.records, single=table.single
            )

        return self._client.ask(self._request(place), read)

    def _request(self, place: Place) -> Request:
        table = self._table
        asked: dict[str, Any] = {**table.pagination.parameters(place)}
        address = table.pagination.address(place)
        if table.incremental is not None and address is None:
            start = since(table.incremental, self._position)
            if start is not None:
                asked[table.incremental.param] = start
        return request_of(self._client.base, table, asked, address)

    def _visit(self, place: Place) -> None:
        key = digest_of(
            repr(sorted((name, value) for name, value in place.items() if name != "read")).encode()
        )
        if key in self.visited:
            raise SourceRefusedError(
                f"{self._label}: its pages lead back to one that was read already, so they"
                " would never end; check `pagination`"
            )
        self.visited |= {key}

    def _following(self, place: Place, page: Page) -> Place | None:
        with self._labelled():
            following = self._table.pagination.following(place, page)
            total = self._table.pagination.total(page)
        if following is not None and "url" in following:
            following["url"] = self._client.shown(following["url"])
        if total is None:
            return following
        read = place["read"] + len(page.records)
        before = self._position.total
        if (before is not None and total < before) or (following is None and read < total):
            raise FileChangedError(
                f"{self._label}: what there is became less while it was read page by page,"
                " so records may have been passed over; nothing of it was kept, try again"
            )
        self._position = replace(self._position, total=total)
        return following

    def _write_page(self, page: Page, write: Write) -> None:
        raws = page.raws
        if raws:
            digest = page_digest(raws)
            if digest == self._position.last_page:
                raise SourceRefusedError(
                    f"{self._label}: one page after the other holds the same records, so it"
                    " seems to take no notice of what page is asked for; check `pagination`"
                )
            self._position = replace(self._position, last_page=digest)
        if self._table.incremental is not None:
            seen = self._position.seen
            pairs = list(zip(page.records, raws, strict=True))
            with self._labelled():
                self._position = follow(self._table.incremental, self._position, pairs)
            if seen:
                raws = [raw for raw in raws if digest_of(raw) not in seen]
        if self._rows_left is not None:
            raws = raws[: self._rows_left]
            self._rows_left -= len(raws)
        if raws:
            write(b"\n".join(raws) + b"\n")

    @contextmanager
    def _labelled(self) -> Iterator[None]:
        """Name the endpoint in what is said of one of its pages."""
        try:
            yield
        except ContainerDamagedError as error:
            raise ContainerDamagedError(f"{self._label}: {error}") from None

    def _reached(self, place: Place | None) -> Reached:
        if self._table.incremental is None:
            return Reached()
        if place is None:
            return Reached(self._position.finished().text())
        return Reached(replace(self._position, place=place).text(), has_more=self._rows_left is None)


class _Ahead:
    """Pages that were asked for before their turn; they are taken in order."""

    def __init__(self, pool: ThreadPoolExecutor, ask: Callable[[Place], Page], depth: int) -> None:
        self._pool = pool
        self._ask = ask
        self._depth = depth
        self._waiting: deque[tuple[Place, Future[Page]]] = deque()

    def take(self, place: Place) -> Page:
        """Return the page at a place; what was asked for in vain is dropped."""
        while self._waiting:
            known, page = self._waiting.popleft()
            if known == place:
                return page.result()
            page.cancel()
        return self._ask(place)

    def ask_for(self, following: Place, more: Iterable[Place], most: int) -> None:
        """Have the following page fetched, and those after it as far as they are known and wanted."""
        known = [place for place, _ in self._waiting]
        for place in (following, *islice(more, self._depth - 1)):
            if len(self._waiting) >= min(self._depth, most):
                return
            if place not in known:
                self._waiting.append((place, self._pool.submit(self._ask, place)))

    def stop(self) -> None:
        """Ask for nothing more."""
        for _, page in self._waiting:
            page.cancel()


def label_of(base: httpx.URL, table: RestTable) -> str:
    """Return what messages call an endpoint: host and path as declared, no parameter."""
    port = f":{base.port}" if base.port else ""
    return f"{table.method} {base.host}{port}{_joined(base.path, table.path)}"


def request_of(base: httpx.URL, table: RestTable, asked: Mapping[str, Any], address: str | None) -> Request:
    """Return the request for one page. Pure.

    asked      parameters of the page and of what is new
    address    the page's own address, as the page before gave it
    raises     SourceRefusedError: that address is another host's
    """
    label = label_of(base, table)
    if address is not None:
        return Request(table.method, _own(base, httpx.URL(address), label), label, (), _body(table, {}))
    path = table.path
    for name, value in table.path_params.items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
    raw_path = quote(_joined(base.path, path), safe="/%:@!$&'()*+,;=~")
    url = base.copy_with(raw_path=raw_path.encode())
    if table.parameters_in == "body":
        return Request(table.method, url, label, _pairs(table.params), _body(table, asked))
    return Request(table.method, url, label, _pairs({**table.params, **asked}), _body(table, {}))


def _joined(base: str, path: str) -> str:
    return f"{base.rstrip('/')}/{path.lstrip('/')}" if path.strip("/") else base


def _body(table: RestTable, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    if table.body is None and not asked:
        return None
    return {**(table.body or {}), **asked}


def _pairs(params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, str(one).lower() if isinstance(one, bool) else str(one))
        for name, value in params.items()
        for one in (value if isinstance(value, list | tuple) else [value])
    )


def _own(base: httpx.URL, url: httpx.URL, label: str) -> httpx.URL:
    """Return a next page's address, by the API's own scheme: behind a proxy an API often does not know it."""
    if url.scheme not in ("http", "https") or url.host != base.host:
        raise SourceRefusedError(
            f"{label}: the address of the next page is another host's, which our credentials are not for;"
            " check `pagination`"
        )
    if url.scheme != base.scheme:
        url = url.copy_with(scheme=base.scheme, port=base.port)
    if (url.port or None) != (base.port or None):
        raise SourceRefusedError(
            f"{label}: the address of the next page has another port; check `pagination`"
        )
    return url
