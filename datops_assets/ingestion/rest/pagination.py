"""Where the next page is: from a page to the place of the one after it. Pure.

A place is a small JSON object, so that it can be kept in the catalogue and gone on from after days.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from datops_assets.errors import ContainerDamagedError
from datops_assets.ingestion.rest.page import Page, value_at

Place = dict[str, Any]
"""Which page: a number, an offset, a cursor or an address, and how many records came before it."""


@dataclass(frozen=True)
class Pagination(ABC):
    """One way of going from page to page."""

    def first(self) -> Place:
        """Return the place of the first page."""
        return {"read": 0}

    @abstractmethod
    def parameters(self, place: Place) -> dict[str, Any]:
        """Return the parameters that ask for the page there."""

    def address(self, place: Place) -> str | None:
        """Return the page's own address, where it has one that replaces the endpoint's."""
        return None

    @abstractmethod
    def following(self, place: Place, page: Page) -> Place | None:
        """Return the place after this page; None: it was the last."""

    def ahead(self, place: Place, page: Page) -> Iterator[Place]:
        """Yield the places after the next one, as far as they are known without asking for it."""
        return iter(())

    def total(self, page: Page) -> int | None:
        """Return how many records the API says there are in all; None: it does not say."""
        return None


@dataclass(frozen=True)
class SinglePage(Pagination):
    """One answer is all."""

    def parameters(self, place: Place) -> dict[str, Any]:
        """None."""
        return {}

    def following(self, place: Place, page: Page) -> Place | None:
        """There is none."""
        return None


@dataclass(frozen=True)
class _Counted(Pagination):
    """Pages that are reached by counting, so that many can be asked for at once where a total is known."""

    param: str
    start: int
    size_param: str | None = None
    size: int | None = None
    total_path: str | None = None
    total_header: str | None = None
    stop: Literal["empty", "short"] = "empty"
    """Which page is the last where no total is known: one without records, or one that is not full."""

    def first(self) -> Place:
        """Return where counting begins."""
        return {"at": self.start, "read": 0}

    def parameters(self, place: Place) -> dict[str, Any]:
        """Return the number, and the size where one is asked for."""
        asked = {self.param: place["at"]}
        return asked | ({self.size_param: self.size} if self.size_param else {})

    def following(self, place: Place, page: Page) -> Place | None:
        """Return the next number, unless all that there is was read."""
        count, read = len(page.records), place["read"] + len(page.records)
        total = self.total(page)
        if count == 0 or (total is not None and read >= total):
            return None
        if total is None and self.stop == "short" and self.size is not None and count < self.size:
            return None
        return {"at": place["at"] + self._step(count), "read": read}

    def ahead(self, place: Place, page: Page) -> Iterator[Place]:
        """Yield what follows, if every page is as long as this one."""
        count, total = len(page.records), self.total(page)
        if not count or total is None:
            return
        number = 2
        while (read := place["read"] + number * count) < total:
            yield {"at": place["at"] + number * self._step(count), "read": read}
            number += 1

    def total(self, page: Page) -> int | None:
        """Return it from the body or a header, where it was declared to stand."""
        if self.total_header is not None:
            said: Any = page.headers.get(self.total_header)
        elif self.total_path is not None:
            said = value_at(page.document, self.total_path)
        else:
            return None
        try:
            return int(said)
        except (TypeError, ValueError, OverflowError):
            where = f"header {self.total_header}" if self.total_header else repr(self.total_path)
            raise ContainerDamagedError(
                f"the answer has no number of records at {where}; correct `pagination.total`,"
                " or leave it out to read until a page is empty"
            ) from None

    @abstractmethod
    def _step(self, count: int) -> int: ...


@dataclass(frozen=True)
class PageNumber(_Counted):
    """Pages have numbers."""

    param: str = "page"
    start: int = 1

    def _step(self, count: int) -> int:
        return 1


@dataclass(frozen=True)
class Offset(_Counted):
    """Pages begin after so many records; however short one is, the next begins right behind it."""

    param: str = "offset"
    start: int = 0

    def _step(self, count: int) -> int:
        return count


@dataclass(frozen=True)
class Cursor(Pagination):
    """A page names the next one by a word, or its last record does."""

    param: str = "cursor"
    next: str | None = None
    """Dotted path to the next cursor in the body."""
    last: str | None = None
    """Dotted path in the last record whose value is the next cursor."""
    more: str | None = None
    """Dotted path in the body to whether there is more."""
    size_param: str | None = None
    size: int | None = None

    def parameters(self, place: Place) -> dict[str, Any]:
        """Return the cursor, none for the first page."""
        asked = {self.param: place["cursor"]} if "cursor" in place else {}
        return asked | ({self.size_param: self.size} if self.size_param else {})

    def following(self, place: Place, page: Page) -> Place | None:
        """Return the next cursor; the end is a missing, null or empty one."""
        if self.more is not None and not value_at(page.document, self.more):
            return None
        if self.last is None:
            cursor = value_at(page.document, self.next or "")
        else:
            cursor = value_at(page.records[-1], self.last) if page.records else None
        if cursor is None or cursor == "" or cursor is False:
            return None
        if not isinstance(cursor, str | int | float):
            raise ContainerDamagedError(
                f"the cursor at {self.last or self.next!r} is no text and no number; correct `pagination`"
            )
        return {"cursor": cursor, "read": place["read"] + len(page.records)}


@dataclass(frozen=True)
class NextUrl(Pagination):
    """The body has the next page's address."""

    next: str = "next"
    size_param: str | None = None
    size: int | None = None

    def parameters(self, place: Place) -> dict[str, Any]:
        """Return the size for the first page; an address has all it needs."""
        return {self.size_param: self.size} if self.size_param and "url" not in place else {}

    def address(self, place: Place) -> str | None:
        """Return the address that the page before gave."""
        return place.get("url")

    def following(self, place: Place, page: Page) -> Place | None:
        """Return the address; the end is a missing, null or empty one."""
        url = self._url(page)
        if url is None or url == "":
            return None
        if not isinstance(url, str):
            raise ContainerDamagedError(f"what is at {self.next!r} is no address; correct `pagination.next`")
        return {"url": page.absolute(url), "read": place["read"] + len(page.records)}

    def _url(self, page: Page) -> Any:
        return value_at(page.document, self.next)


@dataclass(frozen=True)
class LinkHeader(NextUrl):
    """The header `Link` has the next page's address, as `rel="next"`."""

    def _url(self, page: Page) -> Any:
        return page.link_next()
