"""APIs keep what every source promises, and survive what every source must."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from datops_assets.ingestion import Source, rest
from datops_assets.testing.sources import FarSide, SourceContract, SourceSuite
from datops_assets_tests.ingestion.rest.conftest import RestLab
from datops_assets_tests.ingestion.rest.server import Api, Asked, Reply

TOKEN = "right-and-secret"
PAGE = 1000


def opened(url: str, token: str, since: bool) -> tuple[Source[Any], rest.RestTable]:
    """A source and its table `people`, whole or in chunks of a few pages."""
    api = rest.Api(
        url=url,
        credentials=rest.Bearer(lambda: token),
        allow_private=True,
        timeout_s=30,
        tries=1,
        backoff_s=0.01,
    )
    table = rest.RestTable(
        source="far",
        name="people",
        path="people",
        pagination=rest.PageNumber(),
        disposition="append" if since else "replace",
        incremental=rest.Incremental("after", "id") if since else None,
        limits=rest.ChunkLimits(pages=7),
    )
    return rest.RestSource(api), table


class RestFarSide(FarSide):
    """A server of ours with people in it."""

    opener = opened

    def __init__(self, api: Api, *, since: bool) -> None:
        self._api = api
        self._since = since
        self._rows = 0
        self._note: dict[str, Any] = {}
        self._liars: list[dict[str, Any]] = []
        self.address = ("127.0.0.1", int(api.url.rpartition(":")[2]))
        self.secret = TOKEN
        api.answer = self._answer

    def _answer(self, asked: Asked) -> Any:
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return Reply(status=401)
        first = asked.number("after", 0) + (asked.number("page", 1) - 1) * PAGE
        numbers = range(first + 1, min(first + PAGE, self._rows) + 1)
        records = [{"id": number, "name": f"name {number}", **self._note} for number in numbers]
        return [*records, *self._liars] if numbers else []

    def fill(self, rows: int) -> None:
        """Hold so many."""
        self._rows = rows

    def arguments(self, address: tuple[str, int] | None = None, secret: str | None = None) -> dict[str, Any]:
        """By URL and token."""
        host, port = address or self.address or ("", 0)
        return {"url": f"http://{host}:{port}", "token": secret or TOKEN, "since": self._since}

    def add_column(self) -> bool:
        """Every record has it from now on."""
        self._note = {"note": "new"}
        return True

    def lie(self) -> str:
        """One id is no number."""
        self._liars = [{"id": "eleven", "name": "liar"}]
        return "eleven"


class TestWholeSuite(SourceSuite):
    """All pages each time."""

    @pytest.fixture
    def far(self, api: Api) -> FarSide:
        """Return the server."""
        return RestFarSide(api, since=False)


class TestRestSource(SourceContract):
    """The promises of the interface."""

    least_units = 1

    @pytest.fixture
    def source(self, lab: RestLab) -> Iterator[Source[Any]]:
        """Return a source with three pages, at addresses that are there."""

        def answer(asked: Asked) -> Any:
            page = asked.number("page", 1)
            return Reply(status=404) if asked.path != "/orders" else [{"id": page}] if page < 4 else []

        lab.api.answer = answer
        lab.declare(pagination=rest.PageNumber())
        with lab.source() as source:
            yield source

    @pytest.fixture
    def table(self, lab: RestLab) -> rest.RestTable:
        """Three pages."""
        return replace(lab.table, pagination=rest.PageNumber())

    @pytest.fixture
    def missing(self, lab: RestLab) -> rest.RestTable:
        """An address that is not there."""
        return replace(lab.table, path="nowhere")
